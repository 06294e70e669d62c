"""What networks of convolutions share: pictures from grids and frames, and padding that changes no answer.

B example, C channel, H row, W column; grids (B, C, *size) are pictures, or volumes and clips of three axes. Frames are
a picture of one channel: channels down, time across.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sonde.base.errors import UserError
from sonde.contracts.columns import Tensors
from sonde.contracts.specs import InputSpec
from sonde.networks._sequences import inside


def picture_shape(spec: InputSpec, kind: str) -> tuple[int, tuple[int, int]]:
    """Channels and size of the pictures that an input offers.

    Raises:
        UserError: the grid is not two-dimensional.
    """
    if spec.layout == "frames":
        return 1, (spec.channels, spec.size[0])
    if len(spec.size) != 2:
        raise UserError(
            f"network {kind!r} takes pictures; the input's grid has {len(spec.size)} dimensions",
            expected="a grid of height and width",
        )
    return spec.channels, (spec.size[0], spec.size[1])


def grid_shape(spec: InputSpec, kind: str) -> tuple[int, tuple[int, ...]]:
    """Channels and size of the grids that an input offers: pictures, or volumes and clips.

    Raises:
        UserError: the grid has neither two nor three axes.
    """
    if spec.layout == "grid" and len(spec.size) == 3:
        return spec.channels, spec.size
    return picture_shape(spec, kind)


def in_order(grid: Tensor) -> Tensor:
    """The grid in the memory order that convolutions run fastest in, on CPUs and on GPUs: channels last."""
    return grid.contiguous(memory_format=torch.channels_last_3d if grid.ndim == 5 else torch.channels_last)


def layers_in_order(module: nn.Module, dimensions: int) -> None:
    """The weights of a network for grids of so many axes in that order."""
    module.to(memory_format=torch.channels_last_3d if dimensions == 3 else torch.channels_last)


def max_pool(grid: Tensor, kernel: int, stride: int, *, padding: int = 0, ceil_mode: bool = False) -> Tensor:
    """The largest of each window, of pictures and of volumes."""
    pool = functional.max_pool3d if grid.ndim == 5 else functional.max_pool2d
    return pool(grid, kernel, stride, padding=padding, ceil_mode=ceil_mode)


def strided(grid: Tensor, stride: int) -> Tensor:
    """Every `stride`-th place along every axis."""
    return grid[(slice(None), slice(None), *[slice(None, None, stride)] * (grid.ndim - 2))]


def picture(tensors: Tensors) -> tuple[Tensor, Tensor | None]:
    """The grid (B, C, *size), and which columns of a picture of frames hold data (B, 1, 1, W); None where nothing is
    padded.

    Convolutions run fastest on CPUs and on GPUs in the memory order that is asked for here.
    """
    if "frames" in tensors:
        grid = tensors["frames"].transpose(1, 2)[:, None]
        inside_BT = inside(tensors, grid.shape[3])
        grid = zero_padding(grid, None if inside_BT is None else inside_BT[:, None, None])
        return grid, None if inside_BT is None else inside_BT[:, None, None]
    return in_order(tensors["grid"]), None


def zero_padding(grid: Tensor, inside_B11W: Tensor | None) -> Tensor:
    """Zeros in the padded columns. Convolutions pad with zeros: hidden so, no column has a neighbour more.

    A product, because filling under a mask that is broadcast takes 6 times as long.
    """
    return grid if inside_B11W is None else grid * inside_B11W


def mask_for_max(grid: Tensor, inside_B11W: Tensor | None) -> Tensor:
    """The least number there is in the padded columns, so that none of them wins a maximum."""
    return grid if inside_B11W is None else torch.where(inside_B11W, grid, torch.finfo(grid.dtype).min)


def halved(inside_B11W: Tensor | None) -> Tensor | None:
    """Which columns hold data after a step of stride 2 whose windows are centred or start on the even columns."""
    return None if inside_B11W is None else inside_B11W[..., ::2]


def mean(grid: Tensor, inside_B11W: Tensor | None) -> Tensor:
    """The mean over the places of each example that hold data: (B, C)."""
    if inside_B11W is None:
        # Channels last, so that the gradient comes in the memory order of the grid.
        return grid.movedim(1, -1).flatten(1, -2).mean(dim=1)
    return zero_padding(grid, inside_B11W).sum(dim=(2, 3)) / (inside_B11W.sum(dim=(1, 2, 3)) * grid.shape[2])[:, None]
