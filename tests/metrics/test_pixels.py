"""Scores of masks against scikit-learn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import sklearn.metrics as oracle
from metric_rows import each, weights

from sonde import metrics


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
