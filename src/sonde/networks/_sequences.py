"""What networks for tokens and frames share: the first layer, what is padding, and one vector for a whole sequence.

B example, T position, W width.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sonde.base.errors import UserError
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


# Frames that become one position.
Stride = Literal[1, 2, 4, 8]


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


class Subsample(nn.Module):
    """Frames (B, T, channels) to (B, T / stride, width) by convolutions over time that keep every second position.

    What is beyond an example's end is zero before every convolution, so that no example sees its batch.
    """

    def __init__(self, spec: InputSpec, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        widths = [spec.channels] + [width] * (stride.bit_length() - 1)
        self.layers = nn.ModuleList(nn.Conv1d(one, other, 3, stride=2, padding=1) for one, other in pairwise(widths))
        for layer in self.layers:
            assert isinstance(layer, nn.Conv1d)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, tensors: Tensors) -> Tensors:
        """ "frames" (B, T, width) and "length" (B,) in place of those that are given."""
        frames_BTF, length_B = tensors["frames"], tensors["length"].clamp(min=1)
        if frames_BTF.device.type == "cpu" and not torch.compiler.is_compiling():
            # What nobody in the batch has costs nothing.
            frames_BTF = frames_BTF[:, : int(length_B.max())]
        x_BFT = frames_BTF.transpose(1, 2)
        for layer in self.layers:
            beyond_BT = torch.arange(x_BFT.shape[2], device=x_BFT.device) >= length_B[:, None]
            x_BFT = functional.gelu(layer(x_BFT.masked_fill(beyond_BT[:, None], 0.0)))
            length_B = (length_B + 1) // 2
        return {"frames": x_BFT.transpose(1, 2), "length": length_B}


def check_stride(stride: int, kind: str, spec: InputSpec, output: OutputSpec) -> None:
    """That positions can be left out.

    Raises:
        UserError: they are not frames, or are answered for one by one from the past.
    """
    if stride > 1 and (spec.layout != "frames" or output.causal):
        raise UserError(
            f"network.subsample of {kind!r} joins frames of sound or of a series; the input offers {spec.layout}"
            + (" and each position is answered for" if output.causal else ""),
            hint="set network.subsample to 1",
        )


def answers_in_tokens(spec: InputSpec, output: OutputSpec) -> bool:
    """Whether every answer is over the same vocabulary as the input, so that head and embedding can share weights."""
    return spec.layout == "tokens" and output.chosen == "position" and output.width == spec.vocabulary
