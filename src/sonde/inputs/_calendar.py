"""What time stamps say of a step: its place in the hour, the day, the week and the year, as waves.

T step, K number.
"""

from __future__ import annotations

import numpy as np

HOUR, DAY, WEEK, YEAR = 3600, 86400, 604800, 31556952
CYCLES = {"hour": HOUR, "day": DAY, "week": WEEK, "year": YEAR}
# The Monday before 1970-01-01, a Thursday.
_MONDAY = -3 * DAY


def names(months: int, seconds: int, span: int) -> list[str]:
    """The cycles that steps of a frequency can tell apart, and that `span` seconds of training show twice: of one year
    alone nobody knows what comes back every year."""
    step = months * YEAR // 12 or seconds
    return [name for name, length in CYCLES.items() if step and 2 * step <= length and 2 * length <= span]


def features(times: np.ndarray, cycles: list[str]) -> np.ndarray:
    """Sine and cosine of each step's place in each cycle, float32 (T, K), K = 2 * len(cycles)."""
    moments = times.astype("datetime64[s]")
    seconds = moments.astype(np.int64)
    shares = []
    for name in cycles:
        if name == "year":
            year = moments.astype("datetime64[Y]")
            start, end = year.astype("datetime64[s]"), (year + 1).astype("datetime64[s]")
            shares.append((moments - start).astype(np.float64) / (end - start).astype(np.float64))
        else:
            shares.append(((seconds - _MONDAY) % CYCLES[name]) / CYCLES[name])
    if not shares:
        return np.zeros((len(times), 0), np.float32)
    angle = 2 * np.pi * np.stack(shares, axis=1)
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)
