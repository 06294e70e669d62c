"""What augmentation did to a batch, as something that truths can follow: masks, boxes, keypoints, mixed labels.

B example, D axis of the grid (row, column; or depth, row, column), N point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class AugmentParams:
    """What one call of `Input.augment` did. The default: nothing that a truth could see.

    Grids of `size` were moved in one of two ways. Whole pixels: `shift_BD` int64 (output row r shows source row
    r + shift, reflected at the borders) and then `flip_BD` bool (mirrored along that axis). Or `affine` (B, D, D + 1),
    which maps output to source places, both in [-1, 1], the last axis first, as `torch.nn.functional.affine_grid`
    takes it; `cropped` is the size of the output then, where it is another. After that the grid was brought to
    `resized`, where that is given.
    `mix_weight_B`: example i became weight * i + (1 - weight) * `partner`(i).
    """

    size: tuple[int, ...] = ()
    shift_BD: Tensor | None = None
    flip_BD: Tensor | None = None
    affine: Tensor | None = None
    cropped: tuple[int, ...] | None = None
    resized: tuple[int, ...] | None = None
    mix_weight_B: Tensor | None = None

    @property
    def moved(self) -> bool:
        """Whether places changed."""
        return self.shift_BD is not None or self.affine is not None

    def sources(self, axis: int) -> Tensor:
        """The source row (or column, ...) of every output one along an axis, int64 (B, size[axis])."""
        assert self.shift_BD is not None
        assert self.flip_BD is not None
        size = self.size[axis]
        source = (torch.arange(size, device=self.shift_BD.device)[None, :] + self.shift_BD[:, axis, None]).abs()
        source = torch.where(source >= size, 2 * (size - 1) - source, source)
        return torch.where(self.flip_BD[:, axis, None], size - 1 - source, source)

    def grids(self, values: Tensor, outside: int) -> Tensor:
        """Integer grids (B, *size), such as masks, moved as the input was, to the nearest; what came in from beyond the
        borders is `outside`, except where whole pixels were reflected."""
        if self.affine is not None:
            values = _warped(values, self.affine, self.cropped or self.size, outside)
        elif self.shift_BD is not None:
            for axis in range(values.ndim - 1):
                values = _gathered(values, self.sources(axis), axis + 1)
        if self.resized is not None and self.resized != tuple(values.shape[1:]):
            floats = torch.nn.functional.interpolate(values[:, None].float(), size=self.resized, mode="nearest-exact")
            values = floats[:, 0].to(values.dtype)
        return values

    def points(self, places_BND: Tensor) -> Tensor:
        """Places in pixels of the grid that went in (0 is the outer border of the first pixel; one number for each
        axis, in the order of `size`), where augmentation put them: float (B, N, D). They may lie outside."""
        if self.affine is not None:
            places_BND = self._affine_points(places_BND)
        elif self.shift_BD is not None:
            assert self.flip_BD is not None
            size_D = places_BND.new_tensor(self.size)
            mirrored = torch.where(self.flip_BD[:, None], size_D - places_BND, places_BND)
            places_BND = mirrored - self.shift_BD[:, None].to(places_BND.dtype)
        if self.resized is not None:
            before = self.cropped or self.size
            places_BND = places_BND * (places_BND.new_tensor(self.resized) / places_BND.new_tensor(before))
        return places_BND

    def _affine_points(self, places_BND: Tensor) -> Tensor:
        """The inverse of the map, as `affine` leads from output to source."""
        assert self.affine is not None
        size_D = places_BND.new_tensor(self.size)
        source = (2 * places_BND / size_D - 1).flip(-1)
        matrix, offset = self.affine[:, :, :-1].to(source.dtype), self.affine[:, None, :, -1].to(source.dtype)
        output = torch.linalg.solve(matrix, (source - offset).transpose(1, 2)).transpose(1, 2)
        return (output.flip(-1) + 1) / 2 * places_BND.new_tensor(self.cropped or self.size)


def partner(values: Tensor) -> Tensor:
    """Each example's partner in mixing: its neighbour in the batch (a last odd one meets itself).

    Neighbours, so that any even split of a batch over micro-batches or machines mixes the same pairs.
    """
    even = len(values) - len(values) % 2
    swapped = values[:even].reshape(-1, 2, *values.shape[1:]).flip(1).reshape(values[:even].shape)
    return torch.cat([swapped, values[even:]])


def _gathered(values: Tensor, source: Tensor, dimension: int) -> Tensor:
    shape = [len(values)] + [1] * (values.ndim - 1)
    shape[dimension] = source.shape[1]
    return values.gather(dimension, source.reshape(shape).expand(values.shape))


def _warped(values: Tensor, affine: Tensor, size: tuple[int, ...], outside: int) -> Tensor:
    """Every pixel of a grid of `size` from the nearest source pixel."""
    places = torch.nn.functional.affine_grid(affine.float(), [len(values), 1, *size], align_corners=False)
    # Moved so that the zeros that are sampled outside stand for `outside`.
    shifted = (values.long() - outside)[:, None].float()
    sampled = torch.nn.functional.grid_sample(
        shifted, places, mode="nearest", padding_mode="zeros", align_corners=False
    )
    return (sampled[:, 0].long() + outside).to(values.dtype)
