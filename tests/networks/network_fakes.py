"""What the tests of networks share: inputs that offer any spec, a target that asks anything, and random tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from sonde.base.config import Config
from sonde.base.rng import BatchRng
from sonde.contracts.batch import Batch
from sonde.contracts.columns import Columns, EvalColumns, Tensors
from sonde.contracts.input import Input
from sonde.contracts.layouts import LAYOUTS
from sonde.contracts.records import Record, Records
from sonde.contracts.specs import Advice, FeatureWidth, InputSpec, OutputSpec
from sonde.contracts.target import Prediction, Target
from sonde.contracts.task import Task

SPECS = {
    "grid": InputSpec(layout="grid", channels=3, size=(24, 32)),
    "tokens": InputSpec(layout="tokens", vocabulary=13, size=(9,)),
    "frames": InputSpec(layout="frames", channels=12, size=(9,)),
    "vector": InputSpec(layout="vector", channels=6),
    "columns": InputSpec(layout="columns", channels=4, categories=(3, 5)),
    "graph": InputSpec(layout="graph", channels=5, size=(6,)),
    "set": InputSpec(layout="set", channels=4, size=(9,)),
}
LENGTHS = (9, 1, 6, 5)


def features(spec: InputSpec, count: int = 4, seed: int = 0) -> Tensors:
    """Random tensors as `preprocess` gives them; sequences have the lengths above, and noise where they are padded."""
    tensors = LAYOUTS[spec.layout].random(spec, count, torch.Generator().manual_seed(seed))
    if spec.layout in ("tokens", "frames", "set"):
        tensors["length"] = torch.tensor(LENGTHS[:count])
    return tensors


def alone(tensors: Tensors, index: int) -> Tensors:
    """One example of a batch, without its padding."""
    one = {name: tensor[index : index + 1] for name, tensor in tensors.items()}
    if "length" in one:
        length = int(one["length"])
        one = {name: tensor if name == "length" else tensor[:, :length] for name, tensor in one.items()}
    return one


@dataclass(frozen=True, kw_only=True)
class Offer(Input):
    """An input that offers a spec, and nothing else."""

    offered: InputSpec
    config: Any = Config()  # noqa: RUF009 (frozen)

    @property
    def spec(self) -> InputSpec:
        return self.offered

    @classmethod
    def fit(cls, config: Any, records: Records) -> Self:
        raise NotImplementedError

    @staticmethod
    def fields(config: Any) -> list[str]:
        return []

    @staticmethod
    def recommend(config: Any, output: OutputSpec, records: Records) -> Advice:
        return Advice()

    def encode(self, record: Record) -> Tensors:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Asking(Target):
    """A target that asks `output` of the input `of` (one vector per example of the others), or of all the same."""

    output: OutputSpec
    of: str | None = None
    brings: nn.Module | None = None
    config: Any = Config()  # noqa: RUF009 (frozen)

    @classmethod
    def fit(cls, config: Any, records: Records, inputs: Mapping[str, Input]) -> Self:
        raise NotImplementedError

    def outputs(self, inputs: Mapping[str, InputSpec]) -> dict[str, OutputSpec]:
        others = replace(self.output, per=("example",), causal=False, condition=0)
        return {name: self.output if self.of in (None, name) else others for name in inputs}

    def head(self, widths: Mapping[str, FeatureWidth]) -> nn.Module | None:
        return self.brings

    def counts(self, batch: Batch) -> Tensors:
        raise NotImplementedError

    def loss(self, network: nn.Module, batch: Batch, rng: BatchRng) -> Tensors:
        raise NotImplementedError

    def predict(self, network: nn.Module, batch: Batch) -> list[Prediction]:
        raise NotImplementedError

    def eval_outputs(self, network: nn.Module, batch: Batch) -> Columns:
        raise NotImplementedError

    def metrics(self, columns: EvalColumns, weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        raise NotImplementedError


def asking(output: OutputSpec, inputs: Mapping[str, Input], *, of: str | None = None) -> Task:
    """A task that asks `output`."""
    return Task(inputs=dict(inputs), target=Asking(output=output, of=of))
