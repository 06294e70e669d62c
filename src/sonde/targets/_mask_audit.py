"""Masks that cannot be: values between two classes along their borders, and masks of one class only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sonde.contracts.finding import Finding, judged

# Masks that are looked at; so much of a class at the border of others is no thing, and at most so many pixels of all.
MOST, THIN, RARE = 200, 0.98, 0.05


def audit(mask_NHW: Tensor, classes: Sequence[str], ignored: int, ids: Sequence[str]) -> list[Finding]:
    """What is odd about the masks of a split, uint8 (N, H, W)."""
    step = max(1, len(mask_NHW) // MOST)
    some = mask_NHW[::step].long()
    thin = _thin(some, len(classes), ignored)
    empty = [name for name, one in zip(ids, mask_NHW, strict=True) if len(torch.unique(one[one != ignored])) < 2]
    return [
        Finding(
            check="masks interpolated",
            verdict="fail" if len(thin) > 2 else "warn" if thin else "pass",
            text=f"{len(thin)} of {len(classes)} classes are found along the borders of others only"
            + (f": {', '.join(classes[place] for place in thin[:5])}" if thin else ""),
            fix="masks were scaled with interpolation, which makes values that are no class: scale them with nearest",
            numbers={"classes": [classes[place] for place in thin]},
        ),
        Finding(
            check="empty masks",
            verdict=judged(len(empty) / max(1, len(ids)), warn=0.5, fail=1.0),
            text=f"{len(empty):,} of {len(ids):,} masks have one class only",
            fix="look at them: are the masks of other pictures, or all of it background?",
            records=empty,
        ),
    ]


def _thin(mask_NHW: Tensor, classes: int, ignored: int) -> list[int]:
    """The classes whose pixels have no neighbours of their own on all four sides, almost anywhere."""
    inner = mask_NHW[:, 1:-1, 1:-1]
    alike = torch.ones_like(inner, dtype=torch.bool)
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        size_y, size_x = inner.shape[1:]
        alike &= mask_NHW[:, dy : dy + size_y, dx : dx + size_x] == inner
    known = inner != ignored
    whole_K = torch.bincount(inner[known & alike], minlength=classes)[:classes]
    count_K = torch.bincount(inner[known], minlength=classes)[:classes]
    share_K = count_K / count_K.sum().clamp(min=1)
    thin_K = (count_K >= 5) & (share_K < RARE) & (whole_K <= (1 - THIN) * count_K)
    return torch.nonzero(thin_K).flatten().tolist()
