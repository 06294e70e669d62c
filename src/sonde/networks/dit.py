"""Diffusion transformer: patches of a grid, steered by time, class or text through adaptive norms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sonde.contracts.backbone import Backbone, BackboneConfig
from sonde.contracts.columns import Tensors
from sonde.contracts.specs import InputSpec, LayoutName, OutputSpec, Per
from sonde.networks._grids import picture_shape
from sonde.networks._layers import Modulation, Steering, modulated


class DiTConfig(BackboneConfig):
    kind: Literal["dit"] = "dit"
    width: int = Field(192, ge=2, description="numbers per patch")
    layers: int = Field(6, ge=1, description="transformer blocks")
    heads: int = Field(3, ge=1, description="heads of attention; they divide width")
    patch: int = Field(2, ge=1, description="side of the squares of pixels that are one position")
    mlp_ratio: float = Field(4.0, gt=0, description="width of the hidden layer of each block, in widths")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of what each block adds dropped in training")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class DiT(Backbone):
    """(B, C, H, W) to one grid (B, width, H, W) (Peebles and Xie 2023).

    A condition gives each block its scales, shifts and gates ("adaLN-Zero"); the gates are 0 at first, so that a block
    starts as nothing. Without a condition the blocks are plain. Places are told by fixed two-dimensional sinusoids.
    """

    Config = DiTConfig
    accepts: ClassVar[tuple[LayoutName, ...]] = ("grid",)
    gives: ClassVar[tuple[Per, ...]] = ("pixel",)
    conditions: ClassVar[bool] = True
    tiny: ClassVar[Mapping[str, Any]] = {"width": 8, "layers": 1, "heads": 2, "patch": 4}

    def __init__(self, config: DiTConfig, spec: InputSpec, output: OutputSpec) -> None:
        super().__init__(config, spec, output)
        channels, size = picture_shape(spec, config.kind)
        self.patch = config.patch
        steering = config.width if output.condition else 0
        self.steering = Steering(output.condition, steering) if steering else None
        self.embed = nn.Conv2d(channels, config.width, config.patch, stride=config.patch)
        rows, columns = (math.ceil(side / config.patch) for side in size)
        self.register_buffer("places", _places(rows, columns, config.width), persistent=False)
        self.blocks = nn.ModuleList(Block(config, steering) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, elementwise_affine=not steering)
        self.last = Modulation(steering, config.width, 2) if steering else None
        # Each position becomes a square of pixels; the head answers for these.
        self.expand = nn.Linear(config.width, config.width * config.patch**2)
        self.width = (config.width,)

    @classmethod
    def smaller(cls, config: DiTConfig) -> DiTConfig:
        return config.model_copy(update={"layers": max(1, config.layers // 2)})

    def forward(self, tensors: Tensors) -> tuple[Tensor, ...]:
        grid, patch = tensors["grid"], self.patch
        height, width = grid.shape[2:]
        if height % patch or width % patch:
            grid = functional.pad(grid, (0, -width % patch, 0, -height % patch))
        embedded = self.embed(grid)
        rows, columns = embedded.shape[2:]
        assert isinstance(self.places, Tensor)
        values_BTW = embedded.flatten(2).transpose(1, 2) + self.places
        steering = None if self.steering is None else self.steering(tensors["condition"])
        for block in self.blocks:
            values_BTW = block(values_BTW, steering)
        values_BTW = self.norm(values_BTW)
        if self.last is not None and steering is not None:
            values_BTW = modulated(values_BTW, *self.last.vectors(steering, 0))
        squares = self.expand(values_BTW).unflatten(1, (rows, columns)).unflatten(3, (patch, patch, -1))
        pixels = squares.permute(0, 5, 1, 3, 2, 4).reshape(len(grid), -1, rows * patch, columns * patch)
        return (pixels[:, :, :height, :width],)


class Block(nn.Module):
    """Attention and a perceptron, each around a shortcut; `steering` is the width of what steers them, 0: nothing."""

    def __init__(self, config: DiTConfig, steering: int) -> None:
        super().__init__()
        width, hidden = config.width, max(1, round(config.width * config.mlp_ratio))
        self.heads = config.heads
        self.first = nn.LayerNorm(width, elementwise_affine=not steering)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.second = nn.LayerNorm(width, elementwise_affine=not steering)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(config.dropout)
        self.modulation = Modulation(steering, width, 6) if steering else None

    def forward(self, values_BTW: Tensor, steering: Tensor | None) -> Tensor:
        if self.modulation is None or steering is None:
            values_BTW = values_BTW + self.dropout(self._attended(self.first(values_BTW)))
            return values_BTW + self.dropout(self.mlp(self.second(values_BTW)))
        scale, shift, gate, scale2, shift2, gate2 = self.modulation.vectors(steering, 0)
        seen = self._attended(modulated(self.first(values_BTW), scale, shift))
        values_BTW = values_BTW + gate * self.dropout(seen)
        return values_BTW + gate2 * self.dropout(self.mlp(modulated(self.second(values_BTW), scale2, shift2)))

    def _attended(self, values_BTW: Tensor) -> Tensor:
        query, key, value = self.qkv(values_BTW).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value)
        return self.out(seen.transpose(1, 2).flatten(2))


def _places(rows: int, columns: int, width: int) -> Tensor:
    """Sines and cosines of row and column, half of the numbers each: (rows * columns, width)."""
    half = width // 2
    down = _waves(torch.arange(rows), half)[:, None].expand(rows, columns, half)
    across = _waves(torch.arange(columns), width - half)[None].expand(rows, columns, width - half)
    return torch.cat([down, across], dim=2).flatten(0, 1)


def _waves(place: Tensor, width: int) -> Tensor:
    rate = 10_000.0 ** (-torch.arange((width + 1) // 2) / max(1, (width + 1) // 2))
    angle = place[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=1)[:, :width]
