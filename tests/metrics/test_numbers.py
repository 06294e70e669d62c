"""Scores of numbers against scikit-learn: plain, weighted and resampled."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as oracle
from metric_rows import each, weights

from sonde import metrics


@pytest.mark.parametrize("offset", [0.0, 1e9])
def test_number_scores(offset: float) -> None:
    rng = np.random.default_rng(3)
    true_N = rng.normal(size=70) * 3 + offset
    predicted_N, rows = true_N + rng.normal(size=70), weights(rng, 70)
    for mine, theirs in (
        (metrics.mae, oracle.mean_absolute_error),
        (metrics.rmse, oracle.root_mean_squared_error),
        (metrics.r2, oracle.r2_score),
    ):
        wanted = each(rows, lambda at, w, theirs=theirs: theirs(true_N[at], predicted_N[at], sample_weight=w))
        np.testing.assert_allclose(mine(true_N, predicted_N, rows), wanted, rtol=1e-6)


def test_what_a_row_leaves_undefined_is_nan_without_a_warning() -> None:
    scores_N = np.array([0.1, 0.4, 0.8])
    rows = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
    np.testing.assert_array_equal(metrics.r2(np.array([5.1, 5.1, 7.0]), scores_N, rows)[:2], [np.nan, np.nan])
    np.testing.assert_array_equal(metrics.rmse(scores_N, scores_N, rows), [0.0, np.nan, 0.0])


def test_an_infinite_answer_is_no_warning() -> None:
    rows = np.array([[1.0, 1.0], [1.0, 0.0]])
    assert np.isinf(metrics.rmse(np.zeros(2), np.array([1.0, np.inf]), rows)[0])
    assert not np.isfinite(metrics.r2(np.arange(2.0), np.array([1.0, 1e300]), rows)[0])
