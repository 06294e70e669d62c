"""Rows of weights, and the oracle's answer for every row."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

ROWS = 6


def weights(rng: np.random.Generator, count: int) -> np.ndarray:
    """A row of ones, a row of real weights, and bootstrap counts."""
    rows = rng.multinomial(count, np.full(count, 1 / count), size=ROWS).astype(np.float64)
    rows[0] = 1.0
    rows[1] = rng.random(count)
    return rows


def each(rows: np.ndarray, score: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
    """The oracle's answer for every row: what has no weight is left out, as in a resample."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.array([score(np.flatnonzero(row > 0), row[row > 0]) for row in rows])
