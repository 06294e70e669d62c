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
from sonde.contracts.batch import Batch
from sonde.contracts.columns import Tensors
from sonde.contracts.input import Input
from sonde.contracts.records import Record, Records
from sonde.contracts.specs import InputSpec
from sonde.contracts.target import Target


class Fake(nn.Module):
    """Answers with a linear map of what it is given, one module for every form."""

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
    fit: str = "squash"


@dataclass(frozen=True, kw_only=True)
class FakeInput(Input):
    """An input that only says what it offers."""

    config: Any
    offered: InputSpec

    @classmethod
    def fit(cls, config: Any, records: Records) -> Self:
        raise NotImplementedError

    @staticmethod
    def recommend(target: str, count: int) -> dict[str, dict[str, Any]]:
        return {}

    @property
    def spec(self) -> InputSpec:
        return self.offered

    def encode(self, record: Record) -> Tensors:
        return {}


def vector_batch(truth: Tensors, *, weights: bool = False) -> Batch:
    count = len(next(iter(truth.values())))
    drawn = torch.Generator().manual_seed(0)
    return Batch(
        inputs={"given": {"vector": torch.randn(count, 3, generator=drawn)}},
        truth=truth,
        records_B=torch.arange(count),
        weight_B=torch.rand(count, generator=drawn) if weights else None,
    )


def draw(batch: Batch) -> BatchRng:
    return BatchRng(seed=0, epoch=0, records_B=batch.records_B)


def mean_loss(target: Target, network: nn.Module, batch: Batch) -> Tensor:
    """The loss as the loop sees it."""
    return torch.stack(list(target.loss(network, batch, draw(batch)).values())).sum() / target.count(batch)


def check_sums(target: Target, network: nn.Module, batch: Batch) -> None:
    """loss(A + B) = loss(A) + loss(B), the same for the count, and four micro-batches give one big batch's gradient."""
    whole = target.loss(network, batch, draw(batch))
    parts = batch.split(len(batch) // 2)
    for name, value in whole.items():
        assert value.ndim == 0
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, sum(target.loss(network, part, draw(part))[name] for part in parts))
    count = target.count(batch)
    assert count.ndim == 0
    assert count.dtype == torch.float32
    torch.testing.assert_close(count, sum(target.count(part) for part in parts))
    gradients = []
    for size in (len(batch), len(batch) // 4):
        network.zero_grad()
        for part in batch.split(size):
            (torch.stack(list(target.loss(network, part, draw(part)).values())).sum() / count).backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None])
    assert gradients[0]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def check_repeats(target: Target, network: nn.Module, batch: Batch) -> None:
    """A weight of 2 is an example twice; without weights every example weighs 1."""
    twice = torch.arange(len(batch)).repeat_interleave(torch.arange(len(batch)) % 3)
    repeated = batch.map(lambda tensor: tensor[twice])
    weighted = Batch(
        inputs=batch.inputs,
        truth=batch.truth,
        records_B=batch.records_B,
        weight_B=(torch.arange(len(batch)) % 3).float(),
    )
    torch.testing.assert_close(mean_loss(target, network, weighted), mean_loss(target, network, repeated))
    torch.testing.assert_close(target.count(weighted), target.count(repeated))


def restored(target: Target) -> Target:
    """The target after it went through JSON."""
    values, tensors = target.save()
    assert not tensors
    config = type(target).Config.model_validate(json.loads(target.config.model_dump_json()))
    copy = type(target).restore(config, json.loads(json.dumps(values, allow_nan=False)), tensors)
    assert copy == target
    return copy


def measured(target: Target, network: nn.Module, batch: Batch) -> dict[str, np.ndarray]:
    return {name: column.numpy() for name, column in target.eval_outputs(network, batch).items()}


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value, allow_nan=False))
