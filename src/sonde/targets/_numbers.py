"""Fields read as numbers."""

from __future__ import annotations

from typing import Any

import numpy as np


def numbers_of(values: np.ndarray) -> np.ndarray:
    """A field as float64 (N,); NaN where a value is missing or no number. A text such as "1.5" is a number."""
    if values.ndim == 1 and values.dtype.kind in "iufb":
        return values.astype(np.float64)
    try:
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64).reshape(len(values))
    except (TypeError, ValueError):
        return np.array([_number(value) for value in values], dtype=np.float64)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
