"""Boxes as tensors [x1, y1, x2, y2] in pixels: overlaps, and where a picture was put.

B example, N and M box, P place.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SMALLEST = 1e-7


def area(boxes: Tensor) -> Tensor:
    """(..., 4) to (...); a box whose sides are crossed has none."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(-1)


def pairwise_iou(one_N4: Tensor, other_M4: Tensor) -> Tensor:
    """The intersection over union of every box with every other: (..., N, 4) and (..., M, 4) to (..., N, M)."""
    low = torch.maximum(one_N4[..., :, None, :2], other_M4[..., None, :, :2])
    high = torch.minimum(one_N4[..., :, None, 2:], other_M4[..., None, :, 2:])
    common = (high - low).clamp_min(0).prod(-1)
    return common / (area(one_N4)[..., :, None] + area(other_M4)[..., None, :] - common).clamp_min(SMALLEST)


def pairwise_generalized_iou(one_N4: Tensor, other_M4: Tensor) -> Tensor:
    """`generalized_iou` of every box with every other: (..., N, 4) and (..., M, 4) to (..., N, M)."""
    return generalized_iou(*torch.broadcast_tensors(one_N4[..., :, None, :], other_M4[..., None, :, :]))


def iou(one: Tensor, other: Tensor) -> Tensor:
    """The intersection over union of boxes and their partners: (..., 4) twice to (...)."""
    common = _common(one, other)
    return common / (area(one) + area(other) - common).clamp_min(SMALLEST)


def generalized_iou(one: Tensor, other: Tensor) -> Tensor:
    """As `iou`, less the share of the smallest box around both that neither fills (Rezatofighi et al. 2019)."""
    common = _common(one, other)
    union = (area(one) + area(other) - common).clamp_min(SMALLEST)
    around = (
        (torch.maximum(one[..., 2:], other[..., 2:]) - torch.minimum(one[..., :2], other[..., :2]))
        .clamp_min(0)
        .prod(-1)
    ).clamp_min(SMALLEST)
    return common / union - (around - union) / around


def complete_iou(one: Tensor, other: Tensor) -> Tensor:
    """As `iou`, less the distance of the centres and the difference of the aspects (Zheng et al. 2020)."""
    overlap = iou(one, other)
    around = torch.maximum(one[..., 2:], other[..., 2:]) - torch.minimum(one[..., :2], other[..., :2])
    diagonal = around.square().sum(-1).clamp_min(SMALLEST)
    apart = ((one[..., :2] + one[..., 2:] - other[..., :2] - other[..., 2:]) / 2).square().sum(-1)
    angles = [torch.atan2(*_sides(boxes)) for boxes in (one, other)]
    aspect = (angles[0] - angles[1]).square() * (4 / math.pi**2)
    with torch.no_grad():
        weight = aspect / (1 - overlap + aspect).clamp_min(SMALLEST)
    return overlap - apart / diagonal - weight * aspect


def _sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp_min(SMALLEST)
    return sides[..., 0], sides[..., 1]


def _common(one: Tensor, other: Tensor) -> Tensor:
    low, high = torch.maximum(one[..., :2], other[..., :2]), torch.minimum(one[..., 2:], other[..., 2:])
    return (high - low).clamp_min(0).prod(-1)


def to_grid(boxes: Tensor, placement: Tensor) -> Tensor:
    """Boxes (..., 4) of a picture as it was, in pixels of the grid that it was put into by `placement` (..., 6)."""
    scale, offset = _both(placement)
    return boxes * scale + offset


def to_picture(boxes: Tensor, placement: Tensor) -> Tensor:
    """Boxes (..., 4) in a grid, in pixels of the picture as it was; the inverse of `to_grid`, cut at its borders."""
    scale, offset = _both(placement)
    size = placement[..., [5, 4, 5, 4]]
    return torch.minimum(((boxes - offset) / scale).clamp_min(0), size)


def _both(placement: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and offset of [x1, y1, x2, y2]."""
    return placement[..., [1, 0, 1, 0]], placement[..., [3, 2, 3, 2]]
