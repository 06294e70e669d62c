"""Plain convolutional network: stages of 3x3 convolutions with pooling between them; small, quick and hard to break."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sonde.base.config import Config
from sonde.columns import Tensors
from sonde.networks._grids import halved, hide, mean, picture, picture_shape, sink
from sonde.networks._layers import Activation, GridNorm, Widths, activation, grid_norm, initialize
from sonde.task import Ask, Body, Form, Per, Shape


class CnnConfig(Config):
    kind: Literal["cnn"] = "cnn"
    widths: Widths = Field((32, 64, 128), min_length=1, description="channels of each stage; pooling halves the size")
    convolutions: int = Field(2, ge=1, description="3x3 convolutions in each stage")
    activation: Activation = Field("relu", description="relu, leaky-relu, gelu, silu, tanh or sigmoid")
    norm: GridNorm = Field("batch", description="none, batch, layer or group")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of the final features dropped in training")


class Cnn(Body):
    """(B, C, H, W) or (B, T, C) to (B, widths[-1]), or to the grid of every stage: full size, half, a quarter, ..."""

    Config = CnnConfig
    accepts: ClassVar[tuple[Form, ...]] = ("grid", "frames")
    gives: ClassVar[tuple[Per, ...]] = ("example", "pixel")
    tiny: ClassVar[Mapping[str, Any]] = {"widths": [4, 8], "convolutions": 1}

    def __init__(self, config: CnnConfig, shape: Shape, ask: Ask) -> None:
        nn.Module.__init__(self)
        channels, _ = picture_shape(shape, config.kind)
        self.stages = nn.ModuleList(Stage(config, *ends) for ends in pairwise((channels, *config.widths)))
        # An odd size keeps its last row and column: no picture is too small for one more stage.
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.dropout = nn.Dropout(config.dropout)
        self.per = ask.per
        self.width = config.widths if ask.per == "pixel" else config.widths[-1]
        self.to(memory_format=torch.channels_last)

    def forward(self, tensors: Tensors) -> Tensor | tuple[Tensor, ...]:
        grid, inside = picture(tensors)
        grids = []
        for stage in self.stages:
            if grids:
                grid = self.pool(sink(grid, inside))
                inside = halved(inside)
                grid = hide(grid, inside)
            grid = stage(grid, inside)
            grids.append(grid)
        return tuple(grids) if self.per == "pixel" else self.dropout(mean(grid, inside))


class Stage(nn.Module):
    """Convolutions, each with its norm and activation, at one size."""

    def __init__(self, config: CnnConfig, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width if number else channels, width, 3, padding=1, bias=config.norm == "none"),
                grid_norm(config.norm, width),
                activation(config.activation),
            )
            for number in range(config.convolutions)
        )
        initialize(self, config.activation)

    def forward(self, grid: Tensor, inside: Tensor | None) -> Tensor:
        for number, layer in enumerate(self.layers):
            grid = layer(hide(grid, inside) if number else grid)
        return grid
