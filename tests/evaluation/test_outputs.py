"""One pass over a split, and scores with intervals, for examples and for sets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from loop_fakes import TwoTerms, Vectors, network_for, two_terms

from sonde import evaluation
from sonde.base.device import Precision
from sonde.contracts.columns import Ragged
from sonde.contracts.task import Task

EXACT = Precision(kind="fp32", device=torch.device("cpu"))


@dataclass(frozen=True, kw_only=True)
class Sets(TwoTerms):
    """Gives as many numbers for an example as its value says; the score is their mean over all."""

    best: ClassVar = ("mean", "max")
    most: int = 5

    def eval_outputs(self, network, batch):
        count = (batch.records_B % self.most).tolist()
        answers = network(batch.inputs)[:, 0]
        parts = [answer.repeat(size) for answer, size in zip(answers, count, strict=True)]
        return {"found": Ragged.of(parts), "answer": answers}

    def metrics(self, columns, weights_RN):
        total_N = np.array([each.sum() for each in columns["found"]])
        count_N = np.array([len(each) for each in columns["found"]])
        with np.errstate(invalid="ignore"):
            return {"mean": weights_RN @ total_N / (weights_RN @ count_N), "plain": weights_RN @ columns["answer"]}


@pytest.mark.parametrize("size", [256, 7, 1])
@pytest.mark.parametrize("most", [5, 1])
def test_sets_of_any_size_are_collected_over_batches(size, most):
    _, examples = two_terms(23)
    task = Task(inputs={"x": Vectors()}, target=Sets(most=most))
    net = network_for(task)
    columns = evaluation.eval_outputs(task, net, examples, precision=EXACT, size=size)
    answers = net.eval()({"x": examples.inputs["x"]}).detach().numpy()[:, 0]
    np.testing.assert_allclose(columns["answer"], answers, rtol=1e-5, atol=1e-6)
    assert columns["found"].shape == (23,)
    for number, found in enumerate(columns["found"]):
        np.testing.assert_allclose(found, np.repeat(answers[number], number % most), rtol=1e-5, atol=1e-6)
    assert evaluation.all_finite(columns)
    columns["found"][-1] = np.array([np.nan])
    assert not evaluation.all_finite(columns)


def test_intervals_hold_the_value_and_repeat_with_the_seed():
    _, examples = two_terms(60)
    task = Task(inputs={"x": Vectors()}, target=Sets())
    columns = evaluation.eval_outputs(task, network_for(task), examples, precision=EXACT)
    first, again, other = (evaluation.scores(task, columns, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    for score in first.values():
        assert score.low < score.value < score.high
        assert score.count == 60
    weight = np.arange(60.0)
    weighted = evaluation.values(task, columns, weight)
    count = np.array([len(each) for each in columns["found"]])
    assert weighted["mean"] == pytest.approx((columns["answer"] * count * weight).sum() / (count * weight).sum())


def test_a_score_that_is_not_defined_is_none():
    _, examples = two_terms(4)
    task = Task(inputs={"x": Vectors()}, target=Sets(most=1))
    columns = evaluation.eval_outputs(task, network_for(task), examples, precision=EXACT)
    assert math.isnan(evaluation.values(task, columns)["mean"])
    score = evaluation.scores(task, columns, seed=0)["mean"]
    assert (score.value, score.low, score.high) == (None, None, None)
    assert str(score) == "not defined here"
