"""Which examples make up step n: a pure function of (seed, step), so a resume starts anywhere at once."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from sonde.base.rng import key, shuffled
from sonde.columns import Ragged
from sonde.task import Batch, Examples, Task

# Positions are computed this many at a time.
BLOCK = 65536
# Examples of like length are looked for among so many batches: the fewest that pad no more than this share, as the
# same examples would meet in every epoch if each batch were taken from all of them. Tried on one epoch; others may pad
# a little more, and still less than 5 %.
NEIGHBOURS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
PADDING = 0.048


class Place(NamedTuple):
    """A batch, and the epoch that it belongs to."""

    batch: Batch
    epoch: int


class Batches:
    """Training batches: every epoch a new permutation, the last incomplete batch left out.

    `rank` of `world` gets its contiguous part of each global batch, so that the order does not depend on the number of
    processes. `group_by_length` puts examples of like length into a batch, found among the 8 to 256 batches (`block`)
    that are beside each other in the order: as few as keep padding to 5 %, so that an example's company changes.
    """

    def __init__(
        self,
        task: Task,
        examples: Examples,
        *,
        size: int,
        seed: int,
        group_by_length: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.task = task
        self.examples = examples
        self.size = min(size, len(examples))
        self.seed = seed
        self.per_epoch = max(1, len(examples) // self.size)
        self.lengths = _lengths(examples) if group_by_length else None
        self.share = slice(rank * self.size // world, (rank + 1) * self.size // world)
        self.block = min(max(1, BLOCK // self.size), self.per_epoch)
        if self.lengths is not None:
            self.block = _neighbourhood(self.lengths, self.size, self.per_epoch, seed)
        self._held: tuple[int, int] | None = None
        self._rows: torch.Tensor = torch.empty(0)

    def at(self, step: int) -> Place:
        """The batch of optimizer step `step`, counted from 0."""
        epoch, number = divmod(step, self.per_epoch)
        block, row = divmod(number, self.block)
        if self._held != (epoch, block):
            self._rows = self._order(epoch, block)
            self._held = (epoch, block)
        chosen = self._rows[row][self.share]
        return Place(self.task.collate(self.examples.take(chosen), chosen), epoch)

    def _order(self, epoch: int, block: int) -> torch.Tensor:
        """The examples of one block of batches, int64 (batches, size)."""
        start = block * self.block * self.size
        stop = min(start + self.block * self.size, self.per_epoch * self.size)
        order = shuffled(len(self.examples), key(self.seed, "order", epoch), start=start, stop=stop)
        if self.lengths is not None:
            rows = _alike(order, self.lengths, self.size)
            order = rows[shuffled(len(rows), key(self.seed, "rows", epoch, block), start=0, stop=len(rows))]
        return torch.from_numpy(order.reshape(-1, self.size))


def _alike(order: np.ndarray, lengths: np.ndarray, size: int) -> np.ndarray:
    """The same examples in rows of like length, (rows, size); among equals the order stays."""
    return order[np.argsort(lengths[order], kind="stable")].reshape(-1, size)


def _neighbourhood(lengths: np.ndarray, size: int, per_epoch: int, seed: int) -> int:
    """How many batches exchange examples, such that an epoch is made of equal blocks of about so many batches."""
    span = per_epoch
    order = shuffled(
        len(lengths), key(seed, "order", 0), start=0, stop=min(per_epoch * size, max(BLOCK, NEIGHBOURS[-1] * size))
    )
    for wanted in NEIGHBOURS:
        span = math.ceil(per_epoch / math.ceil(per_epoch / wanted))
        starts = range(0, len(order) - span * size + 1, span * size)
        rows = np.concatenate([lengths[_alike(order[at : at + span * size], lengths, size)] for at in starts])
        if rows.sum() >= (1 - PADDING) * rows.max(1).sum() * size:
            break
    return span


def _lengths(examples: Examples) -> np.ndarray | None:
    """The lengths that padding would bring together, (N,), or None where all examples are of one size."""
    columns = [column for part in examples.inputs.values() for column in part.values()]
    ragged = [column.lengths for column in columns if isinstance(column, Ragged)]
    if not ragged or all(bool((lengths == lengths[0]).all()) for lengths in ragged):
        return None
    return torch.stack(ragged).sum(0).numpy()


def in_order(task: Task, examples: Examples, size: int, start: int) -> Batch:
    """The batch of up to `size` examples from `start` on, for evaluation and prediction."""
    chosen = torch.arange(start, min(start + size, len(examples)))
    return task.collate(examples.take(chosen), chosen)
