"""Each encoded example as one number, so that whole splits are compared at once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from sonde.base.hashing import GOLDEN, splitmix64
from sonde.contracts.columns import Column, Columns, Ragged

# Bytes of a column that are hashed at once.
CHUNK = 1 << 26


def fingerprints(parts: Mapping[str, Columns]) -> np.ndarray:
    """A 64-bit hash of every example, (N,) uint64: equal for equal encoded tensors, and for hardly any others."""
    total: np.ndarray | None = None
    for number, (name, columns) in enumerate(sorted(parts.items())):
        for place, (key, column) in enumerate(sorted(columns.items())):
            salt = np.uint64((GOLDEN * (1 + 1000 * number + place)) % 2**64)
            hashed_N = splitmix64(_hashed(column) + salt)
            total = hashed_N if total is None else total + hashed_N
            del key
        del name
    assert total is not None
    return total


def _hashed(column: Column) -> np.ndarray:
    if isinstance(column, Ragged):
        return _of_ragged(column)
    return _of_rows(column)


def _of_rows(values: Tensor) -> np.ndarray:
    """A hash of each row of a tensor: its bytes as 64-bit words, each times a random odd number of its place."""
    count = len(values)
    width = values[:1].numel() * values.element_size()
    if not count or not width:
        return np.zeros(count, dtype=np.uint64)
    words = -(-width // 8)
    places_W = splitmix64(np.arange(1, words + 1, dtype=np.uint64) * np.uint64(GOLDEN)) | np.uint64(1)
    found = np.empty(count, dtype=np.uint64)
    step = max(1, CHUNK // width)
    for start in range(0, count, step):
        rows = np.ascontiguousarray(values[start : start + step].reshape(-1, values[:1].numel()).numpy())
        bytes_NB = rows.view(np.uint8).reshape(len(rows), width)
        if width % 8:
            bytes_NB = np.pad(bytes_NB, ((0, 0), (0, 8 * words - width)))
        words_NW = splitmix64(np.ascontiguousarray(bytes_NB).view(np.uint64))
        found[start : start + len(rows)] = (words_NW * places_W).sum(axis=1, dtype=np.uint64)
    return splitmix64(found)


def _of_ragged(column: Ragged) -> np.ndarray:
    """A hash of each example's positions, in their order, and of their number."""
    starts, lengths = column.starts.numpy(), column.lengths.numpy()
    # The hash of a position is weighted by a power of an odd number; an example's sum is then divided by that of its
    # start, so that overlapping windows are compared too: powers of an odd number have inverses modulo 2^64.
    position_T = _of_rows(column.values)
    factor = np.full(len(position_T), GOLDEN, dtype=np.uint64)
    inverse = np.full(len(position_T), pow(GOLDEN, -1, 2**64), dtype=np.uint64)
    with np.errstate(over="ignore"):
        powers_T = np.multiply.accumulate(factor) if len(factor) else factor
        back_T = np.multiply.accumulate(inverse) if len(inverse) else inverse
        sums_T = np.concatenate([[np.uint64(0)], np.cumsum(position_T * powers_T, dtype=np.uint64)])
        whole_N = sums_T[starts + lengths] - sums_T[starts]
        place_N = np.clip(starts, 0, max(0, len(back_T) - 1))
        shifted_N = whole_N * back_T[place_N] if len(back_T) else whole_N
        return splitmix64(shifted_N + lengths.astype(np.uint64) * np.uint64(GOLDEN))
