"""Training that diverges: back to the last checkpoint and on with a smaller rate, when the recipe allows it."""

from __future__ import annotations

import json

import pytest
import torch

import sonde
from sonde import loop
from sonde.base.errors import Diverged
from sonde.base.progress import NoProgress
from sonde.recipe import Recipe
from sonde.training import checkpoint

TABLES = {
    "data": {"source": "sklearn:digits", "split": {"by": "stratified"}},
    "inputs": {"image": {"kind": "image"}},
    "target": {"kind": "category"},
    "network": {"kind": "mlp", "hidden": [32]},
    "training": {"steps": 40, "batch_size": 100, "evaluate_every": 10, "log_every": 1},
}


def recipe(**training):
    return Recipe.of({**TABLES, "training": {**TABLES["training"], **training}})


class Heard(NoProgress):
    def __init__(self):
        self.said = []

    def message(self, line):
        self.said.append(line)


@pytest.fixture
def diverging(monkeypatch):
    """A loss that is changed at some steps, as long as the rate is too high for them."""
    plain = loop.gradients

    def put(steps, change, sound_below):
        def gradients(task, batch, epoch, state, plan):
            terms = plain(task, batch, epoch, state, plan)
            if state.step + 1 in steps and state.lr_scale > sound_below:
                terms = {name: change(value) for name, value in terms.items()}
            return terms

        monkeypatch.setattr(loop, "gradients", gradients)

    return put


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_nan_goes_back_and_on_with_half_the_rate(tmp_path, diverging):
    diverging({25}, lambda loss: loss * float("nan"), sound_below=0.5)
    heard = Heard()
    sonde.fit(recipe(rollback={}), out=tmp_path / "run", progress=heard)
    (line,) = (each for each in heard.said if "back to step" in each)
    assert "became NaN or infinite at step 25" in line
    assert "back to step 20, on with 0.5 times the learning rate" in line
    lines = log(tmp_path / "run")
    (gone_back,) = (each for each in lines if "rolled_back" in each)
    assert gone_back == {"step": 20, "rolled_back": 1, "from": 25, "lr_scale": 0.5}
    rates = {each["step"]: each["lr"] for each in lines if "lr" in each}
    first = next(each["lr"] for each in lines if each.get("step") == 21 and "lr" in each)
    assert rates[21] == pytest.approx(first / 2)
    assert max(rates) == 40


def test_a_spike_goes_back(tmp_path, diverging):
    diverging({25}, lambda loss: loss * 100, sound_below=0.3)
    sonde.fit(recipe(rollback={"spike": 10.0}), out=tmp_path / "run")
    assert [each["lr_scale"] for each in log(tmp_path / "run") if "rolled_back" in each] == [0.5, 0.25]


def test_before_the_first_validation_it_begins_again(tmp_path, diverging):
    diverging({3}, lambda loss: loss * float("inf"), sound_below=0.5)
    sonde.fit(recipe(rollback={}), out=tmp_path / "run")
    assert [each["step"] for each in log(tmp_path / "run") if "rolled_back" in each] == [0]


def test_it_gives_up_after_the_times_that_are_allowed(tmp_path, diverging):
    diverging({25}, lambda loss: loss * float("nan"), sound_below=0.0)
    with pytest.raises(Diverged, match="step 25") as caught:
        sonde.fit(recipe(rollback={"times": 2}), out=tmp_path / "run")
    assert caught.value.exit_code == 4
    assert sum("rolled_back" in each for each in log(tmp_path / "run")) == 2


def test_without_leave_it_stops(tmp_path, diverging):
    diverging({25}, lambda loss: loss * float("nan"), sound_below=0.0)
    with pytest.raises(Diverged, match=r"training\.rollback"):
        sonde.fit(recipe(), out=tmp_path / "run")


@pytest.mark.parametrize("kill_at", [5, 33])
def test_a_run_that_went_back_resumes_bit_for_bit(tmp_path, diverging, monkeypatch, kill_at):
    diverging({25}, lambda loss: loss * float("nan"), sound_below=0.5)
    plan = recipe(rollback={"spike": 50.0}, ema_decay=0.9)
    sonde.fit(plan, out=tmp_path / "straight")
    train = loop.train

    def killed(*arguments):
        for each in train(*arguments):
            yield each
            if each.number == kill_at:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train", killed)
        with pytest.raises(KeyboardInterrupt):
            sonde.fit(plan, out=tmp_path / "killed")
    sonde.fit(plan, out=tmp_path / "killed", resume=True)
    for name in ("log.jsonl", "scores.json", "model/weights.safetensors"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    held = [
        checkpoint.tensors.read(tmp_path / each / "checkpoints" / "step-000000040.safetensors")[0]
        for each in ("straight", "killed")
    ]
    assert all(torch.equal(held[0][name], held[1][name]) for name in held[0])
