"""Ratios and weighted means: what the other metrics are made of.

Shape suffixes: R row of weights, N example, K class.
"""

from __future__ import annotations

import numpy as np


def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """top / bottom, NaN where bottom is not positive."""
    top, bottom = np.broadcast_arrays(np.asarray(top, np.float64), np.asarray(bottom, np.float64))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def mean(values_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """The weighted mean of one number per example."""
    # An infinite value (a network that diverged) makes its rows infinite or NaN; that is the answer, not a warning.
    with np.errstate(invalid="ignore"):
        return ratio(weights_RN @ np.asarray(values_N, np.float64), weights_RN.sum(axis=1))


def nanmean(values_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """The weighted mean over the examples whose number is not NaN; NaN where a row has none."""
    defined_N = ~np.isnan(values_N)
    return mean(values_N[defined_N], weights_RN[:, defined_N])


def mean_of_defined(values_RK: np.ndarray) -> np.ndarray:
    """The mean over classes, leaving out those that are NaN; NaN where all are."""
    defined_RK = ~np.isnan(values_RK)
    return ratio(np.where(defined_RK, values_RK, 0.0).sum(axis=1), defined_RK.sum(axis=1))


def distinct_share(codes_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """How many different codes the examples of a row have, per example; one that is drawn twice counts once."""
    order = np.argsort(codes_N, kind="stable")
    starts = np.flatnonzero(np.diff(codes_N[order], prepend=codes_N[order][:1] - 1))
    there_RN = weights_RN[:, order] > 0
    return ratio(np.logical_or.reduceat(there_RN, starts, axis=1).sum(axis=1), there_RN.sum(axis=1))
