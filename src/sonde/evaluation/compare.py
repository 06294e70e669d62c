"""Two models on the same records: every score beside the other's, and the tests that their field uses.

N example, C classifier.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from sonde.contracts.columns import EvalColumns
from sonde.contracts.task import Task
from sonde.data.groups import Groups
from sonde.evaluation.paired import RESAMPLES
from sonde.evaluation.scores import LARGE, Units, values

Word = Literal["better", "worse", "cannot tell"]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A score of two models on the same records: `difference` is the first minus the second, with a 95 % interval;
    `test` names what p comes from. The word is for the first model."""

    one: float
    other: float
    difference: float
    low: float
    high: float
    p: float
    test: str
    word: Word

    def to_json(self) -> dict[str, Any]:
        return {
            name: value if not isinstance(value, float) or math.isfinite(value) else None
            for name, value in asdict(self).items()
        }


def compare(
    one: tuple[Task, EvalColumns],
    other: tuple[Task, EvalColumns],
    *,
    seed: int,
    weight: np.ndarray | None = None,
    groups: Groups | None = None,
) -> dict[str, Compared]:
    """Every score that both models have, by a paired bootstrap (Efron and Tibshirani 1993, chapter 16); accuracy also
    by McNemar's exact test and the area under the ROC of two classes by DeLong's, where examples are drawn alone."""
    both = [_drawn(task, columns, seed, weight, groups) for task, columns in (one, other)]
    plain = [values(task, dict(columns), weight) for task, columns in (one, other)]
    found: dict[str, Compared] = {}
    for name in plain[0]:
        if name not in plain[1]:
            continue
        found[name] = _compared(
            plain[0][name],
            plain[1][name],
            both[0][name] - both[1][name],
            "paired bootstrap",
            lower=name.partition("/")[0] in one[0].target.lower_is_better,
        )
    if weight is None and groups is None and _same_truth(one[1], other[1]):
        found |= _of_the_field(one, other, found)
    return found


def _drawn(
    task: Task, columns: EvalColumns, seed: int, weight: np.ndarray | None, groups: Groups | None
) -> dict[str, np.ndarray]:
    """Every score on the resamples; the same seed and records give the same resamples."""
    count = len(next(iter(columns.values())))
    units = Units.of(count, groups, weight)
    wanted = RESAMPLES // 2 if count <= LARGE else 400
    rng = np.random.default_rng([seed, units.count, 1])
    parts = [task.target.metrics(columns, units.resampled(rng, rows)) for rows in units.takes(wanted)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _compared(
    one: float, other: float, drawn_R: np.ndarray, test: str, *, lower: bool, p: float | None = None
) -> Compared:
    drawn_R = drawn_R[np.isfinite(drawn_R)]
    apart = one - other
    if not len(drawn_R) or not math.isfinite(apart):
        return Compared(
            one=one, other=other, difference=apart, low=math.nan, high=math.nan, p=1.0, test=test, word="cannot tell"
        )
    low, high = (float(end) for end in np.quantile(drawn_R, [0.025, 0.975]))
    below, above = int((drawn_R <= 0).sum()), int((drawn_R >= 0).sum())
    p = min(1.0, 2 * (min(below, above) + 1) / (len(drawn_R) + 1))
    word: Word = "cannot tell"
    if p < 0.05 and apart != 0:
        word = "worse" if (apart > 0) == lower else "better"
    return Compared(one=one, other=other, difference=apart, low=low, high=high, p=p, test=test, word=word)


def _same_truth(one: EvalColumns, other: EvalColumns) -> bool:
    return (
        "class" in one and "class" in other and "probabilities" in one and np.array_equal(one["class"], other["class"])
    )


def _of_the_field(
    one: tuple[Task, EvalColumns], other: tuple[Task, EvalColumns], found: Mapping[str, Compared]
) -> dict[str, Compared]:
    """Accuracy and the area under the ROC with the p of the tests that are made for them."""
    true_N = one[1]["class"]
    better: dict[str, Compared] = {}
    ours, theirs = (task.target.right(columns) for task, columns in (one, other))
    if "accuracy" in found and ours is not None and theirs is not None:
        better["accuracy"] = _with(found["accuracy"], mcnemar(ours, theirs), "McNemar, exact")
    if "roc_auc" in found and one[1]["probabilities"].shape[1] == 2 and 0 < true_N.sum() < len(true_N):
        scores = [columns["probabilities"][:, 1] for _, columns in (one, other)]
        better["roc_auc"] = _with(found["roc_auc"], delong(scores[0], scores[1], true_N == 1), "DeLong")
    return better


def _with(compared: Compared, p: float, test: str) -> Compared:
    word: Word = "cannot tell" if p >= 0.05 else "better" if compared.difference > 0 else "worse"
    return Compared(**{**asdict(compared), "p": p, "test": test, "word": word})


def mcnemar(right_N: np.ndarray, other_N: np.ndarray) -> float:
    """The two-sided exact p that two classifiers are right equally often, from the records that one of them alone has
    right (McNemar 1947; the binomial form of Edwards 1948).

    >>> round(mcnemar(np.array([1] * 10 + [0] * 2, bool), np.array([0] * 10 + [1] * 2, bool)), 4)
    0.0386
    """
    ours, theirs = int((right_N & ~other_N).sum()), int((~right_N & other_N).sum())
    total, least = ours + theirs, min(ours, theirs)
    if total == 0:
        return 1.0
    logs = [math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) for k in range(least + 1)]
    return min(1.0, 2 * math.fsum(math.exp(each - total * math.log(2)) for each in logs))


def delong(score_N: np.ndarray, other_N: np.ndarray, positive_N: np.ndarray) -> float:
    """The two-sided p that two areas under the ROC on the same records are equal (DeLong et al. 1988, by midranks as in
    Sun and Xu 2014)."""
    components = [_components(each, positive_N) for each in (score_N, other_N)]
    areas = [positive.mean() for positive, _ in components]
    of_positives = np.cov(np.stack([positive for positive, _ in components]))
    of_negatives = np.cov(np.stack([negative for _, negative in components]))
    spread = of_positives / positive_N.sum() + of_negatives / (~positive_N).sum()
    variance = float(spread[0, 0] + spread[1, 1] - 2 * spread[0, 1])
    if variance <= 0:
        return 1.0 if areas[0] == areas[1] else 0.0
    return 2 * NormalDist().cdf(-abs(float(areas[0] - areas[1])) / math.sqrt(variance))


def _components(score_N: np.ndarray, positive_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each positive the share of negatives below it, of each negative the share of positives above it."""
    positives, negatives = score_N[positive_N], score_N[~positive_N]
    whole = _midranks(np.concatenate([positives, negatives]))
    above = (whole[: len(positives)] - _midranks(positives)) / len(negatives)
    below = 1 - (whole[len(positives) :] - _midranks(negatives)) / len(positives)
    return above, below


def _midranks(values_N: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[place]
