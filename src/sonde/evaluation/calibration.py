"""Whether probabilities are better after calibration, found out on records that it was not fitted to.

A target offers ways (`Target.calibrations`), the plainest first, and fits them (`Target.calibrate`); here it is decided
which of them pays, the same for all targets. N example.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sonde.contracts.columns import EvalColumns
from sonde.contracts.target import Target
from sonde.data.groups import Groups

FOLDS = 5
# Records without which nothing is fitted, and deviations by which a way has to be better than the one before.
FEWEST, BEYOND_NOISE = 40, 2.0


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """The target with its calibration, and the columns of the split that it was fitted on, each record calibrated
    without itself: scores of these are no better than they would be elsewhere. `method` is empty where nothing pays."""

    target: Target
    columns: EvalColumns
    method: str = ""
    before: float = 0.0
    after: float = 0.0

    def to_text(self) -> str:
        """What was done, for people."""
        return (
            f"calibrated by {self.method} on the validation split: mean loss of its records {self.before:.4g} before, "
            f"{self.after:.4g} after (each without itself)"
        )


def calibrate(
    target: Target,
    columns: EvalColumns,
    *,
    seed: int,
    weight_N: np.ndarray | None = None,
    groups: Groups | None = None,
    always: bool = False,
) -> Calibrated:
    """The target calibrated on held-out answers, by the first of its ways that lowers the mean of `Target.costs` beyond
    noise in cross-validation, or a later one that lowers that further; `always` takes the first at least.

    Whole groups stay together. `columns` are those of the target without calibration.
    """
    count = len(next(iter(columns.values()), ()))
    chosen = Calibrated(target=target, columns=columns)
    if not target.calibrations or count < FEWEST:
        return chosen
    cost_N = _costs(target, columns)
    if cost_N is None:
        return chosen
    folds = list(_folds(count, groups, seed))
    weighed_N = np.ones(count) if weight_N is None else weight_N.astype(np.float64)
    plain, best_N = _mean(cost_N, weighed_N), cost_N
    for method in target.calibrations:
        tried = _out_of_fold(target, columns, method, weight_N, folds)
        tried_N = _costs(target, tried)
        assert tried_N is not None
        first = always and not chosen.method
        if first or _is_lower(tried_N - best_N, weighed_N, groups):
            after = _mean(tried_N, weighed_N)
            whole = target.calibrate(columns, method, weight_N)
            chosen = Calibrated(target=whole, columns=tried, method=method, before=plain, after=after)
            best_N = tried_N
    return chosen


def _out_of_fold(
    target: Target, columns: EvalColumns, method: str, weight_N: np.ndarray | None, folds: list[np.ndarray]
) -> dict[str, np.ndarray]:
    """The columns, each record calibrated by what was fitted on the other folds."""
    found: dict[str, np.ndarray] = {}
    for held in folds:
        others = np.setdiff1d(np.arange(sum(map(len, folds))), held)
        fitted = target.calibrate(_take(columns, others), method, None if weight_N is None else weight_N[others])
        for name, column in fitted.calibrated(_take(columns, held)).items():
            found.setdefault(name, np.empty((len(others) + len(held), *column.shape[1:]), column.dtype))[held] = column
    return found


def _take(columns: EvalColumns, places: np.ndarray) -> dict[str, np.ndarray]:
    return {name: column[places] for name, column in columns.items()}


def _folds(count: int, groups: Groups | None, seed: int) -> Iterator[np.ndarray]:
    codes_N = np.arange(count) if groups is None else groups.codes
    units = int(codes_N.max()) + 1
    fold_U = np.random.default_rng([seed, 23]).permutation(units) % FOLDS
    held = (np.flatnonzero(fold_U[codes_N] == number) for number in range(FOLDS))
    return (each for each in held if len(each))


def _costs(target: Target, columns: EvalColumns) -> np.ndarray | None:
    cost_N = target.costs(columns)
    return None if cost_N is None else cost_N.astype(np.float64)


def _mean(cost_N: np.ndarray, weight_N: np.ndarray) -> float:
    return float((cost_N * weight_N).sum() / max(weight_N.sum(), 1e-12))


def _is_lower(difference_N: np.ndarray, weight_N: np.ndarray, groups: Groups | None) -> bool:
    """Whether a paired difference is below zero beyond noise; of groups their sums are the units."""
    sums_U = difference_N * weight_N
    if groups is not None:
        sums_U = np.bincount(groups.codes, weights=sums_U)
    if len(sums_U) < 2:
        return False
    error = float(sums_U.std(ddof=1)) * np.sqrt(len(sums_U))
    return error > 0 and float(sums_U.sum()) < -BEYOND_NOISE * error
