"""How a model does on inputs as they come in use: common corruptions at five severities, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from sonde.base.device import Precision
from sonde.base.progress import NoProgress, Progress
from sonde.contracts.records import Records
from sonde.contracts.task import Task
from sonde.data.store import encode
from sonde.evaluation.scores import Score, eval_outputs, scores

SEVERITIES = (1, 2, 3, 4, 5)
# Records that are corrupted, at most: 40 times as many are answered.
MOST = 500


@dataclass(frozen=True, kw_only=True)
class Corrupted:
    """The score that counts on records after one corruption of one input; severity 0: as they are."""

    input: str
    corruption: str
    severity: int
    metric: str
    score: Score
    # Records that could not be read any more.
    unreadable: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "input": self.input,
            "corruption": self.corruption,
            "severity": self.severity,
            "metric": self.metric,
            "value": _plain(self.score.value),
            "low": _plain(self.score.low),
            "high": _plain(self.score.high),
            "count": self.score.count,
            "unreadable": self.unreadable,
        }


def _plain(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


def robustness(
    task: Task,
    network: nn.Module,
    records: Records,
    precision: Precision,
    *,
    seed: int,
    progress: Progress | None = None,
) -> list[Corrupted]:
    """Score up to 500 of the records as they are, and after each corruption that the inputs offer; first the clean one.

    Every corruption is drawn from the seed alone. Empty where no input offers any.
    """
    progress = progress or NoProgress()
    if len(records) > MOST:
        records = records.take(np.linspace(0, len(records) - 1, MOST).astype(int))
    asked = [(name, kind) for name, part in task.inputs.items() for kind in part.corruptions]
    if not asked:
        return []
    progress.begin("corrupt", len(asked) * len(SEVERITIES))
    metric, _ = task.target.monitor
    found = [_scored(task, network, records, precision, seed, ("", "none", 0), metric)]
    for number, (name, kind) in enumerate(asked):
        for severity in SEVERITIES:
            rng = np.random.default_rng([seed, number, severity])
            changed = task.inputs[name].corrupt(records, kind, severity, rng)
            found.append(_scored(task, network, changed, precision, seed, (name, kind, severity), metric))
            progress.at(number * len(SEVERITIES) + severity)
    return found


def _scored(
    task: Task,
    network: nn.Module,
    records: Records,
    precision: Precision,
    seed: int,
    what: tuple[str, str, int],
    metric: str,
) -> Corrupted:
    held = encode(task, records)
    columns = eval_outputs(task, network, held.examples, precision=precision)
    score = scores(task, columns, seed=seed)[metric]
    name, kind, severity = what
    return Corrupted(
        input=name, corruption=kind, severity=severity, metric=metric, score=score, unreadable=len(held.unreadable)
    )


def table(found: Sequence[Corrupted]) -> list[str]:
    """Lines for people: a corruption a line, its score at every severity, and the interval at the highest."""
    if not found:
        return ["no input of this model offers corruptions"]
    clean, *others = found
    lines = [f"robustness: {clean.metric} of {clean.score.count:,} records as they are {clean.score!s}"]
    lines.append(f"  {'corruption':<26} " + " ".join(f"{severity:>7}" for severity in SEVERITIES) + "   interval at 5")
    for start in range(0, len(others), len(SEVERITIES)):
        row = others[start : start + len(SEVERITIES)]
        last = row[-1].score
        between = "" if last.low is None or last.high is None else f"[{last.low:.3g}, {last.high:.3g}]"
        values = " ".join(f"{'-' if one.score.value is None else format(one.score.value, '.3g'):>7}" for one in row)
        lost = f"   {row[-1].unreadable} unreadable" if row[-1].unreadable else ""
        lines.append(f"  {row[0].input + ': ' + row[0].corruption:<26} {values}   {between}{lost}")
    return lines


def panels(found: Sequence[Corrupted]) -> list[dict[str, Any]]:
    """The scores as lines for the report, one panel for each input."""
    if not found:
        return []
    clean, *others = found
    made = []
    for name in dict.fromkeys(one.input for one in others):
        mine = [one for one in others if one.input == name]
        rows = [
            {"x": one.severity, "y": _plain(one.score.value), "series": one.corruption}
            for kind in dict.fromkeys(each.corruption for each in mine)
            for one in (_as_start(clean, kind), *(each for each in mine if each.corruption == kind))
            if _plain(one.score.value) is not None
        ]
        made.append(
            {
                "title": f"Robustness of {name}",
                "note": f"{clean.metric.replace('_', ' ')} of {clean.score.count:,} held-out records after common "
                "corruptions, from severity 1 to 5; 0 is as they are.",
                "rows": rows,
                "x": "severity",
                "y": clean.metric.replace("_", " "),
                "log": False,
            }
        )
    return made


def _as_start(clean: Corrupted, kind: str) -> Corrupted:
    return Corrupted(input=clean.input, corruption=kind, severity=0, metric=clean.metric, score=clean.score)
