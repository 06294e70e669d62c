"""Sets and intervals that hold the truth as often as is asked: split conformal prediction (Vovk et al. 2005;
Angelopoulos and Bates 2023, "Conformal Prediction: A Gentle Introduction").

N example of the calibration split, F number that is answered, B example.
"""

from __future__ import annotations

import numpy as np

# Groups with fewer calibration records than this share those of all.
FEWEST = 30


def limit(scores_NF: np.ndarray, coverage: float) -> np.ndarray:
    """The nonconformity (F,) that a new record's truth does not pass with probability `coverage`, over draws of the
    calibration split: the ceil((N + 1) coverage)-th smallest, infinite where there are too few.

    >>> limit(np.arange(1.0, 10.0)[:, None], 0.8).tolist()
    [8.0]
    """
    count = len(scores_NF)
    rank = int(np.ceil((count + 1) * coverage - 1e-9))
    if rank > count:
        return np.full(scores_NF.shape[1], np.inf)
    return np.partition(scores_NF, rank - 1, axis=0)[rank - 1]


def limits(
    scores_NF: np.ndarray,
    coverage: float,
    groups_N: np.ndarray | None = None,
    group_B: np.ndarray | None = None,
    count: int = 1,
) -> np.ndarray:
    """The limit of each of `count` new records, (B, F): by its group, where groups are given as codes from 0 up (-1: a
    value that the calibration split did not have), so that the coverage holds within each (Mondrian); a group that is
    too small has that of all."""
    common_F = limit(scores_NF, coverage)
    found_BF = np.tile(common_F, (count, 1))
    if groups_N is None or group_B is None:
        return found_BF
    for code in np.unique(group_B[group_B >= 0]).tolist():
        mine = groups_N == code
        if mine.sum() >= FEWEST:
            found_BF[group_B == code] = limit(scores_NF[mine], coverage)
    return found_BF
