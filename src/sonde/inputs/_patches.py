"""Patches out of volumes: where they lie, and the voxels there. B example, 3 axis (in the order of the grid).

Maps are as `torch.nn.functional.affine_grid` takes them: from places in the patch to places in the tensor of volumes,
both in [-1, 1], the last axis first. They turn and stretch in millimetres, whatever the spacing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn import functional

from sonde.base.rng import BatchRng

if TYPE_CHECKING:
    from torch import Tensor


class Changes(Protocol):
    """Settings of augmentation that change places and intensities."""

    flip: bool
    shift: float
    zoom: float
    rotate: float
    brightness: float
    contrast: float
    noise: float


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where grids of `size` lie in volumes of `native_B3` voxels, each `scale_B3` voxels of the grid."""

    size: tuple[int, ...]
    scale_B3: Tensor
    native_B3: Tensor

    def middle(self, padded: tuple[int, ...]) -> Tensor:
        """The maps (B, 3, 4) of grids around the middle of each volume, in a tensor of volumes of the size `padded`."""
        turn_B33 = torch.eye(3, device=self.scale_B3.device).expand(len(self.scale_B3), 3, 3)
        return self._map(turn_B33, self.native_B3 / 2, padded)

    def random(
        self,
        changes: Changes,
        rng: BatchRng,
        focus_B3: Tensor | None,
        foreground: float | None,
        padded: tuple[int, ...],
    ) -> Tensor:
        """Maps of random grids: zoomed, turned, mirrored; patches anywhere inside, a share of `foreground` of them
        around the focus; without `foreground` around the middle, shifted."""
        u_BN = rng.uniform("place", 14)
        turn_B33 = _turns(changes, u_BN[:, :7])
        seen_B3 = torch.tensor(self.size, device=u_BN.device) / self.scale_B3
        u_B3 = u_BN[:, 7:10]
        if foreground is None:
            centre_B3 = self.native_B3 / 2 + (2 * u_B3 - 1) * changes.shift * seen_B3
            return self._map(turn_B33, centre_B3, padded)
        room_B3 = (self.native_B3 - seen_B3).clamp_min(0)
        centre_B3 = self.native_B3 / 2 + (u_B3 - 0.5) * room_B3
        if focus_B3 is not None:
            # Not always in the middle of the patch: the network would learn that.
            near_B3 = focus_B3 + (2 * u_B3 - 1) * seen_B3 / 4
            use_B1 = (u_BN[:, 10:11] < foreground) & focus_B3.isfinite().all(1, keepdim=True)
            half_B3 = room_B3 / 2
            inside_B3 = torch.minimum(
                torch.maximum(near_B3, self.native_B3 / 2 - half_B3), self.native_B3 / 2 + half_B3
            )
            centre_B3 = torch.where(use_B1, inside_B3, centre_B3)
        return self._map(turn_B33, centre_B3, padded)

    def _map(self, turn_B33: Tensor, centre_B3: Tensor, padded: tuple[int, ...]) -> Tensor:
        half_3 = torch.tensor(self.size, device=turn_B33.device) / 2
        padded_3 = torch.tensor(padded, device=turn_B33.device)
        # From the grid's [-1, 1] to its voxels, turned there (they are as long along every axis as the spacing says),
        # to the volume's voxels, to [-1, 1] of the tensor.
        matrix_B33 = turn_B33 * half_3 / self.scale_B3[:, :, None] * (2 / padded_3)[:, None]
        offset_B3 = 2 * centre_B3 / padded_3 - 1
        return torch.cat([matrix_B33.flip(1, 2), offset_B3.flip(1)[:, :, None]], dim=2)


def _turns(changes: Changes, u_B7: Tensor) -> Tensor:
    """Rotation about each axis, one zoom for all, a mirror for each axis: (B, 3, 3)."""
    angles_B3 = (2 * u_B7[:, :3] - 1) * math.radians(changes.rotate)
    turn_B33 = torch.eye(3, device=u_B7.device).expand(len(u_B7), 3, 3)
    for axis in range(3):
        one, other = [each for each in range(3) if each != axis]
        about_B33 = torch.eye(3, device=u_B7.device).repeat(len(u_B7), 1, 1)
        cos_B, sin_B = angles_B3[:, axis].cos(), angles_B3[:, axis].sin()
        about_B33[:, one, one], about_B33[:, other, other] = cos_B, cos_B
        about_B33[:, one, other], about_B33[:, other, one] = -sin_B, sin_B
        turn_B33 = turn_B33 @ about_B33
    zoom_B = ((2 * u_B7[:, 3] - 1) * math.log(1 + changes.zoom)).exp()
    turn_B33 = turn_B33 / zoom_B[:, None, None]
    if changes.flip:
        turn_B33 = turn_B33 * torch.where(u_B7[:, None, 4:7] < 0.5, -1.0, 1.0)
    return turn_B33


def sampled(voxels: Tensor, affine_B34: Tensor, size: tuple[int, ...]) -> Tensor:
    """Grids (B, C, *size) out of volumes (B, C, *padded), trilinear; 0 beyond the borders."""
    places = functional.affine_grid(affine_B34, [len(voxels), 1, *size], align_corners=False)
    return functional.grid_sample(voxels, places, mode="bilinear", padding_mode="zeros", align_corners=False)


def resized(voxels: Tensor, native_B3: Tensor, shape_B3: Tensor) -> Tensor:
    """Volumes brought from their size to another, each at the beginning of a tensor (B, C, *largest)."""
    grid = torch.zeros(*voxels.shape[:2], *shape_B3.amax(0).tolist(), device=voxels.device)
    for index, (native, shape) in enumerate(zip(native_B3.tolist(), shape_B3.tolist(), strict=True)):
        one = voxels[(slice(index, index + 1), slice(None), *map(slice, native))].float()
        found = functional.interpolate(one, size=shape, mode="trilinear", align_corners=False)
        grid[(slice(index, index + 1), slice(None), *map(slice, shape))] = found
    return grid


def intensity(grid: Tensor, changes: Changes, rng: BatchRng) -> Tensor:
    """Brightness, contrast and noise, each example its own."""
    if changes.brightness or changes.contrast:
        u_B211 = (2 * rng.uniform("intensity", 2, 1, 1, 1) - 1)[:, :, None]
        grid = grid * (1 + changes.contrast * u_B211[:, 0]) + changes.brightness * u_B211[:, 1]
    if changes.noise:
        u1, u2 = rng.uniform("noise", *grid.shape[1:]), rng.uniform("noise-angle", *grid.shape[1:])
        normal = (-2 * (1 - u1).log()).sqrt() * (2 * math.pi * u2).cos()  # Box and Muller 1958
        strength_B = rng.uniform("noise-strength")
        grid = grid + changes.noise * strength_B.reshape(-1, 1, 1, 1, 1) * normal
    return grid
