"""Costs and wishes: the least expected cost, a share that is found as often as was promised."""

from __future__ import annotations

import numpy as np
import pytest

from sonde.contracts.decision import DecisionConfig
from sonde.targets import _decisions
from sonde.targets.category import Category, CategoryConfig

NAMES = ["fraud", "ok"]


def category() -> Category:
    return Category(config=CategoryConfig(), classes=NAMES, class_counts=[1, 9], weights=None)


def drawn(count: int, seed: int, sharpness: float = 1.0) -> dict[str, np.ndarray]:
    """Frauds with known probabilities; with another sharpness they are stated wrongly."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-2.5, 1.5, count)
    fraud = rng.random(count) < 1 / (1 + np.exp(-logit))
    stated = 1 / (1 + np.exp(-sharpness * logit))
    return {"probabilities": np.stack([stated, 1 - stated], 1).astype(np.float32), "class": (~fraud).astype(np.int64)}


def test_the_least_expected_cost() -> None:
    config = DecisionConfig(costs={"fraud": {"ok": 100}, "ok": {"fraud": 5}})
    target, notes = category().decide(config, drawn(100, 0))
    assert notes == []
    p = np.array([[0.04, 0.96], [0.05, 0.95], [0.6, 0.4]])
    # 100 p > 5 (1 - p) from p = 1 / 21 on.
    assert _decisions.choose(target.decision, p).tolist() == [1, 0, 0]
    columns = {"probabilities": p.astype(np.float32), "class": np.array([0, 1, 0])}
    assert target.metrics(columns, np.ones((1, 3)))["cost"].tolist() == [(100 + 5 + 0) / 3]
    assert "mistakes cost 105; with the likeliest class 100" in (target.decision_in_words(columns) or "")


def test_what_is_not_named_costs_one() -> None:
    config = DecisionConfig(costs={"fraud": {"ok": 7}})
    assert _decisions.cost_matrix(config, NAMES).tolist() == [[0, 7], [1, 0]]


def test_a_threshold_makes_up_for_wrong_probabilities() -> None:
    config = DecisionConfig(costs={"fraud": {"ok": 100}, "ok": {"fraud": 5}})
    fine, _ = category().decide(config, drawn(4000, 0))
    assert fine.decision is not None
    assert fine.decision["threshold"] is None
    off, _ = category().decide(config, drawn(4000, 0, sharpness=3.0))
    assert off.decision is not None
    assert off.decision["threshold"] is not None
    test = drawn(20_000, 1, sharpness=3.0)
    plain, _ = category().decide(config, drawn(100, 0))
    ones = np.ones((1, 20_000))
    assert off.metrics(test, ones)["cost"][0] < 0.9 * plain.metrics(test, ones)["cost"][0]


def test_the_share_that_was_promised_is_found() -> None:
    config = DecisionConfig.model_validate({"recall": {"class": "fraud", "at_least": 0.9}})
    shares = []
    for seed in range(60):
        target, notes = category().decide(config, drawn(600, seed))
        assert notes == []
        test = drawn(3000, 1000 + seed)
        shares.append(target.metrics(test, np.ones((1, 3000)))["recall/fraud"][0])
    assert 0.895 <= np.mean(shares) <= 0.93


def test_too_few_records_to_promise_are_told() -> None:
    config = DecisionConfig.model_validate({"recall": {"class": "fraud", "at_least": 0.99}})
    columns = drawn(100, 0)
    target, (note,) = category().decide(config, columns)
    assert "takes 99" in note
    assert target.metrics(columns, np.ones((1, 100)))["recall/fraud"][0] == 1.0
    none = {name: column[columns["class"] == 1] for name, column in columns.items()}
    assert "no validation record" in category().decide(config, none)[1][0]


def test_of_many_classes_the_others_are_answered_as_before() -> None:
    decision = _decisions.Decision(costs=[], wanted=1, threshold=0.2)
    p = np.array([[0.7, 0.25, 0.05], [0.7, 0.1, 0.2], [0.1, 0.19, 0.71]])
    assert _decisions.choose(decision, p).tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        (_decisions.Decision(costs=[[0.0, 1.0]], wanted=None, threshold=None), "not those of 2 classes"),
        (_decisions.Decision(costs=[], wanted=2, threshold=0.1), "class 2 of 2"),
        (_decisions.Decision(costs=[], wanted=1, threshold=None), "no threshold"),
    ],
)
def test_a_saved_decision_has_to_fit(decision: _decisions.Decision, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        _decisions.agrees(decision, 2)
