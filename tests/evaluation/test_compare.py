"""Paired tests beside scipy's and a closed form, and `sonde evaluate` end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from sonde import Recipe, fit
from sonde.base.errors import UserError
from sonde.commands.evaluate import evaluate
from sonde.evaluation.compare import delong, mcnemar


def test_mcnemar_is_the_exact_binomial() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        one, other = rng.random(80) < 0.8, rng.random(80) < 0.7
        ours, theirs = int((one & ~other).sum()), int((~one & other).sum())
        assert mcnemar(one, other) == pytest.approx(stats.binomtest(ours, ours + theirs).pvalue, abs=1e-9)
    assert mcnemar(np.ones(9, bool), np.ones(9, bool)) == 1.0


def test_delong_is_calibrated_and_sees_a_difference() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(400):
        true = rng.random(120) < 0.4
        shared = true + rng.normal(size=120)
        found.append(delong(shared + 0.7 * rng.normal(size=120), shared + 0.7 * rng.normal(size=120), true))
    assert 0.02 < np.mean(np.array(found) < 0.05) < 0.08
    true = rng.random(400) < 0.5
    good, bad = true + 0.7 * rng.normal(size=400), true + 3 * rng.normal(size=400)
    assert delong(good, bad, true) < 1e-4
    assert roc_auc_score(true, good) > roc_auc_score(true, bad)


def recipe(path: Path, **network: Any) -> Recipe:
    return Recipe.of(
        {
            "data": {"source": str(path)},
            "inputs": {"table": {"kind": "table", "fields": ["a", "b"]}},
            "target": {"kind": "category", "field": "y"},
            "network": {"kind": "mlp", "hidden": [16]},
            "training": {"steps": 150, "batch_size": 32, "precision": "fp32", "compile": False, **network},
        }
    )


def written(path: Path, seed: int, count: int = 500) -> Path:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, count))
    y = np.where(a + b > 0, "up", "down")
    rows = zip(a, b, y, strict=True)
    path.write_text("a,b,y\n" + "\n".join(f"{one:.4f},{two:.4f},{three}" for one, two, three in rows))
    return path


def test_a_trained_model_is_better_than_an_untrained_one(tmp_path: Path) -> None:
    data = written(tmp_path / "data.csv", 0)
    fit(recipe(data), out=tmp_path / "good")
    fit(recipe(data, steps=1, checkpoint="last"), out=tmp_path / "poor")
    again = evaluate(tmp_path / "good")
    assert again.data == "test"
    found = evaluate(tmp_path / "good", data=written(tmp_path / "new.csv", 1), against=tmp_path / "poor")
    assert found.scores["accuracy"].count == 500
    assert found.compared is not None
    assert found.compared["accuracy"].word == "better"
    assert found.compared["accuracy"].test == "McNemar, exact"
    assert found.compared["log_loss"].word == "better"
    assert found.compared["log_loss"].difference < 0
    turned = evaluate(tmp_path / "poor", data=tmp_path / "new.csv", against=tmp_path / "good")
    assert turned.compared is not None
    assert turned.compared["accuracy"].word == "worse"
    same = evaluate(tmp_path / "good", data=tmp_path / "new.csv", against=tmp_path / "good")
    assert same.compared is not None
    assert {one.word for one in same.compared.values()} == {"cannot tell"}
    (tmp_path / "other.csv").write_text("a,b,z\n1,2,3\n2,3,4\n")
    with pytest.raises(UserError, match="no field 'y'"):
        evaluate(tmp_path / "good", data=tmp_path / "other.csv")
    with pytest.raises(UserError, match="no holiday split"):
        evaluate(tmp_path / "good", split="holiday")
