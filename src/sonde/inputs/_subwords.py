"""What words are made of: their beginnings, their endings, and their shape.

A word that training never showed is known by these (Ratnaparkhi 1996, "A Maximum Entropy Model for Part-of-Speech
Tagging"), and the capitals that lowercasing takes away are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

# Beginnings and endings of 1 to so many characters.
LONGEST = 4
# Numbers of one word: its shape, beginnings and endings.
PARTS = 1 + 2 * LONGEST


def learn(words: Iterable[str], min_count: int) -> list[str]:
    """The subwords that at least `min_count` words have, sorted; 0 is kept for "none", so they count from 1."""
    counts: Counter[str] = Counter()
    for word, number in Counter(words).items():
        counts.update(dict.fromkeys(filter(None, subwords(word)), number))
    return sorted(part for part, number in counts.items() if number >= min_count)


def subwords(word: str) -> list[str]:
    """`PARTS` texts, "" where the word is too short for one. Digits are alike, and so are capitals and small letters.

    >>> subwords("Oslo")[:3], subwords("B2")
    (['=Aa', '^o', '^os'], ['=A0', '^b', '^b0', '', '', '0$', 'b0$', '', ''])
    """
    plain = "".join("0" if character.isdigit() else character for character in word.lower())
    lengths = range(1, LONGEST + 1)
    starts = [f"^{plain[:length]}" if length <= len(plain) else "" for length in lengths]
    ends = [f"{plain[-length:]}$" if length <= len(plain) else "" for length in lengths]
    return [f"={shape(word)}", *starts, *ends]


def shape(word: str) -> str:
    """Runs of capitals as A, of other letters as a, of digits as 0; other characters stay.

    >>> shape("McDonald-Smith"), shape("1,000")
    ('AaAa-Aa', '0,0')
    """
    kinds = [_kind(character) for character in word]
    return "".join(kind for kind, before in zip(kinds, ["", *kinds], strict=False) if kind != before)


def _kind(character: str) -> str:
    if character.isdigit():
        return "0"
    if character.isupper():
        return "A"
    return "a" if character.isalpha() else character


class Subwords:
    """From words to the numbers of their known subwords."""

    def __init__(self, known: Sequence[str]) -> None:
        self._numbers = {part: number for number, part in enumerate(known, start=1)}
        self._seen: dict[str, list[int]] = {}

    def encode(self, words: Sequence[str]) -> np.ndarray:
        """int32 (W, PARTS); 0 where a word has no such part, or one that training hardly showed."""
        rows = [self._seen.get(word) or self._number(word) for word in words]
        return np.array(rows, dtype=np.int32).reshape(-1, PARTS)

    def _number(self, word: str) -> list[int]:
        numbers = [self._numbers.get(part, 0) for part in subwords(word)]
        # A server sees new words without end.
        if len(self._seen) < 100_000:
            self._seen[word] = numbers
        return numbers
