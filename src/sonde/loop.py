"""THE training loop: forward, loss, backward, update. It knows nothing of inputs, targets or networks.

`train` is a generator of optimizer steps. Logging, evaluating, saving and stopping are ordinary code around it, in
`run.py`. This is the only file that calls `backward()` or `optimizer.step()`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sonde import optim, parallel
from sonde.base import dist
from sonde.base.device import Precision
from sonde.base.errors import Diverged
from sonde.base.rng import Draw, key
from sonde.columns import Tensors
from sonde.data.batches import Batches
from sonde.task import Batch, Task

# How fast the level that spikes are measured against follows the loss, and how many steps it takes to know it.
FOLLOW = 0.05
SETTLED = 20


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What does not change while training. `spike`: a loss so many times its level stops the loop, None never."""

    steps: int
    seed: int
    schedule: optim.ScheduleConfig
    precision: Precision
    clip: float | None = None
    spike: float | None = None

    def in_format(self, precision: Precision) -> Plan:
        return dataclasses.replace(self, precision=precision)


@dataclass(kw_only=True)
class State:
    """The one mutable object of a run: everything that a checkpoint holds."""

    network: nn.Module
    optimizers: list[torch.optim.Optimizer]
    average: optim.Average | None = None
    plateau: optim.Plateau | None = None
    step: int = 0
    micro_batch: int = 1 << 62
    # Of the monitored validation score: the best so far, its step, and how many validations ago that was.
    best: float | None = None
    best_step: int = 0
    waited: int = 0
    # Where the loss has been lately, and the factor on the rate that is left after the times that it went astray.
    level: float | None = None
    damping: float = 1.0
    rolled_back: int = 0
    # What is called in training: the network, or what spreads it over several processes.
    replica: nn.Module = field(default=None)  # type: ignore[assignment]
    parameters: list[nn.Parameter] = field(init=False)

    def __post_init__(self) -> None:
        if self.replica is None:
            self.replica = self.network
        self.parameters = [one for one in self.network.parameters() if one.requires_grad]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimizer step that was made. The tensors are 0-d and on the device: reading them waits for it."""

    number: int
    epoch: int
    terms: Tensors
    norm: Tensor
    rate: float
    size: int


def train(task: Task, batches: Batches, state: State, plan: Plan) -> Iterator[Step]:
    """Make the steps from `state.step` to `plan.steps`, yielding after each.

    The gradient is that of the mean loss over the whole batch: losses are sums, divided by the batch's one count over
    all micro-batches and processes, so neither changes anything but the memory that is needed.

    Raises:
        Astray: a loss or a gradient is not a finite number, or the loss shot up; the update was not made.
    """
    network = state.network
    while state.step < plan.steps:
        if not network.training:
            network.train()
        batch, epoch = batches.at(state.step)
        batch = batch.to(plan.precision.device)
        terms = gradients(task, batch, epoch, state, plan)
        norm = _norm(state.parameters)
        length, loss = norm.item(), sum(value.item() for value in terms.values())
        if not math.isfinite(length + loss):
            raise _not_finite(task, batch, epoch, state, plan, terms)
        if plan.spike is not None:
            _watch(loss, batch, state, plan.spike)
        factor = optim.rate(plan.schedule, state.step, plan.steps) * state.damping
        factor *= state.plateau.factor if state.plateau else 1.0
        optim.set_rate(state.optimizers, factor)
        # A gradient that is short enough is multiplied by exactly 1.
        optim.shrink(state.optimizers, 1.0 if plan.clip is None else min(1.0, plan.clip / (length + 1e-6)))
        for optimizer in state.optimizers:
            optimizer.step()
        if state.average is not None:
            state.average.update(network, state.step)
        state.step += 1
        yield Step(number=state.step, epoch=epoch, terms=terms, norm=norm, rate=factor, size=len(batch))


def gradients(task: Task, batch: Batch, epoch: int, state: State, plan: Plan) -> Tensors:
    """Put the gradient of the batch's mean loss into the parameters; give the mean of each term.

    When memory runs out the micro-batch is halved and the batch begun again: the gradient stays the same.
    """
    while True:
        try:
            for parameter in state.parameters:
                parameter.grad = None
            _reseed(plan, state.step)
            world = dist.size()
            count = dist.total(task.target.count(batch)) if world > 1 else task.target.count(batch)
            # DDP and FSDP give the mean over the processes; what is wanted is the sum.
            share = count / world if world > 1 else count
            totals: Tensors = {}
            parts = batch.split(state.micro_batch)
            for number, part in enumerate(parts, start=1):
                with plan.precision.maths(), parallel.summing(state.replica, last=number == len(parts)):
                    terms = _loss(task, part, epoch, state, plan)
                    first, *others = terms.values()
                    # The gradient of the sum divided by `share`, without the division.
                    sum(others, start=first).backward(share.reciprocal())
                for name, value in terms.items():
                    totals[name] = totals[name] + value.detach() if name in totals else value.detach()
            return {name: (dist.total(value) if world > 1 else value) / count for name, value in totals.items()}
        except (torch.OutOfMemoryError, RuntimeError) as error:
            size = min(state.micro_batch, len(batch))
            # Alone a process can begin again; the others of a job are in the middle of a sum with it.
            if not _out_of_memory(error) or size == 1 or dist.size() > 1:
                raise
            state.micro_batch = (size + 1) // 2


def _reseed(plan: Plan, step: int) -> None:
    """Seed the generator that layers draw from (dropout and the like): every step is a function of (seed, step).

    `torch.manual_seed` seeds every device that there could be: for one that is not there it writes down the call
    stack, which takes 0.1 to 1 ms.
    """
    seed = (_stream(plan.seed, dist.rank()) + step * 0x9E3779B97F4A7C15) & ((1 << 63) - 1)
    torch.default_generator.manual_seed(seed)
    if plan.precision.device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif plan.precision.device.type == "mps":
        torch.mps.manual_seed(seed)


@functools.cache
def _stream(seed: int, rank: int) -> int:
    return key(seed, "layers", rank)


def _norm(parameters: list[nn.Parameter]) -> Tensor:
    """The length of the whole gradient, 0-d."""
    gradients = [one.grad for one in parameters if one.grad is not None]
    return dist.whole(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))  # pyright: ignore[reportPrivateImportUsage]


def _out_of_memory(error: Exception) -> bool:
    """Whether memory ran out; the CPU's allocator says so in words only."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _loss(task: Task, batch: Batch, epoch: int, state: State, plan: Plan) -> Tensors:
    """The loss terms of a batch, as sums."""
    draw = Draw(seed=plan.seed, epoch=epoch, records_B=batch.records_B, progress=state.step / plan.steps)
    batch = task.augment(batch, draw)
    with plan.precision.forward():
        return task.target.loss(state.replica, batch, draw)


def _watch(loss: float, batch: Batch, state: State, spike: float) -> None:
    """Follow the level of the loss; one far above it is not followed."""
    if state.level is None:
        state.level = loss
    if state.step >= SETTLED and loss > spike * state.level:
        raise Astray(
            step=state.step + 1,
            what=f"the loss shot up to {loss:.4g}, more than {spike:g} times its level of {state.level:.4g},",
            records=_everywhere(batch.records_B.tolist()),
        )
    state.level += FOLLOW * (loss - state.level)


def _not_finite(task: Task, batch: Batch, epoch: int, state: State, plan: Plan, terms: Tensors) -> Astray:
    """Which term of which records is to blame; the forward pass is done again, one example at a time."""
    bad_terms = [name for name, value in terms.items() if not math.isfinite(value.item())]
    bad_records = []
    with torch.no_grad(), plan.precision.maths():
        for one in batch.split(1):
            sums = _loss(task, one, epoch, state, plan)
            if not all(math.isfinite(value.item()) for value in sums.values()):
                bad_records.append(int(one.records_B))
    what = f"the loss term {bad_terms[0]!r}" if bad_terms else "the gradient"
    return Astray(
        step=state.step + 1,
        what=f"{what} became NaN or infinite",
        records=_everywhere(bad_records) or _everywhere(batch.records_B.tolist()),
    )


def _everywhere(records: list[int]) -> list[int]:
    return [number for each in dist.gather(records) for number in each]


class Astray(Diverged):
    """Training went astray at a step; `records` are positions in the training split, which only the run can name.

    Without records it is the weights after the step that are to blame.
    """

    def __init__(self, *, step: int, what: str, records: list[int], names: list[str] | None = None) -> None:
        self.step, self.subject, self.records = step, what, records
        shown = ", ".join((names or [str(number) for number in records])[:8])
        more = f" and {len(records) - 8} more" if len(records) > 8 else ""
        super().__init__(
            f"{what} at step {step}" + (f"; the update was not made; records: {shown}{more}" if records else ""),
            hint="lower training.optimizer.lr, look at those records, or let training.rollback go back and on with a "
            "smaller rate; the last good checkpoint is kept",
        )

    def named(self, ids: list[str]) -> Astray:
        """The same, with the records' names."""
        names = [ids[number] for number in self.records]
        return Astray(step=self.step, what=self.subject, records=self.records, names=names)
