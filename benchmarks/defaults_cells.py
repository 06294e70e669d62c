"""One cell of `defaults.py` and `defaults_tuning.py`: a data set, a seed, and what sonde or scikit-learn makes of it.

Finished cells are lines of JSON in a file, so that a table can be made bit by bit.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import defaults_classical
import defaults_sets
from defaults_sets import DataSet

import sonde
from sonde.commands.new import write_recipe

Cell = dict[str, Any]
# What the two kinds of task are judged by, and the score that a share of the best is taken of.
METRICS = {"category": "accuracy", "number": "rmse"}


class Cells:
    """The finished cells of one file, each under its key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, Cell] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            for line in path.read_text().splitlines():
                cell = json.loads(line)
                self.found[cell["key"]] = cell

    def add(self, key: str, cell: Cell) -> Cell:
        self.found[key] = {"key": key, **cell}
        with self.path.open("a") as file:
            file.write(json.dumps(self.found[key]) + "\n")
        return self.found[key]


def recipe_of(one: DataSet, seed: int, folder: Path, changes: Sequence[str] = ()) -> sonde.Recipe:
    """The recipe that `sonde new` writes; the seed draws the split and the first weights."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / f"{one.name}.toml"
        write_recipe(defaults_sets.source(one, folder), path, target=one.target or None)
        return sonde.Recipe.read(path, changes=[f"training.seed={seed}", *changes])


def of_sonde(one: DataSet, seed: int, folder: Path, changes: Sequence[str] = ()) -> Cell:
    """Fit and score as `sonde fit` does; the run is thrown away."""
    recipe = recipe_of(one, seed, folder, changes)
    metric = METRICS[recipe.target.kind]  # type: ignore[attr-defined]
    started = time.perf_counter()
    place = Path(tempfile.mkdtemp(dir=folder))
    try:
        run = sonde.fit(recipe, out=place / "run")
        records = json.loads((place / "run" / "model" / "card.json").read_text())["data"]["records"]
    finally:
        shutil.rmtree(place)
    score = run.scores["test"][metric]
    shape = [sum(records.values()), sum(len(getattr(each, "fields", ())) or 1 for each in recipe.inputs.values())]
    return {
        "metric": metric,
        "shape": shape,
        "tested": records["test"],
        "score": score.value,
        "low": score.low,
        "high": score.high,
        "baseline": score.baseline,
        "all": {name: round(each.value, 6) for name, each in run.scores["test"].items() if "/" not in name},
        "seconds": round(time.perf_counter() - started, 2),
    }


def of_classical(one: DataSet, seed: int, folder: Path) -> Cell:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {"models": defaults_classical.scores(recipe_of(one, seed, folder))}


def normalized(score: float, baseline: float, best: float, metric: str) -> float:
    """0 for the majority class (the mean), 1 for the best model on that set: accuracy as it is, RMSE by its square."""
    if metric == "rmse":
        score, baseline, best = -(score**2), -(baseline**2), -(best**2)
    return math.nan if best <= baseline else max(-1.0, (score - baseline) / (best - baseline))
