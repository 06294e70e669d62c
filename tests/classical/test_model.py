"""Classical models of whole tasks: what the artifact answers is what scikit-learn answers, through records and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sonde
from sonde import classical, stages
from sonde.base.progress import NoProgress
from sonde.classical import _sklearn
from sonde.contracts.classical import Unsuitable
from sonde.data.store import encode
from sonde.recipe import Recipe


def recipe(data, inputs, target, classical_model, **more):
    return Recipe.of({"data": data, "inputs": inputs, "target": target, "classical": classical_model, **more})


@pytest.fixture
def words(tmp_path):
    """Texts of two classes, and tagged sentences, as small files."""
    rng = np.random.default_rng(0)
    common, own = ["the", "sea", "is", "deep", "and", "cold"], {"calm": ["still", "blue"], "storm": ["wind", "wave"]}
    lines = ["text,label"]
    for number in range(120):
        label = ["calm", "storm"][number % 2]
        chosen = [*rng.choice(common, 4), *rng.choice(own[label], 1 + number % 2)]
        lines.append(f"{' '.join(rng.permutation(chosen))},{label}")
    (tmp_path / "texts.csv").write_text("\n".join(lines) + "\n")
    sentences = []
    for number in range(60):
        chosen = rng.choice(["Oslo", "Rome", "sea", "deep", "is", "cold"], 3 + number % 3)
        sentences.append("\n".join(f"{word}\t{'place' if word[0].isupper() else 'O'}" for word in chosen))
    (tmp_path / "tags.conll").write_text("\n\n".join(sentences) + "\n")
    return tmp_path


def test_the_artifact_answers_as_scikit_learn(words, tmp_path):
    """A text classifier, fitted by hand on the same features: probabilities equal to 1e-6."""
    made = recipe(
        {"source": str(words / "texts.csv"), "split": {"by": "order", "validation": 0.2, "test": 0.2}},
        {"text": {"kind": "text", "field": "text", "min_count": 1}},
        {"kind": "category", "field": "label"},
        {"kind": "linear", "C": 30.0},
    )
    run = sonde.fit(made, out=tmp_path / "run")
    data = stages.load_data(made)
    task = stages.fit_task(made, data.splits["train"])
    held = {split: encode(task, records).examples for split, records in data.splits.items()}
    own = task.inputs["text"].feature_map()
    tensors = {split: task.collate(each, torch.arange(len(each))).inputs["text"] for split, each in held.items()}
    own.learn(iter([tensors["train"]]), "example")
    rows = {split: _sklearn.sparse(own(each, "example").bag) for split, each in tensors.items()}
    from sklearn.linear_model import LogisticRegression

    theirs = LogisticRegression(C=30.0).fit(rows["train"], held["train"].truth["class"])
    expected = theirs.predict_proba(rows["test"])
    model = sonde.load(run.artifact)
    answers = model.predict(data.splits["test"].fields["text"])
    found = np.array([[each["probabilities"][name] for name in ("calm", "storm")] for each in answers])
    assert np.abs(found - expected).max() < 1e-6
    assert (
        run.scores["test"]["accuracy"].value
        == (theirs.predict(rows["test"]) == held["test"].truth["class"].numpy()).mean()
    )
    assert run.scores["test"]["accuracy"].value > 0.9
    # One alone is as in a batch, and nothing in the folder can run code.
    assert model.predict([data.splits["test"].fields["text"][3]])[0]["confidence"] == pytest.approx(
        answers[3]["confidence"], abs=1e-6
    )
    assert {file.suffix for file in run.artifact.iterdir()} == {".json", ".safetensors"}
    assert model.card["parameters"] > 10


def test_tags_of_words(words, tmp_path):
    made = recipe(
        {"source": str(words / "tags.conll"), "split": {"by": "order", "validation": 0.2, "test": 0.2}},
        {"text": {"kind": "text", "field": "words", "subwords": True}},
        {"kind": "tags", "field": "tags"},
        {"kind": "linear"},
    )
    run = sonde.fit(made, out=tmp_path / "run")
    assert run.scores["test"]["accuracy"].value == 1.0
    answer = sonde.load(run.artifact).predict(["Rome is cold"])[0]
    assert answer["tags"] == ["place", "O", "O"]
    assert answer["words"] == ["Rome", "is", "cold"]
    offered = {each.kind: each.reason for each in classical.offers(*_task(made))}
    assert "too many columns" in offered["svm"]
    assert offered["linear"] == offered["constant"] == ""


def _task(made):
    data = stages.load_data(made)
    task = stages.fit_task(made, data.splits["train"])
    return task, encode(task, data.splits["train"]).examples


@pytest.mark.parametrize("kind", ["constant", "linear", "gradient-boosting", "svm", "random-forest"])
def test_pictures_and_every_kind(kind, tmp_path):
    made = recipe(
        {"source": "sklearn:digits", "split": {"by": "random", "validation": 0.7, "test": 0.15}},
        {"image": {"kind": "image", "size": 8}},
        {"kind": "category"},
        {"kind": kind, **({"max_trees": 10} if kind == "gradient-boosting" else {})},
    )
    run = sonde.fit(made, out=tmp_path / "run")
    accuracy = run.scores["test"]["accuracy"].value
    assert accuracy < 0.2 if kind == "constant" else accuracy > 0.8
    model = sonde.load(run.artifact)
    pictures = stages.load_data(made).splits["test"].fields["image"][:5]
    together = model.predict(pictures)
    for picture, answer in zip(pictures, together, strict=True):
        assert model.predict([picture])[0]["confidence"] == pytest.approx(answer["confidence"], abs=1e-6)


def test_targets_without_one_say_so(shared, tmp_path):
    made = recipe(
        {"source": str(shared / "tinyshakespeare")},
        {"text": {"kind": "text", "tokens": "characters", "window": 64}},
        {"kind": "next-token"},
        {"kind": "linear"},
    )
    with pytest.raises(Unsuitable, match="no classical model answers as the target 'next-token' asks"):
        sonde.fit(made, out=tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()


def test_a_sample_keeps_every_class():
    made = recipe(
        {"source": "sklearn:digits"}, {"image": {"kind": "image", "size": 8}}, {"kind": "category"}, {"kind": "linear"}
    )
    task, examples = _task(made)
    from sonde.classical._model import _problem, _sample

    chosen = _sample(_problem(task, examples), 30, len(examples), 0)
    counts = torch.bincount(examples.truth["class"][chosen], minlength=10)
    assert int(counts.min()) >= 2
    assert 30 <= len(chosen) <= 50
    assert torch.equal(chosen, _sample(_problem(task, examples), 30, len(examples), 0))


def test_reference_says_when_it_saw_a_sample(monkeypatch, tmp_path):
    monkeypatch.setattr(stages, "QUICK_ROWS", 100)
    made = Recipe.of(
        {
            "data": {"source": "sklearn:digits"},
            "inputs": {"image": {"kind": "image", "size": 8}},
            "target": {"kind": "category"},
            "network": {"kind": "mlp", "hidden": [8]},
            "training": {"steps": 2},
        }
    )
    run = sonde.fit(made, out=tmp_path / "run", progress=NoProgress())
    score = run.scores["test"]["accuracy"]
    assert score.reference_name == "support vector machine (200 of 1,438 records)"
    assert score.reference > 0.8
    assert "support vector machine (200 of 1,438 records) 0." in run.to_text()
