"""Every metric against scikit-learn: plain, weighted and resampled, ties and absent classes included."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import sklearn.metrics as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from sonde import metrics

ROWS = 6


def weights(rng: np.random.Generator, count: int) -> np.ndarray:
    """A row of ones, a row of real weights, and bootstrap counts."""
    rows = rng.multinomial(count, np.full(count, 1 / count), size=ROWS).astype(np.float64)
    rows[0] = 1.0
    rows[1] = rng.random(count)
    return rows


def each(rows: np.ndarray, score: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
    """The oracle's answer for every row: what has no weight is left out, as in a resample."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.array([score(np.flatnonzero(row > 0), row[row > 0]) for row in rows])


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


@pytest.mark.parametrize("decimals", [1, 8])
def test_roc_auc_and_average_precision(decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    positive = rng.random(90) < 0.3
    scores = np.round(rng.random(90) + positive * 0.3, decimals)
    rows = weights(rng, 90)
    for mine, theirs in (
        (metrics.roc_auc, oracle.roc_auc_score),
        (metrics.average_precision, oracle.average_precision_score),
    ):
        wanted = each(rows, lambda at, w, theirs=theirs: theirs(positive[at], scores[at], sample_weight=w))
        np.testing.assert_allclose(mine(scores, positive, rows), wanted, rtol=1e-12)


def test_roc_auc_macro_is_one_against_the_rest() -> None:
    rng = np.random.default_rng(5)
    true_N = rng.integers(0, 4, 100)
    scores = rng.random((100, 4)).round(2) + (true_N[:, None] == np.arange(4)) * 0.2 + 0.01
    probabilities = scores / scores.sum(1, keepdims=True)
    rows = weights(rng, 100)
    positive = true_N[:, None] == np.arange(4)
    wanted = each(
        rows, lambda at, w: oracle.roc_auc_score(true_N[at], probabilities[at], multi_class="ovr", sample_weight=w)
    )
    np.testing.assert_allclose(metrics.roc_auc_macro(probabilities, positive, rows), wanted, rtol=1e-12)


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


@pytest.mark.parametrize("offset", [0.0, 1e9])
def test_number_scores(offset: float) -> None:
    rng = np.random.default_rng(3)
    true_N = rng.normal(size=70) * 3 + offset
    answered_N, rows = true_N + rng.normal(size=70), weights(rng, 70)
    for mine, theirs in (
        (metrics.mae, oracle.mean_absolute_error),
        (metrics.rmse, oracle.root_mean_squared_error),
        (metrics.r2, oracle.r2_score),
    ):
        wanted = each(rows, lambda at, w, theirs=theirs: theirs(true_N[at], answered_N[at], sample_weight=w))
        np.testing.assert_allclose(mine(true_N, answered_N, rows), wanted, rtol=1e-6)


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


def test_segmentation_scores() -> None:
    rng = np.random.default_rng(6)
    true, answered = rng.integers(0, 3, (9, 40)), rng.integers(0, 4, (9, 40))
    confusion = np.stack([oracle.confusion_matrix(t, a, labels=range(4)) for t, a in zip(true, answered, strict=True)])
    rows = weights(rng, 9)
    counts = metrics.tally_of_confusion(metrics.confusion_of_pixels(confusion, rows))

    def wanted(score: Callable[..., float], **settings: object) -> np.ndarray:
        return each(
            rows,
            lambda at, w: score(true[at].ravel(), answered[at].ravel(), sample_weight=np.repeat(w, 40), **settings),
        )

    near = np.testing.assert_allclose
    near(metrics.iou(counts), wanted(oracle.jaccard_score, average=None, labels=range(4)), rtol=1e-12)
    near(metrics.mean_of_defined(metrics.iou(counts)), wanted(oracle.jaccard_score, average="macro"), rtol=1e-12)
    near(metrics.accuracy(counts), wanted(oracle.accuracy_score), rtol=1e-12)
    near(metrics.balanced_accuracy(counts), wanted(oracle.balanced_accuracy_score), rtol=1e-12)


def test_loss_per_unit_and_perplexity() -> None:
    loss_R = metrics.per_unit(np.array([2.0, 4.0]), np.array([1, 5]), np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 0.0]]))
    np.testing.assert_allclose(loss_R, [1.0, 2.0, np.nan])
    np.testing.assert_allclose(metrics.perplexity(np.array([0.0, np.log(7), 1e4])), [1.0, 7.0, np.inf])


def test_what_a_row_leaves_undefined_is_nan_without_a_warning() -> None:
    true_N, scores_N = np.array([0, 0, 1]), np.array([0.1, 0.4, 0.8])
    rows = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
    counts = metrics.tally(true_N, true_N, 2, rows)
    np.testing.assert_array_equal(metrics.roc_auc(scores_N, true_N == 1, rows), [np.nan, np.nan, 1.0])
    np.testing.assert_array_equal(metrics.average_precision(scores_N, true_N == 1, rows), [np.nan, np.nan, 1.0])
    np.testing.assert_array_equal(metrics.recall(counts), [[1, np.nan], [np.nan, np.nan], [1, 1]])
    np.testing.assert_array_equal(metrics.balanced_accuracy(counts), [1.0, np.nan, 1.0])
    np.testing.assert_array_equal(metrics.accuracy(counts), [1.0, np.nan, 1.0])
    np.testing.assert_array_equal(metrics.r2(np.array([5.1, 5.1, 7.0]), scores_N, rows)[:2], [np.nan, np.nan])
    np.testing.assert_array_equal(metrics.rmse(scores_N, scores_N, rows), [0.0, np.nan, 0.0])


def test_an_infinite_answer_is_no_warning() -> None:
    rows = np.array([[1.0, 1.0], [1.0, 0.0]])
    assert np.isinf(metrics.rmse(np.zeros(2), np.array([1.0, np.inf]), rows)[0])
    assert not np.isfinite(metrics.r2(np.arange(2.0), np.array([1.0, 1e300]), rows)[0])


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
    scores = true_N + answered_N
    found = metrics.roc_auc(scores, true_N == 1, times[None].astype(np.float64))
    repeated = metrics.roc_auc(np.repeat(scores, times), np.repeat(true_N, times) == 1, np.ones((1, int(times.sum()))))
    np.testing.assert_allclose(found, repeated)
