"""Scores of numbers: mean absolute error, root mean squared error, R2. Shape suffixes: R row of weights, N example."""

from __future__ import annotations

import numpy as np

from sonde.metrics.means import mean, ratio


def mae(true_N: np.ndarray, predicted_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """The mean absolute error."""
    return mean(np.abs(predicted_N - true_N), weights_RN)


def rmse(true_N: np.ndarray, predicted_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """The root of the mean squared error."""
    return np.sqrt(mean(_squared(predicted_N, true_N), weights_RN))


def r2(true_N: np.ndarray, predicted_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """The share of the variance that is explained; NaN where all truths of a row are the same."""
    true_N = np.asarray(true_N, np.float64)
    # Around their mean, so that large values that differ little keep their digits.
    centred_N = true_N - true_N.mean() if len(true_N) else true_N
    second_R = mean(centred_N**2, weights_RN)
    variance_R = second_R - mean(centred_N, weights_RN) ** 2
    variance_R = np.where(variance_R > 1e-12 * second_R, variance_R, 0.0)
    return 1 - ratio(mean(_squared(predicted_N, true_N), weights_RN), variance_R)


def _squared(predicted_N: np.ndarray, true_N: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return (np.asarray(predicted_N, np.float64) - np.asarray(true_N, np.float64)) ** 2
