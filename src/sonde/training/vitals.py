"""While it trains: how units, gradients and updates fare, computed on the device, read at log points only.

A look costs about a step, and one is made in fifty steps at the most: below 2 % of the training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sonde import loop
from sonde.base.rng import BatchRng
from sonde.contracts.batch import Batch
from sonde.contracts.task import Task
from sonde.data.batches import in_order
from sonde.data.store import Encoded
from sonde.training._units import Units

# Steps between two looks at least, looks of a run at most, examples that units are seen on, layers that are told of.
FEWEST, LOOKS, EXAMPLES, LAYERS = 50, 40, 32, 32


def looks_every(steps: int, log_every: int) -> int:
    """Steps between looks: a multiple of the log's, so that reading them waits for nothing more."""
    return log_every * math.ceil(max(FEWEST, steps / LOOKS) / log_every)


@dataclass(kw_only=True)
class Vitals:
    """Looks at a state now and then. Nothing of the run is changed by it: not a weight, a statistic or a draw."""

    task: Task
    state: loop.State
    plan: loop.Plan
    train: Encoded
    every: int
    _before: list[Tensor] | None = field(default=None, init=False)
    _batch: Batch | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        weights = [(name, one) for name, one in self.state.network.named_parameters() if one.requires_grad]
        matrices = [(name, one) for name, one in weights if one.ndim > 1] or weights
        chosen = np.unique(np.linspace(0, len(matrices) - 1, min(LAYERS, len(matrices))).astype(int)).tolist()
        self.names = [matrices[place][0] for place in chosen]
        self.weights: list[nn.Parameter] = [matrices[place][1] for place in chosen]

    def is_due(self, step: int) -> bool:
        """Whether the step, counted from 1, is looked at."""
        return bool(self.names) and (step % self.every == 0 or step == self.plan.steps)

    def before(self, step: int) -> None:
        """Keep the weights before a step that will be looked at."""
        self._before = [one.detach().clone() for one in self.weights] if self.is_due(step) else None

    def look(self) -> dict[str, Any]:
        """The line of the log on the step that was just made; one read of the device.

        "gradient" and "update" are by weight, in the order of the network: the root mean square of its gradient, and
        the length of its update beside its own length. "dead" and "saturated" are by activation.
        """
        units = self._units()
        parts = [*self._layers(), *units.dead.values(), *units.saturated.values()]
        numbers: list[float] = torch.stack([one.float() for one in parts]).tolist() if parts else []
        count = len(self.names)
        held = iter(_short(numbers))
        found: dict[str, Any] = {"layers": self.names, "gradient": [next(held) for _ in range(count)]}
        if self._before is not None:
            found["update"] = [next(held) for _ in range(count)]
        found["dead"] = {name: next(held) for name in units.dead}
        found["saturated"] = {name: next(held) for name in units.saturated}
        self._before = None
        return {"step": self.state.step, "vitals": found}

    @torch.no_grad()
    def _layers(self) -> list[Tensor]:
        zero = torch.zeros((), device=self.plan.precision.device)
        there = [one.grad for one in self.weights if one.grad is not None]
        norms = iter(torch._foreach_norm(there) if there else [])  # type: ignore[attr-defined]
        found = [zero if one.grad is None else next(norms) / math.sqrt(one.numel()) for one in self.weights]
        if self._before is not None:
            moved = torch._foreach_sub(self._before, [one.detach() for one in self.weights])  # type: ignore[attr-defined]
            lengths = torch._foreach_norm(self._before)  # type: ignore[attr-defined]
            for one, whole in zip(torch._foreach_norm(moved), lengths, strict=True):  # type: ignore[attr-defined]
                found.append(one / whole.clamp(min=1e-12))
        return found

    @torch.no_grad()
    def _units(self) -> Units:
        """The units on a few training examples, always the same, in evaluation: without dropout or augmentation."""
        batch, units = self._some(), Units()
        network = self.state.network
        training = network.training
        network.eval()
        rng = BatchRng(seed=self.plan.seed, epoch=0, records_B=batch.records_B, progress=0.0)
        with self.plan.precision.forward(), units.places(network), units:
            self.task.target.loss(network, batch, rng)
        network.train(training)
        return units

    def _some(self) -> Batch:
        if self._batch is None:
            count = len(self.train.examples)
            size = min(EXAMPLES, count, self.state.micro_batch)
            chosen = torch.from_numpy(np.unique(np.linspace(0, count - 1, size).astype(np.int64)))
            some = self.train.examples.take(chosen)
            self._batch = self.task.preprocess(in_order(self.task, some, size, 0).to(self.plan.precision.device))
        return self._batch


def _short(numbers: Sequence[float]) -> list[float | None]:
    """Four digits each; None for what is no finite number."""
    return [float(f"{one:.4g}") if math.isfinite(one) else None for one in numbers]
