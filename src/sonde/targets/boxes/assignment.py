"""Which places of the dense head answer for which object: task-aligned assignment (Feng et al. 2021, TOOD).

B example, P place, M object, K class.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sonde.targets.boxes.geometry import pairwise_iou

# Places that answer for an object, and how their score and overlap make them fit for it: score^a * overlap^b.
PLACES, SCORE_POWER, OVERLAP_POWER = 10, 0.5, 6.0


class Assignment(NamedTuple):
    """`object_BP` int64 is the object that a place answers for, -1 where it is background; `quality_BP` the score that
    it should give; `ignored_BP` marks background that nobody knows to be one."""

    object_BP: Tensor
    quality_BP: Tensor
    ignored_BP: Tensor


@torch.no_grad()
def assign(
    score_BPK: Tensor,
    box_BP4: Tensor,
    centre_P2: Tensor,
    stride_P: Tensor,
    object_BM4: Tensor,
    class_BM: Tensor,
    ignored_BM: Tensor,
) -> Assignment:
    """For each object the places within it whose answers fit it best; a place that fits several takes the one that it
    overlaps most. `class_BM` is -1 for padding; objects that are `ignored_BM` are answered for by nobody."""
    real_BM = (class_BM >= 0) & ~ignored_BM
    places = min(PLACES, len(centre_P2))
    inside_BMP = _inside(centre_P2, stride_P, object_BM4)
    if object_BM4.shape[1] == 0:
        nothing_BP = score_BPK.new_zeros(score_BPK.shape[:2])
        return Assignment(nothing_BP.long() - 1, nothing_BP, nothing_BP.bool())
    overlap_BMP = pairwise_iou(object_BM4, box_BP4)
    class_score_BMP = score_BPK.transpose(1, 2).gather(
        1, class_BM.clamp_min(0)[:, :, None].expand(-1, -1, score_BPK.shape[1])
    )
    candidate_BMP = inside_BMP & real_BM[:, :, None]
    fit_BMP = torch.where(candidate_BMP, class_score_BMP**SCORE_POWER * overlap_BMP**OVERLAP_POWER, -1.0)
    top_BMt, where_BMt = fit_BMP.topk(places, dim=2)
    chosen_BMP = torch.zeros_like(candidate_BMP).scatter_(2, where_BMt, top_BMt >= 0)
    # A place has one answer: that for the object which it overlaps most.
    object_BP = torch.where(chosen_BMP, overlap_BMP, -1.0).argmax(1)
    taken_BP = chosen_BMP.any(1)
    owner_BMP = torch.arange(object_BM4.shape[1], device=object_BP.device)[None, :, None] == object_BP[:, None]
    chosen_BMP &= owner_BMP
    # The best place of an object shall score what it overlaps, the others in proportion.
    fit_BMP = torch.where(chosen_BMP, fit_BMP, 0.0)
    most_BM1 = fit_BMP.amax(2, keepdim=True)
    peak_BM1 = torch.where(chosen_BMP, overlap_BMP, 0.0).amax(2, keepdim=True)
    quality_BP = (fit_BMP / most_BM1.clamp_min(1e-12) * peak_BM1).amax(1)
    unknown_BP = (inside_BMP & ignored_BM[:, :, None]).any(1) & ~taken_BP
    return Assignment(torch.where(taken_BP, object_BP, -1), torch.where(taken_BP, quality_BP, 0.0), unknown_BP)


def _inside(centre_P2: Tensor, stride_P: Tensor, object_BM4: Tensor) -> Tensor:
    """Whether a place's centre lies in an object (B, M, P); one that is smaller than the grid's steps is as large as a
    step for it, so that no object is without a place."""
    middle_BM12 = ((object_BM4[..., :2] + object_BM4[..., 2:]) / 2)[:, :, None]
    half_BM12 = ((object_BM4[..., 2:] - object_BM4[..., :2]) / 2)[:, :, None]
    reach = torch.maximum(half_BM12, stride_P.min() * 0.5 * torch.ones_like(half_BM12))
    return ((centre_P2 - middle_BM12).abs() <= reach).all(-1)
