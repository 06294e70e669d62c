"""The whole program on real digits: fit, resume, interruption, divergence, artifact, and what goes wrong."""

from __future__ import annotations

import importlib
import json
import os
import signal

import numpy as np
import pytest
import torch
from torch import nn

import sonde
from sonde import evaluation, loop, stages
from sonde.base.errors import Diverged, Interrupted, UserError
from sonde.recipe import Recipe
from sonde.training import checkpoint

TABLES = {
    "data": {"source": "sklearn:digits", "split": {"by": "stratified"}},
    "inputs": {"image": {"kind": "image", "augment": {"zoom": 0.1}}},
    "target": {"kind": "category"},
    "network": {"kind": "mlp", "hidden": [64]},
    "training": {"steps": 40, "batch_size": 100, "evaluate_every": 10, "log_every": 4, "optimizer": {"lr": 0.02}},
}


def recipe(**training):
    return Recipe.of({**TABLES, "training": {**TABLES["training"], **training}})


def content(folder):
    """What must be equal bit for bit: weights, scores and log."""
    held, _ = checkpoint.tensors.read(sorted((folder / "checkpoints").glob("step-*"))[-1])
    files = ("log.jsonl", "scores.json", "model/weights.safetensors", "model/card.json")
    return {name: (folder / name).read_bytes() for name in files}, held


def assert_same(one, other):
    (files, held), (other_files, other_held) = content(one), content(other)
    assert files == other_files
    assert held.keys() == other_held.keys()
    assert all(torch.equal(held[name], other_held[name]) for name in held)


def test_digits_are_learnt_and_scored_with_intervals(tmp_path):
    found = sonde.fit(recipe(), out=tmp_path / "run")
    score = found.scores["test"]["accuracy"]
    assert score.value > 0.85
    assert score.low < score.value < score.high
    assert score.count in (179, 180)
    line = json.loads(json.dumps(found.to_json()))
    assert set(line) == {"run", "artifact", "scores", "seconds"}
    assert json.loads((tmp_path / "run" / "scores.json").read_text()) == line["scores"]
    fields = {"value", "low", "high", "count", "baseline", "unit", "units", "chose_checkpoint"}
    fields |= {"reference", "reference_name", "signature", "chose_decision", "out_of_fold", "before"}
    assert set(line["scores"]["test"]["accuracy"]) == fields
    assert line["scores"]["validation"]["accuracy"]["chose_checkpoint"]
    assert not line["scores"]["test"]["accuracy"]["chose_checkpoint"]
    assert "validation (180 examples; chose the checkpoint: optimistic)" in found.to_text()


def test_scores_of_grouped_data_have_intervals_by_group(tmp_path):
    """Clips of speakers whose label is the speaker's own: the text and the JSON say what was resampled."""
    rng = np.random.default_rng(0)
    lines = ["x,speaker,label"]
    for speaker in range(40):
        lines += [f"{speaker % 2 + rng.normal():.3f},s{speaker},{'ab'[speaker % 2]}" for _ in range(10)]
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    tables = {
        "data": {
            "source": str(tmp_path / "clips.csv"),
            "split": {"by": "group", "field": "speaker", "validation": 0.0, "test": 0.5},
        },
        "inputs": {"table": {"kind": "table", "fields": ["x"]}},
        "target": {"kind": "category"},
        "network": {"kind": "mlp", "hidden": [8]},
        "training": {"steps": 20},
    }
    found = sonde.fit(Recipe.of(tables), out=tmp_path / "run")
    score = found.scores["test"]["accuracy"]
    assert (score.unit, score.units, score.count, score.chose_checkpoint) == ("speaker", 20, 200, False)
    assert "test (200 examples; intervals by speaker: 20 groups)" in found.to_text()


def test_the_artifact_answers_as_the_run_scored(tmp_path):
    plan = recipe()
    found = sonde.fit(plan, out=tmp_path / "run")
    test = stages.load_data(plan).splits["test"]
    model = sonde.load(found.artifact)
    answers = model.predict([{"image": each["image"]} for each in test])
    right = np.mean([answer["label"] == each["label"] for answer, each in zip(answers, test, strict=True)])
    assert right == pytest.approx(found.scores["test"]["accuracy"].value)
    assert {each.suffix for each in found.artifact.iterdir()} == {".json", ".safetensors"}


def test_same_seed_same_bits_and_another_seed_differs(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        sonde.fit(recipe(seed=seed), out=tmp_path / name)
    assert_same(tmp_path / "a", tmp_path / "b")
    assert content(tmp_path / "a")[0]["log.jsonl"] != content(tmp_path / "c")[0]["log.jsonl"]


@pytest.mark.parametrize("kind", ["adamw", "muon", "sgd"])
def test_resumed_equals_uninterrupted(tmp_path, monkeypatch, kind):
    """Killed after step 25 (between checkpoints), then while saving at 30, then while scoring."""
    plan = recipe(optimizer={"kind": kind, "lr": 0.01}, ema_decay=0.9, schedule={"kind": "plateau", "patience": 1})
    sonde.fit(plan, out=tmp_path / "straight")

    def killed_at(step):
        def train(*arguments):
            for each in loop_train(*arguments):
                yield each
                if each.number == step:
                    raise KeyboardInterrupt

        return train

    loop_train = loop.train
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train", killed_at(25))
        with pytest.raises(KeyboardInterrupt):
            sonde.fit(plan, out=tmp_path / "broken")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sonde.fit(plan, out=tmp_path / "broken", resume=True)
    with monkeypatch.context() as patch:
        patch.setattr(stages, "score", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sonde.fit(plan, out=tmp_path / "broken", resume=True)
    sonde.fit(plan, out=tmp_path / "broken", resume=True)
    assert_same(tmp_path / "straight", tmp_path / "broken")


def test_resume_skips_a_torn_checkpoint(tmp_path):
    plan = recipe()
    sonde.fit(plan, out=tmp_path / "straight")
    sonde.fit(plan, out=tmp_path / "torn")
    newest = sorted((tmp_path / "torn" / "checkpoints").glob("step-*"))[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    sonde.fit(plan, out=tmp_path / "torn", resume=True)
    assert_same(tmp_path / "straight", tmp_path / "torn")


def test_ctrl_c_saves_and_resume_goes_on(tmp_path, monkeypatch):
    plan = recipe()
    sonde.fit(plan, out=tmp_path / "straight")
    loop_train = loop.train

    def pressed(*arguments):
        for each in loop_train(*arguments):
            if each.number == 13:
                os.kill(os.getpid(), signal.SIGINT)
            yield each

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train", pressed)
        with pytest.raises(
            Interrupted, match=r"stopped at step 13 of 40; the state is saved.*--resume goes on"
        ) as caught:
            sonde.fit(plan, out=tmp_path / "stopped")
    assert caught.value.exit_code == 130
    sonde.fit(plan, out=tmp_path / "stopped", resume=True)
    assert_same(tmp_path / "straight", tmp_path / "stopped")


def test_micro_batches_change_nothing_but_rounding(tmp_path):
    for name, size in (("whole", None), ("micro", 25)):
        settings = {"steps": 8, "evaluate_every": 8} | ({"micro_batch": size} if size else {})
        tables = {**TABLES, "network": {"kind": "mlp", "hidden": [32], "dropout": 0.0}}
        plan = Recipe.of({**tables, "training": {**TABLES["training"], "precision": "fp32", **settings}})
        sonde.fit(plan, out=tmp_path / name)
    one, other = (content(tmp_path / name)[1] for name in ("whole", "micro"))
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-3, atol=1e-5)


class Explodes(nn.Module):
    """Gives NaN for pictures whose mean is above a limit, from the third call on."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 10)
        self.calls = 0

    def forward(self, grid):
        self.calls += self.training
        flat = grid.flatten(1)
        return self.linear(flat) * torch.where(flat[:, :1] * 0 + flat.mean(1, keepdim=True) > 0.2, float("nan"), 1.0)


def test_a_loss_that_is_not_a_number_stops_before_the_update(tmp_path):
    with pytest.raises(
        Diverged, match=r"the loss term 'cross_entropy' became NaN or infinite at step 1; .*records: row"
    ) as caught:
        sonde.fit(recipe(), out=tmp_path / "run", network=Explodes())
    assert caught.value.exit_code == 4
    assert not (tmp_path / "run" / "model").exists()


def test_anyones_module_can_be_trained_and_loaded(tmp_path):
    def module():
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    found = sonde.fit(recipe(), out=tmp_path / "run", network=module())
    assert found.scores["test"]["accuracy"].value > 0.8
    with pytest.raises(UserError, match=r"holds the weights of a network that is not sonde's own"):
        sonde.load(found.artifact)
    assert sonde.load(found.artifact, network=module()).predict([np.zeros((8, 8), dtype=np.uint8)])[0]["label"]


def test_a_flipped_byte_in_the_artifact_is_found(tmp_path):
    found = sonde.fit(recipe(steps=2), out=tmp_path / "run")
    path = found.artifact / "weights.safetensors"
    broken = bytearray(path.read_bytes())
    broken[-3] ^= 1
    path.write_bytes(broken)
    with pytest.raises(UserError, match=r"is damaged: weights.safetensors differs from its hash"):
        sonde.load(found.artifact)
    with pytest.raises(UserError, match=r"is not a sonde artifact"):
        sonde.load(tmp_path)


def test_a_folder_in_use_is_refused_before_anything_is_computed(tmp_path):
    sonde.fit(recipe(steps=2), out=tmp_path / "run")
    before = sorted((tmp_path / "run").rglob("*"))
    with pytest.raises(UserError, match=r"already holds another run.*or go on with that run by --resume"):
        sonde.fit(recipe(steps=2), out=tmp_path / "run")
    with pytest.raises(UserError, match=r"the recipe differs from that of the run"):
        sonde.fit(recipe(steps=3), out=tmp_path / "run", resume=True)
    assert sorted((tmp_path / "run").rglob("*")) == before


def test_a_disk_that_fills_up_while_saving_keeps_the_last_good_state(tmp_path, monkeypatch):
    plan = recipe()
    sonde.fit(plan, out=tmp_path / "straight")
    fsync, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) > 7:
            raise OSError(28, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"cannot be written: No space left on device") as caught:
            sonde.fit(plan, out=tmp_path / "full")
    assert caught.value.exit_code == 2
    sonde.fit(plan, out=tmp_path / "full", resume=True)
    assert_same(tmp_path / "straight", tmp_path / "full")


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"cannot be written: Not a directory"):
        sonde.fit(recipe(), out=tmp_path / "file" / "run")


def test_early_stopping_holds_after_a_resume(tmp_path, monkeypatch):
    plan = recipe(patience=1, optimizer={"kind": "sgd", "lr": 1e-7}, steps=400)
    found = sonde.fit(plan, out=tmp_path / "run")
    log = (found.folder / "log.jsonl").read_bytes()
    assert b'"step": 100' not in log
    (found.folder / "scores.json").unlink()
    sonde.fit(plan, out=tmp_path / "run", resume=True)
    assert (found.folder / "log.jsonl").read_bytes() == log
    assert (found.folder / "scores.json").exists()


def test_a_monitor_that_is_no_score_is_found_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match=r"'acuracy' does not exist.*did you mean 'accuracy'"):
        sonde.fit(recipe(monitor="acuracy"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("evaluate_every", [1, None])
def test_ruined_weights_are_no_result(tmp_path, evaluate_every):
    """The last update can ruin the weights after the loss was looked at."""
    plan = recipe(
        steps=1,
        evaluate_every=evaluate_every,
        max_grad_norm=1e30,
        optimizer={"kind": "sgd", "lr": 1e30, "momentum": 0.0},
    )
    with pytest.raises(Diverged, match="NaN or infinite") as caught:
        sonde.fit(plan, out=tmp_path / "run")
    assert caught.value.exit_code == 4
    assert not (tmp_path / "run" / "model").exists()


def test_a_score_that_is_not_defined_is_no_best(tmp_path, monkeypatch):
    plain = evaluation.values
    for place in (evaluation, importlib.import_module("sonde.evaluation.scores")):
        monkeypatch.setattr(place, "values", lambda *given: {**plain(*given), "accuracy": float("nan")})
    found = sonde.fit(recipe(steps=10, evaluate_every=5), out=tmp_path / "run")
    assert (found.artifact / "MANIFEST.json").is_file()
    assert found.scores["test"]["accuracy"].value is None
