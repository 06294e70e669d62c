"""The dense head: at every place of a feature pyramid a score for each class and a box (one-stage, without anchors).

B example, P place of all levels together, M object, K class, H row, W column.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sonde.contracts.specs import Features, FeatureWidth
from sonde.targets.boxes import geometry
from sonde.targets.boxes.assignment import assign
from sonde.targets.boxes.objects import FLAG, GRID, PLAIN
from sonde.targets.boxes.pyramid import Pyramid

# What a class scores at first, so that the many places of background do not swamp the first steps (Lin et al. 2017).
FIRST_SCORE = 0.01
# Weights of the box's loss, and of background in the score's (Zhang et al. 2021, VarifocalNet).
BOX, BACKGROUND, FOCUS = 2.5, 0.75, 2.0


class Dense(NamedTuple):
    """The answers at all places: logits of classes, boxes [x1, y1, x2, y2] in pixels of the grid that went in, and the
    centre [x, y] and the stride of each place."""

    logits_BPK: Tensor
    box_BP4: Tensor
    centre_P2: Tensor
    stride_P: Tensor


class DenseHead(nn.Module):
    """A pyramid, and `Towers` over each of its levels."""

    def __init__(
        self, widths: Mapping[str, FeatureWidth], main: str, classes: int, *, levels: int, width: int, convolutions: int
    ) -> None:
        super().__init__()
        self.main = main
        self.pyramid = Pyramid(widths, main, levels=levels, width=width)
        self.towers = Towers(width, classes, levels=levels, convolutions=convolutions)

    def forward(self, features: Mapping[str, Features]) -> Dense:
        return self.towers(self.pyramid(features), features[self.main].size)


class Towers(nn.Module):
    """Convolutions for the score and for the box. All levels share them, with a batch norm for each level (Lyu et al.
    2022, RTMDet)."""

    def __init__(self, width: int, classes: int, *, levels: int, convolutions: int) -> None:
        super().__init__()
        self.scores, self.boxes = (Tower(width, convolutions, levels) for _ in range(2))
        score, box = nn.Conv2d(width, classes, 1), nn.Conv2d(width, 4, 1)
        first_score(score)
        nn.init.normal_(box.weight, std=0.01)
        nn.init.zeros_(box.bias)  # type: ignore[arg-type]
        self.answer = nn.ModuleDict({"score": score, "box": box})
        self.to(memory_format=torch.channels_last)

    def forward(self, grids: Sequence[Tensor], size: Sequence[int]) -> Dense:
        found: list[Dense] = []
        for level, grid in enumerate(grids):
            logits = self.answer["score"](self.scores(grid, level))
            sides = self.answer["box"](self.boxes(grid, level)).float()
            found.append(_at_places(logits.float(), sides, size))
        return Dense(
            torch.cat([each.logits_BPK for each in found], 1),
            torch.cat([each.box_BP4 for each in found], 1),
            torch.cat([each.centre_P2 for each in found]),
            torch.cat([each.stride_P for each in found]),
        )


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


def first_score(layer: nn.Conv2d | nn.Linear) -> None:
    """First weights with which every class scores `FIRST_SCORE`."""
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    nn.init.constant_(layer.bias, -math.log(1 / FIRST_SCORE - 1))


def costs(given: Dense, objects_BMx: Tensor, class_BM: Tensor) -> dict[str, Tensor]:
    """The loss terms of each picture, (B,): of scores and of boxes.

    `objects_BMx` has the columns that `objects` names; `class_BM` is -1 for padding.
    """
    logits_BPK, object_BM4 = given.logits_BPK, objects_BMx[..., GRID]
    found = assign(
        logits_BPK.detach().sigmoid(),
        given.box_BP4.detach(),
        given.centre_P2,
        given.stride_P,
        object_BM4,
        class_BM,
        objects_BMx[..., FLAG] != PLAIN,
    )
    if not object_BM4.shape[1]:
        wanted_BPK = torch.zeros_like(logits_BPK)
        return {"score": varifocal(logits_BPK, wanted_BPK, found.ignored_BP), "box": given.box_BP4.sum((1, 2)) * 0}
    mine_BP = found.object_BP.clamp_min(0)
    class_BP = class_BM.gather(1, mine_BP).clamp_min(0)
    wanted_BPK = functional.one_hot(class_BP, logits_BPK.shape[2]) * found.quality_BP[..., None]
    wanted_BP4 = object_BM4.gather(1, mine_BP[..., None].expand(-1, -1, 4))
    lost_BP = (1 - geometry.complete_iou(given.box_BP4, wanted_BP4)) * found.quality_BP
    return {
        "score": varifocal(logits_BPK, wanted_BPK, found.ignored_BP),
        "box": torch.where(found.object_BP >= 0, lost_BP, 0.0).sum(1) * BOX,
    }


def varifocal(logits_BPK: Tensor, wanted_BPK: Tensor, ignored_BP: Tensor) -> Tensor:
    """The cross-entropy with the wanted scores, in sums (B,): answers of objects count by the score that is wanted,
    background by how much it scores (Zhang et al. 2021)."""
    score_BPK = logits_BPK.detach().sigmoid()
    weight_BPK = torch.where(wanted_BPK > 0, wanted_BPK, BACKGROUND * score_BPK**FOCUS)
    weight_BPK = weight_BPK * (~ignored_BP)[..., None]
    cost_BPK = functional.binary_cross_entropy_with_logits(logits_BPK, wanted_BPK, reduction="none")
    return (cost_BPK * weight_BPK).sum((1, 2))


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
