"""Settings that do well unedited for boxes: the size of the pictures by that of the objects, and a small ResNet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sonde.base.config import Config
from sonde.base.errors import RecordError
from sonde.base.images import read_image
from sonde.contracts.records import Records
from sonde.contracts.specs import Advice

if TYPE_CHECKING:
    from sonde.targets.boxes.target import BoxesConfig

# Pictures that are looked at.
SAMPLE = 32
# The smaller objects of every label (the lower quartile) are seen at so many pixels a side; pictures have so many.
SEEN, SMALLEST, LARGEST = 20, 160, 640
# Pictures that training sees, over all epochs, where these are few.
SEEN_PICTURES = 12_000
# Sides are multiples of the coarsest step of the pyramid.
STEP = 32


def recommend(config: BoxesConfig, inputs: Mapping[str, Config], records: Records) -> Advice:
    image = next((each for each in inputs.values() if hasattr(each, "resize_mode")), None)
    size = None if image is None else _size(config, image, records)
    augment = {
        "flip": True,
        "zoom": 0.3,
        "shift": 0.1,
        "border": "fill",
        "brightness": 0.2,
        "contrast": 0.2,
        "saturation": 0.2,
    }
    epochs = max(12, min(60, round(SEEN_PICTURES / max(1, _training(records)))))
    return Advice(
        input={**({"size": size} if size else {}), "resize_mode": "pad", "augment": augment},
        network={"kind": "resnet", "depth": 18, "width": 0.5, "stem": "imagenet"},
        training={
            "epochs": epochs,
            "batch_size": 8,
            "optimizer": {"kind": "muon", "lr": 0.02},
            "schedule": {"kind": "one-cycle"},
            "ema_decay": 0.99,
        },
    )


def _training(records: Records) -> int:
    """About how many pictures train."""
    split = records.fields.get("split")
    return round(0.8 * len(records)) if split is None else int((split == "train").sum())


def _size(config: BoxesConfig, image: Any, records: Records) -> list[int] | None:
    """Height and width that show the smaller objects well, in the common shape of the pictures."""
    sizes: list[tuple[int, int]] = []
    sides: dict[str, list[float]] = {}
    for index in np.linspace(0, len(records) - 1, min(SAMPLE, len(records))).astype(int):
        record = records[int(index)]
        try:
            picture = read_image(record[image.field])
        except RecordError:
            continue
        sizes.append((picture.height, picture.width))
        across, down = (1, 1) if config.units == "pixels" else (picture.width, picture.height)
        for each in record.get(config.field) or []:
            x1, y1, x2, y2 = each["box"]
            if x2 > x1 and y2 > y1:
                sides.setdefault(each["label"], []).append(((x2 - x1) * across * (y2 - y1) * down) ** 0.5)
    if not sizes:
        return None
    height, width = np.median(sizes, axis=0)
    small = min((float(np.quantile(found, 0.25)) for found in sides.values()), default=float(SEEN))
    longest = max(height, width)
    scale = min(1.0, max(SEEN / small, SMALLEST / longest), LARGEST / longest)
    return [max(STEP, round(side * scale / STEP) * STEP) for side in (height, width)]
