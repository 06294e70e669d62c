"""The objects of one record, read and checked: [{"label": "car", "box": [x1, y1, x2, y2]}, ...]."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from sonde.base.boxes import fault
from sonde.base.errors import RecordError

# Columns of the objects of a picture: the box in the grid, which augmentation moves; the box in the picture as it was;
# the code of the class; what counts otherwise; the area that its size is judged by.
GRID, PICTURE, CLASS, FLAG, AREA, WIDTH = slice(0, 4), slice(4, 8), 8, 9, 10, 11
# Flags: an object as any other; a group of them (COCO's crowd); one that need not be found (VOC's difficult, or cut off
# by augmentation).
PLAIN, CROWD, DIFFICULT = 0, 1, 2


class Object(NamedTuple):
    label: str
    box: tuple[float, float, float, float]
    flag: int
    area: float

    def to_json(self) -> dict[str, Any]:
        flags = {CROWD: {"crowd": True}, DIFFICULT: {"difficult": True}}
        return {"label": self.label, "box": [*self.box], **flags.get(self.flag, {})}


def read_objects(
    value: Any,
    field: str,
    size: tuple[float, float],
    *,
    units: Literal["pixels", "shares"] = "pixels",
    invalid: Literal["error", "drop"] = "error",
) -> list[Object]:
    """The objects in a picture of `size` (height, width); boxes in pixels, cut at the picture's borders.

    `invalid` "drop" leaves out boxes without an area and those that lie beyond the picture.

    Raises:
        RecordError: there is no list, or a box is none: not four finite numbers, crossed, empty or outside.
    """
    if value is None:
        raise RecordError(f"the record has no boxes in field {field!r}", expected="a list, empty where nothing is seen")
    if not isinstance(value, (list, tuple, np.ndarray)):
        raise _no_object(field, value)
    found = []
    for number, each in enumerate(value, start=1):
        name = f"box {number} of {len(value)}"
        label, box = _label_and_box(each, field, name)
        if units == "shares":
            box = (box[0] * size[1], box[1] * size[0], box[2] * size[1], box[3] * size[0])
        wrong = fault(box, size)
        if wrong is None:
            box = (max(0.0, box[0]), max(0.0, box[1]), min(size[1], box[2]), min(size[0], box[3]))
            found.append(Object(label, box, flag_of(each), float(each.get("area") or area(box))))
        elif invalid == "error":
            raise RecordError(
                f"{name} ({label!r}) in field {field!r} {wrong}",
                expected=f"[x1, y1, x2, y2] with x1 < x2 <= {size[1]:g} and y1 < y2 <= {size[0]:g}",
                hint='correct the box; target.invalid_boxes = "drop" leaves such boxes out',
            )
    return found


def area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def flag_of(value: Mapping[str, Any]) -> int:
    return CROWD if value.get("crowd") else DIFFICULT if value.get("difficult") else PLAIN


def labels_of(value: Any) -> list[str]:
    """The labels in a list of objects, as far as it is one."""
    if not isinstance(value, (list, tuple, np.ndarray)):
        return []
    return [str(each["label"]) for each in value if isinstance(each, Mapping) and each.get("label") is not None]


def _label_and_box(value: Any, field: str, name: str) -> tuple[str, tuple[float, float, float, float]]:
    if not isinstance(value, Mapping) or value.get("label") is None or value.get("box") is None:
        raise _no_object(field, value)
    try:
        x1, y1, x2, y2 = (float(each) for each in value["box"])
    except (TypeError, ValueError):
        raise _no_object(field, value) from None
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        raise RecordError(f"{name} in field {field!r} is not four finite numbers: {list(value['box'])}")
    return str(value["label"]), (x1, y1, x2, y2)


def _no_object(field: str, value: Any) -> RecordError:
    return RecordError(
        f"field {field!r} holds {str(value)[:80]!r}",
        expected='objects such as {"label": "car", "box": [x1, y1, x2, y2]}',
    )
