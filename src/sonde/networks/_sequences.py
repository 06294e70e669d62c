"""What networks for tokens and frames share: the first layer, what is padding, and one vector for a whole sequence.

B example, T position, W width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from sonde.contracts.columns import Tensors
from sonde.contracts.specs import InputSpec, OutputSpec


def inside(tensors: Tensors, steps: int) -> Tensor | None:
    """Which positions hold data and which padding, bool (B, T); None where nothing is padded.

    An empty example keeps its first position, so that nothing is ever averaged over no position at all.
    """
    length_B = tensors.get("length")
    if length_B is None:
        return None
    # Looking costs nothing on the CPU; elsewhere it would wait for the device, and a traced graph cannot look.
    can_look = length_B.device.type == "cpu" and not torch.compiler.is_compiling()
    if can_look and bool((length_B >= steps).all()):
        return None
    return torch.arange(steps, device=length_B.device) < length_B[:, None].clamp(min=1)


def pool(features_BTW: Tensor, inside_BT: Tensor | None, how: Literal["mean", "max"]) -> Tensor:
    """One vector (B, W) for each sequence, over the positions that hold data."""
    if how == "max":
        if inside_BT is not None:
            features_BTW = torch.where(inside_BT[:, :, None], features_BTW, -torch.inf)
        return features_BTW.amax(dim=1)
    if inside_BT is None:
        return features_BTW.mean(dim=1)
    total_BW = (features_BTW * inside_BT[:, :, None]).sum(dim=1)
    return total_BW / inside_BT.sum(dim=1, keepdim=True)


class Entry(nn.Module):
    """Tokens (B, T) or frames (B, T, channels) to (B, T, width).

    A token that is taken apart is the sum of itself and its subwords (Bojanowski et al. 2017, fastText).
    """

    def __init__(self, spec: InputSpec, width: int) -> None:
        super().__init__()
        self.layout = spec.layout
        self.layer = (
            nn.Embedding(spec.vocabulary, width) if spec.layout == "tokens" else nn.Linear(spec.channels, width)
        )
        self.subwords = nn.Embedding(spec.subwords, width) if spec.subwords else None

    def forward(self, tensors: Tensors) -> Tensor:
        values = tensors[self.layout]
        if values.shape[1] == 0:
            # Batches of nothing but empty examples: one position of padding stands for each.
            values = torch.cat([values, values.new_zeros(len(values), 1, *values.shape[2:])], dim=1)
        embedded = self.layer(values)
        return embedded if self.subwords is None else embedded + self.subwords(tensors["subwords"]).sum(2)


def answers_in_tokens(spec: InputSpec, output: OutputSpec) -> bool:
    """Whether every answer is over the same vocabulary as the input, so that head and embedding can share weights."""
    return spec.layout == "tokens" and output.chosen == "position" and output.width == spec.vocabulary
