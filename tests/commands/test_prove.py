"""`sonde prove` on real runs: every claim holds, and one that does not is found."""

from __future__ import annotations

import json

import pytest
import torch

import sonde
from sonde import loop
from sonde.base.errors import UserError
from sonde.commands import prove
from sonde.recipe import Recipe

TABLES = {
    "data": {"source": "sklearn:digits", "split": {"by": "stratified"}},
    "inputs": {"image": {"kind": "image", "augment": {"shift": 0.1}}},
    "target": {"kind": "category", "mixup": 0.2},
    "network": {"kind": "cnn", "widths": [4, 8]},
    "training": {"steps": 20, "batch_size": 32, "evaluate_every": 10, "optimizer": {"kind": "muon"}, "ema_decay": 0.9},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    tables = {**TABLES, "target": {"kind": "category"}}
    return sonde.fit(Recipe.of(tables), out=tmp_path_factory.mktemp("run") / "run").folder


def lines(proof):
    return {line.claim: line for line in proof.lines}


def test_every_claim_holds(finished):
    found = prove.prove(finished)
    assert not found.failed, found.to_text()
    held = lines(found)
    assert held["resumed = straight"].difference == 0.0
    assert held["two processes = one"].difference < 1e-5
    assert held["packed = unpacked"].passed is None
    assert json.loads(json.dumps(found.to_json()))["passed"] is True
    assert "8 of 8 claims hold" in found.to_text()


def test_what_does_not_hold_is_found(finished, monkeypatch):
    """Steps that depend on more than the seed, and an artifact that answers otherwise than the run."""
    monkeypatch.setattr(prove, "_two_processes", lambda case: prove._empty("not tried"))
    plain = loop.gradients

    def shaken(task, batch, epoch, state, plan):
        terms = plain(task, batch, epoch, state, plan)
        state.parameters[0].grad += 1e-3 * next(noise)
        return terms

    noise = (torch.tensor(float(number)) for number in range(10_000))
    monkeypatch.setattr(loop, "gradients", shaken)
    scores = finished / "scores.json"
    kept = scores.read_text()
    changed = json.loads(kept)
    changed["test"]["accuracy"]["value"] += 0.01
    scores.write_text(json.dumps(changed))
    try:
        found = prove.prove(finished)
    finally:
        scores.write_text(kept)
    assert {"resumed = straight", "the same seed repeats", "scored again = scores.json"} <= set(found.failed)
    assert lines(found)["scored again = scores.json"].difference == pytest.approx(0.01, rel=0.05)
    assert "accumulated = one big batch" in found.failed
    assert "FAIL  resumed = straight" in found.to_text()


def test_only_a_finished_run_can_be_tried(finished, tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        prove.prove(tmp_path)
    (tmp_path / "recipe.toml").write_text((finished / "recipe.toml").read_text())
    with pytest.raises(UserError, match="is not finished"):
        prove.prove(tmp_path)
