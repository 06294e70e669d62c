"""Logistic regression for classes and labels, ridge regression for numbers; the usual first model on TF-IDF."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from sonde.classical import _sklearn
from sonde.contracts.classical import Estimator, EstimatorConfig, Matrix, Problem


class LinearConfig(EstimatorConfig):
    kind: Literal["linear"] = "linear"
    C: float = Field(
        default=1.0, gt=0, description="how freely weights grow: the inverse of the L2 penalty, as in scikit-learn"
    )


class Linear(Estimator):
    """Columns are standardized (those of a bag are not): `mean` and `deviation` (F,); `weight` (F + width of the bag,
    K) and `bias` (K,). `classes` are those that training rows have."""

    Config = LinearConfig
    rank: ClassVar[int] = 1
    takes_bags: ClassVar[bool] = True
    most_rows: ClassVar[int] = 100_000
    mean: Tensor
    deviation: Tensor
    weight: Tensor
    bias: Tensor
    classes: Tensor
    width: Tensor

    @classmethod
    def about(cls, problem: Problem) -> str:
        return "ridge regression" if problem.kind == "numbers" else "logistic regression"

    @classmethod
    def trials(cls, problem: Problem, matrix: Matrix) -> list[LinearConfig]:
        # Rows of norm 1 and many columns (TF-IDF) want less of a penalty than standardized ones.
        texts = matrix.bag is not None and problem.kind != "numbers" and problem.per == "example"
        middle = 30.0 if texts else 1.0
        return [LinearConfig(C=middle * factor) for factor in (1, 0.1, 10)]

    @classmethod
    def fit(
        cls,
        config: LinearConfig,
        matrix: Matrix,
        problem: Problem,
        *,
        held_out: tuple[Matrix, Problem] | None,
        seed: int,
    ) -> Self:
        dense_NF = matrix.dense()
        mean_F, deviation_F = _sklearn.standard(dense_NF)
        features = _sklearn.joined((dense_NF - mean_F) / deviation_F, matrix.bag)
        classes = torch.arange(problem.width)
        if problem.kind == "classes":
            classes = problem.truth.unique()
        weight_FK, bias_K = train(config, features, problem)
        tensors = {"weight": weight_FK, "bias": bias_K, "mean": mean_F, "deviation": deviation_F, "classes": classes}
        return cls(config, tensors | {"width": torch.tensor(problem.width)})

    def forward(self, matrix: Matrix) -> Tensor:
        dense_BF = (matrix.dense() - self.mean) / self.deviation
        wide = dense_BF.shape[1]
        answers_BK = dense_BF @ self.weight[:wide] + self.bias
        if matrix.bag is not None:
            bag = matrix.bag
            starts = bag.length_B.cumsum(0) - bag.length_B
            answers_BK = answers_BK + functional.embedding_bag(
                bag.columns, self.weight[wide:], starts, mode="sum", per_sample_weights=bag.values
            )
        return _sklearn.spread(answers_BK, self.classes, int(self.width))


def train(config: LinearConfig, features: Any, problem: Problem) -> tuple[Tensor, Tensor]:
    """Weights (F, K) and biases (K,)."""
    truth, sparse = _sklearn.truths(problem), not isinstance(features, np.ndarray)
    if problem.kind == "numbers":
        from sklearn.linear_model import Ridge

        model = _sklearn.fit(Ridge(alpha=1 / config.C), features, truth, problem.weight_N)
        return _tensor(np.atleast_2d(model.coef_).T), _tensor(np.atleast_1d(model.intercept_))
    if problem.kind == "classes":
        model = _sklearn.fit(logistic(config, sparse), features, truth, problem.weight_N)
        return _two_classes(_tensor(model.coef_.T), _tensor(model.intercept_))
    weights, biases = [], []
    for present in truth.T:
        sure = _sklearn.constant_label(present)
        if sure is None:
            model = _sklearn.fit(logistic(config, sparse), features, present, problem.weight_N)
            weights.append(_tensor(model.coef_[0]))
            biases.append(float(model.intercept_[0]))
        else:
            weights.append(torch.zeros(features.shape[1], dtype=torch.float64))
            biases.append(sure)
    return torch.stack(weights, dim=1), torch.tensor(biases, dtype=torch.float64)


def logistic(config: LinearConfig, sparse: bool) -> Any:
    from sklearn.linear_model import LogisticRegression

    # Rows of words are fitted well long before every digit stands, and take minutes for the last ones.
    return LogisticRegression(C=config.C, max_iter=100 if sparse else 300)


def _two_classes(weight_FK: Tensor, bias_K: Tensor) -> tuple[Tensor, Tensor]:
    """scikit-learn has one column for two classes: the softmax of 0 and that column is the same."""
    if weight_FK.shape[1] > 1:
        return weight_FK, bias_K
    return torch.cat([torch.zeros_like(weight_FK), weight_FK], 1), torch.cat([torch.zeros_like(bias_K), bias_K])


def _tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))
