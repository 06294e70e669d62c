"""Randomness without state: every number is a function of a key, so nothing has to be saved or replayed.

`BatchRng` gives numbers keyed by (seed, epoch, record, name): a record gets the same ones in whatever batch, on
whatever rank, after whatever interruption. `shuffled` is a permutation that is a function of its seed alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from sonde.base.hashing import GOLDEN, splitmix64

if TYPE_CHECKING:
    from torch import Tensor


def key(*parts: int | str) -> int:
    """A 63-bit number that depends on every part and on their order."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A torch generator seeded by a key, on the CPU."""
    return torch.Generator().manual_seed(key(*parts))


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """While it lasts torch's own generators may be seeded; afterwards they are where they were."""
    with torch.random.fork_rng():
        yield


@contextlib.contextmanager
def initial_weights(seed: int) -> Iterator[None]:
    """Layers that are made meanwhile get first weights that depend on the seed alone."""
    with preserved():
        torch.manual_seed(seed)
        yield


def _signed(value: int) -> int:
    """A 64-bit pattern as the int64 that torch knows."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _mix(x: Tensor) -> Tensor:
    """`splitmix64` on the device: on int64 that wraps, with shifts made logical by a mask."""
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * _signed(0x94D049BB133111EB)
    return x ^ ((x >> 31) & ((1 << 33) - 1))


@dataclass(frozen=True, kw_only=True)
class BatchRng:
    """The randomness of one batch: `records_B` are the numbers of its records, on the device of the batch.

    `progress` is the share of the training that is done.
    """

    seed: int
    epoch: int
    records_B: Tensor
    progress: float = 1.0

    def uniform(self, name: str, *shape: int) -> Tensor:
        """Numbers in [0, 1), shape (B, *shape), float32; another `name` gives independent ones."""
        count = 1
        for size in shape:
            count *= size
        base = _mix(self.records_B * _signed(GOLDEN) + key(self.seed, self.epoch, name))
        column = torch.arange(1, count + 1, device=base.device, dtype=torch.int64)
        bits = _mix(base[:, None] + column[None, :] * _signed(GOLDEN))
        # The top 24 bits are all that a float32 in [0, 1) can hold.
        return (((bits >> 40) & 0xFFFFFF).float() / (1 << 24)).reshape(-1, *shape)

    def normal(self, name: str, *shape: int) -> Tensor:
        """Normal numbers of mean 0 and deviation 1, shape (B, *shape), float32 (Box and Muller 1958)."""
        count = math.prod(shape)
        half = (count + 1) // 2
        length, turn = self.uniform(name, 2, half).unbind(1)
        # 1 - u is in (0, 1]: its logarithm is finite.
        length = (-2 * torch.log1p(-length)).sqrt_()
        turn = turn * (2 * math.pi)
        return torch.cat([length * turn.cos(), length * turn.sin()], dim=1)[:, :count].reshape(-1, *shape)


def shuffled(count: int, seed: int) -> np.ndarray:
    """A permutation of range(count), as int64."""
    # No two hashes are alike, since each step is a bijection: any way to sort gives the same order.
    return np.argsort(
        splitmix64(np.arange(count, dtype=np.uint64) * np.uint64(GOLDEN) + np.uint64(key(seed, "shuffle")))
    )
