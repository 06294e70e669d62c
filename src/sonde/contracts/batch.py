"""Encoded examples, and batches collated from them. B example."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sonde.contracts.columns import Columns, Tensors, num_bytes, take

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Encoded records of one split, column by column; `weight` (N,) or None."""

    inputs: dict[str, Columns]
    truth: Columns
    weight: Tensor | None = None
    count: int

    def __len__(self) -> int:
        return self.count

    def take(self, indices: Tensor) -> Examples:
        return Examples(
            inputs={name: take(columns, indices) for name, columns in self.inputs.items()},
            truth=take(self.truth, indices),
            weight=None if self.weight is None else self.weight[indices.to(self.weight.device)],
            count=len(indices),
        )

    def to(self, device: torch.device) -> Examples:
        return Examples(
            inputs={name: _moved(columns, device) for name, columns in self.inputs.items()},
            truth=_moved(self.truth, device),
            weight=None if self.weight is None else self.weight.to(device),
            count=self.count,
        )

    @property
    def num_bytes(self) -> int:
        """The memory that they take."""
        return sum(map(num_bytes, [*self.inputs.values(), self.truth]))


def _moved(columns: Columns, device: torch.device) -> Columns:
    return {name: column.to(device) for name, column in columns.items()}


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Examples collated into tensors of any shape: the layout of each input and the target say which.

    `records_B` are the positions of the examples in their split: they key the randomness and name the records.
    `weight_B` (or None) says how much each example counts. `examples` are what the batch was collated from: a part of
    it is collated anew from them (`Task.split`), since nobody else knows where an example ends. Without a truth (in
    prediction) `truth` is empty.
    """

    inputs: dict[str, Tensors]
    truth: Tensors
    records_B: Tensor
    examples: Examples
    weight_B: Tensor | None = None

    def __len__(self) -> int:
        return len(self.records_B)

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch with every tensor changed."""
        return Batch(
            inputs={name: {key: change(value) for key, value in part.items()} for name, part in self.inputs.items()},
            truth={key: change(value) for key, value in self.truth.items()},
            records_B=change(self.records_B),
            examples=self.examples,
            weight_B=None if self.weight_B is None else change(self.weight_B),
        )

    def to(self, device: torch.device) -> Batch:
        if device.type == "cpu" and self.records_B.device == device:
            return self
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """In memory from which an accelerator can fetch while it computes."""
        return self.map(lambda tensor: tensor.pin_memory() if tensor.device.type == "cpu" else tensor)

    def repeated(self, times: int) -> Batch:
        """The same inputs, and the truth of every example so many times: for networks that are several in one."""
        if times == 1:
            return self
        return Batch(
            inputs=self.inputs,
            truth={name: value.repeat_interleave(times, dim=0) for name, value in self.truth.items()},
            records_B=self.records_B.repeat_interleave(times),
            examples=self.examples,
            weight_B=None if self.weight_B is None else self.weight_B.repeat_interleave(times),
        )

    def with_inputs(self, **inputs: Tensors) -> Batch:
        """The same examples with other tensors for some inputs, on their way through a network."""
        return Batch(
            inputs={**self.inputs, **inputs},
            truth=self.truth,
            records_B=self.records_B,
            examples=self.examples,
            weight_B=self.weight_B,
        )
