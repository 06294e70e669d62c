"""Which rungs a recipe has, and why others are left out."""

from __future__ import annotations

import tomllib

import pytest

from sonde import stages
from sonde.data.store import encode
from sonde.ladder.rungs import rungs
from sonde.recipe import Recipe


@pytest.fixture(scope="module")
def plan():
    def planned(network, **ladder):
        recipe = Recipe.of(
            {
                "data": {"source": "sklearn:digits"},
                "inputs": {"image": {"kind": "image"}},
                "target": {"kind": "category"},
                "network": network,
                "ladder": ladder,
            }
        )
        data = stages.load_data(recipe)
        task = stages.fit_task(recipe, data.splits["train"])
        return {each.name: each for each in rungs(recipe, task, encode(task, data.splits["train"]).examples)}

    return planned


def test_from_scratch(plan):
    found = plan({"kind": "cnn", "widths": [16, 32]})
    assert [name for name, each in found.items() if not each.reason] == [
        *("constant", "linear", "gradient-boosting", "svm", "random-forest"),
        *("small-network", "network"),
    ]
    (small,), (whole,) = found["small-network"].recipes, found["network"].recipes
    assert small.network["image"].widths == (8, 16)
    assert whole.network["image"].widths == (16, 32)
    # A rung is a plain recipe: it knows nothing of the ladder, and of no other model.
    assert not whole.ladder.reference
    assert found["svm"].recipes[0].network == {}
    assert found["svm"].recipes[0].classical.kind == "svm"
    assert Recipe.of(tomllib.loads(found["svm"].recipes[0].to_toml())) == found["svm"].recipes[0]


def test_pretrained(plan, tmp_path):
    """Frozen and fine-tuned stand in place of the networks from scratch."""
    import timm
    from safetensors.torch import save_file

    weights = tmp_path / "weights.safetensors"
    save_file(timm.create_model("test_efficientnet").state_dict(), weights)
    found = plan({"kind": "timm", "name": "test_efficientnet", "weights": str(weights)})
    assert found["frozen"].recipes[0].network["image"].freeze
    assert not found["fine-tuned"].recipes[0].network["image"].freeze
    for name in ("small-network", "network"):
        assert found[name].reason == "the recipe's network starts from pretrained weights"


def test_a_network_that_is_as_small_as_can_be(plan):
    assert "no smaller form" in plan({"kind": "mlp", "hidden": [8]})["small-network"].reason


def test_chosen_rungs_and_trials(plan):
    found = plan({"kind": "mlp"}, rungs=["linear", "network"], trials=3)
    assert list(found) == ["linear", "network"]
    assert [each.classical.C for each in found["linear"].recipes] == [1.0, 0.1, 10.0]
    rates = [each.training.optimizer.lr for each in found["network"].recipes]
    assert rates == pytest.approx([1e-3, 1e-3 / 3, 3e-3])
