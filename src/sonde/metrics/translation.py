"""Scores of generated texts beside a reference: BLEU, chrF and TER as sacreBLEU (Post 2018) has them.

Each has statistics per example, int64 (N, S), which `*_statistics` count, and a function that makes the score of a
corpus from their weighted sums. Shape suffixes: R row of weights, N example, S statistic.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from sonde.metrics.means import ratio
from sonde.metrics.shifts import shift_edits

Tokenize = Literal["13a", "char", "none"]

BLEU_ORDER, CHRF_ORDER, CHRF_BETA = 4, 6, 2
# The rules of NIST's mteval-v13a: symbols stand alone, points and commas unless between digits, dashes after digits.
_SYMBOL = re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])")
_POINT_AFTER = re.compile(r"([^0-9])([\.,])")
_POINT_BEFORE = re.compile(r"([\.,])([^0-9])")
_DASH = re.compile(r"([0-9])(-)")
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))


def tokenize_13a(text: str) -> list[str]:
    """The tokens of a text as NIST's mteval-v13a makes them.

    >>> tokenize_13a('Ein "Test", 3.5 m.')
    ['Ein', '"', 'Test', '"', ',', '3.5', 'm', '.']
    """
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    text = _SYMBOL.sub(r" \1 ", f" {text} ")
    text = _POINT_AFTER.sub(r"\1 \2 ", text)
    text = _POINT_BEFORE.sub(r" \1 \2", text)
    return _DASH.sub(r"\1 \2 ", text).split()


_TOKENIZERS: dict[Tokenize, Callable[[str], list[str]]] = {
    "13a": tokenize_13a,
    "char": lambda text: [character for character in text if not character.isspace()],
    "none": str.split,
}


def bleu_statistics(answers: Sequence[str], references: Sequence[str], tokenize: Tokenize = "13a") -> np.ndarray:
    """Per example: tokens of the answer and of the reference, then matching n-grams and all n-grams of the answer, of
    one to four tokens each; int64 (N, 10)."""
    split = _TOKENIZERS[tokenize]
    rows = np.zeros((len(answers), 2 + 2 * BLEU_ORDER), np.int64)
    for row, answer, reference in zip(rows, answers, references, strict=True):
        ours, theirs = split(answer.rstrip()), split(reference.rstrip())
        row[:2] = len(ours), len(theirs)
        for order in range(1, BLEU_ORDER + 1):
            found, wanted = _ngrams(ours, order), _ngrams(theirs, order)
            row[1 + order] = (found & wanted).total()
            row[1 + BLEU_ORDER + order] = found.total()
    return rows


def bleu(statistics_NS: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """Corpus BLEU from 0 to 100, with one reference, exponential smoothing and brevity penalty."""
    sums_RS = weights_RN @ statistics_NS.astype(np.float64)
    ours_R, theirs_R = sums_RS[:, 0], sums_RS[:, 1]
    match_RO, total_RO = sums_RS[:, 2 : 2 + BLEU_ORDER], sums_RS[:, 2 + BLEU_ORDER :]
    # An order without a match counts for half a match, a quarter, ...: Chen and Cherry 2014, as mteval-v13a.
    halvings_RO = np.cumsum((match_RO == 0) & (total_RO > 0), axis=1)
    precision_RO = ratio(np.where(match_RO > 0, match_RO, 0.5**halvings_RO), total_RO)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_R = np.exp(np.log(np.nan_to_num(precision_RO)).mean(axis=1))
        short_R = np.exp(np.minimum(0.0, 1 - ratio(theirs_R, ours_R)))
    score_R = 100 * np.where(match_RO.any(axis=1), np.nan_to_num(short_R) * mean_R, 0.0)
    return np.where(weights_RN.sum(axis=1) > 0, score_R, np.nan)


def chrf_statistics(answers: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Per example and for one to six characters (white space left out): n-grams of the answer, of the reference, and
    matching ones; int64 (N, 18)."""
    rows = np.zeros((len(answers), CHRF_ORDER, 3), np.int64)
    for row, answer, reference in zip(rows, answers, references, strict=True):
        ours, theirs = "".join(answer.split()), "".join(reference.split())
        for order in range(1, CHRF_ORDER + 1):
            found, wanted = _ngrams(ours, order), _ngrams(theirs, order)
            # A reference too short for an order says nothing about it.
            row[order - 1] = found.total() if wanted else 0, wanted.total(), (found & wanted).total()
    return rows.reshape(len(answers), -1)


def chrf(statistics_NS: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """Corpus chrF2 (Popovic 2015) from 0 to 100: F score of character n-grams, recall counting twice."""
    sums_ROS = (weights_RN @ statistics_NS.astype(np.float64)).reshape(-1, CHRF_ORDER, 3)
    ours_RO, theirs_RO, match_RO = np.moveaxis(sums_ROS, 2, 0)
    there_RO = (ours_RO > 0) & (theirs_RO > 0)
    orders_R = there_RO.sum(axis=1)
    precision_R = ratio(np.where(there_RO, np.nan_to_num(ratio(match_RO, ours_RO)), 0).sum(axis=1), orders_R)
    recall_R = ratio(np.where(there_RO, np.nan_to_num(ratio(match_RO, theirs_RO)), 0).sum(axis=1), orders_R)
    precision_R, recall_R = np.nan_to_num(precision_R), np.nan_to_num(recall_R)
    factor = CHRF_BETA**2
    score_R = np.nan_to_num(ratio((1 + factor) * precision_R * recall_R, factor * precision_R + recall_R))
    return np.where(weights_RN.sum(axis=1) > 0, 100 * score_R, np.nan)


def ter_statistics(answers: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Per example: edits from answer to reference, shifts of phrases among them, and words of the reference;
    int64 (N, 2). Words are what white space divides, in small letters."""
    rows = np.zeros((len(answers), 2), np.int64)
    for row, answer, reference in zip(rows, answers, references, strict=True):
        words = reference.rstrip().lower().split()
        row[:] = shift_edits(answer.rstrip().lower().split(), words), len(words)
    return rows


def ter(statistics_NS: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """Corpus TER (Snover et al. 2006) in percent: edits per word of the references."""
    sums_RS = weights_RN @ statistics_NS.astype(np.float64)
    return 100 * ratio(sums_RS[:, 0], sums_RS[:, 1])


def _ngrams(tokens: Sequence[str], order: int) -> Counter[object]:
    if order == 1:
        return Counter(tokens)
    if isinstance(tokens, str):
        return Counter(tokens[at : at + order] for at in range(len(tokens) - order + 1))
    return Counter(zip(*(tokens[start:] for start in range(order)), strict=False))


def paired_bootstrap(
    score: Callable[[np.ndarray, np.ndarray], np.ndarray],
    ours_NS: np.ndarray,
    theirs_NS: np.ndarray,
    *,
    resamples: int = 1000,
    seed: int = 12345,
) -> float:
    """The p-value of a difference of two systems on the same texts (Koehn 2004), as sacreBLEU computes it: how often
    the difference of a resample, less their mean, is larger than the real one.

    `score` is `bleu`, `chrf` or `ter`; the statistics are what belongs to it.
    """
    count = len(ours_NS)
    drawn = np.random.default_rng(seed).choice(count, size=(resamples, count), replace=True)
    rows_RN = np.stack([np.bincount(row, minlength=count) for row in drawn]).astype(np.float64)
    one_1N = np.ones((1, count))
    real = abs(score(ours_NS, one_1N)[0] - score(theirs_NS, one_1N)[0])
    apart_R = np.abs(score(ours_NS, rows_RN) - score(theirs_NS, rows_RN))
    larger = int((apart_R - apart_R.mean() > real).sum())
    return (larger + 1) / (resamples + 1)
