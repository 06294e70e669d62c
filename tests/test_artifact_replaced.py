"""An artifact whose replacement was killed between two renames still loads, from its own path and from the run's."""

from __future__ import annotations

from pathlib import Path

import sonde
from sonde import artifact, stages
from sonde.recipe import Recipe

RECIPE = {
    "data": {"source": "sklearn:digits"},
    "inputs": {"image": {"kind": "image"}},
    "target": {"kind": "category"},
    "network": {"kind": "mlp", "hidden": [8]},
    "training": {"steps": 1},
}


def test_an_artifact_that_stepped_aside_is_loaded(tmp_path: Path) -> None:
    recipe = Recipe.of(RECIPE)
    task = stages.fit_task(recipe, stages.load_data(recipe).splits["train"])
    weights = stages.build_network(recipe, task).state_dict()
    model = tmp_path / "model"
    artifact.write(model, task, recipe.network, weights, {"number": 1})
    model.rename(tmp_path / ".model.old")
    assert sonde.load(model).card == {"number": 1}
    assert sonde.load(tmp_path).card == {"number": 1}
    artifact.write(model, task, recipe.network, weights, {"number": 2})
    assert sonde.load(tmp_path).card == {"number": 2}
    assert [each.name for each in tmp_path.iterdir()] == ["model"]
