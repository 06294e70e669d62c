"""A moving average of the weights, which often generalizes better than the last ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EMA:
    """Exponential moving average of the weights: short memory at first, so that early weights are forgotten."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in _averaged(network)}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        values = [value for _, value in _averaged(network)]
        for mine, value in zip(self.weights.values(), values, strict=True):
            mine.lerp_(value, 1 - decay)

    @torch.no_grad()
    def swap(self, network: nn.Module) -> None:
        """Exchange the network's weights with the average; the second call undoes the first."""
        for name, value in _averaged(network):
            held = value.detach().clone()
            value.copy_(self.weights[name])
            self.weights[name] = held


def _averaged(network: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters, and buffers of floats (batch norm's statistics): both belong to the weights that are used."""
    named = [*network.named_parameters(), *network.named_buffers()]
    return [(name, value) for name, value in named if value.is_floating_point()]
