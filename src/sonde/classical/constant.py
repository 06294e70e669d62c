"""The same answer to everything: the majority class, the share of each label, the mean."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from sonde.classical._sklearn import log_odds
from sonde.contracts.classical import Estimator, EstimatorConfig, Matrix, Problem


class ConstantConfig(EstimatorConfig):
    kind: Literal["constant"] = "constant"


class Constant(Estimator):
    """What no model may lose to. `answer` (K,)."""

    Config = ConstantConfig
    rank: ClassVar[int] = 0
    takes_bags: ClassVar[bool] = True
    most_columns: ClassVar[int] = 1 << 40
    answer: Tensor

    @classmethod
    def about(cls, problem: Problem) -> str:
        return {"classes": "majority class", "labels": "label frequencies", "numbers": "mean"}[problem.kind]

    @classmethod
    def fit(
        cls, config: Any, matrix: Matrix, problem: Problem, *, held_out: tuple[Matrix, Problem] | None, seed: int
    ) -> Self:
        truth = problem.truth
        if problem.kind == "classes":
            answer = log_odds_of_classes(torch.bincount(truth, minlength=problem.width))
        elif problem.kind == "labels":
            answer = log_odds(truth.double().mean(0))
        else:
            answer = truth.double().mean(0)
        return cls(config, {"answer": answer})

    def forward(self, matrix: Matrix) -> Tensor:
        return self.answer.expand(len(matrix), -1)


def log_odds_of_classes(counts_K: Tensor) -> Tensor:
    share_K = counts_K.double() / counts_K.sum()
    return share_K.clamp_min(1e-9).log()
