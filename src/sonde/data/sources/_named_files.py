"""Files that a table names by bare names ("a1b2" for train_images/3/a1b2.jpg): in which folder they lie."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from sonde.base.errors import UserError
from sonde.contracts.records import is_missing
from sonde.data.sources import _content, _folders
from sonde.data.sources._folders import MEDIA, Medium
from sonde.data.split import split_name

_ALL = frozenset[str]().union(*MEDIA.values())
# Values of a column that are looked for before all are.
_SAMPLE = 200
# A folder that has less than this share of them is another matter.
_ENOUGH = 0.5


def medium_of(name: str) -> Medium | None:
    suffix = _folders.suffix_of(PurePosixPath(name).name)
    return next((medium for medium, suffixes in MEDIA.items() if suffix in suffixes), None)


@dataclass(frozen=True, kw_only=True)
class Found:
    """The folder, relative to the table's, in which the files of a column lie; how many of how many values have one."""

    folder: str
    medium: Medium
    found: int
    looked_for: int


@dataclass(frozen=True)
class Files:
    """The pictures, sounds and texts below a folder, by their names with and without ending."""

    root: Path

    @cached_property
    def by_name(self) -> dict[str, list[str]]:
        """Paths relative to the root, by the file's name and by its name without ending."""
        found: dict[str, list[str]] = defaultdict(list)
        for parent, inner, names in os.walk(self.root):
            inner[:] = sorted(name for name in inner if not name.startswith((".", "__MACOSX")))
            at = os.path.relpath(parent, self.root).replace(os.sep, "/")
            for name in names:
                suffix = _folders.suffix_of(name)
                stem = name[: len(name) - len(suffix)]
                if suffix in _ALL and not name.startswith("."):
                    path = name if at == "." else f"{at}/{name}"
                    found[name].append(path)
                    found[stem].append(path)
        return found

    def of(self, value: str) -> list[str]:
        """The files that a value may name: by its last part, and as much of the path before it as they have."""
        parts = value.replace("\\", "/").split("/")
        paths = self.by_name.get(parts[-1], [])
        if len(paths) < 2 or len(parts) == 1:
            return paths
        common = [_same_end(parts[:-1], path.split("/")[:-1]) for path in paths]
        return [path for path, length in zip(paths, common, strict=True) if length == max(common)]

    def folders(self) -> list[str]:
        """Every folder with files in it, at any depth, and those above; "" is the root."""
        found = {""}
        for paths in self.by_name.values():
            for path in paths:
                for parent in PurePosixPath(path).parents:
                    found.add("" if str(parent) == "." else str(parent))
        return sorted(found)


def _same_end(one: Sequence[str], other: Sequence[str]) -> int:
    length = 0
    while length < min(len(one), len(other)) and one[-1 - length] == other[-1 - length]:
        length += 1
    return length


def names_of(values: np.ndarray) -> list[str | None]:
    """Values as names of files: whole numbers as they are written, None where one is missing."""
    missing = is_missing(values)
    return [None if absent else str(value).strip() for value, absent in zip(values.tolist(), missing, strict=True)]


def find(values: np.ndarray, table: Path, files: Files) -> Found | None:
    """The folder in which the files lie that a column names; None where there is none."""
    names = list(dict.fromkeys(name for name in names_of(values) if name))
    if not names or not files.by_name:
        return None
    sample = [names[index] for index in np.linspace(0, len(names) - 1, min(_SAMPLE, len(names))).astype(int)]
    matched = [paths for name in sample if (paths := files.of(name))]
    if len(matched) < max(1, _ENOUGH * len(sample)):
        return None
    folder = _folder_of(matched, table)
    if folder is None:
        return None
    within = [[path for path in files.of(name) if _lies_in(path, folder)] for name in names]
    media = commonest([medium_of(paths[0]) for paths in within if len(paths) == 1])
    count = sum(len(paths) == 1 for paths in within)
    if media is None or count < _ENOUGH * len(names):
        return None
    return Found(folder=folder or ".", medium=media, found=count, looked_for=len(names))


def commonest(media: Sequence[Medium | None]) -> Medium | None:
    return Counter(media).most_common(1)[0][0] if media else None


def _lies_in(path: str, folder: str) -> bool:
    return not folder or path.startswith(folder + "/")


def _folder_of(matched: list[list[str]], table: Path) -> str | None:
    """The innermost folder that has one file for as many of the names as any; of several that named like the table."""
    counts: dict[str, int] = defaultdict(int)
    for paths in matched:
        per_folder: dict[str, int] = defaultdict(int)
        for path in paths:
            for parent in PurePosixPath(path).parents:
                per_folder["" if str(parent) == "." else str(parent)] += 1
        for folder, count in per_folder.items():
            counts[folder] += count == 1
    most = max(counts.values())
    best = [folder for folder, count in counts.items() if count == most and most]
    # Of folders that lie in each other the innermost says it all.
    best = [one for one in best if not any(other != one and _lies_in(other + "/", one) for other in best)]
    if len(best) > 1:
        words = set(_words(_content.table_stem(table)))
        alike = [folder for folder in best if words & set(_words(folder))]
        best = alike if len(alike) == 1 else [each for each in best if _is_training(each)]
    return best[0] if len(best) == 1 else None


def _is_training(folder: str) -> bool:
    return any(split_name(word) == "train" for word in _words(folder))


def _words(name: str) -> list[str]:
    """The words of a name, also where capitals begin them: trainLabels, train_images/png."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", name)]


def resolve(values: np.ndarray, folder: Path, column: str) -> np.ndarray:
    """The paths of the files that a column names; what is not there keeps its name, and is unreadable.

    Raises:
        UserError: there is no such folder, or it has two files of a name.
    """
    if not folder.is_dir():
        raise UserError(
            f"the folder {folder} does not exist, in which data.folders looks for the files of column {column!r}"
        )
    files = Files(folder)
    paths = np.empty(len(values), dtype=object)
    for index, name in enumerate(names_of(values)):
        if name is None:
            continue
        found = files.of(name)
        if len(found) > 1:
            raise UserError(
                f"{name!r} in column {column!r} is the name of {len(found)} files in {folder}: "
                f"{', '.join(sorted(found)[:3])}",
                expected="one file of each name",
                hint="name a folder further in with data.folders",
            )
        paths[index] = folder / (found[0] if found else name)
    return paths


def tried(values: np.ndarray, files: Files) -> str:
    """What was looked for and where, for an error: "a1 (also a1.png, ...) in ., train"."""
    name = next((name for name in names_of(values) if name), "")
    folders = [folder or "." for folder in files.folders()]
    more = f" and {len(folders) - 6} more" if len(folders) > 6 else ""
    return f"{name!r}, with and without an ending, in {', '.join(folders[:6])}{more}"
