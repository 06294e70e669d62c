"""A folder for each class with its pictures or sounds in it; optionally inside train, validation and test folders."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from PIL import Image

from sonde.base.config import Config
from sonde.base.errors import UserError
from sonde.contracts.records import Records
from sonde.data.source import Guess, Source
from sonde.data.sources import _folders
from sonde.data.sources._folders import IMAGES, SOUNDS

_MEDIA = IMAGES | SOUNDS
# With one class this many times as frequent as another, the scores of the rare one deserve a look.
_IMBALANCE = 10


class ClassFoldersConfig(Config):
    kind: Literal["class-folders"] = "class-folders"


class ClassFolders(Source):
    """ROOT/class/file or ROOT/train/class/file: fields "file" (Path), "label" (the folder's name) and maybe "split"."""

    Config: ClassVar = ClassFoldersConfig

    @staticmethod
    def recognise(path: Path) -> bool:
        if not path.is_dir() or _folders.tables_in(path):
            return False
        inner = _class_folders(path)
        if all(_folders.split_name(folder.name) for _, folder in inner) or _folders.mask_folders(path):
            return False
        # Two folders with media right in them are enough to know.
        names = {folder.name for _, folder in inner if _folders.holds(folder, _MEDIA)}
        return len(names) >= 2

    @staticmethod
    def guess(path: Path, target: str | None) -> Guess:
        records = ClassFolders.read(path, ClassFoldersConfig())
        if target not in (None, "label"):
            raise UserError(f"class folders have no field {target!r} to learn", expected="label, the class folder")
        classes = Counter(records.fields["label"])
        sounds = sum(file.suffix.lower() in SOUNDS for file in records.fields["file"])
        kind, noun = ("audio", "sounds") if sounds > len(records) / 2 else ("image", "pictures")
        warnings = []
        split: dict[str, object] = {"by": "stratified", "validation": 0.1, "test": 0.1}
        if "split" in records.fields:
            split, warning = _folders.given_split(set(records.fields["split"]))
            warnings += [warning] if warning else []
        rare, often = min(classes, key=classes.__getitem__), max(classes, key=classes.__getitem__)
        if classes[often] >= _IMBALANCE * classes[rare]:
            warnings.append(f"the class {rare!r} has {classes[rare]} records and {often!r} has {classes[often]}")
        return Guess(
            about=f"{len(records):,} {noun} in {len(classes)} class folders",
            count=len(records),
            data={"source": str(path), "kind": "class-folders", "split": split},
            inputs={kind: {"kind": kind, "field": "file"}},
            target={"kind": "category", "field": "label"},
            notes={"target.field": "the name of the class folder"},
            warnings=tuple(warnings),
        )

    @staticmethod
    def read(path: Path, config: ClassFoldersConfig) -> Records:
        if not path.is_dir():
            raise _folders.no_folder(path)
        files: list[Path] = []
        labels: list[str] = []
        splits: list[str | None] = []
        for split, folder in _class_folders(path):
            found = _folders.files_below(folder, _MEDIA)
            if not found:
                raise UserError(
                    f"the class folder {folder} has no pictures or sounds",
                    expected="files ending in " + ", ".join(sorted(_MEDIA)),
                    hint="fill it, or move it away if it is no class",
                )
            files += found
            labels += [folder.name] * len(found)
            splits += [split] * len(found)
        if not files:
            raise UserError(
                f"{path} has no class folders", expected="a folder for each class, with pictures or sounds in it"
            )
        fields = {"file": _folders.objects(files), "label": _folders.objects(labels)}
        if splits[0] is not None:
            fields["split"] = _folders.objects(splits)
        return Records(fields=fields, ids=_folders.relative(files, path))

    @staticmethod
    def sample(folder: Path) -> Path:
        for index in range(8):
            file = folder / ("light" if index % 2 else "dark") / f"{index}.png"
            file.parent.mkdir(exist_ok=True)
            pixels = np.full((8, 8, 3), 30 * index % 128 + 127 * (index % 2), dtype=np.uint8)
            Image.fromarray(pixels).save(file)
        return folder


def _class_folders(root: Path) -> list[tuple[str | None, Path]]:
    """Every class folder, with its split where the layout gives one."""
    parts = [(split, part) for split, part in _folders.split_folders(root)]
    inside = [(split, folder) for split, part in parts for folder in _folders.folders(part)]
    # A class may itself be called "train": only folders within it make it a split.
    return [*inside] if inside else [(None, folder) for folder in _folders.folders(root)]
