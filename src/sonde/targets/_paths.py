"""From the answers of CTC per position to texts: the likeliest path, or a beam over what paths spell.

T position, V token (0: blank).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

BLANK = 0
# Tokens of a position that are less likely than this are not followed.
LEAST = 1e-4


@dataclass(frozen=True, kw_only=True)
class Spelled:
    """Tokens, the positions at which each begins and ends (exclusive), and the log probability."""

    tokens: list[int]
    spans: list[tuple[int, int]]
    log_probability: float


def best_path(log_probability_TV: np.ndarray) -> Spelled:
    """The likeliest token of every position; repeats are one, blanks are none (Graves et al. 2006)."""
    path_T = log_probability_TV.argmax(1)
    starts = np.flatnonzero(np.diff(path_T, prepend=-1))
    stops = np.append(starts[1:], len(path_T))
    kept = path_T[starts] != BLANK
    return Spelled(
        tokens=path_T[starts[kept]].tolist(),
        spans=list(zip(starts[kept].tolist(), stops[kept].tolist(), strict=True)),
        log_probability=float(log_probability_TV.max(1).sum()),
    )


def prefix_beam(log_probability_TV: np.ndarray, width: int) -> Spelled:
    """The likeliest text over all of its paths, as far as `width` beginnings tell (Graves 2012; Hannun et al. 2014).

    Where its tokens are, the best path of that text says.
    """
    empty: tuple[int, ...] = ()
    # For each beginning the log probability that its path ends in a blank, and in its last token.
    beam: dict[tuple[int, ...], tuple[float, float]] = {empty: (0.0, -np.inf)}
    for chances_V in log_probability_TV:
        following: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [-np.inf, -np.inf])
        likely = np.flatnonzero(chances_V > np.log(LEAST))
        if not len(likely):
            likely = np.array([int(chances_V.argmax())])
        for text, (blank, token) in beam.items():
            both = float(np.logaddexp(blank, token))
            for code in likely.tolist():
                chance = float(chances_V[code])
                if code == BLANK:
                    _add(following[text], 0, both + chance)
                elif text and code == text[-1]:
                    # The same once more, or a second one after a blank.
                    _add(following[text], 1, token + chance)
                    _add(following[(*text, code)], 1, blank + chance)
                else:
                    _add(following[(*text, code)], 1, both + chance)
        best = sorted(following.items(), key=lambda each: (-np.logaddexp(each[1][0], each[1][1]), each[0]))
        beam = {text: (ends[0], ends[1]) for text, ends in best[:width]}
    text, ends = next(iter(beam.items()))
    spans = align(log_probability_TV, list(text))
    return Spelled(tokens=list(text), spans=spans, log_probability=float(np.logaddexp(ends[0], ends[1])))


def _add(ends: list[float], which: int, value: float) -> None:
    ends[which] = float(np.logaddexp(ends[which], value))


def align(log_probability_TV: np.ndarray, tokens: list[int]) -> list[tuple[int, int]]:
    """Where the likeliest path of a text has each of its tokens (Viterbi); the text has to fit."""
    if not tokens:
        return []
    states = [BLANK]
    for token in tokens:
        states += [token, BLANK]
    codes = np.array(states)
    # A blank may be skipped between two different tokens.
    skips = np.zeros(len(codes), dtype=bool)
    skips[2:] = (codes[2:] != BLANK) & (codes[2:] != codes[:-2])
    score = np.full(len(codes), -np.inf)
    score[:2] = log_probability_TV[0, codes[:2]]
    back = np.zeros((len(log_probability_TV), len(codes)), np.int64)
    for place in range(1, len(log_probability_TV)):
        stay, one = score, np.append(-np.inf, score[:-1])
        two = np.where(skips, np.append([-np.inf, -np.inf], score[:-2]), -np.inf)
        choices = np.stack([stay, one, two])
        back[place] = choices.argmax(0)
        score = choices.max(0) + log_probability_TV[place, codes]
    state = len(codes) - 1 if score[-1] >= score[-2] else len(codes) - 2
    path = np.empty(len(back), np.int64)
    for place in range(len(back) - 1, -1, -1):
        path[place] = state
        state -= int(back[place, state])
    spans = []
    for number in range(len(tokens)):
        held = np.flatnonzero(path == 2 * number + 1)
        spans.append((int(held[0]), int(held[-1]) + 1))
    return spans
