"""Artifacts whose content is wrong behind valid hashes: a clear error or an answer, never a traceback or the memory."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import sonde
from sonde import artifact, cli, stages
from sonde.artifact.folder import FILES
from sonde.base import files
from sonde.base.errors import RecordError, UserError
from sonde.recipe import Recipe

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "faults_artifact.py"
PICTURE = np.zeros((8, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def faults():
    spec = importlib.util.spec_from_file_location("faults_artifact", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["faults_artifact"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["faults_artifact"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small artifact as `fit` writes it."""
    recipe = Recipe.of(
        {
            "data": {"source": "sklearn:digits"},
            "inputs": {"image": {"kind": "image"}},
            "target": {"kind": "category"},
            "network": {"kind": "mlp", "hidden": [8]},
            "training": {"steps": 1},
        }
    )
    task = stages.fit_task(recipe, stages.load_data(recipe).splits["train"])
    folder = tmp_path_factory.mktemp("artifact") / "model"
    artifact.write(folder, task, recipe.network, stages.build_network(recipe, task).state_dict(), {})
    return folder


@pytest.fixture
def changed(whole, tmp_path):
    """Change a file of a copy and rewrite the manifest."""

    def change(name, how):
        folder = tmp_path / "model"
        if not folder.exists():
            shutil.copytree(whole, folder)
        how(folder / name)
        files.write_json(folder / "MANIFEST.json", {each: files.sha256(folder / each) for each in FILES})
        return folder

    return change


def setting(*place, value):
    def how(path):
        whole = held = json.loads(path.read_text())
        for key in place[:-1]:
            held = held[key]
        held[place[-1]] = value
        path.write_text(json.dumps(whole))

    return how


def tensors(change):
    def how(path):
        held = load_file(path)
        change(held)
        save_file(held, path)

    return how


def test_two_hundred_changes_end_in_a_clear_error_or_an_answer(faults, tmp_path):
    samples = faults.make(tmp_path, every=6)
    assert len(samples) >= 6
    chunk = faults.Chunk(seed=7, start=0, stop=1, samples=samples, folder=tmp_path)
    before = signal.signal(signal.SIGALRM, faults._time_over)
    try:
        found = [faults.trial(number, chunk) for number in range(200)]
    finally:
        signal.signal(signal.SIGALRM, before)
    kinds = {each["found"] for each in found}
    assert kinds <= {"clear error, load", "clear error, answer", "loads, the same answer", "loads, another answer"}, [
        each for each in found if each["found"].startswith(("RAW", "HANGS"))
    ]
    assert sum(each["found"].startswith("clear error") for each in found) > 100
    assert max(each["memory"] for each in found) < faults.MOST_MEMORY


def test_the_changes_are_found_out_by_a_faulty_reader(faults, tmp_path, monkeypatch):
    """The trial can fail: a reader that lets exceptions through is told."""
    samples = faults.make(tmp_path, every=6)
    chunk = faults.Chunk(seed=7, start=0, stop=1, samples=samples, folder=tmp_path)
    monkeypatch.setattr(faults.sonde, "load", lambda path: json.loads((path / "task.json").read_text())["missing"])
    assert faults.trial(0, chunk)["found"].startswith("RAW")


@pytest.mark.parametrize(
    ("name", "how", "words"),
    [
        ("task.json", lambda path: path.write_bytes(b"\xff\xfe{"), "UnicodeDecodeError"),
        ("task.json", lambda path: path.write_text("[" * 100_000), "RecursionError"),
        ("task.json", lambda path: path.write_text("[]"), "it holds list, not an object"),
        ("task.json", setting("format", value=99), "has format 99. Expected format 2"),
        ("task.json", setting("parts", value={}), "have to be inputs.NAME, target and trust"),
        ("task.json", setting("parts", "target", "fitted", "classes", value=[1]), "target: classes.0: Input should be"),
        ("task.json", setting("parts", "target", "fitted", "class_counts", value=[1]), "1 counts for 10 classes"),
        ("task.json", setting("parts", "inputs.image", "fitted", "size", value=[10**6] * 2), "more than 16,777,216"),
        ("task.json", setting("parts", "inputs.image", "fitted", "size", value=[16, 16]), "1 of another shape"),
        (
            "task.json",
            setting("parts", "inputs.image", "config", "kind", value="Image!"),
            "kind 'Image!' does not exist",
        ),
        ("task.json", setting("network", "image", "hidden", value=[10**9]), "of another shape"),
        ("task.json", setting("network", "image", "hidden", value=[2**62]), "network: RuntimeError"),
        ("task.json", setting("network", "image", "hidden", value=[8] * 5000), "a far larger network"),
        ("weights.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-5]), "SafetensorError"),
        ("weights.safetensors", lambda path: path.write_bytes(b"\xff" * 8 + b"{}"), "SafetensorError"),
        ("weights.safetensors", tensors(lambda held: held.update(x=torch.zeros(1))), "1 not used: x"),
        (
            "weights.safetensors",
            tensors(lambda held: held.update({"head.answer.bias": torch.zeros(10, dtype=torch.int32)})),
            "1 of another kind of number: head.answer.bias int32 for float32",
        ),
        ("weights.safetensors", tensors(lambda held: held["head.answer.bias"].fill_(torch.nan)), "NaN or infinite"),
        ("task.safetensors", tensors(lambda held: held.update({"x.y": torch.zeros(1)})), "tensors of no part: x.y"),
        ("card.json", setting("recipe", value="[["), "recipe: TOMLDecodeError"),
    ],
)
def test_what_is_told(changed, name, how, words):
    with pytest.raises(UserError) as caught:
        sonde.load(changed(name, how))
    assert words in str(caught.value)


def test_the_command_line_ends_with_2(changed, monkeypatch, capsys, tmp_path):
    folder = changed("task.json", setting("parts", "target", "fitted", "classes", value=None))
    monkeypatch.setattr("sys.argv", ["sonde", "predict", str(folder), str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert "task.json does not hold what sonde writes: target: classes: Input should be a valid array" in told
    assert "hint: restore it from a copy" in told


def test_a_manifest_of_nothing_but_brackets(changed):
    folder = changed("card.json", lambda path: None)
    (folder / "MANIFEST.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"is not a sonde artifact: MANIFEST.json cannot be read"):
        sonde.load(folder)


def test_weights_that_overflow_give_an_error_and_no_nan(changed):
    folder = changed("weights.safetensors", tensors(lambda held: held["head.answer.weight"].fill_(3e38)))
    with pytest.raises(RecordError, match="the answer is NaN or infinite"):
        sonde.load(folder).predict([PICTURE + 200])


def test_loading_draws_nothing_from_the_callers_generator(whole):
    before = torch.get_rng_state()
    sonde.load(whole)
    assert torch.equal(before, torch.get_rng_state())


def test_a_wrong_module_is_told_what_is_missing_left_over_and_of_another_shape(tmp_path):
    recipe = Recipe.of(
        {
            "data": {"source": "sklearn:digits"},
            "inputs": {"image": {"kind": "image"}},
            "target": {"kind": "category"},
            "network": {"kind": "mlp"},
            "training": {"steps": 1},
        }
    )
    task = stages.fit_task(recipe, stages.load_data(recipe).splits["train"])

    def module(*layers):
        return nn.Sequential(nn.Flatten(), *layers)

    right = module(nn.Linear(64, 16), nn.Linear(16, 10))
    folder = tmp_path / "model"
    artifact.write(folder, task, None, stages.build_network(recipe, task, right).state_dict(), {})
    assert sonde.load(folder, network=module(nn.Linear(64, 16), nn.Linear(16, 10))).predict([PICTURE])
    with pytest.raises(UserError) as caught:
        sonde.load(folder, network=module(nn.Linear(64, 16, bias=False), nn.ReLU(), nn.Linear(16, 10)))
    told = str(caught.value)
    assert "do not fit Sequential: 2 missing: 3.weight, 3.bias; 3 not used: 1.bias, 2.bias, 2.weight" in told
    with pytest.raises(UserError, match=r"2 of another shape: 1.weight \(16, 64\) for \(32, 64\), 1.bias"):
        sonde.load(folder, network=module(nn.Linear(64, 32), nn.Linear(16, 10)))
    with pytest.raises(UserError, match="network=the_module"):
        sonde.load(folder)


def test_memory_that_runs_out_halves_the_batch(whole, monkeypatch):
    model = sonde.load(whole)
    answers = model.predict([PICTURE] * 5)
    real, seen = type(model)._answer, []

    def small(self, rows, *doubts):
        seen.append(len(rows))
        if len(rows) > 1:
            raise MemoryError
        return real(self, rows, *doubts)

    monkeypatch.setattr(type(model), "_answer", small)
    assert [each["label"] for each in model.predict([PICTURE] * 5)] == [each["label"] for each in answers]
    assert max(seen) == 5
    monkeypatch.setattr(type(model), "_answer", lambda self, *rows: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(UserError, match="memory ran out over one input alone"):
        model.predict([PICTURE])
