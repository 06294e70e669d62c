"""THE training loop: forward, loss, backward, update. It knows nothing of inputs, targets or networks.

`train` is a generator of optimizer steps. Logging, evaluating, saving and stopping are ordinary code around it, in
`training/trainer.py`. This is the only file that calls `backward()` or `optimizer.step()`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from sonde.base import dist
from sonde.base.device import Precision, out_of_memory
from sonde.base.errors import Diverged
from sonde.base.hashing import GOLDEN
from sonde.base.rng import BatchRng, key
from sonde.contracts.batch import Batch
from sonde.contracts.columns import Tensors
from sonde.contracts.target import PairwiseTarget
from sonde.contracts.task import Task
from sonde.data.batches import Batches
from sonde.networks import Network

# How fast the average that spikes are measured against follows the loss, and after how many steps it is relied on.
EMA_RATE = 0.05
MIN_STEPS = 20
# Keeps the seeds of micro-batches apart, as GOLDEN those of steps: a multiplier of SplitMix64 (Steele et al. 2014).
SILVER = 0xBF58476D1CE4E5B9


class WeightAverage(Protocol):
    """An average of the weights that follows every update."""

    weights: dict[str, Tensor]

    def update(self, network: nn.Module, step: int) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What does not change while training.

    `spike`: a loss so many times its moving average ends the loop, None never. `read_every_step`: the host looks at
    every step whether loss and gradient are finite, which costs a CPU nothing; an accelerator would wait for it, so
    there the host looks in `check` only, and the device makes no update from the first bad step on.
    """

    steps: int
    seed: int
    precision: Precision
    max_grad_norm: float | None = None
    spike: float | None = None
    read_every_step: bool = True

    def in_format(self, precision: Precision) -> Plan:
        return dataclasses.replace(self, precision=precision)


@dataclass(kw_only=True)
class Health:
    """Whether training goes well, as 0-d tensors on the device, so that following it waits for nothing."""

    # 1 from the first bad step on: fused optimizers then leave weights and state as they are.
    stopped: Tensor
    # That step, counted from 0 (-1: none), and whether its loss only shot up, though it was a finite number.
    bad_step: Tensor
    spiked: Tensor
    # The loss of that step, and the moving average of the loss before it; NaN at first.
    loss: Tensor
    loss_ema: Tensor

    @classmethod
    def of(cls, device: torch.device, loss_ema: float | None = None) -> Health:
        return cls(
            stopped=torch.zeros((), device=device),
            bad_step=torch.full((), -1, dtype=torch.int64, device=device),
            spiked=torch.zeros((), dtype=torch.bool, device=device),
            loss=torch.zeros((), device=device),
            loss_ema=torch.full((), math.nan if loss_ema is None else loss_ema, device=device),
        )

    def observe(self, step: int, loss: Tensor, norm: Tensor, spike: float | None) -> None:
        """Take note of a step's loss and gradient norm, before its update."""
        loss = loss.to(self.loss_ema.dtype)
        bad = (loss + norm).isfinite().logical_not_()
        if spike is not None:
            if step >= MIN_STEPS:
                spiked = loss > spike * self.loss_ema
                self.spiked = torch.where(self.stopped > 0, self.spiked, spiked & ~bad)
                bad = bad | spiked
            known = self.loss_ema.isnan()
            followed = torch.where(known, loss, self.loss_ema + EMA_RATE * (loss - self.loss_ema))
            self.loss_ema = torch.where(bad, self.loss_ema, followed)
        first = bad & (self.stopped == 0)
        self.bad_step = torch.where(first, step, self.bad_step)
        self.loss = torch.where(first, loss, self.loss)
        self.stopped = torch.maximum(self.stopped, bad.float())


@dataclass(kw_only=True)
class State:
    """The one mutable object of a run: everything that a checkpoint holds."""

    network: nn.Module
    optimizers: list[torch.optim.Optimizer]
    # The factor on the learning rate of a step, counted from 0.
    schedule: Callable[[int], float] = field(default=lambda step: 1.0)
    ema: WeightAverage | None = None
    step: int = 0
    micro_batch: int = 1 << 62
    # Of the monitored validation score: that of the kept weights, its step, and since when it has not risen.
    best: float | None = None
    best_step: int = 0
    evals_since_best: int = 0
    # The highest score so far, which is not that of `best` where a near tie went by another score: that one's value.
    best_peak: float | None = None
    best_tie: float | None = None
    # The moving average of the loss, and the factor on the learning rate that rolling back has left.
    loss_ema: float | None = None
    lr_scale: float = 1.0
    rolled_back: int = 0
    # What is called in training: the network, or what parallelizes it over several processes.
    parallel_network: nn.Module = field(default=None)  # type: ignore[assignment]
    parameters: list[nn.Parameter] = field(init=False)
    health: Health | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.parallel_network is None:
            self.parallel_network = self.network
        self.parameters = [one for one in self.network.parameters() if one.requires_grad]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimizer step that was made. The tensors are 0-d and on the device: reading them waits for it."""

    number: int
    epoch: int
    terms: Tensors
    norm: Tensor
    lr: float
    size: int


class DivergedAtStep(Diverged):
    """Training diverged at a step; `records` are positions in the training split, which only the run can name.

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

    def named(self, ids: list[str]) -> DivergedAtStep:
        """The same, with the records' names."""
        names = [ids[number] for number in self.records]
        return DivergedAtStep(step=self.step, what=self.subject, records=self.records, names=names)


def train(task: Task, batches: Batches, state: State, plan: Plan) -> Iterator[Step]:
    """Make the steps from `state.step` to `plan.steps`, yielding after each.

    The gradient is that of the mean loss over the whole batch: losses are sums, each term divided by its count over all
    micro-batches and processes, so neither changes anything but the memory that is needed.

    Raises:
        DivergedAtStep: a loss or a gradient is not a finite number, or the loss shot up; the update was not made.
            Without `plan.read_every_step` it is `check` that raises.
    """
    network, device = state.network, plan.precision.device
    state.health = health = Health.of(device, state.loss_ema)
    while state.step < plan.steps:
        if not network.training:
            network.train()
        batch, epoch = batches.at(state.step)
        batch = batch.to(device)
        terms = gradients(task, batch, epoch, state, plan)
        norm = _gradient_norm(state.parameters)
        loss = sum_of(terms)
        if not plan.read_every_step:
            health.observe(state.step, loss, norm, plan.spike)
        elif plan.spike is not None or not math.isfinite(loss.item() + norm.item()):
            health.observe(state.step, loss, norm, plan.spike)
            check(task, batches, state, plan)
        lr = state.schedule(state.step) * state.lr_scale
        _update(state, plan, norm, lr)
        if state.ema is not None:
            state.ema.update(network, state.step)
        state.step += 1
        yield Step(number=state.step, epoch=epoch, terms=terms, norm=norm, lr=lr, size=len(batch))


def check(task: Task, batches: Batches, state: State, plan: Plan) -> None:
    """Read what the device has seen; call it before anything counts on the state.

    Raises:
        DivergedAtStep: some step since the last look was bad. `state.step` is then the number of steps before it, and
            weights and optimizers are as they were then.
    """
    health = state.health
    if health is None:
        return
    if not health.stopped.item():
        state.loss_ema = None if plan.spike is None else health.loss_ema.item()
        return
    state.step = int(health.bad_step.item())
    batch, epoch = batches.at(state.step)
    batch = batch.to(plan.precision.device)
    if health.spiked.item():
        raise DivergedAtStep(
            step=state.step + 1,
            what=f"the loss shot up to {health.loss.item():.4g}, more than {plan.spike:g} times its moving average of "
            f"{health.loss_ema.item():.4g},",
            records=_of_all_ranks(batch.records_B.tolist()),
        )
    raise _not_finite(task, batch, epoch, state, plan)


def gradients(task: Task, batch: Batch, epoch: int, state: State, plan: Plan) -> Tensors:
    """Put the gradient of the batch's mean loss into the parameters; give the mean of each term.

    When memory runs out the micro-batch is halved and the batch begun again: the gradient stays the same.
    """
    while True:
        try:
            for parameter in state.parameters:
                parameter.grad = None
            counts = {name: dist.all_reduce_sum(count) for name, count in task.target.counts(batch).items()}
            parts = task.split(batch, state.micro_batch)
            pairwise = isinstance(task.target, PairwiseTarget) and (len(parts) > 1 or dist.world_size() > 1)
            totals = (_pairwise if pairwise else _additive)(task, parts, counts, epoch, state, plan)
            return {name: total / counts[name] for name, total in totals.items()}
        except (torch.OutOfMemoryError, RuntimeError) as error:
            size = min(state.micro_batch, len(batch))
            # Alone a process can begin again; the others of a job are in the middle of a sum with it.
            if not out_of_memory(error) or size == 1 or dist.world_size() > 1:
                raise
            state.micro_batch = (size + 1) // 2


def _additive(task: Task, parts: list[Batch], counts: Tensors, epoch: int, state: State, plan: Plan) -> Tensors:
    """Backward of a loss that is a sum over examples, part by part; the sum of each term over all processes."""
    totals: Tensors = {}
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        with plan.precision.matmul_precision(), dist.gradient_sync(state.parallel_network, last=last):
            _reseed(plan, state.step, number)
            terms = _loss(task, part, epoch, state, plan)
            _backward(terms, counts)
        for name, value in terms.items():
            totals[name] = totals[name] + value.detach() if name in totals else value.detach()
    return {name: dist.all_reduce_sum(total) for name, total in totals.items()}


def _pairwise(task: Task, parts: list[Batch], counts: Tensors, epoch: int, state: State, plan: Plan) -> Tensors:
    """Backward of a loss over pairs of examples (Gao et al. 2021): all parts are embedded without a gradient and
    compared; then each is embedded again, and the gradient of its embeddings sent back through the network."""
    held: list[Tensors] = []
    buffers = [(buffer, buffer.clone()) for buffer in state.network.buffers()]
    with torch.no_grad(), plan.precision.matmul_precision():
        for number, part in enumerate(parts):
            _reseed(plan, state.step, number)
            held.append(_embed(task, part, epoch, state, plan))
        # Running statistics follow each part once, as it is embedded for good.
        for buffer, before in buffers:
            buffer.copy_(before)
    whole = {name: dist.concatenate(torch.cat([each[name] for each in held])) for name in held[0]}
    leaves = {name: value.detach().requires_grad_(value.is_floating_point()) for name, value in whole.items()}
    with plan.precision.matmul_precision():
        terms = _target(task).compare(leaves)
        _backward(terms, counts)
    start = dist.rank() * sum(map(len, parts))
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        with plan.precision.matmul_precision(), dist.gradient_sync(state.parallel_network, last=last):
            _reseed(plan, state.step, number)
            embedded = _embed(task, part, epoch, state, plan)
            wanted = [name for name, value in embedded.items() if value.requires_grad]
            torch.autograd.backward(
                [embedded[name] for name in wanted], [_part_of(leaves[name], start, len(part)) for name in wanted]
            )
        start += len(part)
    return {name: value.detach() for name, value in terms.items()}


def _backward(terms: Tensors, counts: Tensors) -> None:
    """The gradient of the mean of each term. DDP and FSDP give the mean over the processes, what is wanted is the sum:
    hence the factor."""
    world = dist.world_size()
    wanted = [name for name, value in terms.items() if value.requires_grad]
    torch.autograd.backward(
        [terms[name] for name in wanted],
        [(counts[name] / world if world > 1 else counts[name]).reciprocal() for name in wanted],
    )


def _part_of(leaf: Tensor, start: int, count: int) -> Tensor:
    if leaf.grad is None:
        return torch.zeros_like(leaf[start : start + count])
    return leaf.grad[start : start + count]


def _target(task: Task) -> PairwiseTarget:
    assert isinstance(task.target, PairwiseTarget)
    return task.target


def sum_of(terms: Tensors) -> Tensor:
    first, *others = terms.values()
    return sum(others, start=first)


def _reseed(plan: Plan, step: int, part: int) -> None:
    """Seed the generator that layers draw from (dropout and the like): a function of (seed, step, micro-batch).

    The CPU's generator takes the low 32 bits of a seed only: all of step and part is in them.

    `torch.manual_seed` seeds every device that there could be: for one that is not there it writes down the call
    stack, which takes 0.1 to 1 ms.
    """
    seed = (_stream(plan.seed, dist.rank()) + step * GOLDEN + part * SILVER) & ((1 << 63) - 1)
    torch.default_generator.manual_seed(seed)
    if plan.precision.device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif plan.precision.device.type == "mps":
        torch.mps.manual_seed(seed)


@functools.cache
def _stream(seed: int, rank: int) -> int:
    return key(seed, "layers", rank)


def _gradient_norm(parameters: list[nn.Parameter]) -> Tensor:
    """The norm of the whole gradient, 0-d."""
    gradients = [one.grad for one in parameters if one.grad is not None]
    return dist.full_tensor(torch.nn.utils.get_total_norm(gradients))


def _update(state: State, plan: Plan, norm: Tensor, lr: float) -> None:
    """One step of every optimizer at `lr` times its own rate, with a gradient of at most `plan.max_grad_norm`.

    A group that "starts" after a share of the training has a rate of zero before.
    """
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            begun = state.step >= group.get("starts", 0.0) * plan.steps
            group["lr"] = group["initial_lr"] * lr if begun else 0.0
    if plan.max_grad_norm is not None and not (plan.read_every_step and norm.item() <= plan.max_grad_norm):
        torch.nn.utils.clip_grads_with_norm_(state.parameters, plan.max_grad_norm, norm)
    for optimizer in state.optimizers:
        if not plan.read_every_step:
            # As torch.amp.GradScaler tells fused optimizers: 1 makes no update.
            assert state.health is not None
            optimizer.found_inf = state.health.stopped  # type: ignore[attr-defined]
        optimizer.step()


def _prepared(task: Task, batch: Batch, epoch: int, state: State, plan: Plan) -> tuple[Batch, BatchRng]:
    rng = BatchRng(seed=plan.seed, epoch=epoch, records_B=batch.records_B, progress=state.step / plan.steps)
    return task.preprocess(task.augment(batch, rng)), rng


def _loss(task: Task, batch: Batch, epoch: int, state: State, plan: Plan) -> Tensors:
    """The loss terms of a batch, as sums."""
    batch, rng = _prepared(task, batch, epoch, state, plan)
    members = _members(state.network)
    with plan.precision.forward():
        terms = task.target.loss(state.parallel_network, batch.repeated(members), rng)
    return terms if members == 1 else {name: value / members for name, value in terms.items()}


def _members(network: nn.Module) -> int:
    """How many networks it is in one: the loss is their mean."""
    return network.members if isinstance(network, Network) else 1


def _embed(task: Task, batch: Batch, epoch: int, state: State, plan: Plan) -> Tensors:
    batch, rng = _prepared(task, batch, epoch, state, plan)
    with plan.precision.forward():
        return _target(task).embed(state.parallel_network, batch, rng)


def _not_finite(task: Task, batch: Batch, epoch: int, state: State, plan: Plan) -> DivergedAtStep:
    """Which term of which records is to blame: the forward pass is done again, whole, then one example at a time."""
    bad_terms: list[str] = []
    bad_records: list[int] = []
    with torch.no_grad(), plan.precision.matmul_precision():
        _reseed(plan, state.step, 0)
        for part in task.split(batch, state.micro_batch):
            terms = _loss(task, part, epoch, state, plan)
            bad_terms += [name for name, value in terms.items() if not math.isfinite(value.item())]
        # One example has no batch statistics.
        state.network.eval()
        for one in task.split(batch, 1):
            sums = _loss(task, one, epoch, state, plan)
            if not all(math.isfinite(value.item()) for value in sums.values()):
                bad_records += one.records_B.tolist()
        state.network.train()
    what = f"the loss term {bad_terms[0]!r}" if bad_terms else "the gradient"
    return DivergedAtStep(
        step=state.step + 1,
        what=f"{what} became NaN or infinite",
        records=_of_all_ranks(bad_records) or _of_all_ranks(batch.records_B.tolist()),
    )


def _of_all_ranks(records: list[int]) -> list[int]:
    return [number for each in dist.all_gather(records) for number in each]
