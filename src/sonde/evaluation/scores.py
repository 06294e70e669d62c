"""Scores with intervals: one pass over a split, then every metric under a bootstrap over its examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
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

# Examples evaluated at once, where memory allows.
EVAL_BATCH = 256
RESAMPLES = 1000
# Resamples times examples held at once: bounds the memory of the bootstrap to about 160 MB.
CELLS = 20_000_000


@dataclass(frozen=True, kw_only=True)
class Score:
    """A metric and its 95 % interval; `count` examples stand behind it. None where it is not defined.

    `baseline` is the score of an answer that never looks at the inputs (`Target.baseline`), where there is one.
    """

    value: float | None
    low: float | None
    high: float | None
    count: int
    baseline: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "not defined here"
        interval = "" if self.low is None or self.high is None else f"   [{self.low:.4g}, {self.high:.4g}]"
        return f"{self.value:.4g}{interval}"


def to_json(scores: Mapping[str, Mapping[str, Score]]) -> dict[str, Any]:
    """split -> metric -> {"value", "low", "high", "count", "baseline"}."""
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
    columns: dict[str, np.ndarray],
    *,
    seed: int,
    weight: np.ndarray | None = None,
    truth: Columns | None = None,
    resamples: int = RESAMPLES,
) -> dict[str, Score]:
    """Every metric with its 95 % percentile interval over bootstrap resamples of the examples (Efron 1979), and beside
    it what the target's baseline scores on the same `truth`."""
    plain = values(task, columns, weight)
    beside = _baseline(task, truth, weight)
    count = len(next(iter(columns.values())))
    rng = np.random.default_rng([seed, count])
    rows = max(1, min(resamples, CELLS // max(1, count)))
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in plain}
    done = 0
    # A set so large that a few rows fill the memory has narrow intervals: fewer resamples say the same there.
    wanted = resamples if count <= 100_000 else min(resamples, 200)
    while done < wanted:
        take = min(rows, wanted - done)
        picked = rng.integers(count, size=(take, count)) + np.arange(take)[:, None] * count
        weights = np.bincount(picked.reshape(-1), minlength=take * count).reshape(take, count).astype(np.float64)
        if weight is not None:
            weights *= weight
        for name, value in task.target.metrics(columns, weights).items():
            drawn[name].append(value)
        done += take
    return {
        name: replace(_score(value, np.concatenate(drawn[name]), count), baseline=beside.get(name))
        for name, value in plain.items()
    }


def _baseline(task: Task, truth: Columns | None, weight: np.ndarray | None) -> dict[str, float | None]:
    columns = None if truth is None else task.target.baseline(truth)
    if columns is None:
        return {}
    found = values(task, {name: to_numpy(column) for name, column in columns.items()}, weight)
    return {name: finite(value) for name, value in found.items()}


def standard_error(task: Task, columns: EvalColumns, name: str, *, seed: int, resamples: int = 50) -> float:
    """How far a score is off by chance, roughly: its deviation over a few bootstrap resamples; 0 if it has none."""
    count = len(next(iter(columns.values())))
    rng = np.random.default_rng([seed, count])
    weights = rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)
    drawn = task.target.metrics(columns, weights)[name]
    defined = drawn[np.isfinite(drawn)]
    return float(defined.std()) if len(defined) > 1 else 0.0


def _score(value: float, resampled: np.ndarray, count: int) -> Score:
    defined = resampled[np.isfinite(resampled)]
    if not math.isfinite(value):
        return Score(value=None, low=None, high=None, count=count)
    if not len(defined):
        return Score(value=value, low=None, high=None, count=count)
    low, high = np.quantile(defined, [0.025, 0.975])
    return Score(value=value, low=float(low), high=float(high), count=count)
