"""Corruptions: each does what its name says, more with each severity; truths stay; scores fall on what is learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from sonde.base import lookup
from sonde.contracts.input import Input
from sonde.data.store import encode
from sonde.inputs import _corrupt

KINDS = sorted(lookup.kinds("inputs"))


def fitted(name: str) -> tuple[Any, Any]:
    kind = lookup.find("inputs", name, Input)  # type: ignore[type-abstract]
    config, records = kind.sample(12, np.random.default_rng(0))
    return kind.fit(config, records), records


@pytest.mark.parametrize("name", KINDS)
def test_corrupted_records_can_be_read_and_differ_from_the_clean_ones(name: str) -> None:
    part, records = fitted(name)
    clean, errors = part.encode_many(records)
    for kind in part.corruptions:
        changed = part.corrupt(records, kind, 5, np.random.default_rng(0))
        again = part.corrupt(records, kind, 5, np.random.default_rng(0))
        columns, broken = part.encode_many(changed)
        assert broken.keys() == errors.keys(), kind
        assert list(changed.ids) == list(records.ids)
        assert columns.keys() == clean.keys()
        values = [repr(row) for row in part.encode_many(again)[0].values()]
        assert values == [repr(row) for row in columns.values()], kind
        # The sample's vocabulary has small letters only.
        assert kind == "capitals" or any(repr(column) != repr(clean[key]) for key, column in columns.items()), kind


@pytest.mark.parametrize("kind", _corrupt.PICTURES)
def test_a_picture_is_further_away_with_each_severity(kind: str) -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)).resize((48, 48))
    apart = [
        np.abs(
            _corrupt.picture(picture, kind, severity, np.random.default_rng(1)) / 255 - np.asarray(picture) / 255
        ).mean()
        for severity in (1, 3, 5)
    ]
    assert apart == sorted(apart)
    assert apart[0] > 0
    assert _corrupt.picture(picture, kind, 5, rng).dtype == np.uint8


def test_noise_has_the_deviation_and_the_ratio_that_it_says() -> None:
    grey = Image.fromarray(np.full((200, 200), 128, np.uint8))
    noisy = _corrupt.picture(grey, "gaussian noise", 1, np.random.default_rng(0)) / 255
    assert noisy.std() == pytest.approx(0.08, rel=0.02)
    tone = (0.3 * np.sin(np.arange(20000) / 7)).astype(np.float32)
    noise = _corrupt.samples(tone, 8000, "noise", 3, np.random.default_rng(0)) - tone
    assert 20 * np.log10(tone.std() / noise.std()) == pytest.approx(10, abs=0.3)
    band = np.abs(np.fft.rfft(_corrupt.samples(noise, 8000, "band-pass", 5, np.random.default_rng(0))))
    assert band[len(band) // 2 :].max() < 1e-3 * band.max()


def test_words_stay_words() -> None:
    rng = np.random.default_rng(0)
    words = ["a", "sonde", "goes", "down"] * 50
    assert len(_corrupt.words(words, "typos", 5, rng)) == len(words)
    assert all(_corrupt.words(words, "typos", 5, rng))
    changed = [
        np.mean([a != b for a, b in zip(words, _corrupt.words(words, "typos", at, rng), strict=True)]) for at in (1, 5)
    ]
    assert 0 < changed[0] < changed[1]
    assert 0 < len(_corrupt.words(words, "lost words", 5, rng)) < len(words)


def test_a_loss_comes_only_where_training_knew_losses() -> None:
    part, records = fitted("table")
    changed = part.corrupt(records, "missing values", 5, np.random.default_rng(0))
    lost = [name for name, values in changed.fields.items() if values is not records.fields[name]]
    assert {"size", "colour"} >= set(lost) > set()


def test_scores_fall_with_severity_and_the_first_is_the_clean_one(trained: Any, monkeypatch: Any) -> None:
    two = {name: _corrupt.PICTURES[name] for name in ("impulse noise", "brightness")}
    monkeypatch.setattr(_corrupt, "PICTURES", two)
    from sonde.base.device import Precision, choose_device
    from sonde.evaluation.robustness import panels, robustness, table

    model, records = trained
    found = robustness(model.task, model.network, records, Precision(kind="fp32", device=choose_device()), seed=0)
    assert (found[0].severity, len(found)) == (0, 1 + 5 * len(_corrupt.PICTURES))
    noise = [one.score.value for one in found if one.corruption == "impulse noise"]
    assert noise[4] < found[0].score.value
    assert "impulse noise" in "\n".join(table(found))
    assert panels(found)[0]["rows"][0]["y"] == found[0].score.value
    assert encode(model.task, records).ids == list(records.ids)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    import sonde
    from sonde import stages

    tables: dict[str, Any] = {
        "data": {"source": "sklearn:digits"},
        "inputs": {"image": {"kind": "image", "field": "image"}},
        "target": {"kind": "category", "field": "label"},
        "network": {"kind": "mlp", "hidden": [32]},
        "training": {"steps": 60, "evaluate_every": 60},
        "ladder": {"reference": False},
    }
    recipe = sonde.Recipe.of(tables)
    run = sonde.fit(recipe, out=tmp_path_factory.mktemp("robust") / "run", audited=True)
    records = stages.load_data(recipe).splits["test"]
    return sonde.load(run.artifact), records.take(np.arange(60))
