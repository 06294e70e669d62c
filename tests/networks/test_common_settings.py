"""The settings that every backbone has: frozen, and started from weights of a file, an artifact or a run."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import sonde
from sonde import loop, stages
from sonde.base.errors import UserError
from sonde.base.progress import NoProgress
from sonde.data.store import encode
from sonde.recipe import Recipe

TABLES = {
    "data": {"source": "sklearn:digits", "split": {"by": "stratified"}},
    "inputs": {"image": {"kind": "image"}},
    "target": {"kind": "category"},
    "network": {"kind": "cnn", "widths": [4, 8], "convolutions": 1, "dropout": 0.5},
    "training": {"steps": 4, "batch_size": 32, "evaluate_every": 4, "precision": "fp32"},
}


def recipe(training=None, **network):
    tables = {**TABLES, "network": {**TABLES["network"], **network}}
    return Recipe.of({**tables, "training": {**TABLES["training"], **(training or {})}})


@pytest.fixture(scope="module")
def ready():
    """The task on digits, and its training examples."""
    train = stages.load_data(recipe()).splits["train"]
    task = stages.fit_task(recipe(), train)
    return task, encode(task, train)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return sonde.fit(recipe(), out=tmp_path_factory.mktemp("run") / "run")


def backbone_of(plan, task):
    return stages.build_network(plan, task).backbones["image"]


def held(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("kind", ["adamw", "muon", "sgd"])
@pytest.mark.parametrize("freeze", [True, False])
def test_a_frozen_backbone_stays_as_it_is(ready, kind, freeze):
    task, train = ready
    plan = recipe(training={"optimizer": {"kind": kind, "lr": 0.1}}, freeze=freeze)
    net = stages.build_network(plan, task)
    backbone = net.backbones["image"]
    before, head = held(backbone), held(net.head)
    state, steps, batches = stages.prepare(plan, task, net, train, None, NoProgress())
    for _ in loop.train(task, batches, state, steps):
        assert net.training
        assert net.head.training
        assert all(module.training != freeze for module in backbone.modules())
        assert all((one.grad is None) == freeze for one in backbone.parameters())
    norms = [name for name in before if name.endswith("running_mean")]
    assert norms
    same = {name: torch.equal(value, before[name]) for name, value in backbone.state_dict().items()}
    assert all(same.values()) if freeze else not any(same[name] for name in norms)
    assert not any(torch.equal(value, head[name]) for name, value in net.head.state_dict().items())
    optimized = {id(one) for each in state.optimizers for group in each.param_groups for one in group["params"]}
    assert all((id(one) not in optimized) == freeze for one in backbone.parameters())


def test_dropout_of_a_frozen_backbone_is_off(ready):
    task, train = ready
    batch = task.preprocess(task.collate(train.examples.take(torch.arange(16)), torch.arange(16)))
    for freeze in (True, False):
        net = stages.build_network(recipe(freeze=freeze), task).train()
        assert torch.equal(net(batch.inputs), net(batch.inputs)) == freeze


def test_nothing_left_to_train_is_told(ready):
    task, train = ready
    net = stages.build_network(recipe(), task).requires_grad_(False)
    with pytest.raises(UserError, match=r"no parameter of the network is trained\. hint: set network\.freeze to false"):
        stages.prepare(recipe(), task, net, train, None, NoProgress())


@pytest.mark.parametrize("source", ["run", "artifact", "file"])
def test_first_weights_of_a_run_an_artifact_or_a_file(ready, run, tmp_path, source):
    task, _ = ready
    wanted = held(sonde.load(run.artifact).network.backbones["image"])
    place = {"run": run.folder, "artifact": run.artifact, "file": tmp_path / "backbone.safetensors"}[source]
    if source == "file":
        save_file({name: value.contiguous() for name, value in wanted.items()}, place)
    plain = held(backbone_of(recipe(), task))
    found = held(backbone_of(recipe(weights=str(place)), task))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) for name, value in found.items())
    assert not any(torch.equal(value, plain[name]) for name, value in found.items() if name.endswith("running_mean"))
    # The head starts anew, and from the same numbers as without: only the backbone was given.
    started = held(stages.build_network(recipe(weights=str(place)), task).head)
    assert all(
        torch.equal(value, held(stages.build_network(recipe(), task).head)[name]) for name, value in started.items()
    )


def test_a_recipe_starts_from_a_run_beside_it_and_its_artifact_needs_it_no_more(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "first")
    (tmp_path / "recipe.toml").write_text(recipe(freeze=True).to_toml())
    plan = Recipe.read(tmp_path / "recipe.toml", changes=["network.image.weights=first"])
    assert plan.network["image"].weights == str(tmp_path / "first")
    second = sonde.fit(plan, out=tmp_path / "second")
    shutil.rmtree(tmp_path / "first")
    one, other = (load_file(each / "weights.safetensors") for each in (run.artifact, second.artifact))
    same = {name: torch.equal(value, one[name]) for name, value in other.items()}
    assert all(equal == name.startswith("backbones.") for name, equal in same.items()), same
    assert sonde.load(second.artifact).network.backbones["image"].training is False


def refused(task, **network):
    with pytest.raises(UserError) as caught:
        stages.build_network(recipe(**network), task)
    return str(caught.value)


def test_weights_that_do_not_fit_are_told_from_both_sides(ready, run):
    task, _ = ready
    said = refused(task, weights=str(run.folder), widths=[4, 8, 16])
    assert said.startswith("the weights do not fit Cnn: ")
    assert "missing: stages.2.layers.0.0.weight" in said
    assert "not used" not in said
    said = refused(task, weights=str(run.folder), widths=[4])
    assert "6 not used: " in said
    assert "stages.1.layers.0.0.weight" in said
    assert "missing" not in said
    said = refused(task, weights=str(run.folder), widths=[4, 6])
    assert "5 of another shape: " in said
    assert "stages.1.layers.0.0.weight (8, 4, 3, 3) for (6, 4, 3, 3)" in said
    assert "hint: set network.weights to the file of this network" in said


def test_weights_that_are_not_there_or_no_weights(ready, tmp_path):
    task, _ = ready
    assert refused(task, weights=str(tmp_path / "none")) == (
        f"network.weights: there is no file {tmp_path / 'none'}. Expected a .safetensors file, an artifact or a run."
    )
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    assert "cannot be read" in refused(task, weights=str(tmp_path / "broken.safetensors"))


def test_weights_of_a_task_with_several_inputs_are_ambiguous(ready, tmp_path):
    task, _ = ready
    weights = {"backbones.a.w": torch.zeros(1), "backbones.b.w": torch.zeros(1)}
    save_file(weights, tmp_path / "weights.safetensors")
    assert refused(task, weights=str(tmp_path)) == (
        f"network.weights: the artifact {tmp_path} has 2 backbones. Expected an artifact of a task with one input."
    )


def test_a_module_of_ones_own_is_not_frozen(ready):
    task, _ = ready
    net = stages.build_network(recipe(), task, nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert not net.frozen
