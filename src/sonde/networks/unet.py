"""U-Net (Ronneberger et al. 2015): down to see far, up to see fine, with skips between; an answer for every pixel."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from sonde.contracts.backbone import Backbone, BackboneConfig
from sonde.contracts.columns import Tensors
from sonde.contracts.specs import InputSpec, LayoutName, OutputSpec, Per
from sonde.networks._grids import grid_shape, in_order, layers_in_order, max_pool, picture
from sonde.networks._layers import (
    Activation,
    GridNorm,
    Modulation,
    Steering,
    Widths,
    activation,
    convolution,
    grid_norm,
    initialize,
    modulated,
)

# Channels of a head of self-attention, and how wide what steers the levels is, in widths of the first level.
HEAD, STEERING = 32, 4


class UNetConfig(BackboneConfig):
    kind: Literal["unet"] = "unet"
    widths: Widths = Field((32, 64, 128, 256), min_length=1, description="channels of each level; each halves the size")
    patch: int = Field(
        1, ge=1, description="side of the squares of pixels that are one place inside; 2 is more than twice as quick"
    )
    activation: Activation = Field("relu", description="relu, leaky-relu, gelu, silu, tanh or sigmoid")
    norm: GridNorm = Field("batch", description="none, batch, layer or group")
    residual: bool = Field(False, description="residual blocks instead of plain ones")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the deepest channels dropped in training")
    attention: bool = Field(False, description="self-attention between all places of the deepest level")


class UNet(Backbone):
    """(B, C, H, W) of any size to one grid (B, widths[0], H, W).

    With a `patch`, squares of pixels go in as channels and are spread out again at the end (Shi et al. 2016; for
    segmentation Wang et al. 2018): the levels work at a part of the size, the answers keep every pixel. A condition
    scales and moves what the second norm of each block gives (Dhariwal and Nichol 2021).
    """

    Config = UNetConfig
    accepts: ClassVar[tuple[LayoutName, ...]] = ("grid",)
    gives: ClassVar[tuple[Per, ...]] = ("pixel",)
    conditions: ClassVar[bool] = True
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    tiny: ClassVar[Mapping[str, Any]] = {"widths": [4, 8], "attention": True}

    def __init__(self, config: UNetConfig, spec: InputSpec, output: OutputSpec) -> None:
        super().__init__(config, spec, output)
        channels, size = grid_shape(spec, config.kind)
        dimensions = len(size)
        expand = CubeExpand if dimensions == 3 else PatchExpand
        upward = config.widths[::-1]
        self.patch = config.patch
        places = channels * config.patch**dimensions
        steering = STEERING * config.widths[0] if output.condition else 0
        self.steering = Steering(output.condition, steering) if steering else None
        self.down = nn.ModuleList(
            Block(config, *ends, dimensions, steering) for ends in pairwise((places, *config.widths))
        )
        self.attention = SelfAttention(config.widths[-1]) if config.attention else None
        self.expand = nn.ModuleList(expand(deep, width, 2, stride=2) for deep, width in pairwise(upward))
        self.up = nn.ModuleList(Block(config, 2 * width, width, dimensions, steering) for width in upward[1:])
        self.unpatchify = None
        if config.patch > 1:
            self.unpatchify = expand(config.widths[0], config.widths[0], config.patch, stride=config.patch)
        self.dropout = (nn.Dropout3d if dimensions == 3 else nn.Dropout2d)(config.dropout)
        self.width = (config.widths[0],)
        initialize(self, config.activation)
        layers_in_order(self, dimensions)

    @classmethod
    def smaller(cls, config: UNetConfig) -> UNetConfig:
        return config.model_copy(update={"widths": tuple(max(4, width // 2) for width in config.widths)})

    def forward(self, tensors: Tensors) -> tuple[Tensor, ...]:
        grid, _ = picture(tensors)
        size = grid.shape[2:]
        step = self.patch * 2 ** (len(self.down) - 1)
        if any(side % step for side in size):
            # Every level has to halve evenly: repeat the edge, and cut it off at the end.
            grid = functional.pad(grid, [pad for side in reversed(size) for pad in (0, -side % step)], mode="replicate")
        if self.patch > 1:
            grid = in_order(patchify(grid, self.patch))
        steering = None if self.steering is None else self.steering(tensors["condition"])
        skips = []
        for number, block in enumerate(self.down):
            grid = block(max_pool(grid, 2, 2) if number else grid, steering)
            skips.append(grid)
        grid = skips.pop()
        grid = self.dropout(grid if self.attention is None else self.attention(grid))
        for expand, block in zip(self.expand, self.up, strict=True):
            grid = block(torch.cat([skips.pop(), expand(grid)], dim=1), steering)
        if self.unpatchify is not None:
            grid = self.unpatchify(grid)
        return (grid[(slice(None), slice(None), *(slice(0, side) for side in size))],)


class Block(nn.Module):
    """Two convolutions of side 3, each with norm and activation; residual: around a shortcut of one of side 1.

    `steering` is the width of the vector that scales and moves what the second norm gives; 0: there is none.
    """

    def __init__(self, config: UNetConfig, channels: int, width: int, dimensions: int, steering: int = 0) -> None:
        super().__init__()
        layer = convolution(dimensions)
        bias = config.norm == "none"
        self.first = nn.Sequential(
            layer(channels, width, 3, padding=1, bias=bias),
            grid_norm(config.norm, width, dimensions),
            activation(config.activation),
        )
        self.second = nn.Sequential(
            layer(width, width, 3, padding=1, bias=bias), grid_norm(config.norm, width, dimensions)
        )
        self.activation = activation(config.activation)
        self.shortcut = layer(channels, width, 1) if config.residual else None
        self.modulation = Modulation(steering, width, 2) if steering else None

    def forward(self, grid: Tensor, steering: Tensor | None = None) -> Tensor:
        y = self.second(self.first(grid))
        if self.modulation is not None and steering is not None:
            y = modulated(y, *self.modulation.vectors(steering, grid.ndim - 2))
        return self.activation(y if self.shortcut is None else y + self.shortcut(grid))


class SelfAttention(nn.Module):
    """Every place of a grid looks at all others, around a shortcut (Wang et al. 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // HEAD) if width % max(1, width // HEAD) == 0 else 1
        self.norm = nn.GroupNorm(1, width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, grid: Tensor) -> Tensor:
        places = self.norm(grid).flatten(2).transpose(1, 2)
        query, key, value = self.qkv(places).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return grid + self.out(seen).transpose(1, 2).reshape(grid.shape)


def patchify(grid: Tensor, side: int) -> Tensor:
    """Squares (cubes) of places as channels: (B, C * side^D, *size / side), channel by channel."""
    batch, channels, *size = grid.shape
    dimensions = len(size)
    inner = grid.reshape(batch, channels, *(part for length in size for part in (length // side, side)))
    places, within = range(2, 2 + 2 * dimensions, 2), range(3, 3 + 2 * dimensions, 2)
    return inner.permute(0, 1, *within, *places).reshape(batch, -1, *(length // side for length in size))


class PatchExpand(nn.ConvTranspose2d):
    """A transposed convolution whose kernel is its stride: each place becomes a square of its own, so it is one matrix
    product. The same numbers, 2 to 5 times quicker forward and back than oneDNN's transposed convolution."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        assert self.bias is not None
        return _spread(input, self.weight, self.bias)


class CubeExpand(nn.ConvTranspose3d):
    """The same for volumes: each place becomes a cube."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        assert self.bias is not None
        return _spread(input, self.weight, self.bias)


def _spread(grid: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Every place of (B, deep, *size) as `side` places along each axis: (B, channels, *size * side)."""
    batch, deep, *size = grid.shape
    dimensions, channels, side = len(size), weight.shape[1], weight.shape[2]
    matrix = weight.permute(*range(2, 2 + dimensions), 1, 0).reshape(-1, deep)
    squares = functional.linear(grid.movedim(1, -1), matrix, bias.repeat(side**dimensions))
    squares = squares.reshape(batch, *size, *[side] * dimensions, channels)
    # Each axis beside the places that it became.
    order = [axis for place in range(1, 1 + dimensions) for axis in (place, place + dimensions)]
    rows = squares.permute(0, *order, 1 + 2 * dimensions)
    return rows.reshape(batch, *(length * side for length in size), channels).movedim(-1, 1)
