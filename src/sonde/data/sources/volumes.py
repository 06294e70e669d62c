"""Volumes and their masks (CT, MRI): NIfTI, .npy or .npz in folders beside each other, or side by side: a, a_seg.

imagesTr/ labelsTr/ (with the names of labels in dataset.json, as the Medical Segmentation Decathlon and nnU-Net have
them), images/ masks/, or a folder for each case.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from sonde.base.config import Config
from sonde.base.errors import RecordError, UserError
from sonde.base.volumes import ENDINGS, is_volume_name, read_volume, stem
from sonde.contracts.records import Records
from sonde.data.source import Guess, Source
from sonde.data.sources import _folders

# Folders of volumes and of their masks, as data sets name them.
_VOLUMES = ("imagestr", "images", "image", "imgs", "volumes", "volume", "scans", "img", "data", "ct", "mri")
_MASKS = ("labelstr", "labels", "label", "masks", "mask", "segmentations", "segmentation", "seg", "annotations", "gt")
# What a mask's name has over its volume's, and a volume's over that of its case (nnU-Net counts channels so).
_ENDINGS = ("_seg", "-seg", "_mask", "-mask", "_label", "-label", "_labels", "_segmentation", "_gt", "-gt", "_roi")
_VOLUME_ENDINGS = ("_0000", "_image", "-image", "_img", "_volume", "_ct", "_mri", "_t1", "-t1")
# Data sets so small split otherwise: a tenth of them tells nothing.
_FEW = 100
# Masks that are looked into for their labels.
_PEEK = 20


class VolumesConfig(Config):
    kind: Literal["volumes"] = "volumes"


class Volumes(Source):
    """Fields "volume" (Path), "mask" (Path), and "split" where folders give one; records are named by the volume."""

    Config: ClassVar = VolumesConfig
    distinct: ClassVar[bool] = True

    @staticmethod
    def recognise(path: Path) -> bool:
        if not path.is_dir():
            return False
        if any(_holds(volumes) and _holds(masks) for _, volumes, masks in _folder_pairs(path)):
            return True
        return any(len(_beside(files)) > 0 for files in _groups(path, most=3))

    @staticmethod
    def guess(path: Path, target: str | None) -> Guess:
        records = Volumes.read(path, VolumesConfig())
        if target not in (None, "mask"):
            raise UserError(f"volumes with masks have no field {target!r} to learn", expected="mask")
        share = 0.2 if len(records) < _FEW else 0.1
        split: dict[str, object] = {"by": "random", "validation": share, "test": share}
        warnings: list[str] = []
        if "split" in records.fields:
            split, warning = _folders.given_split(set(records.fields["split"]))
            warnings += [warning] if warning else []
        ids = _ids(records.fields["mask"])
        names = _names(path, ids)
        notes = {}
        settings: dict[str, Any] = {}
        if names:
            settings["classes"] = names
            notes["target.classes"] = "as dataset.json names them"
        said = f"masks: the ids {', '.join(map(str, ids[:12]))}{' ...' if len(ids) > 12 else ''}"
        return Guess(
            about=f"{len(records):,} volumes with masks",
            count=len(records),
            data={"source": str(path), "kind": "volumes", "split": split},
            inputs={"volume": {"kind": "volume", "field": "volume"}},
            target={"kind": "mask", "field": "mask", **settings},
            notes=notes,
            read_as=(said,) if ids else (),
            warnings=tuple(warnings),
        )

    @staticmethod
    def read(path: Path, config: VolumesConfig) -> Records:
        if not path.is_dir():
            raise _folders.no_folder(path)
        pairs: list[tuple[Path, Path]] = []
        splits: list[str | None] = []
        for split, volumes, masks in _folder_pairs(path):
            if _holds(volumes) and _holds(masks):
                found = _paired(volumes, masks)
                pairs += found
                splits += [split] * len(found)
        if not pairs:
            pairs = [pair for files in _groups(path) for pair in _all_beside(files)]
            splits = [None] * len(pairs)
        if not pairs:
            raise UserError(
                f"{path} has no volumes with masks",
                expected="the folders imagesTr and labelsTr, or images and masks, with files of the same names, or "
                f"a_seg.nii.gz beside a.nii.gz ({', '.join(ENDINGS)})",
            )
        files = [volume for volume, _ in pairs]
        fields = {"volume": _folders.objects(files), "mask": _folders.objects([mask for _, mask in pairs])}
        if any(splits):
            fields["split"] = _folders.objects([split or "train" for split in splits])
        return Records(fields=fields, ids=_folders.relative(files, path))

    @staticmethod
    def sample(folder: Path) -> Path:
        for name in ("imagesTr", "labelsTr"):
            (folder / name).mkdir()
        for index in range(6):
            mask = np.zeros((8, 8, 8), dtype=np.uint8)
            mask[2 : 4 + index % 3, 2:6, 2:6] = 1
            np.save(folder / "labelsTr" / f"case_{index}.npy", mask)
            np.save(folder / "imagesTr" / f"case_{index}.npy", (mask * 100 + index).astype(np.float32))
        return folder


def _holds(folder: Path) -> bool:
    """Whether volumes lie right in a folder."""
    return any(is_volume_name(path.name) for path in _folders.entries(folder))


def _folder_pairs(root: Path) -> list[tuple[str | None, Path, Path]]:
    """Split (None if there is none), folder of volumes and of masks."""
    found = _pairs_in(root, None)
    for split, part in _folders.split_folders(root):
        found += _pairs_in(part, split)
    return found


def _pairs_in(root: Path, split: str | None) -> list[tuple[str | None, Path, Path]]:
    by_name = {path.name.lower(): path for path in _folders.folders(root)}
    volumes = next((by_name[name] for name in _VOLUMES if name in by_name), None)
    masks = next((by_name[name] for name in _MASKS if name in by_name), None)
    if volumes is None or masks is None:
        return []
    inner = [
        (name, part, masks / part.name)
        for name, part in _folders.split_folders(volumes)
        if (masks / part.name).is_dir()
    ]
    return [*inner] or [(split, volumes, masks)]


def _paired(volumes: Path, masks: Path) -> list[tuple[Path, Path]]:
    """Every volume with the mask of its name.

    Raises:
        UserError: a volume without a mask, a mask without a volume, or a volume in several channels' files.
    """
    by_name = {stem(path.name): path for path in _volumes_in(masks)}
    pairs, alone = [], []
    for volume in _volumes_in(volumes):
        names = [stem(volume.name), *_without(stem(volume.name), _VOLUME_ENDINGS)]
        name = next((one + end for one in names for end in ("", *_ENDINGS) if one + end in by_name), None)
        if name is None:
            alone.append(volume)
        else:
            pairs.append((volume, by_name.pop(name)))
    several = [path for path in alone if re.search(r"_000[1-9]$", stem(path.name))]
    if several:
        raise UserError(
            f"{_listing(several)} a second channel of a case in a file of its own",
            expected="all channels of a case in one file, as a fourth axis",
            hint="stack them: nibabel.concat_images([...], axis=3)",
        )
    if alone:
        raise UserError(
            f"{_listing(alone)} no mask in {masks}",
            expected="for every volume a mask of the same name",
            hint="add the masks, or move the volumes away",
        )
    if by_name:
        raise UserError(f"{_listing(list(by_name.values()))} no volume in {volumes}")
    return pairs


def _volumes_in(folder: Path) -> list[Path]:
    return [path for path in _folders.entries(folder) if path.is_file() and is_volume_name(path.name)]


def _without(name: str, endings: Sequence[str]) -> list[str]:
    return [name.removesuffix(ending) for ending in endings if name.endswith(ending)]


def _groups(root: Path, most: int | None = None) -> list[list[Path]]:
    """The volumes of the root and of each folder below it that has some."""
    found = []
    for folder in [
        root,
        *(path for path in sorted(root.rglob("*")) if path.is_dir() and not path.name.startswith(".")),
    ]:
        files = _volumes_in(folder)
        if files:
            found.append(files)
        if most is not None and len(found) >= most:
            break
    return found


def _beside(files: Sequence[Path]) -> list[tuple[Path, Path]]:
    """The volumes of a folder whose mask lies beside them, each with it."""
    by_stem = {stem(path.name): path for path in files}
    pairs = []
    for name, mask in by_stem.items():
        for base in _without(name, _ENDINGS):
            volume = next((by_stem[base + end] for end in ("", *_VOLUME_ENDINGS) if base + end in by_stem), None)
            if volume is not None:
                pairs.append((volume, mask))
                break
    return sorted(pairs)


def _all_beside(files: Sequence[Path]) -> list[tuple[Path, Path]]:
    """The same, where nothing may be left over.

    Raises:
        UserError: a volume without a mask.
    """
    pairs = _beside(files)
    alone = sorted(set(files) - {file for pair in pairs for file in pair})
    if pairs and alone:
        raise UserError(
            f"{_listing(alone)} no mask beside {'it' if len(alone) == 1 else 'them'}",
            expected=f"for every volume a mask, as {pairs[0][1].name} for {pairs[0][0].name}",
            hint="add the masks, or move the volumes away; channels of a case belong into one file, as a fourth axis",
        )
    return pairs


def _ids(masks: np.ndarray) -> list[int]:
    """The whole numbers in some of the masks."""
    found: set[int] = set()
    for path in masks[np.linspace(0, len(masks) - 1, min(_PEEK, len(masks))).astype(int)].tolist():
        try:
            found |= {int(value) for value in np.unique(read_volume(path).values) if float(value).is_integer()}
        except RecordError:
            continue
    return sorted(found)


def _names(root: Path, ids: Sequence[int]) -> list[str]:
    """The names of the ids 0, 1, ... in dataset.json, where it names all of those found; else none."""
    file = root / "dataset.json"
    try:
        held = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise UserError(f"{file} is not JSON: {error}", hint="correct it, or move it away") from error
    labels = held.get("labels") if isinstance(held, Mapping) else None
    if not isinstance(labels, Mapping):
        return []
    # The Decathlon writes {"0": "background"}, nnU-Net {"background": 0}.
    named: dict[int, str] = {}
    for key, value in labels.items():
        if str(key).isdigit():
            named[int(key)] = str(value)
        elif isinstance(value, int):
            named[value] = str(key)
    whole = sorted(named) == list(range(len(named))) and len(set(named.values())) == len(named)
    return [named[each] for each in range(len(named))] if whole and set(ids) <= set(named) else []


def _listing(paths: Sequence[Path]) -> str:
    return f"{paths[0]} has" if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more have"
