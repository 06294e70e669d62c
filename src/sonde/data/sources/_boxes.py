"""What sources of pictures with boxes have in common: records, faults that are counted, and the task that they suggest.

Objects are {"label": "car", "box": [x1, y1, x2, y2]}, with "crowd", "difficult" and "area" where the format has them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from sonde.base.boxes import fault
from sonde.base.errors import UserError
from sonde.base.images import upright_size
from sonde.base.threads import each
from sonde.contracts.records import Records
from sonde.data.source import Guess
from sonde.data.sources import _folders

# Pictures whose boxes are tried before a recipe is written.
TRIED = 5000
# Labels with fewer boxes than this deserve a look.
FEW = 20

Unlabelled = Literal["error", "background"]
UNLABELLED_HELP = "pictures without a label file: error stops, background says that nothing is on them"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture, the objects on it (None: nobody says), its split where the layout gives one, and the [width, height]
    that the boxes were drawn on, where the format says it ([0, 0] says nothing)."""

    file: Path
    objects: list[dict[str, Any]] | None
    split: str | None = None
    size: list[int] | None = None


def records(root: Path, pictures: Sequence[Picture], unlabelled: Unlabelled) -> Records:
    """Fields "image", "boxes", and "split" and "size" where there are any.

    Raises:
        UserError: nobody says what is on some pictures, and that is no background.
    """
    without = [picture for picture in pictures if picture.objects is None]
    if without and unlabelled == "error":
        raise UserError(
            f"{len(without)} of {len(pictures)} pictures have no label file, such as {without[0].file}",
            expected="a label file for every picture, empty where nothing is to be found",
            hint='data.unlabelled = "background" takes them for pictures with nothing on them',
        )
    fields = {
        "image": _folders.objects([picture.file for picture in pictures]),
        "boxes": _folders.objects([picture.objects or [] for picture in pictures]),
    }
    if any(picture.split for picture in pictures):
        fields["split"] = _folders.objects([picture.split or "train" for picture in pictures])
    if any(picture.size for picture in pictures):
        fields["size"] = _folders.objects([picture.size or [0, 0] for picture in pictures])
    return Records(fields=fields, ids=_names([picture.file for picture in pictures], root))


def _names(files: Sequence[Path], root: Path) -> list[str]:
    return [(file.relative_to(root) if file.is_relative_to(root) else file).as_posix() for file in files]


def guess(
    found: Records,
    target: str | None,
    *,
    data: Mapping[str, Any],
    format_name: str,
    units: Literal["pixels", "shares"] = "pixels",
    unlabelled: Sequence[str] = (),
    notes: Mapping[str, str] | None = None,
    warnings: Sequence[str] = (),
) -> Guess:
    """The task boxes; what is odd about the data is counted and told. `unlabelled`: pictures without a label file."""
    if target not in (None, "boxes"):
        raise UserError(f"pictures with boxes have no field {target!r} to learn", expected="boxes")
    learn: dict[str, Any] = {"kind": "boxes", "field": "boxes"}
    told, why = [*warnings], dict(notes or {})
    if units == "shares":
        learn["units"] = units
    if "size" in found.fields:
        learn["size_field"] = "size"
    invalid = _invalid(found, units)
    if invalid:
        learn["invalid_boxes"] = "drop"
        name, what = invalid[0]
        told.append(
            f"{len(invalid)} boxes are invalid and will be left out (target.invalid_boxes): a box of {name} {what}"
        )
    settings = dict(data)
    if unlabelled:
        settings["unlabelled"] = "background"
        told.append(
            f"{len(unlabelled)} of {len(found)} pictures have no label file, such as {unlabelled[0]}: they are taken "
            "for pictures with nothing on them (data.unlabelled)"
        )
    labels = Counter(one["label"] for value in found.fields["boxes"] for one in value)
    if not labels:
        raise UserError(
            f"{data['source']} has pictures and no boxes at all", expected=f"boxes as {format_name} has them"
        )
    rare = [name for name, count in labels.items() if count < FEW]
    if rare:
        shown = ", ".join(f"{name!r} ({labels[name]})" for name in sorted(rare)[:5])
        told.append(f"{len(rare)} of {len(labels)} labels have fewer than {FEW} boxes: {shown}")
    split: dict[str, object] = {"by": "random", "validation": 0.1, "test": 0.1}
    if "split" in found.fields:
        split, warning = _folders.given_split(set(found.fields["split"]) - {"none"})
        told += [warning] if warning else []
    counted = ", ".join(f"{count:,} {name}" for name, count in labels.most_common(4))
    more = f" and {len(labels) - 4} labels more" if len(labels) > 4 else ""
    empty = sum(not len(value) for value in found.fields["boxes"])
    return Guess(
        about=f"{len(found):,} pictures with boxes ({format_name}): {counted}{more}"
        + (f"; {empty:,} without any" if empty else ""),
        count=len(found),
        data={**settings, "split": split},
        inputs={"image": {"kind": "image", "field": "image"}},
        target=learn,
        notes=why,
        warnings=tuple(told),
    )


def _invalid(found: Records, units: str) -> list[tuple[str, str]]:
    """The invalid boxes, with the picture of each; only the heads of picture files are read."""
    some = found.take(np.unique(np.linspace(0, len(found) - 1, min(TRIED, len(found))).astype(int)))
    sizes = each(upright_size, some.fields["image"])
    wrong = []
    for name, size, value in zip(some.ids, sizes, some.fields["boxes"], strict=True):
        width, height = size or (float("inf"), float("inf"))
        scale = (width, height, width, height) if units == "shares" else (1, 1, 1, 1)
        if units == "shares" and size is None:
            continue
        for one in value:
            what = fault([side * times for side, times in zip(one["box"], scale, strict=True)], (height, width))
            if what:
                wrong.append((name, what))
    return wrong


def by_stem(folder: Path) -> dict[str, Path]:
    """The pictures below a folder, by their path in it without an ending."""
    return {
        file.relative_to(folder).with_suffix("").as_posix(): file
        for file in _folders.files_below(folder, _folders.IMAGES)
    }


def number(text: Any, what: str) -> float:
    """A finite number of a label file.

    Raises:
        UserError: it is none; `what` says where it stands.
    """
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = float("nan")
    if not np.isfinite(value):
        raise UserError(f"{what} is {text!r}", expected="a finite number")
    return value


def sample_picture(file: Path, boxes: Sequence[Sequence[float]]) -> None:
    """A small dark picture with light boxes, for the conformance kit."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (48, 32), (20, 30, 40))
    for x1, y1, x2, y2 in boxes:
        image.paste((220, 200, 60), (round(x1), round(y1), round(x2), round(y2)))
    image.save(file)


# Boxes of the samples: one picture each, the last with nothing on it.
SAMPLE = ([[4, 4, 20, 16]], [[10, 8, 30, 28], [32, 2, 46, 12]], [[2, 2, 14, 30]], [])
