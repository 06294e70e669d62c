"""Scores of classes and labels: accuracy, precision, recall, F1, log loss, calibration.

Shape suffixes: R row of weights, N example, K class, B bin.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from sonde.metrics.means import mean, mean_of_defined, ratio

# The smallest probability that a float32 answer can be told from zero by: without it one sure and wrong answer would
# make the log loss of a whole split infinite.
SMALLEST = float(np.finfo(np.float32).eps)
# Numbers of squared rows of weights that are held at a time: 8 MB.
CELLS = 1_000_000


class Tally(NamedTuple):
    """What per-class scores are made of, each (R, K): the weight that was right, that is true, that was predicted."""

    true_positive_RK: np.ndarray
    true_RK: np.ndarray
    predicted_RK: np.ndarray


def tally(true_N: np.ndarray, predicted_N: np.ndarray, num_classes: int, weights_RN: np.ndarray) -> Tally:
    """Count classes: int64 truths and answers in 0..K-1, one of each per example."""
    # Wrong answers fall into one further bin, which is dropped.
    true_positive_N = np.where(true_N == predicted_N, true_N, num_classes)
    return Tally(
        true_positive_RK=_binned(true_positive_N, num_classes + 1, weights_RN)[:, :num_classes],
        true_RK=_binned(true_N, num_classes, weights_RN),
        predicted_RK=_binned(predicted_N, num_classes, weights_RN),
    )


def tally_labels(true_NK: np.ndarray, predicted_NK: np.ndarray, weights_RN: np.ndarray) -> Tally:
    """Count labels of which an example may have several: two bool arrays (N, K)."""
    true_NK, predicted_NK = np.asarray(true_NK, np.float64), np.asarray(predicted_NK, np.float64)
    return Tally(
        true_positive_RK=weights_RN @ (true_NK * predicted_NK),
        true_RK=weights_RN @ true_NK,
        predicted_RK=weights_RN @ predicted_NK,
    )


def _binned(bin_N: np.ndarray, num_bins: int, weights_RN: np.ndarray) -> np.ndarray:
    """The weight in each bin, (R, bins). For more than ten bins this is quicker than a product with one-hot rows."""
    return np.stack([np.bincount(bin_N, row_N, num_bins) for row_N in weights_RN])


def recall(counts: Tally) -> np.ndarray:
    """Per class (R, K): the share of a class that was found; NaN where it does not occur."""
    return ratio(counts.true_positive_RK, counts.true_RK)


def precision(counts: Tally) -> np.ndarray:
    """Per class (R, K): the share of its answers that was right; NaN where it was never predicted."""
    return ratio(counts.true_positive_RK, counts.predicted_RK)


def f1(counts: Tally) -> np.ndarray:
    """Per class (R, K): the harmonic mean of precision and recall; NaN where it neither occurs nor was answered."""
    return ratio(2 * counts.true_positive_RK, counts.true_RK + counts.predicted_RK)


def accuracy(counts: Tally) -> np.ndarray:
    """The share of right answers, one class per example."""
    return ratio(counts.true_positive_RK.sum(axis=1), counts.true_RK.sum(axis=1))


def balanced_accuracy(counts: Tally) -> np.ndarray:
    """The mean recall of the classes that occur."""
    return mean_of_defined(recall(counts))


def macro_f1(counts: Tally) -> np.ndarray:
    """The mean F1 of the classes that occur or were predicted."""
    return mean_of_defined(f1(counts))


def micro_f1(counts: Tally) -> np.ndarray:
    """F1 of all labels thrown together."""
    return ratio(2 * counts.true_positive_RK.sum(axis=1), (counts.true_RK + counts.predicted_RK).sum(axis=1))


def log_loss(probabilities_NK: np.ndarray, true_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """The mean of -log(probability of the true class), in nats."""
    chosen_N = np.take_along_axis(probabilities_NK, true_N[:, None], axis=1)[:, 0].astype(np.float64)
    return mean(-np.log(np.clip(chosen_N, SMALLEST, 1 - SMALLEST)), weights_RN)


def brier(probabilities_NK: np.ndarray, true_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """The mean squared distance of the probabilities from the truth (Brier 1950): summed over the classes, 0 to 2; of
    two classes one is counted, as scikit-learn does, 0 to 1."""
    own_N = np.take_along_axis(probabilities_NK, true_N[:, None], axis=1)[:, 0].astype(np.float64)
    if probabilities_NK.shape[1] == 2:
        return mean((1 - own_N) ** 2, weights_RN)
    square_N = np.square(probabilities_NK.astype(np.float64)).sum(axis=1)
    return mean(square_N - own_N**2 + (1 - own_N) ** 2, weights_RN)


def top_accuracy(probabilities_NK: np.ndarray, true_N: np.ndarray, weights_RN: np.ndarray, most: int) -> np.ndarray:
    """The share of examples whose true class is among the `most` likeliest ones; ties go to the lower class."""
    true_N1 = np.take_along_axis(probabilities_NK, true_N[:, None], axis=1)
    lower_NK = np.arange(probabilities_NK.shape[1])[None, :] < true_N[:, None]
    ahead_N = ((probabilities_NK > true_N1) | ((probabilities_NK == true_N1) & lower_NK)).sum(axis=1)
    return mean(ahead_N < most, weights_RN)


def calibration_error(
    confidence_N: np.ndarray, right_N: np.ndarray, weights_RN: np.ndarray, num_bins: int = 15
) -> np.ndarray:
    """Expected calibration error: how far confidence is from accuracy, over bins of equal width (Guo et al. 2017).

    Chance alone makes it positive, the more so the fewer examples there are, and no estimate of an absolute value is
    free of that (Cai and Low 2011): `rms_calibration_error` is.
    """
    gap_NB, _ = _gaps(confidence_N, right_N, num_bins)
    return ratio(np.abs(weights_RN @ gap_NB).sum(axis=1), weights_RN.sum(axis=1))


def debiased_calibration_error(
    confidence_N: np.ndarray, right_N: np.ndarray, weights_RN: np.ndarray, num_bins: int = 15
) -> np.ndarray:
    """Expected calibration error less what chance alone adds to it, down to 0.

    A bin's gap has a normal error, whose size follows from its accuracy and its examples (weights that differ, those of
    a resample too, make it larger); what that adds in the mean to an absolute value is taken off, for a true gap whose
    square is that of the bin less that of its error. Of calibrated answers a quarter of the bias is left; no estimate
    of an absolute value is free of it.
    """
    gap_NB, inside_NB = _gaps(confidence_N, right_N, num_bins)
    right_NB = inside_NB * np.asarray(right_N, np.float64)[:, None]
    weight_RB = weights_RN @ inside_NB
    gap_RB = np.abs(np.divide(weights_RN @ gap_NB, weight_RB, out=np.zeros_like(weight_RB), where=weight_RB > 0))
    # One more of each kind: a bin that is all right has some error, too (Laplace).
    share_RB = (weights_RN @ right_NB + 1) / (weight_RB + 2)
    units_RB = np.divide(weight_RB**2, weights_RN**2 @ inside_NB, out=np.ones_like(weight_RB), where=weight_RB > 0)
    error_RB = np.sqrt(share_RB * (1 - share_RB) / np.maximum(units_RB, 1))
    true_RB = np.sqrt(np.maximum(gap_RB**2 - error_RB**2, 0))
    found_R = ratio((weight_RB * (gap_RB - _added_by_chance(true_RB, error_RB))).sum(1), weight_RB.sum(1))
    return np.maximum(found_R, 0)


def _added_by_chance(gap: np.ndarray, error: np.ndarray) -> np.ndarray:
    """E|N(gap, error)| - gap, the mean of a folded normal distribution."""
    z = gap / np.maximum(error, 1e-12)
    density = np.exp(-(z**2) / 2) * math.sqrt(2 / math.pi)
    # 1 - erf(z / sqrt 2), to 1e-7 (Abramowitz and Stegun, 7.1.26): NumPy has no erf.
    t = 1 / (1 + 0.3275911 * z / math.sqrt(2))
    terms = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
    tail = sum(term * t**power for power, term in enumerate(terms, start=1)) * np.exp(-(z**2) / 2)
    return error * density - gap * tail


def rms_calibration_error(
    confidence_N: np.ndarray, right_N: np.ndarray, weights_RN: np.ndarray, num_bins: int = 15
) -> np.ndarray:
    """The root of the mean squared gap between confidence and accuracy, over bins of equal width, debiased.

    A bin's squared gap is the mean product of the gaps of two different examples in it, which has no bias: the debiased
    estimator of Kumar et al. 2019, Verified Uncertainty Calibration, section 4.2 (as Ferro and Fricker 2012 correct the
    reliability of Brier's score). The root of a mean below zero is 0: no calibration error can be seen. A resample
    draws an example several times; it is never paired with itself, so that resamples have no bias either. Bins with
    one example are left out; NaN where no bin has two. It is at least as large as the ECE that it stands in for.

    >>> rms_calibration_error(np.array([0.8, 0.8, 0.8]), np.array([True, False, False]), np.ones((1, 3)))
    array([0.32659863])
    """
    gap_NB, inside_NB = _gaps(confidence_N, right_N, num_bins)
    square_NB = gap_NB**2
    found_R = np.empty(len(weights_RN))
    step = max(1, CELLS // max(1, len(gap_NB)))
    for start in range(0, len(weights_RN), step):
        row_RN = weights_RN[start : start + step]
        row_squared_RN = row_RN**2
        inside_RB = row_RN @ inside_NB
        pairs_RB = inside_RB**2 - row_squared_RN @ inside_NB
        # What is left by rounding is no pair.
        paired_RB = pairs_RB > 1e-9 * inside_RB**2
        products_RB = (row_RN @ gap_NB) ** 2 - row_squared_RN @ square_NB
        squared_gap_RB = np.divide(products_RB, pairs_RB, out=np.zeros_like(pairs_RB), where=paired_RB)
        counted_RB = np.where(paired_RB, inside_RB, 0.0)
        found_R[start : start + step] = ratio((counted_RB * squared_gap_RB).sum(axis=1), counted_RB.sum(axis=1))
    return np.sqrt(np.maximum(found_R, 0.0))


def _gaps(confidence_N: np.ndarray, right_N: np.ndarray, num_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Each example's bin, (N, B): there how far confidence is from the truth, and 1."""
    confidence_N = np.asarray(confidence_N, np.float64)
    bin_N = np.clip(np.ceil(confidence_N * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    inside_NB = np.zeros((len(bin_N), num_bins))
    inside_NB[np.arange(len(bin_N)), bin_N] = 1.0
    return inside_NB * (np.asarray(right_N, np.float64) - confidence_N)[:, None], inside_NB
