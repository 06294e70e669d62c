"""A task: batches from examples and back, micro-batches collated anew, what happens before the network."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from loop_fakes import TwoTerms, Vectors, gradients, network_for, plan_for, state_for, two_terms

from sonde.base.rng import BatchRng
from sonde.contracts.augment import AugmentParams
from sonde.contracts.columns import take, to_numpy
from sonde.contracts.records import Records, as_field
from sonde.contracts.task import Task
from sonde.data.store import encode
from sonde.inputs.text import Text, TextConfig
from sonde.targets.category import Category, CategoryConfig

WORDS = [
    "deep sea",
    "a",
    "sound the depth of the sea",
    "line",
    "line and lead",
    "the lead line sinks",
    "sea",
    "a b c d",
]


@pytest.fixture(scope="module")
def texts():
    """A task whose examples differ in length, and its examples with weights."""
    labels = as_field([str(index % 2) for index in range(len(WORDS))])
    fields = {
        "text": as_field(WORDS),
        "label": labels,
        "weight": as_field([1.0 + index for index in range(len(WORDS))]),
    }
    records = Records(fields=fields, ids=[f"row {index}" for index in range(len(WORDS))])
    part = Text.fit(TextConfig(tokens="bytes"), records)
    task = Task(inputs={"text": part}, target=Category.fit(CategoryConfig(), records, {"text": part}))
    return task, encode(task, records, weight="weight").examples


def batch_of(task, examples, chosen):
    chosen = torch.tensor(chosen)
    return task.collate(examples.take(chosen), chosen)


def assert_equal(one, other):
    assert len(one) == len(other)
    for part, others in ((one.inputs["text"], other.inputs["text"]), (one.truth, other.truth)):
        assert part.keys() == others.keys()
        assert all(torch.equal(part[name], others[name]) for name in part)
    assert torch.equal(one.records_B, other.records_B)
    assert torch.equal(one.weight_B, other.weight_B)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_parts_are_collated_as_if_there_had_been_no_whole(texts, size):
    task, examples = texts
    chosen = [5, 0, 2, 7, 1, 3, 6]
    whole = batch_of(task, examples, chosen)
    parts = task.split(whole, size)
    assert [len(part) for part in parts] == [len(chosen[at : at + size]) for at in range(0, 7, size)]
    for number, part in enumerate(parts):
        assert_equal(part, batch_of(task, examples, chosen[number * size : (number + 1) * size]))
        # Padded to the longest of its own only.
        assert part.inputs["text"]["tokens"].shape[1] == int(part.inputs["text"]["length"].max())
    if size < 7:
        assert min(part.inputs["text"]["tokens"].shape[1] for part in parts) < whole.inputs["text"]["tokens"].shape[1]


def test_a_part_can_be_split_again_and_a_batch_that_fits_is_left(texts):
    task, examples = texts
    whole = batch_of(task, examples, range(8))
    assert task.split(whole, 8) == [whole]
    first, _ = task.split(whole, 4)
    assert_equal(task.split(first, 2)[1], batch_of(task, examples, [2, 3]))


def test_examples_know_their_truth_and_inputs_after_batching(texts):
    task, examples = texts
    whole = batch_of(task, examples, [3, 4])
    assert torch.equal(whole.examples.truth["class"], whole.truth["class"])
    assert [len(each) for each in to_numpy(whole.examples.inputs["text"]["tokens"])] == [
        len("line"),
        len("line and lead"),
    ]
    assert take(examples.truth, torch.tensor([3, 4]))["class"].tolist() == whole.truth["class"].tolist()


@pytest.mark.parametrize("size", [16, 5, 1])
def test_terms_with_counts_of_their_own_keep_their_gradient(size):
    """The rarer term is divided by what is marked in the whole batch, however that is spread over the parts."""
    task, examples = two_terms()
    net = network_for(task)
    chosen = torch.arange(64)
    batch = task.collate(examples.take(chosen), chosen)
    counts = task.target.counts(batch)
    assert 5 < counts["absolute"] < 40 < counts["squared"]
    (terms, whole), (others, parts) = (
        gradients(task, batch, state_for(net, micro_batch=each), plan_for(1)) for each in (64, size)
    )
    for name, value in terms.items():
        torch.testing.assert_close(others[name], value)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-5, atol=1e-6)
    # By hand.
    net.zero_grad()
    answer = net(batch.inputs)
    value, marked = batch.truth["value"], batch.truth["marked"].bool()
    loss = (answer[:, 0] - value).square().mean() + (answer[marked, 1] - value[marked]).abs().mean()
    loss.backward()
    torch.testing.assert_close(sum(terms.values()), loss)
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, whole[name], rtol=1e-5, atol=1e-6)


@dataclass(frozen=True, kw_only=True)
class Doubled(Vectors):
    """Twice its numbers before the network; one more on each in training."""

    def augment(self, tensors, rng):
        return {"vector": tensors["vector"] + 1}, AugmentParams()

    def preprocess(self, tensors):
        return {"vector": 2 * tensors["vector"]}


def test_inputs_are_augmented_then_preprocessed_and_a_network_does_neither():
    task = Task(inputs={"x": Doubled()}, target=TwoTerms())
    _, examples = two_terms(8)
    chosen = torch.arange(8)
    batch = task.collate(examples.take(chosen), chosen)
    raw = batch.inputs["x"]["vector"].clone()
    prepared = task.preprocess(batch)
    assert torch.equal(prepared.inputs["x"]["vector"], 2 * raw)
    assert torch.equal(batch.inputs["x"]["vector"], raw)
    assert torch.equal(prepared.truth["value"], batch.truth["value"])
    augmented = task.augment(batch, BatchRng(seed=0, epoch=0, records_B=batch.records_B))
    assert torch.equal(task.preprocess(augmented).inputs["x"]["vector"], 2 * (raw + 1))
    net = network_for(task)
    torch.testing.assert_close(net(batch.inputs), net.head.answer(net.backbones["x"]({"vector": raw})))
    # The loop does both.
    seen = []
    net.register_forward_pre_hook(lambda module, given: seen.append(given[0]["x"]["vector"]))
    gradients(task, batch, state_for(net), plan_for(1))
    assert torch.equal(seen[0], 2 * (raw + 1))
