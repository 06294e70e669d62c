"""Everything that a report shows of a finished run, as one value that JSON can hold."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sonde import __version__, evaluation, stages
from sonde.artifact import Model
from sonde.artifact import load as load_artifact
from sonde.base import files
from sonde.base.device import Precision
from sonde.base.errors import RecordError, UserError
from sonde.base.progress import NoProgress, Progress
from sonde.checks import verdict, vitals
from sonde.contracts.answers import is_picture, to_uri
from sonde.contracts.columns import EvalColumns
from sonde.contracts.records import Records
from sonde.contracts.task import Task
from sonde.data.load import Dataset
from sonde.data.store import Encoded, encode
from sonde.evaluation.cost import measure
from sonde.evaluation.judged import judge
from sonde.evaluation.slices import VALUES, slices
from sonde.recipe import Recipe
from sonde.training.run_folder import RunFolder

# Cases of each sort that are shown, records of a confusion's cell, and points of a curve.
CASES, OF_A_CELL, POINTS = 12, 6, 400
# Pictures that a model which makes some shows of itself.
MADE = 32
# What `sonde evaluate --corrupt` keeps in a run's folder.
ROBUSTNESS = "robustness.json"
# Records that answers are shown for, at most: the worst are looked for among them.
MOST = 20_000


def gather(folder: Path, progress: Progress | None = None) -> dict[str, Any]:
    """The facts of a run.

    Raises:
        UserError: the folder holds no finished run.
    """
    run = RunFolder(folder)
    if not run.scores.is_file() or not run.recipe.is_file():
        raise UserError(f"{folder} holds no finished run", expected="the --out of a finished `sonde fit`")
    recipe = Recipe.read(run.recipe)
    card = files.read_json(files.current_folder(run.model) / "card.json")
    findings = files.read_json(run.findings) if run.findings.is_file() else []
    model = None if _is_own(run) else load_artifact(run.model)
    target = stages.target_kind(recipe)
    page: dict[str, Any] = {
        "name": folder.resolve().name,
        "task": card["task"],
        "parameters": card["parameters"],
        "records": card["data"]["records"],
        "fingerprint": card["data"]["fingerprint"],
        "scores": files.read_json(run.scores),
        "baseline": target.baseline_name,
        "findings": findings,
        "curves": _curves(run),
        "vitals": _vitals(run),
        "robustness": files.read_json(folder / ROBUSTNESS) if (folder / ROBUSTNESS).is_file() else [],
        "recipe": run.recipe.read_text(encoding="utf-8"),
        "versions": {"sonde": card["sonde"], "torch": torch.__version__, "python": platform.python_version()},
        "written_by": __version__,
        "seed": recipe.training.seed,
        "commands": [f"sonde fit {folder.name}/recipe.toml --out again", f"sonde prove {folder.name}"],
    }
    if model is None:
        return page
    page["monitor"] = list(model.task.target.monitor)
    page["made"] = _made(model)
    training = files.read_json(run.time) if run.time.is_file() else None
    return page | _answers(recipe, model, page["scores"], training, progress or NoProgress())


def _made(model: Model) -> list[dict[str, Any]]:
    """Pictures of a model that makes some, and what each was made for."""
    if not model.task.target.makes:
        return []
    try:
        answers = model.make(MADE)
    except (UserError, RecordError):
        # It has to be told what to make them for.
        return []
    found: list[dict[str, Any]] = []
    for answer in answers:
        shown = [to_uri(value) for value in answer.values() if is_picture(value)]
        found += [{"picture": shown[0], "given": _short(answer)}] if shown else []
    return found


def _is_own(run: RunFolder) -> bool:
    """Whether the network is someone's own module, which the artifact holds the weights of only."""
    return files.read_json(files.current_folder(run.model) / "task.json").get("network") is None


def _curves(run: RunFolder) -> dict[str, Any]:
    if not run.log.is_file():
        # A classical model is fitted in one go.
        return {"loss": [], "validation": {}}
    curves = verdict.Curves.read(run.log)
    chosen = np.unique(np.linspace(0, max(0, len(curves.steps) - 1), min(POINTS, len(curves.steps))).astype(int))
    names = dict.fromkeys(name for found in curves.validations.values() for name in found if "/" not in name)
    validation = {}
    for name in names:
        steps, values = curves.score(name)
        validation[name] = [
            {"step": int(step), "value": float(value)} for step, value in zip(steps, values, strict=True)
        ]
    loss = [{"step": int(curves.steps[place]), "value": float(curves.losses[place])} for place in chosen]
    return {"loss": loss, "validation": validation}


def _vitals(run: RunFolder) -> list[dict[str, Any]]:
    """Units, gradients and updates by step, as lines."""
    looks = vitals.Looks.read(run.log) if run.log.is_file() else None
    return [] if looks is None else vitals.panels(looks)


@dataclass(frozen=True, kw_only=True)
class _Held:
    """The held-out records and what the model makes of them."""

    split: str
    records: Records
    encoded: Encoded
    columns: EvalColumns


def _answers(
    recipe: Recipe, model: Model, written: dict[str, Any], training: dict[str, Any] | None, progress: Progress
) -> dict[str, Any]:
    """What needs the data again: panels, what the means to doubt the model are worth, its cost, slices, cases.
    `written` are the run's scores, `training` what it wrote of its time."""
    try:
        data = stages.load_data(recipe)
    except UserError as error:
        return {"without_data": str(error)}
    held = _held_out(recipe, data, model, progress)
    if held is None:
        return {"without_data": "the run held no records out"}
    target, exact = model.task.target, Precision(kind="fp32", device=model.device)
    scores = {name: evaluation.Score(**score) for name, score in written.get(held.split, {}).items()}
    panels = [panel.to_json() for panel in target.panels(held.columns)]
    cost_N = target.costs(held.columns)
    judgement = judge(
        model.task, model.network, model.trust, held.records, held.encoded, held.columns, scores, precision=exact
    )
    progress.begin("measure", 1)
    cost = measure(model.task, model.network, held.encoded.examples, model.device, training=training)
    found: dict[str, Any] = {"split": held.split, "panels": panels}
    found |= {"trust": judgement.to_json(), "cost": cost.to_json()}
    if cost_N is None or len(cost_N) != len(held.encoded.ids) or not _are_records(held):
        return found
    found["slices"] = [
        one.to_json() for one in slices(cost_N, facts_of_records(model.task, held.records, held.encoded))
    ]
    order = np.argsort(-cost_N, kind="stable")
    found["cases"] = {
        "worst": _cases(model, held, order[:CASES], cost_N),
        "best": _cases(model, held, order[::-1][:CASES], cost_N),
    }
    cells = _cells(target, held, order)
    if cells:
        found["cells"] = {name: _cases(model, held, np.array(places), cost_N) for name, places in cells.items()}
    return found


def _held_out(recipe: Recipe, data: Dataset, model: Model, progress: Progress) -> _Held | None:
    split = next((each for each in ("test", "validation") if each in data.splits), None)
    if split is None:
        return None
    records = data.splits[split]
    if len(records) > MOST:
        records = records.take(np.linspace(0, len(records) - 1, MOST).astype(int))
    encoded = encode(model.task, records, weight=recipe.data.weight, group=recipe.data.group_field)
    progress.begin("answer", len(encoded.examples))
    exact = Precision(kind="fp32", device=model.device)
    columns = evaluation.eval_outputs(
        model.task, model.network, encoded.examples, precision=exact, on_progress=progress.at
    )
    return _Held(split=split, records=records, encoded=encoded, columns=columns)


def _are_records(held: _Held) -> bool:
    """Whether examples are records, and not windows of a stream."""
    return bool(held.encoded.ids) and not held.encoded.ids[0].startswith("window ")


def facts_of_records(task: Task, records: Records, encoded: Encoded) -> dict[str, np.ndarray]:
    """What slices are made of: fields of the records, the class, and plain facts of the inputs."""
    names = {name: place for place, name in enumerate(records.ids)}
    places = np.array([names[name] for name in encoded.ids])
    found: dict[str, np.ndarray] = {}
    read = {field for part in task.inputs.values() for field in part.fields(part.config)}
    answers = set(task.target.fields(task.target.config))
    for name, values in records.fields.items():
        if values.ndim == 1 and name not in answers and (values.dtype.kind in "ifbO"):
            if values.dtype == object and (name in read and any(part.reads_file for part in task.inputs.values())):
                continue
            chosen = values[places]
            found[name] = chosen.astype(np.float64) if chosen.dtype.kind == "i" and _is_many(chosen) else chosen
    truth = encoded.examples.truth.get("class")
    classes = getattr(task.target, "classes", None)
    if isinstance(truth, torch.Tensor) and truth.ndim == 1 and classes:
        found["class"] = np.array(classes, dtype=object)[truth.numpy()]
    for key in task.inputs:
        columns = encoded.examples.inputs[key]
        lengths = columns.get("length", getattr(columns.get("tokens"), "lengths", None))
        if isinstance(lengths, torch.Tensor) and lengths.ndim == 1:
            found[f"length of {key}"] = lengths.numpy().astype(np.float64)
        grid = columns.get("grid")
        if isinstance(grid, torch.Tensor):
            found[f"brightness of {key}"] = grid.flatten(1).float().mean(1).numpy().astype(np.float64)
            found[f"contrast of {key}"] = grid.flatten(1).float().std(1).numpy().astype(np.float64)
    return found


def _is_many(values: np.ndarray) -> bool:
    return len(np.unique(values)) > VALUES


def _cases(model: Model, held: _Held, places: np.ndarray, cost_N: np.ndarray) -> list[dict[str, Any]]:
    """Records with their truths and answers, as they are."""
    names = {name: place for place, name in enumerate(held.records.ids)}
    rows = [names[held.encoded.ids[place]] for place in places.tolist()]
    records = [held.records[row] for row in rows]
    shown = []
    fields = model.task.target.fields(model.task.target.config)
    for place, record, answer in zip(places.tolist(), records, model.answers(records), strict=True):
        if isinstance(answer, RecordError):
            continue
        parts = {name: part.show(record) for name, part in model.task.inputs.items()}
        truth = {name: _plain(record.get(name)) for name in fields}
        shown.append(
            {
                "id": held.encoded.ids[place],
                "inputs": parts,
                "truth": truth,
                "answer": _short(answer),
                "pictures": {name: to_uri(value) for name, value in answer.items() if is_picture(value)},
                "cost": round(float(cost_N[place]), 4),
            }
        )
    return shown


def _plain(value: object) -> str:
    if isinstance(value, (list, tuple, np.ndarray)):
        return ", ".join(map(str, list(value)[:20]))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _short(answer: dict[str, Any]) -> dict[str, str]:
    """The parts of an answer that fit beside a picture."""
    found = {}
    for name, value in answer.items():
        if isinstance(value, float):
            found[name] = f"{value:.4g}"
        elif isinstance(value, (str, int, bool)):
            found[name] = str(value)
        elif isinstance(value, list) and all(isinstance(one, (str, int)) for one in value):
            found[name] = ", ".join(map(str, value[:12]))
    return found


def _cells(target: Any, held: _Held, order: np.ndarray) -> dict[str, list[int]]:
    """Of each cell of the confusion some records, the most confident mistakes first."""
    probabilities, true = held.columns.get("probabilities"), held.columns.get("class")
    if probabilities is None or true is None or len(target.classes) > 50:
        return {}
    told = probabilities.argmax(1)
    found: dict[str, list[int]] = {}
    for place in order.tolist():
        if told[place] == true[place]:
            continue
        name = f"{target.classes[true[place]]} > {target.classes[told[place]]}"
        if len(found.setdefault(name, [])) < OF_A_CELL:
            found[name].append(place)
    worst = sorted(found, key=lambda name: -len(found[name]))[:40]
    return {name: found[name] for name in worst}
