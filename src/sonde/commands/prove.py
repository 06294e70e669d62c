"""What sonde claims, shown on one run: each claim is tried on its data and network, and passes or fails with a figure.

A few steps and examples are enough: what is compared is exact, or equal up to the rounding of float32.
"""

from __future__ import annotations

import copy
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sonde import evaluation, loop, networks, stages
from sonde.artifact import Model
from sonde.artifact import load as load_artifact
from sonde.base import dist, files, tensors
from sonde.base.device import Precision, choose_device
from sonde.base.errors import SondeError, UserError
from sonde.base.progress import NoProgress, Progress
from sonde.contracts.backbone import BackboneConfig
from sonde.contracts.batch import Examples
from sonde.contracts.columns import EvalColumns
from sonde.contracts.records import Records
from sonde.contracts.task import Task
from sonde.data.batches import Batches
from sonde.data.load import Dataset
from sonde.data.snapshot import Snapshot
from sonde.data.store import Encoded, encode
from sonde.recipe import Recipe
from sonde.training import checkpoint
from sonde.training.run_folder import RunFolder

# How much of the run is done again: steps, and examples of each split.
STEPS = 8
EXAMPLES = 256
# float32 sums in another order: relative to the largest number where that is above one.
ROUNDING = 1e-5


@dataclass(frozen=True, kw_only=True)
class Line:
    """A claim. `passed` is None where it says nothing of this run; `difference` is the largest that was found."""

    claim: str
    passed: bool | None
    difference: float | None
    allowed: float | None
    note: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        if self.difference is None or self.allowed is None:
            figure = ""
        elif self.allowed == 0:
            figure = "bit for bit" if self.passed else f"largest difference {self.difference:.2g}"
        else:
            sign = "<=" if self.passed else ">"
            figure = f"largest difference {self.difference:.2g} {sign} {self.allowed:g}"
        word = {True: "pass", False: "FAIL", None: "none"}[self.passed]
        return f"{word}  {self.claim:<52}{figure:<38}{self.note}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Proof:
    """Every claim about a run."""

    run: Path
    lines: list[Line]

    @property
    def failed(self) -> list[str]:
        """The claims that do not hold."""
        return [line.claim for line in self.lines if line.passed is False]

    def to_json(self) -> dict[str, Any]:
        return {"run": str(self.run), "passed": not self.failed, "lines": [asdict(line) for line in self.lines]}

    def to_text(self) -> str:
        held = [line for line in self.lines if line.passed is not None]
        end = f"{len(held) - len(self.failed)} of {len(held)} claims hold"
        return "\n".join([f"proving {self.run}", *map(str, self.lines), end])


def prove(folder: str | Path, *, network: nn.Module | None = None, progress: Progress | None = None) -> Proof:
    """Try every claim on a finished run; `network` is needed for a run of someone's own module.

    Raises:
        UserError: the folder holds no finished run, or its data has changed or is gone.
    """
    case = Case.read(Path(folder), network)
    progress = progress or NoProgress()
    claims = (
        ("resumed = straight", _resumed),
        ("the same seed repeats", _repeated),
        ("another seed differs", _reseeded),
        ("scored again = scores.json", _scored),
        ("predicted from the artifact = evaluated in the run", _served),
        ("batched = single", _batched),
        ("accumulated = one big batch", _accumulated),
        ("packed = unpacked", _packed),
        ("two processes = one", _two_processes),
    )
    lines = []
    progress.begin("prove", len(claims))
    for number, (claim, attempt) in enumerate(claims, start=1):
        started = time.perf_counter()
        found = attempt(case)
        line = Line(claim=claim, seconds=round(time.perf_counter() - started, 3), **found)
        lines.append(line)
        progress.at(number, claim)
    return Proof(run=case.folder.path, lines=lines)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A finished run, ready to be done again in small."""

    folder: RunFolder
    recipe: Recipe
    data: Dataset
    task: Task
    train: Encoded
    held_out: Records
    split: str
    model: Model
    own: nn.Module | None

    @classmethod
    def read(cls, path: Path, own: nn.Module | None) -> Case:
        folder = RunFolder(path)
        if not folder.recipe.is_file():
            raise UserError(f"{path} holds no run", expected="the --out of a finished `sonde fit`")
        if not folder.scores.is_file() or not (files.current_folder(folder.model) / "MANIFEST.json").is_file():
            raise UserError(f"the run in {path} is not finished", hint=f"sonde fit ... --out {path} --resume")
        recipe = Recipe.read(folder.recipe)
        if recipe.classical is not None:
            raise UserError(
                f"the run in {path} is a classical model, and what is proved is claimed of training a network",
                expected="a run of a [network]",
            )
        data = stages.load_data(recipe)
        before = Snapshot.from_json(files.read_json(folder.snapshot))
        if before.fingerprint != data.snapshot.fingerprint:
            raise UserError(f"the data has changed since the run in {path} was made", expected="the same records")
        task = stages.fit_task(recipe, data.splits["train"], own)
        some = min(len(data.splits["train"]), max(EXAMPLES, 2 * recipe.training.batch_size))
        split = next((each for each in ("test", "validation") if each in data.splits), "train")
        return cls(
            folder=folder,
            recipe=recipe,
            data=data,
            task=task,
            train=_encode(recipe, task, data.splits["train"].take(np.arange(some))),
            held_out=data.splits[split].take(np.arange(min(len(data.splits[split]), EXAMPLES))),
            split=split,
            model=load_artifact(folder.model, network=copy.deepcopy(own)),
            own=own,
        )

    def start(self, seed: int | None = None) -> tuple[loop.State, loop.Plan, Batches]:
        """The run at step 0, in its own number format, as long as the whole and on a part of the data."""
        recipe = self.recipe
        if seed is not None:
            recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"seed": seed})})
        network = stages.build_network(recipe, self.task, copy.deepcopy(self.own))
        return stages.prepare(recipe, self.task, network, self.train, self.folder.precision_file, NoProgress())

    def trained(self, seed: int | None = None) -> loop.State:
        """The state after a few steps."""
        return self.go_on(*self.start(seed), STEPS)

    def go_on(self, state: loop.State, plan: loop.Plan, batches: Batches, until: int) -> loop.State:
        for step in loop.train(self.task, batches, state, plan):
            if step.number >= until:
                break
        return state

    def gradients(self, state: loop.State, micro_batch: int | None = None) -> dict[str, Tensor]:
        """The gradient of one batch in float32, nothing drawn by layers, batch norm at rest; "loss" beside it."""
        _, plan, batches = self.start()
        batch, epoch = batches.at(0)
        exact = plan.in_format(Precision(kind="fp32", device=choose_device()))
        state.micro_batch = micro_batch or len(batch)
        _still(state.network)
        terms = loop.gradients(self.task, batch.to(exact.precision.device), epoch, state, exact)
        held = {name: one.grad.clone() for name, one in state.network.named_parameters() if one.grad is not None}
        return {"loss": torch.stack([*terms.values()]).sum(), **held}


def _encode(recipe: Recipe, task: Task, records: Records) -> Encoded:
    return encode(task, records, weight=recipe.data.weight, group=recipe.data.group_field)


def _still(network: nn.Module) -> None:
    """No layer draws numbers or follows statistics; recurrent layers train on, as their fused kernels insist on it."""
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.RNNBase):
            module.dropout = 0.0
            module.train()


def _found(difference: float, allowed: float, note: str = "") -> dict[str, Any]:
    # Not "difference > allowed": a difference that is not a number fails.
    return {"difference": difference, "allowed": allowed, "passed": bool(difference <= allowed), "note": note}


def _empty(note: str) -> dict[str, Any]:
    return {"difference": None, "allowed": None, "passed": None, "note": note}


def _resumed(case: Case) -> dict[str, Any]:
    """Straight on, and from a checkpoint half way in a new network: weights, optimizer, average, all that is kept."""
    with tempfile.TemporaryDirectory() as place:
        kept = Path(place)
        state = case.go_on(*case.start(), STEPS // 2)
        checkpoint.save(kept, state, 0)
        state, plan, batches = case.start()
        checkpoint.restore(kept, state)
        resumed = case.go_on(state, plan, batches, STEPS)
    return _found(
        _apart(checkpoint.tensors_of(case.trained()), checkpoint.tensors_of(resumed)), 0.0, f"{resumed.step} steps"
    )


def _repeated(case: Case) -> dict[str, Any]:
    return _found(
        _apart(checkpoint.tensors_of(case.trained()), checkpoint.tensors_of(case.trained())), 0.0, f"{STEPS} steps"
    )


def _reseeded(case: Case) -> dict[str, Any]:
    one, other = case.trained(), case.trained(case.recipe.training.seed + 1)
    difference = _apart(checkpoint.weights_of(one.network), checkpoint.weights_of(other.network))
    return {**_empty(f"weights differ by {difference:.2g} after {STEPS} steps"), "passed": difference > 0}


def _scored(case: Case) -> dict[str, Any]:
    """The whole held-out split through the artifact: the scores that the run wrote down."""
    if case.split == "train":
        return _empty("the run held nothing out")
    encoded = _encode(case.recipe, case.model.task, case.data.splits[case.split])
    exact = Precision(kind="fp32", device=case.model.device)
    columns: EvalColumns = evaluation.eval_outputs(
        case.model.task, case.model.network, encoded.examples, precision=exact
    )
    if case.split == "validation":
        # Its records were calibrated without themselves.
        plain = Task(inputs=case.model.task.inputs, target=case.model.task.target.uncalibrated())
        raw = evaluation.eval_outputs(plain, case.model.network, encoded.examples, precision=exact)
        columns = stages.calibrate_by(case.recipe, plain.target, raw, encoded).columns
    found = evaluation.values(case.model.task, dict(columns), encoded.weight)
    written = {name: score["value"] for name, score in files.read_json(case.folder.scores)[case.split].items()}
    again = {name: evaluation.finite(value) for name, value in found.items()}
    return _found(_unlike(written, again), ROUNDING, f"{len(encoded.examples)} examples of {case.split}")


def _served(case: Case) -> dict[str, Any]:
    """The run's own encoding and weights, and the artifact given records, files as their bytes."""
    state, _, _ = case.start()
    checkpoint.restore(case.folder.checkpoints, state)
    best = case.recipe.training.checkpoint == "best" and state.best_step > 0
    weights = checkpoint.read_best(case.folder.checkpoints, state) if best else checkpoint.weights(state)
    checkpoint.put_weights(state.network, weights)
    task = case.task
    if task.target.remembers:
        whole = _encode(case.recipe, task, case.data.splits["train"])
        task = stages.remember(task, state, whole, NoProgress())
    if "validation" in case.data.splits:
        validation = _encode(case.recipe, task, case.data.splits["validation"])
        task = stages.learn_decision(case.recipe, task, state, validation, NoProgress()).task
    encoded = _encode(case.recipe, task, case.held_out)
    chosen = [
        number for number, name in enumerate(case.held_out.ids) if name not in encoded.unreadable | encoded.unseen
    ]
    records = [case.held_out[number] for number in chosen]
    state.network.eval()
    held_out = case.held_out.take(np.array(chosen))
    answering = task.for_answers
    columns, _, _ = answering.encode_inputs(held_out)
    examples = Examples(inputs=columns, truth={}, count=len(chosen))
    with torch.inference_mode():
        batch = answering.collate(examples, torch.arange(len(chosen))).to(choose_device())
        evaluated = task.predict(state.network, answering.preprocess(batch), held_out)
    model = replace(case.model, trust=None)
    served = model.predict([_bytes(task, record) for record in records], size=len(records))
    return _found(_unlike(evaluated, served), ROUNDING, f"{len(served)} records")


def _bytes(task: Task, record: Mapping[str, Any]) -> dict[str, Any]:
    """The record as it would come over a network: no path, but what the file holds."""
    read = {name for part in task.inputs.values() if part.reads_file for name in part.fields(part.config)}
    return {
        name: value.read_bytes() if name in read and isinstance(value, Path) else value
        for name, value in record.items()
    }


def _batched(case: Case) -> dict[str, Any]:
    records = [case.held_out[number] for number in range(min(32, len(case.held_out)))]
    together = case.model.predict(records, size=len(records))
    alone = case.model.predict(records, size=1)
    return _found(_unlike(together, alone), ROUNDING, f"{len(records)} records")


def _accumulated(case: Case) -> dict[str, Any]:
    state = case.trained()
    size = case.start()[2].size
    # Mixing pairs neighbours, so that micro-batches have to be even.
    part = max(2, 2 * round(size / 8))
    whole, accumulated = case.gradients(state), case.gradients(state, part)
    parts = math.ceil(size / part)
    note = f"gradient of {size} examples in {parts} parts"
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in state.network.modules()):
        note += ", batch norm at rest: in training its statistics are those of a part"
    return _found(_gradients_apart(whole, accumulated), ROUNDING, note)


def _packed(case: Case) -> dict[str, Any]:
    packs = {name: config for name, config in case.recipe.network.items() if "packing" in type(config).model_fields}
    if not packs or case.own is not None:
        return _empty("no backbone of this network packs")
    state = case.trained()
    gradients = []
    for packing in (True, False):
        configs: dict[str, BackboneConfig] = dict(case.recipe.network)
        for name, config in packs.items():
            configs[name] = config.model_copy(update={"packing": packing})
        network = networks.build(configs, case.task).to(choose_device())
        checkpoint.put_weights(network, checkpoint.weights_of(state.network))
        gradients.append(case.gradients(loop.State(network=network, optimizers=[])))
    return _found(_gradients_apart(*gradients), ROUNDING, "loss and gradient of a batch")


def _two_processes(case: Case) -> dict[str, Any]:
    """Held-out scores and the gradient of a batch, in this process and in two that torchrun starts."""
    if case.own is not None:
        return _empty("a module that is given in Python is not at hand in other processes")
    if case.start()[2].size % 2:
        return _empty("the batch is odd: two processes cannot share it")
    with tempfile.TemporaryDirectory() as place:
        found, start = Path(place) / "two", Path(place) / "start"
        # After a few steps: at first a network answers nearly alike for all, and its gradient is what rounding leaves
        # of sums that cancel.
        weights = checkpoint.weights_of(case.trained().network)
        tensors.write(start, weights, None)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        command += ["-m", "sonde.commands.prove", str(case.folder.path), str(start), str(found)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SondeError(f"two processes failed:\n{done.stderr[:4000]}")
        theirs, _ = tensors.read(found)
    scores, gradient = _in_one(case, weights)
    two_scores, two_gradient = ({key: theirs[key] for key in each} for each in (scores, gradient))
    difference = max(_apart(scores, two_scores), _gradients_apart(gradient, two_gradient))
    return _found(difference, ROUNDING, "scores of held-out examples, gradient of a batch")


def _in_one(case: Case, weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Scores of the held-out examples, and the loss and gradient of a batch, with these weights."""
    state, _, _ = case.start()
    checkpoint.put_weights(state.network, weights)
    encoded = _encode(case.recipe, case.task, case.held_out)
    exact = Precision(kind="fp32", device=choose_device())
    size = max(1, len(encoded.examples) // 4)
    columns = evaluation.eval_outputs(case.task, state.network, encoded.examples, precision=exact, size=size)
    scores = evaluation.values(case.task, columns, encoded.weight)
    held = {f"score {name}": torch.tensor(value) for name, value in scores.items() if math.isfinite(value)}
    return held, case.gradients(state)


def _apart(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """The largest difference of two sets of tensors, relative to the largest number where that is above one."""
    if one.keys() != other.keys():
        return math.inf
    largest = 0.0
    for name, value in one.items():
        mine, theirs = value.detach().double().cpu(), other[name].detach().double().cpu()
        if mine.shape != theirs.shape:
            return math.inf
        if mine.numel() and not torch.equal(mine, theirs):
            gap = float((mine - theirs).abs().max()) / max(1.0, float(mine.abs().max()))
            largest = gap if math.isnan(gap) else max(largest, gap)
            if math.isnan(largest):
                return math.inf
    return largest


def _gradients_apart(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """The largest difference of losses, and of gradients relative to the largest number in them."""
    scale = max((float(value.abs().max()) for name, value in one.items() if name != "loss"), default=1.0)
    scaled = [
        {name: value if name == "loss" else value / scale for name, value in each.items()} for each in (one, other)
    ]
    return _apart(*scaled)


def _unlike(one: Any, other: Any) -> float:
    """The largest difference of two JSON values, relative where numbers are above one; infinite if words differ."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if one.keys() != other.keys():
            return math.inf
        return max((_unlike(value, other[key]) for key, value in one.items()), default=0.0)
    if isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return math.inf
        return max((_unlike(mine, theirs) for mine, theirs in zip(one, other, strict=True)), default=0.0)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        if one.shape != other.shape:
            return math.inf
        return float((np.abs(one - other) / np.maximum(1, np.abs(one))).max(initial=0))
    if isinstance(one, (int, float)) and isinstance(other, (int, float)) and not isinstance(one, bool):
        return abs(one - other) / max(1.0, abs(one))
    return 0.0 if one == other else math.inf


def _worker(path: Path, start: Path, out: Path) -> None:
    """One of two processes: what `_in_one` gives, by both together."""
    with dist.process_group():
        scores, gradient = _in_one(Case.read(path, None), tensors.read(start)[0])
        if dist.is_main():
            tensors.write(out, {**scores, **gradient}, None)
        dist.barrier()


if __name__ == "__main__":
    _worker(*map(Path, sys.argv[1:4]))
