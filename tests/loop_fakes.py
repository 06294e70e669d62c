"""What the tests of the loop share: an input of vectors, targets of few lines, and a network of two layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sonde import loop
from sonde.base.config import Config
from sonde.base.device import Precision
from sonde.base.rng import BatchRng
from sonde.contracts.backbone import Backbone, BackboneConfig
from sonde.contracts.batch import Batch, Examples
from sonde.contracts.columns import Columns, EvalColumns, Tensors
from sonde.contracts.input import Input
from sonde.contracts.records import Record, Records
from sonde.contracts.specs import Advice, InputSpec, OutputSpec
from sonde.contracts.target import PairwiseTarget, Prediction, Target
from sonde.contracts.task import Task
from sonde.data.batches import Batches
from sonde.networks import assemble
from sonde.training import optimizers

WIDTH = 6


@dataclass(frozen=True, kw_only=True)
class Vectors(Input):
    config: Any = Config()  # noqa: RUF009 (frozen)

    @classmethod
    def fit(cls, config: Any, records: Records) -> Self:
        return cls(config=config)

    @staticmethod
    def recommend(config: Any, output: OutputSpec, records: Records) -> Advice:
        return Advice()

    @property
    def spec(self) -> InputSpec:
        return InputSpec(layout="vector", channels=WIDTH)

    def encode(self, record: Record) -> Tensors:
        return {"vector": torch.as_tensor(record["x"], dtype=torch.float32)}


class Unscored(Target):
    """A target that is only trained."""

    @classmethod
    def fit(cls, config: Any, records: Records, inputs: Mapping[str, Input]) -> Self:
        return cls(config=config)  # type: ignore[call-arg]

    def predict(self, network: nn.Module, batch: Batch) -> list[Prediction]:
        raise NotImplementedError

    def eval_outputs(self, network: nn.Module, batch: Batch) -> Columns:
        raise NotImplementedError

    def metrics(self, columns: EvalColumns, weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class TwoTerms(Unscored):
    """A squared error over all examples, and an absolute one over those that are marked: two counts."""

    config: Any = Config()  # noqa: RUF009 (frozen)
    best: ClassVar = ("loss", "min")

    @property
    def width(self) -> int:
        return 2

    def counts(self, batch: Batch) -> Tensors:
        marked = batch.truth["marked"].float().sum()
        return {"squared": torch.tensor(float(len(batch)), device=marked.device), "absolute": marked}

    def loss(self, network: nn.Module, batch: Batch, rng: BatchRng) -> Tensors:
        answer_B2 = network(batch.inputs)
        value_B, marked_B = batch.truth["value"], batch.truth["marked"].float()
        return {
            "squared": (answer_B2[:, 0] - value_B).square().sum(),
            "absolute": ((answer_B2[:, 1] - value_B).abs() * marked_B).sum(),
        }


class Towers(nn.Module):
    """One projection for each input, to the unit sphere."""

    def __init__(self, widths: Mapping[str, Any]) -> None:
        super().__init__()
        self.towers = nn.ModuleDict({name: nn.Linear(width, 4) for name, width in widths.items()})

    def forward(self, features: Mapping[str, Any]) -> dict[str, Tensor]:
        return {name: functional.normalize(tower(features[name].values), dim=1) for name, tower in self.towers.items()}


@dataclass(frozen=True, kw_only=True)
class Contrastive(PairwiseTarget, Unscored):
    """Pairs of inputs that belong together among all others of the batch (CLIP, Radford et al. 2021), where examples of
    one code are no strangers; and how far each pair is apart, a sum over examples."""

    config: Any = Config()  # noqa: RUF009 (frozen)
    best: ClassVar = ("loss", "min")

    def head(self, widths: Mapping[str, Any]) -> nn.Module:
        return Towers(widths)

    def counts(self, batch: Batch) -> Tensors:
        count = torch.tensor(float(len(batch)))
        return {"contrast": count, "distance": 10 * count}

    def embed(self, network: nn.Module, batch: Batch, rng: BatchRng) -> Tensors:
        return {**network(batch.inputs), "code": batch.truth["code"]}

    def compare(self, embeddings: Tensors) -> Tensors:
        left, right = embeddings["left"], embeddings["right"]
        logits = left @ right.T / 0.2
        alike = embeddings["code"][:, None] == embeddings["code"]
        others = alike & ~torch.eye(len(left), dtype=torch.bool)
        logits = logits.masked_fill(others, -torch.inf)
        own = torch.arange(len(left))
        contrast = functional.cross_entropy(logits, own, reduction="sum")
        return {
            "contrast": contrast + functional.cross_entropy(logits.T, own, reduction="sum"),
            "distance": (left - right).square().sum(),
        }

    def together(self, truth: Columns) -> tuple[Tensor, int] | None:
        return None


class PlainConfig(BackboneConfig):
    kind: str = "plain"
    dropout: float = 0.0
    norm: bool = False


class Plain(Backbone):
    Config = PlainConfig
    accepts: ClassVar = ("vector",)
    gives: ClassVar = ("example",)

    def __init__(self, config: PlainConfig, spec: InputSpec, output: OutputSpec) -> None:
        super().__init__(config, spec, output)
        layers = [nn.Linear(spec.channels, 8)]
        layers += [nn.BatchNorm1d(8)] if config.norm else []
        layers += [nn.Tanh(), nn.Dropout(config.dropout), nn.Linear(8, 8), nn.Tanh()]
        self.layers, self.width = nn.Sequential(*layers), 8

    def forward(self, tensors: Tensors) -> Tensor:
        return self.layers(tensors["vector"])


def network_for(task: Task, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    names = list(task.inputs)
    return assemble(task, dict.fromkeys(names, PlainConfig(**settings)), dict.fromkeys(names, Plain))


def two_terms(count: int = 64) -> tuple[Task, Examples]:
    drawn = torch.Generator().manual_seed(1)
    truth = {
        "value": torch.randn(count, generator=drawn),
        "marked": (torch.rand(count, generator=drawn) < 0.3).to(torch.uint8),
    }
    given = {"x": {"vector": torch.randn(count, WIDTH, generator=drawn)}}
    return Task(inputs={"x": Vectors()}, target=TwoTerms()), Examples(inputs=given, truth=truth, count=count)


def pairs(count: int = 64) -> tuple[Task, Examples]:
    drawn = torch.Generator().manual_seed(2)
    left = torch.randn(count, WIDTH, generator=drawn)
    right = left.roll(1, 1) + 0.3 * torch.randn(count, WIDTH, generator=drawn)
    truth = {"code": torch.randint(0, count // 2, (count,), generator=drawn)}
    task = Task(inputs={"left": Vectors(), "right": Vectors()}, target=Contrastive())
    return task, Examples(inputs={"left": {"vector": left}, "right": {"vector": right}}, truth=truth, count=count)


def plan_for(steps: int, **settings: Any) -> loop.Plan:
    return loop.Plan(steps=steps, seed=0, precision=Precision(kind="fp32", device=torch.device("cpu")), **settings)


def state_for(network: nn.Module, kind: str = "sgd", **settings: Any) -> loop.State:
    config = optimizers.OptimizerConfig(kind=kind, lr=0.02)  # type: ignore[arg-type]
    return loop.State(network=network, optimizers=optimizers.build(config, network, torch.float32), **settings)


def batches_of(task: Task, examples: Examples, size: int, **settings: Any) -> Batches:
    return Batches(task, examples, size=size, seed=0, **settings)


def gradients(task: Task, batch: Batch, state: loop.State, plan: loop.Plan) -> tuple[Tensors, dict[str, Tensor]]:
    """The means of the terms, and the gradient of every parameter."""
    terms = loop.gradients(task, batch, 0, state, plan)
    held = {name: one.grad.clone() for name, one in state.network.named_parameters() if one.grad is not None}
    return terms, held
