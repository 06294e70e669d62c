"""Agreement of annotators against scikit-learn and published examples."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from sonde.metrics import agreement


@pytest.mark.parametrize("seed", range(5))
def test_cohen_is_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = rng.integers(4, size=60)
    other = np.where(rng.random(60) < 0.6, one, rng.integers(4, size=60))
    assert agreement.cohen_kappa(one, other) == pytest.approx(cohen_kappa_score(one, other))


def test_fleiss_of_the_table_in_his_paper() -> None:
    """Fourteen raters, ten records, five classes: 0.210 (Fleiss 1971, as in every textbook)."""
    counts = [[0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1]]
    counts += [[7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]]
    assert agreement.fleiss_kappa(np.array(counts)) == pytest.approx(0.210, abs=5e-4)


def test_krippendorff_of_the_example_in_his_book() -> None:
    """Four observers, twelve units, some missing: nominal alpha 0.743 (Krippendorff 2011, "Computing ...")."""
    given = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
    values_NA = np.array(given).T - 1
    assert agreement.krippendorff_alpha(values_NA) == pytest.approx(0.743, abs=5e-4)


def test_krippendorff_of_two_without_gaps_is_near_cohen() -> None:
    rng = np.random.default_rng(0)
    one = rng.integers(3, size=4000)
    other = np.where(rng.random(4000) < 0.7, one, rng.integers(3, size=4000))
    alpha = agreement.krippendorff_alpha(np.stack([one, other], axis=1))
    assert alpha == pytest.approx(cohen_kappa_score(one, other), abs=2e-3)


def test_dice() -> None:
    one, other = np.array([[1, 1], [0, 0]]), np.array([[1, 0], [0, 0]])
    assert agreement.dice_of_masks(one, other) == pytest.approx(2 / 3)
    assert agreement.dice_of_masks(0 * one, 0 * one) == 1
