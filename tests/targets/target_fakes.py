"""What the tests of targets share: the smallest network there is, and checks of what every loss must hold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from sonde.base.config import Config
from sonde.base.rng import BatchRng
from sonde.contracts.batch import Batch, Examples
from sonde.contracts.columns import Tensors, to_numpy
from sonde.contracts.input import Input
from sonde.contracts.records import Record, Records
from sonde.contracts.specs import Advice, InputSpec, OutputSpec
from sonde.contracts.target import Target
from sonde.contracts.task import Task


class Fake(nn.Module):
    """Answers with a linear map of what it is given, one module for every layout."""

    def __init__(self, width: int, features: int = 3, vocabulary: int = 0) -> None:
        super().__init__()
        self.linear = nn.Linear(features, width)
        self.embed = nn.Embedding(vocabulary, features) if vocabulary else None
        drawn = torch.Generator().manual_seed(1)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=drawn)

    def forward(self, inputs: dict[str, Tensors], at_N: Tensor | None = None) -> Tensor:
        answer = self.answer(inputs["given"])
        return answer if at_N is None else answer.flatten(0, 1)[at_N]

    def answer(self, given: Tensors) -> Tensor:
        if "vector" in given:
            return self.linear(given["vector"])
        if "grid" in given:
            return self.linear(given["grid"].movedim(1, -1)).movedim(-1, 1)
        # Causal: what is known so far is the mean of the tokens so far.
        assert self.embed is not None
        seen = self.embed(given["tokens"]).cumsum(1)
        return self.linear(seen / torch.arange(1, seen.shape[1] + 1)[None, :, None])


class Fixed(nn.Module):
    """Gives the same answers whatever it is asked."""

    def __init__(self, answers: Tensor) -> None:
        super().__init__()
        self.answers = nn.Parameter(answers)

    def forward(self, inputs: dict[str, Tensors]) -> Tensor:
        return self.answers


class FakeConfig(Config):
    resize_mode: str = "squash"


@dataclass(frozen=True, kw_only=True)
class FakeInput(Input):
    """An input that only says what it offers."""

    config: Any
    offered: InputSpec

    @classmethod
    def fit(cls, config: Any, records: Records) -> Self:
        raise NotImplementedError

    @staticmethod
    def recommend(config: Any, output: OutputSpec, records: Records) -> Advice:
        return Advice()

    @property
    def spec(self) -> InputSpec:
        return self.offered

    def encode(self, record: Record) -> Tensors:
        return {}


def made(inputs: dict[str, Tensors], truth: Tensors, weight_B: Tensor | None = None) -> Batch:
    """A batch that is its own examples: it can be split and collated anew."""
    count = len(next(iter(next(iter(inputs.values())).values())))
    examples = Examples(
        inputs={name: dict(each) for name, each in inputs.items()}, truth=dict(truth), weight=weight_B, count=count
    )
    return Batch(inputs=inputs, truth=truth, records_B=torch.arange(count), examples=examples, weight_B=weight_B)


def vector_batch(truth: Tensors, *, weights: bool = False) -> Batch:
    count = len(next(iter(truth.values())))
    drawn = torch.Generator().manual_seed(0)
    inputs = {"given": {"vector": torch.randn(count, 3, generator=drawn)}}
    return made(inputs, truth, torch.rand(count, generator=drawn) if weights else None)


def question(count: int = 1) -> Batch:
    """A batch to predict for, where the network looks at none of it."""
    return made({"given": {"vector": torch.zeros(count, 3)}}, {})


def draw(batch: Batch) -> BatchRng:
    return BatchRng(seed=0, epoch=0, records_B=batch.records_B)


def mean_loss(target: Target, network: nn.Module, batch: Batch) -> Tensor:
    """The loss as the loop sees it: each term divided by its own count."""
    counts = target.counts(batch)
    terms = target.loss(network, batch, draw(batch))
    assert counts.keys() == terms.keys()
    return torch.stack([terms[name] / counts[name] for name in terms]).sum()


def check_sums(target: Target, network: nn.Module, batch: Batch) -> None:
    """loss(A + B) = loss(A) + loss(B), counts alike, and four micro-batches give one big batch's gradient."""
    task = Task(inputs={"given": FakeInput(config=None, offered=InputSpec(layout="vector"))}, target=target)
    whole = target.loss(network, batch, draw(batch))
    parts = task.split(batch, len(batch) // 2)
    assert len(parts) == 2
    for name, value in whole.items():
        assert value.ndim == 0
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, sum(target.loss(network, part, draw(part))[name] for part in parts))
    counts = target.counts(batch)
    assert counts.keys() == whole.keys()
    for name, count in counts.items():
        assert count.ndim == 0
        assert count.dtype == torch.float32
        torch.testing.assert_close(count, sum(target.counts(part)[name] for part in parts))
    gradients = []
    for size in (len(batch), len(batch) // 4):
        network.zero_grad()
        for part in task.split(batch, size):
            terms = target.loss(network, part, draw(part))
            torch.stack([terms[name] / counts[name] for name in terms]).sum().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None])
    assert gradients[0]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def check_repeats(target: Target, network: nn.Module, batch: Batch) -> None:
    """A weight of 2 is an example twice; without weights every example weighs 1."""
    twice = torch.arange(len(batch)).repeat_interleave(torch.arange(len(batch)) % 3)
    repeated = made(
        {name: {key: value[twice] for key, value in part.items()} for name, part in batch.inputs.items()},
        {key: value[twice] for key, value in batch.truth.items()},
    )
    weighted = made(batch.inputs, batch.truth, (torch.arange(len(batch)) % 3).float())
    torch.testing.assert_close(mean_loss(target, network, weighted), mean_loss(target, network, repeated))
    torch.testing.assert_close(target.counts(weighted), target.counts(repeated))


def restored(target: Target) -> Target:
    """The target after it went through JSON."""
    values, tensors = target.save()
    assert not tensors
    config = type(target).Config.model_validate(json.loads(target.config.model_dump_json()))
    copy = type(target).restore(config, json.loads(json.dumps(values, allow_nan=False)), tensors)
    assert copy == target
    return copy


def measured(target: Target, network: nn.Module, batch: Batch) -> dict[str, np.ndarray]:
    return {name: to_numpy(column) for name, column in target.eval_outputs(network, batch).items()}


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value, allow_nan=False))
