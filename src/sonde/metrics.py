"""Metrics as pure functions of columns and of rows of example weights.

`weights_RN` is float64 (R, N), not negative: a row of ones gives the plain value, the records' own weights the weighted
one, multinomial counts a bootstrap resample. Every function answers once for each row: (R,), or (R, K) per class. Where
a row leaves a metric without meaning (a class that does not occur, no weight at all) the answer is NaN, never a
warning. Rows are taken one at a time or through a matrix product, so memory stays near that of the weights themselves.

Shape suffixes: R row of weights, N example, K class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

Score = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

# The smallest probability that a float32 answer can be told from zero by: without it one sure and wrong answer would
# make the log loss of a whole split infinite.
SMALLEST = float(np.finfo(np.float32).eps)
# Confusion matrices that are brought to float64 at a time.
BLOCK = 256


def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """top / bottom, NaN where bottom is not positive."""
    top, bottom = np.broadcast_arrays(np.asarray(top, np.float64), np.asarray(bottom, np.float64))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def mean(values_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """The weighted mean of one number per example."""
    # An infinite value (a network that diverged) makes its rows infinite or NaN; that is the answer, not a warning.
    with np.errstate(invalid="ignore"):
        return ratio(weights_RN @ np.asarray(values_N, np.float64), weights_RN.sum(axis=1))


def mean_of_defined(values_RK: np.ndarray) -> np.ndarray:
    """The mean over classes, leaving out those that are NaN; NaN where all are."""
    defined_RK = ~np.isnan(values_RK)
    return ratio(np.where(defined_RK, values_RK, 0.0).sum(axis=1), defined_RK.sum(axis=1))


class Tally(NamedTuple):
    """What per-class scores are made of, each (R, K): the weight that was right, that is true, that was answered."""

    hit_RK: np.ndarray
    true_RK: np.ndarray
    answered_RK: np.ndarray


def tally(true_N: np.ndarray, answered_N: np.ndarray, num_classes: int, weights_RN: np.ndarray) -> Tally:
    """Count classes: int64 truths and answers in 0..K-1, one of each per example."""
    # Wrong answers fall into one further bin, which is dropped.
    hit_N = np.where(true_N == answered_N, true_N, num_classes)
    return Tally(
        hit_RK=_binned(hit_N, num_classes + 1, weights_RN)[:, :num_classes],
        true_RK=_binned(true_N, num_classes, weights_RN),
        answered_RK=_binned(answered_N, num_classes, weights_RN),
    )


def tally_labels(true_NK: np.ndarray, answered_NK: np.ndarray, weights_RN: np.ndarray) -> Tally:
    """Count labels of which an example may have several: two bool arrays (N, K)."""
    true_NK, answered_NK = np.asarray(true_NK, np.float64), np.asarray(answered_NK, np.float64)
    return Tally(
        hit_RK=weights_RN @ (true_NK * answered_NK),
        true_RK=weights_RN @ true_NK,
        answered_RK=weights_RN @ answered_NK,
    )


def _binned(bin_N: np.ndarray, num_bins: int, weights_RN: np.ndarray) -> np.ndarray:
    """The weight in each bin, (R, bins). For more than ten bins this is quicker than a product with one-hot rows."""
    return np.stack([np.bincount(bin_N, row_N, num_bins) for row_N in weights_RN])


def recall(counts: Tally) -> np.ndarray:
    """Per class (R, K): the share of a class that was found; NaN where it does not occur."""
    return ratio(counts.hit_RK, counts.true_RK)


def precision(counts: Tally) -> np.ndarray:
    """Per class (R, K): the share of its answers that was right; NaN where it was never answered."""
    return ratio(counts.hit_RK, counts.answered_RK)


def f1(counts: Tally) -> np.ndarray:
    """Per class (R, K): the harmonic mean of precision and recall; NaN where it neither occurs nor was answered."""
    return ratio(2 * counts.hit_RK, counts.true_RK + counts.answered_RK)


def accuracy(counts: Tally) -> np.ndarray:
    """The share of right answers, one class per example."""
    return ratio(counts.hit_RK.sum(axis=1), counts.true_RK.sum(axis=1))


def balanced_accuracy(counts: Tally) -> np.ndarray:
    """The mean recall of the classes that occur."""
    return mean_of_defined(recall(counts))


def macro_f1(counts: Tally) -> np.ndarray:
    """The mean F1 of the classes that occur or were answered."""
    return mean_of_defined(f1(counts))


def micro_f1(counts: Tally) -> np.ndarray:
    """F1 of all labels thrown together."""
    return ratio(2 * counts.hit_RK.sum(axis=1), (counts.true_RK + counts.answered_RK).sum(axis=1))


def roc_auc(scores_N: np.ndarray, positive_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """The chance that a positive example scores above a negative one, ties counting half (Hanley and McNeil 1982).

    NaN where a row lacks positives or negatives.
    """
    positive_N = np.asarray(positive_N, bool)
    if 2 * positive_N.sum() > len(positive_N):
        # The same chance seen from the other side: the fewer levels, the quicker.
        scores_N, positive_N = -scores_N, ~positive_N
    area_R, pairs_R = np.zeros(len(weights_RN)), np.zeros(len(weights_RN))
    for number, (at_G, below_G, not_above_G, negative) in enumerate(_levels(scores_N, positive_N, weights_RN)):
        area_R[number] = at_G @ (below_G + not_above_G) / 2
        pairs_R[number] = at_G.sum() * negative
    return ratio(area_R, pairs_R)


def average_precision(scores_N: np.ndarray, positive_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """The mean precision at each recall step, not interpolated; tied scores make one step. NaN without positives."""
    area_R, found_R = np.zeros(len(weights_RN)), np.zeros(len(weights_RN))
    levels = _levels(scores_N, np.asarray(positive_N, bool), weights_RN)
    for number, (at_G, below_G, _, negative) in enumerate(levels):
        found_G = np.cumsum(at_G[::-1])[::-1]
        area_R[number] = at_G @ np.nan_to_num(ratio(found_G, found_G + negative - below_G))
        found_R[number] = at_G.sum()
    return ratio(area_R, found_R)


def _levels(
    scores_N: np.ndarray, positive_N: np.ndarray, weights_RN: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, float]]:
    """What ranking scores are made of: scores are sorted once for all rows.

    For every row, at each distinct score of a positive, lowest first: the weight of positives there, of negatives
    below it, of negatives not above it; and the weight of all negatives.
    """
    levels_G, level_of_positive = np.unique(scores_N[positive_N], return_inverse=True)
    num_bins = 2 * len(levels_G) + 1
    # Bin 2g holds the negatives between levels g - 1 and g, bin 2g + 1 those tied with level g; positives come after.
    bin_N = np.searchsorted(levels_G, scores_N, side="left") + np.searchsorted(levels_G, scores_N, side="right")
    bin_N[positive_N] = num_bins + level_of_positive
    for row_N in weights_RN:
        binned = np.bincount(bin_N, row_N, num_bins + len(levels_G))
        passed = np.cumsum(binned[:num_bins])
        yield binned[num_bins:], passed[:-1:2], passed[1::2], float(passed[-1])


def roc_auc_macro(scores_NK: np.ndarray, positive_NK: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """The mean of `roc_auc` over classes, each against the rest, of those classes that have both sides."""
    return _macro(roc_auc, scores_NK, positive_NK, weights_RN)


def average_precision_macro(scores_NK: np.ndarray, positive_NK: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """Mean average precision: the mean of `average_precision` over the classes that occur."""
    return _macro(average_precision, scores_NK, positive_NK, weights_RN)


def _macro(score: Score, scores_NK: np.ndarray, positive_NK: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    columns = zip(np.ascontiguousarray(scores_NK.T), np.ascontiguousarray(positive_NK.T), strict=True)
    values = [score(scores_N, positive_N, weights_RN) for scores_N, positive_N in columns]
    return mean_of_defined(np.stack(values, axis=1))


def log_loss(probabilities_NK: np.ndarray, true_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """The mean of -log(probability of the true class), in nats."""
    chosen_N = np.take_along_axis(probabilities_NK, true_N[:, None], axis=1)[:, 0].astype(np.float64)
    return mean(-np.log(np.clip(chosen_N, SMALLEST, 1 - SMALLEST)), weights_RN)


def top_accuracy(probabilities_NK: np.ndarray, true_N: np.ndarray, weights_RN: np.ndarray, most: int) -> np.ndarray:
    """The share of examples whose true class is among the `most` likeliest ones; ties go to the lower class."""
    true_N1 = np.take_along_axis(probabilities_NK, true_N[:, None], axis=1)
    lower_NK = np.arange(probabilities_NK.shape[1])[None, :] < true_N[:, None]
    ahead_N = ((probabilities_NK > true_N1) | ((probabilities_NK == true_N1) & lower_NK)).sum(axis=1)
    return mean(ahead_N < most, weights_RN)


def calibration_error(
    confidence_N: np.ndarray, right_N: np.ndarray, weights_RN: np.ndarray, num_bins: int = 15
) -> np.ndarray:
    """Expected calibration error: how far confidence is from accuracy, over bins of equal width (Guo et al. 2017)."""
    confidence_N = np.asarray(confidence_N, np.float64)
    bin_N = np.clip(np.ceil(confidence_N * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    gap_NB = np.zeros((len(bin_N), num_bins))
    gap_NB[np.arange(len(bin_N)), bin_N] = np.asarray(right_N, np.float64) - confidence_N
    return ratio(np.abs(weights_RN @ gap_NB).sum(axis=1), weights_RN.sum(axis=1))


def mae(true_N: np.ndarray, answered_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """The mean absolute error."""
    return mean(np.abs(answered_N - true_N), weights_RN)


def rmse(true_N: np.ndarray, answered_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """The root of the mean squared error."""
    return np.sqrt(mean(_squared(answered_N, true_N), weights_RN))


def r2(true_N: np.ndarray, answered_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """The share of the variance that is explained; NaN where all truths of a row are the same."""
    true_N = np.asarray(true_N, np.float64)
    # Around their mean, so that large values that differ little keep their digits.
    centred_N = true_N - true_N.mean() if len(true_N) else true_N
    second_R = mean(centred_N**2, weights_RN)
    variance_R = second_R - mean(centred_N, weights_RN) ** 2
    variance_R = np.where(variance_R > 1e-12 * second_R, variance_R, 0.0)
    return 1 - ratio(mean(_squared(answered_N, true_N), weights_RN), variance_R)


def _squared(answered_N: np.ndarray, true_N: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return (np.asarray(answered_N, np.float64) - np.asarray(true_N, np.float64)) ** 2


def per_unit(sums_N: np.ndarray, units_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """Sums per example over the number of things summed (positions, bytes, pixels): the loss per token, say."""
    return ratio(weights_RN @ np.asarray(sums_N, np.float64), weights_RN @ np.asarray(units_N, np.float64))


def perplexity(loss_R: np.ndarray) -> np.ndarray:
    """The number of equally likely choices that a loss in nats amounts to."""
    with np.errstate(over="ignore"):
        return np.exp(loss_R)


def confusion_of_pixels(confusion_NKK: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """Confusion matrices (R, K, K) from one per example, [true, answered]."""
    count, num_classes = confusion_NKK.shape[:2]
    total = np.zeros((len(weights_RN), num_classes**2))
    # Block by block, since a product wants float64 and many matrices of many classes would not fit as that.
    for start in range(0, count, BLOCK):
        block = confusion_NKK[start : start + BLOCK].reshape(-1, num_classes**2)
        total += weights_RN[:, start : start + BLOCK] @ block.astype(np.float64)
    return total.reshape(-1, num_classes, num_classes)


def tally_of_confusion(confusion_RKK: np.ndarray) -> Tally:
    return Tally(
        hit_RK=np.diagonal(confusion_RKK, axis1=1, axis2=2),
        true_RK=confusion_RKK.sum(axis=2),
        answered_RK=confusion_RKK.sum(axis=1),
    )


def iou(counts: Tally) -> np.ndarray:
    """Per class (R, K): intersection over union (Jaccard index); NaN where it neither occurs nor was answered."""
    return ratio(counts.hit_RK, counts.true_RK + counts.answered_RK - counts.hit_RK)
