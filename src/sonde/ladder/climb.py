"""Climbing: rung after rung as an ordinary run, until the bar is met or dearer rungs make no difference."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from filelock import FileLock, Timeout

from sonde import checks, classical, evaluation, stages
from sonde.base import files, rng
from sonde.base.errors import Diverged, UserError, unknown
from sonde.base.progress import NoProgress, Progress
from sonde.contracts.classical import Unsuitable
from sonde.contracts.columns import to_numpy
from sonde.contracts.target import Target
from sonde.contracts.task import Task
from sonde.data.load import Dataset
from sonde.data.store import Encoded, encode
from sonde.evaluation.paired import Drawn
from sonde.ladder import choose
from sonde.ladder.bar import Bar, read_bar, read_budget
from sonde.ladder.clock import BudgetSpent, Clock, read_seconds
from sonde.ladder.measure import Scorer
from sonde.ladder.result import Ladder, Tried
from sonde.ladder.rungs import Rung, rungs
from sonde.recipe import Recipe
from sonde.run import fit
from sonde.training.ladder_settings import LadderConfig

# In a ladder's folder: what it was made from, what came out, and who is at it.
RECIPE, RESULT, LOCK, CACHE = "recipe.toml", "ladder.json", ".lock", "cache"
# A finished trial's own figures: measured once, so that a resumed ladder tells the same.
MEASURED = "measured.json"


def climb(
    recipe: Recipe,
    *,
    out: str | Path,
    resume: bool = False,
    despite: Sequence[str] = (),
    progress: Progress | None = None,
) -> Ladder:
    """The cheapest approach that meets `ladder.bar`, or that cannot be told from the best one, with the evidence.

    Every rung is a run in its own folder under `out`. With `resume` a ladder that was stopped goes on where it stood;
    its bar, budget and price may be others then. `despite` names checks of the data that may fail.

    Raises:
        UserError: the recipe, the bar or the folder are wrong, or there is no validation split.
        CheckFailed: a check of the data failed.
        Interrupted: the user stopped a run; its state is saved.
    """
    progress, folder = progress or NoProgress(), Path(out)
    bar = None if recipe.ladder.bar is None else read_bar(recipe.ladder.bar)
    budget = None if recipe.ladder.budget is None else read_budget(recipe.ladder.budget)
    _check(recipe)
    with rng.preserved(), _owned(folder, recipe, resume=resume):
        data = stages.load_data(recipe)
        if "validation" not in data.splits:
            raise UserError(
                "a ladder chooses by the validation split, and there is none", hint="data.split = { validation = 0.1 }"
            )
        task = stages.fit_task(recipe, data.splits["train"])
        sets = {split: _encode(recipe, task, data, split, folder) for split in data.splits}
        held_out, train = sets["validation"], sets["train"]
        metric, better = _metric(recipe, task, held_out, bar)
        planned = rungs(recipe, task, train.examples)
        checks.before_training(recipe, data, task, sets, despite, progress)
        # What the first classical rung would be charged for.
        classical.import_libraries()
        num_validation = len(held_out.examples)
        # Every run encodes for itself.
        del sets, held_out, train
        _record(folder, recipe)
        climber = _Climber(
            recipe=recipe,
            folder=folder,
            data=data,
            metric=metric,
            better=better,
            bar=bar,
            budget=budget,
            progress=progress,
            scorer=Scorer(recipe, data, metric, folder / CACHE),
        )
        climber.climb(planned)
        result = climber.result(task, num_validation)
        files.write_json(folder / RESULT, result.to_json())
        shutil.rmtree(folder / CACHE, ignore_errors=True)
        return result


@dataclass(kw_only=True)
class _Climber:
    """Where a ladder stands: what was tried, the draws of each, and what has been spent."""

    recipe: Recipe
    folder: Path
    data: Dataset
    metric: str
    better: choose.Better
    bar: Bar | None
    budget: float | None
    progress: Progress
    scorer: Scorer
    tried: list[Tried] = field(default_factory=list)
    validation: dict[str, Drawn] = field(default_factory=dict)
    test: dict[str, Drawn] = field(default_factory=dict)
    looks: int = 1
    spent: float = 0.0

    def climb(self, planned: list[Rung]) -> None:
        # Counted before anything is seen, so that the level does not hang on what is found.
        self.looks = max(1, sum(not rung.reason for rung in planned) - 1)
        why, in_a_row = "", 0
        for rung in planned:
            if rung.reason or why:
                self.tried.append(Tried.left_out(rung, rung.reason or f"not tried: {why}"))
                continue
            done = self._rung(rung)
            if done is None:
                why = "the budget is spent" if self._left() == 0 else ""
                continue
            shown = self.validation[rung.name].value
            self.progress.message(f"{rung.name}: validation {self.metric} {shown:.4g} after {done.seconds:.1f} s")
            if self.bar is not None and self.bar.met(shown):
                why = f"{rung.name} meets the bar"
            elif rung.dear:
                in_a_row = 0 if choose.improves(self.validation, self.better, self.looks) else in_a_row + 1
                if in_a_row >= choose.PATIENCE:
                    why = f"{in_a_row} networks in a row are no better than what is cheaper"

    def _left(self) -> float | None:
        """Seconds of the budget that are left."""
        return None if self.budget is None else max(0.0, self.budget - self.spent)

    def _rung(self, rung: Rung) -> Tried | None:
        """All trials of a rung; None where it could not be finished, which is then noted."""
        runs, seconds = [], 0.0
        for number, recipe in enumerate(rung.recipes, start=1):
            run = self.folder / rung.name / f"trial-{number}"
            clock = Clock(self.progress, run.with_suffix(".json"), rung.name, self._left())
            try:
                if self._left() == 0 and not _finished(run):
                    raise BudgetSpent("the budget is spent")
                self._fit(recipe, run, clock)
            except Unsuitable as error:
                self.tried.append(Tried.left_out(rung, error.what))
                return None
            except Diverged as error:
                self.tried.append(Tried.left_out(rung, f"training diverged: {error.what}"))
                return None
            except BudgetSpent:
                self.spent = max(self.spent, self.budget or 0.0)
                self.tried.append(
                    Tried.left_out(rung, "stopped: the budget is spent; a larger one with --resume goes on")
                )
                return None
            seconds += read_seconds(run.with_suffix(".json"))
            self.spent += read_seconds(run.with_suffix(".json"))
            runs.append(run)
        return self._measure(rung, runs, seconds)

    def _fit(self, recipe: Recipe, run: Path, clock: Clock) -> None:
        if _finished(run):
            return
        fit(recipe, out=run, resume=True, audited=True, progress=clock)
        clock.save()

    def _measure(self, rung: Rung, runs: list[Path], seconds: float) -> Tried:
        """The trial that does best on validation stands for the rung; all of them are its cost."""
        measured = {run: self.scorer.measure(run) for run in runs}
        best = Path(choose.best_of({str(run): each.drawn["validation"] for run, each in measured.items()}, self.better))
        found = measured[best]
        kept = best.parent / MEASURED
        if not kept.exists():
            files.write_json(kept, {"latency": found.latency})
        self.validation[rung.name] = found.drawn["validation"]
        if "test" in found.drawn:
            self.test[rung.name] = found.drawn["test"]
        tried = Tried(
            name=rung.name,
            about=rung.about,
            note=rung.note,
            run=best,
            trials=len(runs),
            scores={split: each.get(self.metric) for split, each in found.scores.items()},
            seconds=seconds,
            num_bytes=found.num_bytes,
            latency=float(files.read_json(kept)["latency"]),
        )
        self.tried.append(tried)
        return tried

    def result(self, task: Task, num_validation: int) -> Ladder:
        if not self.validation:
            raise UserError(
                "no rung could be tried: "
                + "; ".join(f"{each.name}: {each.reason}" for each in self.tried if each.reason),
                hint="raise the budget, or look at ladder.rungs",
            )
        shipped = choose.ship(self.validation, self.better, self.looks, self.bar)
        compared = choose.compare(self.validation, self.better, self.looks)
        tried = [replace(each, comparison=compared.get(each.name)) for each in self.tried]
        return Ladder(
            folder=self.folder,
            metric=self.metric,
            better=self.better,
            bar=self.bar,
            price=self.recipe.ladder.price,
            looks=self.looks,
            tried=tried,
            shipped=shipped,
            best=choose.best_of(self.validation, self.better),
            best_on_test=choose.best_of(self.test, self.better) if self.test else None,
            num_validation=num_validation,
            baseline_name=task.target.baseline_name,
        )


def _finished(run: Path) -> bool:
    """Whether a run has come to its end: the artifact is the last thing that it writes."""
    return (files.current_folder(run / "model") / "MANIFEST.json").is_file()


def _check(recipe: Recipe) -> None:
    if recipe.classical is not None:
        raise UserError(
            "the recipe has a [classical] section", expected="a [network]: a ladder tries classical models by itself"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("a ladder runs in one process", hint="start it without torchrun")


def _encode(recipe: Recipe, task: Task, data: Dataset, split: str, folder: Path) -> Encoded:
    return encode(
        task,
        data.splits[split],
        weight=recipe.data.weight,
        group=recipe.data.group_field,
        memory=recipe.data.memory * 2**30,
        cache=folder / CACHE / f"plan-{split}",
    )


def _metric(recipe: Recipe, task: Task, held_out: Encoded, bar: Bar | None) -> tuple[str, choose.Better]:
    """The score that decides and which way is better.

    Raises:
        UserError: the bar names a score that there is none of, or asks for it to be worse.
    """
    monitor, better = task.target.monitor
    metric = bar.metric if bar else recipe.training.monitor or monitor
    columns = task.target.baseline(held_out.examples.truth)
    if columns is not None:
        known = evaluation.values(task, {name: to_numpy(column) for name, column in columns.items()})
        if metric not in known:
            raise unknown(metric, known, what="the bar: the score" if bar else "training.monitor: the score")
    if metric != monitor:
        better = _direction(task.target, metric)
    if bar is not None and bar.better != better:
        wanted = ">=" if better == "max" else "<="
        raise UserError(
            f"the bar asks for {bar}, and a {'higher' if better == 'max' else 'lower'} {metric} is better",
            hint=f'--bar "{metric} {wanted} {bar.value:g}"',
        )
    return metric, better


def _direction(target: Target, metric: str) -> choose.Better:
    return "min" if metric.partition("/")[0] in target.lower_is_better else "max"


@contextmanager
def _owned(folder: Path, recipe: Recipe, *, resume: bool) -> Iterator[None]:
    """The folder of a new ladder, or with `resume` that of one to go on with, for as long as the block lasts.

    Raises:
        UserError: it holds something else, another process uses it, or the recipe is another one.
    """
    there = folder.is_dir()
    held = {each.name for each in folder.iterdir()} - {LOCK} if there else set()
    if held and not (resume and (folder / RECIPE).is_file()):
        what = "a ladder" if (folder / RECIPE).is_file() else "other files"
        raise UserError(
            f"the folder {folder} already holds {what}",
            expected="a new or an empty folder",
            hint="choose another with --out" + (", or go on with it by --resume" if what == "a ladder" else ""),
        )
    if held and (folder / RECIPE).read_text(encoding="utf-8") != _identity(recipe):
        raise UserError(
            f"the recipe differs from that of the ladder in {folder}",
            expected="the recipe that it was started with; of [ladder] bar, budget, price and rungs may change",
            hint="start a new ladder with another --out",
        )
    files.make_folder(folder)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"the ladder {folder} is in use by another process", hint="wait until it has ended") from None
    try:
        yield
    finally:
        lock.release()
        if not there and {each.name for each in folder.iterdir()} <= {LOCK, CACHE}:
            shutil.rmtree(folder, ignore_errors=True)


def _identity(recipe: Recipe) -> str:
    """What must not change while a ladder goes on."""
    kept = LadderConfig(trials=recipe.ladder.trials)
    return recipe.model_copy(update={"ladder": kept}).to_toml()


def _record(folder: Path, recipe: Recipe) -> None:
    if not (folder / RECIPE).exists():
        files.write_bytes(folder / RECIPE, _identity(recipe).encode())
