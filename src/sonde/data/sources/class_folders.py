"""A folder for each class with its pictures, sounds, clips, scans or texts; maybe inside train, validation and test."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Set
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from sonde.base.config import Config
from sonde.base.errors import UserError
from sonde.contracts.records import Records
from sonde.data.source import Guess, Source
from sonde.data.sources import _folders
from sonde.data.sources._folders import CLIPS, IMAGES, MEDIA, NOUNS, SCANS, SOUNDS, TEXTS, Medium

_MEDIA = IMAGES | SOUNDS | CLIPS | SCANS
# What such a folder holds belongs to no class.
_NO_CLASS = frozenset({"unsup", "unlabeled", "unlabelled", "unlabeled_data", "unlabelled_data"})
# A class with fewer records is not in every split.
_FEW = 3
# With one class this many times as frequent as another, the scores of the rare one deserve a look.
_IMBALANCE = 10


class ClassFoldersConfig(Config):
    kind: Literal["class-folders"] = "class-folders"
    nested: bool | None = Field(
        default=None,
        description="whether folders of class folders are names of groups, and a class is called by its path; "
        "seen from the layout if left out",
    )


class ClassFolders(Source):
    """ROOT/class/file or ROOT/train/class/file: fields "file" (Path), "label" (the folder's name) and maybe "split".

    Or nested, ROOT/group/class/file: then the label is "group/class".
    """

    Config: ClassVar = ClassFoldersConfig

    @staticmethod
    def recognise(path: Path) -> bool:
        if not path.is_dir() or _folders.tables_in(path) or _folders.has_transcripts(path):
            return False
        inner = _class_folders(path)
        if all(_folders.split_name(folder.name) for _, folder in inner) or _folders.mask_folders(path):
            return False
        suffixes = _suffixes(inner)
        # Two folders with media right in them are enough to know.
        named = [folder for _, folder in inner if _folders.holds(folder, suffixes)]
        if any(_folders.masks_beside(folder) for folder in named[:2]):
            return False
        names = {folder.name for folder in named}
        return len(names) >= 2 or (not names and _is_nested(inner, suffixes))

    @staticmethod
    def guess(path: Path, target: str | None) -> Guess:
        records = ClassFolders.read(path, ClassFoldersConfig())
        if target not in (None, "label"):
            raise UserError(f"class folders have no field {target!r} to learn", expected="label, the class folder")
        classes = Counter(records.fields["label"])
        kind, noun = _medium(records)
        warnings = []
        split: dict[str, object] = {"by": "stratified", "validation": 0.1, "test": 0.1}
        if "split" in records.fields:
            split, warning = _folders.given_split(set(records.fields["split"]))
            warnings += [warning] if warning else []
        rare, often = min(classes, key=classes.__getitem__), max(classes, key=classes.__getitem__)
        few = [name for name, count in classes.items() if count < _FEW]
        if few and split["by"] == "stratified":
            split["rare"] = "train"
            warnings.append(
                f"{_listing(few)} fewer than {_FEW} records: all of them train, and no score tells how well they are "
                "learned"
            )
        elif classes[often] >= _IMBALANCE * classes[rare]:
            warnings.append(f"the class {rare!r} has {classes[rare]} records and {often!r} has {classes[often]}")
        nested = any("/" in name for name in classes)
        notes = {"target.field": f"the {'path' if nested else 'name'} of the class folder"}
        if records.notes:
            notes["data.kind"] = f"left out: {', '.join(records.notes)}"
        return Guess(
            about=f"{len(records):,} {noun} in {len(classes)} {'nested ' if nested else ''}class folders",
            count=len(records),
            data={"source": str(path), "kind": "class-folders", "split": split},
            inputs={kind: {"kind": kind, "field": "file"}},
            target={"kind": "category", "field": "label"},
            notes=notes,
            warnings=tuple(warnings),
        )

    @staticmethod
    def read(path: Path, config: ClassFoldersConfig) -> Records:
        if not path.is_dir():
            raise _folders.no_folder(path)
        files: list[Path] = []
        labels: list[str] = []
        splits: list[str | None] = []
        folders, notes = _with_classes(_class_folders(path), path)
        suffixes = _suffixes(folders)
        nested = _is_nested(folders, suffixes) if config.nested is None else config.nested
        for split, folder, label in _nested(folders, suffixes) if nested else _named(folders):
            found = [file for file in _folders.files_below(folder, suffixes) if not nested or file.parent == folder]
            if not found:
                wanted = "texts" if suffixes == TEXTS else "pictures, sounds, clips or scans"
                raise UserError(
                    f"the class folder {folder} has no {wanted}",
                    expected="files ending in " + ", ".join(sorted(suffixes)),
                    hint="fill it, or move it away if it is no class",
                )
            files += found
            labels += [label] * len(found)
            splits += [split] * len(found)
        if not files:
            raise UserError(
                f"{path} has no class folders",
                expected="a folder for each class, with pictures, sounds or texts in it",
            )
        fields = {"file": _folders.objects(files), "label": _folders.objects(labels)}
        if splits[0] is not None:
            fields["split"] = _folders.objects(splits)
        return Records(fields=fields, ids=_folders.relative(files, path), notes=tuple(notes))

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


def _suffixes(folders: list[tuple[str | None, Path]]) -> frozenset[str]:
    """The endings of what is classified: texts where there are no pictures and no sounds."""
    return _MEDIA if any(_folders.holds_below(folder, _MEDIA) for _, folder in folders) else TEXTS


def _with_classes(
    folders: list[tuple[str | None, Path]], root: Path
) -> tuple[list[tuple[str | None, Path]], list[str]]:
    """The folders that are classes, and what to say of others: empty ones, and those of records without a class."""
    kept = []
    notes = []
    for split, folder in folders:
        name = folder.relative_to(root).as_posix()
        if folder.name.lower() in _NO_CLASS:
            notes.append(f"{name}/ (by its name it holds records without a class)")
        elif not _folders.holds_below(folder, None):
            notes.append(f"{name}/ (empty)")
        else:
            kept.append((split, folder))
    return kept, notes


def _medium(records: Records) -> tuple[str, str]:
    """The kind of input, and what people call its files."""
    suffixes = Counter(_folders.suffix_of(file.name) for file in records.fields["file"])
    counts: dict[Medium, int] = {
        medium: sum(suffixes[suffix] for suffix in endings) for medium, endings in MEDIA.items()
    }
    kind = max(counts, key=counts.__getitem__)
    return kind, NOUNS[kind]


def _listing(names: list[str]) -> str:
    return f"the class {names[0]!r} has" if len(names) == 1 else f"{len(names)} classes such as {names[0]!r} have"


def _named(folders: list[tuple[str | None, Path]]) -> list[tuple[str | None, Path, str]]:
    return [(split, folder, folder.name) for split, folder in folders]


def _nested(folders: list[tuple[str | None, Path]], suffixes: Set[str]) -> list[tuple[str | None, Path, str]]:
    """Every folder with media right in it: its split, and its path within the root or the split's folder."""
    return [
        (split, inner, inner.relative_to(group.parent).as_posix())
        for split, group in folders
        for inner in _holding(group, suffixes)
    ]


def _is_nested(folders: list[tuple[str | None, Path]], suffixes: Set[str]) -> bool:
    """Whether class folders lie in folders that are groups of them, and in nothing else: two groups at least, no media
    outside the innermost folders, which all lie equally deep and are not pictures and their masks."""
    found = {group: [inner.relative_to(group) for inner in _holding(group, suffixes)] for _, group in folders}
    inner = [path for paths in found.values() for path in paths]
    return (
        len({group.name for group, paths in found.items() if paths}) >= 2
        and all(found.values())
        and len({len(path.parts) for path in inner}) == 1
        and len(inner[0].parts) >= 1
        and len(set(inner)) >= 2
        and not any(_folders.is_role(path.name) for path in inner)
    )


def _holding(folder: Path, suffixes: Set[str]) -> Iterator[Path]:
    """The folder itself and those within it that have such files right in them, sorted."""
    for parent, inner, _ in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith((".", "__MACOSX")))
        if _folders.holds(Path(parent), suffixes):
            yield Path(parent)
