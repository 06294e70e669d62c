"""What goes to scikit-learn and comes from it: arrays, fits without warnings, answers for classes it has not seen."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sonde.contracts.classical import Bag, Problem

# The logit of a class or label that no training row has (of the sample that was fitted): one in 500 million.
NEVER = -20.0
# Probabilities of 0 have no logarithm.
LEAST = 1e-12


def fit(model: Any, features: Any, truth: np.ndarray, weight_N: Tensor | None, **more: Any) -> Any:
    """`model.fit`, without warnings that it has not quite converged: the validation split says how good it is."""
    weight = None if weight_N is None else weight_N.double().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(features, truth, **({} if weight is None else {"sample_weight": weight}), **more)


def sparse(bag: Bag) -> Any:
    """A bag as scipy has it."""
    from scipy.sparse import csr_matrix

    starts = np.concatenate([[0], bag.length_B.cumsum(0).numpy()]).astype(np.int32)
    shape = (len(bag.length_B), bag.width)
    return csr_matrix((bag.values.numpy(), bag.columns.numpy().astype(np.int32), starts), shape=shape)


def joined(dense_BF: Tensor, bag: Bag | None) -> Any:
    """Dense columns and a bag beside them."""
    if bag is None:
        return dense_BF.numpy()
    from scipy.sparse import csr_matrix, hstack

    return sparse(bag) if dense_BF.shape[1] == 0 else csr_matrix(hstack([csr_matrix(dense_BF.numpy()), sparse(bag)]))


def truths(problem: Problem) -> np.ndarray:
    return problem.truth.double().numpy() if problem.kind == "numbers" else problem.truth.long().numpy()


def spread(answers_BK: Tensor, classes: Tensor, width: int) -> Tensor:
    """Logits of the classes that were seen, among all."""
    if len(classes) == width:
        return answers_BK
    whole = answers_BK.new_full((len(answers_BK), width), NEVER)
    whole[:, classes] = answers_BK.log_softmax(1)
    return whole


def log_odds(share: Tensor) -> Tensor:
    """The logit of probabilities; finite at 0 and 1."""
    sure = share.clamp(LEAST, 1 - LEAST)
    return sure.log() - (-sure).log1p()


def constant_label(present: np.ndarray) -> float | None:
    """The logit of a label that all rows have or lack; None for any other."""
    if present.all():
        return -NEVER
    return None if present.any() else NEVER


def standard(values_NF: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each column; 1 where it is constant."""
    if not values_NF.shape[1]:
        return values_NF.new_zeros(0), values_NF.new_ones(0)
    mean_F, deviation_F = values_NF.mean(0), values_NF.std(0, correction=0)
    return mean_F, torch.where(deviation_F > 1e-9, deviation_F, 1.0)


def import_libraries() -> None:
    """Import what classical models are fitted with; it takes seconds, and is no part of what they cost."""
    for name in ("calibration", "decomposition", "ensemble", "linear_model", "svm"):
        importlib.import_module(f"sklearn.{name}")
