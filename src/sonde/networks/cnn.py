"""Plain convolutional network: stages of 3x3 convolutions with pooling between them; small, quick, hard to break."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from sonde.contracts.backbone import Backbone, BackboneConfig
from sonde.contracts.columns import Tensors
from sonde.contracts.specs import InputSpec, LayoutName, OutputSpec, Per
from sonde.networks._grids import (
    grid_shape,
    halved,
    layers_in_order,
    mask_for_max,
    max_pool,
    mean,
    picture,
    zero_padding,
)
from sonde.networks._layers import Activation, GridNorm, Widths, activation, convolution, grid_norm, initialize


class CnnConfig(BackboneConfig):
    kind: Literal["cnn"] = "cnn"
    widths: Widths = Field((32, 64, 128), min_length=1, description="channels of each stage; pooling halves the size")
    convolutions: Annotated[int, Field(ge=1)] | Widths = Field(
        2, description="3x3 convolutions in each stage: one number for all, or a list"
    )
    activation: Activation = Field("relu", description="relu, leaky-relu, gelu, silu, tanh or sigmoid")
    norm: GridNorm = Field("batch", description="none, batch, layer or group")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of the final features dropped in training")

    @model_validator(mode="after")
    def _one_for_each_stage(self) -> Self:
        if not isinstance(self.convolutions, int) and len(self.convolutions) != len(self.widths):
            raise ValueError(
                f"convolutions has {len(self.convolutions)} numbers and widths {len(self.widths)}: each stage has one"
            )
        return self


class Cnn(Backbone):
    """(B, C, H, W), (B, C, D, H, W) or (B, T, C) to (B, widths[-1]), or to the grid of every stage: full size, half, a
    quarter, ..."""

    Config = CnnConfig
    accepts: ClassVar[tuple[LayoutName, ...]] = ("grid", "frames")
    gives: ClassVar[tuple[Per, ...]] = ("example", "pixel")
    any_size: ClassVar[bool] = True
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    tiny: ClassVar[Mapping[str, Any]] = {"widths": [4, 8], "convolutions": 1}

    def __init__(self, config: CnnConfig, spec: InputSpec, output: OutputSpec) -> None:
        super().__init__(config, spec, output)
        channels, size = grid_shape(spec, config.kind)
        counts = config.convolutions
        counts = (counts,) * len(config.widths) if isinstance(counts, int) else counts
        self.stages = nn.ModuleList(
            Stage(config, *ends, count, len(size))
            for ends, count in zip(pairwise((channels, *config.widths)), counts, strict=True)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.per = output.chosen
        self.width = config.widths if output.chosen == "pixel" else config.widths[-1]
        layers_in_order(self, len(size))

    @classmethod
    def smaller(cls, config: CnnConfig) -> CnnConfig:
        return config.model_copy(
            update={"widths": tuple(max(4, width // 2) for width in config.widths), "convolutions": 1}
        )

    def forward(self, tensors: Tensors) -> Tensor | tuple[Tensor, ...]:
        grid, inside = picture(tensors)
        if self.per == "pixel":
            grids = []
            for stage in self.stages:
                if grids:
                    grid, inside = pool(grid, inside)
                grid, inside = stage(grid, inside, pooled=False)
                grids.append(grid)
            return tuple(grids)
        for stage in self.stages[:-1]:
            grid, inside = stage(grid, inside, pooled=True)
        grid, inside = self.stages[-1](grid, inside, pooled=False)
        return self.dropout(mean(grid, inside))


class Stage(nn.Module):
    """Convolutions, each with its norm and activation, at one size."""

    def __init__(self, config: CnnConfig, channels: int, width: int, convolutions: int, dimensions: int) -> None:
        super().__init__()
        layer = convolution(dimensions)
        self.layers = nn.ModuleList(
            nn.Sequential(
                layer(width if number else channels, width, 3, padding=1, bias=config.norm == "none"),
                grid_norm(config.norm, width, dimensions),
                activation(config.activation),
            )
            for number in range(convolutions)
        )
        initialize(self, config.activation)

    def forward(self, grid: Tensor, inside: Tensor | None, *, pooled: bool) -> tuple[Tensor, Tensor | None]:
        """With `pooled` at half the size: pooled before the last norm, which has a quarter to do then.

        Where the norm's scale is positive, as it starts, and the activation rises, the order changes no maximum.
        """
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, nn.Sequential)
            convolution, norm, activation = layer
            grid = convolution(zero_padding(grid, inside))
            if pooled and number == last:
                grid, inside = pool(grid, inside)
            grid = activation(norm(grid))
        return grid, inside


def pool(grid: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The largest of each 2 x 2 (x 2) places. An odd size keeps its last row and column: no picture is too small."""
    grid = max_pool(mask_for_max(grid, inside), 2, 2, ceil_mode=True)
    inside = halved(inside)
    return zero_padding(grid, inside), inside
