"""How training went, in plain words, from the curves of its log: too short, too long, too small, or well."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from sonde.contracts.finding import Finding

Better = Literal["max", "min"]
# Fewer validations say nothing of a curve.
FEWEST = 4
# A loss that spikes: this many times the median of its neighbours, in more than a hundredth of the steps.
SPIKE, SPIKES = 3.0, 0.01
# Overfits: a proper validation score is this share worse at the end than at its best, which lies before so much of
# the way.
WORSE, EARLY = 0.1, 0.6
# Too short: of all that validation improved, this share came in the last fifth.
LATE = 0.1


@dataclass(frozen=True, kw_only=True)
class Curves:
    """What a run's log says: training loss by step, validation scores by step."""

    steps: np.ndarray
    losses: np.ndarray
    validations: dict[int, dict[str, float]]

    @staticmethod
    def read(log: Path) -> Curves:
        """The curves of a log.jsonl; of steps that were made twice the last counts."""
        losses: dict[int, float] = {}
        validations: dict[int, dict[str, float]] = {}
        for line in log.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if "loss" in row and isinstance(row["loss"], float):
                losses[row["step"]] = row["loss"]
            if "validation" in row:
                found = row["validation"]
                validations[row["step"]] = {name: value for name, value in found.items() if value is not None}
        steps = sorted(losses)
        return Curves(steps=np.array(steps), losses=np.array([losses[step] for step in steps]), validations=validations)

    def score(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The steps at which a validation score is known, and its values."""
        known = [(step, found[name]) for step, found in sorted(self.validations.items()) if name in found]
        return np.array([step for step, _ in known]), np.array([value for _, value in known])


def judge(
    curves: Curves,
    *,
    monitor: tuple[str, Better],
    proper: tuple[str, Better] | None,
    baseline: float | None = None,
    interval: tuple[float | None, float | None] = (None, None),
    first: str = "",
    loss_tells: bool = True,
) -> Finding:
    """The verdict on a run.

    `monitor` is the score that chose the weights and which way is better, `proper` a finer one that sees confidence
    too (log loss). `baseline` and `interval` are those of the monitor on a held-out split, where they are known.
    `first` is what the looks at units, gradients and updates say to try first; `loss_tells`: right
    answers have a loss near zero.
    """
    name, better = monitor
    steps, values = curves.score(name)
    numbers = {"validations": len(values)}
    if _is_noise(baseline, interval, better):
        return _finding(
            "warn",
            f"no better than an answer that never looks at the inputs: {name} with it is {baseline:.4g}, inside the "
            "interval",
            first
            or "`sonde check` says whether there is any signal; more data, other inputs, or the labels are at fault",
            numbers,
        )
    if _spikes(curves.losses) > SPIKES:
        return _finding(
            "warn",
            f"the training loss shoots up in {_spikes(curves.losses):.0%} of the steps",
            first or "a lower training.optimizer.lr, or a tighter training.max_grad_norm",
            numbers,
        )
    if len(values) < FEWEST:
        return _finding("pass", "too few validations to judge the curve by", "", numbers)
    overfitting = _overfitting(curves, proper or monitor)
    if overfitting:
        step, cost = overfitting
        kept = "; the best weights were kept" if step else ""
        return _finding(
            "warn",
            f"overfits: {(proper or monitor)[0]} on validation is best at step {step:,} of {int(steps[-1]):,} and "
            f"{cost:.0%} worse at the end, while the training loss still falls{kept}",
            "more data or augmentation first; then dropout, weight decay, fewer steps or a smaller network",
            numbers | {"best_step": step, "worse": cost},
        )
    late = _late(steps, values, better)
    if late > LATE and _falls(curves.losses):
        return _finding(
            "warn",
            f"too short: {late:.0%} of all that {name} improved came in the last fifth of the steps, and the loss "
            "still falls",
            first or "twice the steps (training.steps or training.epochs), or a higher rate",
            numbers | {"late": late},
        )
    if loss_tells and _hardly_fell(curves.losses):
        return _finding(
            "warn",
            f"underfits: the training loss went from {_first(curves.losses):.4g} to {_last(curves.losses):.4g} only",
            first or "`sonde check` tries the learning rate; then a larger network or less regularization",
            numbers,
        )
    return _finding("pass", f"healthy: {name} on validation rose to its level and stayed", "", numbers)


def _finding(verdict: Literal["pass", "warn"], text: str, fix: str, numbers: Mapping[str, object]) -> Finding:
    return Finding(check="training", verdict=verdict, text=text, fix=fix, numbers=dict(numbers))


def _is_noise(baseline: float | None, interval: tuple[float | None, float | None], better: Better) -> bool:
    low, high = interval
    if baseline is None or low is None or high is None:
        return False
    return low <= baseline if better == "max" else high >= baseline


def _spikes(losses: np.ndarray) -> float:
    """The share of steps whose loss is far above that of the steps around it."""
    if len(losses) < 50:
        return 0.0
    windows = np.lib.stride_tricks.sliding_window_view(losses, 21)
    middle = np.median(windows, axis=1)
    floor = 0.1 * float(np.median(np.abs(losses)))
    return float((losses[10:-10] > SPIKE * middle + floor).mean())


def _overfitting(curves: Curves, proper: tuple[str, Better]) -> tuple[int, float] | None:
    """The step of the best proper score and how much worse the last is, where that is plain."""
    name, better = proper
    steps, values = curves.score(name)
    if len(values) < FEWEST:
        return None
    sign = 1.0 if better == "max" else -1.0
    smooth = _smooth(sign * values)
    best = int(np.argmax(smooth))
    gained = float(smooth[best] - smooth[0])
    lost = float(smooth[best] - smooth[-1])
    scale = max(gained, 0.1 * abs(float(smooth[best])), 1e-12)
    if steps[best] <= EARLY * steps[-1] and lost / scale > WORSE and _falls(curves.losses):
        return int(steps[best]), lost / max(abs(float(smooth[best])), 1e-12)
    return None


def _smooth(values: np.ndarray) -> np.ndarray:
    """The mean of three neighbours, of two at the ends."""
    padded = np.pad(values, 1, mode="edge")
    return (padded[:-2] + padded[1:-1] + padded[2:]) / 3


def _late(steps: np.ndarray, values: np.ndarray, better: Better) -> float:
    """Of all that a score improved, the share of the last fifth of the steps."""
    smooth = _smooth(values if better == "max" else -values)
    before = smooth[steps <= 0.8 * steps[-1]]
    if not len(before):
        return 0.0
    gained = float(smooth.max() - smooth[0])
    return float(smooth[-1] - before.max()) / gained if gained > 0 else 0.0


def _parts(losses: np.ndarray) -> Sequence[np.ndarray]:
    return np.array_split(losses, min(5, len(losses)))


def _falls(losses: np.ndarray) -> bool:
    """Whether the last fifth of the losses is lower than the one before."""
    if len(losses) < 10:
        return False
    *_, before, last = _parts(losses)
    return float(np.mean(last)) < float(np.mean(before)) - 0.01 * abs(float(np.mean(before)))


def _first(losses: np.ndarray) -> float:
    return float(np.mean(losses[: max(1, len(losses) // 50)]))


def _last(losses: np.ndarray) -> float:
    return float(np.mean(losses[-max(1, len(losses) // 20) :]))


def _hardly_fell(losses: np.ndarray) -> bool:
    if len(losses) < 10 or not math.isfinite(_first(losses)):
        return False
    return _last(losses) > 0.9 * _first(losses) > 0
