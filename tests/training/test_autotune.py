"""The number format chosen by measuring: the run keeps it, the machine remembers it, measuring changes nothing."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

import sonde
from sonde import loop, stages
from sonde.base.device import Precision, formats
from sonde.base.progress import NoProgress
from sonde.data.store import encode
from sonde.recipe import Recipe
from sonde.training import autotune

CPU = torch.device("cpu")
TABLES = {
    "data": {"source": "sklearn:digits", "split": {"by": "stratified"}},
    "inputs": {"image": {"kind": "image"}},
    "target": {"kind": "category"},
    "network": {"kind": "cnn", "widths": [4]},
    "training": {"steps": 120, "batch_size": 32, "evaluate_every": 60},
}
needs_bf16 = pytest.mark.skipif(len(formats(CPU)) == 1, reason="this processor has no bfloat16")


def recipe(**training):
    return Recipe.of({**TABLES, "training": {**TABLES["training"], **training}})


@pytest.fixture
def workload(monkeypatch, tmp_path):
    """What is measured, at step 0."""
    monkeypatch.setenv("SONDE_CACHE", str(tmp_path / "cache"))
    plan = recipe(precision="fp32")
    data = stages.load_data(plan)
    task = stages.fit_task(plan, data.splits["train"])
    network = stages.build_network(plan, task)
    state, steps, batches = stages.prepare(plan, task, network, encode(task, data.splits["train"]), None, NoProgress())
    return autotune.Workload(task=task, network=network, batches=batches, plan=steps, micro_batch=state.micro_batch)


@needs_bf16
def test_the_quickest_is_taken_and_float32_where_nothing_is_gained():
    assert autotune._decide({"fp32": 1.0, "bf16": 0.5, "bf16-math": 0.6}).format == "bf16"
    assert autotune._decide({"fp32": 1.0, "bf16": 0.6, "bf16-math": 0.5}).format == "bf16-math"
    assert autotune._decide({"fp32": 1.0, "bf16": 0.99, "bf16-math": 1.2}).format == "fp32"


@needs_bf16
def test_measuring_changes_nothing(workload):
    before = {name: value.clone() for name, value in workload.network.state_dict().items()}
    found = autotune.measure(workload, formats(CPU))
    assert set(found) == set(formats(CPU))
    assert all(0 < seconds < 100 for seconds in found.values())
    assert all(torch.equal(value, before[name]) for name, value in workload.network.state_dict().items())
    assert all(parameter.grad is None for parameter in workload.network.parameters())


@needs_bf16
def test_a_machine_remembers(workload, monkeypatch):
    times = {"fp32": 1.0, "bf16": 0.5, "bf16-math": 0.6}
    monkeypatch.setattr(autotune, "measure", lambda *arguments: times)
    assert "measured here" in str(autotune.choose(workload, "auto"))
    monkeypatch.setattr(autotune, "measure", None)
    again = autotune.choose(workload, "auto")
    assert again.format == "bf16"
    assert again.why == "as measured here before"
    assert "fp32 1e+03 ms" in str(again)


def test_a_run_keeps_its_format(tmp_path, monkeypatch):
    """A resume takes the format of the start, whatever would be chosen now."""
    monkeypatch.setenv("SONDE_CACHE", str(tmp_path / "cache"))
    sonde.fit(recipe(), out=tmp_path / "run")
    kept = json.loads((tmp_path / "run" / "precision.json").read_text())
    assert kept["format"] in formats(CPU)
    (tmp_path / "run" / "precision.json").write_text(json.dumps({**kept, "format": "fp32", "why": "kept"}))
    used = []
    plain = loop.train
    monkeypatch.setattr(
        loop,
        "train",
        lambda task, batches, state, plan: used.append(plan.precision.kind) or plain(task, batches, state, plan),
    )
    sonde.fit(recipe(), out=tmp_path / "run", resume=True)
    assert used == ["fp32"]


def test_few_steps_are_not_measured(workload, monkeypatch):
    monkeypatch.setattr(autotune, "measure", None)
    few = dataclasses.replace(workload, plan=dataclasses.replace(workload.plan, steps=20))
    assert autotune.choose(few, "auto").format == "fp32"
    assert autotune.choose(few, "bf16").format == "bf16"


@pytest.fixture
def quick_compiler(monkeypatch):
    """torch's own tracing without the code generation behind it, which takes half a minute."""
    made = []
    plain = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network: made.append(network) or plain(network, backend="eager"))
    return made


@needs_bf16
def test_a_long_run_tries_to_compile_and_a_short_one_does_not(workload, monkeypatch, quick_compiler):
    monkeypatch.setattr(autotune, "measure", lambda *arguments: {"fp32": 1.0, "bf16": 0.5, "bf16-math": 0.6})
    short = autotune.resolve(workload, "auto", "auto", None)
    assert not quick_compiler
    assert short.compiling is None
    endless = dataclasses.replace(workload, plan=dataclasses.replace(workload.plan, steps=100_000))
    tried = autotune.resolve(endless, "auto", "auto", None)
    assert quick_compiler
    assert "failed" not in tried.why, tried.why
    assert {"bf16", "compiled"} <= set(tried.seconds)
    assert tried.compiling > 0
    quick_compiler.clear()
    # Now that the machine knows, nothing is tried: the forecast decides.
    autotune.resolve(endless, "auto", "auto", None)
    assert not quick_compiler


def test_the_forecast_weighs_what_is_saved_against_compiling(workload):
    known = autotune.ExecutionPlan(format="fp32", why="", seconds={"fp32": 1.0, "compiled": 0.5}, compiling=70.0)
    assert not autotune._perhaps_compiled(
        dataclasses.replace(workload, plan=dataclasses.replace(workload.plan, steps=120)), known
    ).compiled
    assert autotune._perhaps_compiled(
        dataclasses.replace(workload, plan=dataclasses.replace(workload.plan, steps=160)), known
    ).compiled
    slower = dataclasses.replace(known, seconds={"fp32": 1.0, "compiled": 0.99})
    assert not autotune._perhaps_compiled(
        dataclasses.replace(workload, plan=dataclasses.replace(workload.plan, steps=10**6)), slower
    ).compiled


def test_a_compiled_run_learns_and_its_artifact_loads(tmp_path, quick_compiler):
    plan = recipe(compile=True, steps=10, evaluate_every=5)
    straight = sonde.fit(plan, out=tmp_path / "run")
    assert quick_compiler
    model = sonde.load(straight.artifact)
    assert model.predict([stages.load_data(plan).splits["test"][0]["image"]])[0]["label"]


@needs_bf16
def test_bf16_math_is_on_for_its_block_only():
    """Whether a product is then rounded is for oneDNN to say: without matrix units some processors keep float32."""
    matrix = torch.randn(512, 512)
    places = (torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv, torch.backends.mkldnn.rnn)
    before = [place.fp32_precision for place in places]
    exact = matrix @ matrix
    with Precision(kind="bf16-math", device=CPU).matmul_precision():
        assert [place.fp32_precision for place in places] == ["bf16"] * 3
        rough = matrix @ matrix
    assert rough.dtype == torch.float32
    assert float((rough - exact).abs().max()) < 1.0
    assert [place.fp32_precision for place in places] == before
    assert torch.equal(matrix @ matrix, exact)
