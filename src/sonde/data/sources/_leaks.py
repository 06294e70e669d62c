"""Columns that give the answer away: near copies of the target, which would not be there when it is asked for."""

from __future__ import annotations

import re

import numpy as np

from sonde.contracts.records import is_missing

_PREDICTION = re.compile(r"predict|forecast|estimated", re.I)
# From this correlation on a column repeats a number; a column that is called a prediction needs less.
_COPY, _PREDICTED = 0.995, 0.8
# A column that leaves less than this share of the errors of always guessing the commonest class gives it away.
_LEFT = 0.05
# Fewer records than this prove nothing, and more are not needed; a group of values needs so many records to count.
_ENOUGH, _SAMPLE, _PER_GROUP, _PER_NAME = 50, 10_000, 20, 4
# Shuffled targets that a column is judged beside, and ranges of a number there.
_DRAWS, _BINS = 99, 8
# Most ranges that the values of a number are put into.
_RANGES = 50


def sample(target: np.ndarray) -> np.ndarray:
    """Positions of some records that have a target: enough of them to judge its copies by."""
    there = np.flatnonzero(~is_missing(target))
    return there[np.linspace(0, len(there) - 1, min(len(there), _SAMPLE)).astype(int)]


def gives_away(name: str, values: np.ndarray, target: np.ndarray, kind: str) -> str | None:
    """Why a column looks like the target itself ("repeats the target ..."), or None."""
    if len(target) < _ENOUGH:
        return None
    if kind == "number":
        return _as_number(name, values, target)
    return _as_class(values, target) if kind == "category" else None


def _as_number(name: str, values: np.ndarray, target: np.ndarray) -> str | None:
    if values.dtype.kind not in "if":
        return None
    there = np.isfinite(values) & np.isfinite(target.astype(float))
    if there.sum() < _ENOUGH:
        return None
    ours, theirs = values[there].astype(float), target[there].astype(float)
    if ours.std() == 0 or theirs.std() == 0:
        return None
    correlation = float(np.corrcoef(ours, theirs)[0, 1])
    if abs(correlation) >= _COPY:
        return f"repeats the target (correlation {correlation:.3f})"
    ranks = float(np.corrcoef(_ranks(ours), _ranks(theirs))[0, 1])
    if abs(ranks) >= _COPY:  # its logarithm or its square
        return f"repeats the target (correlation of ranks {ranks:.3f})"
    if abs(correlation) >= _PREDICTED and _PREDICTION.search(name):
        return f"is named a prediction (correlation {correlation:.2f})"
    return None


def _ranks(values: np.ndarray) -> np.ndarray:
    """The place of each value in their order; equal ones share the middle of their places."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - counts / 2)[inverse]


def _as_class(values: np.ndarray, target: np.ndarray) -> str | None:
    """How often the commonest class of every value, or of every range of values, would be right."""
    classes = np.unique([str(value) for value in target], return_inverse=True)[1]
    groups = _groups(values)
    if groups is None:
        return None
    table = np.zeros((groups.max() + 1, classes.max() + 1), dtype=np.int64)
    np.add.at(table, (groups, classes), 1)
    # A value that only one record has proves nothing.
    right = np.where(table.sum(axis=1) > 1, table.max(axis=1), 0).sum() / len(classes)
    usual = table.sum(axis=0).max() / len(classes)
    return f"alone tells {right:.1%} of the classes" if 1 - right < _LEFT * (1 - usual) else None


def tells_of(values: np.ndarray, target: np.ndarray) -> bool:
    """Whether a column and the target are more alike than chance would have them: their mutual information, beside that
    of `_DRAWS` shuffled targets."""
    one, other = _bins(values), _bins(target)
    rng = np.random.Generator(np.random.PCG64(0))
    drawn = [_information(one, rng.permutation(other)) for _ in range(_DRAWS)]
    return _information(one, other) > max(drawn)


def _bins(values: np.ndarray) -> np.ndarray:
    """A code for every value, of numbers for a few ranges of them; a missing value is one too."""
    missing = is_missing(values)
    if values.dtype == object:
        return np.unique([str(value) for value in values], return_inverse=True)[1]
    numbers = np.nan_to_num(values.astype("datetime64[us]").astype(float) if values.dtype.kind == "M" else values)
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, _BINS + 1)[1:-1]))
    return np.where(missing, 0, np.searchsorted(edges, numbers, side="right") + 1)


def _information(one: np.ndarray, other: np.ndarray) -> float:
    """The mutual information of two columns of codes, in nats."""
    table = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(table, (one, other), 1 / len(one))
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True)
    there = table > 0
    return float((table[there] * np.log(table[there] / expected[there])).sum())


def _groups(values: np.ndarray) -> np.ndarray | None:
    """A number for every value, or for every range of values; missing ones are a group too."""
    missing = is_missing(values)
    if values.dtype.kind == "M":
        return None
    if values.dtype == object:
        names, codes = np.unique([str(value) for value in values], return_inverse=True)
        return codes if len(names) * _PER_NAME <= len(values) else None
    numbers = values.astype(float)
    finite = np.isfinite(numbers)
    if not finite.any():
        return None
    shares = np.linspace(0, 1, min(_RANGES, 1 + len(values) // _PER_GROUP))
    edges = np.unique(np.quantile(numbers[finite], shares))
    return np.where(missing, 0, np.searchsorted(edges, numbers) + 1)
