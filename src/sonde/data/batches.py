"""Which examples make up step n: a pure function of (seed, step), so a resume starts anywhere at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from sonde.base.errors import UserError
from sonde.base.rng import key, shuffled
from sonde.contracts.batch import Batch, Examples
from sonde.contracts.columns import Ragged
from sonde.contracts.target import PairwiseTarget
from sonde.contracts.task import Task

# Examples of like length are looked for among so many batches: the fewest that pad no more than this share, as the
# same examples would meet in every epoch if each batch were taken from all of them. Tried on one epoch; others may pad
# a little more, and still less than 5 %. So many examples of that epoch are enough to tell.
NEIGHBOURS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
PADDING = 0.048
TRIED = 65_536
# Examples stay on an accelerator for the whole training if they take no more than this share of its free memory.
RESIDENT = 0.25


class Place(NamedTuple):
    """A batch, and the epoch that it belongs to."""

    batch: Batch
    epoch: int


class Batches:
    """Training batches: every epoch a new permutation, the last incomplete batch left out.

    `rank` of `world` gets its contiguous part of each global batch, so that the order does not depend on the number of
    processes. `group_by_length` puts examples of like length into a batch, found among the 8 to 256 batches (`block`)
    that are beside each other in the order: as few as keep padding to 5 %, so that an example's company changes. A
    pairwise target may want examples of one code to meet (P x K sampling); then it decides on the company.

    For an accelerator the batch of the next step is fetched while this one is computed.
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
        device: torch.device | None = None,
    ) -> None:
        self.task = task
        self.examples = examples
        self.size = min(size, len(examples))
        self.seed = seed
        together = task.target.together(examples.truth) if isinstance(task.target, PairwiseTarget) else None
        self.codes, self.of_a_code = (None, 1) if together is None else (together[0].numpy(), together[1])
        usable = len(examples)
        if self.codes is not None:
            usable = _groups_in(self.codes, self.of_a_code) * self.of_a_code
            self.size = min(self.size, usable)
            _check_meeting(usable, self.of_a_code, self.size)
        self.per_epoch = max(1, usable // self.size)
        self.lengths = _lengths(task, examples) if group_by_length and self.codes is None else None
        self.share = slice(rank * self.size // world, (rank + 1) * self.size // world)
        self.block = 1 if self.lengths is None else _neighbourhood(self.lengths, self.size, self.per_epoch, seed)
        self._epoch: int | None = None
        self._rows: torch.Tensor = torch.empty(0)
        self._ahead: _Ahead | None = None
        if device is not None and device.type == "cuda":
            if examples.num_bytes <= RESIDENT * torch.cuda.mem_get_info(device)[0]:
                self.examples = examples.to(device)
            self._ahead = _Ahead(lambda step: Place(*self._pinned(step)))

    def at(self, step: int) -> Place:
        """The batch of optimizer step `step`, counted from 0."""
        return self._make(step) if self._ahead is None else self._ahead.at(step)

    def _make(self, step: int) -> Place:
        epoch, number = divmod(step, self.per_epoch)
        if self._epoch != epoch:
            self._rows, self._epoch = torch.from_numpy(self._order(epoch)), epoch
        chosen = self._rows[number][self.share]
        return Place(self.task.collate(self.examples.take(chosen), chosen), epoch)

    def _pinned(self, step: int) -> Place:
        batch, epoch = self._make(step)
        return Place(batch.pinned(), epoch)

    def _order(self, epoch: int) -> np.ndarray:
        """The examples of an epoch's batches, int64 (batches, size)."""
        seed = key(self.seed, "order", epoch)
        if self.codes is not None:
            groups = max(1, self.size // self.of_a_code)
            return _rows(_meeting(self.codes, self.of_a_code, groups, seed), self.size, self.per_epoch)
        rows = shuffled(len(self.examples), seed)[: self.per_epoch * self.size].reshape(-1, self.size)
        if self.lengths is None:
            return rows
        blocks = [_alike(rows[at : at + self.block], self.lengths) for at in range(0, self.per_epoch, self.block)]
        seeds = [key(self.seed, "rows", epoch, number) for number in range(len(blocks))]
        return np.concatenate([block[shuffled(len(block), one)] for block, one in zip(blocks, seeds, strict=True)])


class _Ahead:
    """Makes the next step's batch in a thread while this one's is in use."""

    def __init__(self, make: Callable[[int], Place]) -> None:
        self._make = make
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="sonde batches")
        self._next: tuple[int, Future[Place]] | None = None

    def at(self, step: int) -> Place:
        if self._next is not None and self._next[0] == step:
            place = self._next[1].result()
        else:
            place = self._pool.submit(self._make, step).result()
        self._next = (step + 1, self._pool.submit(self._make, step + 1))
        return place


def _rows(order: np.ndarray, size: int, rows: int) -> np.ndarray:
    """The order as rows of `size`; one that is too short for a single row begins again."""
    return np.resize(order, (rows, size))


def _check_meeting(usable: int, of_a_code: int, size: int) -> None:
    """That batches can be made of groups of one code.

    Raises:
        UserError: no code has two examples, or groups would be torn over two batches.
    """
    if not usable:
        raise UserError(
            "every training record has a label of its own: there are no pairs to learn from",
            expected="labels that several records share",
            hint="look at target.field",
        )
    if size % of_a_code:
        raise UserError(
            f"a batch of {size} examples cannot be made of groups of {of_a_code} of one label",
            hint=f"training.batch_size = {max(1, size // of_a_code) * of_a_code}",
        )


def _groups_in(codes: np.ndarray, size: int) -> int:
    """How many groups of `size` examples of one code an epoch has."""
    _, counts = np.unique(codes, return_counts=True)
    counts = counts[counts > 1]
    return int(np.maximum(1, counts // size).sum())


def _meeting(codes: np.ndarray, size: int, per_batch: int, seed: int) -> np.ndarray:
    """An epoch's order in which `size` examples of one code always follow each other, and codes take turns: of
    `per_batch` such groups in a row no two are of one code, as long as so many codes have a turn left.

    A code with fewer examples repeats them, one with a single example has no partner and is left out; what is left
    over of a code waits for another epoch, which has another shuffle.
    """
    count = len(codes)
    order = shuffled(count, seed)
    order = order[np.argsort(codes[order], kind="stable")]
    names, starts, counts = np.unique(codes[order], return_index=True, return_counts=True)
    turns = np.where(counts > 1, np.maximum(1, counts // size), 0)
    code = np.repeat(np.arange(len(names)), turns)
    turn = np.arange(len(code)) - np.repeat(np.cumsum(turns) - turns, turns)
    members = turn[:, None] * size + np.arange(size)[None, :]
    groups = order[starts[code][:, None] + members % counts[code][:, None]]
    # Every code has its first turn before any has its second, in a shuffled order each time.
    shuffle = shuffled(len(groups), key(seed, "groups"))
    order = shuffle[np.argsort(turn[shuffle], kind="stable")]
    starts = np.flatnonzero(np.diff(turn[order])) + 1
    place = np.full(len(names), -1)
    for start, stop in pairwise([*starts, len(order)]):
        if stop - start < per_batch:
            break
        # Those at the end of the last turn come last in this one, in the same order.
        last = code[order[max(0, start - per_batch + 1) : start]]
        place[last] = np.arange(len(last))
        mine = order[start:stop]
        order[start:stop] = mine[np.argsort(place[code[mine]], kind="stable")]
        place[last] = -1
    return groups[order].reshape(-1)


def _alike(rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The same examples in rows of like length; among equals the order stays."""
    order = rows.reshape(-1)
    return order[np.argsort(lengths[order], kind="stable")].reshape(rows.shape)


def _neighbourhood(lengths: np.ndarray, size: int, per_epoch: int, seed: int) -> int:
    """How many batches exchange examples, such that an epoch is made of equal blocks of about so many batches."""
    span = per_epoch
    tried = min(per_epoch, max(TRIED // size, NEIGHBOURS[-1]))
    order = shuffled(len(lengths), key(seed, "order", 0))[: tried * size].reshape(-1, size)
    for wanted in NEIGHBOURS:
        span = math.ceil(per_epoch / math.ceil(per_epoch / wanted))
        starts = range(0, tried - span + 1, span)
        rows = np.concatenate([lengths[_alike(order[at : at + span], lengths)] for at in starts])
        if rows.sum() >= (1 - PADDING) * rows.max(1).sum() * size:
            break
    return span


def _lengths(task: Task, examples: Examples) -> np.ndarray | None:
    """The lengths that padding would bring together, (N,), or None where all examples are of one size."""
    columns = [column for name, part in examples.inputs.items() if task.inputs[name].pads for column in part.values()]
    columns += [examples.truth[name] for name in task.target.padded if name in examples.truth]
    ragged = [column.lengths for column in columns if isinstance(column, Ragged)]
    if not ragged or all(bool((lengths == lengths[0]).all()) for lengths in ragged):
        return None
    return torch.stack(ragged).sum(0).numpy()


def in_order(task: Task, examples: Examples, size: int, start: int) -> Batch:
    """The batch of up to `size` examples from `start` on, for evaluation and prediction."""
    chosen = torch.arange(start, min(start + size, len(examples)))
    return task.collate(examples.take(chosen), chosen)
