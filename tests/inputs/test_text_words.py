"""Texts as lists of words: the first token of each, its parts, and what is refused."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError

from sonde.base.errors import UserError
from sonde.base.rng import BatchRng
from sonde.base.vocabulary import UNKNOWN
from sonde.contracts.layouts import LAYOUTS
from sonde.contracts.records import Records, as_field
from sonde.inputs.text import Augment, Text, TextConfig
from sonde.testing import check_input

SENTENCES = [["Don't", "go", "to", "New", "York", "!"], ["caf\u00e9s", "3.14"], ["go"]]


def records(*values, **fields):
    columns = {"text": as_field(list(values)), **{name: as_field(each) for name, each in fields.items()}}
    return Records(fields=columns, ids=[str(number) for number in range(len(values))])


def words(*sentences, train=SENTENCES, **settings):
    part = Text.fit(TextConfig(min_count=1, **settings), records(*train))
    columns, errors = part.encode_many(records(*(sentences or train)))
    assert not errors
    return part, columns


def restored(part):
    values, tensors = part.save()
    config = TextConfig.model_validate(json.loads(part.config.model_dump_json()))
    return Text.restore(config, json.loads(json.dumps(values)), tensors)


@pytest.mark.parametrize(
    "settings",
    [
        {"tokens": "words"},
        {"tokens": "words", "subwords": True},
        {"tokens": "bpe", "vocabulary_size": 270},
        {"tokens": "characters"},
        {"tokens": "bytes"},
    ],
    ids=str,
)
def test_each_word_knows_its_first_token(settings):
    part, columns = words(**settings)
    assert part.words
    tensors = part.collate(columns)
    assert tensors["words"].tolist() == [6, 2, 1]
    assert tensors["starts"].shape == (3, 6)
    for index, sentence in enumerate(SENTENCES):
        ids, starts = columns["tokens"][index].tolist(), columns["starts"][index].tolist()
        pieces = [part.decode(ids[start:stop]).strip() for start, stop in pairwise([*starts, len(ids)])]
        wanted = sentence if settings["tokens"] != "words" else [re.sub(r"\d", "0", word) for word in sentence]
        assert pieces == ([word.lower() for word in wanted] if "subwords" in settings else wanted)
        alone = part.encode({"text": sentence})
        again = restored(part).encode({"text": sentence})
        for name, column in columns.items():
            assert torch.equal(alone[name], column[index])
            assert torch.equal(alone[name], again[name])
    LAYOUTS["tokens"].check(part.spec, tensors, 3)


def test_a_text_alone_is_split_into_words():
    part, columns = words("Don't go!", ["Do", "n't", "go", "!"], "no  such\nword")
    assert columns["tokens"][0].tolist() == columns["tokens"][1].tolist()
    assert columns["starts"].lengths.tolist() == [4, 4, 3]
    assert part.split({"text": "Don't go!"}) == (["Do", "n't", "go", "!"], "Don't go!", [0, 2, 6, 8])
    assert part.split({"text": ["Do", "n't"]}) == (["Do", "n't"], None, [])


def test_words_keep_what_lowercasing_takes_away():
    upper, lower = ["US", "us"]
    kept, columns = words([upper, lower], train=[[upper, lower]])
    assert columns["tokens"][0][0] != columns["tokens"][0][1]
    part, columns = words([upper, lower], train=[[upper, lower]], subwords=True)
    assert columns["tokens"][0][0] == columns["tokens"][0][1]
    first, second = columns["subwords"][0]
    assert first[0] != second[0]
    assert torch.equal(first[1:], second[1:])
    assert part.spec.subwords == len(part.subwords) + 1
    assert kept.spec.subwords == 0


def test_a_new_word_is_known_by_its_parts():
    train = [["walking", "talking", "cities"]]
    part, columns = words(["Balking", "x"], train=train, subwords=True)
    assert columns["tokens"][0].tolist() == [UNKNOWN, UNKNOWN]
    names = ["", *part.subwords]
    first, second = [[names[number] for number in row] for row in columns["subwords"][0].tolist()]
    assert first == ["", "", "", "", "", "g$", "ng$", "ing$", "king$"]
    assert second == ["=a", *[""] * 8]


def test_dropped_words_keep_their_parts():
    part, columns = words(subwords=True, augment=Augment(drop=0.5))
    tensors = part.collate(columns)
    changed, _ = part.augment(tensors, BatchRng(seed=0, epoch=0, records_B=torch.arange(3)))
    assert (changed["tokens"] == UNKNOWN).any()
    for name in ("subwords", "starts", "words", "length"):
        assert torch.equal(changed[name], tensors[name])


def test_words_that_spell_a_reserved_token():
    _, columns = words(["<end>", "go", "<padding>"])
    assert columns["tokens"][0].tolist()[::2] == [UNKNOWN, UNKNOWN]


def test_long_lists_of_words_are_refused_and_never_cut():
    part, _ = words()
    assert part.length == 512
    assert words(train=[["a"] * 400])[0].length == 800
    few, _ = words(["go"], length=3)
    columns, errors = few.encode_many(records(["a", "b", "c", "d"], ["a", "b", "c"], None, [], ["a", ""], ["a", 3]))
    assert columns["starts"].lengths.tolist() == [3]
    assert str(errors[0]) == (
        "the record has 4 words, which are 4 tokens. Expected at most 3 tokens, which is the `length` of this input. "
        "hint: make a record of each sentence, or raise length and train again"
    )
    assert str(errors[2]) == str(errors[3]) == "the record has no words in field 'text'."
    assert str(errors[4]) == "word 2 of 2 is ''. Expected a text."
    assert str(errors[5]) == "word 2 of 2 is 3. Expected a text."
    assert few.encode_many(records(["a"] * 4))[0] == {}


def test_settings_that_do_not_go_with_words():
    with pytest.raises(UserError, match=r"field 'text' holds lists of words. Expected texts, for windows of a stream"):
        words(window=8)
    with pytest.raises(UserError, match=r"holds lists of words. Expected texts, for several fields as one"):
        Text.fit(TextConfig(also=("more",)), records(*SENTENCES, more=["a", "b", "c"]))
    with pytest.raises(UserError, match=r"subwords are for lists of words; field 'text' holds whole texts"):
        Text.fit(TextConfig(subwords=True), records("a text"))
    with pytest.raises(ValidationError, match="subwords are for whole words"):
        TextConfig(subwords=True, tokens="bytes")
    with pytest.raises(UserError, match=r"none of the 1 training records has words in field 'text'"):
        words(train=[[]])


def test_the_kit_holds_for_words():
    class OfWords(Text):
        __module__ = Text.__module__

        @classmethod
        def sample(cls, count, rng):
            sentences = [list(SENTENCES[index % 3]) for index in range(count)]
            return TextConfig(min_count=1, subwords=True, augment=Augment(drop=0.2)), records(*sentences)

    check_input(OfWords)


def test_a_tokenizer_of_others_starts_words_where_they_start(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    pieces = {"[UNK]": 0, "play": 1, "##ing": 2, "in": 3, "York": 4}
    theirs = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    theirs.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    theirs.save(str(tmp_path / "tokenizer.json"))
    sentences = [["playing", "in", "York"], ["in", "playing"]]
    _, columns = words(train=sentences, tokenizer=str(tmp_path / "tokenizer.json"))
    assert columns["tokens"][0].tolist() == [1, 2, 3, 4]
    assert [columns["starts"][index].tolist() for index in range(2)] == [[0, 2, 3], [0, 1]]


def test_a_language_model_does_not_take_tokens_apart():
    from sonde.targets.next_token import NextToken, NextTokenConfig

    part, _ = words(subwords=True)
    with pytest.raises(
        UserError, match=r"predicts whole tokens; input 'text' takes them apart. hint: leave subwords out"
    ):
        NextToken.fit(NextTokenConfig(), records(*SENTENCES), {"text": part})
