"""Scores with intervals: one pass over a split, then every metric under a bootstrap of its examples or groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from sonde.base import dist
from sonde.base.device import Precision, out_of_memory
from sonde.contracts.batch import Examples
from sonde.contracts.columns import Columns, EvalColumns, to_numpy
from sonde.contracts.task import Task
from sonde.data.batches import in_order
from sonde.data.groups import BLOCKS, Groups
from sonde.evaluation import intervals

# Examples evaluated at once, where memory allows.
EVAL_BATCH = 256
RESAMPLES = 1000
# Resamples times examples held at once: the rows of weights take at most 80 MB (one row, where that is more), twice
# that while groups are spread over their examples; a metric's own products of rows and examples are chunked below that.
CELLS = 10_000_000
# Examples from which on fewer resamples are drawn; units up to which the jackknife corrects for skewness.
LARGE, SKEWED = 100_000, 1000
# Units that are looked at alone, where a score is 0 or 1.
ALONE = 200
EXAMPLES = "examples"


@dataclass(frozen=True, kw_only=True)
class Score:
    """A metric and its 95 % interval; `count` examples stand behind it. None where it is not defined.

    `baseline` is the score of an answer that never looks at the inputs (`Target.baseline`), where there is one;
    `reference` that of a quick classical model, which `reference_name` names, where there is one. `unit`
    is what the interval resamples, and `units` how many there are: "examples", "blocks" of a stream's windows, or a
    column whose records hang together. `chose_checkpoint` marks the split by which the weights were chosen: its scores
    are optimistic, and the interval does not say how much; `chose_decision` that by which a threshold was.
    `out_of_fold`: the split fitted the calibration, and each of its records was calibrated by the others, so that the
    scores are not better for it. `before` is the score without calibration and decision, where they change it.
    `signature` tells how exactly it was computed, where a field knows several ways.
    """

    value: float | None
    low: float | None
    high: float | None
    count: int
    baseline: float | None = None
    reference: float | None = None
    reference_name: str = ""
    unit: str = EXAMPLES
    units: int = 0
    chose_checkpoint: bool = False
    signature: str | None = None
    chose_decision: bool = False
    out_of_fold: bool = False
    before: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "not defined here"
        interval = "" if self.low is None or self.high is None else f"   [{self.low:.4g}, {self.high:.4g}]"
        return f"{self.value:.4g}{interval}"


def apart(one: EvalColumns, other: EvalColumns) -> float:
    """The largest difference of two sets of answers, relative where a number is above one; sets are compared one by
    one. Infinite where the shapes differ."""
    largest = 0.0
    for name, column in one.items():
        for mine, theirs in zip(column, other[name], strict=True):
            first, second = np.asarray(mine), np.asarray(theirs)
            if first.shape != second.shape:
                return math.inf
            if first.dtype.kind == "f" and first.size:
                gap = np.abs(first - second) / np.maximum(1.0, np.abs(first))
                largest = max(largest, float(gap.max())) if np.isfinite(gap).all() else math.inf
    return largest


def about(score: Score) -> str:
    """What stands behind the scores of a split, in words.

    >>> about(Score(value=0.9, low=0.8, high=0.95, count=500, unit="speaker", units=25))
    '500 examples; intervals by speaker: 25 groups'
    """
    parts = [f"{score.count:,} examples"]
    if score.unit == BLOCKS:
        parts.append(f"intervals by {score.units:,} blocks of neighbours")
    elif score.unit != EXAMPLES:
        parts.append(f"intervals by {score.unit}: {score.units:,} groups")
    if score.chose_checkpoint:
        parts.append("chose the checkpoint: optimistic")
    if score.chose_decision:
        parts.append("chose the threshold: optimistic")
    if score.out_of_fold:
        parts.append("fitted the calibration: each record calibrated without itself")
    return "; ".join(parts)


def to_json(scores: Mapping[str, Mapping[str, Score]]) -> dict[str, Any]:
    """split -> metric -> the fields of its `Score`."""
    return {split: {name: asdict(score) for name, score in found.items()} for split, found in scores.items()}


def finite(value: float) -> float | None:
    """A number that JSON can hold."""
    return value if math.isfinite(value) else None


def eval_outputs(
    task: Task,
    network: nn.Module,
    examples: Examples,
    *,
    precision: Precision,
    size: int = EVAL_BATCH,
    on_progress: Callable[[int], None] = lambda done: None,
) -> dict[str, np.ndarray]:
    """What the target's metrics need to know of each example, as columns (N, ...); sets as arrays of arrays (N,).

    At most `size` examples at once; fewer when memory runs out. The processes of a job take batches in turn; every one
    of them gets the columns of all.
    """
    network.eval()
    size = min(size, EVAL_BATCH)
    while True:
        try:
            return _eval_outputs(task, network, examples, precision, size, on_progress)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            # Alone a process can begin again; the others of a job wait for what it has found so far.
            if not out_of_memory(error) or size == 1 or dist.world_size() > 1:
                raise
            size = (size + 1) // 2


def _eval_outputs(
    task: Task,
    network: nn.Module,
    examples: Examples,
    precision: Precision,
    size: int,
    on_progress: Callable[[int], None],
) -> dict[str, np.ndarray]:
    starts = range(0, len(examples), size)
    mine: list[dict[str, np.ndarray]] = []
    with torch.inference_mode(), precision.matmul_precision(), precision.forward():
        for first in range(0, len(starts), dist.world_size()):
            # One without a batch of its own does the last again: all must call a network that is spread over them.
            number = min(first + dist.rank(), len(starts) - 1)
            batch = in_order(task, examples, size, starts[number]).to(precision.device)
            columns = task.target.eval_outputs(network, task.preprocess(batch))
            mine.append({name: to_numpy(column) for name, column in columns.items()})
            on_progress(min(len(examples), (first + dist.world_size()) * size))
    dist.reshard(network)
    everyone = dist.all_gather(mine)
    parts = [everyone[number % dist.world_size()][number // dist.world_size()] for number in range(len(starts))]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def all_finite(columns: Mapping[str, np.ndarray]) -> bool:
    """Whether a network answered with numbers: none is NaN or infinite."""
    return all(_is_finite(column) for column in columns.values())


def _is_finite(column: np.ndarray) -> bool:
    if column.dtype == object:
        return all(bool(np.isfinite(each).all()) for each in column)
    return bool(np.isfinite(column).all())


def values(task: Task, columns: dict[str, np.ndarray], weight: np.ndarray | None = None) -> dict[str, float]:
    """Every metric, without an interval."""
    count = len(next(iter(columns.values())))
    ones = np.ones((1, count)) if weight is None else weight[None].astype(np.float64)
    return {name: float(value[0]) for name, value in task.target.metrics(columns, ones).items()}


def scores(
    task: Task,
    columns: EvalColumns,
    *,
    seed: int,
    weight: np.ndarray | None = None,
    truth: Columns | None = None,
    groups: Groups | None = None,
    resamples: int = RESAMPLES,
    chose_checkpoint: bool = False,
) -> dict[str, Score]:
    """Every metric with its 95 % bootstrap interval (see `intervals`), and beside it what the target's baseline scores
    on the same `truth`.

    Examples are resampled, or whole `groups` where they hang together (the cluster bootstrap, Davison and Hinkley 1997,
    section 3.8): a resample has as many groups as the split, and about as many examples.
    """
    count = len(next(iter(columns.values())))
    units = Units.of(count, groups, weight)
    plain = values(task, dict(columns), weight)
    beside = _baseline(task, truth, weight)
    # A set so large that a few rows fill the memory has narrow intervals: fewer resamples say the same there.
    wanted = resamples if count <= LARGE else min(resamples, 200)
    rng = np.random.default_rng([seed, units.count])
    drawn = _rows(task, columns, (units.resampled(rng, take) for take in units.takes(wanted)))
    # Skewness matters in small sets only.
    jackknife = units.count <= SKEWED and count <= LARGE
    left_out = _rows(task, columns, units.left_out()) if jackknife and units.count > 1 else {}
    perfect = [name for name, value in plain.items() if _never_differs(value, drawn[name])]
    trials = _defined_alone(task, columns, units) if perfect else {}
    found: dict[str, Score] = {}
    for name, value in plain.items():
        ends = intervals.interval(value, drawn[name], left_out.get(name, np.empty(0)), units.count)
        if name in perfect and name.partition("/")[0] not in task.target.lower_is_better | task.target.no_shares:
            ends = _of_no_exception(value, trials[name])
        low, high = ends if ends and math.isfinite(value) else (None, None)
        found[name] = Score(
            value=finite(value),
            low=low,
            high=high,
            count=count,
            baseline=beside.get(name),
            unit=EXAMPLES if groups is None else groups.name,
            units=units.count,
            chose_checkpoint=chose_checkpoint,
            signature=task.target.signatures.get(name),
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Units:
    """What is resampled: examples or their groups, as rows of example weights."""

    count: int
    codes_N: np.ndarray | None
    num_examples: int
    weight_N: np.ndarray | None

    @staticmethod
    def of(num_examples: int, groups: Groups | None, weight_N: np.ndarray | None) -> Units:
        codes_N = None if groups is None else groups.codes
        count = num_examples if groups is None else groups.count
        return Units(count=count, codes_N=codes_N, num_examples=num_examples, weight_N=weight_N)

    def takes(self, rows: int) -> Iterator[int]:
        """How many rows at a time, so that memory stays bounded."""
        most = max(1, CELLS // max(1, self.num_examples))
        return (min(most, rows - done) for done in range(0, rows, most))

    def resampled(self, rng: np.random.Generator, rows: int) -> np.ndarray:
        """Rows of how often each unit was drawn, as weights of its examples."""
        counts_RU = np.empty((rows, self.count))
        for row_U in counts_RU:
            row_U[:] = np.bincount(rng.integers(self.count, size=self.count), minlength=self.count)
        return self._weights(counts_RU)

    def left_out(self) -> Iterator[np.ndarray]:
        """Rows that lack one unit each."""
        done = 0
        for take in self.takes(self.count):
            rows_RU = np.ones((take, self.count))
            rows_RU[np.arange(take), done + np.arange(take)] = 0
            done += take
            yield self._weights(rows_RU)

    def alone(self, which_U: np.ndarray) -> Iterator[np.ndarray]:
        """Rows that have one unit each."""
        for unit in which_U.tolist():
            row_1U = np.zeros((1, self.count))
            row_1U[0, unit] = 1
            yield self._weights(row_1U)

    def _weights(self, rows_RU: np.ndarray) -> np.ndarray:
        rows_RN = rows_RU if self.codes_N is None else rows_RU[:, self.codes_N]
        if self.weight_N is not None:
            rows_RN *= self.weight_N
        return rows_RN


def _rows(task: Task, columns: EvalColumns, chunks: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Every metric for chunks of rows of weights."""
    parts = [task.target.metrics(columns, weights_RN) for weights_RN in chunks]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _never_differs(value: float, drawn_R: np.ndarray) -> bool:
    """Whether a score is all right or all wrong, in the split and so in each resample: the bootstrap cannot tell."""
    defined_R = drawn_R[np.isfinite(drawn_R)]
    return value in (0.0, 1.0) and bool(len(defined_R)) and bool((defined_R == value).all())


def _defined_alone(task: Task, columns: EvalColumns, units: Units) -> dict[str, float]:
    """On how many units each score stands: those that have it when they are alone (the recall of a class: those with
    the class); found out on some hundred of many."""
    which_U = np.unique(np.linspace(0, units.count - 1, min(units.count, ALONE)).astype(np.int64))
    found = _rows(task, columns, units.alone(which_U))
    return {name: float(np.isfinite(values_U).mean()) * units.count for name, values_U in found.items()}


def _of_no_exception(value: float, trials: float) -> intervals.Ends | None:
    """The exact interval of a share that is 0 or 1 in so many trials; none where single units do not have the score."""
    if round(trials) < 1:
        return None
    least = intervals.without_a_failure(round(trials))
    return (least, 1.0) if value == 1 else (0.0, 1 - least)


def _baseline(task: Task, truth: Columns | None, weight: np.ndarray | None) -> dict[str, float | None]:
    columns = None if truth is None else task.target.baseline(truth)
    if columns is None:
        return {}
    given = {name: to_numpy(column) for name, column in columns.items()}
    # A decision by costs has a constant answer of its own, that is told by what it costs; other scores are those of the
    # target's.
    plain = Task(inputs=task.inputs, target=task.target.uncalibrated())
    found = {**values(task, given, weight), **values(plain, given, weight)}
    return {name: finite(value) for name, value in found.items()}


def standard_error(
    task: Task, columns: EvalColumns, name: str, *, seed: int, groups: Groups | None = None, resamples: int = 50
) -> float:
    """How far a score is off by chance, roughly: its deviation over a few bootstrap resamples; 0 if it has none."""
    count = len(next(iter(columns.values())))
    units = Units.of(count, groups, None)
    drawn = task.target.metrics(columns, units.resampled(np.random.default_rng([seed, count]), resamples))[name]
    defined = drawn[np.isfinite(drawn)]
    return float(defined.std()) if len(defined) > 1 else 0.0
