"""CIDEr-D (Vedantam et al. 2015): how much a caption says that is rare in other captions and stands in the reference.

N example.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

ORDER, SIGMA = 4, 6.0
_WORD = re.compile(r"\w+(?:['-]\w+)*")

Vector = dict[tuple[str, ...], float]


def caption_words(text: str) -> list[str]:
    """The words of a caption: letters and digits, in small letters, without marks.

    >>> caption_words("A man's red T-shirt: #1!")
    ['a', "man's", 'red', 't-shirt', '1']
    """
    return _WORD.findall(text.lower())


def cider_d(answers: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """CIDEr-D of every answer with its one reference, float64 (N,), 0 to 10; a corpus has their mean.

    How rare an n-gram is, the references themselves say (as in the COCO evaluation).
    """
    return _cider_d(tuple(answers), tuple(references))


@lru_cache(maxsize=4)  # the bootstrap asks for the same texts again
def _cider_d(answers: tuple[str, ...], references: tuple[str, ...]) -> np.ndarray:
    wanted = [_counts(caption_words(text)) for text in references]
    frequency: Counter[tuple[str, ...]] = Counter(ngram for counts in wanted for ngram in counts)
    all_log = math.log(len(references)) if references else 0.0
    scores = np.zeros(len(answers))
    for number, (answer, theirs) in enumerate(zip(answers, wanted, strict=True)):
        ours = _counts(caption_words(answer))
        scores[number] = _similarity(ours, theirs, frequency, all_log)
    return scores


def _counts(words: list[str]) -> Counter[tuple[str, ...]]:
    return Counter(
        tuple(words[start : start + order]) for order in range(1, ORDER + 1) for start in range(len(words) - order + 1)
    )


def _similarity(
    ours: Counter[tuple[str, ...]],
    theirs: Counter[tuple[str, ...]],
    frequency: Counter[tuple[str, ...]],
    all_log: float,
) -> float:
    found, wanted = (_vectors(counts, frequency, all_log) for counts in (ours, theirs))
    # Lengths in bigrams, as the reference implementation has them.
    apart = sum(ours[each] for each in ours if len(each) == 2) - sum(theirs[each] for each in theirs if len(each) == 2)
    total = 0.0
    for one, other in zip(found, wanted, strict=True):
        shared = sum(min(value, other[ngram]) * other[ngram] for ngram, value in one.items() if ngram in other)
        size = _norm(one) * _norm(other)
        total += shared / size if size else shared
    return 10 * total / ORDER * math.exp(-(apart**2) / (2 * SIGMA**2))


def _vectors(
    counts: Counter[tuple[str, ...]], frequency: Counter[tuple[str, ...]], all_log: float
) -> tuple[Vector, ...]:
    """For each order its n-grams, weighted by how rare they are."""
    vectors: tuple[Vector, ...] = tuple({} for _ in range(ORDER))
    for ngram, count in counts.items():
        vectors[len(ngram) - 1][ngram] = count * (all_log - math.log(max(1, frequency[ngram])))
    return vectors


def _norm(vector: Vector) -> float:
    return math.sqrt(sum(value**2 for value in vector.values()))
