"""Errors of recognised speech: word and character error rate, with what they are made of.

Statistics per example, int64 (N, 4): substitutions, deletions, insertions, and words (or characters) of the reference.
Shape suffixes: R row of weights, N example, S statistic.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from sonde.metrics.means import ratio

# none: texts as they are, but for white space. words: small letters, and no marks but apostrophes within words.
Normaliser = Literal["none", "lowercase", "words"]

_MARK = re.compile(r"[^\w\s']|_|(?<!\w)'|'(?!\w)")


def normalise(text: str, normaliser: Normaliser) -> str:
    """The text as error rates compare it; white space is one space between words.

    >>> normalise("It's  3,  Tom!", "words"), normalise(" a  B ", "none")
    ("it's 3 tom", 'a B')
    """
    if normaliser != "none":
        text = text.lower()
    if normaliser == "words":
        text = _MARK.sub(" ", text)
    return " ".join(text.split())


def word_errors(answers: Sequence[str], references: Sequence[str], normaliser: Normaliser = "none") -> np.ndarray:
    """Statistics over words."""
    pairs = zip(answers, references, strict=True)
    return _errors([(normalise(one, normaliser).split(), normalise(two, normaliser).split()) for one, two in pairs])


def character_errors(answers: Sequence[str], references: Sequence[str], normaliser: Normaliser = "none") -> np.ndarray:
    """Statistics over characters, spaces between words among them."""
    pairs = zip(answers, references, strict=True)
    return _errors([(normalise(one, normaliser), normalise(two, normaliser)) for one, two in pairs])


def error_rate(statistics_NS: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """Errors per word (or character) of the references: 0 is best, more than 1 is possible."""
    sums_RS = weights_RN @ statistics_NS.astype(np.float64)
    return ratio(sums_RS[:, :3].sum(axis=1), sums_RS[:, 3])


def error_shares(statistics_NS: np.ndarray, weights_RN: np.ndarray) -> dict[str, np.ndarray]:
    """The rate of each sort of error, which add up to the error rate."""
    sums_RS = weights_RN @ statistics_NS.astype(np.float64)
    names = ("substitutions", "deletions", "insertions")
    return {name: ratio(sums_RS[:, place], sums_RS[:, 3]) for place, name in enumerate(names)}


def _errors(pairs: Sequence[tuple[Sequence[str], Sequence[str]]]) -> np.ndarray:
    rows = np.zeros((len(pairs), 4), np.int64)
    for row, (answer, reference) in zip(rows, pairs, strict=True):
        row[:] = (*edit_counts(answer, reference), len(reference))
    return rows


def edit_counts(answer: Sequence[str], reference: Sequence[str]) -> tuple[int, int, int]:
    """Substitutions, deletions and insertions of the fewest edits that make the answer of the reference.

    >>> edit_counts("one two tree".split(), "one three".split())
    (1, 0, 1)
    """
    # What both begin and end with is no error, whatever else could be.
    start = _common(answer, reference)
    answer, reference = answer[start:], reference[start:]
    stop = _common(answer[::-1], reference[::-1])
    answer, reference = answer[: len(answer) - stop], reference[: len(reference) - stop]
    table = edit_table(answer, reference)
    row, column = len(reference), len(answer)
    substitutions = deletions = insertions = 0
    while row or column:
        here = table[row, column]
        # Of equally few edits those that jiwer (rapidfuzz) counts: a deletion, else one word for another.
        if row and here == table[row - 1, column] + 1:
            row, deletions = row - 1, deletions + 1
        elif row and column and table[row, column - 1] >= table[row - 1, column - 1]:
            row, column = row - 1, column - 1
            substitutions += int(here != table[row, column])
        else:
            column, insertions = column - 1, insertions + 1
    return substitutions, deletions, insertions


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many they have in common at the beginning."""
    for place, (mine, yours) in enumerate(zip(one, other, strict=False)):
        if mine != yours:
            return place
    return min(len(one), len(other))


def edit_table(answer: Sequence[str], reference: Sequence[str]) -> np.ndarray:
    """Edit distances of all beginnings, int64 (len(reference) + 1, len(answer) + 1)."""
    codes: dict[str, int] = {}
    ours = np.array([codes.setdefault(each, len(codes)) for each in answer], np.int64)
    theirs = [codes.setdefault(each, len(codes)) for each in reference]
    place = np.arange(len(ours) + 1)
    table = np.empty((len(theirs) + 1, len(ours) + 1), np.int64)
    table[0] = place
    for number, code in enumerate(theirs):
        above = table[number]
        row = above + 1
        np.minimum(row[1:], above[:-1] + (ours != code), out=row[1:])
        # An insertion costs one more than what stands to its left, however often.
        table[number + 1] = np.minimum.accumulate(row - place) + place
    return table
