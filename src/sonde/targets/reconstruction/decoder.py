"""From features to a few numbers, and from these to a grid. B example, K number of the code, C channel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from sonde.contracts.specs import Features, FeatureWidth

# A side of the grid of features that the code is read from.
SIDE = 4
# The least deviation of the reconstruction's error, as a logarithm: nothing is told more exactly.
LEAST = -6.0
# What is told of an example: its grid, the mean and the log variance of its code, the log deviation of its numbers.
Reconstructed = tuple[Tensor, Tensor, Tensor, Tensor]


class Autoencoder(nn.Module):
    """The head: features (B, W) or grids of them to the code, and the code to a grid (B, channels, *size).

    `widths` are those of the features of each input, and `main` the one that is made again; the features of the others
    (B, W) are told to the decoder beside the code (a conditional autoencoder, Sohn et al. 2015). The deviation of all
    numbers around their reconstruction is learned (Rybkin et al. 2021), so that the loss is a likelihood in nats.
    """

    def __init__(
        self,
        widths: Mapping[str, FeatureWidth],
        *,
        main: str,
        channels: int,
        size: Sequence[int],
        bottleneck: int,
        variational: bool,
        stages: Sequence[int],
    ) -> None:
        super().__init__()
        self.variational = variational
        self.main = main
        self.others = [name for name in widths if name != main]
        own, beside = widths[main], [width for name, width in widths.items() if name != main]
        inner = own[-1] * SIDE ** len(size) if isinstance(own, tuple) else own
        known = sum(width for width in beside if isinstance(width, int))
        self.code = nn.Linear(inner, bottleneck * (2 if variational else 1))
        self.decoder = Decoder(bottleneck + known, channels=channels, size=size, widths=stages)
        self.log_deviation = nn.Parameter(torch.zeros(()))

    def forward(self, features: Mapping[str, Features], eps_BK: Tensor | None = None) -> Reconstructed:
        """`eps_BK` are normal numbers by which a code is drawn around its mean; None takes the mean."""
        values = features[self.main].values
        if isinstance(values, tuple):
            values = _pool(values[-1]).flatten(1)
        code = self.code(values)
        mean_BK, log_variance_BK = code.chunk(2, dim=1) if self.variational else (code, torch.zeros_like(code))
        log_variance_BK = log_variance_BK.clamp(-20, 10)
        drawn_BK = mean_BK
        if self.variational and eps_BK is not None:
            drawn_BK = mean_BK + (log_variance_BK / 2).exp() * eps_BK
        beside = [values for name in self.others if isinstance(values := features[name].values, Tensor)]
        return (
            self.decoder(torch.cat([drawn_BK, *beside], dim=1)),
            mean_BK,
            log_variance_BK,
            self.log_deviation.clamp_min(LEAST),
        )


def _pool(grid: Tensor) -> Tensor:
    """The means over `SIDE` parts of each side, of grids with any number of axes."""
    if grid.ndim == 3:
        return functional.adaptive_avg_pool1d(grid, SIDE)
    if grid.ndim == 4:
        return functional.adaptive_avg_pool2d(grid, SIDE)
    return functional.adaptive_avg_pool3d(grid, SIDE)


class Decoder(nn.Module):
    """(B, K) to (B, channels, *size): a small grid that each stage but the first doubles."""

    def __init__(self, code: int, *, channels: int, size: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        dimensions = len(size)
        self.size = tuple(size)
        self.start = tuple(math.ceil(side / 2 ** (len(widths) - 1)) for side in size)
        self.first = nn.Linear(code, widths[0] * math.prod(self.start))
        layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
        self.width = widths[0]
        self.stages = nn.ModuleList()
        for before, width in zip((widths[0], *widths[:-1]), widths, strict=True):
            expand = Double(before, width, dimensions) if len(self.stages) else nn.Identity()
            self.stages.append(
                nn.Sequential(
                    expand,
                    layer(width, width, 3, padding=1),
                    nn.GroupNorm(1, width),
                    nn.SiLU(),
                )
            )
        self.answer = layer(widths[-1], channels, 3, padding=1)

    def forward(self, code_BK: Tensor) -> Tensor:
        grid = functional.silu(self.first(code_BK)).unflatten(1, (*self.start, self.width)).movedim(-1, 1)
        for stage in self.stages:
            grid = stage(grid)
        grid = self.answer(grid)
        for axis, side in enumerate(self.size, start=2):
            grid = grid.narrow(axis, 0, side)
        return grid


class Double(nn.Module):
    """A grid at twice its size: each place becomes a square (a cube) of its own, by one matrix product."""

    def __init__(self, before: int, width: int, dimensions: int) -> None:
        super().__init__()
        self.dimensions, self.width = dimensions, width
        self.layer = nn.Linear(before, width * 2**dimensions)

    def forward(self, grid: Tensor) -> Tensor:
        sizes = grid.shape[2:]
        values = self.layer(grid.movedim(1, -1)).unflatten(-1, (*[2] * self.dimensions, self.width))
        # (B, h, w, 2, 2, W) to (B, h, 2, w, 2, W): every axis beside the half of it that was added. The channels stay
        # last in memory, as convolutions like it.
        count = self.dimensions
        order = [place for axis in range(count) for place in (1 + axis, 1 + count + axis)]
        doubled = values.permute(0, *order, 2 * count + 1)
        return doubled.reshape(len(grid), *(2 * side for side in sizes), self.width).movedim(-1, 1)
