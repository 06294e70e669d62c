"""Tags of words: truth, loss and scores on words whatever the tokens are; entities as seqeval has them."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import seqeval.metrics as oracle
import torch
from torch import nn
from torch.nn import functional

import sonde
from sonde.base.errors import RecordError, UnseenError, UserError
from sonde.base.rng import BatchRng
from sonde.base.words import split_words
from sonde.commands.new import write_recipe
from sonde.commands.predict import predict
from sonde.contracts.columns import to_numpy
from sonde.contracts.records import Records, as_field
from sonde.contracts.task import Task
from sonde.data.sources.tagged_text import TaggedText, TaggedTextConfig
from sonde.data.store import encode
from sonde.inputs.text import Text, TextConfig
from sonde.recipe import Recipe
from sonde.targets.tags import Tags, TagsConfig

SENTENCES = [
    (["Oslo", "is", "far", "from", "New", "York"], ["B-place", "O", "O", "O", "B-place", "I-place"]),
    (["Ann", "sings"], ["B-person", "O"]),
    (["Nobody"], ["O"]),
    (["caf\u00e9s", "in", "Rome", "?"], ["O", "O", "B-place", "O"]),
]


def records(sentences=SENTENCES):
    words, tags = zip(*sentences, strict=True)
    fields = {"words": as_field(list(words)), "tags": as_field(list(tags))}
    return Records(fields=fields, ids=[f"sentence {number}" for number in range(len(words))])


def task(train=None, settings=None, **text):
    train = train or records()
    part = Text.fit(TextConfig(field="words", min_count=1, **text), train)
    return Task(inputs={"text": part}, target=Tags.fit(TagsConfig(**settings or {}), train, {"text": part}))


def batch_of(made, given=None):
    examples = encode(made, given or records()).examples
    return made.collate(examples, torch.arange(len(examples)))


class ByToken(nn.Module):
    """Answers from the token at a position alone, and knows which positions it was asked for."""

    def __init__(self, vocabulary, answers):
        super().__init__()
        self.table = nn.Parameter(torch.randn(vocabulary, answers, generator=torch.Generator().manual_seed(0)))

    def forward(self, inputs, at_N):
        return self.table[inputs["text"]["tokens"].flatten()[at_N]]


def network_for(made):
    return ByToken(made.specs["text"].vocabulary, made.target.width)


def by_hand(made, network, given=SENTENCES):
    """For every word the answer at its first token, each sentence by itself."""
    part = made.inputs["text"]
    for words, _ in given:
        encoded = part.encode({"words": words})
        yield network.table[encoded["tokens"].long()[encoded["starts"].long()]]


TOKENS = [
    {"tokens": "words"},
    {"tokens": "words", "subwords": True},
    {"tokens": "bpe", "vocabulary_size": 270},
    {"tokens": "characters"},
    {"tokens": "bytes"},
]


@pytest.mark.parametrize("text", TOKENS, ids=str)
def test_loss_and_answers_are_those_of_the_first_token_of_each_word(text):
    made = task(**text)
    network, batch = network_for(made), batch_of(made)
    logits = list(by_hand(made, network))
    codes = [torch.tensor([made.target.tags.index(tag) for tag in tags]) for _, tags in SENTENCES]
    wanted = sum(functional.cross_entropy(*pair, reduction="sum") for pair in zip(logits, codes, strict=True))
    rng = BatchRng(seed=0, epoch=0, records_B=batch.records_B)
    torch.testing.assert_close(made.target.loss(network, batch, rng)["loss"], wanted)
    assert made.target.counts(batch)["loss"] == sum(len(words) for words, _ in SENTENCES) == 13
    answers = made.predict(network, batch, records())
    for answer, each, (words, _) in zip(answers, logits, SENTENCES, strict=True):
        assert answer["words"] == words
        assert answer["tags"] == [made.target.tags[code] for code in each.argmax(1).tolist()]
        assert answer["confidence"] == pytest.approx(each.softmax(1).max(1).values.tolist())


def test_weights_count_for_all_words_of_a_sentence():
    made = task()
    network = network_for(made)
    weighted = records().with_fields(weight=np.array([0.0, 2.0, 1.0, 0.5]))
    examples = encode(made, weighted, weight="weight").examples
    batch = made.collate(examples, torch.arange(4))
    assert made.target.counts(batch)["loss"] == 2 * 2 + 1 + 0.5 * 4
    rng = BatchRng(seed=0, epoch=0, records_B=batch.records_B)
    costs = made.target.eval_outputs(network, batch)["loss"]
    torch.testing.assert_close(made.target.loss(network, batch, rng)["loss"], costs @ torch.tensor([0, 2, 1, 0.5]))


def random_tags(rng, names, count):
    return [[str(name) for name in rng.choice(names, rng.integers(1, 12))] for _ in range(count)]


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_seqeval(scheme, seed):
    rng = np.random.default_rng(seed)
    names = ["O", "O", *(f"{letter}-{label}" for letter in scheme.replace("O", "") for label in ("a", "b", "c"))]
    true = random_tags(rng, names, 30)
    predicted = [[tag if rng.random() < 0.6 else str(rng.choice(names)) for tag in tags] for tags in true]
    made = task(records([(["w"] * len(tags), tags) for tags in [*true, names]]))
    assert made.target.scheme == scheme
    assert made.target.monitor == ("entity_f1", "max")
    code = made.target.tags.index

    def codes(sentences):
        column = np.empty(len(sentences), dtype=object)
        column[:] = [np.array([code(tag) for tag in tags]) for tags in sentences]
        return column

    columns = {"true": codes(true), "predicted": codes(predicted), "loss": np.ones(30)}
    repeats = rng.integers(0, 3, 30)
    found = made.target.metrics(columns, np.stack([np.ones(30), repeats]))
    again = [
        [each for each, times in zip(one, repeats, strict=True) for _ in range(times)] for one in (true, predicted)
    ]
    for row, pair in enumerate([(true, predicted), again]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert found["accuracy"][row] == pytest.approx(oracle.accuracy_score(*pair))
            assert found["entity_f1"][row] == pytest.approx(oracle.f1_score(*pair))
            assert found["entity_precision"][row] == pytest.approx(oracle.precision_score(*pair))
            assert found["entity_recall"][row] == pytest.approx(oracle.recall_score(*pair))
            each = oracle.f1_score(*pair, average=None)
        assert [found[f"entity_f1/{name}"][row] for name in "abc"] == pytest.approx(each)


def test_scores_of_plain_tags_are_those_of_scikit_learn():
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    true, predicted = random_tags(rng, ["NOUN", "VERB", "ADJ"], 20), []
    for tags in true:
        predicted.append([str(rng.choice(["NOUN", tag])) for tag in tags])
    made = task(records([(["w"] * len(tags), tags) for tags in true]))
    assert made.target.scheme is None
    assert made.target.monitor == ("accuracy", "max")
    columns = {name: np.empty(20, dtype=object) for name in ("true", "predicted")}
    for name, sentences in (("true", true), ("predicted", predicted)):
        columns[name][:] = [np.array([made.target.tags.index(tag) for tag in tags]) for tags in sentences]
    found = made.target.metrics({**columns, "loss": np.ones(20)}, np.ones((1, 20)))
    flat = [sum(each, []) for each in (true, predicted)]
    assert found["accuracy"][0] == pytest.approx(np.mean(np.array(flat[0]) == np.array(flat[1])))
    assert found["macro_f1"][0] == pytest.approx(f1_score(*flat, average="macro"))
    assert found["f1/VERB"][0] == pytest.approx(f1_score(*flat, average=None, labels=["VERB"])[0])
    assert "entity_f1" not in found


def test_the_baseline_is_the_most_frequent_tag():
    made = task()
    truth = encode(made, records()).examples.truth
    columns = {name: to_numpy(column) for name, column in made.target.baseline(truth).items()}
    found = made.target.metrics(columns, np.ones((1, 4)))
    assert found["accuracy"][0] == pytest.approx(8 / 13)
    counts = np.array([8, 3, 1, 1])
    assert found["log_loss"][0] == pytest.approx(-(counts * np.log(counts / 13)).sum() / 13)
    assert made.target.baseline_name == "most frequent tag"


def test_what_is_evaluated_is_what_is_predicted_in_the_order_of_the_records():
    made = task(tokens="characters")
    network, batch = network_for(made), batch_of(made)
    columns = {name: to_numpy(column) for name, column in made.target.eval_outputs(network, batch).items()}
    names = np.array(made.target.tags)
    assert [names[each].tolist() for each in columns["true"]] == [tags for _, tags in SENTENCES]
    assert [names[each].tolist() for each in columns["predicted"]] == [
        answer["tags"] for answer in made.target.predict(network, batch)
    ]


def test_a_tag_that_training_never_showed_is_an_error_of_its_record():
    made = task()
    odd = records([*SENTENCES, (["Mars"], ["B-planet"]), (["Ann"], ["B-Person"])])
    encoded = encode(made, odd)
    assert not encoded.unreadable
    assert list(encoded.unseen) == ["sentence 4", "sentence 5"]
    assert (
        "the tag 'B-planet' of word 1 was never seen in training. Expected one of: B-person, B-place"
        in encoded.unseen["sentence 4"]
    )
    assert "did you mean 'B-person'?" in encoded.unseen["sentence 5"]
    assert encoded.ids == ["sentence 0", "sentence 1", "sentence 2", "sentence 3"]
    with pytest.raises(UnseenError, match="never seen"):
        made.target.encode({"tags": ["B-planet"]}, {"text": {"starts": torch.zeros(1)}})


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (["O"], r"the record has 2 words and 1 tags. Expected a tag for every word"),
        (None, r"the tags in field 'tags' are missing. Expected a list, one for each word"),
        ("O O", r"the tags in field 'tags' are 'O O'"),
        (["O", None], r"word 2 has None in place of a tag. Expected one of: B-person"),
    ],
)
def test_a_truth_that_does_not_fit_is_told(tags, message):
    made = task()
    with pytest.raises(RecordError, match=message) as found:
        made.target.encode({"tags": tags}, {"text": {"starts": torch.zeros(2)}})
    assert not isinstance(found.value, UnseenError)


def test_the_input_has_to_have_words():
    texts = Records(fields={"words": as_field(["a text", "more"]), "tags": as_field([["O"], ["O"]])}, ids=["1", "2"])
    part = Text.fit(TextConfig(field="words"), texts)
    with pytest.raises(
        UserError, match=r"'tags' needs words, and the records of input 'text' are whole texts.*hint: CoNLL"
    ):
        Tags.fit(TagsConfig(), texts, {"text": part})
    same = records([(["a", "b"], ["O", "O"])])
    with pytest.raises(UserError, match=r"field 'tags' of the training split has no tag but 'O'"):
        task(same)
    with pytest.raises(UserError, match=r"the field 'tag' does not exist"):
        task(settings={"field": "tag"})
    with pytest.raises(UserError, match=r"field 'tags' of the training split has no lists of tags"):
        task(records([(["a"], None), (["b"], "O")]))


def test_the_scheme_can_be_given():
    assert task().target.scheme == "BIO"
    assert task(settings={"scheme": "none"}).target.scheme is None
    assert task(settings={"scheme": "BIOES"}).target.scheme == "BIOES"
    plain = records([(["a", "b"], ["NOUN", "VERB"])])
    with pytest.raises(UserError, match=r"target.scheme is BIO: tag 'NOUN' is not BIO"):
        task(plain, settings={"scheme": "BIO"})


def test_entities_of_a_text_and_of_a_list_of_words():
    made = task()

    class Right(nn.Module):
        """Knows every capital."""

        def forward(self, inputs, at_N):
            known = made.inputs["text"].vocabulary.decode
            tokens = inputs["text"]["tokens"].flatten()[at_N]
            places = ["B-place" if known([each])[:1] in ("O", "N") else "O" for each in tokens.tolist()]
            return functional.one_hot(torch.tensor([made.target.tags.index(each) for each in places]), 4).float()

    text, words = "So, Oslo  isn't New.", ["Oslo", "is", "New"]
    asked = Records(fields={"words": as_field([text, words])}, ids=["text", "list"])
    columns, good, errors = made.encode_inputs(asked)
    assert (good, errors) == ([0, 1], {})
    examples = sonde.contracts.batch.Examples(inputs=columns, truth={}, count=2)
    first, second = made.predict(Right(), made.collate(examples, torch.arange(2)), asked)
    assert first["words"] == ["So", ",", "Oslo", "is", "n't", "New", "."]
    assert first["entities"] == [
        {"label": "place", "words": [2, 3], "text": "Oslo", "start": 4, "end": 8},
        {"label": "place", "words": [5, 6], "text": "New", "start": 16, "end": 19},
    ]
    assert second["entities"] == [
        {"label": "place", "words": [0, 1], "text": "Oslo"},
        {"label": "place", "words": [2, 3], "text": "New"},
    ]
    assert json.dumps(first)


@pytest.fixture(scope="module")
def places(shared, tmp_path_factory):
    """Names in the sentences of UD English-ParTUT as entities, given as JSONL with spans of characters."""
    found = TaggedText.read(shared / "ud_english_partut", TaggedTextConfig())
    folder = tmp_path_factory.mktemp("names")
    lines = []
    for words, tags in zip(found.fields["words"][:500], found.fields["tags"][:500], strict=True):
        if split_words(" ".join(words))[0] != words or len(words) > 25:
            continue
        starts = np.cumsum([0, *(len(word) + 1 for word in words[:-1])]).tolist()
        spans, text = [], " ".join(words)
        for place, tag in enumerate(tags):
            if tag == "PROPN" and place and tags[place - 1] == "PROPN":
                spans[-1][1] = starts[place] + len(words[place])
            elif tag == "PROPN":
                spans.append([starts[place], starts[place] + len(words[place]), "NAME"])
        lines.append(json.dumps({"text": text, "spans": spans}))
    (folder / "names.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder / "names.jsonl"


def test_names_as_spans_the_whole_way(places, tmp_path):
    written = write_recipe(str(places), tmp_path / "names.toml")
    assert "3 tags in the BIO scheme, of 1 label: NAME" in written.to_text()
    changes = ["training.steps=60", "training.precision=fp32", "data.split.validation=0.1", "training.checkpoint=best"]
    recipe = Recipe.read(tmp_path / "names.toml", changes=changes)
    run = sonde.fit(recipe, out=tmp_path / "run")
    assert run.scores["test"]["entity_f1"].count > 10
    assert run.scores["validation"]["entity_f1"].value > 0.3
    model = sonde.load(run.artifact)
    (answer,) = model.predict(["We met John Smith in Rome."])
    assert answer["words"] == ["We", "met", "John", "Smith", "in", "Rome", "."]
    for entity in answer["entities"]:
        assert "We met John Smith in Rome."[entity["start"] : entity["end"]] == entity["text"]
    assert model.predict([{"words": answer["words"]}])[0]["tags"] == answer["tags"]
    (tmp_path / "new.conll").write_text("Rome\tO\nsings\tO\n\nYes\tO\n", encoding="utf-8")
    answers = list(predict(model, [tmp_path / "new.conll"]))
    assert [(each["input"], each["words"]) for each in answers] == [
        ("new.conll:1", ["Rome", "sings"]),
        ("new.conll:4", ["Yes"]),
    ]
    bad = list(model.answers([["fine"], [], ["a"] * 600]))
    assert "error" not in bad[0]
    assert "has no words" in str(bad[1])
    assert "600 words, which are 600 tokens. Expected at most 512 tokens" in str(bad[2])
