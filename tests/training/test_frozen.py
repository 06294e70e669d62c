"""Features of frozen backbones, computed once: the same training as when they are computed in every step."""

from __future__ import annotations

import pytest
import torch

import sonde
from sonde import loop, stages
from sonde.base.progress import NoProgress
from sonde.data.store import encode
from sonde.networks import Network
from sonde.recipe import Recipe
from sonde.training import checkpoint, frozen

DIGITS = {
    "data": {"source": "sklearn:digits", "split": {"by": "stratified"}},
    "inputs": {"image": {"kind": "image"}},
    "target": {"kind": "category"},
    "network": {"kind": "cnn", "widths": [4, 8], "convolutions": 1, "freeze": True},
    "training": {"steps": 6, "batch_size": 32, "evaluate_every": 3, "precision": "fp32"},
}


def recipe(**changes):
    return Recipe.of({name: {**section, **changes.get(name, {})} for name, section in DIGITS.items()})


class Told(NoProgress):
    def __init__(self):
        self.lines = []

    def message(self, text):
        self.lines.append(text)


def trained(plan, keep):
    data = stages.load_data(plan)
    task = stages.fit_task(plan, data.splits["train"])
    net = stages.build_network(plan, task)
    sets = {"train": encode(task, data.splits["train"])}
    if keep:
        task, sets = stages.keep_features(plan, task, net, sets, NoProgress())
        assert isinstance(task.inputs["image"], frozen.Featured)
    state, steps, batches = stages.prepare(plan, task, net, sets["train"], None, NoProgress())
    losses = [float(loop.sum_of(step.terms)) for step in loop.train(task, batches, state, steps)]
    return losses, {name: value.clone() for name, value in net.state_dict().items()}


def words(tmp_path):
    lines = [
        f"{word} {'DT' if word == 'the' else 'NN'}" for word in ["the", "sonde", "line", "the", "deep", "sea"] * 20
    ]
    text = "\n\n".join("\n".join(lines[at : at + 2 + at % 4]) for at in range(0, 100, 5))
    (tmp_path / "words.conll").write_text(text + "\n")
    return Recipe.of(
        {
            "data": {"source": str(tmp_path / "words.conll")},
            "inputs": {"image": {"kind": "text", "field": "words"}},
            "target": {"kind": "tags"},
            "network": {"kind": "transformer", "width": 16, "layers": 1, "heads": 2, "freeze": True},
            "training": {"steps": 4, "batch_size": 4, "precision": "fp32"},
        }
    )


def masks(shared):
    return Recipe.of(
        {
            "data": {"source": str(shared / "camvid_small")},
            "inputs": {"image": {"kind": "image", "size": [32, 48]}},
            "target": {"kind": "mask", "ignore": 11},
            "network": {"kind": "timm", "name": "test_efficientnet", "freeze": True},
            "training": {"steps": 2, "batch_size": 4, "precision": "fp32"},
        }
    )


@pytest.mark.parametrize("asked", ["example", "position", "pixel"])
def test_training_is_the_same(asked, tmp_path, request):
    plan = recipe()
    if asked != "example":
        plan = words(tmp_path) if asked == "position" else masks(request.getfixturevalue("shared"))
    (kept, one), (again, other) = trained(plan, True), trained(plan, False)
    torch.testing.assert_close(torch.tensor(kept), torch.tensor(again), rtol=1e-5, atol=1e-5)
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-3, atol=1e-4, msg=name)


def test_a_run_says_so_scores_the_same_and_its_artifact_takes_pictures(tmp_path):
    told = Told()
    plan = recipe(inputs={"image": {"kind": "image", "augment": {"shift": 0.1}}})
    run = sonde.fit(plan, out=tmp_path / "run", progress=told)
    assert any("features computed once" in line and "no augmentation of that input" in line for line in told.lines)
    model = sonde.load(run.artifact)
    test = stages.load_data(plan).splits["test"]
    answers = [str(each["label"]) for each in model.predict([test[index]["image"] for index in range(len(test))])]
    right = sum(answer == str(test[index]["label"]) for index, answer in enumerate(answers)) / len(test)
    assert right == pytest.approx(run.scores["test"]["accuracy"].value, abs=1e-6)


def test_a_run_of_masks(tmp_path, shared):
    run = sonde.fit(masks(shared), out=tmp_path / "run")
    assert run.scores["test"]["miou"].value is not None


def test_features_that_do_not_fit_into_memory_or_are_not_wanted(tmp_path):
    for changes, said in (({"data": {"memory": 1e-6}}, "would take"), ({"network": {"cache_features": False}}, None)):
        told = Told()
        sonde.fit(recipe(**changes), out=tmp_path / str(said), progress=told)
        assert any(said in line for line in told.lines) if said else not any("features" in x for x in told.lines)


def test_a_checkpoint_holds_what_is_trained_only(tmp_path):
    run = sonde.fit(recipe(), out=tmp_path / "run")
    (newest, *_) = sorted((run.folder / "checkpoints").glob("step-*"), reverse=True)
    from sonde.base import tensors

    held, _ = tensors.read(newest)
    assert not [name for name in held if "backbones" in name]
    assert [name for name in held if name.startswith("network.head.")]
    plan = recipe()
    task = stages.fit_task(plan, stages.load_data(plan).splits["train"])
    net = stages.build_network(plan, task)
    assert isinstance(net, Network)
    with pytest.raises(RuntimeError, match=r"not the weights of this network: \['head"):
        checkpoint.put_weights(net, {})


def test_resumed_is_straight(tmp_path):
    straight = sonde.fit(recipe(), out=tmp_path / "straight")
    half = tmp_path / "half"
    sonde.fit(recipe(training={"steps": 6}), out=half)
    # As if it had been killed half way: the newer checkpoint is gone.
    (half / "checkpoints" / "step-000000006.safetensors").unlink()
    resumed = sonde.fit(recipe(), out=half, resume=True)
    one, other = ((run.artifact / "weights.safetensors").read_bytes() for run in (straight, resumed))
    assert one == other
