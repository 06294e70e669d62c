"""Scores of classes and labels against scikit-learn: plain, weighted and resampled, absent classes included."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import sklearn.metrics as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_rows import each, weights

from sonde import metrics


def classes(seed: int, num_classes: int, count: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truths, probabilities with ties (two decimals, float32), weights. The last class is rare."""
    rng = np.random.default_rng(seed)
    true_N = rng.integers(0, num_classes - 1, count)
    true_N[:2] = num_classes - 1
    true_N[2 : 2 + num_classes] = np.arange(num_classes)
    scores = rng.random((count, num_classes)) + (true_N[:, None] == np.arange(num_classes)) * 0.4
    scores = np.round(scores / scores.sum(1, keepdims=True), 2) + 1e-3
    return true_N, (scores / scores.sum(1, keepdims=True)).astype(np.float32), weights(rng, count)


@pytest.mark.parametrize("num_classes", [2, 3, 12])
def test_class_scores(num_classes: int) -> None:
    true_N, probabilities_NK, rows = classes(num_classes, num_classes)
    answered_N = probabilities_NK.argmax(1)
    counts = metrics.tally(true_N, answered_N, num_classes, rows)
    names = list(range(num_classes))

    def expect(found: np.ndarray, score: Callable[..., float], **settings: object) -> None:
        wanted = each(rows, lambda at, w: score(true_N[at], answered_N[at], sample_weight=w, **settings))
        np.testing.assert_allclose(found, wanted, rtol=1e-12)

    expect(metrics.accuracy(counts), oracle.accuracy_score)
    expect(metrics.balanced_accuracy(counts), oracle.balanced_accuracy_score)
    expect(metrics.macro_f1(counts), oracle.f1_score, average="macro")
    settings = {"average": None, "labels": names, "zero_division": np.nan}
    expect(metrics.recall(counts), oracle.recall_score, **settings)
    expect(metrics.precision(counts), oracle.precision_score, **settings)
    expect(metrics.f1(counts), oracle.f1_score, **settings)


@pytest.mark.parametrize("num_classes", [2, 3, 12])
def test_log_loss(num_classes: int) -> None:
    true_N, probabilities_NK, rows = classes(10 + num_classes, num_classes)
    probabilities_NK[0] = np.arange(num_classes) == (true_N[0] + 1) % num_classes
    names = list(range(num_classes))
    wanted = each(rows, lambda at, w: oracle.log_loss(true_N[at], probabilities_NK[at], sample_weight=w, labels=names))
    np.testing.assert_allclose(metrics.log_loss(probabilities_NK, true_N, rows), wanted, rtol=1e-6)


def test_top_accuracy_without_ties() -> None:
    rng = np.random.default_rng(0)
    true_N, scores_NK, rows = rng.integers(0, 12, 60), rng.random((60, 12)), weights(rng, 60)
    names = list(range(12))
    wanted = each(
        rows, lambda at, w: oracle.top_k_accuracy_score(true_N[at], scores_NK[at], k=5, sample_weight=w, labels=names)
    )
    np.testing.assert_allclose(metrics.top_accuracy(scores_NK, true_N, rows, most=5), wanted, rtol=1e-12)


def test_top_accuracy_gives_ties_to_the_lower_class() -> None:
    scores = np.full((4, 4), 0.25)
    found = metrics.top_accuracy(scores, np.arange(4), np.eye(4), most=2)
    assert found.tolist() == [1.0, 1.0, 0.0, 0.0]


def test_label_scores() -> None:
    rng = np.random.default_rng(7)
    true_NK = rng.random((60, 4)) < [0.5, 0.2, 0.1, 0.3]
    scores = (rng.random((60, 4)) * 0.6 + true_NK * 0.3).round(2)
    answered_NK, rows = scores >= 0.5, weights(rng, 60)
    counts = metrics.tally_labels(true_NK, answered_NK, rows)

    def wanted(score: Callable[..., float], given: np.ndarray, **settings: object) -> np.ndarray:
        return each(rows, lambda at, w: score(true_NK[at].astype(int), given[at], sample_weight=w, **settings))

    near = np.testing.assert_allclose
    answers = answered_NK.astype(int)
    near(metrics.micro_f1(counts), wanted(oracle.f1_score, answers, average="micro"), rtol=1e-12)
    near(metrics.macro_f1(counts), wanted(oracle.f1_score, answers, average="macro", zero_division=np.nan), rtol=1e-12)
    near(metrics.mean((true_NK == answered_NK).all(1), rows), wanted(oracle.accuracy_score, answers), rtol=1e-12)
    found = metrics.average_precision_macro(scores, true_NK, rows)
    near(found, wanted(oracle.average_precision_score, scores, average="macro"), rtol=1e-12)
    near(metrics.roc_auc_macro(scores, true_NK, rows), wanted(oracle.roc_auc_score, scores), rtol=1e-12)


def test_calibration_error_is_the_gap_in_each_bin() -> None:
    rng = np.random.default_rng(4)
    confidence, rows = rng.random(200).astype(np.float32), weights(rng, 200)
    confidence[:2] = [0.0, 1.0]
    right = rng.random(200) < confidence
    wanted = []
    for row in rows:
        total = 0.0
        for low in range(15):
            inside = (confidence > low / 15) & (confidence <= (low + 1) / 15) | ((low == 0) & (confidence == 0))
            total += abs(float((row * (right - confidence.astype(float)))[inside].sum()))
        wanted.append(total / row.sum())
    np.testing.assert_allclose(metrics.calibration_error(confidence, right, rows), wanted, rtol=1e-6)


def slow_rms(confidence: np.ndarray, right: np.ndarray, row: np.ndarray) -> float:
    """As it is written down: over all pairs of different examples of a bin."""
    top = bottom = 0.0
    for low in range(15):
        members = np.flatnonzero((confidence > low / 15) & (confidence <= (low + 1) / 15) & (row > 0))
        pairs = [(i, j) for i in members for j in members if i != j]
        if pairs:
            products = sum(row[i] * row[j] * (right[i] - confidence[i]) * (right[j] - confidence[j]) for i, j in pairs)
            top += row[members].sum() * products / sum(row[i] * row[j] for i, j in pairs)
            bottom += row[members].sum()
    return np.sqrt(max(0.0, top / bottom))


@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_rms_calibration_error_pairs_different_examples(bias: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    confidence, rows = rng.random(60), weights(rng, 60)
    right = rng.random(60) < confidence - bias
    wanted = [slow_rms(confidence, right, row) for row in rows]
    np.testing.assert_allclose(metrics.rms_calibration_error(confidence, right, rows), wanted, rtol=1e-9, atol=1e-9)
    monkeypatch.setattr("sonde.metrics.classes.CELLS", 60 * 4)  # chunks of four rows
    np.testing.assert_allclose(metrics.rms_calibration_error(confidence, right, rows), wanted, rtol=1e-9, atol=1e-9)


def test_rms_calibration_error_has_no_bias_where_the_plain_one_has() -> None:
    rng = np.random.default_rng(0)
    confidence = 0.5 + 0.5 * rng.random(200)
    one = np.ones((1, 200))
    rights = [rng.random(200) < confidence for _ in range(300)]
    plain = [metrics.calibration_error(confidence, right, one)[0] for right in rights]
    ours = np.array([metrics.rms_calibration_error(confidence, right, one)[0] for right in rights])
    assert np.mean(plain) > 0.04
    assert 0.4 < (ours == 0).mean() < 0.75
    over = [metrics.rms_calibration_error(confidence, rng.random(200) < confidence - 0.2, one)[0] for _ in range(300)]
    assert np.mean(np.square(over)) == pytest.approx(0.04, abs=0.003)
    assert np.isnan(metrics.rms_calibration_error(np.array([0.1, 0.9]), np.array([0, 1]), np.ones((1, 2)))).all()


def test_what_a_row_leaves_undefined_is_nan_without_a_warning() -> None:
    true_N = np.array([0, 0, 1])
    rows = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
    counts = metrics.tally(true_N, true_N, 2, rows)
    np.testing.assert_array_equal(metrics.recall(counts), [[1, np.nan], [np.nan, np.nan], [1, 1]])
    np.testing.assert_array_equal(metrics.balanced_accuracy(counts), [1.0, np.nan, 1.0])
    np.testing.assert_array_equal(metrics.accuracy(counts), [1.0, np.nan, 1.0])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=12))
def test_a_count_is_a_repetition(rows: list[tuple[int, int, int]]) -> None:
    true_N, answered_N, times = (np.array(column) for column in zip(*rows, strict=True))
    weighted = metrics.tally(true_N, answered_N, 3, times[None].astype(np.float64))
    written_out = metrics.tally(
        np.repeat(true_N, times), np.repeat(answered_N, times), 3, np.ones((1, int(times.sum())))
    )
    for mine, theirs in zip(weighted, written_out, strict=True):
        np.testing.assert_array_equal(mine, theirs)
