"""How far answers hold where inputs are changed by a little, chosen by an adversary: FGSM and PGD in the largest norm.

FGSM (Goodfellow et al. 2015) takes one step along the sign of the gradient of the loss; PGD (Madry et al. 2018) many
small ones from a random start, each brought back into the box around the input. A network that was not trained against
them falls to about 0 under PGD; one that does not has gradients that tell nothing (Athalye et al. 2018), or the
evaluation is wrong: that is a finding, too.

B example.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from sonde.base.device import Precision
from sonde.base.errors import UserError
from sonde.base.rng import generator
from sonde.contracts.batch import Batch, Examples
from sonde.contracts.columns import EvalColumns, to_numpy
from sonde.contracts.layouts import LAYOUTS
from sonde.contracts.task import Task
from sonde.data.batches import in_order
from sonde.evaluation.intervals import interval, without_a_failure
from sonde.evaluation.paired import draw
from sonde.evaluation.scores import Score, finite

Method = Literal["fgsm", "pgd"]
# How far each number may be moved, as a share of the range that its channel has in the examples.
STRENGTHS = (0.01, 0.03, 0.1, 0.3)
# Steps of PGD, each of this share of the whole way (Madry et al. take 2.5 / steps).
STEPS, STEP = 40, 2.5
MOST, BATCH, RESAMPLES = 500, 64, 400


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """The score of a target under an attack; `strength` 0 is none."""

    method: str
    strength: float
    metric: str
    score: Score

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def attack(
    task: Task,
    network: nn.Module,
    examples: Examples,
    *,
    precision: Precision,
    seed: int,
    strengths: Sequence[float] = STRENGTHS,
    steps: int = STEPS,
) -> list[Attacked]:
    """The target's score on at most `MOST` of the examples: as they are, and under each attack at each strength. It is
    that of the network itself, without the recipe's decision: who answers one class whatever comes is right sometimes.

    What is moved are the numbers of the first input that has some (pixels, frames, columns); none leaves the range
    that its channel has in the examples.

    Raises:
        UserError: no input has numbers that a gradient reaches.
    """
    network, task = network.eval(), Task(inputs=task.inputs, target=task.target.uncalibrated())
    # Weights need no gradient, and are as they were afterwards.
    needed = [one for one in network.parameters() if one.requires_grad]
    for one in needed:
        one.requires_grad_(False)
    try:
        some = examples.take(torch.arange(min(MOST, len(examples))))
        batches = list(_batches(task, some, precision))
        place = _attackable(task, batches[0])
        low, high = _range(batches, place)
        metric = task.target.monitor[0]
        found = [_judged(task, network, batches, "none", 0.0, metric, seed)]
        for strength in strengths:
            for method in ("fgsm", "pgd"):
                moved = [
                    _moved(task, network, batch, place, (low, high), method, strength, steps, seed + number)
                    for number, batch in enumerate(batches)
                ]
                found.append(_judged(task, network, moved, method, strength, metric, seed))
        return found
    finally:
        for one in needed:
            one.requires_grad_(True)


def falls(found: Sequence[Attacked], lower_is_better: bool) -> bool | None:
    """Whether the strongest attack leaves (nearly) nothing of the score; None where lower scores are better."""
    if lower_is_better:
        return None
    worst = min((one.score.value for one in found if one.score.value is not None), default=math.nan)
    return worst <= 0.05


Place = tuple[str, str]


def _batches(task: Task, examples: Examples, precision: Precision) -> Iterator[Batch]:
    for start in range(0, len(examples), BATCH):
        yield task.preprocess(in_order(task, examples, BATCH, start).to(precision.device))


def _attackable(task: Task, batch: Batch) -> Place:
    """The input and its tensor that can be moved."""
    for name, spec in task.specs.items():
        main = LAYOUTS[spec.layout].main
        values = batch.inputs[name].get(main)
        if isinstance(values, Tensor) and values.is_floating_point() and values.numel():
            return name, main
    raise UserError(
        "no input has numbers that an attack could change by a little",
        expected="pictures, recordings or numbers",
        hint="words are not changed by a little; leave out --attack",
    )


def _range(batches: Sequence[Batch], place: Place) -> tuple[Tensor, Tensor]:
    """The least and the largest value of each channel, in a shape that broadcasts."""
    ends = []
    for batch in batches:
        values = batch.inputs[place[0]][place[1]]
        dims = [dim for dim in range(values.ndim) if dim != _channel(place[1], values)]
        ends.append((values.amin(dims, keepdim=True), values.amax(dims, keepdim=True)))
    return (
        torch.stack([low for low, _ in ends]).amin(0),
        torch.stack([high for _, high in ends]).amax(0),
    )


def _channel(main: str, values: Tensor) -> int:
    return 1 if main == "grid" else values.ndim - 1


def _moved(
    task: Task,
    network: nn.Module,
    batch: Batch,
    place: Place,
    ends: tuple[Tensor, Tensor],
    method: str,
    strength: float,
    steps: int,
    seed: int,
) -> Batch:
    """The batch under an attack."""
    clean, (low, high) = batch.inputs[place[0]][place[1]], ends
    reach = strength * (high - low)
    least, most = torch.maximum(clean - reach, low), torch.minimum(clean + reach, high)
    # Neighbours outside of the range of the examples (there are none) stay where they are.
    least, most = torch.minimum(least, clean), torch.maximum(most, clean)
    if method == "fgsm":
        return _with(batch, place, _stepped(task, network, batch, place, clean, reach).clamp(least, most))
    drawn = torch.rand(clean.shape, generator=generator(seed, "attack")).to(clean.device)
    values = (clean + reach * (2 * drawn - 1)).clamp(least, most)
    for _ in range(steps):
        values = _stepped(task, network, batch, place, values, reach * STEP / steps).clamp(least, most)
    return _with(batch, place, values)


def _stepped(task: Task, network: nn.Module, batch: Batch, place: Place, values: Tensor, step: Tensor) -> Tensor:
    values = values.detach().requires_grad_(True)
    with torch.enable_grad():
        total = task.target.attack_loss(network, _with(batch, place, values))
    (gradient,) = torch.autograd.grad(total, values)
    return (values + step * gradient.sign()).detach()


def _with(batch: Batch, place: Place, values: Tensor) -> Batch:
    return batch.with_inputs(**{place[0]: {**batch.inputs[place[0]], place[1]: values}})


def _judged(
    task: Task, network: nn.Module, batches: Sequence[Batch], method: str, strength: float, metric: str, seed: int
) -> Attacked:
    parts: list[EvalColumns] = []
    with torch.inference_mode():
        for batch in batches:
            columns = task.target.eval_outputs(network, batch)
            parts.append({name: to_numpy(column) for name, column in columns.items()})
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    drawn, count = draw(task, whole, metric, seed=seed, resamples=RESAMPLES), len(next(iter(whole.values())))
    ends = interval(drawn.value, drawn.drawn_R, np.empty(0), count)
    if drawn.value in (0.0, 1.0) and metric not in task.target.lower_is_better | task.target.no_shares:
        least = without_a_failure(count)
        ends = (0.0, 1 - least) if drawn.value == 0 else (least, 1.0)
    low, high = ends if ends else (None, None)
    score = Score(value=finite(drawn.value), low=low, high=high, count=count, units=count)
    return Attacked(method=method, strength=strength, metric=metric, score=score)
