from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from target_fakes import (
    Fake,
    FakeConfig,
    FakeInput,
    as_json,
    check_repeats,
    check_sums,
    draw,
    made,
    mean_loss,
    measured,
    restored,
)
from torch.nn import functional
from transformers import TopKLogitsWarper, TopPLogitsWarper

from sonde.base.errors import UserError
from sonde.base.rng import generator
from sonde.contracts.augment import AugmentParams
from sonde.contracts.records import Records
from sonde.contracts.specs import InputSpec, OutputSpec
from sonde.targets._sampling import choose, keep_top_k, keep_top_p
from sonde.targets.next_token import Generate, NextToken, NextTokenConfig

VOCABULARY, CONTEXT = 7, 8
TOKENS = InputSpec(layout="tokens", vocabulary=VOCABULARY, size=(CONTEXT,))
NOTHING = Records(fields={}, ids=["one", "two"])


@dataclass(frozen=True, kw_only=True)
class SizedInput(FakeInput):
    """A token input that knows the bytes of its tokens."""

    token_bytes: list[int]


class Cached(Fake):
    """The same answers as `Fake`, with a cache: the sum of what was seen, and how much that was."""

    def __init__(self):
        super().__init__(VOCABULARY, vocabulary=VOCABULARY)
        self.read = 0

    def extend(self, inputs, cache):
        tokens = inputs["given"]["tokens"]
        assert inputs["given"]["length"].tolist() == [tokens.shape[1]] * len(tokens)
        self.read += tokens.shape[1]
        total, count = cache or (torch.zeros(len(tokens), 3), 0)
        seen = self.embed(tokens).cumsum(1) + total[:, None]
        places = torch.arange(1, tokens.shape[1] + 1)[None, :, None] + count
        return self.linear(seen / places), (seen[:, -1], count + tokens.shape[1])


class Uncached(Fake):
    """A network that could have a cache, whose backbone has none."""

    def extend(self, inputs, cache):
        raise NotImplementedError("Uncached has no cache")


def plain_network():
    return Fake(VOCABULARY, vocabulary=VOCABULARY)


def target(inputs=None, **settings):
    return NextToken.fit(
        NextTokenConfig(**settings), NOTHING, inputs or {"given": FakeInput(config=FakeConfig(), offered=TOKENS)}
    )


def generating(**settings):
    return target(generate=Generate(**settings))


def test_dropped_tokens_are_predicted_as_they_were():
    whole, hidden = batch(), batch()
    given = hidden.inputs["given"]
    given["clean_tokens"], given["tokens"] = given["tokens"], torch.zeros_like(given["tokens"])
    network = plain_network()
    seen = network({"given": {"tokens": given["tokens"][:, :-1], "length": given["length"]}}).log_softmax(2)
    truth_BT = whole.inputs["given"]["tokens"][:, 1:]
    costs = -seen.gather(2, truth_BT[..., None])[..., 0]
    inside = torch.arange(1, 1 + costs.shape[1])[None] < given["length"][:, None]
    found = target().loss(network, hidden, draw(hidden))["loss"]
    torch.testing.assert_close(found, costs[inside].sum())


def batch(lengths=(5, 1, 9, 3, 7, 2, 9, 4), weights=False):
    drawn = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, VOCABULARY, (len(lengths), max(lengths)), generator=drawn)
    weight_B = torch.rand(len(lengths), generator=drawn) if weights else None
    return made({"given": {"tokens": tokens, "length": torch.tensor(lengths)}}, {}, weight_B)


def prompts(*rows):
    lengths = [len(row) for row in rows]
    tokens = torch.zeros(len(rows), max(lengths), dtype=torch.int64)
    for row, ids in enumerate(rows):
        tokens[row, : len(ids)] = torch.tensor(ids)
    return {"given": {"tokens": tokens, "length": torch.tensor(lengths)}}


def costs(network, given):
    """Every predicted token by itself, with nothing but its past."""
    found = []
    for tokens, length in zip(given.inputs["given"]["tokens"], given.inputs["given"]["length"], strict=True):
        row = []
        for place in range(1, int(length)):
            past = {"given": {"tokens": tokens[None, :place], "length": torch.tensor([place])}}
            row.append(functional.cross_entropy(network(past)[:, -1], tokens[None, place]))
        found.append(torch.stack(row).sum() if row else torch.zeros(()))
    return torch.stack(found)


def test_learns_the_vocabulary_and_the_context():
    fitted = target()
    assert (fitted.input, fitted.vocabulary, fitted.context, fitted.token_bytes) == ("given", VOCABULARY, CONTEXT, None)
    assert fitted.width == VOCABULARY
    specs = {"given": TOKENS, "beside": InputSpec(layout="vector", channels=2)}
    assert fitted.outputs(specs) == {
        "given": OutputSpec(per=("position",), width=VOCABULARY, causal=True),
        "beside": OutputSpec(per=("example",), width=VOCABULARY),
    }
    assert NextToken.fields(fitted.config) == []
    assert restored(fitted) == fitted


def test_needs_no_truth():
    fitted = target()
    assert fitted.encode({}, {}) == {}
    assert fitted.encode_many(NOTHING, {}) == ({}, {})
    assert fitted.apply_augment({}, AugmentParams()) == {}
    with pytest.raises(NotImplementedError, match="NextToken does not support mixed examples"):
        fitted.apply_augment({}, AugmentParams(mix_weight_B=torch.ones(2)))


def test_the_input_that_is_predicted():
    text, row = (
        FakeInput(config=FakeConfig(), offered=TOKENS),
        FakeInput(config=None, offered=InputSpec(layout="vector")),
    )
    assert target({"a": row, "b": text}).input == "b"
    assert target({"a": text, "b": text}, input="a").input == "a"
    with pytest.raises(UserError, match=r"target 'next-token' needs an input that offers tokens; the inputs are: a"):
        target({"a": row})
    with pytest.raises(UserError, match=r"can belong to several inputs: a, b.*choose one with target\.input"):
        target({"a": text, "b": text})


def test_loss_is_the_sum_over_predicted_tokens():
    given, network = batch(), plain_network()
    wanted = costs(network, given)
    torch.testing.assert_close(mean_loss(target(), network, given), wanted.sum() / 32)
    assert target().counts(given) == {"loss": 32}
    found = measured(target(), network, given)
    np.testing.assert_allclose(found["loss"], wanted.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert found["positions"].tolist() == [4, 0, 8, 2, 6, 1, 8, 3]


def test_texts_of_one_token_have_nothing_to_predict():
    given, network = batch((1, 1)), plain_network()
    assert target().counts(given) == {"loss": 0}
    assert target().loss(network, given, None)["loss"] == 0
    assert measured(target(), network, given)["loss"].tolist() == [0, 0]


def test_the_network_never_sees_more_than_the_context():
    given = batch((CONTEXT + 1,) * 2)
    seen = []

    class Watching(Fake):
        def forward(self, inputs, at_N=None):
            seen.append(inputs["given"]["tokens"].shape[1])
            assert inputs["given"]["length"].max() <= CONTEXT
            return super().forward(inputs, at_N)

    target().loss(Watching(VOCABULARY, vocabulary=VOCABULARY), given, None)
    assert seen == [CONTEXT]


def test_answers_are_computed_where_a_token_follows_only():
    asked = []

    class Watching(Fake):
        def forward(self, inputs, at_N=None):
            asked.append(None if at_N is None else len(at_N))
            return super().forward(inputs, at_N)

    network = Watching(VOCABULARY, vocabulary=VOCABULARY)
    target().loss(network, batch(), None)
    target().loss(network, batch((5, 5)), None)
    assert asked == [32, None]


@pytest.mark.parametrize("weights", [False, True])
def test_losses_are_sums(weights):
    check_sums(target(), plain_network(), batch(weights=weights))
    check_repeats(target(), plain_network(), batch())


def test_metrics():
    sizes = [1, 1, 2, 0, 3, 1, 1]
    known = target({"given": SizedInput(config=FakeConfig(), offered=TOKENS, token_bytes=sizes)})
    assert restored(known).token_bytes == sizes
    given, network = batch(), plain_network()
    columns = measured(known, network, given)
    nats, positions, count = columns["loss"].sum(), columns["positions"].sum(), 0
    for row, length in zip(given.inputs["given"]["tokens"], given.inputs["given"]["length"], strict=True):
        count += sum(sizes[token] for token in row[1:length].tolist())
    found = known.metrics(columns, np.ones((2, 8)))
    assert list(found) == ["loss", "perplexity", "bits_per_byte"]
    assert found["loss"].tolist() == [pytest.approx(nats / positions)] * 2
    assert found["perplexity"][0] == pytest.approx(math.exp(nats / positions))
    assert found["bits_per_byte"][0] == pytest.approx(nats / math.log(2) / count)
    assert list(target().metrics(measured(target(), network, given), np.ones((1, 8)))) == ["loss", "perplexity"]
    assert known.lower_is_better == set(found)
    only_short = known.metrics(columns, np.eye(8)[1:2])
    assert np.isnan(only_short["loss"][0])


def brute_force(network, prompt, settings):
    """Every token from a forward pass over all that it may see."""
    stream = generator(settings.seed, "generate", *prompt)
    numbers = torch.rand(settings.tokens, generator=stream)
    window, added = prompt[-CONTEXT:], []
    for number in numbers:
        logits = network(prompts(window))[:, -1]
        token = int(choose(logits, number[None], settings))
        added.append(token)
        window = [*window, token]
        if len(window) > CONTEXT:
            window = window[-CONTEXT // 2 :]
    return added


PROMPTS = ([1, 2, 3], [4], [6, 5, 4], [0, 1, 2, 3, 4, 5, 6, 0], [2, 2], [3] * 11)


@pytest.mark.parametrize("network", [Cached(), Uncached(VOCABULARY, vocabulary=VOCABULARY), plain_network()])
@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 0.0}, {"temperature": 0.7, "top_k": 3}, {"top_p": 0.8, "seed": 5}]
)
def test_generation_equals_brute_force(network, settings):
    settings = {"tokens": 14, **settings}
    found = generating(**settings).generate(network, prompts(*PROMPTS))
    with torch.no_grad():
        assert found == [brute_force(plain_network(), prompt, Generate(**settings)) for prompt in PROMPTS]


def test_a_cache_is_used():
    network = Cached()
    generating(tokens=4).generate(network, prompts([1, 2, 3]))
    assert network.read == 3 + 3


def test_alone_as_in_a_batch_and_another_seed_differs():
    network = plain_network()
    together = generating(tokens=20).predict(network, made(prompts(*PROMPTS), {}))
    assert as_json(together) == together
    assert [list(answer) for answer in together] == [["tokens"]] * len(PROMPTS)
    for prompt, answer in zip(PROMPTS, together, strict=True):
        assert generating(tokens=20).predict(network, made(prompts(prompt), {})) == [answer]
    assert generating(tokens=20, seed=1).predict(network, made(prompts(*PROMPTS), {})) != together


def test_other_inputs_go_with_their_text():
    class Biased(Fake):
        def forward(self, inputs):
            assert len(inputs["other"]["vector"]) == len(inputs["given"]["tokens"])
            return super().forward(inputs) * 0 + inputs["other"]["vector"][:, None]

    inputs = {**prompts([1], [2, 3], [4]), "other": {"vector": torch.eye(VOCABULARY)[[5, 2, 6]] * 1e4}}
    found = generating(tokens=2).generate(Biased(VOCABULARY, vocabulary=VOCABULARY), inputs)
    assert found == [[5, 5], [2, 2], [6, 6]]


def test_choice_follows_the_probabilities():
    logits = torch.tensor([0.1, 0.0, 0.4, 0.5]).log()
    numbers = (torch.arange(1000) + 0.5) / 1000
    chosen = choose(logits.expand(1000, 4), numbers, Generate())
    assert chosen.bincount(minlength=4).tolist() == [100, 0, 400, 500]
    edges = choose(logits.expand(2, 4), torch.tensor([0.0, 1 - 2**-24]), Generate())
    assert edges.tolist() == [0, 3]
    # Not even rounding picks what has no chance.
    last = choose(torch.tensor([[0.3, 0.3, 0.1, 0.0]]).log(), torch.tensor([1.0]), Generate())
    assert last.tolist() == [2]
    assert choose(logits[None] * 1e-3, torch.tensor([0.0]), Generate(temperature=0.0)).tolist() == [3]


@pytest.mark.parametrize("k", [1, 3, 50])
def test_top_k_is_that_of_transformers(k):
    logits = torch.randn(5, 11, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    assert torch.equal(keep_top_k(logits, k), TopKLogitsWarper(k)(None, logits))


@pytest.mark.parametrize("p", [1e-6, 0.3, 0.9, 1.0])
def test_top_p_is_that_of_transformers(p):
    logits = torch.randn(5, 11, generator=torch.Generator().manual_seed(0))
    wanted = logits if p == 1 else TopPLogitsWarper(p)(None, logits)
    assert torch.equal(keep_top_p(logits, p), wanted)
