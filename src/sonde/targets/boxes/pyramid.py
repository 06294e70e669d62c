"""A feature pyramid over the grids of a backbone: what the heads of boxes stand on.

B example, H row, W column.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, channels_last, nn
from torch.nn import functional

from sonde.contracts.specs import Features, FeatureWidth


class Pyramid(nn.Module):
    """Levels down (Lin et al. 2017) and up again (Liu et al. 2018), all of one width.

    It takes the coarsest `levels` grids that the backbone gives; where there are fewer, it goes on halving. Features
    per example of other inputs are added to every place.
    """

    def __init__(self, widths: Mapping[str, FeatureWidth], main: str, *, levels: int, width: int) -> None:
        super().__init__()
        given = widths[main]
        grids = given if isinstance(given, tuple) else (given,)
        self.main = main
        self.used = min(levels, len(grids))
        self.lateral = nn.ModuleList(block(channels, width, 1) for channels in grids[-self.used :])
        self.further = nn.ModuleList(block(width, width, 3, stride=2) for _ in range(levels - self.used))
        self.down = nn.ModuleList(block(width, width, 3) for _ in range(levels - 1))
        self.shrink = nn.ModuleList(block(width, width, 3, stride=2) for _ in range(levels - 1))
        self.up = nn.ModuleList(block(width, width, 3) for _ in range(levels - 1))
        self.beside = nn.ModuleDict(
            {name: nn.Linear(_number(each), width) for name, each in widths.items() if name != main}
        )
        self.to(memory_format=channels_last)

    def forward(self, features: Mapping[str, Features]) -> list[Tensor]:
        """Grids (B, width, H, W), finest first."""
        values = features[self.main].values
        given = values if isinstance(values, tuple) else (values,)
        grids: list[Tensor] = [lateral(grid) for lateral, grid in zip(self.lateral, given[-self.used :], strict=True)]
        for further in self.further:
            grids.append(further(grids[-1]))
        for name, linear in self.beside.items():
            grids = [grid + linear(features[name].values)[:, :, None, None] for grid in grids]
        for level in range(len(grids) - 2, -1, -1):
            grids[level] = self.down[level](grids[level] + _like(grids[level + 1], grids[level]))
        for level in range(1, len(grids)):
            fine = self.shrink[level - 1](grids[level - 1])
            grids[level] = self.up[level - 1](grids[level] + _like(fine, grids[level]))
        return grids


def block(channels: int, width: int, side: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, width, side, stride, side // 2, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    )


def _like(grid: Tensor, other: Tensor) -> Tensor:
    """A grid at the size of another."""
    if grid.shape[2:] == other.shape[2:]:
        return grid
    return functional.interpolate(grid, size=other.shape[2:], mode="nearest")


def _number(width: FeatureWidth) -> int:
    assert isinstance(width, int)
    return width
