"""How far several annotators agree: the ceiling of what a score on their labels can mean.

N record, A annotator, K class.
"""

from __future__ import annotations

import numpy as np


def cohen_kappa(one_N: np.ndarray, other_N: np.ndarray) -> float:
    """Agreement of two annotators beyond chance (Cohen 1960); NaN where both know one class only.

    >>> cohen_kappa(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0]))
    0.5
    """
    classes = max(int(one_N.max()), int(other_N.max())) + 1
    joint_KK = np.zeros((classes, classes))
    np.add.at(joint_KK, (one_N, other_N), 1 / len(one_N))
    chance = float(joint_KK.sum(0) @ joint_KK.sum(1))
    return float((np.trace(joint_KK) - chance) / (1 - chance)) if chance < 1 else float("nan")


def fleiss_kappa(counts_NK: np.ndarray) -> float:
    """Agreement of equally many annotators a record (Fleiss 1971); `counts_NK` is how many gave each class."""
    raters = counts_NK[0].sum()
    agree_N = ((counts_NK**2).sum(1) - raters) / (raters * (raters - 1))
    share_K = counts_NK.sum(0) / counts_NK.sum()
    chance = float((share_K**2).sum())
    return float((agree_N.mean() - chance) / (1 - chance)) if chance < 1 else float("nan")


def krippendorff_alpha(values_NA: np.ndarray) -> float:
    """Agreement of any number of annotators on classes, labels missing where -1 (Krippendorff 2004, nominal)."""
    classes = int(values_NA.max()) + 1
    counts_NK = np.stack([(values_NA == each).sum(1) for each in range(classes)], axis=1).astype(np.float64)
    given_N = counts_NK.sum(1)
    counts_NK, given_N = counts_NK[given_N > 1], given_N[given_N > 1]
    if not len(counts_NK):
        return float("nan")
    pairs_KK = (counts_NK / (given_N - 1)[:, None]).T @ counts_NK
    pairs_KK -= np.diag((counts_NK / (given_N - 1)[:, None]).sum(0))
    total_K = pairs_KK.sum(0)
    count = total_K.sum()
    observed = 1 - np.trace(pairs_KK) / count
    expected = 1 - float((total_K * (total_K - 1)).sum() / (count * (count - 1)))
    return float(1 - observed / expected) if expected > 0 else float("nan")


def dice_of_masks(one: np.ndarray, other: np.ndarray) -> float:
    """How far two masks (any shape, nonzero is inside) cover the same (Dice 1945); 1 where both are empty."""
    both, sizes = np.count_nonzero((one != 0) & (other != 0)), np.count_nonzero(one) + np.count_nonzero(other)
    return 2 * both / sizes if sizes else 1.0
