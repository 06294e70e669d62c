"""Two models on the same records: is one better, or can they not be told apart? A paired bootstrap.

Both are scored on the same resamples (Efron and Tibshirani 1993, chapter 16), so that what is hard for both cancels.
Shape suffix: R resample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sonde.base.errors import unknown
from sonde.contracts.columns import EvalColumns
from sonde.contracts.task import Task
from sonde.data.groups import Groups
from sonde.evaluation.scores import LARGE, Units, values

# Enough for the corrected levels that a dozen looks need.
RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A score on a split, and on each of its resamples, in the order that all models of one comparison share."""

    value: float
    drawn_R: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much higher one score is than another, its interval at the level that was asked for, and the two-sided p."""

    value: float
    low: float
    high: float
    p: float


def draw(
    task: Task,
    columns: EvalColumns,
    metric: str,
    *,
    seed: int,
    weight: np.ndarray | None = None,
    groups: Groups | None = None,
    resamples: int = RESAMPLES,
) -> Drawn:
    """A score on the resamples of a split. The same seed, records, weights and groups give the same resamples.

    Raises:
        UserError: there is no such score.
    """
    count = len(next(iter(columns.values())))
    units = Units.of(count, groups, weight)
    wanted = resamples if count <= LARGE else min(resamples, 400)
    rng = np.random.default_rng([seed, units.count, 1])
    plain = values(task, dict(columns), weight)
    if metric not in plain:
        raise unknown(metric, plain, what="the score")
    drawn = [task.target.metrics(columns, units.resampled(rng, rows))[metric] for rows in units.takes(wanted)]
    return Drawn(value=plain[metric], drawn_R=np.concatenate(drawn))


def difference(one: Drawn, other: Drawn, *, level: float = 0.05) -> Difference:
    """One score minus the other, with an interval of confidence 1 - `level`.

    Raises:
        ValueError: they were not drawn from the same resamples.
    """
    if len(one.drawn_R) != len(other.drawn_R):
        raise ValueError("the scores are not of the same resamples")
    value, drawn_R = one.value - other.value, one.drawn_R - other.drawn_R
    drawn_R = drawn_R[np.isfinite(drawn_R)]
    if not len(drawn_R) or not math.isfinite(value):
        return Difference(value=value, low=math.nan, high=math.nan, p=1.0)
    low, high = np.quantile(drawn_R, [level / 2, 1 - level / 2])
    # One more on each side: a finite number of draws never shows a p of 0 (Davison and Hinkley 1997, section 4.2).
    below, above = int((drawn_R <= 0).sum()), int((drawn_R >= 0).sum())
    p = min(1.0, 2 * (min(below, above) + 1) / (len(drawn_R) + 1))
    return Difference(value=value, low=float(low), high=float(high), p=p)
