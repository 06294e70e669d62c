from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from sonde.base.errors import RecordError, UserError
from sonde.base.rng import BatchRng
from sonde.base.vocabulary import END, UNKNOWN
from sonde.contracts.augment import AugmentParams
from sonde.contracts.columns import Ragged, take
from sonde.contracts.records import Records, as_field
from sonde.contracts.specs import OutputSpec
from sonde.inputs.text import Augment, Text, TextConfig
from sonde.training.settings import TrainingConfig

CAFE = "caf\u00e9 \u2603 12!"


def records(*texts, **fields):
    columns = {"text": as_field(list(texts)), **{name: as_field(values) for name, values in fields.items()}}
    return Records(fields=columns, ids=[str(number) for number in range(len(texts))])


def text(*texts, **settings):
    return Text.fit(TextConfig(**settings), records(*(texts or ("The deep sea, the DEEP sea.", CAFE))))


def ids(part, value):
    return part.encode({"text": value})["tokens"].tolist()


def draw(*positions, epoch=0):
    return BatchRng(seed=0, epoch=epoch, records_B=torch.tensor(positions))


def restored(part):
    values, tensors = part.save()
    config = TextConfig.model_validate(json.loads(part.config.model_dump_json()))
    return Text.restore(config, json.loads(json.dumps(values)), tensors)


@pytest.fixture(scope="module")
def sms(shared):
    rows = (shared / "sms_spam" / "sms.tsv").read_text(encoding="utf-8").splitlines()[:400]
    return records(*(row.split("\t", 1)[1] for row in rows))


@pytest.fixture(scope="module")
def shakespeare(shared):
    whole = (shared / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")[:60_000]
    return records(*(whole[start : start + 7000] for start in range(0, len(whole), 7000)))


@pytest.mark.parametrize("tokens", ["bytes", "characters", "words", "bpe"])
def test_messages_alone_together_and_restored_are_the_same(sms, tokens):
    part = Text.fit(TextConfig(tokens=tokens, length=40), sms)
    columns, errors = part.encode_many(sms)
    again, _ = restored(part).encode_many(sms)
    assert not errors
    for index in range(len(sms)):
        alone = part.encode(sms[index])["tokens"]
        assert torch.equal(alone, columns["tokens"][index])
        assert torch.equal(alone, again["tokens"][index])
    tensors = part.collate(columns)
    assert tensors["tokens"].dtype == torch.int64
    assert tensors["tokens"].shape == (400, 40)
    assert int(tensors["tokens"].max()) < part.spec.vocabulary
    assert tensors["length"].tolist() == columns["tokens"].lengths.tolist()


def test_training_gives_the_same_tokenizer_again(shakespeare):
    for tokens in ("words", "bpe"):
        config = TextConfig(tokens=tokens, vocabulary_size=600)
        first, second = Text.fit(config, shakespeare), Text.fit(config, shakespeare)
        assert first.learnt == second.learnt
        assert first.spec.vocabulary == 600


@pytest.mark.parametrize("tokens", ["bytes", "characters", "bpe"])
def test_a_play_comes_back_whole_and_its_bytes_are_counted(shakespeare, tokens):
    part = Text.fit(TextConfig(tokens=tokens, window=64), shakespeare)
    columns, _ = part.encode_many(shakespeare)
    stream = part._stream(columns["tokens"])
    whole = "".join(shakespeare.fields["text"])
    assert part.decode(stream.tolist()) == whole
    assert sum(part.token_bytes[one] for one in stream.tolist()) == len(whole.encode())
    assert part.spec.size == (64,)


def test_news_of_two_fields_is_one_text(shared):
    with (shared / "ag_news_small" / "test.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:50]
    found = records(*(row["title"] for row in rows), more=[row["description"] for row in rows])
    part = Text.fit(TextConfig(also=("more",), tokens="characters", length=2000), found)
    assert part.decode(ids_of(part, found[7])) == f"{rows[7]['title']}\n{rows[7]['description']}"
    assert part.decode(part.encode({"text": "Alone", "more": None})["tokens"].tolist()) == "Alone"
    assert Text.fields(part.config) == ["text", "more"]


def ids_of(part, record):
    return part.encode(record)["tokens"].tolist()


def test_bytes_are_those_of_byt5():
    from transformers import ByT5Tokenizer

    part = text(tokens="bytes")
    assert ids(part, CAFE) == ByT5Tokenizer().encode(CAFE, add_special_tokens=False)
    assert part.spec.vocabulary == 259
    assert part.decode([0, 1, 2, 258, *ids(part, "\u2603")]) == "\ufffd\u2603"


def test_words_are_lower_case_runs_and_marks_and_digits_are_alike():
    part = text("Call 0800 now! Call 0900 now!", "Call")
    assert part.decode(ids(part, "CALL 1234 now!")) == "call 0000 now !"
    assert ids(part, "call never") == [*ids(part, "call"), UNKNOWN]
    kept = text("Call now Call now", lowercase=False)
    assert ids(kept, "call Call") == [UNKNOWN, *ids(kept, "Call")]


def test_rare_words_and_characters_are_unknown():
    assert ids(text("one two two"), "one two")[0] == UNKNOWN
    assert ids(text("one two two", min_count=1), "one two").count(UNKNOWN) == 0
    few = text("aaabbc", tokens="characters", vocabulary_size=5)
    assert ids(few, "abcz") == [3, 4, UNKNOWN, UNKNOWN]
    assert few.decode([3, 4, UNKNOWN]) == "ab"


@pytest.mark.parametrize("tokens", ["bytes", "characters", "words", "bpe"])
def test_no_text_can_spell_a_reserved_token(tokens):
    part = text("the <end> the <end> <padding>", tokens=tokens)
    assert not {0, END} & set(ids(part, "<end> <padding>"))


@pytest.mark.parametrize("tokens", ["bytes", "characters", "words", "bpe"])
def test_an_empty_text_is_one_end_token(tokens):
    part = text(tokens=tokens)
    columns, errors = part.encode_many(records("", "sea", "", ""))
    assert not errors
    assert [columns["tokens"][index].tolist() for index in range(4)] == [[END], ids(part, "sea"), [END], [END]]
    assert part.decode([END]) == ""


def test_long_texts_are_cut_and_short_ones_padded():
    part = text(*["a b c"] * 99, "a b c d e f g h", min_count=1)
    assert part.length == 3
    columns, _ = part.encode_many(records("a b c d e", "a"))
    tensors = part.collate(columns)
    assert tensors["length"].tolist() == [3, 1]
    assert tensors["tokens"].tolist() == [ids(part, "a b c"), [*ids(part, "a"), 0, 0]]
    assert text("x" * 3000, tokens="bytes").length == 512


def test_a_path_is_read_and_a_text_is_not_a_path(tmp_path):
    path = tmp_path / "deep.txt"
    path.write_bytes(b"\xef\xbb\xbfdeep sea")
    part = text(tokens="bytes", length=500)
    assert part.decode(ids(part, path)) == "deep sea"
    assert part.decode(ids(part, str(path))) == str(path)
    assert part.decode(ids(part, 12)) == "12"


def stream(window=4, count=10, **settings):
    """Windows over the stream 3, 4, 5, ... (bytes 0, 1, 2, ...), in two records."""
    letters = bytes(range(count)).decode("ascii")
    part = Text.fit(TextConfig(tokens="bytes", window=window, **settings), records(letters[:3], letters[3:]))
    columns, _ = part.encode_many(records(letters[:3], letters[3:]))
    return part, part.make_windows(columns)


def test_windows_follow_one_another_and_overlap_by_one():
    part, columns = stream()
    tensors = part.collate(columns)
    assert tensors["tokens"].tolist() == [[3, 4, 5, 6, 7], [7, 8, 9, 10, 11], [11, 12, 0, 0, 0]]
    assert tensors["length"].tolist() == [5, 5, 2]
    assert len(stream(count=9)[1]["tokens"]) == 2
    assert stream(separate=True)[0].collate(stream(separate=True)[1])["tokens"][0].tolist() == [3, 4, 5, END, 6]
    assert "next" not in stream(augment=Augment(crop=False))[1]
    single, _ = part.encode_many(records("\x00"))
    assert part.collate(part.make_windows(single))["tokens"].tolist() == [[3]]


def test_training_windows_start_anywhere_up_to_a_window_later():
    part, columns = stream(window=4, count=13)
    tensors = part.collate(columns)
    seen = set()
    for epoch in range(60):
        cropped, params = part.augment(tensors, draw(0, 1, 2, epoch=epoch))
        assert set(cropped) == {"tokens", "length"}
        assert params == AugmentParams()
        first_B = cropped["tokens"][:, 0]
        assert torch.equal(cropped["tokens"], first_B[:, None] + torch.arange(5))
        seen |= set(first_B.tolist())
    assert seen == {*range(3, 11), 11}


def test_crops_are_keyed_by_record_and_epoch(shakespeare):
    part = Text.fit(TextConfig(tokens="characters", window=32), shakespeare)
    columns = part.make_windows(part.encode_many(shakespeare)[0])
    chosen = torch.tensor([5, 900, 17, 3])
    whole, _ = part.augment(part.collate(take(columns, chosen)), draw(5, 900, 17, 3))
    again, _ = part.augment(part.collate(take(columns, chosen)), draw(5, 900, 17, 3))
    other, _ = part.augment(part.collate(take(columns, chosen)), draw(5, 900, 17, 3, epoch=1))
    part_of, _ = part.augment(part.collate(take(columns, chosen[2:])), draw(17, 3))
    assert torch.equal(whole["tokens"], again["tokens"])
    assert not torch.equal(whole["tokens"], other["tokens"])
    assert torch.equal(whole["tokens"][2:], part_of["tokens"])
    assert whole["tokens"].shape == (4, 33)


def test_a_stream_is_not_copied_and_gaps_are_closed():
    part, _ = stream()
    columns, _ = part.encode_many(records("abc", "de", "fgh"))
    assert part.make_windows(columns)["tokens"].values is columns["tokens"].values
    gaps = take(columns, torch.tensor([0, 2]))
    windows = part.make_windows(gaps)["tokens"]
    assert isinstance(windows, Ragged)
    assert part.decode(windows.values.tolist()) == "abcfgh"


def test_a_prompt_is_not_cut():
    part, _ = stream()
    columns, _ = part.encode_many(records("a prompt longer than a window"))
    assert part.collate(columns)["length"].tolist() == [29]


def test_dropped_tokens_become_unknown_and_do_not_depend_on_the_batch(sms):
    part = Text.fit(TextConfig(augment=Augment(drop=0.3)), sms)
    columns, _ = part.encode_many(sms)
    tensors = part.collate(columns)
    changed, _ = part.augment(tensors, draw(*range(400)))
    inside = torch.arange(tensors["tokens"].shape[1])[None] < tensors["length"][:, None]
    different = changed["tokens"] != tensors["tokens"]
    assert (changed["tokens"][different] == UNKNOWN).all()
    assert not different[~inside].any()
    assert torch.equal(changed["clean_tokens"], tensors["tokens"])
    known = inside & (tensors["tokens"] != UNKNOWN)
    assert 0.28 < float(different[known].float().mean()) < 0.32
    some = part.collate(take(columns, torch.tensor([7, 3])))
    alone, _ = part.augment(some, draw(7, 3))
    width = alone["tokens"].shape[1]
    assert torch.equal(alone["tokens"], changed["tokens"][[7, 3], :width])


def test_a_window_that_starts_later_can_have_dropped_tokens():
    part, columns = stream(augment=Augment(drop=0.5))
    tensors = part.collate(columns)
    places = range(len(tensors["tokens"]))
    changed, _ = part.augment(tensors, draw(*places))
    whole, _ = stream()[0].augment(tensors, draw(*places))
    assert torch.equal(changed["clean_tokens"], whole["tokens"])
    assert (changed["tokens"] == UNKNOWN).any()
    assert not (whole["tokens"] == UNKNOWN).any()


def test_an_existing_tokenizer_keeps_its_ids(tmp_path, shakespeare):
    from tokenizers import Tokenizer, models, pre_tokenizers

    theirs = Tokenizer(models.WordLevel({"[UNK]": 0, "deep": 1, "sea": 2, "[PAD]": 3}, unk_token="[UNK]"))
    theirs.pre_tokenizer = pre_tokenizers.Whitespace()
    theirs.add_special_tokens(["[UNK]", "[PAD]"])
    path = tmp_path / "tokenizer.json"
    theirs.save(str(path))
    part = Text.fit(TextConfig(tokenizer=str(path)), shakespeare)
    path.unlink()
    part = restored(part)
    columns, _ = part.encode_many(records("deep sea Deep", "", "sea"))
    assert part.collate(columns)["tokens"].tolist() == [[1, 2, 0], [0, 3, 3], [2, 3, 3]]
    assert part.spec.vocabulary == 4
    theirs.save(str(path))
    with pytest.raises(UserError, match="has no end-of-text token"):
        Text.fit(TextConfig(tokenizer=str(path), window=8, separate=True), shakespeare)
    bare = Tokenizer(models.WordLevel({"deep": 0}, unk_token="deep"))
    bare.save(str(path))
    with pytest.raises(UserError, match="has no mask token"):
        Text.fit(TextConfig(tokenizer=str(path), augment=Augment(drop=0.1)), shakespeare)


def test_a_record_without_a_readable_text_is_named(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("\u017elu\u0165ou\u010dk\u00fd".encode("cp1250"))
    part = text()
    columns, errors = part.encode_many(records("sea", None, path, "sea", 0.5, float("nan"), ["sea"], "\ud83d"))
    assert sorted(errors) == [1, 2, 5, 6, 7]
    assert len(columns["tokens"]) == 3
    assert str(errors[1]) == str(errors[5]) == "the record has no text in field 'text'."
    assert "latin.txt is not UTF-8: byte 0x9e at offset 0. Expected text in UTF-8, or one that" in str(errors[2])
    assert str(errors[6]) == "['sea'] is not a text. Expected a text, or the path of a UTF-8 text file."
    assert "the text holds half a character ('\\ud83d') at position 0" in str(errors[7])
    with pytest.raises(RecordError, match="the record has no text in field 'text'"):
        part.encode({"other": "sea"})
    with pytest.raises(RecordError, match=r"gone\.txt cannot be read: No such file"):
        part.encode({"text": Path("gone.txt")})
    assert part.encode_many(records(None))[0] == {}


def test_data_without_texts_cannot_be_fitted(tmp_path):
    with pytest.raises(UserError, match=r"none of the 2 training records has a text in field 'text'. Expected texts"):
        text(None, "")
    with pytest.raises(UserError, match=r"no field 'txt'. Expected one of: text. hint: did you mean 'text'\?"):
        text(field="txt")
    with pytest.raises(UserError, match=r"gone\.json cannot be read: .*Expected the path of a tokenizer\.json"):
        text(tokenizer=str(tmp_path / "gone.json"))
    (tmp_path / "wrong.json").write_text("{}")
    with pytest.raises(UserError, match=r"wrong\.json is not a tokenizer: .*Expected a tokenizer\.json"):
        text(tokenizer=str(tmp_path / "wrong.json"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 8, "length": 8}, "length cuts whole texts, window cuts a stream; give one of them"),
        ({"separate": True}, "separate is for streams; give window as well"),
        ({"tokens": "bpe", "vocabulary_size": 100}, "bpe needs a vocabulary_size of 259 at least"),
    ],
)
def test_settings_that_contradict_each_other(settings, message):
    with pytest.raises(ValidationError, match=message):
        TextConfig.model_validate(settings)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"words and bpe need the package tokenizers.*sonde\[text\]"):
        text()


def test_advice_is_made_of_settings():
    asked = (OutputSpec(per=("example",)), OutputSpec(per=("position",)), OutputSpec(per=("position",), causal=True))
    for output in asked:
        advice = Text.recommend(TextConfig(), output, records("sea"))
        assert advice.input
        assert advice.network
        TextConfig.model_validate(dict(advice.input))
        TrainingConfig.model_validate(dict(advice.training))
        assert bool(advice.input.get("window")) == output.causal


def test_ids_are_integers_of_half_the_size():
    columns, _ = text().encode_many(records("sea"))
    assert columns["tokens"].values.dtype == torch.int32
    assert columns["tokens"].lengths.dtype == torch.int64
    assert np.asarray(columns["tokens"].starts).tolist() == [0]
