"""Texts for inputs: the loss by hand, caches, beams against trying everything, joint vocabularies, errors."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from torch.nn import functional

import sonde
from sonde import evaluation
from sonde.base.errors import UserError
from sonde.base.rng import BatchRng
from sonde.commands.new import write_recipe
from sonde.commands.predict import predict
from sonde.commands.prove import prove
from sonde.contracts.columns import to_numpy
from sonde.contracts.records import Records, as_field
from sonde.contracts.specs import Features
from sonde.contracts.task import Task
from sonde.data.store import encode
from sonde.inputs.text import Text, TextConfig
from sonde.networks import build
from sonde.networks.recurrent import RecurrentConfig
from sonde.networks.transformer import TransformerConfig
from sonde.recipe import Recipe
from sonde.targets.sequence import DecoderConfig, Generate, Sequence, SequenceConfig
from sonde.targets.sequence.decoder import build as build_decoder
from sonde.targets.sequence.search import generate

PAIRS = [
    ("a dog runs", "ein Hund l\u00e4uft"),
    ("two dogs", "zwei Hunde"),
    ("a man", "ein Mann"),
    ("men run", "M\u00e4nner laufen"),
]
KINDS = ("transformer", "recurrent")


def records(pairs=PAIRS):
    source, target = zip(*pairs, strict=True)
    fields = {"en": as_field(list(source)), "de": as_field(list(target))}
    return Records(fields=fields, ids=[f"line {number}" for number in range(len(pairs))])


def task(text=None, train=None, **settings):
    train = train or records()
    part = Text.fit(TextConfig(field="en", tokens="characters", **(text or {})), train)
    settings = {"tokens": "characters", "decoder": DecoderConfig(layers=2, heads=2, dropout=0.0), **settings}
    return Task(
        inputs={"text": part}, target=Sequence.fit(SequenceConfig(field="de", **settings), train, {"text": part})
    )


def network_for(made, kind="transformer"):
    torch.manual_seed(0)
    config = TransformerConfig(width=16, layers=1, heads=2) if kind == "transformer" else RecurrentConfig(width=8)
    network = build({"text": config}, made).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return network


def batch_of(made, given=None):
    examples = encode(made, given or records()).examples
    return made.preprocess(made.collate(examples, torch.arange(len(examples))))


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_every_token_given_those_before_it(kind):
    made = task(decoder=DecoderConfig(kind=kind, layers=2, heads=2, dropout=0.0))
    network, batch = network_for(made), batch_of(made)
    total, count = 0.0, 0
    for index, (_, target) in enumerate(PAIRS):
        ids, _ = made.target.vocabulary.encode([target])
        truth = torch.tensor([*ids.tolist(), made.target.end])
        one = batch_of(made, records([PAIRS[index]]))
        logits = network(one.inputs, torch.tensor([[made.target.end, *ids.tolist()]]))[0]
        total += functional.cross_entropy(logits, truth, reduction="sum", label_smoothing=0.1)
        count += len(truth)
    rng = BatchRng(seed=0, epoch=0, records_B=batch.records_B)
    torch.testing.assert_close(made.target.loss(network, batch, rng)["loss"], total, rtol=1e-4, atol=1e-4)
    assert made.target.counts(batch)["loss"] == count == sum(len(target) + 1 for _, target in PAIRS)


@pytest.mark.parametrize("kind", KINDS)
def test_token_by_token_is_as_all_at_once(kind):
    widths = {"x": 12, "facts": 5}
    torch.manual_seed(1)
    decoder = build_decoder(DecoderConfig(kind=kind, layers=2, heads=2, dropout=0.0), widths, "x", 9).eval()
    inside = torch.arange(6) < torch.tensor([6, 3])[:, None]
    features = {
        "x": Features(values=torch.randn(2, 6, 12), inside_BT=inside),
        "facts": Features(values=torch.randn(2, 5)),
    }
    shown = torch.randint(0, 9, (2, 3, 5))
    cache, steps = decoder.begin(features, 3), []
    with torch.no_grad():
        for place in range(5):
            logits, cache = decoder.extend(shown[:, :, place], cache)
            steps.append(logits)
        for text in range(3):
            whole = decoder(features, shown[:, text])
            torch.testing.assert_close(torch.stack([each[:, text] for each in steps], 1), whole, rtol=1e-4, atol=1e-5)
        weights = decoder.attention(features, shown[:, 0])
    assert weights.shape == (2, 5, 7)
    torch.testing.assert_close(weights.sum(2), torch.ones(2, 5))
    assert float(weights[1, :, 3:6].abs().max()) == 0


def log_probability(decoder, features, ids):
    """Of one text, with its end (0)."""
    logits = decoder(features, torch.tensor([[0, *ids[:-1]]]))[0]
    return float(logits.log_softmax(1).gather(1, torch.tensor(ids)[:, None]).sum())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_wide_beam_finds_the_best_of_all_texts(kind, penalty):
    torch.manual_seed(3)
    decoder = build_decoder(DecoderConfig(kind=kind, layers=1, heads=2, dropout=0.0), {"x": 8}, "x", 4).eval()
    longest = 3
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
        features = {"x": Features(values=torch.randn(1, 3, 8))}
        settings = Generate(beams=40, length_penalty=penalty)
        found = generate(decoder, features, settings, 0, longest, None)
        texts = [[*ids, 0] for size in range(longest) for ids in itertools.product((1, 2, 3), repeat=size)] + [
            list(ids) for ids in itertools.product((1, 2, 3), repeat=longest)
        ]
        scores = [log_probability(decoder, features, ids) / len(ids) ** penalty for ids in texts]
    best = texts[int(np.argmax(scores))]
    assert found.tokens[0] == [each for each in best if each]
    assert found.log_probability[0] / len(best) ** penalty == pytest.approx(max(scores), abs=1e-4)


def test_greedy_takes_the_likeliest_token_each_time_and_reports_its_probability():
    made = task()
    network, batch = network_for(made), batch_of(made)
    answers = made.predict(network, batch)
    for index, answer in enumerate(answers):
        one = batch_of(made, records([PAIRS[index]]))
        shown, total = [made.target.end], 0.0
        with torch.no_grad():
            while len(shown) <= made.target.length:
                chances = network(one.inputs, torch.tensor([shown]))[0, -1].log_softmax(0)
                shown.append(int(chances.argmax()))
                total += float(chances.max())
                if shown[-1] == made.target.end:
                    break
        ids = shown[1:]
        assert answer["text"] == made.target.vocabulary.decode(ids)
        assert answer["confidence"] == pytest.approx(np.exp(total / len(ids)), rel=1e-3)


@pytest.mark.parametrize("settings", [{"temperature": 1.0, "top_k": 5}, {"beams": 3}, {}], ids=str)
def test_an_answer_does_not_depend_on_its_company(settings):
    made = task(generate=Generate(**settings))
    network = network_for(made)
    together = made.predict(network, batch_of(made))
    for index, pair in enumerate(PAIRS):
        (alone,) = made.predict(network, batch_of(made, records([pair])))
        assert alone["text"] == together[index]["text"]
    if settings.get("temperature"):
        other = task(generate=Generate(**settings, seed=1))
        assert [each["text"] for each in other.predict(network, batch_of(other))] != [each["text"] for each in together]


def test_attention_is_told_token_by_token():
    made = task(answer_attention=True)
    for answer, (source, _) in zip(made.predict(network_for(made), batch_of(made)), PAIRS, strict=True):
        assert "".join(answer["tokens"]) == answer["text"]
        assert len(answer["attention"]) == len(answer["tokens"])
        assert all(len(row) == len(source) and sum(row) == pytest.approx(1, abs=1e-4) for row in answer["attention"])


def test_a_long_text_is_cut_without_an_end():
    made = task(length=5)
    truth = made.target.encode({"de": "ein Hund"}, {})
    assert len(truth["tokens"]) == 5
    assert made.target.end not in truth["tokens"].tolist()
    assert bytes(truth["text"].tolist()).decode() == "ein Hund"
    columns, _ = made.target.encode_many(records(), {})
    (finding,) = made.target.audit(columns, records().ids)
    assert finding.verdict == "warn"
    assert finding.text.startswith("4 of 4 texts have more than 5 tokens")
    columns, _ = task().target.encode_many(records(), {})
    assert task().target.audit(columns, records().ids)[0].verdict == "pass"


def test_a_joint_vocabulary_is_learned_from_both_languages():
    made = task(text={"learn_from": ("de",)}, joint=True)
    assert made.target.vocabulary.save() == made.inputs["text"].vocabulary.save()
    assert "\u00e4" in made.target.vocabulary.known
    assert "\u00e4" not in task().inputs["text"].vocabulary.known
    restored = Sequence.restore(made.target.config, *made.target.save())
    assert restored.vocabulary.decode(made.target.vocabulary.encode(["ein Mann"])[0].tolist()) == "ein Mann"


def test_scores_are_of_the_texts_as_they_are_written_and_say_how():
    made = task(metrics=("bleu", "chrf", "ter", "wer", "cer", "cider_d", "exact_match"), normaliser="words")
    columns = {name: to_numpy(column) for name, column in made.target._columns(["a b", "C!"], ["a b", "c"]).items()}
    columns |= {"loss": np.array([2.0, 1.0]), "tokens": np.array([2, 1])}
    found = made.target.metrics(columns, np.ones((1, 2)))
    assert found["exact_match"][0] == 1.0
    assert found["wer"][0] == 0.0
    assert found["loss"][0] == 1.0
    assert found["different"][0] == 1.0
    assert made.target.signatures["bleu"] == "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp"
    assert made.target.signatures["wer"].endswith("normaliser:words")
    assert made.target.monitor == ("bleu", "max")
    assert task(metrics=("wer", "bleu")).target.monitor == ("wer", "min")


def test_a_bleu_of_nothing_is_no_share_of_all():
    """The exact interval of a share that is 0 would say "up to 0.6", which on BLEU's scale is nearly nothing."""
    made = task(metrics=("bleu", "exact_match"))
    answers, truths = ["x"] * 4, ["a b c d e"] * 4
    columns = {name: to_numpy(column) for name, column in made.target._columns(answers, truths).items()}
    columns |= {"loss": np.ones(4), "tokens": np.ones(4)}
    found = evaluation.scores(made, columns, seed=0)
    assert (found["bleu"].value, found["bleu"].high) == (0.0, 0.0)
    assert found["exact_match"].high == pytest.approx(1 - 0.025 ** (1 / 4))


def test_one_answer_for_everything_is_told():
    made = task()
    columns = made.target._columns(["same"] * 60, [f"text {number}" for number in range(60)])
    (warning,) = made.target.warnings({name: to_numpy(column) for name, column in columns.items()})
    assert "60 answers for the validation split are only 1 different texts, where the truths are 60" in warning
    columns = made.target._columns([f"other {number}" for number in range(60)], ["text"] * 60)
    assert made.target.warnings({name: to_numpy(column) for name, column in columns.items()}) == []


@pytest.mark.parametrize(
    ("settings", "fields", "message"),
    [
        ({"field": "fr"}, {}, "the field 'fr' does not exist. Expected one of: de, en"),
        ({}, {"de": np.arange(4)}, 'was read as numbers.* hint: data.texts = ."de"'),
        ({}, {"de": as_field(["x"] * 4)}, "all 4 training records have the same text in field 'de'"),
        ({}, {"de": as_field([None, "", " ", ""])}, "none of the 4 training records has a text in field 'de'"),
        ({"input": "picture"}, {}, "target.input: the input 'picture' does not exist"),
    ],
)
def test_what_cannot_be_learned_is_told(settings, fields, message):
    train = records().with_fields(**fields)
    part = Text.fit(TextConfig(field="en"), train)
    with pytest.raises(UserError, match=message):
        Sequence.fit(SequenceConfig(**{"field": "de", **settings}), train, {"text": part})


def test_a_joint_vocabulary_has_to_be_one_to_write_in():
    part = Text.fit(TextConfig(field="en", tokens="words", min_count=1), records())
    with pytest.raises(UserError, match=r'loses the spaces between words\. hint: inputs\.text\.tokens = "bpe"'):
        Sequence.fit(SequenceConfig(field="de", joint=True), records(), {"text": part})


def test_beams_and_temperature_exclude_each_other():
    with pytest.raises(ValueError, match="beams look for the likeliest answer, a temperature draws one"):
        Generate(beams=4, temperature=1.0)


def test_from_parallel_files_to_translations(tmp_path):
    """new -> fit -> predict -> prove, as the recipe is written."""
    rng = np.random.default_rng(0)
    words = {"dog": "Hund", "cat": "Katze", "sea": "See", "deep": "tief", "red": "rot", "big": "gro\u00df"}
    every = [list(each) for size in (1, 2, 3) for each in itertools.product(words, repeat=size)]
    lines_left = [every[place] for place in rng.permutation(len(every))]
    for split, count in (("train", 96), ("val", 16), ("test", 16)):
        chosen, lines_left = lines_left[:count], lines_left[count:]
        for language, lines in (("en", chosen), ("de", [[words[word] for word in line] for line in chosen])):
            text = "".join(" ".join(line) + "\n" for line in lines)
            (tmp_path / f"{split}.{language}").write_text(text, encoding="utf-8")
    made = write_recipe(str(tmp_path), tmp_path / "recipe.toml")
    assert "sequence (from en" in made.to_text()
    changes = [
        "training.steps=150",
        "training.batch_size=32",
        "network.layers=1",
        "network.width=32",
        "network.dropout=0",
    ]
    changes += ["target.decoder.layers=1", "inputs.text.augment.drop=0", "training.evaluate_every=150"]
    run = sonde.fit(Recipe.read(tmp_path / "recipe.toml", changes=changes), out=tmp_path / "run")
    scores = run.scores["test"]
    assert scores["chrf"].value > scores["chrf"].baseline + 30
    assert scores["bleu"].signature == "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp"
    assert json.loads((tmp_path / "run/scores.json").read_text())["test"]["bleu"]["signature"]
    (tmp_path / "ask.txt").write_text("red dog\nbig sea\n", encoding="utf-8")
    answers = list(predict(sonde.load(run.artifact), [tmp_path / "ask.txt"]))
    assert [answer["input"] for answer in answers] == ["ask.txt:1", "ask.txt:2"]
    assert all(answer["text"] for answer in answers)
    assert not prove(tmp_path / "run").failed
