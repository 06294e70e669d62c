"""Dense encoder of a series (TiDE): residual layers over each channel's past, and the past itself beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sonde.contracts.backbone import Backbone, BackboneConfig
from sonde.contracts.columns import Tensors
from sonde.contracts.specs import InputSpec, LayoutName, OutputSpec, Per
from sonde.networks._channels import aligned
from sonde.networks._layers import initialize


class TideConfig(BackboneConfig):
    kind: Literal["tide"] = "tide"
    width: int = Field(256, ge=1, description="width of the layers")
    layers: int = Field(2, ge=1, description="residual blocks")
    dropout: float = Field(0.3, ge=0, lt=1, description="share of each block's output dropped in training")


class Tide(Backbone):
    """(B, T, C) to (B, C, width + T): the same layers for every channel, and the past for a linear way round them.

    The dense encoder and the global residual connection of Das et al. 2023, "Long-term Forecasting with TiDE"; what is
    known of the steps ahead is read by the head of the forecast.
    """

    Config = TideConfig
    accepts: ClassVar[tuple[LayoutName, ...]] = ("frames",)
    gives: ClassVar[tuple[Per, ...]] = ("channel",)
    tiny: ClassVar[Mapping[str, Any]] = {"width": 8, "layers": 1}

    def __init__(self, config: TideConfig, spec: InputSpec, output: OutputSpec) -> None:
        super().__init__(config, spec, output)
        self.steps = spec.size[0]
        widths = [self.steps] + [config.width] * config.layers
        self.blocks = nn.ModuleList(Block(before, config.width, config.dropout) for before in widths[:-1])
        self.width = config.width + self.steps

    @classmethod
    def smaller(cls, config: TideConfig) -> TideConfig:
        return config.model_copy(update={"width": max(8, config.width // 4), "layers": 1})

    def forward(self, tensors: Tensors) -> Tensor:
        x_BCT = aligned(tensors, self.steps)
        values = x_BCT
        for block in self.blocks:
            values = block(values)
        return torch.cat([values, x_BCT], dim=2)


class Block(nn.Module):
    """norm(skip(x) + f(x)), f a layer of rectifiers and a linear one."""

    def __init__(self, before: int, width: int, dropout: float) -> None:
        super().__init__()
        self.fc1, self.fc2, self.skip = nn.Linear(before, width), nn.Linear(width, width), nn.Linear(before, width)
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(width)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.skip(x) + self.dropout(self.fc2(torch.relu(self.fc1(x)))))
