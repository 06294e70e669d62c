"""Scores of sequences: entities against seqeval, on malformed tags too."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import seqeval.metrics as oracle
from metric_rows import weights
from seqeval.metrics.sequence_labeling import get_entities

from sonde import metrics
from sonde.metrics import Scheme, sequences

TYPES = ["LOC", "ORG", "X-Y"]
TAGS: dict[Scheme, list[str]] = {
    "BIO": ["O", *(f"{letter}-{name}" for letter in "BI" for name in TYPES)],
    "BIOES": ["O", *(f"{letter}-{name}" for letter in "BIES" for name in TYPES)],
}


def sentences(rng: np.random.Generator, scheme: Scheme, count: int) -> tuple[list[list[str]], list[list[str]]]:
    """Random tags, most of them malformed, and predictions that keep about two in three; one sentence is empty."""
    share_O = rng.choice([0.2, 0.6])
    tags = TAGS[scheme]
    chances = np.array([share_O, *[(1 - share_O) / (len(tags) - 1)] * (len(tags) - 1)])
    lengths = [0, *rng.integers(1, 9, count - 1)]
    true = [rng.choice(tags, length, p=chances).tolist() for length in lengths]
    predicted = [[tag if rng.random() < 0.7 else str(rng.choice(tags)) for tag in sentence] for sentence in true]
    return true, predicted


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
@pytest.mark.parametrize("seed", range(30))
def test_entities_are_those_of_seqeval(scheme: Scheme, seed: int) -> None:
    true, predicted = sentences(np.random.default_rng(seed), scheme, 40)
    for tags in true + predicted:
        assert metrics.spans(tags, scheme) == [(name, start, last + 1) for name, start, last in get_entities(tags)]


def test_every_short_sequence_is_read_as_seqeval_reads_it() -> None:
    tags = ["O", *(f"{letter}-{name}" for letter in "BIES" for name in "XY")]
    for numbers in np.ndindex(len(tags), len(tags), len(tags)):
        sequence = [tags[number] for number in numbers]
        wanted = [(name, start, last + 1) for name, start, last in get_entities(sequence)]
        assert metrics.spans(sequence, "BIOES") == wanted


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
@pytest.mark.parametrize("seed", range(15))
def test_entity_scores_are_those_of_seqeval(scheme: Scheme, seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    true, predicted = sentences(rng, scheme, 3 if seed % 5 == 0 else 25)
    counts = metrics.entity_counts(true, predicted, scheme)
    # Rows of counts: the oracle gets each sentence as often as it was drawn.
    rows = weights(rng, len(true))
    rows[1] = rng.integers(0, 4, len(true))
    found = metrics.entity_f1(counts.tp_NE, counts.predicted_NE, counts.actual_NE, rows)
    scores = {"precision": oracle.precision_score, "recall": oracle.recall_score, "f1": oracle.f1_score}
    for number, row in enumerate(rows.astype(int)):
        given = [
            [tags for tags, times in zip(side, row, strict=True) for _ in range(times)] for side in (true, predicted)
        ]
        if not any(tag != "O" for side in given for tags in side for tag in tags):
            continue
        kept = (counts.actual_NE + counts.predicted_NE)[row > 0].sum(axis=0) > 0
        for name, score in scores.items():
            for prefix, suffix, average in (("", "_R", "micro"), ("macro_", "_R", "macro"), ("", "_RE", None)):
                mine = getattr(found, prefix + name + suffix)[number]
                wanted = score(*given, average=average, zero_division=0)
                # seqeval says 0 where there is nothing to divide by, and leaves out types that do not occur.
                mine = np.nan_to_num(mine[kept] if average is None else mine)
                np.testing.assert_allclose(mine, wanted, rtol=1e-12, err_msg=f"{name} {average}")


def test_a_bootstrap_row_counts_whole_sentences() -> None:
    true = [["B-LOC", "I-LOC", "O"], ["B-ORG", "O"]]
    predicted = [["B-LOC", "O", "B-ORG"], ["B-ORG", "O"]]
    counts = metrics.entity_counts(true, predicted, "BIO")
    assert counts.types == ("LOC", "ORG")
    assert counts.tp_NE.tolist() == [[0, 0], [0, 1]]
    assert counts.predicted_NE.tolist() == [[1, 1], [0, 1]]
    assert counts.actual_NE.tolist() == [[1, 0], [0, 1]]
    assert counts.tp_NE.dtype == np.int64
    scores = metrics.entity_f1(*counts[:3], np.array([[1.0, 1.0], [0.0, 2.0], [1.0, 0.0], [0.0, 0.0]]))
    np.testing.assert_allclose(scores.precision_R, [1 / 3, 1, 0, np.nan])
    np.testing.assert_allclose(scores.recall_R, [1 / 2, 1, 0, np.nan])
    np.testing.assert_allclose(scores.f1_R, [2 / 5, 1, 0, np.nan])
    np.testing.assert_allclose(scores.f1_RE, [[0, 2 / 3], [np.nan, 1], [0, 0], [np.nan, np.nan]])
    np.testing.assert_allclose(scores.macro_f1_R, [1 / 3, 1, 0, np.nan])
    np.testing.assert_allclose(scores.recall_RE[2], [0, np.nan])
    np.testing.assert_allclose(scores.macro_recall_R[2], 0)


def test_counts_of_batches_are_rows_of_the_whole() -> None:
    true, predicted = sentences(np.random.default_rng(3), "BIOES", 20)
    whole = metrics.entity_counts(true, predicted, "BIOES", TYPES)
    parts = [metrics.entity_counts(true[at : at + 7], predicted[at : at + 7], "BIOES", TYPES) for at in range(0, 20, 7)]
    for name in ("tp_NE", "predicted_NE", "actual_NE"):
        np.testing.assert_array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))


def test_without_entities_there_is_nothing_to_score() -> None:
    counts = metrics.entity_counts([["O"], []], [["O"], []], "BIO")
    assert counts.tp_NE.shape == (2, 0)
    scores = metrics.entity_f1(*counts[:3], np.ones((3, 2)))
    assert np.isnan(scores.f1_R).all()
    assert np.isnan(scores.macro_f1_R).all()
    assert scores.f1_RE.shape == (3, 0)
    assert metrics.entity_counts([], [], "BIO", TYPES).tp_NE.shape == (0, 3)


def test_bilou_is_bioes_under_other_letters() -> None:
    for tags in sentences(np.random.default_rng(0), "BIOES", 30)[0]:
        other = [tag.replace("E-", "L-").replace("S-", "U-") for tag in tags]
        assert metrics.spans(other, "BIOES") == metrics.spans(tags, "BIOES")


def test_bare_tags_have_one_unnamed_type() -> None:
    tags = ["B", "I", "O", "I", "B"]
    assert metrics.spans(tags, "BIO") == [("_", 0, 2), ("_", 3, 4), ("_", 4, 5)]
    assert [(name, start, stop - 1) for name, start, stop in metrics.spans(tags, "BIO")] == get_entities(tags)


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        (["O", "B-PER", "I-PER"], "BIO"),
        (["I-PER", "O", "I-X"], "BIO"),
        (["B-PER"], "BIO"),
        (["O", "B-PER", "S-PER"], "BIOES"),
        (["O", "I-PER", "E-PER"], "BIOES"),
        (["O", "B-PER", "L-PER", "U-PER"], "BIOES"),
        (["B", "I", "O"], "BIO"),
        (["B", "O", "A", "AB"], None),
        (["B", "O"], None),
        (["O"], None),
        ([], None),
        (["S-wave", "O"], None),
        (["NOUN", "VERB", "INTJ", "X"], None),
        (["B-PER", "NOUN"], None),
        (["B-PER", "I_PER"], None),
        (["B-PER", ""], None),
    ],
)
def test_detect_scheme(tags: list[str], scheme: str | None) -> None:
    assert metrics.detect_scheme(tags) == scheme
    assert metrics.detect_scheme(iter(tags * 3)) == scheme


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(ValueError, match="tag 'S-LOC' is not BIO: expected O, or one of B, I with a type"):
        metrics.spans(["O", "S-LOC"], "BIO")
    with pytest.raises(ValueError, match="tag 'NOUN' is not BIOES"):
        metrics.spans(["NOUN"], "BIOES")
    with pytest.raises(ValueError, match="unknown tagging scheme 'IOB': expected one of BIO, BIOES"):
        metrics.spans(["O"], "IOB")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="differ in length"):
        metrics.entity_counts([["O"]], [["O", "O"]], "BIO")
    with pytest.raises(ValueError, match="unknown type 'LOC': expected one of ORG, PER"):
        metrics.entity_counts([["B-LOC"]], [["O"]], "BIO", ["ORG", "PER"])


def test_the_examples_run() -> None:
    assert doctest.testmod(sequences).failed == 0


def test_loss_per_unit_and_perplexity() -> None:
    loss_R = metrics.per_unit(np.array([2.0, 4.0]), np.array([1, 5]), np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 0.0]]))
    np.testing.assert_allclose(loss_R, [1.0, 2.0, np.nan])
    np.testing.assert_allclose(metrics.perplexity(np.array([0.0, np.log(7), 1e4])), [1.0, 7.0, np.inf])
