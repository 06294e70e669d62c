"""Temperature scaling: logits divided by numbers that were fitted on held-out answers, so that probabilities are what
is observed (Guo et al. 2017, "On Calibration of Modern Neural Networks").

One temperature for all, or one for each answered class ("vector"). Whichever it is, it depends on which class an
example is answered with only: no example's order of classes changes. What is fitted here are scales, 1 / temperature.
N example, K class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

METHODS = ("temperature", "vector")
# Scales that are looked through, on both sides of 1; deviation of a class's log scale from the common one, a priori.
LARGEST, SPREAD = 50.0, 0.5
# Records that scales are fitted on, at most: one number needs no more.
MOST = 20_000
# The smallest normal number of float32: a smaller probability has no digits.
TINY = float(np.finfo(np.float32).tiny)


def fit_softmax(
    probabilities_NK: np.ndarray, true_N: np.ndarray, method: str, weight_N: np.ndarray | None = None
) -> list[float]:
    """Temperatures that minimise the log loss: one, or one for each answered class, drawn to the common one.

    As in Platt's scaling the truth has a share of 1 / (N + 2) of every other class, without which a split that is all
    right would call for certainty.
    """
    chosen = _some(len(true_N))
    logits_NK = np.log(np.maximum(probabilities_NK[chosen].astype(np.float64), TINY))
    true_N = true_N[chosen]
    weight_N = np.ones(len(true_N)) if weight_N is None else weight_N[chosen].astype(np.float64)
    common = _scale(lambda scale: _softmax_slope(logits_NK, true_N, weight_N, scale))
    if method == "temperature":
        return [1 / common]
    answered_N = logits_NK.argmax(1)
    found = []
    for code in range(logits_NK.shape[1]):
        mine = answered_N == code

        def slope(scale: float, mine: np.ndarray = mine) -> float:
            drawn = np.log(scale / common) / SPREAD**2
            return _softmax_slope(logits_NK[mine], true_N[mine], weight_N[mine], scale) + float(drawn)

        found.append(1 / _scale(slope) if mine.any() else 1 / common)
    return found


def fit_sigmoid(
    probabilities_NK: np.ndarray, true_NK: np.ndarray, method: str, weight_N: np.ndarray | None = None
) -> list[float]:
    """The same for labels that are there or not: one temperature, or one for each label."""
    chosen = _some(len(true_NK))
    logits_NK, true_NK = logit(probabilities_NK[chosen]), true_NK[chosen].astype(np.float64)
    weight_N1 = np.ones((len(logits_NK), 1)) if weight_N is None else weight_N[chosen, None].astype(np.float64)
    smooth = 1 / (len(logits_NK) + 2)
    true_NK = np.where(true_NK > 0.5, 1 - smooth, smooth)

    def slope(scale: float, column: slice) -> float:
        z_NK = logits_NK[:, column]
        return float((weight_N1 * z_NK * scale * (sigmoid(scale * z_NK) - true_NK[:, column])).sum())

    common = _scale(lambda scale: slope(scale, slice(None)))
    if method == "temperature":
        return [1 / common]
    return [
        1 / _scale(lambda scale, code=code: slope(scale, slice(code, code + 1)) + np.log(scale / common) / SPREAD**2)
        for code in range(logits_NK.shape[1])
    ]


def softmax_at(temperatures: Sequence[float], logits_BK: Tensor) -> Tensor:
    """Calibrated probabilities of a network's answers."""
    if not temperatures:
        return logits_BK.softmax(1)
    if len(temperatures) == 1:
        return (logits_BK / temperatures[0]).softmax(1)
    each_K = logits_BK.new_tensor(temperatures)
    return (logits_BK / each_K[logits_BK.argmax(1)][:, None]).softmax(1)


def divided(temperatures: Sequence[float], logits_BK: Tensor) -> Tensor:
    """The logits of labels, calibrated."""
    return logits_BK / logits_BK.new_tensor(temperatures) if temperatures else logits_BK


def rescale_softmax(probabilities_NK: np.ndarray, scales: Sequence[float]) -> np.ndarray:
    """Probabilities whose logits are multiplied by scales; the reciprocals bring them back."""
    if not scales:
        return probabilities_NK
    scale_N1 = np.array(scales)[probabilities_NK.argmax(1)][:, None] if len(scales) > 1 else scales[0]
    return _softmax(scale_N1 * np.log(np.maximum(probabilities_NK.astype(np.float64), TINY))).astype(np.float32)


def rescale_sigmoid(probabilities_NK: np.ndarray, scales: Sequence[float]) -> np.ndarray:
    return sigmoid(np.array(scales) * logit(probabilities_NK)).astype(np.float32) if scales else probabilities_NK


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -logits))


def logit(probabilities: np.ndarray) -> np.ndarray:
    """Logits in float64; those of probabilities that float32 cannot tell from 0 or 1 are at its edge."""
    edge = float(np.finfo(np.float32).eps) / 2
    inside = np.clip(probabilities.astype(np.float64), TINY, 1 - edge)
    return np.log(inside) - np.log1p(-inside)


def _softmax_slope(logits_NK: np.ndarray, true_N: np.ndarray, weight_N: np.ndarray, scale: float) -> float:
    """The derivative of the summed log loss by the logarithm of the scale."""
    smooth = 1 / (len(true_N) + 2)
    told_N = (_softmax(scale * logits_NK) * logits_NK).sum(1)
    true_logit_N = logits_NK[np.arange(len(true_N)), true_N]
    asked_N = (1 - smooth) * true_logit_N + smooth * logits_NK.mean(1)
    return float(scale * (weight_N * (told_N - asked_N)).sum())


def _softmax(logits_NK: np.ndarray) -> np.ndarray:
    raised_NK = np.exp(logits_NK - logits_NK.max(axis=1, keepdims=True))
    return raised_NK / raised_NK.sum(axis=1, keepdims=True)


def _scale(slope: Callable[[float], float]) -> float:
    """Where the derivative is zero, found by halving: the log loss is convex in the scale."""
    low, high = -np.log(LARGEST), np.log(LARGEST)
    for _ in range(32):
        middle = (low + high) / 2
        if slope(float(np.exp(middle))) > 0:
            high = middle
        else:
            low = middle
    return float(np.exp((low + high) / 2))


def _some(count: int) -> np.ndarray:
    return np.arange(count) if count <= MOST else np.linspace(0, count - 1, MOST).astype(np.int64)
