"""The dense head: a feature pyramid, and at every place of its levels a score for each class and a box.

B example, P place of all levels together, K class, H row, W column.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sonde.contracts.specs import Features, FeatureWidth

# What a class scores at first, so that the many places of background do not swamp the first steps (Lin et al. 2017).
FIRST_SCORE = 0.01


class Dense(NamedTuple):
    """The answers at all places: logits of classes, boxes [x1, y1, x2, y2] in pixels of the grid that went in, and the
    centre [x, y] and the stride of each place."""

    logits_BPK: Tensor
    box_BP4: Tensor
    centre_P2: Tensor
    stride_P: Tensor


class DenseHead(nn.Module):
    """Levels of a pyramid down (Lin et al. 2017) and up again (Liu et al. 2018), and two towers over each: convolutions
    that all levels share, with a batch norm for each level (Lyu et al. 2022, RTMDet).

    It takes the coarsest `levels` grids that the backbone gives; where there are fewer, it goes on halving.
    """

    def __init__(
        self, widths: Mapping[str, FeatureWidth], main: str, classes: int, *, levels: int, width: int, convolutions: int
    ) -> None:
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
        self.scores, self.boxes = (Tower(width, convolutions, levels) for _ in range(2))
        self.answer = nn.ModuleDict({"score": nn.Conv2d(width, classes, 1), "box": nn.Conv2d(width, 4, 1)})
        nn.init.normal_(self.answer["score"].weight, std=0.01)
        nn.init.constant_(self.answer["score"].bias, -math.log(1 / FIRST_SCORE - 1))
        nn.init.normal_(self.answer["box"].weight, std=0.01)
        nn.init.zeros_(self.answer["box"].bias)
        self.to(memory_format=torch.channels_last)

    def forward(self, features: Mapping[str, Features]) -> Dense:
        found: list[Dense] = []
        for level, grid in enumerate(self.pyramid(features)):
            logits = self.answer["score"](self.scores(grid, level))
            sides = self.answer["box"](self.boxes(grid, level)).float()
            found.append(_at_places(logits.float(), sides, features[self.main].size))
        return Dense(
            torch.cat([each.logits_BPK for each in found], 1),
            torch.cat([each.box_BP4 for each in found], 1),
            torch.cat([each.centre_P2 for each in found]),
            torch.cat([each.stride_P for each in found]),
        )

    def pyramid(self, features: Mapping[str, Features]) -> list[Tensor]:
        """Grids (B, width, H, W), finest first."""
        values = features[self.main].values
        given = values if isinstance(values, tuple) else (values,)
        grids: list[Tensor] = [lateral(grid) for lateral, grid in zip(self.lateral, given[-self.used :], strict=True)]
        for further in self.further:
            grids.append(further(grids[-1]))
        for name, linear in self.beside.items():
            grids = [grid + linear(features[name].values)[:, :, None, None] for grid in grids]
        for level in range(len(grids) - 2, -1, -1):
            coarse = functional.interpolate(grids[level + 1], size=grids[level].shape[2:], mode="nearest")
            grids[level] = self.down[level](grids[level] + coarse)
        for level in range(1, len(grids)):
            fine = self.shrink[level - 1](grids[level - 1])
            if fine.shape != grids[level].shape:
                fine = functional.interpolate(fine, size=grids[level].shape[2:], mode="nearest")
            grids[level] = self.up[level - 1](grids[level] + fine)
        return grids


class Tower(nn.Module):
    """Convolutions that all levels share; each level has its own statistics."""

    def __init__(self, width: int, convolutions: int, levels: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(convolutions)
        )
        self.norms = nn.ModuleList(
            nn.ModuleList(nn.BatchNorm2d(width) for _ in range(levels)) for _ in range(convolutions)
        )

    def forward(self, grid: Tensor, level: int) -> Tensor:
        for convolution, norms in zip(self.convolutions, self.norms, strict=True):
            assert isinstance(norms, nn.ModuleList)
            grid = functional.relu(norms[level](convolution(grid)), inplace=True)
        return grid


def block(channels: int, width: int, side: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, width, side, stride, side // 2, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    )


def _at_places(logits: Tensor, sides: Tensor, size: Sequence[int]) -> Dense:
    """One level's grids (B, K, H, W) and (B, 4, H, W) as places: boxes reach from the place's centre, each side
    exp(.) strides away (Tian et al. 2019, FCOS)."""
    height, width = logits.shape[2:]
    # What the grid was halved to; sizes that are no multiple leave a fraction.
    stride = 2.0 ** round(math.log2(max(size[0] / height, size[1] / width)))
    y_H, x_W = ((torch.arange(each, device=logits.device) + 0.5) * stride for each in (height, width))
    centre_P2 = torch.stack([x_W[None, :].expand(height, width), y_H[:, None].expand(height, width)], -1).reshape(-1, 2)
    reach_BP4 = sides.flatten(2).transpose(1, 2).clamp(-8, 8).exp() * stride
    box_BP4 = torch.cat([centre_P2 - reach_BP4[..., :2], centre_P2 + reach_BP4[..., 2:]], -1)
    stride_P = centre_P2.new_full((len(centre_P2),), stride)
    return Dense(logits.flatten(2).transpose(1, 2), box_BP4, centre_P2, stride_P)


def _number(width: FeatureWidth) -> int:
    assert isinstance(width, int)
    return width
