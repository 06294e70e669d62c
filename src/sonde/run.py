"""The whole program on one page: recipe -> data -> task -> network -> loop -> scores -> artifact."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from sonde import __version__, artifact, checkpoint, evaluate, loop, networks, optim, parallel, probe
from sonde.base import dist, files, lookup, memory, openmp, signals
from sonde.base.config import Config, kind_of
from sonde.base.device import Precision, choose_device
from sonde.base.errors import Diverged, Interrupted, UserError, unknown
from sonde.base.progress import Progress, Quiet
from sonde.base.rng import key
from sonde.data.batches import Batches
from sonde.data.load import Dataset, load
from sonde.data.store import Encoded, encode
from sonde.folder import Log, RunFolder
from sonde.recipe import Recipe
from sonde.records import Records
from sonde.task import Input, Part, Target, Task

Scores = dict[str, dict[str, evaluate.Score]]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run: its folder, its artifact's folder, and the scores of each split."""

    folder: Path
    artifact: Path
    scores: Scores
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "run": str(self.folder),
            "artifact": str(self.artifact),
            "scores": evaluate.to_json(self.scores),
            "seconds": round(self.seconds, 3),
        }

    def to_text(self) -> str:
        lines = [f"done in {self.seconds:.0f} s"]
        for split, found in self.scores.items():
            lines.append(f"{split} ({next(iter(found.values())).count} examples)")
            lines += [f"  {name:<18} {score}" for name, score in found.items() if "/" not in name]
        return "\n".join([*lines, "made", f"  run        {self.folder}", f"  artifact   {self.artifact}"])


def fit(
    recipe: Recipe,
    *,
    out: str | Path,
    resume: bool = False,
    network: nn.Module | None = None,
    progress: Progress | None = None,
) -> Run:
    """Train what a recipe says, into the new folder `out`; with `resume`, go on where that run stopped.

    `network` replaces the recipe's by any module that takes the input's tensor and gives what the target asks.
    Started by torchrun, the processes train one network together and give what one process would.

    Raises:
        UserError: recipe, data or folder are wrong; nothing was written.
        Diverged: a loss or a gradient was not finite. Interrupted: the user stopped the run, its state is saved.
    """
    started = time.perf_counter()
    progress = progress or Quiet()
    with dist.joined(), openmp.considerate():
        folder = RunFolder.open(Path(out), resume=resume)
        try:
            data = load_data(recipe)
            task = learn(recipe, data.splits["train"])
            net = build(recipe, task, network)
            sets = {split: _encode(recipe, task, split, data, folder, progress) for split in data.splits}
            _check_monitor(recipe, task, net, sets)
            parallel.share(min(recipe.training.batch_size, len(sets["train"].examples)))
            folder.begin(recipe.to_toml(), data.snapshot)
            state, plan, batches = prepare(recipe, task, net, sets["train"], folder.choice, progress)
            position = checkpoint.restore(folder.checkpoints, state, progress.say)
            with Log(folder.log, position or 0) as log:
                if position is None:
                    _log_start(log, sets, plan)
                Training(recipe, task, sets, state, plan, batches, folder, log, progress).go()
            _use_best(recipe, folder, state)
            scores = _score(recipe, task, state.network, sets, progress)
            weights = checkpoint.weights_of(state.network)
            if dist.is_main():
                files.write_json(folder.scores, evaluate.to_json(scores))
                bodies = recipe.network if network is None else None
                artifact.write(folder.model, task, bodies, weights, _card(recipe, data, scores, state))
            dist.wait()
        finally:
            folder.close(keep=resume)
            memory.give_back()
    return Run(folder=folder.path, artifact=folder.model, scores=scores, seconds=time.perf_counter() - started)


def load_data(recipe: Recipe) -> Dataset:
    """The records that a recipe names, split and fingerprinted."""
    target = _kind("targets", recipe.target, Target)
    parts: list[tuple[Config, type[Part]]] = [(recipe.target, target)]
    parts += [(config, _kind("inputs", config, Input)) for config in recipe.inputs.values()]
    used = [name for config, kind in parts for name in kind.fields(config)]
    answers = set(target.fields(recipe.target)) & set(used[len(target.fields(recipe.target)) :])
    if answers:
        raise UserError(
            f"the answer is among the inputs: {', '.join(sorted(answers))}",
            expected="inputs that are known before the answer is",
            hint="take it out of the input's fields",
        )
    files_in = [name for config, kind in parts if kind.reads_file for name in kind.fields(config)]
    label = next(iter(target.fields(recipe.target)), None)
    return load(recipe.data, recipe.source, files=files_in, used=used, label=label, seed=recipe.training.seed)


def learn(recipe: Recipe, train: Records) -> Task:
    """Inputs and target, fitted on the training split only."""
    inputs = {name: _kind("inputs", config, Input).fit(config, train) for name, config in recipe.inputs.items()}
    return Task(inputs=inputs, target=_kind("targets", recipe.target, Target).fit(recipe.target, train, inputs))


def build(recipe: Recipe, task: Task, own: nn.Module | None = None) -> nn.Module:
    """The network with its first weights, which depend on the seed alone."""
    torch.manual_seed(key(recipe.training.seed, "weights"))
    network = networks.wrap(own, task) if own else networks.build(recipe.network, task)
    return network.to(choose_device())


def prepare(
    recipe: Recipe, task: Task, network: nn.Module, train: Encoded, choice: Path | None, progress: Progress
) -> tuple[loop.State, loop.Plan, Batches]:
    """What the loop needs: a state at step 0, the plan, and the batches.

    The number format is chosen before the first step, and kept in the file `choice` for a resume.
    """
    memory.keep()
    training = recipe.training
    batches = Batches(
        task,
        train.examples,
        size=training.batch_size,
        seed=training.seed,
        group_by_length=training.group_by_length,
        rank=dist.rank(),
        world=dist.size(),
    )
    micro_batch = min(training.micro_batch or batches.size, parallel.share(batches.size))
    plan = loop.Plan(
        steps=training.steps or max(1, round((training.epochs or 1) * batches.per_epoch)),
        seed=training.seed,
        schedule=training.schedule,
        precision=Precision(kind="fp32", device=choose_device()),
        clip=training.clip,
        spike=training.rollback.spike if training.rollback else None,
    )
    case = probe.Case(task=task, network=network, batches=batches, plan=plan, micro_batch=micro_batch)
    chosen = probe.settle(case, training.precision, training.compile, choice)
    progress.say(str(chosen))
    plan = plan.in_format(Precision(kind=chosen.format, device=plan.precision.device))
    replica = parallel.spread(network, training.parallel)
    state = loop.State(
        network=network,
        replica=probe.compiled(replica) if chosen.compiled else replica,
        optimizers=optim.build(training.optimizer, network, plan.precision.products),
        average=optim.Average(network, training.average) if training.average else None,
        plateau=optim.Plateau(training.schedule) if training.schedule.kind == "plateau" else None,
        micro_batch=micro_batch,
    )
    return state, plan, batches


@dataclass(frozen=True)
class Training:
    """The loop, and around it what happens between steps: log, validate, save, stop, go back."""

    recipe: Recipe
    task: Task
    sets: dict[str, Encoded]
    state: loop.State
    plan: loop.Plan
    batches: Batches
    folder: RunFolder
    log: Log
    progress: Progress

    def go(self) -> None:
        """Train to the end, or to where validation has stopped improving."""
        self.progress.begin("train", self.plan.steps)
        if self.recipe.training.rollback and self.state.step == 0:
            self._save()
        with signals.stoppable() as stop:
            while not self._exhausted():
                try:
                    self._steps(stop)
                    return
                except loop.Astray as error:
                    named = error.named(self.sets["train"].ids)
                    if not self._go_back(named):
                        raise named from None
        self.progress.say(f"stopped early at step {self.state.step}: no better for {self.state.waited} validations")

    def _steps(self, stop: signals.Stop) -> None:
        training, state, steps = self.recipe.training, self.state, self.plan.steps
        every = training.evaluate_every or self.batches.per_epoch
        log_every = training.log_every or max(1, steps // 500)
        micro_batch = state.micro_batch
        for step in loop.train(self.task, self.batches, state, self.plan):
            if step.number % log_every == 0 or step.number == steps:
                self.progress.at(step.number, self.log.step(step))
            if state.micro_batch < micro_batch:
                micro_batch = state.micro_batch
                self.log.write({"step": step.number, "micro_batch": micro_batch})
                self.progress.say(f"step {step.number}: out of memory; going on with micro-batches of {micro_batch}")
            due = step.number % every == 0 or step.number == steps
            if due and "validation" in self.sets:
                self._validate()
            stopping = dist.any_of(bool(stop))
            if due or stopping:
                self._save()
            if stopping:
                raise Interrupted(
                    f"stopped at step {state.step} of {steps}; the state is saved in {self.folder.path}",
                    hint="the same command with --resume goes on",
                )
            if self._exhausted():
                return

    def _exhausted(self) -> bool:
        """Whether validation has not improved for so long that training stops early."""
        patience = self.recipe.training.patience
        return patience is not None and self.state.waited >= patience

    def _save(self) -> None:
        checkpoint.save(self.folder.checkpoints, self.state, self.log.position())

    def _go_back(self, error: loop.Astray) -> bool:
        """To the last checkpoint, to go on with a smaller rate; False if the recipe does not allow it (any more)."""
        rollback, state = self.recipe.training.rollback, self.state
        if rollback is None or state.rolled_back >= rollback.times:
            return False
        times = state.rolled_back + 1
        if checkpoint.restore(self.folder.checkpoints, state) is None:
            return False
        state.rolled_back, state.damping = times, rollback.factor**times
        said = f"{error.what.partition(';')[0]}; back to step {state.step}, on with {state.damping:g} times the rate"
        self.log.write({"step": state.step, "rolled_back": times, "from": error.step, "damping": state.damping})
        self.progress.say(said)
        self._save()
        return True

    def _validate(self) -> None:
        """Score the validation split, and note whether it is the best so far."""
        state, held_out = self.state, self.sets["validation"]
        if state.average:
            state.average.swap(state.network)
        columns = evaluate.measure(self.task, state.network, held_out.examples, precision=self.plan.precision)
        if state.average:
            state.average.swap(state.network)
        if not evaluate.is_sound(columns):
            raise loop.Astray(
                step=state.step, what="answers for the validation split became NaN or infinite", records=[]
            )
        found = evaluate.values(self.task, columns, held_out.weight)
        self.log.write({"step": state.step, "validation": {name: evaluate.finite(x) for name, x in found.items()}})
        monitor, better = self.task.target.best
        if self.recipe.training.monitor:
            monitor = self.recipe.training.monitor
            better = "min" if monitor.partition("/")[0] in self.task.target.lower_is_better else "max"
        value = found[monitor]
        # A score that is not defined (one class only) is no better than any.
        defined = math.isfinite(value)
        if state.plateau and defined:
            state.plateau.observe(value, better)
        state.waited += 1
        if defined and (state.best is None or (value > state.best if better == "max" else value < state.best)):
            state.best, state.best_step, state.waited = value, state.step, 0
            checkpoint.save_best(self.folder.checkpoints, state)
        best = " (best)" if state.waited == 0 else ""
        self.progress.say(f"step {state.step}: validation {monitor} {value:.4g}{best}")


def _encode(recipe: Recipe, task: Task, split: str, data: Dataset, folder: RunFolder, progress: Progress) -> Encoded:
    records = data.splits[split]
    progress.begin(f"encode {split}", len(records))
    encoded = encode(
        task,
        records,
        weight=recipe.data.weight,
        max_unreadable=recipe.data.max_unreadable,
        memory=recipe.data.memory * 2**30,
        cache=folder.cache / split,
        watch=progress.at,
    )
    for name, error in encoded.unreadable.items():
        progress.say(f"set aside {name}: {error}")
    return encoded


def _log_start(log: Log, sets: dict[str, Encoded], plan: loop.Plan) -> None:
    log.write({"version": __version__, "steps": plan.steps, "precision": plan.precision.kind})
    for split, each in sets.items():
        log.write({"split": split, "examples": len(each.examples), "set_aside": each.unreadable})


def _check_monitor(recipe: Recipe, task: Task, network: nn.Module, sets: dict[str, Encoded]) -> None:
    """That the score which the recipe wants to watch exists, found out on two examples."""
    monitor = recipe.training.monitor
    if monitor is None:
        return
    if "validation" not in sets:
        raise UserError("training.monitor needs a validation split", hint="data.split = { validation = 0.1 }")
    examples = sets["validation"].examples
    some = examples.take(torch.arange(min(2, len(examples))))
    precision = Precision(kind="fp32", device=choose_device())
    found = evaluate.values(task, evaluate.measure(task, network, some, precision=precision))
    if monitor not in found:
        raise unknown(monitor, found, what="training.monitor: the score")


def _use_best(recipe: Recipe, folder: RunFolder, state: loop.State) -> None:
    """Put the weights that become the artifact into the network."""
    best = recipe.training.keep == "best" and state.best_step > 0
    weights = checkpoint.weights(state)
    dist.wait()
    checkpoint.put_weights(state.network, checkpoint.read_best(folder.checkpoints, state) if best else weights)


def _score(recipe: Recipe, task: Task, network: nn.Module, sets: dict[str, Encoded], progress: Progress) -> Scores:
    """Every held-out split under the artifact's weights, in float32: what serving computes."""
    exact = Precision(kind="fp32", device=choose_device())
    scores: Scores = {}
    for split in ("validation", "test"):
        if split in sets:
            progress.begin(f"score {split}", len(sets[split].examples))
            columns = evaluate.measure(task, network, sets[split].examples, precision=exact, watch=progress.at)
            if not evaluate.is_sound(columns):
                raise Diverged(
                    f"the trained network's answers for the {split} split are NaN or infinite; no artifact was made",
                    hint="lower training.optimizer.lr",
                )
            scores[split] = evaluate.scores(task, columns, seed=recipe.training.seed, weight=sets[split].weight)
    return scores


def _card(recipe: Recipe, data: Dataset, scores: Scores, state: loop.State) -> dict[str, Any]:
    return {
        "sonde": __version__,
        "task": {"inputs": [kind_of(config) for config in recipe.inputs.values()], "target": kind_of(recipe.target)},
        "data": {"fingerprint": data.snapshot.fingerprint, "records": {k: len(v) for k, v in data.splits.items()}},
        "parameters": sum(one.numel() for one in state.network.parameters()),
        "weights_of_step": state.best_step or state.step,
        "scores": evaluate.to_json(scores),
        "recipe": recipe.to_toml(),
    }


Contract = TypeVar("Contract", Input, Target)


def _kind(room: str, config: Config, contract: type[Contract]) -> type[Contract]:
    return lookup.find(room, kind_of(config), contract)
