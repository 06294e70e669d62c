"""Grids as sequences: the patches of a picture, the cubes of a volume or a clip (tubelets), and where they are.

B example, C channel, T patch, W width.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from sonde.base.errors import UserError
from sonde.contracts.columns import Tensors
from sonde.contracts.specs import InputSpec
from sonde.networks._grids import grid_shape
from sonde.networks._layers import batch_norm, convolution

Side = Annotated[int, Field(ge=1)]
PatchSides = Side | tuple[Side, Side] | tuple[Side, Side, Side]
Stem = Literal["patches", "convolutional"]
# Patches along the shorter side, where their size is left out.
ALONG = 8


class Patches(nn.Module):
    """A grid (B, C, *size) as its patches, row by row: (B, T, width). Rests at the edges are filled with zeros.

    The stem is one layer that sees each patch alone (Dosovitskiy et al. 2021), or convolutions of stride 2 (Xiao et al.
    2021, "Early Convolutions Help Transformers See Better"), which learn quicker on small data.
    """

    def __init__(self, spec: InputSpec, width: int, patch: PatchSides | None, stem: Stem, *, kind: str) -> None:
        super().__init__()
        channels, size = grid_shape(spec, kind)
        self.width = width
        self.patch = _sides(patch, size)
        self.shape = tuple(math.ceil(side / part) for side, part in zip(size, self.patch, strict=True))
        self.steps = math.prod(self.shape)
        self.stem: nn.Module | None = None
        layer: Any = convolution(len(size))
        if stem == "convolutional":
            self.stem, channels = _stem(self.patch, channels, width)
            self.layer = layer(channels, width, 1)
        else:
            self.layer = layer(channels, width, self.patch, stride=self.patch)

    def forward(self, tensors: Tensors) -> Tensor:
        grid = tensors["grid"]
        rest = [-side % part for side, part in zip(grid.shape[2:], self.patch, strict=True)]
        if any(rest):
            grid = functional.pad(grid, [pad for side in reversed(rest) for pad in (0, side)])
        if self.stem is not None:
            grid = self.stem(grid)
        return self.layer(grid).flatten(2).transpose(1, 2)

    def sinusoids(self, device: torch.device) -> Tensor:
        """Sines and cosines of the place along each axis, which share the width: (T, W). For pictures as in MoCo v3
        (Chen et al. 2021)."""
        share = self.width // len(self.shape) // 2 * 2
        places = torch.cartesian_prod(*(torch.arange(side, device=device) for side in self.shape))
        parts = [sinusoids(place_T, share) for place_T in places.unbind(1)]
        table = torch.cat(parts, dim=1)
        return functional.pad(table, (0, self.width - table.shape[1]))


def sinusoids(place: Tensor, width: int) -> Tensor:
    """Sines, then cosines, of a place at `width` / 2 wavelengths from 2 pi to 20,000 pi: (..., width)."""
    half = (width + 1) // 2
    rate_F = 10_000.0 ** (-torch.arange(half, device=place.device) / half)
    angle = place[..., None] * rate_F
    return torch.cat([angle.sin(), angle.cos()], dim=-1)[..., :width]


def _sides(patch: PatchSides | None, size: tuple[int, ...]) -> tuple[int, ...]:
    if patch is None:
        patch = max(1, round(min(size) / ALONG))
    sides = (patch,) * len(size) if isinstance(patch, int) else patch
    if len(sides) != len(size):
        raise UserError(
            f"network.patch has {len(sides)} sides, and the input's grid {len(size)} axes",
            expected="one number, or one for each axis",
        )
    return sides


def _stem(patch: tuple[int, ...], channels: int, width: int) -> tuple[nn.Module, int]:
    """Convolutions that halve each axis until a place is a patch, and the channels that they end with."""
    steps = [side.bit_length() - 1 for side in patch]
    if any(1 << step != side for step, side in zip(steps, patch, strict=True)):
        raise UserError(
            f"network.stem = 'convolutional' halves the size step by step; network.patch is {list(patch)}",
            expected="sides that are powers of two",
            hint="choose network.patch 2, 4, 8 or 16, or network.stem = 'patches'",
        )
    layers: list[nn.Module] = []
    layer: Any = convolution(len(patch))
    total = max(*steps, 1)
    for number in range(total):
        inner = max(1, width >> (total - 1 - number))
        stride = tuple(2 if number < step else 1 for step in steps)
        layers += [
            layer(channels, inner, 3, stride=stride, padding=1, bias=False),
            batch_norm(len(patch))(inner),
            nn.ReLU(inplace=True),
        ]
        nn.init.kaiming_normal_(layers[-3].weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]
        channels = inner
    return nn.Sequential(*layers), channels
