"""Boxes that can hardly be: too small to be seen, drawn twice, or none at all."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sonde.contracts.columns import Ragged
from sonde.contracts.finding import Finding, judged
from sonde.targets.boxes.objects import CLASS, GRID

# A side of fewer pixels in what the network sees holds nothing; boxes that cover so much of each other are one object
# twice; so much of the picture is all of it.
TINY, TWICE, WHOLE = 2.0, 0.95, 0.98


def audit(objects: Ragged, ids: Sequence[str]) -> list[Finding]:
    """What is odd about the objects of a split."""
    rows = torch.cat([objects[place] for place in range(len(objects))]) if len(objects) else objects.values[:0]
    sides = rows[:, GRID][:, 2:] - rows[:, GRID][:, :2]
    tiny = float((sides.amin(1) < TINY).float().mean()) if len(rows) else 0.0
    empty = [name for name, count in zip(ids, objects.lengths.tolist(), strict=True) if not count]
    double = [ids[place] for place in range(len(objects)) if _has_twice(objects[place])]
    found = [
        ("tiny boxes", judged(tiny, warn=0.2, fail=0.8), f"{tiny:.1%} of {len(rows):,} boxes have a side below "
         f"{TINY:g} pixels of the picture as the network sees it", "are they shares from 0 to 1, or of another picture "
         "size (target.size_field)? else a larger inputs.<name>.size", []),
        ("boxes twice", judged(len(double) / max(1, len(ids)), warn=0.05), f"{len(double):,} of {len(ids):,} pictures "
         "have an object of one class twice in the same place", "delete one of the two: each is an answer that cannot "
         "be given", double),
        ("pictures without boxes", judged(len(empty) / max(1, len(ids)), warn=0.7, fail=1.0), f"{len(empty):,} of "
         f"{len(ids):,} pictures have no object", "look at some: were the boxes lost on the way?", empty),
    ]  # fmt: skip
    return [
        Finding(check=check, verdict=verdict, text=text, fix=fix, records=records)
        for check, verdict, text, fix, records in found
    ]


def _has_twice(rows: torch.Tensor) -> bool:
    """Whether two objects of one class lie in the same place."""
    if len(rows) < 2:
        return False
    low = torch.maximum(rows[:, None, GRID][..., :2], rows[None, :, GRID][..., :2])
    high = torch.minimum(rows[:, None, GRID][..., 2:], rows[None, :, GRID][..., 2:])
    both = (high - low).clamp(min=0).prod(-1)
    own = (rows[:, GRID][:, 2:] - rows[:, GRID][:, :2]).prod(-1)
    cover = both / (own[:, None] + own[None] - both).clamp(min=1e-9)
    same = (cover > TWICE) & (rows[:, None, CLASS] == rows[None, :, CLASS])
    return bool(same.triu(1).any())
