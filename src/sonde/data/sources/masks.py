"""Pictures and their masks (segmentation): in a folder beside, under the same name, or side by side: a.jpg, a_mask.png.

The pixels of masks hold class ids, black and white, or a colour for each class.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from PIL import Image

from sonde.base.config import Config
from sonde.base.errors import UserError
from sonde.base.images import upright_size
from sonde.contracts.records import Records
from sonde.data.source import Guess, Source
from sonde.data.sources import _folders, _mask_values
from sonde.data.sources._folders import IMAGES

# Folders that tell whether masks lie beside their pictures.
_PEEK = 3


class MasksConfig(Config):
    kind: Literal["masks"] = "masks"


class Masks(Source):
    """Fields "image" (Path), "mask" (Path), "split" where the layout gives it, and "folder" where masks lie beside
    pictures in several folders; records are named by the picture."""

    Config: ClassVar = MasksConfig

    @staticmethod
    def recognise(path: Path) -> bool:
        if not path.is_dir():
            return False
        some = list(islice(_folders.folders_with(path, IMAGES), _PEEK))
        return bool(_folders.mask_folders(path)) or (bool(some) and all(map(_folders.masks_beside, some)))

    @staticmethod
    def guess(path: Path, target: str | None) -> Guess:
        records = Masks.read(path, MasksConfig())
        if target not in (None, "mask"):
            raise UserError(f"pictures with masks have no field {target!r} to learn", expected="mask")
        found = _mask_values.look(records.fields["mask"], path)
        warnings = [*_other_shapes(records), *found.warnings]
        if "folder" in records.fields and "split" not in records.fields:
            warnings.append(
                "pictures share folders: if a folder is a patient or a scene, split = "
                '{ by = "group", field = "folder" }'
            )
        split: dict[str, object] = {"by": "random", "validation": 0.1, "test": 0.1}
        if "split" in records.fields:
            split, warning = _folders.given_split(set(records.fields["split"]))
            warnings += [warning] if warning else []
        return Guess(
            about=f"{len(records):,} pictures with masks",
            count=len(records),
            data={"source": str(path), "kind": "masks", "split": split},
            inputs={"image": {"kind": "image", "field": "image"}},
            target={"kind": "mask", "field": "mask", **found.target},
            notes=found.notes,
            read_as=tuple(found.said),
            warnings=tuple(warnings),
        )

    @staticmethod
    def read(path: Path, config: MasksConfig) -> Records:
        if not path.is_dir():
            raise _folders.no_folder(path)
        pairs: list[tuple[Path, Path]] = []
        splits: list[str | None] = []
        for split, pictures, masks in _folders.mask_folders(path):
            found = _paired(pictures, masks)
            pairs += found
            splits += [split] * len(found)
        beside = not pairs
        if beside:
            pairs, splits = _beside(path)
        if not pairs:
            raise UserError(
                f"{path} has no pictures with masks",
                expected="the folders images and masks, or train and trainannot (and the same for val and test), or "
                "a_mask.png beside a.jpg",
            )
        files = [picture for picture, _ in pairs]
        fields = {"image": _folders.objects(files), "mask": _folders.objects([mask for _, mask in pairs])}
        if any(splits):
            fields["split"] = _folders.objects([split or "train" for split in splits])
        inner = [file.parent.relative_to(path).as_posix() for file in files]
        if beside and 2 < len(set(inner)) < len(inner):
            fields["folder"] = _folders.objects(inner)
        return Records(fields=fields, ids=_folders.relative(files, path))

    @staticmethod
    def sample(folder: Path) -> Path:
        for name in ("images", "masks"):
            (folder / name).mkdir()
        for index in range(6):
            mask = np.zeros((8, 8), dtype=np.uint8)
            mask[index:, :] = 1
            Image.fromarray(mask).save(folder / "masks" / f"{index}.png")
            Image.fromarray(np.stack([mask * 200] * 3, axis=2)).save(folder / "images" / f"{index}.png")
        return folder


def _beside(root: Path) -> tuple[list[tuple[Path, Path]], list[str | None]]:
    """Every picture with the mask that lies beside it, and its split where a folder gives one.

    Raises:
        UserError: a picture without a mask.
    """
    pairs: list[tuple[Path, Path]] = []
    splits: list[str | None] = []
    named = {part.name: split for split, part in _folders.split_folders(root)}
    for folder in _folders.folders_with(root, IMAGES):
        files = [file for file in _folders.entries(folder) if file.suffix.lower() in IMAGES]
        found = _folders.paired_beside(files)
        alone = sorted(set(files) - {file for pair in found for file in pair})
        if found and alone:
            raise UserError(
                f"{_listing(alone)} no mask beside {'it' if len(alone) == 1 else 'them'}",
                expected=f"for every picture a mask, as {found[0][1].name} for {found[0][0].name}",
                hint="add the masks, or move the pictures away",
            )
        pairs += found
        top = folder.relative_to(root).parts
        splits += [named.get(top[0]) if top else None] * len(found)
    return pairs, splits


def _paired(pictures: Path, masks: Path) -> list[tuple[Path, Path]]:
    """Every picture with the mask of its name.

    Raises:
        UserError: a picture without a mask, or a mask without a picture.
    """
    by_name = {_name(path, masks): path for path in _folders.files_below(masks, IMAGES)}
    pairs, alone = [], []
    for picture in _folders.files_below(pictures, IMAGES):
        name = _name(picture, pictures)
        endings = ("", *_folders.MASK_NAMES)
        mask = next((found for ending in endings if (found := by_name.pop(name + ending, None))), None)
        if mask is None:
            alone.append(picture)
        else:
            pairs.append((picture, mask))
    if alone:
        raise UserError(
            f"{_listing(alone)} no mask in {masks}",
            expected="for every picture a mask of the same name",
            hint="add the masks, or move the pictures away",
        )
    if by_name:
        raise UserError(f"{_listing(list(by_name.values()))} no picture in {pictures}")
    return pairs


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).with_suffix("").as_posix()


def _listing(paths: list[Path]) -> str:
    return f"{paths[0]} has" if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more have"


def _other_shapes(records: Records) -> list[str]:
    """A warning where a mask has not the size of its picture. Only the heads of files are read."""
    different = []
    for name, picture, mask in zip(records.ids, records.fields["image"], records.fields["mask"], strict=True):
        sizes = [upright_size(picture), upright_size(mask)]
        if None not in sizes and sizes[0] != sizes[1]:
            different.append((name, *sizes))
    if not different:
        return []
    name, (width, height), (mask_width, mask_height) = different[0]
    return [
        f"{len(different)} of {len(records)} masks are not of the size of their picture: {name} is {width} x {height} "
        f"pixels and its mask {mask_width} x {mask_height}; masks are brought to size like pictures, and may not fit"
    ]
