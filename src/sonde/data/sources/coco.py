"""Pictures with boxes as COCO has them: JSON files of images, annotations and categories."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from sonde.base.config import Config
from sonde.base.errors import UserError
from sonde.contracts.records import Records
from sonde.data.source import Guess, Source
from sonde.data.sources import _boxes, _folders
from sonde.data.sources._boxes import Picture, number

_JSON = frozenset({".json"})
# Files of COCO that hold something else than boxes.
_OTHER = re.compile(r"caption|stuff|panoptic|image_info", re.I)
_KEYS = (b'"images"', b'"annotations"', b'"categories"', b'"licenses"')
_PEEK = 65_536


class CocoConfig(Config):
    kind: Literal["coco"] = "coco"
    images: str | None = Field(
        default=None,
        description="the folder that file names start from, relative to the data set; looked for if left out",
    )


class Coco(Source):
    """Fields "image" (Path), "boxes" (objects, with "crowd" and "area"), "size" (what the JSON says), and "split" where
    files or folders are named after splits. Labels are names: the numbers of categories may have gaps."""

    Config: ClassVar = CocoConfig
    distinct: ClassVar = True

    @staticmethod
    def recognise(path: Path) -> bool:
        return bool(_files(path))

    @staticmethod
    def guess(path: Path, target: str | None) -> Guess:
        return _boxes.guess(
            Coco.read(path, CocoConfig()), target, data={"source": str(path), "kind": "coco"}, format_name="COCO"
        )

    @staticmethod
    def read(path: Path, config: CocoConfig) -> Records:
        files = _files(path)
        if not files:
            raise UserError(
                f"{path} has no annotations as COCO writes them",
                expected="JSON with images, annotations and categories",
            )
        root = path if path.is_dir() else path.parent
        pictures = [each for split, file in files for each in _pictures(root, file, split, config)]
        names = {picture.file for picture in pictures}
        if len(names) < len(pictures):
            raise UserError(
                f"{len(pictures) - len(names)} pictures are in several files: "
                + ", ".join(file.name for _, file in files),
                expected="every picture in one split",
                hint="data.source = the one JSON file to read",
            )
        return _boxes.records(root, pictures, "error")

    @staticmethod
    def sample(folder: Path) -> Path:
        content: dict[str, list] = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "cell"}]}
        for index, boxes in enumerate(_boxes.SAMPLE):
            _boxes.sample_picture(folder / "images" / f"{index}.png", boxes)
            content["images"].append({"id": 10 + index, "file_name": f"{index}.png", "width": 48, "height": 32})
            for x1, y1, x2, y2 in boxes:
                number = len(content["annotations"])
                box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": int(number == 2)}
                content["annotations"].append({"id": number, "image_id": 10 + index, "category_id": 7, **box})
        (folder / "annotations").mkdir()
        (folder / "annotations" / "instances_all.json").write_text(json.dumps(content))
        return folder


def _files(path: Path) -> list[tuple[str | None, Path]]:
    """The JSON files of a data set and their splits: one, or one for each split; in the root, in annotations, or in the
    folders of splits."""
    if path.is_file():
        return [(None, path)] if path.suffix.lower() in _JSON and _is_coco(path) else []
    if not path.is_dir():
        return []
    for folder in (path, path / "annotations", path / "Annotations"):
        found = [one for one in _folders.entries(folder) if one.suffix.lower() in _JSON] if folder.is_dir() else []
        found = [one for one in found if not _OTHER.search(one.name) and _is_coco(one)]
        instances = [one for one in found if "instances" in one.name]
        found = instances or found
        named = [(split, one) for one in found if (split := _split_of(one.stem))]
        if found and len(named) == len(found):
            return [*_folders.in_order(named)]
        if len(found) == 1:
            return [(None, found[0])]
    return [
        (split, one)
        for split, folder in _folders.split_folders(path)
        for one in _folders.entries(folder)
        if one.suffix.lower() in _JSON and _is_coco(one)
    ]


def _split_of(stem: str) -> str | None:
    """The split that "instances_train2017" speaks of."""
    return _folders.split_in(re.sub(r"\d+", "", stem))


def _is_coco(file: Path) -> bool:
    with file.open("rb") as opened:
        start = opened.read(_PEEK)
    return start.lstrip().startswith(b"{") and sum(key in start for key in _KEYS) >= 1


def _pictures(root: Path, file: Path, split: str | None, config: CocoConfig) -> list[Picture]:
    content = _content(file)
    names = {one["id"]: str(one["name"]) for one in content["categories"]}
    if len(set(names.values())) < len(names):
        raise UserError(f"two categories of {file} have one name", expected="every category with a name of its own")
    objects: dict[Any, list[dict[str, Any]]] = {one["id"]: [] for one in content["images"]}
    for one in content["annotations"]:
        where = f"annotation {one.get('id')} of {file}"
        if one.get("image_id") not in objects:
            raise UserError(
                f"{where} has image_id {one.get('image_id')!r}, and no image has", expected="the id of an image"
            )
        if one.get("category_id") not in names:
            raise UserError(
                f"{where} has category_id {one.get('category_id')!r}, and no category has",
                expected="one of: " + ", ".join(f"{key} ({name})" for key, name in list(names.items())[:10]),
            )
        objects[one["image_id"]].append(_object(one, names[one["category_id"]], where))
    folder = _folder(root, file, content["images"], config)
    return [
        Picture(
            file=folder / one["file_name"],
            objects=objects[one["id"]],
            split=split,
            size=[int(one.get("width") or 0), int(one.get("height") or 0)],
        )
        for one in content["images"]
    ]


def _content(file: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, OSError) as error:
        raise UserError(f"{file} is not readable JSON: {error}") from error
    for key, needs in (("images", ("id", "file_name")), ("annotations", ()), ("categories", ("id", "name"))):
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(
            isinstance(row, dict) and all(one in row for one in needs) for row in rows
        ):
            raise UserError(
                f"{file} has no list {key!r} of objects" + (f" with {' and '.join(needs)}" if needs else ""),
                expected="images, annotations and categories, as COCO writes them",
            )
    return content


def _object(one: dict[str, Any], label: str, where: str) -> dict[str, Any]:
    box = one.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise UserError(f"{where} has bbox {box!r}", expected="[x, y, width, height] in pixels")
    x, y, width, height = (number(side, f"bbox of {where}") for side in box)
    found: dict[str, Any] = {"label": label, "box": [x, y, x + width, y + height]}
    if one.get("iscrowd"):
        found["crowd"] = True
    if one.get("area"):
        found["area"] = number(one["area"], f"area of {where}")
    return found


def _folder(root: Path, file: Path, images: list[dict[str, Any]], config: CocoConfig) -> Path:
    """Where file names start from: the first folder that has the first picture."""
    if config.images is not None:
        return root / config.images
    tail = re.sub(r"^instances_", "", file.stem)
    tried = [file.parent, root, root / "images", root / tail, root / "images" / tail, root / file.stem]
    tried += [root.parent, root.parent / "images", root.parent / tail]
    if not images:
        return root
    for folder in tried:
        if (folder / images[0]["file_name"]).is_file():
            return folder
    raise UserError(
        f"the picture {images[0]['file_name']} of {file} is not there",
        expected="it in " + ", ".join(str(folder) for folder in tried[:5]),
        hint="data.images = the folder with the pictures",
    )
