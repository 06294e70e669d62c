"""The number format chosen by measuring: the run keeps it, the machine remembers it, measuring changes nothing."""

from __future__ import annotations

import json

import pytest
import torch

import sonde
from sonde import loop, probe, run
from sonde.base.device import Precision, formats
from sonde.base.progress import Quiet
from sonde.data.store import encode
from sonde.recipe import Recipe

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
def case(monkeypatch, tmp_path):
    """What the probe is given, at step 0."""
    monkeypatch.setenv("SONDE_CACHE", str(tmp_path / "cache"))
    plan = recipe(precision="fp32")
    data = run.load_data(plan)
    task = run.learn(plan, data.splits["train"])
    network = run.build(plan, task)
    state, steps, batches = run.prepare(plan, task, network, encode(task, data.splits["train"]), None, Quiet())
    return task, network, batches, steps, state.micro_batch


@needs_bf16
def test_the_quickest_is_taken_and_float32_where_nothing_is_gained():
    assert probe._decide({"fp32": 1.0, "bf16": 0.5, "bf16-math": 0.6}).format == "bf16"
    assert probe._decide({"fp32": 1.0, "bf16": 0.6, "bf16-math": 0.5}).format == "bf16-math"
    assert probe._decide({"fp32": 1.0, "bf16": 0.99, "bf16-math": 1.2}).format == "fp32"


@needs_bf16
def test_measuring_changes_nothing(case):
    task, network, batches, plan, micro_batch = case
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = probe.measure(task, network, batches, plan, micro_batch, formats(CPU))
    assert set(found) == set(formats(CPU))
    assert all(seconds > 0 for seconds in found.values())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


@needs_bf16
def test_a_machine_remembers(case, monkeypatch):
    task, network, batches, plan, micro_batch = case
    times = {"fp32": 1.0, "bf16": 0.5, "bf16-math": 0.6}
    monkeypatch.setattr(probe, "measure", lambda *arguments: times)
    assert "measured here" in str(probe.choose("auto", task, network, batches, plan, micro_batch))
    monkeypatch.setattr(probe, "measure", None)
    again = probe.choose("auto", task, network, batches, plan, micro_batch)
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


def test_few_steps_are_not_measured(case, monkeypatch):
    task, network, batches, plan, micro_batch = case
    monkeypatch.setattr(probe, "measure", None)
    few = loop.Plan(steps=20, seed=0, schedule=plan.schedule, precision=plan.precision)
    assert probe.choose("auto", task, network, batches, few, micro_batch).format == "fp32"
    assert probe.choose("bf16", task, network, batches, few, micro_batch).format == "bf16"


@needs_bf16
def test_bf16_math_is_on_for_its_block_only():
    """Whether a product is then rounded is for oneDNN to say: without matrix units some processors keep float32."""
    matrix = torch.randn(512, 512)
    places = (torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv, torch.backends.mkldnn.rnn)
    before = [place.fp32_precision for place in places]
    exact = matrix @ matrix
    with Precision(kind="bf16-math", device=CPU).maths():
        assert [place.fp32_precision for place in places] == ["bf16"] * 3
        rough = matrix @ matrix
    assert rough.dtype == torch.float32
    assert float((rough - exact).abs().max()) < 1.0
    assert [place.fp32_precision for place in places] == before
    assert torch.equal(matrix @ matrix, exact)
