"""Encoded examples, column by column, so that no Python runs per example once a data set is encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Ragged:
    """A column whose examples differ in length: example i is `values[starts[i] : starts[i] + lengths[i]]`.

    Examples may overlap (windows of a stream). `values` has shape (total, ...); `starts` and `lengths` are int64 (N,).
    """

    values: Tensor
    starts: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.starts)

    @staticmethod
    def of(parts: Sequence[Tensor]) -> Ragged:
        lengths = torch.tensor([len(part) for part in parts], dtype=torch.int64)
        return Ragged(values=torch.cat(list(parts)), starts=lengths.cumsum(0) - lengths, lengths=lengths)

    def __getitem__(self, index: int) -> Tensor:
        start = int(self.starts[index])
        return self.values[start : start + int(self.lengths[index])]

    def take(self, indices: Tensor) -> Ragged:
        """The examples at these positions; the values are shared, not copied."""
        return Ragged(values=self.values, starts=self.starts[indices], lengths=self.lengths[indices])

    def padded(self, fill: float = 0) -> Tensor:
        """All examples as one tensor (N, longest, ...), filled up at the end."""
        longest = int(self.lengths.max()) if len(self) else 0
        place_T = torch.arange(longest, device=self.values.device)
        inside_BT = place_T[None, :] < self.lengths[:, None]
        index_BT = (self.starts[:, None] + place_T[None, :]).clamp_(max=max(0, len(self.values) - 1))
        gathered = self.values.index_select(0, index_BT.flatten()).unflatten(0, index_BT.shape)
        outside = ~inside_BT.reshape(*inside_BT.shape, *[1] * (gathered.ndim - 2))
        return gathered.masked_fill_(outside, fill)


Column = Tensor | Ragged
Columns = dict[str, Column]
Tensors = dict[str, Tensor]


def take(columns: Columns, indices: Tensor) -> Columns:
    """The same columns for the examples at `indices`."""
    return {
        # index_select copies whole rows; column[indices] goes byte by byte, 5 to 28 times slower on pictures.
        name: column.take(indices) if isinstance(column, Ragged) else column.index_select(0, indices)
        for name, column in columns.items()
    }


def stack(examples: Sequence[Tensors], ragged: Sequence[str] = ()) -> Columns:
    """Columns from single encoded examples; the names in `ragged` keep their own lengths."""
    return {
        name: Ragged.of([example[name] for example in examples])
        if name in ragged
        else torch.stack([example[name] for example in examples])
        for name in examples[0]
    }


def concatenate(parts: Sequence[Columns]) -> Columns:
    """The columns of several parts of a data set, one after another."""
    joined: Columns = {}
    for name, first in parts[0].items():
        if isinstance(first, Ragged):
            columns = [column for part in parts if isinstance(column := part[name], Ragged)]
            offsets = np.cumsum([0, *(len(column.values) for column in columns[:-1])])
            joined[name] = Ragged(
                values=torch.cat([column.values for column in columns]),
                starts=torch.cat(
                    [column.starts + int(offset) for column, offset in zip(columns, offsets, strict=True)]
                ),
                lengths=torch.cat([column.lengths for column in columns]),
            )
        else:
            joined[name] = torch.cat([column for part in parts if isinstance(column := part[name], Tensor)])
    return joined
