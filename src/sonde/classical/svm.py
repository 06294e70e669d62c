"""Support vector machine with a radial kernel (Cortes and Vapnik 1995): the usual first model on pixels and spectra."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from sonde.classical import _sklearn
from sonde.contracts.classical import Estimator, EstimatorConfig, Matrix, Problem, ProblemKind, Unsuitable

# More columns than this are brought down to so many principal components.
COMPONENTS = 100
FOLDS = 3
# Rows times support vectors computed at once.
CELLS = 4_000_000


class SvmConfig(EstimatorConfig):
    kind: Literal["svm"] = "svm"
    C: float = Field(default=10.0, gt=0, description="how much a wrong answer costs")


class Svm(Estimator):
    """`centre`, `scale` (F,) and `components` (F, P) make the columns; `vectors` (S, P) are the support vectors, `dual`
    (S, D) their weights in D decisions between two classes, or for D numbers.

    Probabilities: Platt scaling (1999) of the one-against-rest decisions of three folds, as scikit-learn's
    CalibratedClassifierCV; `slope` and `offset` (K,).
    """

    Config = SvmConfig
    rank: ClassVar[int] = 3
    solves: ClassVar[tuple[ProblemKind, ...]] = ("classes", "numbers")
    most_rows: ClassVar[int] = 10_000
    most_columns: ClassVar[int] = 4096
    centre: Tensor
    scale: Tensor
    components: Tensor
    vectors: Tensor
    dual: Tensor
    bias: Tensor
    gamma: Tensor
    slope: Tensor
    offset: Tensor
    classes: Tensor
    width: Tensor

    @classmethod
    def about(cls, problem: Problem) -> str:
        return "support vector machine"

    @classmethod
    def trials(cls, problem: Problem, matrix: Matrix) -> list[SvmConfig]:
        middle = 10.0 if problem.kind == "classes" else 1.0
        return [SvmConfig(C=middle * factor) for factor in (1, 0.1, 10)]

    @classmethod
    def fit(
        cls, config: SvmConfig, matrix: Matrix, problem: Problem, *, held_out: tuple[Matrix, Problem] | None, seed: int
    ) -> Self:
        columns = prepare(matrix, seed)
        rows = transform(matrix, **columns).numpy()
        found = numbers(config, rows, problem) if problem.kind == "numbers" else classes(config, rows, problem)
        return cls(config, columns | found | {"width": torch.tensor(problem.width)})

    def forward(self, matrix: Matrix) -> Tensor:
        rows_BP = transform(matrix, self.centre, self.scale, self.components)
        size = max(1, CELLS // max(1, len(self.vectors)))
        decision_BD = torch.cat([self._decide(part) for part in rows_BP.split(size)])
        if not len(self.classes):
            return decision_BD
        against_BK = one_against_rest(decision_BD, len(self.classes))
        share_BK = torch.sigmoid(-(against_BK * self.slope + self.offset))
        if share_BK.shape[1] == 1:
            share_BK = torch.cat([1 - share_BK, share_BK], dim=1)
        total_B1 = share_BK.sum(1, keepdim=True)
        share_BK = torch.where(total_B1 > 0, share_BK / total_B1, 1 / share_BK.shape[1])
        return _sklearn.spread(share_BK.clamp_min(_sklearn.LEAST).log(), self.classes, int(self.width))

    def _decide(self, rows_BP: Tensor) -> Tensor:
        square_B1, square_S = rows_BP.square().sum(1, keepdim=True), self.vectors.square().sum(1)
        distance_BS = (square_B1 + square_S - 2 * rows_BP @ self.vectors.T).clamp_min(0)
        return torch.exp(-self.gamma * distance_BS) @ self.dual + self.bias


def prepare(matrix: Matrix, seed: int) -> dict[str, Tensor]:
    """How columns are made: standardized one by one, unless they are of one unit; principal components if many."""
    dense_NF = matrix.dense()
    centre_F, scale_F = _sklearn.standard(dense_NF)
    if matrix.same_scale:
        scale_F = torch.ones_like(scale_F)
    if dense_NF.shape[1] <= COMPONENTS:
        return {"centre": centre_F, "scale": scale_F, "components": torch.empty(0, 0, dtype=torch.float64)}
    from sklearn.decomposition import PCA

    count = min(COMPONENTS, len(dense_NF))
    found: Any = PCA(count, random_state=seed, svd_solver="randomized").fit(((dense_NF - centre_F) / scale_F).numpy())
    return {"centre": centre_F, "scale": scale_F, "components": torch.from_numpy(found.components_.T.copy())}


def transform(matrix: Matrix, centre: Tensor, scale: Tensor, components: Tensor) -> Tensor:
    rows_BF = (matrix.dense() - centre) / scale
    return rows_BF @ components if len(components) else rows_BF


def classes(config: SvmConfig, rows: np.ndarray, problem: Problem) -> dict[str, Tensor]:
    truth = _sklearn.truths(problem)
    model = train(config, rows, problem)
    calibrated = model.calibrated_classifiers_[0]
    machine = calibrated.estimator
    return {
        "vectors": torch.from_numpy(np.asarray(machine.support_vectors_)),
        "dual": torch.from_numpy(_pairs(machine)),
        "bias": torch.from_numpy(np.asarray(machine.intercept_)),
        "gamma": torch.tensor(float(machine._gamma), dtype=torch.float64),
        "slope": torch.tensor([each.a_ for each in calibrated.calibrators], dtype=torch.float64),
        "offset": torch.tensor([each.b_ for each in calibrated.calibrators], dtype=torch.float64),
        "classes": torch.from_numpy(np.unique(truth)).long(),
    }


def train(config: SvmConfig, rows: np.ndarray, problem: Problem) -> Any:
    """scikit-learn's calibrated machine."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import SVC

    kind: Any = CalibratedClassifierCV

    rarest = int(np.unique(_sklearn.truths(problem), return_counts=True)[1].min())
    if rarest < 2:
        raise Unsuitable("a class has one training record, and probabilities need two of every class")
    model = kind(SVC(C=config.C, cache_size=500), method="sigmoid", cv=min(FOLDS, rarest), ensemble=False)
    return _sklearn.fit(model, rows, _sklearn.truths(problem), problem.weight_N)


def _pairs(machine: Any) -> np.ndarray:
    """The weight of every support vector in the decision between each two classes, (S, pairs)."""
    count = len(machine.n_support_)
    if count == 2:
        return machine.dual_coef_.T.copy()
    stops = machine.n_support_.cumsum()
    own = np.repeat(np.arange(count), machine.n_support_)
    columns = []
    for first in range(count):
        for second in range(first + 1, count):
            weight = np.zeros(int(stops[-1]))
            weight[own == first] = machine.dual_coef_[second - 1, own == first]
            weight[own == second] = machine.dual_coef_[first, own == second]
            columns.append(weight)
    return np.stack(columns, axis=1)


def one_against_rest(decision_BD: Tensor, count: int) -> Tensor:
    """Votes between two classes each as one number per class, ties broken by their confidence, as in scikit-learn."""
    if count == 2:
        return decision_BD
    votes_BK = decision_BD.new_zeros(len(decision_BD), count)
    sure_BK = votes_BK.clone()
    place = 0
    for first in range(count):
        for second in range(first + 1, count):
            decision_B = decision_BD[:, place]
            sure_BK[:, first] += decision_B
            sure_BK[:, second] -= decision_B
            wins_B = decision_B >= 0
            votes_BK[:, first] += wins_B
            votes_BK[:, second] += ~wins_B
            place += 1
    return votes_BK + sure_BK / (3 * (sure_BK.abs() + 1))


def numbers(config: SvmConfig, rows: np.ndarray, problem: Problem) -> dict[str, Tensor]:
    """One machine a number, all over the same support vectors."""
    from sklearn.svm import SVR

    duals, biases, gamma = [], [], 0.0
    for truth in _sklearn.truths(problem).T:
        machine = _sklearn.fit(SVR(C=config.C, cache_size=500), rows, truth, problem.weight_N)
        dual = np.zeros(len(rows))
        dual[machine.support_] = machine.dual_coef_[0]
        duals.append(dual)
        biases.append(float(machine.intercept_[0]))
        gamma = float(machine._gamma)
    dual_ND = np.stack(duals, axis=1)
    used = (dual_ND != 0).any(axis=1)
    nothing = torch.empty(0, dtype=torch.float64)
    return {
        "vectors": torch.from_numpy(rows[used]),
        "dual": torch.from_numpy(dual_ND[used]),
        "bias": torch.tensor(biases, dtype=torch.float64),
        "gamma": torch.tensor(gamma, dtype=torch.float64),
        "slope": nothing,
        "offset": nothing,
        "classes": torch.empty(0, dtype=torch.int64),
    }
