"""The pipeline tried before compute is spent on it, on a copy of the network: the run itself is not touched."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from sonde import evaluation, loop, stages
from sonde.base.device import Precision, choose_device
from sonde.base.progress import NoProgress
from sonde.checks.subject import Subject
from sonde.contracts.batch import Batch
from sonde.contracts.finding import Finding, Verdict
from sonde.contracts.task import Task
from sonde.data.batches import Batches, in_order
from sonde.data.store import Encoded

# Examples that any sound pipeline learns by heart, and the seconds and steps that it gets for it.
FEW, SECONDS, STEPS = 100, 60.0, 1500
# Fewer steps than this, on a slow machine, prove nothing against a pipeline.
ENOUGH = 100
# Learned by heart: what is left of the loss's way from its start to its floor.
LEARNED, HARDLY = 0.15, 0.6
# The share of what a score could gain, where the loss does not end at zero.
GAINED = 0.2
# Steps of the range test, and the factors on the recipe's rate that it goes through.
RANGE_STEPS, LOWEST, HIGHEST = 60, 1e-3, 1e3
# So many times below where the loss falls fastest a rate wastes most of its steps.
FAR = 300.0
# A rate so many times above where the loss falls fastest learns by luck.
NEAR_END = 0.2
# Steps that the forecast is made of.
TIMED = 8


@dataclass(frozen=True)
class Flight:
    """The subject with a network of its own at step 0."""

    subject: Subject
    own: nn.Module | None = None

    def network(self) -> nn.Module:
        return stages.build_network(self.subject.recipe, self.subject.task, copy.deepcopy(self.own))

    def started(
        self, task: Task | None = None, train: Encoded | None = None, **training: object
    ) -> tuple[loop.State, loop.Plan, Batches]:
        """The run at step 0 in float32 with nothing compiled; `training` are settings to change."""
        recipe = self.subject.recipe
        values = {"precision": "fp32", "compile": False, "parallel": "ddp", **training}
        changed = recipe.model_copy(update={"training": recipe.training.model_copy(update=values)})
        return stages.prepare(
            changed, task or self.subject.task, self.network(), train or self.subject.sets["train"], None, NoProgress()
        )

    @cached_property
    def batch(self) -> Batch:
        """The first training batch as the network takes it, without augmentation."""
        task, train = self.subject.task, self.subject.sets["train"]
        size = min(self.subject.recipe.training.batch_size, len(train.examples))
        return in_order(task, train.examples, size, 0).to(choose_device())


def loss_at_the_start(flight: Flight) -> Iterator[Finding]:
    """The loss of the untrained network beside that of an answer which never looks at the inputs."""
    state, plan, _ = flight.started()
    task = flight.subject.task
    terms = loop.gradients(task, flight.batch, 0, state, plan)
    total = float(loop.sum_of(terms))
    finite = math.isfinite(total)
    shown = ", ".join(f"{name} {float(value):.4g}" for name, value in terms.items())
    expected = _expected(task, flight.subject.sets["train"])
    verdict: Verdict = "pass" if finite else "fail"
    beside = ""
    if finite and expected is not None:
        name, value = expected
        beside = f"; an answer that knows only the shares of the answers has {value:.4g}"
        found = float(terms[name]) if name in terms else total
        if found > 2 * value + 1:
            verdict = "warn"
        if found > 20 * value + 20:
            verdict = "fail"
    yield Finding(
        check="loss at the start",
        verdict=verdict,
        text=f"{shown}{beside}" if finite else f"{shown}: no finite number before the first step",
        fix="inputs that are not normalized, or a head that starts with large weights, begin so",
        numbers={"loss": total if finite else None, "expected": None if expected is None else expected[1]},
    )


def _expected(task: Task, train: Encoded) -> tuple[str, float] | None:
    """The entropy of the classes, where each example has one."""
    truth = train.examples.truth.get("class")
    if not isinstance(truth, Tensor) or truth.ndim != 1 or not len(truth):
        return None
    share = torch.bincount(truth).float() / len(truth)
    share = share[share > 0]
    return "cross_entropy", float(-(share * share.log()).sum())


def gradients(flight: Flight) -> Iterator[Finding]:
    """Every trainable parameter gets a finite gradient that is not zero throughout."""
    state, plan, batches = flight.started()
    reached: dict[str, bool] = {}
    matrices: set[str] = set()
    finite = True
    for number in range(3):
        batch, epoch = batches.at(number)
        loop.gradients(flight.subject.task, batch.to(plan.precision.device), epoch, state, plan)
        for name, parameter in state.network.named_parameters():
            if parameter.requires_grad:
                matrices |= {name} if parameter.ndim > 1 else set()
                there = parameter.grad is not None and bool(parameter.grad.abs().max() > 0)
                reached[name] = reached.get(name, False) or there
                finite &= parameter.grad is None or bool(parameter.grad.isfinite().all())
    dead = [name for name, there in reached.items() if not there]
    frozen = sum(not one.requires_grad for one in state.network.parameters())
    # A few may have none at first: behind a scale that starts at zero nothing arrives.
    share = len(dead) / max(1, len(reached))
    verdict: Verdict = "pass"
    if not finite or not reached or share >= 0.5:
        verdict = "fail"
    elif len(dead) == len(reached) or matrices & set(dead):
        # A scale or a bias alone may wait for examples that reach it: a level of a pyramid for large objects.
        verdict = "warn"
    what = f"{len(reached) - len(dead)} of {len(reached)} trainable tensors get a gradient"
    what += f"; {frozen} are frozen" if frozen else ""
    yield Finding(
        check="gradients",
        verdict=verdict,
        text=what
        + ("" if finite else "; some gradients are not finite")
        + (f"; none: {', '.join(dead[:3])}" if dead else ""),
        fix="a parameter without a gradient learns nothing: is its layer used, is something detached?",
        numbers={"without": dead[:50], "frozen": frozen},
    )


def independence(flight: Flight) -> Iterator[Finding]:
    """An example's answer does not hang on what else is in the batch; where answers are causal, not on the future."""
    task = flight.subject.task
    network = flight.network().eval()
    batch = flight.batch
    if len(batch) < 3:
        return
    count = min(len(batch), 8)
    parts = task.split(batch, count)
    with torch.inference_mode():
        together = task.target.eval_outputs(network, task.preprocess(parts[0]))
        alone = [task.target.eval_outputs(network, task.preprocess(one)) for one in task.split(parts[0], 1)]
    apart = _largest_difference(together, alone)
    yield Finding(
        check="independence",
        verdict="fail" if apart > 1e-3 else "pass",
        text=f"answers in a batch and alone differ by {apart:.2g} at most",
        fix="something mixes the examples of a batch: a normalization over the batch in evaluation, a wrong reshape",
        numbers={"difference": apart},
    )


def _largest_difference(together: object, alone: list) -> float:  # type: ignore[type-arg]
    assert isinstance(together, dict)
    apart = 0.0
    for name, column in together.items():
        if not isinstance(column, Tensor) or not column.is_floating_point():
            continue
        if any(not isinstance(one[name], Tensor) or one[name].shape[1:] != column.shape[1:] for one in alone):
            continue
        single = torch.cat([one[name] for one in alone])
        scale = max(1.0, float(column.abs().max()))
        apart = max(apart, float((single - column).abs().max()) / scale)
    return apart


def learns_by_heart(flight: Flight) -> Iterator[Finding]:
    """A sound pipeline learns 100 examples by heart, without augmentation and dropout (Karpathy 2019)."""
    train, recipe = flight.subject.sets["train"], flight.subject.recipe
    some = _some(train, min(FEW, len(train.examples)))
    task = flight.subject.task.without_augmentation()
    size = min(recipe.training.batch_size, len(some.examples))
    state, plan, batches = flight.started(
        task, some, batch_size=size, steps=STEPS, epochs=None, ema_decay=None, rollback=None, group_by_length=False
    )
    _quiet(state.network)
    state.schedule = lambda step: min(1.0, (step + 1) / 20)
    losses: list[float] = []
    started = time.perf_counter()
    try:
        for step in loop.train(task, batches, state, plan):
            losses.append(float(loop.sum_of(step.terms)))
            floor = _floor(task)
            recent = float(np.mean(losses[-5:]))
            if step.number >= 20 and recent - floor <= 0.5 * LEARNED * (losses[0] - floor):
                break
            if time.perf_counter() - started > SECONDS:
                break
    except loop.DivergedAtStep as error:
        yield Finding(
            check="learns by heart",
            verdict="fail",
            text=f"training on {len(some.examples)} examples diverged at step {error.step}",
            fix="lower training.optimizer.lr",
        )
        return
    if not task.target.loss_reaches_zero:
        yield _scores_by_heart(flight, task, some, state, len(losses))
        return
    floor = _floor(task)
    left = (min(float(np.mean(losses[-5:])), losses[-1]) - floor) / max(1e-9, losses[0] - floor)
    enough = len(losses) >= ENOUGH
    verdict: Verdict = "pass" if left <= LEARNED else "fail" if left >= HARDLY and enough else "warn"
    text = f"{len(some.examples)} examples: loss {losses[0]:.4g} to {losses[-1]:.4g} in {len(losses)} steps"
    if verdict == "fail":
        text += "; the fault is in the pipeline, not in the model's size or the amount of data"
    elif verdict == "warn":
        text += "; a longer try, or a higher rate, would tell"
    yield Finding(
        check="learns by heart",
        verdict=verdict,
        text=text,
        fix="look at inputs and truths side by side; try another rate; is anything frozen?",
        numbers={"start": losses[0], "end": losses[-1], "steps": len(losses), "left": left},
    )


def _scores_by_heart(flight: Flight, task: Task, some: Encoded, state: loop.State, steps: int) -> Finding:
    """By the score that counts, where the loss does not say how much is learned: before and after, on the examples."""
    exact = Precision(kind="fp32", device=choose_device())
    name, better = task.target.monitor
    before, after = (
        evaluation.values(task, evaluation.eval_outputs(task, network, some.examples, precision=exact), None)[name]
        for network in (flight.network(), state.network)
    )
    gained = after - before if better == "max" else before - after
    whole = 1 - before if better == "max" and name not in task.target.no_shares else abs(before)
    share = gained / max(1e-9, abs(whole))
    verdict: Verdict = "pass" if share >= GAINED else "fail" if share <= 0 and steps >= ENOUGH else "warn"
    return Finding(
        check="learns by heart",
        verdict=verdict,
        text=f"{len(some.examples)} examples: {name} {before:.4g} to {after:.4g} in {steps} steps",
        fix="look at inputs and truths side by side; try another rate; is anything frozen?",
        numbers={"start": before, "end": after, "steps": steps, "left": 1 - share},
    )


def _floor(task: Task) -> float:
    """The lowest loss that smoothed labels allow."""
    smoothing = float(getattr(task.target.config, "smoothing", 0.0) or 0.0)
    classes = len(getattr(task.target, "classes", ())) or 2
    if not smoothing:
        return 0.0
    right, wrong = 1 - smoothing + smoothing / classes, smoothing / classes
    return -(right * math.log(right) + (classes - 1) * wrong * math.log(wrong))


def learning_rate(flight: Flight) -> Iterator[Finding]:
    """The rates at which the loss falls fastest and at which it bursts (Smith 2017, "Cyclical Learning Rates")."""
    recipe, task = flight.subject.recipe, flight.subject.task
    # The first steps alone: a test that takes minutes would cost more than it saves.
    state, plan, batches = flight.started(steps=RANGE_STEPS, epochs=None, ema_decay=None, rollback=None)
    factors = np.geomspace(LOWEST, HIGHEST, RANGE_STEPS)
    state.schedule = lambda step: float(factors[min(step, RANGE_STEPS - 1)])
    losses: list[float] = []
    started = time.perf_counter()
    try:
        for step in loop.train(task, batches, state, plan):
            losses.append(float(loop.sum_of(step.terms)))
            if losses[-1] > 4 * losses[0] + 1 or time.perf_counter() - started > SECONDS:
                break
    except loop.DivergedAtStep:
        pass
    lr = float(getattr(recipe.training.optimizer, "lr", 1.0))
    burst = len(losses) < RANGE_STEPS
    highest = float(factors[len(losses) - 1]) if burst and losses else LOWEST if burst else math.inf
    peak = f"; the loss bursts at {highest * lr:.2g}" if burst else ""
    if len(losses) < 10:
        yield Finding(
            check="learning rate",
            verdict="fail",
            text=f"the recipe's is {lr:.2g}{peak}",
            fix=f"--set training.optimizer.lr={highest * lr / 30:.1g}",
            numbers={"lr": lr, "bursts_at": highest * lr},
        )
        return
    smooth = np.convolve(losses, np.ones(5) / 5, mode="valid")
    # The curve falls on by the steps made so far, so its lowest place is too far out: where half of the way is gone it
    # is steepest, and unlike single differences that place does not hang on which examples a batch has.
    lowest = int(np.argmin(smooth))
    halfway = int(np.argmax(smooth <= (smooth[0] + smooth[lowest]) / 2))
    steepest = float(factors[2 + halfway])
    verdict: Verdict = "pass"
    if highest <= 1:
        verdict = "fail"
    elif factors[lowest + 2] < 0.5 or steepest > FAR or steepest < NEAR_END:
        verdict = "warn"
    yield Finding(
        check="learning rate",
        verdict=verdict,
        text=f"the recipe's is {lr:.2g}; the loss falls fastest at {steepest * lr:.2g}, and no longer beyond "
        f"{factors[lowest + 2] * lr:.2g}{peak}",
        fix=f"--set training.optimizer.lr={steepest * lr / 3:.1g}",
        numbers={
            "lr": lr,
            "steepest": steepest * lr,
            "lowest": float(factors[lowest + 2]) * lr,
            "bursts_at": highest * lr if burst else None,
        },
    )


def forecast(flight: Flight) -> Iterator[Finding]:
    """How long the run will take, by a few of its steps, and how much of that waits for data."""
    state, plan, batches = flight.started()
    waited = 0.0
    at = batches.at

    def timed(step: int) -> object:
        nonlocal waited
        started = time.perf_counter()
        found = at(step)
        waited += time.perf_counter() - started
        return found

    batches.at = timed  # type: ignore[method-assign,assignment]
    steps = loop.train(flight.subject.task, batches, state, plan)
    started, made = time.perf_counter(), 0
    try:
        for _ in range(2):
            if next(steps, None) is None:
                return
        waited, started = 0.0, time.perf_counter()
        for _ in steps:
            made += 1
            if made >= TIMED or time.perf_counter() - started > 20:
                break
    except loop.DivergedAtStep:
        # Told of by the checks before this one; the steps until then have their time.
        pass
    if not made:
        return
    each = (time.perf_counter() - started) / made
    total = each * plan.steps
    yield Finding(
        check="forecast",
        verdict="pass",
        text=f"{plan.steps:,} steps of {1000 * each:.3g} ms: about {_duration(total)} in float32, validation not "
        f"counted; {waited / made / each:.0%} of a step waits for data",
        numbers={"steps": plan.steps, "seconds_a_step": each, "seconds": total, "waiting": waited / made / each},
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _some(train: Encoded, count: int) -> Encoded:
    chosen = torch.from_numpy(np.unique(np.linspace(0, len(train.examples) - 1, count).astype(np.int64)))
    return Encoded(
        examples=train.examples.take(chosen),
        ids=[train.ids[index] for index in chosen.tolist()],
        unreadable={},
        unseen={},
        count=len(chosen),
    )


def _quiet(network: nn.Module) -> None:
    """Nothing is dropped."""
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0  # type: ignore[assignment]
