"""Losses over pairs of examples: what each anchor costs, given everybody's embeddings.

All take float32 embeddings, and `same_BB` and `other_BB`, which say who is an anchor's positive and who its negative;
all give (B,), 0 for an anchor that has no positive (or no negative). B example, W width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def supervised_contrastive(embedding_BW: Tensor, same_BB: Tensor, other_BB: Tensor, scale_B: Tensor) -> Tensor:
    """Supervised contrastive loss, the form with the sum outside the logarithm (Khosla et al. 2020, equation 2).

    `scale_B` is 1 / temperature; the embeddings have norm 1.
    """
    logits_BB = (embedding_BW @ embedding_BW.T) * scale_B[:, None]
    # A number that exp takes to 0, and not -inf: an anchor without company would turn the gradient into NaN.
    least = torch.finfo(logits_BB.dtype).min / 4
    log_B1 = logits_BB.masked_fill(~(same_BB | other_BB), least).logsumexp(dim=1, keepdim=True)
    log_BB = logits_BB - log_B1
    positives_B = same_BB.sum(1)
    cost_B = -torch.where(same_BB, log_BB, 0.0).sum(1) / positives_B.clamp_min(1)
    return torch.where((positives_B > 0) & other_BB.any(1), cost_B, 0.0)


def batch_hard(embedding_BW: Tensor, same_BB: Tensor, other_BB: Tensor, margin: float | None) -> Tensor:
    """Triplet loss on each anchor's farthest positive and nearest negative (Hermans et al. 2017, In Defense of the
    Triplet Loss); without a margin the soft one, log(1 + exp(difference))."""
    distance_BB = distances(embedding_BW)
    farthest_B = distance_BB.masked_fill(~same_BB, 0.0).amax(dim=1)
    nearest_B = distance_BB.masked_fill(~other_BB, torch.finfo(distance_BB.dtype).max / 4).amin(dim=1)
    gap_B = farthest_B - nearest_B
    cost_B = torch.nn.functional.softplus(gap_B) if margin is None else torch.nn.functional.relu(gap_B + margin)
    return torch.where(same_BB.any(1) & other_BB.any(1), cost_B, 0.0)


def contrastive(embedding_BW: Tensor, same_BB: Tensor, other_BB: Tensor, margin: float) -> Tensor:
    """Contrastive loss (Hadsell et al. 2006): squared distances of positives, and what negatives lack to the margin,
    squared.

    Positives and negatives weigh alike however many there are: the mean over an anchor's positives, and the mean over
    those of its negatives that are within the margin.
    """
    distance_BB = distances(embedding_BW)
    near_B = torch.where(same_BB, distance_BB.square(), 0.0).sum(1) / same_BB.sum(1).clamp_min(1)
    lacking_BB = torch.where(other_BB, torch.nn.functional.relu(margin - distance_BB), 0.0)
    far_B = lacking_BB.square().sum(1) / (lacking_BB > 0).sum(1).clamp_min(1)
    return torch.where(same_BB.any(1) & other_BB.any(1), near_B + far_B, 0.0)


def distances(embedding_BW: Tensor) -> Tensor:
    """Euclidean distances (B, B), from differences: exact where two are close, and with a gradient of 0 at 0."""
    return torch.cdist(embedding_BW, embedding_BW, compute_mode="donot_use_mm_for_euclid_dist")


def softmax_match(logits_BB: Tensor, shared_BB: Tensor) -> Tensor:
    """What each pair costs if the first side has to choose its partner of the batch and the second side its own: the
    mean of both cross-entropies (Radford et al. 2021, CLIP). Pairs that share a side are not chosen from."""
    own_BB = torch.eye(len(logits_BB), dtype=torch.bool, device=logits_BB.device)
    logits_BB = logits_BB.masked_fill(shared_BB & ~own_BB, torch.finfo(logits_BB.dtype).min / 4)
    own_B = logits_BB.diagonal()
    return (logits_BB.logsumexp(1) + logits_BB.logsumexp(0)) / 2 - own_B


def sigmoid_match(logits_BB: Tensor, shared_BB: Tensor) -> Tensor:
    """What each first side costs if every pair of the batch is judged by itself, whether it belongs together (Zhai et
    al. 2023, Sigmoid Loss for Language Image Pre-Training). Pairs that share a side are not judged."""
    own_BB = torch.eye(len(logits_BB), dtype=torch.bool, device=logits_BB.device)
    cost_BB = -torch.nn.functional.logsigmoid(torch.where(own_BB, logits_BB, -logits_BB))
    return cost_BB.masked_fill(shared_BB & ~own_BB, 0.0).sum(1)
