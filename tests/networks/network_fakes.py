"""What the tests of networks share: an input that offers any shape, and random tensors of that shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from sonde.base.config import Config
from sonde.contracts.columns import Tensors
from sonde.contracts.input import Input
from sonde.contracts.records import Record, Records
from sonde.contracts.specs import InputSpec

SHAPES = {
    "grid": InputSpec(layout="grid", channels=3, size=(24, 32)),
    "tokens": InputSpec(layout="tokens", vocabulary=13, size=(9,)),
    "frames": InputSpec(layout="frames", channels=12, size=(9,)),
    "vector": InputSpec(layout="vector", channels=6),
    "columns": InputSpec(layout="columns", channels=4, categories=(3, 5)),
}
LENGTHS = (9, 1, 6, 5)


def features(spec: InputSpec, count: int = 4, seed: int = 0) -> Tensors:
    """Random tensors as a front gives them; sequences have the lengths above, and noise where they are padded."""
    drawn = torch.Generator().manual_seed(seed)
    if spec.layout == "grid":
        return {"grid": torch.randn(count, spec.channels, *shape.size, generator=drawn)}
    if spec.layout == "vector":
        return {"vector": torch.randn(count, spec.channels, generator=drawn)}
    if spec.layout == "columns":
        numbers = torch.randn(count, spec.channels, generator=drawn)
        sizes = torch.tensor(spec.categories, dtype=torch.float32)
        return {"numbers": numbers, "categories": (torch.rand(count, len(sizes), generator=drawn) * sizes).long()}
    length = torch.tensor(LENGTHS[:count])
    if spec.layout == "tokens":
        tokens = torch.randint(0, spec.vocabulary, (count, shape.size[0]), generator=drawn)
        return {"tokens": tokens, "length": length}
    return {"frames": torch.randn(count, shape.size[0], spec.channels, generator=drawn), "length": length}


def alone(tensors: Tensors, index: int) -> Tensors:
    """One example of a batch, without its padding."""
    one = {name: tensor[index : index + 1] for name, tensor in tensors.items()}
    if "length" in one:
        length = int(one["length"])
        one = {name: tensor if name == "length" else tensor[:, :length] for name, tensor in one.items()}
    return one


@dataclass(frozen=True, kw_only=True)
class Offer(Input):
    """An input that offers a shape, and nothing else."""

    offered: InputSpec
    doubled: bool = False
    config: Any = Config()  # noqa: RUF009 (frozen)

    @property
    def spec(self) -> InputSpec:
        return self.offered

    def preprocess(self) -> nn.Module:
        return Double() if self.doubled else nn.Identity()

    @classmethod
    def fit(cls, config: Any, records: Records) -> Self:
        raise NotImplementedError

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator) -> tuple[Config, Records]:
        raise NotImplementedError

    @staticmethod
    def fields(config: Any) -> list[str]:
        return []

    @staticmethod
    def recommend(target: str, config: Any, records: Records) -> dict[str, dict[str, Any]]:
        return {}

    def encode(self, record: Record) -> Tensors:
        raise NotImplementedError


class Double(nn.Module):
    def forward(self, tensors: Mapping[str, torch.Tensor]) -> Tensors:
        return {name: tensor * 2 if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
