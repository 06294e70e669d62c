"""The whole program on one page: recipe -> data -> task -> network -> loop -> scores -> artifact."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from sonde import artifact, checks, evaluation, loop, stages
from sonde.base import dist, files, rng
from sonde.base.device import choose_device
from sonde.base.errors import UserError
from sonde.base.progress import NoProgress, Progress
from sonde.contracts.finding import Finding
from sonde.contracts.task import Task
from sonde.data.store import Encoded, check_unreadable
from sonde.recipe import Recipe
from sonde.training import checkpoint, parallel
from sonde.training.run_folder import Log, RunFolder
from sonde.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run: its folder, its artifact's folder, and the scores of each split."""

    folder: Path
    artifact: Path
    scores: stages.Scores
    seconds: float
    # What the scores' baseline is: "majority class", "mean".
    baseline: str = ""
    # What the checks of the data and the curves say.
    findings: tuple[Finding, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "run": str(self.folder),
            "artifact": str(self.artifact),
            "scores": evaluation.to_json(self.scores),
            "seconds": round(self.seconds, 3),
        }

    def to_text(self) -> str:
        lines = [f"done in {self.seconds:.0f} s"]
        for split, found in self.scores.items():
            lines.append(f"{split} ({evaluation.about(next(iter(found.values())))})")
            shown = {name: score for name, score in found.items() if "/" not in name}
            wide = max(18, *map(len, shown))
            lines += [f"  {name:<{wide}} {score!s:<30} {self._beside(score)}".rstrip() for name, score in shown.items()]
        told = [one for one in self.findings if one.check in checks.OF_TRAINING and one.verdict != "pass"]
        lines += [one.to_text() for one in (*told, *(one for one in self.findings if one.check == "training"))]
        return "\n".join([*lines, "made", f"  run        {self.folder}", f"  artifact   {self.artifact}"])

    def _beside(self, score: evaluation.Score) -> str:
        beside = {
            "before": score.before,
            self.baseline: score.baseline,
            score.reference_name: score.reference,
        }
        parts = [", ".join(f"{name} {value:.4g}" for name, value in beside.items() if name and value is not None)]
        return "   ".join(part for part in (*parts, score.signature) if part)


def fit(
    recipe: Recipe,
    *,
    out: str | Path,
    resume: bool = False,
    network: nn.Module | None = None,
    despite: Sequence[str] = (),
    audited: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Train what a recipe says, into the new folder `out`; with `resume`, go on where that run stopped.

    `network` replaces the recipe's by any module that takes the input's tensor and gives what the target asks.
    `despite` names checks of the data (see `sonde check`) that may fail; `audited`: they have been done already.
    Started by torchrun, the processes train one network together and give what one process would.

    Raises:
        UserError: recipe, data or folder are wrong; nothing was written. CheckFailed: so did a check of the data.
        Diverged: a loss or a gradient was not finite.
        Interrupted: the user stopped the run; its state is saved.
    """
    started = time.perf_counter()
    progress = progress or NoProgress()
    if recipe.classical is not None and network is not None:
        raise UserError("the recipe has a [classical] section, and a network was given", expected="one of them")
    with rng.preserved(), dist.process_group(), RunFolder.open(Path(out), resume=resume) as folder:
        data = stages.load_data(recipe)
        task = stages.fit_task(recipe, data.splits["train"], network)
        for note in (*data.notes, *task.target.notes()):
            progress.message(note)
        net = None if recipe.classical else stages.build_network(recipe, task, network)
        sets = {split: stages.encode_split(recipe, task, split, data, folder, progress) for split in data.splits}
        check_unreadable(sets, recipe.data.max_unreadable)
        if net is not None:
            stages.check_monitor(recipe, task, net, sets)
            parallel.per_rank_batch_size(min(recipe.training.batch_size, len(sets["train"].examples)))
        for note in stages.notes(recipe, sets):
            progress.message(note)
        findings = [] if audited else checks.before_training(recipe, data, task, sets, despite, progress)
        folder.record_inputs(recipe.to_toml(), data.snapshot)
        # What training sees: with the features of frozen backbones in place of their inputs.
        ready, seen = task, sets
        records_of = _no_records
        if net is None:
            with Log(folder.log, 0) as log:
                log.splits(sets)
            state = stages.fit_classical(recipe, task, sets, progress)
        else:
            for note in stages.about_network(net):
                progress.message(note)
            ready, seen = stages.keep_features(recipe, task, net, sets, progress)
            state, records_of = _train(recipe, ready, net, seen, folder, progress)
            if dist.is_main():
                stages.write_adapters(recipe, state.network, folder.adapters, progress)
            stages.merge_adapters(recipe, ready, state, seen, progress)
        ready = stages.remember(ready, state, seen["train"], progress)
        judged = stages.learn_trust(recipe, ready, state, data, seen, progress)
        scores = stages.score(recipe, judged, state, seen, progress)
        weights = checkpoint.weights_of(state.network)
        # A reference is told as it is, without the network's calibration.
        scores = stages.beside_reference(recipe, Task(inputs=task.inputs, target=ready.target), sets, scores, progress)
        task = Task(inputs=task.inputs, target=judged.task.target)
        if dist.is_main():
            files.write_json(folder.scores, evaluation.to_json(scores))
            if net is not None:
                findings += checks.after_training(recipe, task, folder.log, scores, records_of)
            files.write_json(folder.findings, [one.to_json() for one in findings])
            own = network is not None
            described = recipe.classical or (None if own else stages.resolved_networks(recipe, state.network))
            card = stages.card(recipe, data, scores, state)
            artifact.write(folder.model, task, described, weights, card, judged.trust)
            # Of a resumed run the last part only.
            spent = {"seconds": round(time.perf_counter() - started, 3), "resumed": resume}
            files.write_json(folder.time, {**spent, "device": str(choose_device()), "processes": dist.world_size()})
        dist.barrier()
    return Run(
        folder=folder.path,
        artifact=folder.model,
        scores=scores,
        seconds=time.perf_counter() - started,
        baseline=task.target.baseline_name,
        findings=tuple(findings),
    )


def _no_records(step: int) -> list[str]:
    """A model that is fitted in one go has no batches."""
    return []


def _train(
    recipe: Recipe,
    task: Task,
    network: nn.Module,
    sets: dict[str, Encoded],
    folder: RunFolder,
    progress: Progress,
) -> tuple[loop.State, Callable[[int], list[str]]]:
    """The network trained from where its last checkpoint stands, with the weights that become the artifact; and what
    names the records of a step's batch."""
    state, plan, batches = stages.prepare(recipe, task, network, sets["train"], folder.precision_file, progress)
    stages.show_first_batch(task, batches, recipe.training.seed, folder)
    position = checkpoint.restore(folder.checkpoints, state, progress.message)
    with Log(folder.log, position or 0) as log:
        if position is None:
            log.start(plan, sets)
        Trainer(
            training=recipe.training,
            task=task,
            sets=sets,
            state=state,
            plan=plan,
            batches=batches,
            folder=folder,
            log=log,
            progress=progress,
        ).run()
    stages.use_best(recipe, folder, state)
    ids = sets["train"].ids
    return state, lambda step: [ids[row] for row in batches.at(step - 1).batch.records_B.tolist()]
