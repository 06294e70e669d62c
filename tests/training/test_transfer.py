"""How much of a pretrained network learns: rates by depth, layers that join in, adapters through whole runs."""

from __future__ import annotations

import pytest
import torch

import sonde
from sonde import loop, stages
from sonde.base.progress import NoProgress
from sonde.data.store import encode
from sonde.recipe import Recipe
from sonde.training import optimizers

DIGITS = {
    "data": {"source": "sklearn:digits", "split": {"by": "stratified"}},
    "inputs": {"image": {"kind": "image"}},
    "target": {"kind": "category"},
    "network": {"kind": "transformer", "width": 64, "layers": 2, "heads": 2, "patch": 4},
    "training": {"steps": 6, "batch_size": 32, "precision": "fp32"},
}


def recipe(**changes):
    return Recipe.of({name: {**section, **changes.get(name, {})} for name, section in DIGITS.items()})


class Told(NoProgress):
    def __init__(self):
        self.lines = []

    def message(self, text):
        self.lines.append(text)


@pytest.fixture(scope="module")
def ready():
    train = stages.load_data(recipe()).splits["train"]
    task = stages.fit_task(recipe(), train)
    return task, encode(task, train)


def test_rates_fall_towards_the_input(ready):
    task, _ = ready
    plan = recipe(training={"optimizer": {"kind": "adamw", "lr": 1e-3, "lr_head": 1e-2, "layer_decay": 0.5}})
    net = stages.build_network(plan, task)
    names = {id(value): name for name, value in net.named_parameters()}
    groups = [group for each in optimizers.build(plan.training.optimizer, net) for group in each.param_groups]
    rates = {names[id(one)]: group["initial_lr"] for group in groups for one in group["params"]}
    assert rates.keys() == set(names.values())
    assert rates["head.answer.weight"] == pytest.approx(1e-2)
    prefix = "backbones.image."
    assert rates[f"{prefix}norm.weight"] == pytest.approx(1e-3)
    assert rates[f"{prefix}blocks.1.fc1.weight"] == pytest.approx(5e-4)
    assert rates[f"{prefix}blocks.0.fc1.bias"] == pytest.approx(2.5e-4)
    assert rates[f"{prefix}entry.layer.weight"] == pytest.approx(1.25e-4)
    with pytest.raises(sonde.UserError, match="lr_head, layer_decay and unfreeze are for sgd"):
        recipe(training={"optimizer": {"kind": "muon", "layer_decay": 0.5}})


def test_layers_join_in_from_the_last_one_on(ready):
    task, train = ready
    plan = recipe(training={"steps": 8, "optimizer": {"kind": "adamw", "lr": 1e-2, "unfreeze": 1.0}})
    net = stages.build_network(plan, task)
    state, steps, batches = stages.prepare(plan, task, net, train, None, NoProgress())
    before = {name: value.clone() for name, value in net.named_parameters()}
    first = {}
    for step in loop.train(task, batches, state, steps):
        for name, value in net.named_parameters():
            if name not in first and not torch.equal(value, before[name]):
                first[name] = step.number
    prefix = "backbones.image."
    joined = [
        "head.answer.weight",
        *(prefix + name for name in ("norm.weight", "blocks.1.fc1.weight", "blocks.0.fc1.weight")),
    ]
    # Four layers: they join in after 2, 4, 6 and 8 of 8 steps.
    assert [first.get(name) for name in joined] == [1, 3, 5, 7]
    assert f"{prefix}entry.layer.weight" not in first


@pytest.mark.parametrize(
    "settings", [{"rank": 4}, {"rank": 4, "merge": True}, {"rank": 4, "quantize": "nf4", "merge": True}]
)
def test_adapters_through_a_run(tmp_path, settings):
    told = Told()
    plan = recipe(network={"lora": settings})
    run = sonde.fit(plan, out=tmp_path / "run", progress=told)
    assert any(line.startswith("trains ") and "adapters of " in line for line in told.lines)
    model = sonde.load(run.artifact)
    test = stages.load_data(plan).splits["test"]
    labels = [each["label"] for each in model.predict([test[index]["image"] for index in range(len(test))])]
    right = sum(str(label) == str(test[index]["label"]) for index, label in enumerate(labels)) / len(test)
    assert right == pytest.approx(run.scores["test"]["accuracy"].value, abs=1e-6)
    names = list(model.network.state_dict())
    assert any("lora" in name or "packed" in name for name in names) != settings.get("merge", False)
    assert any("merged into the weights" in line for line in told.lines) == settings.get("merge", False)
    assert (run.folder / "adapter" / "image" / "adapter_config.json").is_file()
    # Another run goes on from the adapter, on the same base.
    lora = {"adapter": str(run.folder / "adapter" / "image")}
    again = sonde.fit(recipe(network={"lora": lora}), out=tmp_path / "again")
    assert sonde.load(again.artifact).predict([test[0]["image"]])


def test_merging_is_refused_where_answers_would_move(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "MERGE_ALLOWED", -1.0)
    told = Told()
    run = sonde.fit(recipe(network={"lora": {"merge": True}}), out=tmp_path / "run", progress=told)
    assert any(line.startswith("not merged: answers would move by ") for line in told.lines)
    assert any("lora" in name for name in sonde.load(run.artifact).network.state_dict())


def test_frozen_and_adapted_at_once():
    with pytest.raises(sonde.UserError, match="freeze trains the head only, lora trains adapters; give one of them"):
        recipe(network={"freeze": True, "lora": {"rank": 2}})
