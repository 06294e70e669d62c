"""Promises at the settings that people really use: nothing is made smaller here than a recipe makes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as some
from torch import nn

import sonde
from sonde import loop, stages
from sonde.base.errors import Diverged, UserError
from sonde.base.progress import NoProgress
from sonde.data.store import encode
from sonde.recipe import Recipe
from sonde.training.run_folder import RunFolder

RECIPES = Path(__file__).parents[1] / "recipes"


def sonde_fit(*words, processes=1):
    command = [sys.executable, "-m", "sonde", "fit"]
    if processes > 1:
        start = ["--standalone", f"--nproc-per-node={processes}", "-m", "sonde", "fit"]
        command = [sys.executable, "-m", "torch.distributed.run", *start]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *map(str, words)], capture_output=True, text=True, timeout=300, env=environment)


def losses(folder):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def test_two_processes_at_the_defaults_finish_and_equal_one(tmp_path):
    """150 steps of the digits recipe: beyond 100 the number format is measured. Dropout draws differently in each
    process, so it is off for the comparison, and nothing else is changed."""
    words = (RECIPES / "digits.toml", "--set", "training.steps=150", "--set", "network.dropout=0")
    two = sonde_fit(*words, "--out", tmp_path / "two", processes=2)
    assert two.returncode == 0, two.stderr
    kept = json.loads((tmp_path / "two" / "precision.json").read_text())
    one = sonde_fit(*words, "--out", tmp_path / "one", "--set", f"training.precision={kept['format']}")
    assert one.returncode == 0, one.stderr
    # Sums in another order differ in the last digit, which grows tenfold every few steps (docs/log.md): the first steps
    # are the same, and so is what comes of it.
    rounding = 1e-3 if kept["format"] == "fp32" else 3e-2
    np.testing.assert_allclose(losses(tmp_path / "two")[:10], losses(tmp_path / "one")[:10], rtol=rounding)
    two_scores, one_scores = (json.loads((tmp_path / name / "scores.json").read_text()) for name in ("two", "one"))
    assert abs(two_scores["test"]["accuracy"]["value"] - one_scores["test"]["accuracy"]["value"]) < 0.03
    assert len(losses(tmp_path / "two")) == len(losses(tmp_path / "one")) == 150


def three_steps(recipe, records):
    """The weights after three steps."""
    task = stages.fit_task(recipe, records)
    network = stages.build_network(recipe, task)
    state, plan, batches = stages.prepare(recipe, task, network, encode(task, records), None, NoProgress())
    for step in loop.train(task, batches, state, plan):
        if step.number == 3:
            break
    return network.state_dict()


optimizers = some.fixed_dictionaries(
    {"kind": some.sampled_from(["sgd", "adam", "adamw", "muon"])},
    optional={"lr": some.sampled_from([0.1, 1e-3]), "momentum": some.just(0.8), "weight_decay": some.just(0.1)},
)
schedules = some.fixed_dictionaries(
    {"kind": some.sampled_from(["constant", "warmup-cosine", "one-cycle", "step", "plateau"])},
    optional={"warmup": some.sampled_from([0.0, 0.5]), "min_lr_ratio": some.just(0.1), "gamma": some.just(0.3)},
)


@hypothesis.settings(max_examples=25, deadline=None, derandomize=True)
@hypothesis.given(
    some.fixed_dictionaries(
        {"optimizer": optimizers, "schedule": schedules},
        optional={"max_grad_norm": some.sampled_from([0, 0.5]), "ema_decay": some.just(0.9), "seed": some.just(3)},
    )
)
def test_the_resolved_recipe_trains_the_same_steps(training):
    """Read -> write -> read changes nothing, whichever settings were given and whichever were left out."""
    tables = {
        "data": {"source": "sklearn:digits"},
        "inputs": {"image": {"kind": "image"}},
        "target": {"kind": "category"},
        "network": {"kind": "mlp", "hidden": [8]},
        "training": {"steps": 6, "precision": "fp32", **training},
    }
    recipe = Recipe.of(tables)
    again = Recipe.of(tomllib.loads(recipe.to_toml()))
    assert again.to_toml() == recipe.to_toml()
    records = stages.load_data(recipe).splits["train"].part(0, 200)
    first, second = three_steps(recipe, records), three_steps(again, records)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.toml")))
def test_every_ready_recipe_is_resolved_once(name, shared):
    recipe = Recipe.read(RECIPES / f"{name}.toml")
    again = Recipe.of(tomllib.loads(recipe.to_toml()))
    assert again.to_toml() == recipe.to_toml()
    assert again == recipe


def digits(**training):
    return Recipe.of(
        {
            "data": {"source": "sklearn:digits"},
            "inputs": {"image": {"kind": "image"}},
            "target": {"kind": "category"},
            "network": {"kind": "mlp", "hidden": [8]},
            "training": {"steps": 4, **training},
        }
    )


def test_resume_begins_where_there_is_nothing_yet(tmp_path):
    sonde.fit(digits(), out=tmp_path / "new", resume=True)
    sonde.fit(digits(), out=tmp_path / "straight")
    assert (tmp_path / "new" / "log.jsonl").read_bytes() == (tmp_path / "straight" / "log.jsonl").read_bytes()
    (tmp_path / "empty").mkdir()
    sonde.fit(digits(), out=tmp_path / "empty", resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(UserError, match="already holds other files"):
        sonde.fit(digits(), out=tmp_path / "other", resume=True)
    assert [each.name for each in (tmp_path / "other").iterdir() if not each.name.startswith(".")] == ["letter.txt"]


def test_clipping_can_be_switched_off(tmp_path):
    """In TOML and in Python; with gradients this long it makes a difference."""
    norms = {}
    for value in (0, 1e-3):
        changes = {"max_grad_norm": value, "optimizer": {"kind": "sgd", "lr": 0.1}, "log_every": 1}
        sonde.fit(digits(**changes), out=tmp_path / str(value))
        lines = map(json.loads, (tmp_path / str(value) / "log.jsonl").read_text().splitlines())
        norms[value] = [line["norm"] for line in lines if "norm" in line]
    assert norms[0][0] == norms[1e-3][0]
    assert norms[0][1:] != norms[1e-3][1:]


class Tied(nn.Module):
    """Two layers that are one."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.second = nn.Linear(64, 64)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(64)
        self.out = nn.Linear(64, 10)

    def forward(self, grid):
        return self.out(self.norm(self.second(self.first(grid.flatten(1)).relu())))


def test_a_module_with_tied_weights_is_saved_resumed_and_loaded(tmp_path):
    done = sonde.fit(digits(steps=8, evaluate_every=4), out=tmp_path / "run", network=Tied())
    model = sonde.load(done.artifact, network=Tied())
    weights = model.network.state_dict()
    (first,) = (value for name, value in weights.items() if name.endswith("first.weight"))
    (second,) = (value for name, value in weights.items() if name.endswith("second.weight"))
    assert torch.equal(first, second)


def test_nan_with_batch_norm_over_vectors_names_the_record(tmp_path):
    """Single examples have no batch statistics: what they are to blame for is found out all the same."""
    rows = ["a,b,label"] + [f"{number},{number % 7},{'yes' if number % 2 else 'no'}" for number in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(rows))
    recipe = Recipe.of(
        {
            "data": {"source": str(tmp_path / "rows.csv"), "split": {"by": "order", "validation": 0, "test": 0}},
            "inputs": {"row": {"kind": "table", "fields": ["a", "b"]}},
            "target": {"kind": "category"},
            "network": {"kind": "mlp", "hidden": [8], "norm": "batch"},
            "training": {"steps": 50, "batch_size": 20, "optimizer": {"kind": "sgd", "lr": 1e30}, "max_grad_norm": 0},
        }
    )
    with pytest.raises(Diverged, match="became NaN or infinite"):
        sonde.fit(recipe, out=tmp_path / "run")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (["1", "", "2"], "the weight of row 2 in column 'w' is"),
        (["1", "heavy", "2"], "'heavy'"),
        (["1", "-3", "2"], "-3"),
        (["0", "0", "0"], "all weights in column 'w' are 0"),
    ],
)
def test_weights_of_records_are_checked(tmp_path, weights, message):
    rows = ["a,w,label"] + [f"{number},{weights[number % 3]},{'yes' if number % 2 else 'no'}" for number in range(30)]
    (tmp_path / "rows.csv").write_text("\n".join(rows))
    recipe = Recipe.of(
        {
            "data": {"source": str(tmp_path / "rows.csv"), "weight": "w", "split": {"by": "order"}},
            "inputs": {"row": {"kind": "table", "fields": ["a"]}},
            "target": {"kind": "category"},
            "network": {"kind": "mlp", "hidden": [8]},
            "training": {"steps": 3},
        }
    )
    with pytest.raises(UserError, match=message):
        sonde.fit(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_windows_take_no_weight(tmp_path):
    (tmp_path / "texts.csv").write_text("text,w\n" + "some words to go on with,1\n" * 30)
    recipe = Recipe.of(
        {
            "data": {"source": str(tmp_path / "texts.csv"), "weight": "w", "split": {"by": "order"}},
            "inputs": {"text": {"kind": "text", "tokens": "characters", "window": 16}},
            "target": {"kind": "next-token"},
            "network": {"kind": "recurrent", "width": 8, "embedding": 8},
            "training": {"steps": 3},
        }
    )
    with pytest.raises(UserError, match=r"data\.weight gives a weight per record"):
        sonde.fit(recipe, out=tmp_path / "run")


def test_a_run_folder_has_one_owner(tmp_path):
    """The second process gets an error that names the first; nothing of the run is touched."""
    sonde.fit(digits(), out=tmp_path / "run")
    before = (tmp_path / "run" / "log.jsonl").read_bytes()
    with RunFolder.open(tmp_path / "run", resume=True):
        second = sonde_fit(tmp_path / "run" / "recipe.toml", "--out", tmp_path / "run", "--resume")
    assert second.returncode == 2
    assert f"in use by process {os.getpid()} on" in second.stderr
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == before
    sonde.fit(Recipe.read(tmp_path / "run" / "recipe.toml"), out=tmp_path / "run", resume=True)


def test_evaluation_adapts_when_memory_runs_out(monkeypatch):
    """Training does; so must validation, whose batches may be larger than those of training."""
    from sonde import evaluation
    from sonde.base.device import Precision

    recipe = digits()
    records = stages.load_data(recipe).splits["test"]
    task = stages.fit_task(recipe, records)
    network = stages.build_network(recipe, task)
    examples = encode(task, records).examples
    exact = Precision(kind="fp32", device=torch.device("cpu"))
    wanted = evaluation.eval_outputs(task, network, examples, precision=exact)
    sizes, real = [], type(task.target).eval_outputs

    def limited(self, network, batch):
        sizes.append(len(batch))
        if len(batch) > 50:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return real(self, network, batch)

    monkeypatch.setattr(type(task.target), "eval_outputs", limited)
    found = evaluation.eval_outputs(task, network, examples, precision=exact)
    assert max(sizes) > 50
    np.testing.assert_allclose(found["probabilities"], wanted["probabilities"], rtol=1e-5)
    sizes.clear()
    evaluation.eval_outputs(task, network, examples, precision=exact, size=10)
    assert max(sizes) == 10


def test_nothing_of_the_process_changes(tmp_path):
    """No reseeded generator, thread count, collector, environment, patched torch or thread that stays."""
    import gc

    from torch.optim import Optimizer

    step, group = torch.optim.AdamW.step, Optimizer.add_param_group
    torch.manual_seed(5)
    before = (torch.get_rng_state(), torch.get_num_threads(), gc.get_freeze_count(), dict(os.environ))
    threads = set(threading.enumerate())
    sonde.fit(digits(), out=tmp_path / "run")
    after = (torch.get_rng_state(), torch.get_num_threads(), gc.get_freeze_count(), dict(os.environ))
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert set(threading.enumerate()) == threads
    assert (torch.optim.AdamW.step, Optimizer.add_param_group) == (step, group)
    assert not hasattr(group, "__dynamo_disable")


def test_hooks_on_the_optimizers_are_called():
    recipe = digits()
    records = stages.load_data(recipe).splits["train"]
    task = stages.fit_task(recipe, records)
    network = stages.build_network(recipe, task)
    state, plan, batches = stages.prepare(recipe, task, network, encode(task, records), None, NoProgress())
    called = []
    state.optimizers[0].register_step_post_hook(lambda *arguments: called.append(1))
    list(loop.train(task, batches, state, plan))
    assert len(called) == 4
