"""The number format of a run, chosen by measuring: a few forward and backward passes in each, before the first step.

A choice is remembered for the machine, the network and the batch: same seed, same machine, same bits.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import nn

from sonde import loop
from sonde.base import dist, files
from sonde.base.device import Format, Precision, formats
from sonde.base.errors import UserError
from sonde.data.batches import Batches
from sonde.task import Task

# Passes in each format: as many as cost about two steps in a hundred, within these bounds.
FEWEST, MOST = 2, 6
# Below so many steps measuring costs more than it can save.
WORTH_IT = 100
# Another format has to be quicker by this share: what is lost in the noise stays in float32.
MARGIN = 0.03


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A number format, and how long a forward and backward pass took in each, in seconds; why, if not measured."""

    format: Format
    why: str
    seconds: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"format": self.format, "why": self.why, "seconds": self.seconds}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        return cls(format=value["format"], why=value["why"], seconds=value["seconds"])

    def __str__(self) -> str:
        measured = ", ".join(f"{name} {1000 * each:.3g} ms" for name, each in self.seconds.items())
        return f"precision {self.format}: {self.why}" + (f" (forward and backward: {measured})" if measured else "")


def settle(
    asked: Literal["auto"] | Format,
    task: Task,
    network: nn.Module,
    batches: Batches,
    plan: loop.Plan,
    micro_batch: int,
    kept: Path | None,
) -> Choice:
    """The choice of this run: the one in the file `kept` if it is there, else a new one, which is written there."""
    if kept is not None and kept.is_file():
        return Choice.from_json(files.read_json(kept))
    choice = choose(asked, task, network, batches, plan, micro_batch)
    if kept is not None and dist.is_main():
        files.write_json(kept, choice.to_json())
    return choice


def choose(
    asked: Literal["auto"] | Format, task: Task, network: nn.Module, batches: Batches, plan: loop.Plan, micro_batch: int
) -> Choice:
    """The format that the recipe asks for, or the quickest on this machine for this network and batch size."""
    if asked != "auto":
        return Choice(format=asked, why="as the recipe says")
    usable = formats(plan.precision.device)
    if len(usable) == 1:
        return Choice(format="fp32", why="this machine computes in nothing quicker")
    if plan.steps < WORTH_IT:
        return Choice(format="fp32", why=f"{plan.steps} steps are too few to measure")
    choice = None
    if dist.is_main():
        place = _memory(task, network, batches, plan, micro_batch)
        choice = _recall(place)
        if choice is None:
            choice = _decide(measure(task, network, batches, plan, micro_batch, usable))
            _remember(place, choice)
    (choice, *_) = dist.gather(choice)
    assert choice is not None
    return choice


def measure(
    task: Task, network: nn.Module, batches: Batches, plan: loop.Plan, micro_batch: int, usable: tuple[Format, ...]
) -> dict[str, float]:
    """Seconds of a forward and backward pass in each format: the least of several, in turns. Nothing is changed."""
    buffers = {name: value.clone() for name, value in network.named_buffers()}
    state = loop.State(network=network, optimizers=[], micro_batch=micro_batch)
    place = batches.at(0)
    batch = place.batch.to(plan.precision.device)
    rounds = min(MOST, max(FEWEST, plan.steps // (50 * len(usable))))
    seconds: dict[str, float] = {}
    network.train()
    for turn in range(rounds + 1):
        for kind in usable if turn % 2 else reversed(usable):
            precision = Precision(kind=kind, device=plan.precision.device)
            started = time.perf_counter()
            loop.gradients(task, batch, place.epoch, state, plan.in_format(precision))
            if precision.device.type == "cuda":
                torch.cuda.synchronize()
            # The first turn makes kernels ready.
            if turn:
                seconds[kind] = min(seconds.get(kind, float("inf")), time.perf_counter() - started)
            network.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, value in network.named_buffers():
            value.copy_(buffers[name])
    return {kind: seconds[kind] for kind in usable}


def _decide(seconds: dict[str, float]) -> Choice:
    best = min(seconds, key=lambda kind: seconds[kind])
    if seconds[best] > (1 - MARGIN) * seconds["fp32"]:
        best = "fp32"
    return Choice(format=best, why="the quickest measured here", seconds=seconds)  # type: ignore[arg-type]


def _memory(task: Task, network: nn.Module, batches: Batches, plan: loop.Plan, micro_batch: int) -> Path:
    """Where the choice for this machine, network and batch is remembered."""
    shapes = [f"{name} {tuple(value.shape)}" for name, value in network.state_dict().items()]
    batch = batches.at(0).batch
    inputs = [f"{key} {tuple(value.shape)}" for part in batch.inputs.values() for key, value in part.items()]
    machine = [platform.processor() or platform.machine(), _model(), str(os.cpu_count()), str(torch.get_num_threads())]
    said = json.dumps(
        [torch.__version__, str(plan.precision.device), machine, repr(network), shapes, inputs, micro_batch]
    )
    base = Path(os.environ.get("SONDE_CACHE") or Path.home() / ".cache" / "sonde")
    return base / "precision" / f"{hashlib.blake2b(said.encode(), digest_size=12).hexdigest()}.json"


def _model() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _recall(place: Path) -> Choice | None:
    try:
        return Choice.from_json({**files.read_json(place), "why": "as measured here before"})
    except (OSError, ValueError, KeyError):
        return None


def _remember(place: Path, choice: Choice) -> None:
    """Without a place to write, the next run measures again."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(place, choice.to_json())
    except (OSError, UserError):
        pass
