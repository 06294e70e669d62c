"""95 % intervals from a bootstrap: one method for every metric, chosen by simulated coverage (benchmarks/intervals.py).

- Few units: quantiles are taken further out, as Student's t and n / (n - 1) ask ("expanded percentile", Hesterberg
  2015, What Teachers Should Know About the Bootstrap).
- Skewed metrics and a median bias that is small: bias-corrected and accelerated (BCa, Efron 1987).
- A large bias (mean average precision of rare classes: a positive that is drawn twice finds itself): quantiles of BCa
  would fall off the end of what was drawn, so the draws are moved by twice their bias. An end then does not pass zero
  that no draw passed.
- Every interval contains its own point.

Shape suffixes: R resample, U unit left out.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

NORMAL = NormalDist()
CONFIDENCE = 0.95
# Median bias, in deviations, past which draws are moved instead of BCa.
LARGE_BIAS = 0.5

Ends = tuple[float, float]


def interval(value: float, drawn_R: np.ndarray, left_out_U: np.ndarray, num_units: int) -> Ends | None:
    """The interval around `value` from its bootstrap draws and, for the skewness, from its values without each unit.

    Draws that are not defined are left out; `left_out_U` may be empty. None without a draw or with one unit only.
    """
    drawn_R = drawn_R[np.isfinite(drawn_R)]
    if not len(drawn_R) or num_units < 2:
        return None
    tail = -expanded_z(num_units)
    bias = _median_bias(value, drawn_R)
    if abs(bias) > LARGE_BIAS:
        moved = np.quantile(drawn_R, [NORMAL.cdf(tail), NORMAL.cdf(-tail)]) - 2 * (np.median(drawn_R) - value)
        low, high = (max(0.0, float(end)) if drawn_R.min() >= 0 else float(end) for end in moved)
    else:
        skew = acceleration(left_out_U)
        low, high = (float(np.quantile(drawn_R, _level(end, bias, skew))) for end in (tail, -tail))
    return min(low, value), max(high, value)


def expanded_z(num_units: int) -> float:
    """How many deviations to each side: sqrt(n / (n - 1)) times Student's t with n - 1 degrees of freedom."""
    return math.sqrt(num_units / (num_units - 1)) * student_t((1 + CONFIDENCE) / 2, num_units - 1)


def student_t(level: float, freedom: int) -> float:
    """A quantile of Student's t: exact for 1 and 2 degrees of freedom, from 3 on to 1 % (Abramowitz and Stegun,
    26.7.5).

    >>> [round(student_t(0.975, freedom), 2) for freedom in (1, 2, 9, 1000)]
    [12.71, 4.3, 2.26, 1.96]
    """
    if freedom == 1:
        return math.tan(math.pi * (level - 0.5))
    if freedom == 2:
        return (2 * level - 1) * math.sqrt(2 / (4 * level * (1 - level)))
    z = NORMAL.inv_cdf(level)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))


def acceleration(left_out_U: np.ndarray) -> float:
    """How quickly the deviation changes with the value: from the skewness of the jackknife (Efron 1987); else 0."""
    left_out_U = left_out_U[np.isfinite(left_out_U)]
    if len(left_out_U) < 2:
        return 0.0
    pull_U = left_out_U.mean() - left_out_U
    most = float(np.abs(pull_U).max())
    if most == 0:
        return 0.0
    # Skewness has no scale; with the largest at 1, no power of a tiny number comes to nothing.
    pull_U = pull_U / most
    return float((pull_U**3).sum()) / (6 * float((pull_U**2).sum()) ** 1.5)


def without_a_failure(trials: int) -> float:
    """The smallest share that could well be right every time: the exact lower end (Clopper and Pearson 1934).

    >>> round(without_a_failure(50), 3)
    0.929
    """
    return ((1 - CONFIDENCE) / 2) ** (1 / trials)


def _median_bias(value: float, drawn_R: np.ndarray) -> float:
    """How far the draws' median is from the value, in deviations of a normal distribution. Draws that equal the value
    stand on the side that makes it small."""
    below, not_above = float((drawn_R < value).mean()), float((drawn_R <= value).mean())
    share = min(max(0.5, below), not_above)
    edge = 0.5 / len(drawn_R)
    return NORMAL.inv_cdf(min(max(share, edge), 1 - edge))


def _level(end: float, bias: float, skew: float) -> float:
    """The share of the draws below an end of the BCa interval."""
    shifted = bias + end
    room = 1 - skew * shifted
    # Past a pole the formula turns back: all draws are inside.
    return NORMAL.cdf(bias + shifted / room) if room > 0 else float(shifted > 0)
