"""What folder layouts have in common: visible entries, splits by name, pictures, sounds, masks, tables."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Literal

import numpy as np

from sonde.base.errors import UserError
from sonde.data.sources._content import PACKED, table_format, table_stem
from sonde.data.split import split_name

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"})
SOUNDS = frozenset({".wav", ".flac", ".ogg", ".mp3"})
CLIPS = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v", ".wmv"})
SCANS = frozenset({".nii", ".nii.gz"})
TEXTS = frozenset({".txt", ".text", ".md"})
# Tables beside a data set that are not part of it: an empty answer to hand in, lists of classes.
_ASIDE = re.compile(
    r"(sample|gender|example)?[-_ ]?submission|class[-_ ]?(dict|names|es)|label[-_ ]?(colou?rs|map)", re.I
)

Medium = Literal["image", "audio", "video", "volume", "text"]
MEDIA: Mapping[Medium, frozenset[str]] = {
    "image": IMAGES,
    "audio": SOUNDS,
    "video": CLIPS,
    "volume": SCANS,
    "text": TEXTS,
}
# What people call files of each kind.
NOUNS: Mapping[Medium, str] = {
    "image": "pictures",
    "audio": "sounds",
    "video": "clips",
    "volume": "volumes",
    "text": "texts",
}

# Splits as people read them.
ORDER = ("train", "validation", "test")

# Folders of pictures and of their masks, as data sets name them.
_PICTURE_FOLDERS = (
    *("images", "image", "imgs", "img", "jpegimages", "img_dir", "photos", "pictures", "frames", "original_images"),
    *("original", "originals", "input", "inputs"),
)
_MASK_FOLDERS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "segmentationclass", "ann_dir", "annots"),
    *("gt", "ground_truth", "groundtruth", "segmentation", "segmentations", "targets", "target", "label_images"),
    *("label_images_semantic", "semantic", "trimaps"),
)
# Or the mask folder is named after the picture folder: train and trainannot, train and train_masks.
_MASK_ENDINGS = ("annot", "_annot", "_mask", "_masks", "_label", "_labels", "_gt", "_seg")
# What a mask's name has over its picture's; where both lie in one folder, something.
MASK_NAMES = (
    *("_mask", "_masks", "_label", "_labels", "_gt", "_L", "_seg", "_segmentation", "_groundtruth", "_annotation"),
    *("-mask", "-label", "-gt", "-seg", ".mask"),
)
# Of the pictures that lie beside masks so many have one.
_MOSTLY = 0.8


def entries(folder: Path) -> list[Path]:
    """What a folder holds, sorted by name, without hidden entries."""
    try:
        return sorted(folder / name for name in os.listdir(folder) if not name.startswith((".", "__MACOSX")))
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be read: {error.strerror or error}") from error


def folders(folder: Path) -> list[Path]:
    return [path for path in entries(folder) if path.is_dir()]


def files_below(folder: Path, suffixes: Set[str]) -> list[Path]:
    """Files of these kinds in a folder and its subfolders, sorted by their path."""
    return sorted(_walk(folder, suffixes))


def _walk(folder: Path, suffixes: Set[str]) -> Iterator[Path]:
    for parent, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if not name.startswith((".", "__MACOSX"))]
        at = Path(parent)
        yield from (at / name for name in names if suffix_of(name) in suffixes and not name.startswith("."))


def holds_below(folder: Path, suffixes: Set[str] | None) -> bool:
    """Whether a file of these kinds, or any file, lies in the folder or below it. Stops at the first."""
    for _, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if not name.startswith((".", "__MACOSX"))]
        if any(not name.startswith(".") and (suffixes is None or suffix_of(name) in suffixes) for name in names):
            return True
    return False


def holds(folder: Path, suffixes: Set[str]) -> bool:
    """Whether a file of these kinds lies right in the folder. Stops at the first."""
    with os.scandir(folder) as found:
        return any(suffix_of(entry.name) in suffixes and not entry.name.startswith(".") for entry in found)


def suffix_of(name: str) -> str:
    """The ending of a file's name in small letters, a packed scan's as one: ".nii.gz"."""
    return ".nii.gz" if name.lower().endswith(".nii.gz") else os.path.splitext(name)[1].lower()


def split_folders(root: Path) -> list[tuple[str, Path]]:
    """The folders of a root that are named after splits (train, valid, test, ...), with the split that they mean."""
    named = [(split_name(path.name), path) for path in folders(root)]
    return in_order([(split, path) for split, path in named if split is not None])


def in_order(named: list[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """Training data first, then validation, then test: people read the first, and columns are compared with it."""
    return sorted(named, key=lambda each: (ORDER.index(each[0]), each[1]))


def tables_in(root: Path) -> list[tuple[str | None, Path]]:
    """The table of a folder, or its tables of train, validation and test; nothing when they are not clearly one set."""
    found = tables(root)
    if len(found) == 1:
        return [(None, found[0])]
    named = [(split, path) for path in found if (split := split_in(table_stem(path)))]
    return [*in_order(named)] if len(named) == len(found) else []


def tables(root: Path) -> list[Path]:
    """The tables right in a folder that hold its data; of one that is there packed and unpacked, the latter."""
    found = [path for path in entries(root) if path.is_file() and table_format(path) and not _ASIDE.match(path.name)]
    plain = {path.name.lower() for path in found}
    return [path for path in found if path.suffix.lower() not in PACKED or path.stem.lower() not in plain]


def split_in(stem: str) -> str | None:
    """The one split that a file's name speaks of: "train", "sst2-dev", "train-00000-of-00002"."""
    splits = {split for word in re.split(r"[-_. ]", stem) if (split := split_name(word))}
    return splits.pop() if len(splits) == 1 else None


def mask_folders(root: Path) -> list[tuple[str | None, Path, Path]]:
    """Split (None if the layout has none), picture folder and mask folder, for every pair that a layout has.

    Known layouts: train/ trainannot/ val/ valannot/; images/ masks/; images/train/ masks/train/; train/images/
    train/masks/.
    """
    found = list(_pairs(root, None))
    for split, part in split_folders(root):
        found += [(split, pictures, masks) for _, pictures, masks in _pairs(part, split)]
    return sorted(found, key=lambda each: ORDER.index(each[0] or "train"))


def _pairs(root: Path, split: str | None) -> Iterator[tuple[str | None, Path, Path]]:
    by_name = {path.name.lower(): path for path in folders(root)}
    for name, pictures in by_name.items():
        partners = [name + ending for ending in _MASK_ENDINGS]
        if name in _PICTURE_FOLDERS:
            partners += _MASK_FOLDERS
        for partner in partners:
            if partner in by_name:
                yield from _inner_pairs(split or split_name(name), pictures, by_name[partner])
                break


def _inner_pairs(split: str | None, pictures: Path, masks: Path) -> Iterator[tuple[str | None, Path, Path]]:
    """The pair itself, or a pair for each split folder within both."""
    within = [(inner, part, masks / part.name) for inner, part in split_folders(pictures)]
    for inner, part, partner in within or [(split, pictures, masks)]:
        if partner.is_dir() and all(any(True for _ in _walk(each, IMAGES)) for each in (part, partner)):
            yield inner, part, partner


def masks_beside(folder: Path) -> bool:
    """Whether most pictures right in a folder have their mask beside them: a.jpg and a_mask.png."""
    files = [path for path in entries(folder) if suffix_of(path.name) in IMAGES and path.is_file()]
    pairs = paired_beside(files)
    return len(pairs) > 1 and 2 * len(pairs) >= _MOSTLY * len(files)


def paired_beside(files: list[Path]) -> list[tuple[Path, Path]]:
    """The pictures of a folder that have a mask beside them, each with it."""
    by_stem = {path.stem: path for path in files}
    pairs = []
    for stem, mask in by_stem.items():
        ending = next((ending for ending in MASK_NAMES if stem.endswith(ending)), None)
        picture = by_stem.get(stem.removesuffix(ending)) if ending else None
        if picture is not None:
            pairs.append((picture, mask))
    return sorted(pairs)


def folders_with(root: Path, suffixes: Set[str]) -> Iterator[Path]:
    """The root and the folders below it that have files of these kinds right in them, sorted."""
    for parent, inner, names in os.walk(root):
        inner[:] = sorted(name for name in inner if not name.startswith((".", "__MACOSX")))
        if any(suffix_of(name) in suffixes and not name.startswith(".") for name in names):
            yield Path(parent)


def is_role(name: str) -> bool:
    """Whether a folder's name says that it holds pictures or masks, and not what is on them."""
    return name.lower() in _PICTURE_FOLDERS + _MASK_FOLDERS


def relative(paths: list[Path], root: Path) -> list[str]:
    """Names of records: where their files lie in the data set, alike on every system."""
    return [path.relative_to(root).as_posix() for path in paths]


def objects(values: list) -> np.ndarray:
    """A field of texts or paths."""
    field = np.empty(len(values), dtype=object)
    field[:] = values
    return field


def arrays(values: Sequence[np.ndarray]) -> np.ndarray:
    """A field of arrays, which may all be of one shape."""
    field = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        field[place] = value
    return field


def plain(value: object) -> object:
    """A value as Python has it."""
    return value.item() if isinstance(value, np.generic) else value


def given_split(splits: Set[str]) -> tuple[dict[str, object], str | None]:
    """The `split` setting for a data set that names these splits, and a warning where one is missing."""
    setting: dict[str, object] = {"by": "given"}
    if "validation" not in splits:
        setting["validation"] = 0.1
    if "test" not in splits:
        setting["test"] = 0.1
        return setting, "there is no test split: a tenth of the training records becomes one"
    return setting, None


def no_folder(path: Path) -> UserError:
    return UserError(f"{path} is not a folder", hint="data.source is relative to the recipe's folder")


def has_transcripts(root: Path) -> bool:
    """Whether sounds lie below a folder with texts of the same name, or lists of transcripts. Stops at the first."""
    for _, inner, names in os.walk(root):
        inner[:] = sorted(name for name in inner if not name.startswith((".", "__MACOSX")))
        sounds = {os.path.splitext(name)[0] for name in names if suffix_of(name) in SOUNDS}
        if sounds:
            texts = {os.path.splitext(name)[0] for name in names if suffix_of(name) == ".txt"}
            return bool(sounds & texts) or any(name.endswith(".trans.txt") for name in names)
        if any(suffix_of(name) in IMAGES for name in names):
            return False
    return False
