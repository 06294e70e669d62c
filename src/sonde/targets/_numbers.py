"""Fields read as numbers."""

from __future__ import annotations

from typing import Any

import numpy as np


def numbers_of(values: np.ndarray) -> np.ndarray:
    """A field as float64 (N,); NaN where a value is missing or no number. A text such as "1.5" is a number."""
    if values.ndim == 1 and values.dtype.kind in "iufb":
        return values.astype(np.float64)
    try:
        numbers = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    except (TypeError, ValueError):
        numbers = None
    if numbers is None or numbers.ndim != 1:
        numbers = np.array([_number(value) for value in values], dtype=np.float64)
    return numbers


def _number(value: Any) -> float:
    try:
        return float("nan") if isinstance(value, np.ndarray) else float(value)
    except (TypeError, ValueError):
        return float("nan")
