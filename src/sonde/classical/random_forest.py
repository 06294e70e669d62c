"""Random forest (Breiman 2001): many trees, each grown on its own draw of rows and columns; their mean answers."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from sonde.classical import _sklearn, _trees
from sonde.contracts.classical import Estimator, EstimatorConfig, Matrix, Problem


class RandomForestConfig(EstimatorConfig):
    kind: Literal["random-forest"] = "random-forest"
    trees: int = Field(default=200, ge=1, description="how many")
    min_leaf: int = Field(default=1, ge=1, description="fewest training rows in a leaf")
    max_columns: float | Literal["sqrt"] = Field(
        default="sqrt", description="columns tried at each split: their square root, or a share of them"
    )


class RandomForest(Estimator):
    """Categories are given by their number. `classes` are those that training rows have."""

    Config = RandomForestConfig
    rank: ClassVar[int] = 4
    most_rows: ClassVar[int] = 20_000
    most_columns: ClassVar[int] = 4096
    classes: Tensor
    width: Tensor
    kind: Tensor

    def __init__(self, config: Any, tensors: dict[str, Tensor]) -> None:
        super().__init__(config, tensors)
        self.forest = _trees.Forest(tensors)

    @classmethod
    def about(cls, problem: Problem) -> str:
        return "random forest"

    @classmethod
    def trials(cls, problem: Problem, matrix: Matrix) -> list[RandomForestConfig]:
        share: float | Literal["sqrt"] = 0.33 if problem.kind == "numbers" else "sqrt"
        return [
            RandomForestConfig(max_columns=share),
            RandomForestConfig(max_columns=share, min_leaf=3),
            # Trying most of many columns takes minutes.
            RandomForestConfig(max_columns=0.6, min_leaf=2)
            if matrix.num_columns <= 50
            else RandomForestConfig(max_columns=share, min_leaf=8),
        ]

    @classmethod
    def fit(
        cls,
        config: RandomForestConfig,
        matrix: Matrix,
        problem: Problem,
        *,
        held_out: tuple[Matrix, Problem] | None,
        seed: int,
    ) -> Self:
        model = _sklearn.fit(
            estimator(config, problem, seed), rows(matrix).numpy(), _sklearn.truths(problem), problem.weight_N
        )
        trees = [_trees.Tree.of_sklearn(each.tree_, _values(each.tree_, problem)) for each in model.estimators_]
        classes = torch.from_numpy(np.asarray(model.classes_)).long() if problem.kind == "classes" else torch.arange(0)
        extra = {"classes": classes, "width": torch.tensor(problem.width)}
        return cls(config, _trees.pack(trees) | extra | {"kind": torch.tensor(KINDS.index(problem.kind))})

    def forward(self, matrix: Matrix) -> Tensor:
        mean_BK = self.forest.summed(rows(matrix)) / len(self.forest.roots)
        kind = KINDS[int(self.kind)]
        if kind == "numbers":
            return mean_BK
        if kind == "labels":
            return _sklearn.log_odds(mean_BK)
        return _sklearn.spread(mean_BK.clamp_min(_sklearn.LEAST).log(), self.classes, int(self.width))


KINDS = ("classes", "labels", "numbers")


def rows(matrix: Matrix) -> Tensor:
    """As scikit-learn's trees see them: in float32."""
    return torch.cat([matrix.numbers.float(), matrix.categories.float()], dim=1)


def estimator(config: RandomForestConfig, problem: Problem, seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    kind: Any = RandomForestRegressor if problem.kind == "numbers" else RandomForestClassifier
    return kind(
        config.trees,
        min_samples_leaf=config.min_leaf,
        max_features=config.max_columns,
        random_state=seed,
        n_jobs=-1,
    )


def _values(tree: Any, problem: Problem) -> np.ndarray:
    """What a node answers, (M, V): the shares of the classes, of rows that have each label, or the means."""
    if problem.kind == "classes":
        return tree.value[:, 0, :]
    if problem.kind == "numbers":
        return tree.value[:, :, 0]
    # A label that all rows have or lack has one class only; scikit-learn fills the place of the other with zeros.
    shares_MK2 = tree.value
    constant = np.array([_sklearn.constant_label(present) is not None for present in _columns(problem)])
    always = np.array([bool(present.all()) for present in _columns(problem)])
    present_MK = shares_MK2[:, :, 1] if shares_MK2.shape[2] > 1 else np.zeros(shares_MK2.shape[:2])
    return np.where(constant, always.astype(float), present_MK)


def _columns(problem: Problem) -> np.ndarray:
    return _sklearn.truths(problem).T
