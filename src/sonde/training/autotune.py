"""How a run computes, chosen by measuring before the first step: the number format, and whether torch compiles it.

A execution is remembered for the machine, the network and the batch: same seed, same machine, same bits.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import torch
from torch import nn

from sonde import loop
from sonde.base import cache, dist, files
from sonde.base.device import Format, Precision, formats
from sonde.base.errors import UserError
from sonde.contracts.task import Task
from sonde.data.batches import Batches

Asked = Literal["auto"] | Format
# Passes in each format: as many as cost about two steps in a hundred, within these bounds.
FEWEST, MOST = 2, 6
# Below so many steps measuring costs more than it can save.
WORTH_IT = 100
# Another format has to be quicker by this share: what is lost in the noise stays in float32.
MARGIN = 0.03
# What trying to compile may cost of a run whose forecast is known, and the seconds that it takes if nobody knows.
MAX_COST_SHARE = 0.03
COMPILING = 60.0


# The name of a way to compute: a format, or "compiled".
Way = TypeVar("Way", bound=str)


@dataclass(frozen=True, kw_only=True)
class ExecutionPlan:
    """A number format, whether to compile, how long a forward and backward pass took in each way (s), and why so.

    `compiling` is how long torch took to compile, in seconds, None if that was not tried.
    """

    format: Format
    why: str
    seconds: dict[str, float] = field(default_factory=dict)
    compiled: bool = False
    compiling: float | None = None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        return cls(**value)

    def __str__(self) -> str:
        measured = ", ".join(f"{name} {1000 * each:.3g} ms" for name, each in self.seconds.items())
        if self.compiling is not None:
            measured += f"; compiling {self.compiling:.0f} s"
        kind = f"{self.format}, compiled" if self.compiled else self.format
        return f"precision {kind}: {self.why}" + (f" (forward and backward: {measured})" if measured else "")


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is measured: the network at its first step."""

    task: Task
    network: nn.Module
    batches: Batches
    plan: loop.Plan
    micro_batch: int


def resolve(workload: Workload, asked: Asked, compiling: Literal["auto"] | bool, kept: Path | None) -> ExecutionPlan:
    """The execution of this run: the one in the file `kept` if it is there, else a new one, which is written there."""
    if kept is not None and kept.is_file():
        try:
            return ExecutionPlan.from_json(files.read_json(kept))
        except (ValueError, TypeError) as error:
            raise UserError(f"{kept} is damaged: {error}", hint="restore it from a copy, or start a new run") from error
    execution = choose(workload, asked)
    if compiling is True:
        execution = dataclasses.replace(execution, compiled=True)
    elif compiling == "auto" and execution.seconds and dist.world_size() == 1:
        execution = _perhaps_compiled(workload, execution)
    if kept is not None and dist.is_main():
        files.write_json(kept, execution.to_json())
    return execution


def choose(workload: Workload, asked: Asked) -> ExecutionPlan:
    """The format that the recipe asks for, or the quickest on this machine for this network and batch size."""
    if asked != "auto":
        return ExecutionPlan(format=asked, why="as the recipe says")
    usable = formats(workload.plan.precision.device)
    if len(usable) == 1:
        return ExecutionPlan(format="fp32", why="this machine computes in nothing quicker")
    if workload.plan.steps < WORTH_IT:
        return ExecutionPlan(format="fp32", why=f"{workload.plan.steps} steps are too few to measure")
    place = _memory(workload)
    (execution, *_) = dist.all_gather(_recall(place))
    if execution is None:
        # Measuring sums over the processes: all of them take part, and go by what the main one found.
        (execution, *_) = dist.all_gather(_decide(measure(workload, usable)))
        if dist.is_main():
            _remember(place, execution)
    return execution


def compiled(network: nn.Module) -> nn.Module:
    """The network as torch compiles it at its first call."""
    whole = torch.compile(network)
    assert isinstance(whole, nn.Module)
    return whole


def measure(workload: Workload, usable: tuple[Format, ...]) -> dict[Format, float]:
    """Seconds of a forward and backward pass in each format: the least of several, in turns. Nothing is changed."""
    rounds = min(MOST, max(FEWEST, workload.plan.steps // (50 * len(usable))))
    return _timed(workload, {kind: (workload.network, kind) for kind in usable}, rounds)


def _timed(workload: Workload, ways: dict[Way, tuple[nn.Module, Format]], rounds: int) -> dict[Way, float]:
    """The least seconds of each way to call the network, tried in turns; a first round makes kernels ready."""
    buffers = {name: value.clone() for name, value in workload.network.named_buffers()}
    device = workload.plan.precision.device
    batch, epoch = workload.batches.at(0)
    batch = batch.to(device)
    seconds = dict.fromkeys(ways, float("inf"))
    workload.network.train()
    for turn in range(rounds + 1):
        for name in ways if turn % 2 else reversed(ways):
            parallel_network, kind = ways[name]
            state = loop.State(
                network=workload.network,
                parallel_network=parallel_network,
                optimizers=[],
                micro_batch=workload.micro_batch,
            )
            plan = workload.plan.in_format(Precision(kind=kind, device=device))
            started = time.perf_counter()
            loop.gradients(workload.task, batch, epoch, state, plan)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                seconds[name] = min(seconds[name], time.perf_counter() - started)
            workload.network.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, value in workload.network.named_buffers():
            value.copy_(buffers[name])
    return seconds


def _decide(seconds: dict[Format, float]) -> ExecutionPlan:
    best = min(seconds, key=lambda kind: seconds[kind])
    if seconds[best] > (1 - MARGIN) * seconds["fp32"]:
        best = "fp32"
    return ExecutionPlan(format=best, why="the quickest measured here", seconds={**seconds})


def _perhaps_compiled(workload: Workload, execution: ExecutionPlan) -> ExecutionPlan:
    """Compiled, where it has paid on this machine, or the run is so long that trying costs it next to nothing."""
    plain = execution.seconds[execution.format]
    fast = execution.seconds.get("compiled")
    if fast is not None and execution.compiling is not None:
        pays = (plain - fast) * workload.plan.steps > execution.compiling
        return dataclasses.replace(execution, compiled=pays and fast < (1 - MARGIN) * plain)
    if plain * workload.plan.steps * MAX_COST_SHARE < COMPILING or not _same_shapes(workload.batches):
        return execution
    network = compiled(workload.network)
    started = time.perf_counter()
    try:
        _timed(workload, {"compiled": (network, execution.format)}, 0)
        compiling = time.perf_counter() - started
        ways: dict[str, tuple[nn.Module, Format]] = {
            execution.format: (workload.network, execution.format),
            "compiled": (network, execution.format),
        }
        found = _timed(workload, ways, MOST)
    except Exception as error:  # compilers fail in many ways; without them a run is only slower
        return dataclasses.replace(execution, why=f"{execution.why}; compiling failed: {type(error).__name__}")
    execution = dataclasses.replace(execution, seconds={**execution.seconds, **found}, compiling=compiling)
    _remember(_memory(workload), execution)
    return dataclasses.replace(execution, compiled=found["compiled"] < (1 - MARGIN) * found[execution.format])


def _same_shapes(batches: Batches) -> bool:
    """Whether two batches look alike: for texts of many lengths torch would compile again and again."""
    first, second = (
        [value.shape for part in batches.at(step).batch.inputs.values() for value in part.values()] for step in (0, 1)
    )
    return first == second


def _memory(workload: Workload) -> Path:
    """Where the execution for this machine, network and batch is remembered."""
    shapes = [f"{name} {tuple(value.shape)}" for name, value in workload.network.state_dict().items()]
    batch = workload.batches.at(0).batch
    inputs = [f"{key} {tuple(value.shape)}" for part in batch.inputs.values() for key, value in part.items()]
    machine = [platform.processor() or platform.machine(), _model(), str(os.cpu_count()), str(torch.get_num_threads())]
    what = [repr(workload.network), shapes, inputs, workload.micro_batch]
    said = json.dumps([torch.__version__, str(workload.plan.precision.device), machine, what])
    return cache.folder() / "precision" / f"{hashlib.blake2b(said.encode(), digest_size=12).hexdigest()}.json"


def _model() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _recall(place: Path) -> ExecutionPlan | None:
    try:
        return ExecutionPlan.from_json({**files.read_json(place), "why": "as measured here before"})
    except (OSError, ValueError, TypeError):
        return None


def _remember(place: Path, execution: ExecutionPlan) -> None:
    """Without a place to write, the next run measures again."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(place, execution.to_json())
    except (OSError, UserError):
        pass
