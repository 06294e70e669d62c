"""Settings that do well unedited, by what goes in and how much of it there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sonde.base.config import Config
from sonde.contracts.records import Records
from sonde.contracts.specs import Advice

# The fewest tokens of byte pairs: the bytes themselves and a few pairs.
LEAST = 400


def advice(inputs: Mapping[str, Config], records: Records) -> Advice:
    """For all records that a data set has; what the inputs and their networks need, the inputs say."""
    count = len(records)
    target: dict[str, Any] = {"tokens": "bpe", "generate": {"beams": 4}}
    if "text" in inputs:
        target["vocabulary_size"] = int(np.clip(count // 5, LEAST, 8000))
        target["decoder"] = {"layers": 3, "dropout": 0.1 if count > 20_000 else 0.3}
    elif "image" in inputs:
        target["vocabulary_size"] = int(np.clip(count // 2, LEAST, 8000))
        target["decoder"] = {"layers": 2, "dropout": 0.3}
    else:
        target |= {"tokens": "characters", "decoder": {"layers": 2, "dropout": 0.1}}
    return Advice(target=target)
