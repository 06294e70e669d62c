"""Which examples hang together, so that their scores are resampled together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sonde.contracts.records import is_missing
from sonde.data.split import codes_of

BLOCKS = "blocks"


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The group of every example, int64 (N,) from 0 up, and what a group is: a column's name, or "blocks"."""

    name: str
    codes: np.ndarray

    @property
    def count(self) -> int:
        return int(self.codes.max()) + 1 if len(self.codes) else 0

    def take(self, positions: np.ndarray) -> Groups:
        """The groups of some examples, numbered anew."""
        return Groups(name=self.name, codes=np.unique(self.codes[positions], return_inverse=True)[1].reshape(-1))


def by_column(name: str, values: np.ndarray) -> Groups:
    """Examples of one value hang together; one whose value is missing is a group of its own."""
    codes = codes_of(values)[0].copy()
    missing = np.flatnonzero(is_missing(values))
    codes[missing] = len(values) + np.arange(len(missing))
    return Groups(name=name, codes=np.unique(codes, return_inverse=True)[1].reshape(-1))


def blocks(count: int) -> Groups:
    """Neighbours in a stream hang together: blocks of N^(1/3) examples, which do not overlap (Carlstein 1986; the
    length is the order that Hall, Horowitz and Jing 1995 find best for a variance).

    >>> blocks(20).codes.tolist()
    [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6]
    """
    length = int(np.ceil(np.round(count ** (1 / 3), 9)))
    return Groups(name=BLOCKS, codes=np.arange(count) // max(1, length))
