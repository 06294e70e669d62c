"""Settings that do well for pictures out of noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sonde.base.images import read_header
from sonde.base.threads import each
from sonde.contracts.records import Records
from sonde.contracts.specs import Advice
from sonde.targets.noise.settings import NoiseConfig

# Pictures that are seen in training: 20 minutes of two cores for 28 x 28 pixels.
SEEN = 800_000
# Pictures are made at most so large, unless the recipe says so; from this side on squares of 2 pixels are one place.
SIDE, PATCHES = 32, 24
# Few pictures are seen again and again.
MOST_EPOCHS = 400


def advice(config: NoiseConfig, inputs: Mapping[str, Any], records: Records) -> Advice:
    """By how many pictures there are, and of what size."""
    size, mirrored = _looks(inputs, records)
    patches = size is None or min(size) >= PATCHES
    return Advice(
        # What augmentation does to pictures is learned, too: they are only mirrored, where that changes nothing.
        input={**({} if size is None else {"size": list(size)}), "augment": {"flip": mirrored}},
        network={
            "kind": "unet",
            "patch": 2 if patches else 1,
            "widths": [64, 128] if patches else [32, 64],
            "norm": "group",
            "activation": "silu",
            "residual": True,
            "attention": True,
        },
        training={
            "epochs": int(np.clip(SEEN / max(1, len(records)), 10, MOST_EPOCHS)),
            "batch_size": 64,
            "optimizer": {"kind": "adamw", "lr": 2e-3, "weight_decay": 0.01},
            "schedule": {"kind": "warmup-cosine", "warmup": 0.05},
            "ema_decay": 0.999,
            "checkpoint": "last",
        },
        min_steps=2000,
    )


def _looks(inputs: Mapping[str, Any], records: Records) -> tuple[tuple[int, int] | None, bool]:
    """The size of the pictures to make, None where the records hold none; and whether they may be mirrored."""
    field = getattr(inputs.get("image"), "field", None)
    if field is None or field not in records.fields:
        return None, False
    some = records.fields[field][np.unique(np.linspace(0, len(records) - 1, min(32, len(records))).astype(int))]
    found = [one for one in each(read_header, some) if one is not None]
    if not found:
        return None, False
    sides = np.median([(one.height, one.width) for one in found], axis=0)
    scale = min(1.0, SIDE / max(sides))
    # Letters and digits mean something else in the mirror; pictures with colours rarely do.
    return (max(8, round(sides[0] * scale)), max(8, round(sides[1] * scale))), all(
        one.mode not in GREY for one in found
    )


# Pillow's modes of one channel.
GREY = ("1", "L", "I", "I;16", "F")
