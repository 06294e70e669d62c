"""Every ready recipe, shortened: it reads its real data, trains, scores and leaves an artifact that loads."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

import sonde
from sonde.recipe import Recipe

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_ready_recipe_runs(path, shared, tmp_path):
    changes = ["training.steps=2", "training.batch_size=8"]
    text = path.read_text()
    if '"../../shared/data/' in text:
        name = text.split('"../../shared/data/')[1].split('"')[0]
        changes.append(f"data.source={shared / name}")
    if "node-graph" in text:
        # Every batch computes the whole graph.
        changes.append("training.batch_size=140")
    if '"../moving_digits"' in text:
        make = runpy.run_path(str(path.parents[1] / "benchmarks" / "moving_digits.py"))["make"]
        make(tmp_path / "clips", 40, "direction")
        changes.append(f"data.source={tmp_path / 'clips'}")
    if '"volume"' in text:
        changes += ["network.widths=[4,8]", "inputs.volume.size=[16,16,16]"]
    if "next-token" in text:
        changes += ["inputs.text.window=32", "network.layers=1"]
    if 'kind = "future"' in text:
        changes += ["data.validation=100", "data.test=100"]
    if '"sequence"' in text:
        changes += ["target.length=3", "target.generate={}", "target.decoder.layers=1"]
    if '"noise"' in text:
        changes += ["network.image.widths=[4, 8]", "target.generate.steps=2"]
    if '"reconstruction"' in text:
        changes += ["network.widths=[4, 4, 4]", "target.decoder.widths=[4, 2]"]
    found = sonde.fit(Recipe.read(path, changes=changes), out=tmp_path / "run")
    assert found.scores["test"]
    assert sonde.load(found.artifact).card["scores"]["test"]
