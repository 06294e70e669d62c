"""Which rung is shipped: pure functions of draws. And the words in which a user asks."""

from __future__ import annotations

import numpy as np
import pytest

from sonde.base.errors import UserError
from sonde.evaluation.paired import Drawn, difference
from sonde.ladder import choose
from sonde.ladder.bar import Bar, read_bar, read_budget


def drawn(value, noise=0.0, seed=0):
    return Drawn(value=value, drawn_R=value + noise * np.random.default_rng(seed).normal(size=2000))


def test_a_tie_goes_to_the_cheaper():
    rungs = {"constant": drawn(0.6, 0.01, 1), "linear": drawn(0.9, 0.02, 2), "network": drawn(0.91, 0.02, 3)}
    assert choose.best_of(rungs, "max") == "network"
    assert choose.ship(rungs, "max", 2, None) == "linear"


def test_a_real_difference_is_paid_for():
    rungs = {"linear": drawn(0.80, 0.005, 2), "network": drawn(0.91, 0.005, 3)}
    assert choose.ship(rungs, "max", 1, None) == "network"
    assert choose.improves(rungs, "max", 1)


def test_lower_can_be_better():
    rungs = {"linear": drawn(0.70, 0.005, 2), "network": drawn(0.50, 0.005, 3)}
    assert choose.best_of(rungs, "min") == "network"
    assert choose.ship(rungs, "min", 1, None) == "network"
    assert choose.compare(rungs, "min", 1)["linear"].difference.value == pytest.approx(0.2)
    assert not choose.improves({"network": rungs["network"], "linear": rungs["linear"]}, "min", 1)


def test_more_looks_ask_for_more():
    """A difference that one look would believe, and ten would not."""
    found = difference(drawn(0.03, 0.013, 1), drawn(0.0))
    assert 0.005 < found.p < 0.05
    rungs = {"linear": drawn(0.0), "network": drawn(0.03, 0.013, 1)}
    assert choose.ship(rungs, "max", 1, None) == "network"
    assert choose.ship(rungs, "max", 10, None) == "linear"


def test_the_first_that_meets_the_bar():
    rungs = {"linear": drawn(0.85), "boosting": drawn(0.91), "network": drawn(0.95)}
    assert choose.ship(rungs, "max", 2, Bar(metric="accuracy", better="max", value=0.9)) == "boosting"
    assert choose.ship(rungs, "max", 2, Bar(metric="accuracy", better="max", value=0.99)) == "network"


def test_a_score_that_is_not_defined_is_no_difference():
    empty = Drawn(value=float("nan"), drawn_R=np.full(2000, np.nan))
    assert difference(drawn(0.9), empty).p == 1.0


def test_pairing_sees_what_intervals_hide():
    """Two scores whose intervals overlap widely, and which differ on every resample."""
    noise = np.random.default_rng(0).normal(size=2000)
    one, other = Drawn(value=0.82, drawn_R=0.82 + 0.05 * noise), Drawn(value=0.8, drawn_R=0.8 + 0.05 * noise)
    assert difference(one, other).p < 0.002
    with pytest.raises(ValueError, match="same resamples"):
        difference(one, Drawn(value=0.8, drawn_R=noise[:100]))


def test_bars_and_budgets():
    assert read_bar("roc_auc >= 0.9") == Bar(metric="roc_auc", better="max", value=0.9)
    assert read_bar("recall/not spam>.5") == Bar(metric="recall/not spam", better="max", value=0.5)
    assert read_bar(" rmse <= 3e4") == Bar(metric="rmse", better="min", value=30000.0)
    assert [read_budget(text) for text in ("90s", "30m", "2h", "5")] == [90, 1800, 7200, 300]
    for text in ("accuracy", "accuracy = 0.9", ">= 3", "accuracy >= high", "accuracy >= 1.2.3"):
        with pytest.raises(UserError, match="cannot be read"):
            read_bar(text)
    for text in ("soon", "-3m", "0s", "1.2.3h"):
        with pytest.raises(UserError, match="is no time"):
            read_budget(text)
