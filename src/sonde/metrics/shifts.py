"""The edits between two texts of which phrases may be shifted, found as Tercom (Snover et al. 2006) looks for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

# Tercom's bounds: words of a shifted phrase, how far it is shifted, and shifts that are tried in all.
LONGEST, FARTHEST, MOST_TRIED = 10, 50, 1000

Words = tuple[str, ...]


def shift_edits(answer: Sequence[str], reference: Sequence[str]) -> int:
    """Insertions, deletions, substitutions and shifts that make the answer the reference: the fewest that a greedy
    search finds.

    >>> shift_edits("b c a d".split(), "a b c d".split())
    1
    """
    if not reference:
        return len(answer)
    words, target = tuple(answer), tuple(reference)
    shifts = tried = 0
    while True:
        gain, shifted, tried = _best_shift(words, target, tried)
        if tried >= MOST_TRIED or gain <= 0:
            return shifts + _distance(words, target)[-1][-1]
        words, shifts = shifted, shifts + 1


def _best_shift(words: Words, target: Words, tried: int) -> tuple[int, Words, int]:
    """How many edits the best shift saves, the words after it, and how many shifts have been tried by then."""
    table = _distance(words, target)
    before = table[-1][-1]
    align, target_wrong, word_wrong = _aligned(table, words, target)
    best: tuple[int, int, int, int, Words] | None = None
    for start, at, length in _matches(words, target):
        # Both the words and the place that they would go to have to be wrong, and the place lies elsewhere.
        if not any(word_wrong[start : start + length]) or not any(target_wrong[at : at + length]):
            continue
        if start <= align[at] < start + length:
            continue
        last = -1
        for place in range(at - 1, at + length):
            if place >= len(target):
                break
            goal = 0 if place < 0 else align[place] + 1
            if goal == last:
                continue
            last = goal
            shifted = _shifted(words, start, length, goal)
            # The most edits saved; then the longest phrase, then the earliest, then the earliest goal.
            candidate = (before - _distance(shifted, target)[-1][-1], length, -start, -goal, shifted)
            tried += 1
            if best is None or candidate > best:
                best = candidate
        if tried >= MOST_TRIED:
            break
    return (0, words, tried) if best is None else (best[0], best[4], tried)


def _matches(words: Words, target: Words) -> Iterator[tuple[int, int, int]]:
    """Phrases that both have: where each begins in either, and its length."""
    for start in range(len(words)):
        for at in range(len(target)):
            if abs(at - start) > FARTHEST:
                continue
            for length in range(1, LONGEST + 1):
                end, stop = start + length, at + length
                if end > len(words) or stop > len(target) or words[end - 1] != target[stop - 1]:
                    break
                yield start, at, length


def _shifted(words: Words, start: int, length: int, goal: int) -> Words:
    phrase, rest = words[start : start + length], words[:start] + words[start + length :]
    # Goals are places among all words; one within the phrase counts from its beginning.
    place = goal if goal < start else goal - length if goal > start + length else goal
    return rest[:place] + phrase + rest[place:]


def _distance(words: Words, target: Words) -> list[list[int]]:
    """Edit distances of all beginnings of the words to all beginnings of the target."""
    table = [list(range(len(target) + 1))]
    for number, word in enumerate(words, start=1):
        above, row = table[-1], [number]
        left = number
        for place, other in enumerate(target):
            cost = above[place] + (word != other)
            if above[place + 1] < cost:
                cost = above[place + 1] + 1
            if left < cost:
                cost = left + 1
            row.append(cost)
            left = cost
        table.append(row)
    return table


def _aligned(table: list[list[int]], words: Words, target: Words) -> tuple[dict[int, int], list[bool], list[bool]]:
    """The word before or at which each target word stands, and which target words and which words are wrong.

    Of equally few edits it takes those that Tercom takes: a word for a word first, then one too many.
    """
    align: dict[int, int] = {}
    target_wrong, word_wrong = [True] * len(target), [True] * len(words)
    row, column = len(words), len(target)
    while row or column:
        here = table[row][column]
        if row and column and here == table[row - 1][column - 1] + (words[row - 1] != target[column - 1]):
            row, column = row - 1, column - 1
            align[column] = row
            target_wrong[column] = word_wrong[row] = words[row] != target[column]
        elif row and here == table[row - 1][column] + 1:
            row -= 1
        else:
            column -= 1
            align[column] = row - 1
    return align, target_wrong, word_wrong
