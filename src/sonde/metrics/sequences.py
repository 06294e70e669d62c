"""Scores of sequences: entities in tagged sentences, loss per token, perplexity.

Shape suffixes: R row of weights, N example, E entity type, S span, P position, T distinct tag.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from sonde.metrics.classes import Tally, f1, micro_f1, precision, recall
from sonde.metrics.means import mean_of_defined, ratio

Scheme = Literal["BIO", "BIOES"]
Span = tuple[str, int, int]

# What a tag's first letter says; BILOU's Last and Unit are BIOES' End and Single.
PREFIXES: Mapping[Scheme, Mapping[str, str]] = {
    "BIO": {"B": "B", "I": "I"},
    "BIOES": {"B": "B", "I": "I", "E": "E", "S": "S", "L": "E", "U": "S"},
}
# The type of entities whose tags name none (bare B and I).
UNNAMED = "_"


def detect_scheme(tags: Iterable[str]) -> Scheme | None:
    """How these tags mark entities, or None where they are plain classes such as parts of speech.

    `tags` are all tags of a data set, in any order. They mark entities if each is "O" or a prefix, a hyphen and a type
    ("B-PER"), and some begin with B or I. Then E-, S-, L- or U- make the scheme BIOES (IOE and BILOU are read as it),
    else it is BIO. IOB1, which writes B only between two neighbours of a type, is BIO here: `spans` reads both the
    same. Bare B and I are taken for an entity of one unnamed type if both occur, with O.

    >>> detect_scheme(["O", "B-PER", "I-PER"]), detect_scheme(["O", "S-PER", "B-PER", "E-PER"])
    ('BIO', 'BIOES')
    >>> detect_scheme(["NOUN", "VERB", "O"]) is None
    True
    """
    distinct = set(tags) - {"O"}
    bare = {tag for tag in distinct if len(tag) == 1}
    if bare and not {"B", "I"} <= bare:
        return None
    if not all(tag[:1] in PREFIXES["BIOES"] and (len(tag) == 1 or tag[1] == "-") for tag in distinct):
        return None
    letters = {tag[0] for tag in distinct}
    if not letters & {"B", "I"}:
        return None
    return "BIO" if letters <= PREFIXES["BIO"].keys() else "BIOES"


def spans(tags: Sequence[str], scheme: Scheme) -> list[Span]:
    """The entities (type, start, stop) of one tagged sequence, in order; `stop` is exclusive.

    Malformed sequences are read as conlleval and seqeval's default mode read them: an entity begins at B or S, at an I
    or E that follows O, E or S, and wherever the type changes; it ends before the next one begins, at O, and after E
    or S. Raises ValueError for a tag that is not of the scheme.

    >>> spans(["B-PER", "I-PER", "O", "I-LOC", "I-ORG"], "BIO")
    [('PER', 0, 2), ('LOC', 3, 4), ('ORG', 4, 5)]
    """
    found = _find_spans([tags], scheme)
    names = [found.types[code] for code in found.type_S]
    return list(zip(names, found.start_S.tolist(), found.stop_S.tolist(), strict=True))


class EntityCounts(NamedTuple):
    """Entities per example and type, int64 (N, E): found with the right bounds and type, predicted, and there."""

    tp_NE: np.ndarray
    predicted_NE: np.ndarray
    actual_NE: np.ndarray
    types: tuple[str, ...]


def entity_counts(
    true: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    scheme: Scheme,
    types: Sequence[str] | None = None,
) -> EntityCounts:
    """Count the entities of N sentences from their true and predicted tags.

    `types` fixes the columns, so that batches can be counted apart; without it they are all types that occur, sorted.
    Raises ValueError where lengths differ, and for a tag that is not of the scheme or of no type in `types`.
    """
    lengths, predicted_lengths = [len(tags) for tags in true], [len(tags) for tags in predicted]
    if lengths != predicted_lengths:
        raise ValueError("true and predicted tags differ in length: expected one predicted tag for every true one")
    actual, answered = _find_spans(true, scheme), _find_spans(predicted, scheme)
    names = tuple(sorted({*actual.used(), *answered.used()}) if types is None else types)
    column_of = {name: column for column, name in enumerate(names)}
    actual_S, answered_S = actual.columns(column_of), answered.columns(column_of)

    # Entities of one tagging never overlap, so a position begins one at most.
    stop_P, column_P = np.full(sum(lengths) + len(lengths), -1), np.full(sum(lengths) + len(lengths), -1)
    stop_P[actual.position_S], column_P[actual.position_S] = actual.stop_S, actual_S
    at_S = answered.position_S
    right_S = (stop_P[at_S] == answered.stop_S) & (column_P[at_S] == answered_S)

    def count(example_S: np.ndarray, column_S: np.ndarray) -> np.ndarray:
        cells = np.bincount(example_S * len(names) + column_S, minlength=len(lengths) * len(names))
        return cells.reshape(len(lengths), len(names)).astype(np.int64)

    return EntityCounts(
        tp_NE=count(answered.example_S[right_S], answered_S[right_S]),
        predicted_NE=count(answered.example_S, answered_S),
        actual_NE=count(actual.example_S, actual_S),
        types=names,
    )


class EntityScores(NamedTuple):
    """Entity scores for each row of weights: of all entities together (micro), by type, and their mean (macro)."""

    precision_R: np.ndarray
    recall_R: np.ndarray
    f1_R: np.ndarray
    precision_RE: np.ndarray
    recall_RE: np.ndarray
    f1_RE: np.ndarray
    macro_precision_R: np.ndarray
    macro_recall_R: np.ndarray
    macro_f1_R: np.ndarray


def entity_f1(
    tp_NE: np.ndarray, predicted_NE: np.ndarray, actual_NE: np.ndarray, weights_RN: np.ndarray
) -> EntityScores:
    """Precision, recall and F1 of entities, from what `entity_counts` counted in each sentence.

    Precision is NaN where nothing was predicted, recall where there was nothing to find, F1 where both. The macro
    scores are as in seqeval: means over the types that a row has or predicts, what is NaN counting zero.
    """
    counts = Tally(
        hit_RK=weights_RN @ tp_NE.astype(np.float64),
        true_RK=weights_RN @ actual_NE.astype(np.float64),
        answered_RK=weights_RN @ predicted_NE.astype(np.float64),
    )
    seen_RE = counts.true_RK + counts.answered_RK > 0
    by_type = precision(counts), recall(counts), f1(counts)
    macro = [mean_of_defined(np.where(seen_RE, np.nan_to_num(score_RE), np.nan)) for score_RE in by_type]
    return EntityScores(
        ratio(counts.hit_RK.sum(axis=1), counts.answered_RK.sum(axis=1)),
        ratio(counts.hit_RK.sum(axis=1), counts.true_RK.sum(axis=1)),
        micro_f1(counts),
        *by_type,
        *macro,
    )


def tally_words(
    true: Sequence[np.ndarray], predicted: Sequence[np.ndarray], num_classes: int, weights_RN: np.ndarray
) -> Tally:
    """Count the classes of N sequences of any lengths, int64 codes in 0..K-1: a word weighs what its sequence does."""
    example_P = np.repeat(np.arange(len(true)), [len(codes) for codes in true])
    true_P, predicted_P = np.concatenate([*true]), np.concatenate([*predicted])
    right_P = true_P == predicted_P

    def counted(example_P: np.ndarray, code_P: np.ndarray) -> np.ndarray:
        # A sentence has few of all tags: each is counted once for all rows.
        cells, times = np.unique(example_P * num_classes + code_P, return_counts=True)
        example, code = np.divmod(cells, num_classes)
        return np.stack([np.bincount(code, row_N[example] * times, num_classes) for row_N in weights_RN])

    return Tally(
        hit_RK=counted(example_P[right_P], true_P[right_P]),
        true_RK=counted(example_P, true_P),
        answered_RK=counted(example_P, predicted_P),
    )


def per_unit(sums_N: np.ndarray, units_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """Sums per example over the number of things summed (positions, bytes, pixels): the loss per token, say."""
    return ratio(weights_RN @ np.asarray(sums_N, np.float64), weights_RN @ np.asarray(units_N, np.float64))


def perplexity(loss_R: np.ndarray) -> np.ndarray:
    """The number of equally likely choices that a loss in nats amounts to."""
    with np.errstate(over="ignore"):
        return np.exp(loss_R)


class _Spans(NamedTuple):
    """The entities of many sequences, in order."""

    types: tuple[str, ...]
    type_S: np.ndarray
    example_S: np.ndarray
    position_S: np.ndarray  # of the first tag, counted over all sequences with one position after each
    start_S: np.ndarray
    stop_S: np.ndarray

    def used(self) -> set[str]:
        return {self.types[code] for code in np.unique(self.type_S)}

    def columns(self, column_of: Mapping[str, int]) -> np.ndarray:
        """The column of each entity's type."""
        unknown = self.used() - column_of.keys()
        if unknown:
            raise ValueError(f"entities of unknown type {min(unknown)!r}: expected one of {', '.join(column_of)}")
        return np.array([column_of.get(name, -1) for name in self.types], np.int64)[self.type_S]


def _find_spans(sequences: Sequence[Sequence[str]], scheme: Scheme) -> _Spans:
    """All entities at once: where one ends and the next begins hangs only on a tag and the one before it."""
    code_of, codes = {"O": 0}, [0]
    for tags in sequences:
        codes.extend([code_of.setdefault(tag, len(code_of)) for tag in tags])
        codes.append(0)  # an O after each sequence ends what is still open
    code_P = np.array(codes, np.int64)
    letter_T, type_T, types = _read_tags(list(code_of), scheme)
    begins_TT, ends_TT = _boundaries(letter_T, type_T)

    begin_S = np.flatnonzero(begins_TT[code_P[:-1], code_P[1:]])
    end_S = np.flatnonzero(ends_TT[code_P[:-1], code_P[1:]])
    first_N = np.cumsum([0, *(len(tags) + 1 for tags in sequences)])
    example_S = np.searchsorted(first_N, begin_S, side="right") - 1
    offset_S = first_N[example_S]
    return _Spans(types, type_T[code_P[1:][begin_S]], example_S, begin_S, begin_S - offset_S, end_S - offset_S)


def _read_tags(tags: Sequence[str], scheme: Scheme) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Each tag's letter and the code of its type, and the types."""
    if scheme not in PREFIXES:
        raise ValueError(f"unknown tagging scheme {scheme!r}: expected one of {', '.join(PREFIXES)}")
    prefixes = PREFIXES[scheme]
    letters, codes, code_of = [], [], {}
    for tag in tags:
        if tag != "O" and (tag[:1] not in prefixes or tag[1:2] not in ("", "-")):
            raise ValueError(f"tag {tag!r} is not {scheme}: expected O, or one of {', '.join(prefixes)} with a type")
        letters.append("O" if tag == "O" else prefixes[tag[0]])
        codes.append(code_of.setdefault(tag[2:] or UNNAMED, len(code_of)))
    return np.array(letters), np.array(codes, np.int64), tuple(code_of)


def _boundaries(letter_T: np.ndarray, type_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each pair (tag before, tag): whether an entity begins at the tag, and whether one ends before it."""
    before_T1, now_1T = letter_T[:, None], letter_T[None, :]
    other_TT = type_T[:, None] != type_T[None, :]
    opens_1T = np.isin(now_1T, ["B", "S"])
    begins_TT = opens_1T | (np.isin(before_T1, ["O", "E", "S"]) | other_TT) & (now_1T != "O")
    ends_TT = np.isin(before_T1, ["E", "S"]) | (before_T1 != "O") & (opens_1T | other_TT | (now_1T == "O"))
    return begins_TT, ends_TT
