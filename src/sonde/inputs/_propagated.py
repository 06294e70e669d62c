"""Features of nodes for classical models: those of their surroundings."""

from __future__ import annotations

from typing import ClassVar

import torch

from sonde.contracts.classical import FeatureMap, Matrix
from sonde.contracts.columns import Tensors
from sonde.contracts.specs import Per

STEPS = 2


class Propagated(FeatureMap):
    """The features of nodes averaged over two steps of neighbours and themselves, weighted by degrees (SGC, Wu et al.
    2019, "Simplifying Graph Convolutional Networks")."""

    about = "features averaged over two steps of neighbours (SGC)"
    first_choice: ClassVar[str] = "linear"

    def forward(self, tensors: Tensors, per: Per) -> Matrix:
        values, (source, target) = tensors["nodes"], tensors["edges"]
        norm = (torch.bincount(target, minlength=len(values)) + 1).to(values.dtype).rsqrt()[:, None]
        for _ in range(STEPS):
            weighted = values * norm
            values = weighted.index_add(0, target, weighted.index_select(0, source)) * norm
        return Matrix.of(values.index_select(0, tensors["at"]))
