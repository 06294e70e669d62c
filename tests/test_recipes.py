"""Every ready recipe, shortened: it reads its real data, trains, scores and leaves an artifact that loads."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sonde
from sonde import stages
from sonde.recipe import Recipe

# Records of each split that a shortened run looks at, evenly spaced; more where labels are rare.
MOST, MOST_OF_TAGS = 120, 700
RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_ready_recipe_runs(path, shared, tmp_path, monkeypatch):
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
    if "node-graph" not in text and path.stem != "emoji":
        read, most = stages.load_data, MOST_OF_TAGS if "emoji_tags" in path.stem else MOST
        monkeypatch.setattr(stages, "load_data", lambda recipe: _fewer(read(recipe), most))
    found = sonde.fit(Recipe.read(path, changes=changes), out=tmp_path / "run")
    assert found.scores["test"]
    assert sonde.load(found.artifact).card["scores"]["test"]


def _fewer(data, most):
    """All of a data set is read, and some of it looked at."""
    few = {
        name: records.take(np.unique(np.linspace(0, len(records) - 1, most).astype(int)))
        for name, records in data.splits.items()
    }
    return replace(data, splits=few)
