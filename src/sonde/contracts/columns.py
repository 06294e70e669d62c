"""Encoded examples, column by column, so that no Python runs per example once a data set is encoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

if TYPE_CHECKING:
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
        """All examples as one tensor (N, longest, ...), filled up at the end.

        The values may lie on a device while `starts` and `lengths` stay with the host: nothing waits for the device.
        """
        longest = int(self.lengths.max()) if len(self) else 0
        place_T = torch.arange(longest)
        outside_BT = place_T[None, :] >= self.lengths[:, None]
        index_BT = (self.starts[:, None] + place_T[None, :]).clamp_(max=max(0, len(self.values) - 1))
        device = self.values.device
        gathered = self.values.index_select(0, index_BT.flatten().to(device, non_blocking=True))
        gathered = gathered.unflatten(0, index_BT.shape)
        outside = outside_BT.reshape(*outside_BT.shape, *[1] * (gathered.ndim - 2))
        return gathered.masked_fill_(outside.to(device, non_blocking=True), fill)

    def joined(self) -> Tensor:
        """All examples laid end to end, without padding: (sum of lengths, ...)."""
        before = self.lengths.cumsum(0) - self.lengths
        place = torch.arange(int(self.lengths.sum())) + (self.starts - before).repeat_interleave(self.lengths)
        return self.values.index_select(0, place.to(self.values.device, non_blocking=True))

    def to(self, device: torch.device) -> Ragged:
        """The same examples with their values on a device."""
        return Ragged(values=self.values.to(device), starts=self.starts, lengths=self.lengths)


Column: TypeAlias = "Tensor | Ragged"
Columns: TypeAlias = "dict[str, Column]"
Tensors: TypeAlias = "dict[str, Tensor]"


def take(columns: Columns, indices: Tensor) -> Columns:
    """The same columns for the examples at `indices`."""
    return {
        # index_select copies whole rows; column[indices] goes byte by byte, 5 to 28 times slower on pictures.
        name: column.take(indices)
        if isinstance(column, Ragged)
        else column.index_select(0, indices.to(column.device, non_blocking=True))
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


def num_bytes(columns: Columns) -> int:
    """The memory that columns take."""
    tensors = [column.values if isinstance(column, Ragged) else column for column in columns.values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


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
            joined[name] = torch.cat([column for part in parts if isinstance(column := part[name], torch.Tensor)])
    return joined


# The outputs of a whole split, as NumPy has them: a ragged column is an object array of one array per example.
EvalColumns = Mapping[str, np.ndarray]


def to_numpy(column: Column) -> np.ndarray:
    """A column as metrics take it; floats in float32 at least."""
    if isinstance(column, Ragged):
        values = _plain(column.values).numpy()
        starts, lengths = column.starts.tolist(), column.lengths.tolist()
        rows = np.empty(len(column), dtype=object)
        rows[:] = [values[start : start + length] for start, length in zip(starts, lengths, strict=True)]
        return rows
    return _plain(column).numpy()


def _plain(values: Tensor) -> Tensor:
    return (values.float() if values.is_floating_point() else values).cpu()
