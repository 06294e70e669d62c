"""Randomness without state: every number is a function of a key, so nothing has to be saved or replayed.

`BatchRng` gives numbers keyed by (seed, epoch, record, name): a record gets the same ones in whatever batch, on
whatever rank, after whatever interruption. `shuffled` is a permutation that can be evaluated anywhere in it at no cost.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15


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
    """The finalizer of SplitMix64 (Steele et al. 2014), on int64 that wraps; shifts are made logical by a mask."""
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


# Up to here a permutation is made by sorting hashes: a Feistel network on few bits is visibly not uniform.
SORTED = 1 << 16


def shuffled(count: int, seed: int, *, start: int, stop: int) -> np.ndarray:
    """Positions [start, stop) of a permutation of range(count), as int64.

    For a large `count`, time and memory are those of the slice: a four-round Feistel network over the next power of
    two, walked until the value falls inside (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
    """
    if count <= SORTED:
        hashes = _hash(np.arange(count, dtype=np.uint64) * np.uint64(GOLDEN) + np.uint64(key(seed, "shuffle")))
        return np.argsort(hashes, kind="stable")[start:stop].astype(np.int64)
    bits = (count - 1).bit_length()
    round_keys = [np.uint64(key(seed, "shuffle", turn)) for turn in range(4)]
    values = _scramble(np.arange(start, stop, dtype=np.uint64), bits, round_keys)
    outside = np.flatnonzero(values >= count)
    while outside.size:
        values[outside] = _scramble(values[outside], bits, round_keys)
        outside = outside[values[outside] >= count]
    return values.astype(np.int64)


def _hash(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer, as `_mix`, on numpy's unsigned integers."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _scramble(values: np.ndarray, bits: int, round_keys: list[np.uint64]) -> np.ndarray:
    """A bijection on numbers of `bits` bits; the halves may differ by one bit, so their widths change places."""
    right_bits = bits // 2
    left_bits = bits - right_bits
    left, right = values >> np.uint64(right_bits), values & np.uint64((1 << right_bits) - 1)
    for round_key in round_keys:
        mixed = _hash(right + round_key) >> np.uint64(64 - left_bits)
        left, right = right, left ^ mixed
        left_bits, right_bits = right_bits, left_bits
    return (left << np.uint64(right_bits)) | right
