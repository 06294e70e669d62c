"""Scores: groups are resampled whole, intervals contain their points, and the score says what stands behind it."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest
import torch

from sonde import evaluation
from sonde.base.number_formats import PLAIN
from sonde.contracts.task import Task
from sonde.data.groups import Groups, blocks
from sonde.evaluation import Score
from sonde.targets.category import Category, CategoryConfig
from sonde.targets.labels import Labels, LabelsConfig
from sonde.targets.number import Number, NumberConfig

NUMBER = Task(
    inputs={}, target=Number(config=NumberConfig(), names=["value"], centre=[0.0], scale=[1.0], formats=[PLAIN])
)


def classes(count: int) -> Task:
    names = [f"c{code}" for code in range(count)]
    config = CategoryConfig()
    return Task(inputs={}, target=Category(config=config, classes=names, class_counts=[1] * count, weights=None))


def errors(values: np.ndarray) -> dict[str, np.ndarray]:
    return {"value": np.zeros((len(values), 1)), "answer": values[:, None]}


def two_classes(stated: np.ndarray, true: np.ndarray) -> dict[str, np.ndarray]:
    return {"probabilities": np.stack([1 - stated, stated], axis=1), "class": true.astype(np.int64)}


def grouped(codes: np.ndarray) -> Groups:
    return Groups(name="speaker", codes=codes)


def test_records_that_are_copies_say_no_more_than_one() -> None:
    """Twenty copies of each record, resampled together, have the interval of the records themselves."""
    values = np.random.default_rng(0).normal(size=25)
    plain = evaluation.scores(NUMBER, errors(values), seed=0)
    copies, codes = np.repeat(values, 20), np.repeat(np.arange(25), 20)
    together = evaluation.scores(NUMBER, errors(copies), seed=0, groups=grouped(codes))
    alone = evaluation.scores(NUMBER, errors(copies), seed=0)
    for name in ("rmse", "mae"):
        assert (together[name].low, together[name].high) == pytest.approx((plain[name].low, plain[name].high))
        assert alone[name].high - alone[name].low < (plain[name].high - plain[name].low) / 3
    assert (together["rmse"].unit, together["rmse"].units, together["rmse"].count) == ("speaker", 25, 500)
    assert (alone["rmse"].unit, alone["rmse"].units) == ("examples", 500)


def test_the_order_of_records_in_groups_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    values, codes = rng.normal(size=60), rng.permutation(np.repeat(np.arange(12), 5))
    order = np.argsort(codes, kind="stable")
    one = evaluation.scores(NUMBER, errors(values), seed=3, groups=grouped(codes))
    other = evaluation.scores(NUMBER, errors(values[order]), seed=3, groups=grouped(codes[order]))
    assert (one["mae"].low, one["mae"].high) == pytest.approx((other["mae"].low, other["mae"].high))


def test_two_groups_by_hand() -> None:
    values = np.array([1.0, 1.0, 1.0, 3.0])
    found = evaluation.scores(NUMBER, errors(values), seed=0, groups=grouped(np.array([0, 0, 0, 1])))["mae"]
    # A resample has both groups, or one of them twice.
    assert (found.low, found.value, found.high) == (1.0, 1.5, 3.0)


def test_one_group_has_no_interval() -> None:
    found = evaluation.scores(NUMBER, errors(np.arange(4.0)), seed=0, groups=grouped(np.zeros(4, np.int64)))["mae"]
    assert (found.value, found.low, found.high, found.units) == (1.5, None, None, 1)


def test_weights_of_records_count_in_groups() -> None:
    values, codes = np.array([1.0, 2.0, 5.0, 9.0, 3.0, 4.0]), np.array([0, 0, 1, 1, 2, 2])
    weight = np.array([1, 0, 1, 0, 1, 0], np.float32)
    found = evaluation.scores(NUMBER, errors(values), seed=0, weight=weight, groups=grouped(codes))["mae"]
    wanted = evaluation.scores(NUMBER, errors(values[::2]), seed=0)["mae"]
    assert (found.value, found.low, found.high) == pytest.approx((wanted.value, wanted.low, wanted.high))


def test_chunks_of_resamples_are_one_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    values, codes = np.random.default_rng(0).normal(size=40), np.repeat(np.arange(10), 4)
    whole = evaluation.scores(NUMBER, errors(values), seed=0, groups=grouped(codes))
    monkeypatch.setattr(importlib.import_module("sonde.evaluation.scores"), "CELLS", 40 * 7)
    parts = evaluation.scores(NUMBER, errors(values), seed=0, groups=grouped(codes))
    for name, score in whole.items():
        assert (parts[name].low, parts[name].high) == pytest.approx((score.low, score.high))


def rare_labels(rng: np.random.Generator) -> tuple[Task, dict[str, np.ndarray]]:
    target = Labels(config=LabelsConfig(), classes=list("abcdef"), class_counts=[1] * 6, num_records=9, weights=None)
    labels = (rng.random((40, 6)) < 0.06).astype(np.uint8)
    labels[:2] = 1
    return Task(inputs={}, target=target), {"probabilities": rng.random((40, 6)), "labels": labels}


def adversarial() -> list[tuple[Task, dict[str, np.ndarray], Groups | None]]:
    rng = np.random.default_rng(0)
    many = rng.dirichlet(np.ones(30), 60)
    stated = rng.random(80)
    return [
        (*rare_labels(rng), None),
        (classes(30), {"probabilities": many, "class": rng.integers(0, 30, 60)}, None),
        (classes(2), two_classes(stated, rng.random(80) < stated), None),
        (classes(2), two_classes(stated, rng.random(80) < stated), grouped(np.arange(80) // 27)),
        (classes(2), two_classes(stated, stated > 0.5), None),
        (classes(2), two_classes(stated, stated < 0.5), blocks(80)),
        (classes(2), two_classes(np.full(9, 0.3), np.arange(9) > 7), None),
        (NUMBER, errors(np.array([*np.zeros(30), 1e6])), None),
        (NUMBER, errors(np.zeros(12)), None),
    ]


@pytest.mark.parametrize("case", range(len(adversarial())))
def test_every_interval_contains_its_point(case: int) -> None:
    task, columns, groups = adversarial()[case]
    for name, score in evaluation.scores(task, columns, seed=0, groups=groups).items():
        if score.low is not None:
            assert score.low <= score.value <= score.high, name


def test_a_calibrated_model_has_a_calibration_error_of_zero() -> None:
    rng = np.random.default_rng(0)
    covered, plain = [], []
    for _ in range(40):
        stated = rng.random(300)
        columns = two_classes(stated, rng.random(300) < stated)
        found = evaluation.scores(classes(2), columns, seed=0, resamples=200)["rms_calibration_error"]
        covered.append(found.low == 0)
        wrong = two_classes(np.where(stated > 0.5, 0.99, 0.01), columns["class"])
        plain.append(evaluation.scores(classes(2), wrong, seed=0, resamples=200)["rms_calibration_error"].low)
    assert np.mean(covered) >= 0.9
    assert min(plain) > 0.1


def test_all_right_is_not_surely_right() -> None:
    stated = np.array([0.9] * 30 + [0.1] * 10)
    found = evaluation.scores(classes(2), two_classes(stated, stated > 0.5), seed=0)
    assert found["accuracy"].low == pytest.approx(0.025 ** (1 / 40))
    assert found["accuracy"].high == 1.0
    # Ten records are of class c0: its recall stands on those.
    assert found["recall/c0"].low == pytest.approx(0.025 ** (1 / 10))
    assert found["precision/c1"].low == pytest.approx(0.025 ** (1 / 30))
    # An order needs two records: nothing is known of how sure it is.
    assert (found["roc_auc"].value, found["roc_auc"].low, found["roc_auc"].high) == (1.0, None, None)
    wrong = evaluation.scores(classes(2), two_classes(stated, stated < 0.5), seed=0)
    assert (wrong["accuracy"].low, wrong["accuracy"].high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 40)))


def test_what_stands_behind_a_score_is_said() -> None:
    values = np.random.default_rng(0).normal(size=64)
    found = evaluation.scores(NUMBER, errors(values), seed=0, groups=blocks(64), chose_checkpoint=True)
    line = json.loads(json.dumps(evaluation.to_json({"validation": found})))["validation"]["mae"]
    told = {"value", "low", "high", "count", "unit", "units", "chose_checkpoint", "signature"}
    told |= {"chose_decision", "out_of_fold", "before"}
    assert told | {"baseline", "reference", "reference_name"} == set(line)
    assert (line["unit"], line["units"], line["count"], line["chose_checkpoint"]) == ("blocks", 16, 64, True)
    assert evaluation.about(found["mae"]) == (
        "64 examples; intervals by 16 blocks of neighbours; chose the checkpoint: optimistic"
    )
    assert evaluation.about(Score(value=1.0, low=None, high=None, count=1500)) == "1,500 examples"


def test_the_baseline_stands_beside_the_score() -> None:
    truth = {"value": torch.ones(4, 1)}
    found = evaluation.scores(NUMBER, errors(np.arange(4.0)), seed=0, truth=truth)
    assert found["mae"].baseline == 1.0


def test_the_standard_error_knows_groups() -> None:
    values, codes = np.repeat(np.random.default_rng(0).normal(size=20), 30), np.repeat(np.arange(20), 30)
    alone = evaluation.standard_error(NUMBER, errors(values), "mae", seed=0)
    together = evaluation.standard_error(NUMBER, errors(values), "mae", seed=0, groups=grouped(codes))
    assert 3 < together / alone < 9
