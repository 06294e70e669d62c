"""What scaled errors of forecasts are divided by. Shape suffixes: T step, C channel."""

from __future__ import annotations

import numpy as np


def seasonal_differences(values_TC: np.ndarray, season: int) -> np.ndarray:
    """Each value minus that of a season before, (T - season, C): the errors of the seasonal naive forecast within the
    past, which MASE and RMSSE divide by (Hyndman and Koehler 2006)."""
    return values_TC[season:] - values_TC[:-season] if len(values_TC) > season else values_TC[:0]
