"""What the pixels of masks hold: class ids, black and white, or a colour for each class; and the names of classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sonde.base import encodings
from sonde.base.errors import RecordError, UserError
from sonde.base.images import colours_of, hex_of, read_image
from sonde.data.sources import _folders

# Masks that are looked into, and pixels of each.
_PEEK, _PIXELS = 100, 100_000
_VOID = 255
# More colours than this are no classes, but shades.
_MOST_COLOURS = 64
# What is saved with losses has shades around a few colours; so near, and such a share of the pixels.
_NEAR, _MOSTLY = 48, 0.95
_CLASS_FILE = re.compile(r"(?i).*(class|label|code|colou?r|categor|legend|palette).*\.(csv|txt)")
_VOID_NAMES = re.compile(r"(?i)void|ignore[d]?|unlabel(l)?ed|unknown|don'?t[ _]?care")
_LOSSY = frozenset({".jpg", ".jpeg", ".webp"})


@dataclass(frozen=True, kw_only=True)
class Found:
    """The settings of the target that the masks ask for, and what to say of them."""

    target: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def look(masks: np.ndarray, root: Path) -> Found:
    """What some of the masks hold.

    Raises:
        UserError: it is neither ids nor a few colours.
    """
    counts: Counter[int] = Counter()
    coloured = 0
    paths: list[Path] = masks[np.linspace(0, len(masks) - 1, min(_PEEK, len(masks))).astype(int)].tolist()
    for path in paths:
        try:
            values, has_colours = _sample(path)
        except RecordError:
            continue
        coloured += has_colours
        for value, count in zip(*np.unique(values, return_counts=True), strict=True):
            counts[int(value)] += int(count)
    names = class_file(root)
    if coloured:
        return _in_colours(counts, names)
    greys = Counter({value & 0xFF if value <= 0xFFFFFF else value: count for value, count in counts.items()})
    return _in_grey(greys, names, paths)


def _sample(path: Path) -> tuple[np.ndarray, bool]:
    """Some pixels of a mask as 0xrrggbb (grey ones thrice the same), and whether it has colours."""
    image = read_image(path)
    pixels = np.asarray(image)
    if pixels.ndim == 2:  # grey values, ids, or places in the file's own palette
        flat = pixels.reshape(-1).astype(np.int64)
        some = flat[:: 1 + len(flat) // _PIXELS]
        return some * 0x010101 if pixels.dtype.itemsize == 1 else some, False
    flat = colours_of(image).reshape(-1)
    some = flat[:: 1 + len(flat) // _PIXELS]
    return some, bool(((some >> 16 != (some & 0xFF)) | ((some >> 8 & 0xFF) != (some & 0xFF))).any())


def _in_grey(counts: Counter[int], names: _Classes, paths: Sequence[Path]) -> Found:
    ids = sorted(counts)
    if ids in ([0, 1], [0, _VOID]) and not names.classes:
        return Found(
            target={"classes": ["background", "foreground"]},
            notes={"target.classes": f"the masks hold 0 and {ids[1]}"},
            said=[f"masks: 0 as background, {ids[1]} as foreground"],
        )
    extremes = sum(count for value, count in counts.items() if min(value, abs(_VOID - value)) <= _NEAR)
    lossy = any(path.suffix.lower() in _LOSSY for path in paths)
    if (lossy or len(ids) > _MOST_COLOURS) and len(ids) > 2 and extremes >= _MOSTLY * counts.total():
        return Found(
            target={"palette": {"background": "#000000", "foreground": "#ffffff"}, "nearest_colour": True},
            notes={"target.nearest_colour": f"{len(ids)} shades of grey: not all are black or white"},
            said=["masks: nearly black as background, nearly white as foreground"],
        )
    if len(ids) > (_MOST_COLOURS if lossy else 254) or (ids and ids[-1] > 0xFFFF):
        raise UserError(
            f"the masks hold {len(ids)} different values up to {ids[-1]}",
            expected="class ids or grey values of a few classes (254 at most)",
            hint="are these pictures, depths or instances? Masks hold a class for each pixel",
        )
    return _ids(ids, names)


def _ids(ids: list[int], names: _Classes) -> Found:
    target: dict[str, Any] = {}
    notes: dict[str, str] = {}
    warnings = []
    said = []
    named = [name for name, _ in names.classes]
    real = [value for value in ids if value != _VOID]
    if named and real and real[-1] < len(named):
        target["classes"] = named
        notes["target.classes"] = f"from {names.file}"
        said.append(f"masks: ids 0 to {len(named) - 1} named by {names.file}")
    if _VOID in ids and len(ids) > 2:
        target["ignore"] = _VOID
        notes["target.ignore"] = "by custom, 255 marks pixels without a class"
    elif ids and not named:
        warnings.append(
            f"the masks hold the ids {', '.join(map(str, ids))}: if one means no class, say so with target.ignore"
        )
    return Found(target=target, notes=notes, said=said, warnings=warnings)


def _in_colours(counts: Counter[int], names: _Classes) -> Found:
    listed = {name: colour for name, colour in names.classes if colour is not None}
    palette: dict[str, str]
    if listed:
        palette = {name: hex_of(colour) for name, colour in listed.items()}
        whence = f"colours from {names.file}"
    else:
        kept = _main_colours(counts)
        palette = {hex_of(colour): hex_of(colour) for colour in kept}
        whence = "classes are named by their colours; other names may stand before the ="
    known = {int(colour[1:], 16) for colour in palette.values()}
    strange = sum(count for colour, count in counts.items() if colour not in known) / max(1, counts.total())
    target: dict[str, Any] = {"palette": palette}
    notes = {"target.palette": whence}
    if strange:
        target["nearest_colour"] = True
        notes["target.nearest_colour"] = f"{strange:.1%} of the pixels have another colour"
    void = next((place for place, name in enumerate(palette) if _VOID_NAMES.fullmatch(name)), None)
    if void is not None:
        target["ignore"] = void
        notes["target.ignore"] = f"the place of {list(palette)[void]!r} in the palette, from 0"
    if strange > 1 - _MOSTLY:
        raise UserError(
            f"{strange:.0%} of the pixels of the masks have none of the {len(palette)} colours of "
            + (names.file if listed else "classes")
            + f", such as {hex_of(next(colour for colour in counts if colour not in known))}",
            expected="a colour for each class",
            hint="name the colours in class_dict.csv (name,r,g,b) beside the masks",
        )
    return Found(target=target, notes=notes, said=[f"masks: {len(palette)} colours as classes"])


def _main_colours(counts: Counter[int]) -> list[int]:
    """The colours that are classes: all of a few, of many those that nearly all pixels are near."""
    if len(counts) <= _MOST_COLOURS:
        return sorted(counts)
    kept: list[int] = []
    for colour, _ in counts.most_common(_MOST_COLOURS):
        if all(_distance(colour, other) > _NEAR for other in kept):
            kept.append(colour)
    near = sum(count for colour, count in counts.items() if any(_distance(colour, one) <= _NEAR for one in kept))
    if near < _MOSTLY * counts.total() or len(kept) < 2:
        raise UserError(
            f"the masks hold {len(counts):,} different colours",
            expected="class ids, or a colour for each class",
            hint="name the colours in class_dict.csv (name,r,g,b) beside the masks; are these masks at all?",
        )
    return sorted(kept)


def _distance(one: int, other: int) -> int:
    return max(abs((one >> shift & 0xFF) - (other >> shift & 0xFF)) for shift in (0, 8, 16))


@dataclass(frozen=True, kw_only=True)
class _Classes:
    """The classes that a file lists, each with its colour where the file gives one."""

    file: str = ""
    classes: tuple[tuple[str, int | None], ...] = ()


def class_file(root: Path) -> _Classes:
    """The names of classes from a file beside the masks: class_dict.csv (name,r,g,b), label_colors.txt (r g b name),
    codes.txt or classes.txt (a name a line), labelmap.txt (name:r,g,b::)."""
    for path in _folders.entries(root):
        if path.is_file() and _CLASS_FILE.fullmatch(path.name):
            try:
                lines = encodings.decode(path.read_bytes()).splitlines()
            except (OSError, UnicodeDecodeError):
                continue
            if found := _classes_in(lines):
                return _Classes(file=path.name, classes=tuple(found.items()))
    return _Classes()


def _classes_in(lines: Sequence[str]) -> Mapping[str, int | None]:
    rows = [line.split("#", 1)[0] if "label:" in line else line for line in lines]
    found: dict[str, int | None] = {}
    ids: dict[str, int] = {}
    for line in (row.strip() for row in rows):
        numbers = [int(number) for number in re.findall(r"(?<![\w.])\d+(?![\w.])", line)]
        name = re.sub(r"(?<![\w.])\d+(?![\w.])", " ", line).strip(" \t,;:|[]()\"'")
        name = re.split(r"[,;:\t|]", name)[0].strip(" \"'")
        if not name:
            continue
        colour = numbers[-3:] if len(numbers) >= 3 and max(numbers[-3:]) <= 255 else None
        found[name] = None if colour is None else colour[0] << 16 | colour[1] << 8 | colour[2]
        if len(numbers) in (1, 4):
            ids[name] = numbers[0]
    if any(colour is not None for colour in found.values()):  # a line without one is a header
        return {name: colour for name, colour in found.items() if colour is not None}
    if ids:
        return dict.fromkeys(sorted(ids, key=ids.__getitem__)) if _are_places(ids) else {}
    return found


def _are_places(ids: Mapping[str, int]) -> bool:
    return sorted(ids.values()) == list(range(len(ids)))
