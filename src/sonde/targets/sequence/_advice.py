"""Settings that do well unedited, by what goes in and how much of it there is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sonde.base.config import Config
from sonde.contracts.records import Records
from sonde.contracts.specs import Advice


def advice(field: str, inputs: Mapping[str, Config], records: Records) -> Advice:
    """For the records that a data set has in all."""
    count = len(records)
    vocabulary = int(np.clip(count // 4, 500, 8000))
    return Advice(
        target={
            "tokens": "bpe",
            "vocabulary_size": vocabulary,
            "decoder": {"layers": 3, "dropout": 0.2},
            "generate": {"beams": 4},
        },
    )
