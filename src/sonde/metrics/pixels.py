"""Scores of masks, from one confusion matrix per example. Shape suffixes: R row of weights, N example, K class."""

from __future__ import annotations

import numpy as np

from sonde.metrics.classes import Tally
from sonde.metrics.means import ratio

# Confusion matrices that are brought to float64 at a time.
BLOCK = 256


def confusion_of_pixels(confusion_NKK: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """Confusion matrices (R, K, K) from one per example, [true, predicted]."""
    count, num_classes = confusion_NKK.shape[:2]
    total = np.zeros((len(weights_RN), num_classes**2))
    # Block by block, since a product wants float64 and many matrices of many classes would not fit as that.
    for start in range(0, count, BLOCK):
        block = confusion_NKK[start : start + BLOCK].reshape(-1, num_classes**2)
        total += weights_RN[:, start : start + BLOCK] @ block.astype(np.float64)
    return total.reshape(-1, num_classes, num_classes)


def tally_of_confusion(confusion_RKK: np.ndarray) -> Tally:
    return Tally(
        true_positive_RK=np.diagonal(confusion_RKK, axis1=1, axis2=2),
        true_RK=confusion_RKK.sum(axis=2),
        predicted_RK=confusion_RKK.sum(axis=1),
    )


def iou(counts: Tally) -> np.ndarray:
    """Per class (R, K): intersection over union (Jaccard index); NaN where it neither occurs nor was predicted."""
    return ratio(counts.true_positive_RK, counts.true_RK + counts.predicted_RK - counts.true_positive_RK)
