"""Before compute is spent: an audit of the data, and a pre-flight of the pipeline. Each check gives a verdict.

A check is a generator of findings; these lists are all that names them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from torch import nn

from sonde.base.errors import CheckFailed, unknown
from sonde.base.progress import NoProgress, Progress
from sonde.checks import annotators, answers, columns, duplicates, labels, near, preflight, shift, verdict, vitals
from sonde.checks.preflight import Flight
from sonde.checks.subject import Subject
from sonde.contracts.finding import Finding
from sonde.contracts.task import Task
from sonde.data.load import Dataset
from sonde.data.store import Encoded
from sonde.evaluation import Score
from sonde.recipe import Recipe

__all__ = ["Finding", "Flight", "Subject", "after_training", "audit", "before_training", "fly", "require"]

# Checks of the data that take no longer than a pass over it, and those that train cheap models.
QUICK = (
    duplicates.across_splits,
    duplicates.within_training,
    duplicates.conflicting_labels,
    labels.class_sizes,
    columns.leaks,
    columns.owners,
    columns.missing_columns,
)
THOROUGH = (
    near.near_duplicates,
    annotators.agreement,
    labels.suspicious_labels,
    shift.splits_differ,
    shift.channel_order,
)
PREFLIGHT = (
    preflight.loss_at_the_start,
    answers.logits,
    answers.frozen,
    preflight.gradients,
    preflight.independence,
    answers.causality,
    preflight.learns_by_heart,
    preflight.learning_rate,
    preflight.forecast,
)
# What is said of a training beside the verdict on its curves.
OF_TRAINING = ("dead units", "saturated units", "gradients by depth", "update to weight", "clipping", "loss spikes")
# Examples from which on `sonde fit` leaves its checks to `sonde check`: they would take more than a few seconds.
LARGE = 200_000


def audit(subject: Subject, *, thorough: bool = True, progress: Progress | None = None) -> list[Finding]:
    """The checks of the data, and those that inputs and target bring themselves."""
    found = _each([*QUICK, *(THOROUGH if thorough else ())], subject, "audit", progress or NoProgress())
    parts = {**subject.task.inputs, "target": subject.task.target}
    for split, encoded in subject.sets.items():
        if not thorough and split != "train":
            continue
        for name, part in parts.items():
            columns_of = encoded.examples.truth if name == "target" else encoded.examples.inputs[name]
            found += [_of_split(one, split) for one in part.audit(columns_of, encoded.ids)] if columns_of else []
    return found


def before_training(
    recipe: Recipe,
    data: Dataset,
    task: Task,
    sets: dict[str, Encoded],
    despite: Sequence[str],
    progress: Progress,
) -> list[Finding]:
    """The quick checks of the data that belong to every run; what they warn of is told.

    Raises:
        CheckFailed: one failed that `despite` does not name.
    """
    if sum(len(each.examples) for each in sets.values()) > LARGE:
        progress.message("a large data set: `sonde check` audits it, this run does not")
        return []
    findings = audit(Subject(recipe, data, task, sets), thorough=False, progress=progress)
    for one in findings:
        if one.verdict != "pass":
            progress.message(f"{one.verdict}: {one.check}: {one.text}")
    require(findings, despite)
    return findings


def after_training(
    recipe: Recipe,
    task: Task,
    log: Path,
    scores: Mapping[str, Mapping[str, Score]],
    records_of: Callable[[int], Sequence[str]],
) -> list[Finding]:
    """How training went, by its curves, its scores and the looks at units, gradients and updates; the verdict last.

    `records_of` names the records of a step's batch.
    """
    name, better = task.target.monitor
    if recipe.training.monitor:
        name = recipe.training.monitor
        better = "min" if name.partition("/")[0] in task.target.lower_is_better else "max"
    score = next((found[name] for split in ("test", "validation") if name in (found := scores.get(split, {}))), None)
    curves, looks = verdict.Curves.read(log), vitals.Looks.read(log)
    found = [] if looks is None else [*vitals.findings(looks)]
    found += vitals.clipping(log, recipe.training.max_grad_norm)
    found += vitals.spikes(curves.steps, curves.losses, records_of)
    judged = verdict.judge(
        curves,
        monitor=(name, better),
        proper=task.target.tie_break if recipe.training.monitor is None else None,
        baseline=None if score is None else score.baseline,
        interval=(None, None) if score is None else (score.low, score.high),
        first=vitals.first_thing(found),
        loss_tells=task.target.loss_reaches_zero,
    )
    return [*found, judged]


def fly(subject: Subject, own: nn.Module | None = None, progress: Progress | None = None) -> list[Finding]:
    """The pre-flight: what a few steps on a copy tell."""
    return _each(PREFLIGHT, Flight(subject, own), "pre-flight", progress or NoProgress())


def require(findings: Sequence[Finding], despite: Sequence[str] = ()) -> None:
    """That nothing failed but what the user knows of.

    Raises:
        UserError: `despite` names no check. CheckFailed: a check failed.
    """
    known = {one.check for one in findings}
    for name in despite:
        if name not in known and findings:
            raise unknown(name, known, what="--despite: the check")
    failed = [one for one in findings if one.verdict == "fail" and one.check not in despite]
    if failed:
        first = failed[0]
        raise CheckFailed(
            f"{first.check}: {first.text}" + (f" (and {len(failed) - 1} more checks failed)" if failed[1:] else ""),
            hint=f'{first.fix}; --despite "{first.check}" goes on all the same',
        )


def _of_split(finding: Finding, split: str) -> Finding:
    if split == "train":
        return finding
    return replace(finding, text=f"{split}: {finding.text}")


On = TypeVar("On")


def _each(
    checks: Sequence[Callable[[On], Iterator[Finding]]], subject: On, name: str, progress: Progress
) -> list[Finding]:
    found: list[Finding] = []
    progress.begin(name, len(checks))
    for number, check in enumerate(checks, start=1):
        found += check(subject)
        progress.at(number)
    return found
