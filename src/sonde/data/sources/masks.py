"""Pictures and, in a folder beside, masks of the same name whose pixel values are classes (segmentation)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from PIL import Image

from sonde.base.config import Config
from sonde.base.errors import RecordError, UserError
from sonde.base.images import read_image, upright_size
from sonde.contracts.records import Records
from sonde.data.source import Guess, Source
from sonde.data.sources import _folders
from sonde.data.sources._folders import IMAGES

# What a mask's name may have over its picture's.
_ENDINGS = ("", "_mask", "_label", "_labels", "_gt", "_L")
# How many masks `guess` looks into, and the id that by custom means "no class".
_PEEK = 20
_VOID = 255


class MasksConfig(Config):
    kind: Literal["masks"] = "masks"


class Masks(Source):
    """Fields "image" (Path), "mask" (Path), and "split" where the layout gives it; records are named by the picture."""

    Config: ClassVar = MasksConfig

    @staticmethod
    def recognise(path: Path) -> bool:
        return path.is_dir() and bool(_folders.mask_folders(path))

    @staticmethod
    def guess(path: Path, target: str | None) -> Guess:
        records = Masks.read(path, MasksConfig())
        if target not in (None, "mask"):
            raise UserError(f"pictures with masks have no field {target!r} to learn", expected="mask")
        learn: dict[str, object] = {"kind": "mask", "field": "mask"}
        ids, colour = _peek(records.fields["mask"])
        notes, warnings = {}, []
        if colour:
            warnings.append("the masks are colour pictures: their pixel values must be class ids")
        warnings += _other_shapes(records)
        if _VOID in ids and len(ids) > 2:
            learn["ignore"] = _VOID
            notes["target.ignore"] = "by custom, 255 marks pixels without a class"
        elif ids:
            warnings.append(
                f"the masks hold the ids {', '.join(map(str, ids))}: if one means no class, say so with target.ignore"
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
            target=learn,
            notes=notes,
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
        if not pairs:
            raise UserError(
                f"{path} has no pictures with masks",
                expected="the folders images and masks, or train and trainannot (and the same for val and test)",
            )
        files = [picture for picture, _ in pairs]
        fields = {"image": _folders.objects(files), "mask": _folders.objects([mask for _, mask in pairs])}
        if any(splits):
            fields["split"] = _folders.objects([split or "train" for split in splits])
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


def _paired(pictures: Path, masks: Path) -> list[tuple[Path, Path]]:
    """Every picture with the mask of its name.

    Raises:
        UserError: a picture without a mask, or a mask without a picture.
    """
    by_name = {_name(path, masks): path for path in _folders.files_below(masks, IMAGES)}
    pairs, alone = [], []
    for picture in _folders.files_below(pictures, IMAGES):
        name = _name(picture, pictures)
        mask = next((found for ending in _ENDINGS if (found := by_name.pop(name + ending, None))), None)
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


def _peek(masks: np.ndarray) -> tuple[list[int], bool]:
    """The ids in some masks, and whether any of them is a picture with several channels."""
    ids: set[int] = set()
    colour = False
    for mask in masks[np.linspace(0, len(masks) - 1, min(_PEEK, len(masks))).astype(int)]:
        try:
            pixels = np.asarray(read_image(mask))
        except RecordError:
            continue
        colour |= pixels.ndim > 2
        ids.update(np.unique(pixels).tolist() if pixels.ndim == 2 else [])
    return sorted(ids), colour
