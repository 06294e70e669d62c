"""The whole program on one page: recipe -> data -> task -> network -> loop -> scores -> artifact."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from sonde import artifact, evaluation, stages
from sonde.base import dist, files, rng
from sonde.base.progress import NoProgress, Progress
from sonde.contracts.task import Task
from sonde.data.store import check_unreadable
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
        return "\n".join([*lines, "made", f"  run        {self.folder}", f"  artifact   {self.artifact}"])

    def _beside(self, score: evaluation.Score) -> str:
        return "" if score.baseline is None else f"{self.baseline} {score.baseline:.4g}"


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
    progress = progress or NoProgress()
    with rng.preserved(), dist.process_group(), RunFolder.open(Path(out), resume=resume) as folder:
        data = stages.load_data(recipe)
        for note in data.notes:
            progress.message(note)
        task = stages.fit_task(recipe, data.splits["train"], network)
        net = stages.build_network(recipe, task, network)
        sets = {split: stages.encode_split(recipe, task, split, data, folder, progress) for split in data.splits}
        check_unreadable(sets, recipe.data.max_unreadable)
        stages.check_monitor(recipe, task, net, sets)
        parallel.per_rank_batch_size(min(recipe.training.batch_size, len(sets["train"].examples)))
        folder.record_inputs(recipe.to_toml(), data.snapshot)
        for note in stages.about_network(net):
            progress.message(note)
        ready, sets = stages.keep_features(recipe, task, net, sets, progress)
        state, plan, batches = stages.prepare(recipe, ready, net, sets["train"], folder.precision_file, progress)
        position = checkpoint.restore(folder.checkpoints, state, progress.message)
        with Log(folder.log, position or 0) as log:
            if position is None:
                log.start(plan, sets)
            Trainer(
                training=recipe.training,
                task=ready,
                sets=sets,
                state=state,
                plan=plan,
                batches=batches,
                folder=folder,
                log=log,
                progress=progress,
            ).run()
        stages.use_best(recipe, folder, state)
        if dist.is_main():
            stages.write_adapters(recipe, state.network, folder.adapters, progress)
        stages.merge_adapters(recipe, ready, state, sets, progress)
        ready = stages.remember(ready, state, sets["train"], progress)
        scores = stages.score(recipe, ready, state, sets, progress)
        task = Task(inputs=task.inputs, target=ready.target)
        weights = checkpoint.weights_of(state.network)
        if dist.is_main():
            files.write_json(folder.scores, evaluation.to_json(scores))
            backbones = stages.resolved_networks(recipe, state.network) if network is None else None
            artifact.write(folder.model, task, backbones, weights, stages.card(recipe, data, scores, state))
        dist.barrier()
    return Run(
        folder=folder.path,
        artifact=folder.model,
        scores=scores,
        seconds=time.perf_counter() - started,
        baseline=task.target.baseline_name,
    )
