"""Weighted means."""

from __future__ import annotations

import numpy as np

from sonde import metrics


def test_nanmean_leaves_out_what_is_nan() -> None:
    rows = np.array([[1.0, 1.0, 1.0], [1.0, 3.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 5.0], [0.0, 0.0, 0.0]])
    found = metrics.nanmean(np.array([2.0, np.nan, 4.0]), rows)
    np.testing.assert_allclose(found, [3.0, 3.0, np.nan, 4.0, np.nan])
    np.testing.assert_allclose(metrics.nanmean(np.array([2.0, 3.0, 4.0]), rows)[1], 3.0)
