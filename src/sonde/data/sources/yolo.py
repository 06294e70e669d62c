"""Pictures with boxes as YOLO has them: a text file for every picture, a line "class x y width height" each box."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from sonde.base.config import Config
from sonde.base.errors import UserError
from sonde.base.threads import each
from sonde.contracts.records import Records
from sonde.data.source import Guess, Source
from sonde.data.sources import _boxes, _folders
from sonde.data.sources._boxes import Picture, Unlabelled, number

_YAML = frozenset({".yaml", ".yml"})
# The keys of data.yaml and the splits that they mean.
_SPLITS = {"train": "train", "val": "validation", "valid": "validation", "test": "test"}


class YoloConfig(Config):
    kind: Literal["yolo"] = "yolo"
    unlabelled: Unlabelled = Field(default="error", description=_boxes.UNLABELLED_HELP)


class Yolo(Source):
    """Fields "image" (Path), "boxes" (objects, in shares of the picture's sides), and "split" where data.yaml or
    folders give it. Of a polygon the box around it is taken. Labels are the names in data.yaml or classes.txt."""

    Config: ClassVar = YoloConfig
    distinct: ClassVar = True

    @staticmethod
    def recognise(path: Path) -> bool:
        if not path.is_dir():
            return False
        if _yaml_file(path) is not None:
            return True
        return any(_looks_right(labels) for _, _, labels in _pairs(path))

    @staticmethod
    def guess(path: Path, target: str | None) -> Guess:
        pictures, names, polygons = _pictures(path)
        missing = [one.file.name for one in pictures if one.objects is None]
        warnings = []
        if not names:
            warnings.append("no data.yaml and no classes.txt says what classes are called: they are called by number")
        if polygons:
            warnings.append(f"{polygons} lines are polygons: the boxes around them are taken")
        return _boxes.guess(
            _boxes.records(path, pictures, "background"),
            target,
            data={"source": str(path), "kind": "yolo"},
            format_name="YOLO",
            units="shares",
            unlabelled=missing,
            warnings=warnings,
        )

    @staticmethod
    def read(path: Path, config: YoloConfig) -> Records:
        if not path.is_dir():
            raise _folders.no_folder(path)
        return _boxes.records(path, _pictures(path)[0], config.unlabelled)

    @staticmethod
    def sample(folder: Path) -> Path:
        for index, boxes in enumerate(_boxes.SAMPLE):
            split = ("train", "train", "val", "val")[index]
            _boxes.sample_picture(folder / "images" / split / f"{index}.png", boxes)
            lines = [
                f"0 {(x1 + x2) / 96} {(y1 + y2) / 64} {(x2 - x1) / 48} {(y2 - y1) / 32}\n" for x1, y1, x2, y2 in boxes
            ]
            file = folder / "labels" / split / f"{index}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(lines))
        (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames:\n  0: cell\n")
        return folder


def _yaml_file(root: Path) -> Path | None:
    """The file that names classes: data.yaml, or the only one of its kind that does."""
    found = [one for one in _folders.entries(root) if one.suffix.lower() in _YAML and one.is_file()]
    found = [one for one in found if b"names" in one.read_bytes()[:100_000] and b"train" in one.read_bytes()[:100_000]]
    named = [one for one in found if one.stem == "data"]
    return (named or found)[0] if len(named or found) == 1 else None


def _pairs(root: Path) -> Iterator[tuple[str | None, Path, Path]]:
    """Split, pictures and labels: images/train and labels/train, train/images and train/labels, images and labels."""
    if (root / "images").is_dir() and (root / "labels").is_dir():
        inner = [
            (split, folder, root / "labels" / folder.name) for split, folder in _folders.split_folders(root / "images")
        ]
        yield from inner or [(None, root / "images", root / "labels")]
        return
    for split, folder in _folders.split_folders(root):
        if (folder / "images").is_dir():
            yield split, folder / "images", folder / "labels"


def _looks_right(labels: Path) -> bool:
    """Whether the first label file with a line has lines of a class and numbers."""
    if not labels.is_dir():
        return False
    for file in _folders.files_below(labels, {".txt"})[:50]:
        lines = [line for line in file.read_text(encoding="utf-8", errors="replace").split("\n") if line.strip()]
        if lines and file.name != "classes.txt":
            parts = lines[0].split()
            return len(parts) >= 5 and parts[0].isdigit() and all(_is_number(part) for part in parts[1:])
    return False


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _pictures(root: Path) -> tuple[list[Picture], dict[int, str], int]:
    """The pictures, the names of classes, and how many lines are polygons."""
    file = _yaml_file(root)
    about = {} if file is None else _yaml(file)
    names = _names(root, file, about)
    pairs: list[tuple[str | None, list[Path], Path | None]] = []
    if file is not None:
        pairs = [(split, pictures, None) for split, pictures in _from_yaml(file, about)]
    if not pairs:
        pairs = [
            (
                split,
                _folders.files_below(pictures, _folders.IMAGES),
                labels.parent if labels.name != "labels" else labels,
            )
            for split, pictures, labels in _pairs(root)
        ]
    found: list[Picture] = []
    polygons = 0
    for split, pictures, _ in pairs:
        read = each(lambda picture: _objects(_label_file(picture), names), pictures)
        for picture, (objects, count) in zip(pictures, read, strict=True):
            found.append(Picture(file=picture, objects=objects, split=split))
            polygons += count
    if not found:
        raise UserError(
            f"{root} has no pictures with labels as YOLO has them",
            expected="data.yaml, or the folders images and labels (and train, val and test within or around them)",
        )
    return found, names, polygons


def _yaml(file: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise UserError(f"PyYAML cannot be imported: {error}", hint="pip install 'sonde[image]'") from error
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not readable YAML: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no settings", expected="train, val and names, as YOLO has them")
    return content


def _names(root: Path, file: Path | None, about: dict[str, Any]) -> dict[int, str]:
    names = about.get("names")
    if isinstance(names, list):
        return {index: str(name) for index, name in enumerate(names)}
    if isinstance(names, dict):
        return {int(key): str(name) for key, name in names.items()}
    if names is not None:
        raise UserError(f"names in {file} is {names!r}", expected="a list of names, or a name for every number")
    for lists in (root / "classes.txt", root / "labels" / "classes.txt", root / "obj.names"):
        if lists.is_file():
            lines = [line.strip() for line in lists.read_text(encoding="utf-8").split("\n")]
            return dict(enumerate(line for line in lines if line))
    return {}


def _from_yaml(file: Path, about: dict[str, Any]) -> Iterator[tuple[str, list[Path]]]:
    """The pictures of each split that data.yaml names: folders, or text files of paths."""
    for key, split in _SPLITS.items():
        value = about.get(key)
        for name in value if isinstance(value, list) else [value] if value else []:
            place = _located(file.parent, str(about.get("path") or ""), str(name))
            if place is None:
                if split == "test":
                    continue  # named in many files, and rarely there
                raise UserError(
                    f"{key} in {file} names {name!r}, which is not there", expected="a folder of pictures, or a list"
                )
            if place.is_dir():
                yield split, _folders.files_below(place, _folders.IMAGES)
            else:
                lines = [line.strip() for line in place.read_text(encoding="utf-8").split("\n") if line.strip()]
                yield split, [place.parent / line.removeprefix("./") for line in lines]


def _located(folder: Path, path: str, name: str) -> Path | None:
    """A path of data.yaml: from its `path`, from its own folder, or without the dots that some tools put before."""
    bare = name.lstrip("./")
    for place in (folder / path / name, folder / name, folder / bare):
        if place.exists():
            return place
    return None


def _label_file(picture: Path) -> Path:
    """The label file of a picture: the last folder called "images" is "labels" there; else beside it."""
    parts = list(picture.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _objects(file: Path, names: dict[int, str]) -> tuple[list[dict[str, Any]] | None, int]:
    """The objects of a label file (None: there is no file), and how many are polygons."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return None, 0
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    objects, polygons = [], 0
    for place, line in enumerate(lines, start=1):
        parts = line.split()
        if not parts:
            continue
        where = f"{file}:{place}"
        if len(parts) != 5 and (len(parts) < 7 or len(parts) % 2 == 0):
            raise UserError(f"{where} has {len(parts)} values: {line.strip()[:60]}", expected="class x y width height")
        values = [number(part, where) for part in parts[1:]]
        if len(parts) == 5:
            x, y, width, height = values
            box = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        else:
            polygons += 1
            box = [min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])]
        objects.append({"label": _label(parts[0], names, where), "box": box})
    return objects, polygons


def _label(text: str, names: dict[int, str], where: str) -> str:
    code = number(text, where)
    if code != int(code) or (names and int(code) not in names):
        raise UserError(
            f"{where} has the class {text}",
            expected=f"a number from {min(names)} to {max(names)}, which have names" if names else "a whole number",
        )
    return names.get(int(code), str(int(code)))
