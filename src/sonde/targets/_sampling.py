"""One token out of many: the likeliest, or one that is drawn. B example, V vocabulary."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from sonde.base.config import Config


class Sampling(Config):
    """How a token is chosen by its probability."""

    temperature: float = Field(
        default=1.0, ge=0, description="below 1 the likely tokens gain; 0 always takes the likeliest"
    )
    top_k: int | None = Field(default=None, ge=1, description="choose among so many of the likeliest tokens")
    top_p: float | None = Field(
        default=None, gt=0, le=1, description="choose among the likeliest that make up this share"
    )


def choose(logits_BV: Tensor, u_B: Tensor, settings: Sampling) -> Tensor:
    """One token per row, int64 (B,): the one that a uniform number in [0, 1) falls to."""
    if settings.temperature == 0:
        return logits_BV.argmax(1)
    logits_BV = logits_BV / settings.temperature
    if settings.top_k is not None:
        logits_BV = keep_top_k(logits_BV, settings.top_k)
    if settings.top_p is not None:
        logits_BV = keep_top_p(logits_BV, settings.top_p)
    passed_BV = logits_BV.softmax(1).cumsum(1)
    total_B = passed_BV[:, -1]
    # Below the total, whatever rounding does: else it could fall to a token that has no chance.
    place_B = torch.minimum(u_B * total_B, torch.nextafter(total_B, torch.zeros_like(total_B)))
    return (passed_BV <= place_B[:, None]).sum(1)


def keep_top_k(logits_BV: Tensor, k: int) -> Tensor:
    """All but the k largest become -inf (Fan et al. 2018); ties with the last one stay."""
    least_B1 = logits_BV.topk(min(k, logits_BV.shape[1]), dim=1).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)


def keep_top_p(logits_BV: Tensor, p: float) -> Tensor:
    """All but the fewest likeliest that together reach the probability p become -inf (Holtzman et al. 2020)."""
    sorted_BV, order_BV = logits_BV.sort(dim=1, descending=True, stable=True)
    share_BV = sorted_BV.softmax(1)
    drop_BV = share_BV.cumsum(1) - share_BV >= p
    drop_BV[:, 0] = False
    return logits_BV.masked_fill(torch.zeros_like(drop_BV).scatter(1, order_BV, drop_BV), -torch.inf)
