"""Pictures and labels in idx files, as MNIST and its kin come: train-images-idx3-ubyte.gz and so on."""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from sonde.base.config import Config
from sonde.base.errors import UserError
from sonde.contracts.records import Records
from sonde.data.source import Guess, Source
from sonde.data.sources import _folders
from sonde.data.split import split_name

_FILE = re.compile(r"(?:.*-)?(?P<part>[a-z0-9]+)-(?P<what>images|labels)[-.]idx(?P<axes>\d)-ubyte(\.gz)?", re.I)
# The type code of unsigned bytes, in the third byte of the magic number (the fourth is the number of axes).
_UNSIGNED_BYTE = 0x08
_NAMES = "class_names.txt"


class IdxConfig(Config):
    kind: Literal["idx"] = "idx"


class Idx(Source):
    """Fields "image" (N, H, W) uint8, "label" (from class_names.txt, else the digits) and "split" (t10k is the test).

    The format is described at http://yann.lecun.com/exdb/mnist/.
    """

    Config: ClassVar = IdxConfig

    @staticmethod
    def recognise(path: Path) -> bool:
        return path.is_dir() and any(_FILE.fullmatch(file.name) for file in _folders.entries(path))

    @staticmethod
    def guess(path: Path, target: str | None) -> Guess:
        if target not in (None, "label"):
            raise UserError(f"idx files have no field {target!r} to learn", expected="label")
        records = Idx.read(path, IdxConfig())
        split, warning = _folders.given_split(set(records.fields["split"]))
        height, width = records.fields["image"].shape[1:3]
        classes = len(set(records.fields["label"]))
        return Guess(
            about=f"{len(records):,} pictures of {height} x {width} pixels in {classes} classes",
            count=len(records),
            data={"source": str(path), "kind": "idx", "split": split},
            inputs={"image": {"kind": "image", "field": "image", "size": [height, width]}},
            target={"kind": "category", "field": "label"},
            warnings=(warning,) if warning else (),
        )

    @staticmethod
    def read(path: Path, config: IdxConfig) -> Records:
        if not path.is_dir():
            raise _folders.no_folder(path)
        images, labels, splits, ids = [], [], [], []
        for part, split, pictures, answers in _files(path):
            pixels, codes = _read(pictures), _read(answers)
            if pixels.ndim not in (3, 4) or codes.ndim != 1:
                raise UserError(
                    f"{pictures.name} has {pixels.ndim} axes and {answers.name} has {codes.ndim} in {path}",
                    expected="3 (count, height, width) and 1",
                )
            if len(pixels) != len(codes):
                raise UserError(
                    f"{pictures.name} has {len(pixels)} pictures and {answers.name} has {len(codes)} labels in {path}",
                    expected="a label for every picture",
                )
            images.append(pixels)
            labels.append(codes)
            splits.append(np.full(len(codes), split, dtype=object))
            ids += [f"{part} {number}" for number in range(1, len(codes) + 1)]
        if len({pixels.shape[1:] for pixels in images}) > 1:
            raise UserError(f"the pictures in {path} differ in size: {[pixels.shape[1:] for pixels in images]}")
        fields = {
            "image": np.concatenate(images),
            "label": _labels(path, np.concatenate(labels)),
            "split": np.concatenate(splits),
        }
        return Records(fields=fields, ids=ids)

    @staticmethod
    def sample(folder: Path) -> Path:
        for part, count in (("train", 8), ("t10k", 4)):
            codes = np.arange(count, dtype=np.uint8) % 2
            pixels = np.tile(codes[:, None, None] * 200, (1, 8, 8)).astype(np.uint8)
            for name, values in (("images", pixels), ("labels", codes)):
                head = struct.pack(f">HBB{values.ndim}I", 0, _UNSIGNED_BYTE, values.ndim, *values.shape)
                file = folder / f"{part}-{name}-idx{values.ndim}-ubyte.gz"
                file.write_bytes(gzip.compress(head + values.tobytes(), mtime=0))
        return folder


def _files(root: Path) -> list[tuple[str, str, Path, Path]]:
    """Name of the part, its split, its picture file and its label file."""
    found: dict[str, dict[str, Path]] = {}
    for file in _folders.entries(root):
        match = _FILE.fullmatch(file.name)
        if match:
            # The packed and the unpacked file of one name are the same data: the first is enough.
            found.setdefault(match["part"].lower(), {}).setdefault(match["what"].lower(), file)
    if not found:
        raise UserError(
            f"{root} has no idx files", expected="train-images-idx3-ubyte(.gz), train-labels-idx1-ubyte(.gz)"
        )
    files = []
    for part, pair in found.items():
        split = "test" if part == "t10k" else split_name(part)
        if split is None:
            raise UserError(
                f"{next(iter(pair.values()))}: {part!r} is no split", expected="train, validation, test or t10k"
            )
        if len(pair) < 2:
            (there,) = pair.values()
            other = "labels" if "images" in pair else "images"
            raise UserError(f"{there} has no file of {other} beside it", expected=f"{part}-{other}-idx...-ubyte(.gz)")
        files.append((part, split, pair["images"], pair["labels"]))
    return sorted(files, key=lambda file: (_folders.ORDER.index(file[1]), file[0]))


def _read(file: Path) -> np.ndarray:
    """The array of an idx file."""
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix.lower() == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file} cannot be read: {error}", hint="it may be cut short: fetch it again") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTE:
        raise UserError(
            f"{file} is not an idx file of bytes: it begins with {content[:4].hex(' ') or 'nothing'}",
            expected="the magic number 00 00 08 and the number of axes",
        )
    axes = content[3]
    start = 4 + 4 * axes
    if len(content) < start:
        raise UserError(f"{file} is cut short within its header")
    shape = struct.unpack(f">{axes}I", content[4:start])
    if len(content) - start != int(np.prod(shape, dtype=np.int64)):
        raise UserError(
            f"{file} holds {len(content) - start} values, and its header says {' x '.join(map(str, shape))}",
            hint="it may be cut short: fetch it again",
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _labels(root: Path, codes: np.ndarray) -> np.ndarray:
    file = root / _NAMES
    if not file.exists():
        return _folders.objects([str(code) for code in range(256)])[codes]
    names = file.read_text(encoding="utf-8").split("\n")
    names = [name.strip() for name in names if name.strip()]
    if len(names) <= int(codes.max(initial=0)):
        raise UserError(
            f"{file} has {len(names)} names, and there is a label {codes.max()}", expected="a name for each label"
        )
    return _folders.objects(names)[codes]
