"""Sequences without their padding: one row for each real position, and examples that attend side by side.

B example, T position, W width, N row (a real position of any example), S place (of the examples in their groups).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Examples attend side by side when the shortest is longer than this share of the longest.
LIKE = 0.8


@dataclass(frozen=True, kw_only=True)
class Group:
    """`count` examples, filled up to `steps` positions each; `mask` bool (count, 1, 1, steps): the keys to be seen."""

    count: int
    steps: int
    mask: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the positions of a batch are found in the rows (N, W) that layers work on.

    Without `row_N` these are all positions, one example after another. Else examples are ordered by length, the
    longest first, and padding is left out.
    """

    groups: tuple[Group, ...]
    # Packing: each row's position among B * T, and each position's row; padding has the row of its example's last one.
    row_N: Tensor | None = None
    back_BT: Tensor | None = None
    # Attention: each place's row, and each row's place; None where groups are not padded.
    spread_S: Tensor | None = None
    gather_N: Tensor | None = None

    @property
    def num_examples(self) -> int:
        return sum(group.count for group in self.groups)

    def by_row(self, values_B: Tensor) -> Tensor:
        """A number of each example for each of its rows: (N,)."""
        if self.row_N is None or self.back_BT is None:
            return values_B.repeat_interleave(self.groups[0].steps)
        return values_B[self.row_N // (len(self.back_BT) // self.num_examples)]

    def pack(self, x_BTW: Tensor) -> Tensor:
        """The rows (N, W) of all examples."""
        return _select(x_BTW.flatten(0, 1), self.row_N)

    def unpack(self, x_NW: Tensor, count: int) -> Tensor:
        """Rows as (B, T, W); padding repeats the last real position."""
        return _select(x_NW, self.back_BT).unflatten(0, (count, -1))

    def spread(self, x_NW: Tensor) -> Iterator[tuple[Group, Tensor]]:
        """The groups, each with its examples (count, steps, ...), of rows (N, ...)."""
        places = _select(x_NW, self.spread_S).split([group.count * group.steps for group in self.groups])
        for group, part in zip(self.groups, places, strict=True):
            yield group, part.unflatten(0, (group.count, group.steps))

    def gather(self, parts: list[Tensor]) -> Tensor:
        """The rows of what `spread` gave: from (count, steps, W) for each group to (N, W)."""
        places = [part.flatten(0, 1) for part in parts]
        return _select(places[0] if len(places) == 1 else torch.cat(places), self.gather_N)


def padded(count: int, steps: int, inside_BT: Tensor | None, *, causal: bool) -> Layout:
    """All positions, padding included."""
    # Padding stands at the end, where a causal position never looks.
    mask = None if causal or inside_BT is None else inside_BT[:, None, None, :]
    return Layout(groups=(Group(count=count, steps=steps, mask=mask),))


def packed(length_B: Tensor, steps: int, *, causal: bool) -> Layout:
    """The real positions alone, of examples (B,) in a batch of `steps` positions; a length of 0 counts as 1."""
    length_B, order_B = length_B.clamp(1, steps).sort(descending=True, stable=True)
    lengths = length_B.tolist()
    sizes = _group_sizes(lengths)
    longest_B = torch.tensor([lengths[start] for start, stop in sizes for _ in range(start, stop)])
    start_B = length_B.cumsum(0) - length_B
    example_N, place_N = _places(length_B)
    row_N = order_B[example_N] * steps + place_N
    example_S, place_S = _places(longest_B)
    inside_S = place_S < length_B[example_S]
    is_filled = len(place_S) > len(place_N)
    last_BT = torch.minimum(torch.arange(steps)[None, :], length_B[:, None] - 1)
    back_BT = torch.empty_like(last_BT).index_copy_(0, order_B, start_B[:, None] + last_BT)
    groups, at = [], 0
    for start, stop in sizes:
        count, longest = stop - start, lengths[start]
        see = lengths[stop - 1] < longest and not causal
        mask = inside_S[at : at + count * longest].view(count, 1, 1, longest) if see else None
        groups.append(Group(count=count, steps=longest, mask=mask))
        at += count * longest
    return Layout(
        groups=tuple(groups),
        row_N=row_N,
        back_BT=back_BT.flatten(),
        spread_S=start_B[example_S] + torch.minimum(place_S, length_B[example_S] - 1) if is_filled else None,
        gather_N=inside_S.nonzero()[:, 0] if is_filled else None,
    )


def _places(length_B: Tensor) -> tuple[Tensor, Tensor]:
    """For examples of some lengths, one after another: the example of each position, and its place in it."""
    example = torch.arange(len(length_B)).repeat_interleave(length_B)
    start_B = length_B.cumsum(0) - length_B
    return example, torch.arange(len(example)) - start_B[example]


def _group_sizes(lengths: list[int]) -> list[tuple[int, int]]:
    """Where each group of like lengths starts and stops, for lengths from the longest to the shortest."""
    starts = [0]
    for index, length in enumerate(lengths):
        if length < LIKE * lengths[starts[-1]]:
            starts.append(index)
    return list(zip(starts, [*starts[1:], len(lengths)], strict=True))


def _select(rows: Tensor, index: Tensor | None) -> Tensor:
    return rows if index is None else rows.index_select(0, index)
