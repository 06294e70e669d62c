"""Gradient boosting of decision trees over histograms (as LightGBM, Ke et al. 2017): the usual winner on tables."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from sonde.classical import _sklearn, _trees
from sonde.contracts.classical import Estimator, EstimatorConfig, Matrix, Problem

# More categories than this in a column are taken by their number.
MOST_CATEGORIES = 255


class GradientBoostingConfig(EstimatorConfig):
    kind: Literal["gradient-boosting"] = "gradient-boosting"
    lr: float = Field(default=0.1, gt=0, description="the share of each tree that is added")
    max_trees: int = Field(
        default=500, ge=1, description="most trees (of each class); the validation split says when to stop"
    )
    max_leaves: int = Field(default=31, ge=2, description="most leaves of a tree")
    min_leaf: int = Field(default=20, ge=1, description="fewest training rows in a leaf")
    patience: int = Field(default=20, ge=1, description="trees without improvement on validation before it stops")


class GradientBoosting(Estimator):
    """Several labels and numbers have a model each. `output` (T,) is the answer that each tree adds to, `start` (K,)
    what all rows begin with; `classes` are those that training rows have."""

    Config = GradientBoostingConfig
    rank: ClassVar[int] = 2
    most_columns: ClassVar[int] = 512
    most_rows: ClassVar[int] = 200_000
    output: Tensor
    start: Tensor
    classes: Tensor
    width: Tensor

    def __init__(self, config: Any, tensors: dict[str, Tensor]) -> None:
        super().__init__(config, tensors)
        self.forest = _trees.Forest(tensors)

    @classmethod
    def about(cls, problem: Problem) -> str:
        return "gradient boosting"

    @classmethod
    def trials(cls, problem: Problem, matrix: Matrix) -> list[GradientBoostingConfig]:
        few = GradientBoostingConfig(lr=0.05, max_leaves=8, min_leaf=10)
        many = GradientBoostingConfig(lr=0.1)
        slow = GradientBoostingConfig(lr=0.05, max_leaves=63, max_trees=1000)
        return [few, many, slow] if len(problem.truth) < 2000 else [many, slow, few]

    @classmethod
    def fit(
        cls,
        config: GradientBoostingConfig,
        matrix: Matrix,
        problem: Problem,
        *,
        held_out: tuple[Matrix, Problem] | None,
        seed: int,
    ) -> Self:
        columns = rows(matrix).numpy()
        known = None if held_out is None else (rows(held_out[0]).numpy(), held_out[1])
        trees: list[_trees.Tree] = []
        output: list[int] = []
        starts: list[float] = []
        classes = torch.arange(problem.width)
        for place, truth, held in _problems(problem, known):
            sure = _sklearn.constant_label(truth) if problem.kind == "labels" else None
            if sure is not None:
                starts.append(sure)
                continue
            model = train(config, columns, truth, held, problem, matrix.sizes, seed)
            found, start = take_over(model, matrix.sizes)
            if problem.kind == "classes":
                classes = torch.from_numpy(np.asarray(model.classes_)).long()
                output += [number for _, number in found]
                starts += start.tolist()
            else:
                output += [place] * len(found)
                starts.append(float(start[0]))
            trees += [tree for tree, _ in found]
        if not trees:
            trees = [_stump()]
            output = [0]
        extra = {
            "output": torch.tensor(output),
            "start": torch.tensor(starts, dtype=torch.float64),
            "classes": classes,
            "width": torch.tensor(problem.width),
        }
        return cls(config, _trees.pack(trees) | extra)

    def forward(self, matrix: Matrix) -> Tensor:
        values_BT = self.forest.alone(rows(matrix))
        raw_BK = self.start.repeat(len(matrix), 1).index_add(1, self.output, values_BT)
        if len(self.classes) == 2 and raw_BK.shape[1] == 1:
            # Two classes have one score: the softmax of 0 and it is the same.
            raw_BK = torch.cat([torch.zeros_like(raw_BK), raw_BK], dim=1)
        return _sklearn.spread(raw_BK, self.classes, int(self.width))


def rows(matrix: Matrix) -> Tensor:
    """Categories first, by their number; float64 (B, C + F)."""
    return torch.cat([matrix.categories.double(), matrix.numbers.double()], dim=1)


def _problems(problem: Problem, known: tuple[np.ndarray, Problem] | None) -> Any:
    """One for all classes, or one for each label or number: its place, truths, and validation set."""
    truth = _sklearn.truths(problem)
    held_truth = None if known is None else _sklearn.truths(known[1])
    if problem.kind == "classes":
        yield 0, truth, None if known is None else (known[0], held_truth, known[1].weight_N)
        return
    for place, column in enumerate(truth.T):
        held = None
        if known is not None and held_truth is not None:
            held = (known[0], held_truth[:, place], known[1].weight_N)
        yield place, column, held


def train(
    config: GradientBoostingConfig,
    columns: np.ndarray,
    truth: np.ndarray,
    held: Any,
    problem: Problem,
    sizes: tuple[int, ...],
    seed: int,
) -> Any:
    """scikit-learn's model; without a validation split it sets rows of its own aside to know when to stop."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind: Any = HistGradientBoostingRegressor if problem.kind == "numbers" else HistGradientBoostingClassifier
    listed = [size <= MOST_CATEGORIES for size in sizes]
    model = kind(
        learning_rate=config.lr,
        max_iter=config.max_trees,
        max_leaf_nodes=config.max_leaves,
        min_samples_leaf=config.min_leaf,
        n_iter_no_change=config.patience,
        # Without a category the model has no encoder, and columns stay where they are.
        categorical_features=[*listed, *[False] * (columns.shape[1] - len(sizes))] if any(listed) else None,
        early_stopping=True,
        validation_fraction=0.1 if len(columns) >= 200 else None,
        random_state=seed,
    )
    more: dict[str, Any] = {}
    if held is not None and (problem.kind == "numbers" or set(held[1].tolist()) <= set(truth.tolist())):
        more = {"X_val": held[0], "y_val": held[1]}
        if held[2] is not None:
            more["sample_weight_val"] = held[2].numpy()
    return _sklearn.fit(model, columns, truth, problem.weight_N, **more)


def take_over(model: Any, sizes: tuple[int, ...]) -> tuple[list[tuple[_trees.Tree, int]], np.ndarray]:
    """The trees of a fitted model, each with the score that it adds to, and what scores start from."""
    order, codes = _columns(model, sizes)
    found = []
    for iteration in model._predictors:
        found += [(_tree(each, order, codes), number) for number, each in enumerate(iteration)]
    return found, np.asarray(model._baseline_prediction).ravel()


def _columns(model: Any, sizes: tuple[int, ...]) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Which of our columns the model's columns are; and for those of categories the model's number of each of ours (-1:
    it does not know it)."""
    encoder = getattr(model, "_preprocessor", None)
    if encoder is None:
        return np.arange(model.n_features_in_), {}
    listed = np.flatnonzero(model.is_categorical_[: len(sizes)])
    others = np.setdiff1d(np.arange(model.n_features_in_), listed)
    known = encoder.named_transformers_["encoder"].categories_
    codes = {}
    for column, values in zip(listed, known, strict=True):
        table = np.full(sizes[column], -1)
        table[values.astype(int)] = np.arange(len(values))
        codes[int(column)] = table
    return np.concatenate([listed, others]), codes


def _tree(predictor: Any, order: np.ndarray, codes: dict[int, np.ndarray]) -> _trees.Tree:
    nodes = predictor.nodes
    leaf, own = nodes["is_leaf"].astype(bool), np.arange(len(nodes))
    column = np.where(leaf, 0, order[np.where(leaf, 0, nodes["feature_idx"])])
    listed = nodes["is_categorical"].astype(bool) & ~leaf
    table = np.full(len(nodes), -1)
    table[listed] = np.arange(listed.sum())
    most = max([len(each) for each in codes.values()], default=1)
    goes_left = np.zeros((int(listed.sum()), most), dtype=bool)
    for row, node in enumerate(nodes[listed]):
        own_codes = codes[int(order[node["feature_idx"]])]
        bits = predictor.raw_left_cat_bitsets[node["bitset_idx"]]
        there = (bits[own_codes.clip(0) // 32] >> (own_codes.clip(0) % 32).astype(np.uint32)) & 1
        # What training never showed goes where missing values go.
        goes_left[row, : len(own_codes)] = np.where(own_codes < 0, bool(node["missing_go_to_left"]), there == 1)
    return _trees.Tree(
        column=column,
        threshold=np.where(leaf | listed, 0.0, nodes["num_threshold"]),
        left=np.where(leaf, own, nodes["left"]),
        right=np.where(leaf, own, nodes["right"]),
        value=np.where(leaf, nodes["value"], 0.0)[:, None],
        depth=int(nodes["depth"].max()),
        table=table,
        goes_left=goes_left,
    )


def _stump() -> _trees.Tree:
    """A tree that adds nothing."""
    zero = np.zeros(1, dtype=int)
    return _trees.Tree(
        column=zero,
        threshold=np.zeros(1),
        left=zero,
        right=zero,
        value=np.zeros((1, 1)),
        depth=0,
        table=zero - 1,
        goes_left=np.zeros((0, 1), dtype=bool),
    )
