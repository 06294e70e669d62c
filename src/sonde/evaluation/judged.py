"""What held-out records say of the means to doubt a model: how often sets hold the truth, how many records are called
strange, what calibration and decision changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import nn

from sonde.base.device import Precision
from sonde.contracts.columns import EvalColumns
from sonde.contracts.records import Records
from sonde.contracts.task import Task
from sonde.data.store import Encoded
from sonde.evaluation import conformal
from sonde.evaluation.observe import Observed, observe_all
from sonde.evaluation.scores import Score
from sonde.evaluation.trust import Trust

# The coverage that is judged where the recipe states none, groups that are told, and bins of a picture.
COVERAGE, GROUPS, BINS = 0.9, 20, 20
# The normal deviation of a 95 % interval.
Z = 1.959964


@dataclass(frozen=True, kw_only=True)
class Share:
    """How many of how many, with the 95 % interval of Wilson 1927."""

    count: int
    total: int

    @property
    def value(self) -> float:
        return self.count / self.total if self.total else math.nan

    @property
    def ends(self) -> tuple[float, float]:
        if not self.total:
            return 0.0, 1.0
        p, n = self.value, self.total
        centre, spread = p + Z**2 / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
        return max(0.0, (centre - spread) / (1 + Z**2 / n)), min(1.0, (centre + spread) / (1 + Z**2 / n))

    def __str__(self) -> str:
        low, high = self.ends
        return f"{self.value:.4g} [{low:.4g}, {high:.4g}]"

    def to_json(self) -> dict[str, Any]:
        low, high = self.ends
        return {"count": self.count, "total": self.total, "value": self.value, "low": low, "high": high}


@dataclass(frozen=True, kw_only=True)
class Covered:
    """How often regions of a stated coverage hold the truth, and how large they are in the mean (None: some are
    without an end)."""

    stated: float
    share: Share
    size: float | None
    groups: Mapping[str, Share] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        groups = {name: share.to_json() for name, share in self.groups.items()}
        return {"stated": self.stated, "share": self.share.to_json(), "size": self.size, "groups": groups}

    def to_text(self) -> str:
        size = "some without an end" if self.size is None else f"mean size {self.size:.3g}"
        lines = [f"sets or intervals for {100 * self.stated:g} % of truths hold {self.share}; {size}"]
        return "\n".join(
            [*lines, *(f"  {name}: {share}, {share.total:,} records" for name, share in self.groups.items())]
        )


@dataclass(frozen=True, kw_only=True)
class Strange:
    """How many held-out records are called unfamiliar, where `expected` of the validation split are; `bins` counts
    their unfamiliarity from 0 to 1: level where they are like the validation split."""

    measure: str
    expected: float
    share: Share
    bins: list[int]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "share": self.share.to_json()}

    def to_text(self) -> str:
        return (
            f"unfamiliar by {self.measure}: {self.share} of the records; {100 * self.expected:g} % where they are like "
            "the validation split"
        )


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What is known of calibration, decision, sets and familiarity; None where the model has none of it."""

    calibration: str | None = None
    decision: str | None = None
    covered: Covered | None = None
    strange: Strange | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "calibration": self.calibration,
            "decision": self.decision,
            "coverage": None if self.covered is None else self.covered.to_json(),
            "unfamiliar": None if self.strange is None else self.strange.to_json(),
        }

    def to_text(self) -> str:
        lines = [self.calibration, self.decision]
        lines += [self.covered.to_text() if self.covered else None, self.strange.to_text() if self.strange else None]
        return "\n".join(f"  {line}" for text in lines if text for line in text.splitlines())


def judge(
    task: Task,
    network: nn.Module,
    trust: Trust | None,
    records: Records,
    held: Encoded,
    columns: EvalColumns,
    found: Mapping[str, Score],
    *,
    precision: Precision,
) -> Judgement:
    """Of held-out records that are encoded, with the model's columns and scores on them."""
    calibration, decision = calibration_of(found), task.target.decision_in_words(columns)
    if trust is None:
        return Judgement(calibration=calibration, decision=decision)
    seen = observe_all(task, network, held.examples, precision=precision)
    return Judgement(
        calibration=calibration,
        decision=decision,
        covered=_covered(task, trust, seen, records, held, columns),
        strange=_strange(task, trust, seen),
    )


def calibration_of(found: Mapping[str, Score]) -> str | None:
    """What calibration did to the scores that it is for."""
    parts = [
        f"{name} {score.before:.4g} before, {score.value:.4g} after"
        for name, score in found.items()
        if name in ("ece", "brier", "log_loss") and score.before is not None and score.value is not None
    ]
    return f"calibration: {'; '.join(parts)}" if parts else None


def _covered(
    task: Task, trust: Trust, seen: Observed, records: Records, held: Encoded, columns: EvalColumns
) -> Covered | None:
    scores = task.target.nonconformity(columns)
    if not trust.has_regions or scores is None or seen.answers is None:
        return None
    stated = trust.config.coverage or COVERAGE
    places = {name: place for place, name in enumerate(records.ids)}
    groups = None
    if all(name in places for name in held.ids):
        groups = trust.groups_of(records.take(np.array([places[name] for name in held.ids])))
    scores_NF = scores.reshape(len(scores), -1)
    limits_NF = conformal.limits(
        trust.nonconformity.numpy(), stated, trust.group.numpy() if trust.groups else None, groups, count=len(scores_NF)
    )
    regions = task.target.regions(seen.answers, limits_NF)
    # The truth is inside by its score, or because the answer always is.
    inside_NF = scores_NF <= limits_NF
    right = task.target.right(columns)
    inside_N = inside_NF.mean(axis=1) if right is None else (inside_NF.all(axis=1) | right).astype(float)
    sizes = np.array(task.target.region_sizes(regions))
    named: dict[str, Share] = {}
    for code in () if groups is None else np.unique(groups[groups >= 0])[:GROUPS].tolist():
        mine = inside_N[groups == code]
        named[trust.groups[code]] = Share(count=round(float(mine.sum())), total=len(mine))
    return Covered(
        stated=stated,
        share=Share(count=round(float(inside_N.sum())), total=len(inside_N)),
        size=float(sizes.mean()) if np.isfinite(sizes).all() else None,
        groups=named,
    )


def _strange(task: Task, trust: Trust, seen: Observed) -> Strange | None:
    if trust.measure is None:
        return None
    p_N = trust.p_values(task.target, seen).get(trust.measure)
    if p_N is None:
        return None
    expected = 1 - trust.config.familiar_share
    flagged = p_N <= expected
    counts, _ = np.histogram(1 - p_N, bins=BINS, range=(0, 1))
    share = Share(count=int(flagged.sum()), total=len(flagged))
    return Strange(measure=trust.measure, expected=round(expected, 6), share=share, bins=counts.tolist())
