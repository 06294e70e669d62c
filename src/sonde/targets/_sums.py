"""Sums over examples, which are what losses and counts are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sonde.contracts.batch import Batch

if TYPE_CHECKING:
    from torch import Tensor


def weighted_sum(costs: Tensor, weight_B: Tensor | None) -> Tensor:
    """The sum of costs (B, ...) over everything, each example times its weight."""
    if weight_B is None:
        return costs.sum()
    return (costs.flatten(1).sum(1) if costs.ndim > 1 else costs).mul(weight_B).sum()


def examples(batch: Batch, each: float = 1.0) -> Tensor:
    """How many examples a batch counts for, times `each`: a 0-d float32 tensor."""
    if batch.weight_B is None:
        return batch.records_B.new_full((), len(batch) * each, dtype=torch.float32)
    return batch.weight_B.float().sum() * each
