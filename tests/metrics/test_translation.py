"""BLEU, chrF and TER are sacreBLEU's, WER and CER jiwer's, CIDEr-D that of the COCO evaluation."""

from __future__ import annotations

import random

import jiwer
import numpy as np
import pytest
import sacrebleu
from pycocoevalcap.cider.cider import Cider
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import PairedTest

from sonde import metrics

TEXT = 'a b c d e f the The , . 3.5 1,000 don\'t x-y 12-13 "q" & &amp; \u00c4\u00d6 : (z) 5, \u4e2d\u6587'
WORDS = TEXT.split(" ")


def texts(seed: int, count: int) -> tuple[list[str], list[str]]:
    """References, and answers that are these with words changed, dropped and moved."""
    rng = random.Random(seed)
    answers, references = [], []
    for _ in range(count):
        words = [rng.choice(WORDS) for _ in range(rng.randint(1, 16))]
        found = [word if rng.random() < 0.7 else rng.choice(WORDS) for word in words if rng.random() < 0.9]
        if rng.random() < 0.6 and len(found) > 3:
            cut = rng.randrange(len(found))
            found = found[cut:] + found[:cut]
        answers.append(" ".join(found))
        references.append(" ".join(words))
    return answers, references


@pytest.mark.parametrize("count", [1, 2, 3, 5, 60])
def test_corpus_scores_are_those_of_sacrebleu(count: int) -> None:
    answers, references = texts(count, count)
    ones = np.ones((1, count))
    found = metrics.bleu(metrics.bleu_statistics(answers, references), ones)[0]
    assert found == pytest.approx(sacrebleu.corpus_bleu(answers, [references]).score)
    for tokenize in ("char", "none"):
        found = metrics.bleu(metrics.bleu_statistics(answers, references, tokenize), ones)[0]
        assert found == pytest.approx(sacrebleu.corpus_bleu(answers, [references], tokenize=tokenize).score)
    found = metrics.chrf(metrics.chrf_statistics(answers, references), ones)[0]
    assert found == pytest.approx(sacrebleu.corpus_chrf(answers, [references]).score)
    found = metrics.ter(metrics.ter_statistics(answers, references), ones)[0]
    assert found == pytest.approx(sacrebleu.corpus_ter(answers, [references]).score)


def test_counts_as_weights_are_a_resample() -> None:
    answers, references = texts(7, 40)
    counts = np.random.default_rng(0).integers(0, 3, 40)
    again = [
        [text for text, times in zip(each, counts, strict=True) for _ in range(times)] for each in (answers, references)
    ]
    rows = np.stack([np.ones(40), counts])
    found = metrics.bleu(metrics.bleu_statistics(answers, references), rows)
    assert found[1] == pytest.approx(sacrebleu.corpus_bleu(again[0], [again[1]]).score)
    found = metrics.chrf(metrics.chrf_statistics(answers, references), rows)
    assert found[1] == pytest.approx(sacrebleu.corpus_chrf(again[0], [again[1]]).score)
    assert np.isnan(metrics.bleu(metrics.bleu_statistics(answers, references), np.zeros((1, 40)))[0])


def test_nothing_and_nonsense_score_nothing() -> None:
    for answers in (["", ""], ["zz", "yy zz"]):
        references = ["a b c", "d e"]
        found = metrics.bleu(metrics.bleu_statistics(answers, references), np.ones((1, 2)))[0]
        assert found == pytest.approx(sacrebleu.corpus_bleu(answers, [references]).score) == 0
        found = metrics.chrf(metrics.chrf_statistics(answers, references), np.ones((1, 2)))[0]
        assert found == pytest.approx(sacrebleu.corpus_chrf(answers, [references]).score)
        found = metrics.ter(metrics.ter_statistics(answers, references), np.ones((1, 2)))[0]
        assert found == pytest.approx(sacrebleu.corpus_ter(answers, [references]).score) == 100


def test_error_rates_and_their_parts_are_those_of_jiwer() -> None:
    answers, references = texts(3, 120)
    statistics = metrics.word_errors(answers, references)
    for row, answer, reference in zip(statistics, answers, references, strict=True):
        oracle = jiwer.process_words(reference, answer)
        assert tuple(row) == (oracle.substitutions, oracle.deletions, oracle.insertions, len(reference.split()))
    assert metrics.error_rate(statistics, np.ones((1, 120)))[0] == pytest.approx(jiwer.wer(references, answers))
    statistics = metrics.character_errors(answers, references)
    oracle = jiwer.process_characters(references, answers)
    assert tuple(statistics.sum(0)[:3]) == (oracle.substitutions, oracle.deletions, oracle.insertions)
    assert metrics.error_rate(statistics, np.ones((1, 120)))[0] == pytest.approx(oracle.cer)
    parts = metrics.error_shares(statistics, np.ones((1, 120)))
    assert sum(part[0] for part in parts.values()) == pytest.approx(oracle.cer)


def test_a_normaliser_is_chosen_and_does_what_its_name_says() -> None:
    pair = ["Hello, World!"], ["hello world"]
    rates = {
        how: metrics.error_rate(metrics.word_errors(*pair, how), np.ones((1, 1)))[0]
        for how in ("none", "lowercase", "words")
    }
    assert rates == {"none": 1.0, "lowercase": 1.0, "words": 0.0}


def test_cider_is_that_of_the_coco_evaluation() -> None:
    answers, references = texts(5, 80)
    words = [
        {n: [" ".join(metrics.caption_words(text))] for n, text in enumerate(each)} for each in (references, answers)
    ]
    mean, each = Cider().compute_score(*words)
    found = metrics.cider_d(answers, references)
    assert found == pytest.approx(each)
    assert found.mean() == pytest.approx(mean)


def test_different_answers_are_counted_once() -> None:
    codes = np.array([5, 7, 5, -3])
    found = metrics.distinct_share(codes, np.array([[1, 1, 1, 1], [2, 0, 1, 0], [0, 0, 0, 0]]))
    assert found[:2] == pytest.approx([3 / 4, 1 / 2])
    assert np.isnan(found[2])


@pytest.mark.parametrize("name", ["bleu", "chrf", "ter"])
def test_the_paired_bootstrap_is_that_of_sacrebleu(name: str) -> None:
    ours, references = texts(11, 50)
    theirs, _ = texts(12, 50)
    theirs = [answer if number % 3 else other for number, (answer, other) in enumerate(zip(ours, theirs, strict=True))]
    oracle = {"bleu": BLEU(), "chrf": CHRF(), "ter": TER()}[name]
    test = PairedTest([("theirs", theirs), ("ours", ours)], {name: oracle}, [references], test_type="bs", n_samples=200)
    _, results = test()
    (found,) = (columns for title, columns in results.items() if title != "System")
    statistics = getattr(metrics, f"{name}_statistics")
    p = metrics.paired_bootstrap(
        getattr(metrics, name), statistics(ours, references), statistics(theirs, references), resamples=200
    )
    assert p == pytest.approx(found[1].p_value, abs=1.5 / 201)
