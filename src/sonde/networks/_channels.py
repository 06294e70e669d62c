"""Channels of a series: each as a series of its own, aligned at the end, in patches, or whole as one token.

B example, C channel, T step, P patch, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from sonde.contracts.backbone import Backbone
from sonde.contracts.columns import Tensors
from sonde.contracts.specs import FeatureWidth, InputSpec, LayoutName, OutputSpec, Per


class ByChannel(Backbone):
    """A backbone for whole examples that sees every channel alone, with the same weights: (B, C, W)."""

    accepts: ClassVar[tuple[LayoutName, ...]] = ("frames",)
    gives: ClassVar[tuple[Per, ...]] = ("channel",)

    def __init__(self, kind: type[Backbone], config: Any, spec: InputSpec, output: OutputSpec) -> None:
        super().__init__(config, spec, output)
        single = InputSpec(layout="frames", channels=1, size=spec.size)
        self.backbone = kind(config, single, output.choose("example"))
        self.width: FeatureWidth = self.backbone.width
        self.notes = self.backbone.notes

    @staticmethod
    def of(kind: type[Backbone]) -> Callable[[Any, InputSpec, OutputSpec], ByChannel]:
        """What builds it for a kind of backbone."""
        return partial(ByChannel, kind)

    def forward(self, tensors: Tensors) -> Tensor:
        frames_BTC, length_B = tensors["frames"], tensors["length"]
        count, _, channels = frames_BTC.shape
        alone = frames_BTC.transpose(1, 2).flatten(0, 1)[:, :, None]
        values = self.backbone({"frames": alone, "length": length_B.repeat_interleave(channels)})
        assert isinstance(values, Tensor)
        return values.unflatten(0, (count, channels))


def aligned(tensors: Tensors, steps: int) -> Tensor:
    """The channels as (B, C, steps) with the latest step at the end of each; shorter ones begin with zeros."""
    frames_BTC, length_B = tensors["frames"], tensors["length"]
    place_T = torch.arange(-steps, 0, device=frames_BTC.device)
    source_BT = length_B[:, None] + place_T[None, :]
    if frames_BTC.shape[1] == 0:
        return frames_BTC.new_zeros(len(frames_BTC), frames_BTC.shape[2], steps)
    index_BTC = source_BT.clamp(0, frames_BTC.shape[1] - 1)[:, :, None].expand(-1, -1, frames_BTC.shape[2])
    values_BTC = frames_BTC.gather(1, index_BTC) * (source_BT >= 0)[:, :, None]
    return values_BTC.transpose(1, 2)


class ChannelPatches(nn.Module):
    """Every channel alone in patches that overlap by half, the last value repeated at the end: (B * C, P, W).

    Nie et al. 2023, "A Time Series is Worth 64 Words" (PatchTST).
    """

    def __init__(self, spec: InputSpec, width: int, patch: int) -> None:
        super().__init__()
        self.length = spec.size[0]
        self.patch = min(patch, self.length)
        self.stride = max(1, self.patch // 2)
        self.steps = (self.length + self.stride - self.patch) // self.stride + 1
        self.layer = nn.Linear(self.patch, width)

    def forward(self, tensors: Tensors) -> Tensor:
        x_BCT = aligned(tensors, self.length)
        x_BCT = functional.pad(x_BCT, (0, self.stride), mode="replicate")
        return self.layer(x_BCT.unfold(2, self.patch, self.stride).flatten(0, 1))


class ChannelTokens(nn.Module):
    """Every channel's whole past as one token: (B, C, W). Liu et al. 2024, "iTransformer"."""

    def __init__(self, spec: InputSpec, width: int) -> None:
        super().__init__()
        self.length, self.steps = spec.size[0], spec.channels
        self.layer = nn.Linear(self.length, width)

    def forward(self, tensors: Tensors) -> Tensor:
        return self.layer(aligned(tensors, self.length))
