"""From features to answers: heads for each form of answer, and the meeting place of several inputs.

B example, H row, W column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from sonde.networks._layers import initialize

# Common width of the levels of a feature pyramid.
PYRAMID = 128


@runtime_checkable
class Embeds(Protocol):
    """A body that can lend the weight of its embedding (vocabulary, width) to the head; None: it does not."""

    @property
    def embedding_weight(self) -> Tensor | None: ...


def linear(width: int, answers: int) -> nn.Linear:
    """The head per example and per position. It starts out small: first answers are close to "don't know"."""
    head = nn.Linear(width, answers)
    nn.init.normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    return head


def pixelwise(widths: tuple[int, ...], answers: int) -> nn.Module:
    """The head per pixel: one grid needs a 1x1 convolution only, several are brought together first."""
    return Single(widths[0], answers) if len(widths) == 1 else Pyramid(widths, answers)


class Single(nn.Module):
    def __init__(self, width: int, answers: int) -> None:
        super().__init__()
        self.answer = nn.Conv2d(width, answers, 1)
        _start_small(self.answer)

    def forward(self, grids: tuple[Tensor, ...]) -> Tensor:
        return self.answer(grids[0])


class Pyramid(nn.Module):
    """Grids of several sizes, finest first: each brought to a common width, upsampled to the finest and summed.

    The light half of "Panoptic Feature Pyramid Networks" (Kirillov et al. 2019).
    """

    def __init__(self, widths: tuple[int, ...], answers: int) -> None:
        super().__init__()
        common = min(PYRAMID, max(widths))
        self.lateral = nn.ModuleList(nn.Conv2d(width, common, 1) for width in widths)
        self.smooth = nn.Sequential(
            nn.Conv2d(common, common, 3, padding=1, bias=False), nn.BatchNorm2d(common), nn.ReLU(inplace=True)
        )
        self.answer = nn.Conv2d(common, answers, 1)
        initialize(self)
        _start_small(self.answer)

    def forward(self, grids: tuple[Tensor, ...]) -> Tensor:
        total = self.lateral[0](grids[0])
        for lateral, grid in zip(list(self.lateral)[1:], grids[1:], strict=True):
            total = total + resize(lateral(grid), total.shape[2:])
        return self.answer(self.smooth(total))


def resize(grid: Tensor, size: Sequence[int]) -> Tensor:
    """The grid at `size` (H, W), bilinear."""
    if grid.shape[2:] == torch.Size(size):
        return grid
    return functional.interpolate(grid, size=tuple(size), mode="bilinear", align_corners=False)


class Joint(nn.Module):
    """Several inputs' features (B, widths[i]) as one (B, width): each normalized, so that none drowns the others."""

    def __init__(self, widths: Sequence[int], dropout: float = 0.1) -> None:
        super().__init__()
        self.width = max(widths)
        self.norms = nn.ModuleList(map(nn.LayerNorm, widths))
        self.mix = nn.Linear(sum(widths), self.width)
        initialize(self, "gelu")
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        normalized = [norm(each) for norm, each in zip(self.norms, features, strict=True)]
        return self.dropout(functional.gelu(self.mix(torch.cat(normalized, dim=1))))


def _start_small(layer: nn.Conv2d) -> None:
    nn.init.normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
