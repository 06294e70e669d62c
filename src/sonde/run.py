"""The whole program on one page: recipe -> data -> task -> network -> loop -> scores -> artifact."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from sonde import __version__, artifact, checkpoint, evaluate, loop, networks, optim
from sonde.base import files, lookup, signals
from sonde.base.config import Config, kind_of
from sonde.base.device import Precision, choose_device, choose_precision
from sonde.base.errors import Interrupted, UserError
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

    Raises:
        UserError: recipe, data or folder are wrong; nothing was written.
        Diverged: a loss or a gradient was not finite. Interrupted: the user stopped the run, its state is saved.
    """
    started = time.perf_counter()
    progress = progress or Quiet()
    folder = RunFolder.open(Path(out), resume=resume)
    try:
        data = load_data(recipe)
        task = learn(recipe, data.splits["train"])
        net = build(recipe, task, network)
        sets = {split: _encode(recipe, task, split, data, folder, progress) for split in data.splits}
        folder.begin(recipe.to_toml(), data.snapshot)
        state, plan, batches = prepare(recipe, task, net, sets["train"])
        with Log(folder.log, checkpoint.restore(folder.checkpoints, state) or 0) as log:
            if state.step == 0:
                _log_start(log, sets, plan)
            _train(recipe, task, sets, state, plan, batches, folder, log, progress)
        _use_best(recipe, folder, state)
        scores = _score(recipe, task, state.network, sets, progress)
        files.write_json(folder.scores, evaluate.to_json(scores))
        card = _card(recipe, data, scores, state)
        artifact.write(
            folder.model, task, recipe.network if network is None else None, state.network.state_dict(), card
        )
    finally:
        folder.close(keep=resume)
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


def prepare(recipe: Recipe, task: Task, network: nn.Module, train: Encoded) -> tuple[loop.State, loop.Plan, Batches]:
    """What the loop needs: a state at step 0, the plan, and the batches."""
    training = recipe.training
    grouped = training.group_by_length
    batches = Batches(task, train.examples, size=training.batch_size, seed=training.seed, group_by_length=grouped)
    plan = loop.Plan(
        steps=training.steps or max(1, round((training.epochs or 1) * batches.per_epoch)),
        seed=training.seed,
        schedule=training.schedule,
        precision=choose_precision(training.precision, choose_device()),
        clip=training.clip,
    )
    state = loop.State(
        network=network,
        optimizers=optim.build(training.optimizer, network),
        average=optim.Average(network, training.average) if training.average else None,
        plateau=optim.Plateau(training.schedule) if training.schedule.kind == "plateau" else None,
        micro_batch=training.micro_batch or batches.size,
    )
    return state, plan, batches


def _train(
    recipe: Recipe,
    task: Task,
    sets: dict[str, Encoded],
    state: loop.State,
    plan: loop.Plan,
    batches: Batches,
    folder: RunFolder,
    log: Log,
    progress: Progress,
) -> None:
    """The loop, and around it what happens between steps: log, validate, save, stop."""
    every = recipe.training.evaluate_every or batches.per_epoch
    log_every = recipe.training.log_every or max(1, plan.steps // 500)
    progress.begin("train", plan.steps)
    if _exhausted(recipe, state):
        return
    with signals.stoppable() as stop:
        for step in _named(loop.train(task, batches, state, plan), sets["train"]):
            if step.number % log_every == 0 or step.number == plan.steps:
                progress.at(step.number, log.step(step))
            due = step.number % every == 0 or step.number == plan.steps
            if due and "validation" in sets:
                progress.say(_validate(recipe, task, sets["validation"], state, plan, folder, log))
            if due or stop:
                checkpoint.save(folder.checkpoints, state, log.position())
            if stop:
                raise Interrupted(
                    f"stopped at step {state.step} of {plan.steps}; the state is saved in {folder.path}",
                    hint="the same command with --resume goes on",
                )
            if _exhausted(recipe, state):
                progress.say(f"stopped early at step {state.step}: no better for {state.waited} validations")
                return


def _exhausted(recipe: Recipe, state: loop.State) -> bool:
    """Whether validation has not improved for so long that training stops early."""
    return recipe.training.patience is not None and state.waited >= recipe.training.patience


def _named(steps: Iterator[loop.Step], train: Encoded) -> Iterator[loop.Step]:
    """The steps; a loss that is not finite names the records behind it."""
    try:
        yield from steps
    except loop.NotFinite as error:
        raise error.named(train.ids) from None


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


def _validate(
    recipe: Recipe, task: Task, held_out: Encoded, state: loop.State, plan: loop.Plan, folder: RunFolder, log: Log
) -> str:
    """Score the validation split, note whether it is the best so far, and give the line that people see."""
    if state.average:
        state.average.swap(state.network)
    columns = evaluate.measure(task, state.network, held_out.examples, precision=plan.precision)
    if state.average:
        state.average.swap(state.network)
    found = evaluate.values(task, columns, held_out.weight)
    log.write({"step": state.step, "validation": {name: evaluate.finite(value) for name, value in found.items()}})
    monitor, better = task.target.best
    if recipe.training.monitor:
        monitor = recipe.training.monitor
        better = "min" if monitor.partition("/")[0] in task.target.lower_is_better else "max"
    if monitor not in found:
        raise UserError(f"training.monitor = {monitor!r} is not a score", expected="one of: " + ", ".join(found))
    value = found[monitor]
    if state.plateau:
        state.plateau.observe(value, better)
    state.waited += 1
    if state.best is None or (value > state.best if better == "max" else value < state.best):
        state.best, state.best_step, state.waited = value, state.step, 0
        checkpoint.save_best(folder.checkpoints, state)
    return f"step {state.step}: validation {monitor} {value:.4g}" + (" (best)" if state.waited == 0 else "")


def _use_best(recipe: Recipe, folder: RunFolder, state: loop.State) -> None:
    """Put the weights that become the artifact into the network."""
    best = recipe.training.keep == "best" and state.best_step > 0
    state.network.load_state_dict(
        checkpoint.read_best(folder.checkpoints, state) if best else checkpoint.weights(state)
    )


def _score(recipe: Recipe, task: Task, network: nn.Module, sets: dict[str, Encoded], progress: Progress) -> Scores:
    """Every held-out split under the artifact's weights, in float32: what serving computes."""
    exact = Precision(kind="fp32", device=choose_device())
    scores: Scores = {}
    for split in ("validation", "test"):
        if split in sets:
            progress.begin(f"score {split}", len(sets[split].examples))
            columns = evaluate.measure(task, network, sets[split].examples, precision=exact, watch=progress.at)
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
