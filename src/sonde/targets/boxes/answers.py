"""From the head's answers to a set of boxes a picture: the best scores, and of boxes that overlap the best one.

B example, P place, K class, N answer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sonde.base.errors import UserError

# Candidates of each picture that overlaps are looked for among.
CANDIDATES = 500
# Scores are compared in steps of this: answers are then in one order, alone or in a batch, where the last bits of a
# score are not the same.
STEP = 1e-4


class Answers(NamedTuple):
    """The answers of all pictures, one after another and best first: the picture of each, its rank there, its score,
    class and box (in pixels of the grid)."""

    picture_N: Tensor
    rank_N: Tensor
    score_N: Tensor
    class_N: Tensor
    box_N4: Tensor


def best(
    scores_BPK: Tensor, box_BP4: Tensor, *, min_score: float, max_answers: int, max_overlap: float | None
) -> Answers:
    """At most `max_answers` a picture, of at least `min_score`. Of answers of one class whose intersection over union
    is above `max_overlap` the best stays (`torchvision.ops.batched_nms`); None: all stay.

    All pictures at once: they are kept apart as classes are. Of equal scores the earlier place is the better.
    """
    batch, _, classes = scores_BPK.shape
    steps_BC = (scores_BPK.flatten(1) / STEP).round().long()
    total = steps_BC.shape[1]
    order_C = torch.arange(total - 1, -1, -1, device=steps_BC.device)
    top_BC = (steps_BC * total + order_C).topk(min(CANDIDATES, total), dim=1).values
    index_BC = total - 1 - top_BC % total
    score_BC = scores_BPK.flatten(1).gather(1, index_BC)
    box_BC4 = box_BP4.gather(1, (index_BC // classes)[..., None].expand(-1, -1, 4))
    picture_BC = torch.arange(batch, device=score_BC.device)[:, None].expand_as(score_BC)
    good_BC = score_BC >= min_score
    columns = tuple(each[good_BC] for each in (picture_BC, score_BC, index_BC % classes, box_BC4))
    if max_overlap is not None:
        picture_N, score_N, class_N, box_N4 = columns
        # Classes are kept apart by moving their boxes far away, for which single precision is too coarse.
        kept_N = _nms()(box_N4.double(), (score_N / STEP).round().double(), picture_N * classes + class_N, max_overlap)
        # In the order in which they were: that of the answer is another where scores are equal.
        columns = tuple(each[kept_N.sort().values] for each in columns)
    picture_N, score_N, class_N, box_N4 = columns
    count_B = torch.bincount(picture_N, minlength=batch)
    rank_N = torch.arange(len(picture_N), device=picture_N.device) - (count_B.cumsum(0) - count_B)[picture_N]
    kept_N = rank_N < max_answers
    return Answers(*(each[kept_N] for each in (picture_N, rank_N, score_N, class_N, box_N4)))


def _nms():
    try:
        from torchvision.ops import batched_nms
    except ImportError as error:
        raise UserError(f"torchvision cannot be imported: {error}", hint="pip install 'sonde[image]'") from error
    return batched_nms
