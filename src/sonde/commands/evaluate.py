"""`sonde evaluate`: a trained model judged on held-out or on new records, alone or against another."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sonde import evaluation, stages
from sonde.artifact import Model, load
from sonde.base import files
from sonde.base.device import Precision
from sonde.base.errors import UserError
from sonde.base.progress import NoProgress, Progress
from sonde.contracts.columns import EvalColumns
from sonde.contracts.finding import NAMED
from sonde.contracts.records import Records
from sonde.contracts.task import Task
from sonde.data.store import Encoded, check_unreadable, encode
from sonde.evaluation.attacks import Attacked, falls
from sonde.evaluation.attacks import attack as attack_with
from sonde.evaluation.compare import Compared, compare
from sonde.evaluation.cost import Cost, measure
from sonde.evaluation.judged import Judgement, judge
from sonde.evaluation.robustness import Corrupted, robustness
from sonde.evaluation.robustness import panels as robustness_panels
from sonde.evaluation.robustness import table as robustness_table
from sonde.evaluation.slices import Slice, slices
from sonde.recipe import Recipe
from sonde.report.gather import ROBUSTNESS, facts_of_records
from sonde.training.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """Scores with intervals of a model on some records, where its errors gather, and how it compares."""

    model: Path
    data: str
    scores: dict[str, evaluation.Score]
    slices: list[Slice]
    skipped: dict[str, str]
    baseline: str = ""
    against: Path | None = None
    compared: Mapping[str, Compared] | None = None
    judgement: Judgement = field(default_factory=Judgement)
    cost: Cost | None = None
    attacked: list[Attacked] = field(default_factory=list)
    # Whether the strongest attack leaves nothing of the score; None where that cannot be said.
    falls: bool | None = None
    corrupted: list[Corrupted] | None = None
    # The folder of the run, where what the report shows was kept.
    kept: Path | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "model": str(self.model),
            "data": self.data,
            "scores": evaluation.to_json({self.data: self.scores})[self.data],
            "slices": [one.to_json() for one in self.slices],
            "skipped": dict(list(self.skipped.items())[:NAMED]),
            "trust": self.judgement.to_json(),
            "cost": None if self.cost is None else self.cost.to_json(),
            "attacks": [one.to_json() for one in self.attacked],
            "against": None if self.against is None else str(self.against),
            "compared": None if self.compared is None else {name: one.to_json() for name, one in self.compared.items()},
            "robustness": None if self.corrupted is None else [one.to_json() for one in self.corrupted],
        }

    def to_text(self) -> str:
        lines = [f"{self.data} ({evaluation.about(next(iter(self.scores.values())))})"]
        shown = {name: score for name, score in self.scores.items() if "/" not in name}
        wide = max(18, *map(len, shown))
        for name, score in shown.items():
            parts = [] if score.before is None else [f"before {score.before:.4g}"]
            parts += [] if score.baseline is None else [f"{self.baseline} {score.baseline:.4g}"]
            beside = ", ".join(parts)
            lines.append(f"  {name:<{wide}} {score!s:<30} {beside}".rstrip())
        lines += [f"skipped {len(self.skipped)} records: {next(iter(self.skipped.items()))}"] if self.skipped else []
        worse = [one for one in self.slices if one.worse]
        lines.append("where errors gather" if worse else "errors gather nowhere: no slice is worse by more than chance")
        for one in worse:
            lines.append(
                f"  {one.name}: {one.count:,} records, mean cost {one.cost:.3g} [{one.low:.3g}, {one.high:.3g}]"
            )
        told = self.judgement.to_text()
        lines += ["trust", told] if told else []
        lines += ["cost", self.cost.to_text()] if self.cost is not None else []
        lines += self._attacks()
        if self.compared is not None:
            lines.append(f"against {self.against} on the same records")
            for name, one in self.compared.items():
                if "/" not in name:
                    apart = f"{one.difference:+.4g} [{one.low:+.4g}, {one.high:+.4g}]"
                    why = f"{one.word} (p {one.p:.2g}, {one.test})"
                    lines.append(f"  {name:<{wide}} {one.other:.4g}, difference {apart:<34} {why}")
        lines += [] if self.corrupted is None else robustness_table(self.corrupted)
        lines += [f"kept in {self.kept}: `sonde report` shows it"] if self.kept is not None else []
        return "\n".join(lines)

    def _attacks(self) -> list[str]:
        if not self.attacked:
            return []
        clean = self.attacked[0]
        lines = [f"attacks ({clean.metric} of {clean.score.count:,} records; {clean.score.value:.4g} without)"]
        for one in self.attacked[1:]:
            lines.append(f"  {one.method:<5} {100 * one.strength:>4g} % of the range   {one.score!s}")
        if self.falls is False:
            lines.append(
                "  something is left at the largest strength: unless the network was trained against attacks, its "
                "gradients hide"
            )
        return lines


def evaluate(
    path: Path,
    *,
    data: Path | None = None,
    split: str | None = None,
    against: Path | None = None,
    attack: bool = False,
    watts: float | None = None,
    corrupt: bool = False,
    progress: Progress | None = None,
) -> Evaluated:
    """Judge the model of a run or an artifact on its held-out split, or on all records of `data`.

    `against` is another model of the same question, compared on the records that both can read. `attack` changes the
    inputs by FGSM and PGD; `watts` is the power that the energy of the training is counted at. `corrupt`: how the
    score that counts holds under common corruptions of the inputs, on up to 500 records.

    Raises:
        UserError: a model or data cannot be read, the models answer different questions, or a split is not there.
    """
    progress = progress or NoProgress()
    model = load(path)
    recipe = recipe_of(model)
    name, records = _records(recipe, data, split)
    held = _encode(recipe, model, records)
    columns = _columns(model, held, progress)
    compared = None
    if against is not None:
        held, columns, compared = _against(recipe, model, records, held, against, progress)
    scores = evaluation.scores(
        model.task,
        columns,
        seed=recipe.training.seed,
        weight=held.weight,
        truth=held.examples.truth or None,
        groups=held.groups,
    )
    before = model.task.target.before_calibration(columns)
    plain = Task(inputs=model.task.inputs, target=model.task.target.uncalibrated())
    scores = stages.beside_before(scores, evaluation.values(plain, dict(before), held.weight))
    exact = Precision(kind="fp32", device=model.device)
    seed = recipe.training.seed
    judgement = judge(model.task, model.network, model.trust, records, held, columns, scores, precision=exact)
    progress.begin("measure", 1)
    cost = measure(model.task, model.network, held.examples, model.device, watts=watts, training=time_of(path))
    attacked = []
    if attack:
        progress.begin("attack", 1)
        attacked = attack_with(model.task, model.network, held.examples, precision=exact, seed=seed)
    corrupted = None
    if corrupt:
        corrupted = robustness(model.task, model.network, records, exact, seed=seed, progress=progress)
    cost_N = model.task.target.costs(columns)
    whole = cost_N is not None and len(cost_N) == len(held.ids) and not held.ids[0].startswith("window ")
    return Evaluated(
        model=path,
        data=name,
        scores=scores,
        slices=slices(cost_N, facts_of_records(model.task, records, held)) if whole and cost_N is not None else [],
        skipped=held.unreadable | held.unseen,
        baseline=model.task.target.baseline_name,
        against=against,
        compared=compared,
        judgement=judgement,
        cost=cost,
        attacked=attacked,
        falls=falls(attacked, model.task.target.monitor[1] == "min") if attacked else None,
        corrupted=corrupted,
        kept=path if _keep(path, corrupted) else None,
    )


def _keep(path: Path, corrupted: list[Corrupted] | None) -> bool:
    """Keep in a run's folder what its report shows; whether there was anything, and a run."""
    if not corrupted or not RunFolder(path).scores.is_file():
        return False
    files.write_json(path / ROBUSTNESS, robustness_panels(corrupted))
    return True


def recipe_of(model: Model) -> Recipe:
    """The recipe that an artifact was made by, as its card holds it."""
    return Recipe.of(tomllib.loads(model.card["recipe"]))


def time_of(path: Path) -> dict[str, Any] | None:
    """What the run that a path belongs to wrote down of its time."""
    for folder in (path, path.parent):
        place = RunFolder(folder).time
        if place.is_file():
            return files.read_json(place)
    return None


def _records(recipe: Recipe, data: Path | None, split: str | None) -> tuple[str, Records]:
    if data is None:
        splits = stages.load_data(recipe).splits
        held_out = [name for name in ("test", "validation") if name in splits]
        name = split or (held_out[0] if held_out else "train")
        if name not in splits:
            raise UserError(f"the data has no {name} split", expected=f"one of: {', '.join(splits)}")
        return name, splits[name]
    if split is not None:
        raise UserError("--split is for the data of the recipe, and --data was given", expected="one of them")
    tables = tomllib.loads(recipe.to_toml())
    kept = {name: value for name, value in tables["data"].items() if name not in {"split", "source"}}
    for tried in (
        kept,
        {name: value for name, value in kept.items() if name in {"weight", "group", "drop_unlabelled"}},
    ):
        tables["data"] = {**tried, "source": str(data.resolve()), "split": {"validation": 0.0, "test": 0.0}}
        try:
            return str(data), stages.load_data(Recipe.of(tables)).splits["train"]
        except UserError as error:
            last = error
    raise last


def _encode(recipe: Recipe, model: Model, records: Records) -> Encoded:
    data = recipe.data
    there = records.fields
    encoded = encode(
        model.task,
        records,
        weight=data.weight if data.weight in there else None,
        group=data.group_field if data.group_field in there else None,
    )
    check_unreadable({"data": encoded}, max(0.5, data.max_unreadable))
    return encoded


def _columns(model: Model, held: Encoded, progress: Progress) -> EvalColumns:
    progress.begin("evaluate", len(held.examples))
    exact = Precision(kind="fp32", device=model.device)
    return evaluation.eval_outputs(model.task, model.network, held.examples, precision=exact, on_progress=progress.at)


def _against(
    recipe: Recipe, model: Model, records: Records, held: Encoded, against: Path, progress: Progress
) -> tuple[Encoded, EvalColumns, dict[str, Compared]]:
    """Both models on the records that both can read."""
    other = load(against)
    ours, theirs = model.task.target, other.task.target
    asked = ours.fields(ours.config), theirs.fields(theirs.config)
    if type(ours) is not type(theirs) or asked[0] != asked[1]:
        raise UserError(
            f"{against} answers another question: {type(theirs).__name__.lower()} in {', '.join(asked[1])}",
            expected=f"{type(ours).__name__.lower()} in {', '.join(asked[0])}, as the first model",
        )
    theirs_held = _encode(recipe, other, records)
    if theirs_held.ids != held.ids:
        both = set(held.ids) & set(theirs_held.ids)
        places = {name: place for place, name in enumerate(records.ids)}
        records = records.take(np.array(sorted(places[name] for name in both if name in places), dtype=np.int64))
        if not len(records):
            raise UserError("there is no record that both models can read")
        held, theirs_held = _encode(recipe, model, records), _encode(recipe, other, records)
    columns, others = _columns(model, held, progress), _columns(other, theirs_held, progress)
    found = compare(
        (model.task, columns),
        (other.task, others),
        seed=recipe.training.seed,
        weight=held.weight,
        groups=held.groups,
    )
    return held, columns, found
