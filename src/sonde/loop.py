"""THE training loop: forward, loss, backward, update. It knows nothing of inputs, targets or networks.

`train` is a generator of optimizer steps. Logging, evaluating, saving and stopping are ordinary code around it, in
`run.py`. This is the only file that calls `backward()` or `optimizer.step()`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sonde import optim
from sonde.base.device import Precision
from sonde.base.errors import Diverged
from sonde.base.rng import Draw, key
from sonde.columns import Tensors
from sonde.data.batches import Batches
from sonde.task import Batch, Task


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What does not change while training."""

    steps: int
    seed: int
    schedule: optim.ScheduleConfig
    precision: Precision
    clip: float | None = None


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
    parameters: list[nn.Parameter] = field(init=False)

    def __post_init__(self) -> None:
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

    The gradient is that of the mean loss over the whole batch: losses are sums, divided by the batch's one count, so
    micro-batches change nothing but the memory that is needed.

    Raises:
        Diverged: a loss or a gradient is not a finite number; the update was not made.
    """
    network = state.network
    while state.step < plan.steps:
        network.train()
        # Dropout and the like draw from the global generator: reseeded, every step is a function of (seed, step).
        torch.manual_seed(key(plan.seed, "layers", state.step))
        batch, epoch = batches.at(state.step)
        batch = batch.to(plan.precision.device)
        terms = _gradients(task, batch, epoch, state, plan)
        norm = torch.nn.utils.get_total_norm([one.grad for one in state.parameters if one.grad is not None])
        if not math.isfinite(sum(terms.values(), start=norm).item()):
            raise _diverged(task, batch, epoch, state, plan, terms)
        if plan.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(state.parameters, plan.clip, norm)
        factor = optim.rate(plan.schedule, state.step, plan.steps) * (state.plateau.factor if state.plateau else 1.0)
        optim.set_rate(state.optimizers, factor)
        for optimizer in state.optimizers:
            optimizer.step()
        if state.average is not None:
            state.average.update(network, state.step)
        state.step += 1
        yield Step(number=state.step, epoch=epoch, terms=terms, norm=norm, rate=factor, size=len(batch))


def _gradients(task: Task, batch: Batch, epoch: int, state: State, plan: Plan) -> Tensors:
    """Put the gradient of the batch's mean loss into the parameters; give the mean of each term.

    When memory runs out the micro-batch is halved and the batch begun again: the gradient stays the same.
    """
    while True:
        try:
            for optimizer in state.optimizers:
                optimizer.zero_grad(set_to_none=True)
            count = task.target.count(batch)
            totals: Tensors = {}
            for part in batch.split(state.micro_batch):
                terms = _loss(task, part, epoch, state.network, plan)
                (sum(terms.values()) / count).backward()
                for name, value in terms.items():
                    totals[name] = totals.get(name, 0) + value.detach()
            return {name: value / count for name, value in totals.items()}
        except torch.OutOfMemoryError:
            size = min(state.micro_batch, len(batch))
            if size == 1:
                raise
            state.micro_batch = (size + 1) // 2


def _loss(task: Task, batch: Batch, epoch: int, network: nn.Module, plan: Plan) -> Tensors:
    """The loss terms of a batch, as sums."""
    draw = Draw(seed=plan.seed, epoch=epoch, records_B=batch.records_B)
    batch = task.augment(batch, draw)
    with plan.precision():
        return task.target.loss(network, batch, draw)


def _diverged(task: Task, batch: Batch, epoch: int, state: State, plan: Plan, terms: Tensors) -> Diverged:
    """Which term of which records is to blame; the forward pass is done again, one example at a time."""
    bad_terms = [name for name, value in terms.items() if not math.isfinite(value.item())]
    bad_records = []
    with torch.no_grad():
        for one in batch.split(1):
            sums = _loss(task, one, epoch, state.network, plan)
            if not all(math.isfinite(value.item()) for value in sums.values()):
                bad_records.append(int(one.records_B))
    return NotFinite(
        step=state.step + 1,
        what=f"the loss term {bad_terms[0]!r}" if bad_terms else "the gradient",
        records=bad_records or batch.records_B.tolist(),
    )


class NotFinite(Diverged):
    """Training diverged at a step; `records` are positions in the training split, which only the run can name."""

    def __init__(self, *, step: int, what: str, records: list[int], names: list[str] | None = None) -> None:
        self.step, self.subject, self.records = step, what, records
        shown = ", ".join((names or [str(number) for number in records])[:8])
        more = f" and {len(records) - 8} more" if len(records) > 8 else ""
        super().__init__(
            f"{what} became NaN or infinite at step {step}; the update was not made; records: {shown}{more}",
            hint="lower training.optimizer.lr, or look at those records; the last good checkpoint is kept",
        )

    def named(self, ids: list[str]) -> NotFinite:
        """The same, with the records' names."""
        names = [ids[number] for number in self.records]
        return NotFinite(step=self.step, what=self.subject, records=self.records, names=names)
