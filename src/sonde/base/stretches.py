"""Windows of long arrays: where views lie in the arrays that they are views of, so that no window is copied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Stretches:
    """Window i is the rows `starts[i]` to before `starts[i] + lengths[i]` of all `parts` laid end to end.

    `part` (N,) is the part of each window. A part is what is needed of one array, from the first row that a window has
    to the last; windows may overlap. Windows that are no views are parts of their own.
    """

    parts: list[np.ndarray]
    part: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray


def locate(windows: Sequence[np.ndarray]) -> Stretches:
    """The stretches of some windows, each an array or a view of consecutive rows of one.

    >>> whole = np.arange(10.0)
    >>> locate([whole[2:5], whole[3:7]]).starts.tolist()
    [0, 1]
    """
    arrays: list[np.ndarray] = []
    numbers: dict[tuple[int, tuple[int, ...]], int] = {}
    count = len(windows)
    part, first, lengths = (np.zeros(count, np.int64) for _ in range(3))
    for index, window in enumerate(windows):
        owner, whole, offset = _whole(window)
        number = numbers.setdefault((id(owner), window.shape[1:]), len(arrays))
        if number == len(arrays):
            arrays.append(whole)
        part[index], first[index], lengths[index] = number, offset, len(window)
    low = np.full(len(arrays), np.iinfo(np.int64).max)
    high = np.zeros(len(arrays), np.int64)
    np.minimum.at(low, part, first)
    np.maximum.at(high, part, first + lengths)
    sizes = high - low
    starts = (np.cumsum(sizes) - sizes)[part] + first - low[part]
    parts = [array[start:stop] for array, start, stop in zip(arrays, low, high, strict=True)]
    return Stretches(parts=parts, part=part, starts=starts, lengths=lengths)


def _whole(window: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The array that owns a window's memory, that memory as rows like the window's, and the first row of the window;
    the window itself where it is no plain view of rows."""
    base = window.base
    alone = window, window, 0
    if not isinstance(base, np.ndarray) or base.dtype != window.dtype or not window.size:
        return alone
    row = window[:1].nbytes
    if not base.flags.c_contiguous or not window.flags.c_contiguous or base.nbytes % row:
        return alone
    distance = window.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    offset, rest = divmod(distance, row)
    return alone if rest else (base, base.reshape(-1, *window.shape[1:]), offset)
