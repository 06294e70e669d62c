"""Linear forecasts: every channel's past, or its trend and what is left of it, straight to the answers (DLinear)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from sonde.contracts.backbone import Backbone, BackboneConfig
from sonde.contracts.columns import Tensors
from sonde.contracts.specs import InputSpec, LayoutName, OutputSpec, Per
from sonde.networks._channels import aligned


class LinearConfig(BackboneConfig):
    kind: Literal["linear"] = "linear"
    trend: int = Field(
        25, ge=1, description="steps of the moving average that parts trend and rest (DLinear); 1: no parts (NLinear)"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the values dropped in training")


class Linear(Backbone):
    """(B, T, C) to (B, C, T), or (B, C, 2 T) of trend and rest; it has no weights, the head that answers is linear.

    Zeng et al. 2023, "Are Transformers Effective for Time Series Forecasting?": with inputs.*.normalize = "last" and
    trend = 1 it is their NLinear, with "instance" RLinear (Li et al. 2023). The same weights serve all channels.
    """

    Config = LinearConfig
    accepts: ClassVar[tuple[LayoutName, ...]] = ("frames",)
    gives: ClassVar[tuple[Per, ...]] = ("channel", "example")
    tiny: ClassVar[Mapping[str, Any]] = {"trend": 5}

    def __init__(self, config: LinearConfig, spec: InputSpec, output: OutputSpec) -> None:
        super().__init__(config, spec, output)
        self.steps = spec.size[0]
        self.trend = config.trend
        self.by_channel = output.chosen == "channel"
        each = self.steps * (2 if config.trend > 1 else 1)
        self.width = each if self.by_channel else each * spec.channels
        self.dropout = config.dropout

    def forward(self, tensors: Tensors) -> Tensor:
        x_BCT = aligned(tensors, self.steps)
        if self.trend > 1:
            before = (self.trend - 1) // 2
            padded = functional.pad(x_BCT, (before, self.trend - 1 - before), mode="replicate")
            trend_BCT = functional.avg_pool1d(padded, self.trend, stride=1)
            x_BCT = torch.cat([trend_BCT, x_BCT - trend_BCT], dim=2)
        x_BCT = functional.dropout(x_BCT, self.dropout, self.training)
        return x_BCT if self.by_channel else x_BCT.flatten(1)
