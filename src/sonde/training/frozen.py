"""Frozen backbones answer the same in every epoch: their features are computed once, before the first step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch

from sonde.base.device import choose_device
from sonde.contracts.columns import Columns, Ragged, Tensors, concatenate, num_bytes, take
from sonde.contracts.input import Input
from sonde.contracts.layouts import LAYOUTS
from sonde.contracts.part import Part
from sonde.contracts.records import Record, Records
from sonde.contracts.specs import Advice, InputSpec, OutputSpec
from sonde.contracts.task import Task
from sonde.data.batches import in_order
from sonde.data.store import Encoded
from sonde.networks import Network, features

# Examples that a frozen backbone sees at once.
BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Featured(Input):
    """An input whose examples carry the features that its frozen backbone made of them: nothing is augmented."""

    config: Any
    part: Input

    @classmethod
    def fit(cls, config: Any, records: Records) -> Self:
        raise NotImplementedError("made from a fitted input")

    @staticmethod
    def recommend(config: Any, output: OutputSpec, records: Records) -> Advice:
        return Advice()

    @property
    def spec(self) -> InputSpec:
        return self.part.spec

    def encode(self, record: Record) -> Tensors:
        return self.part.encode(record)

    def collate(self, columns: Columns) -> Tensors:
        own = features.names(columns)
        others = {name: column for name, column in columns.items() if name not in own}
        return {
            **(self.part.collate(others) if others else {}),
            **features.collate({name: columns[name] for name in own}),
        }


def inputs_of(network: torch.nn.Module, wanted: set[str]) -> list[str]:
    """Of the inputs whose features may be kept those whose backbone gives the same at any time."""
    if not isinstance(network, Network):
        return []
    return [
        name
        for name in network.specs
        if name in wanted
        and name in network.frozen
        and network.outputs[name].condition == 0
        and network.outputs[name].chosen != "node"
        and getattr(network.backbones[name], "members", 1) == 1
    ]


def task_of(task: Task, names: list[str]) -> Task:
    """The task on examples that carry the features of these inputs."""
    inputs = {
        name: Featured(config=part.config, part=part) if name in names else part for name, part in task.inputs.items()
    }
    return Task(inputs=inputs, target=task.target)


def size_of(task: Task, network: Network, names: list[str], encoded: Encoded) -> int:
    """Bytes that the features of a split take, judged by its first examples."""
    count = min(8, len(encoded.examples))
    some = dataclasses.replace(encoded, examples=encoded.examples.take(torch.arange(count)))
    found = [compute(task, network, name, some) for name in names]
    return sum(num_bytes(columns) for columns in found) * len(encoded.examples) // max(1, count)


def with_features(
    task: Task,
    network: Network,
    names: list[str],
    encoded: Encoded,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Encoded:
    """The split with features in place of what they were made of."""
    inputs = dict(encoded.examples.inputs)
    for name in names:
        kept = _rest(task.inputs[name], inputs[name])
        inputs[name] = {**kept, **compute(task, network, name, encoded, on_progress)}
    return dataclasses.replace(encoded, examples=dataclasses.replace(encoded.examples, inputs=inputs))


def _rest(part: Input, columns: Columns) -> Columns:
    """What else targets may look at: all but pictures and sounds themselves, which batches need not carry any more."""
    main = LAYOUTS[part.spec.layout].main
    is_plain = type(part).collate is Part.collate and not isinstance(columns.get(main), Ragged)
    return {name: column for name, column in columns.items() if not (is_plain and name == main)}


@torch.no_grad()
def compute(
    task: Task,
    network: Network,
    name: str,
    encoded: Encoded,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Columns:
    """The features of one input for every example of a split, in float32."""
    examples = encoded.examples
    order = _by_length(examples.inputs[name], len(examples))
    sorted_examples = examples.take(torch.from_numpy(order))
    network.eval()
    parts: list[Columns] = []
    for start in range(0, len(examples), BATCH):
        batch = task.preprocess(in_order(task, sorted_examples, BATCH, start).to(choose_device()))
        parts.append(features.to_columns(network.features_of(name, batch.inputs[name])))
        on_progress(min(len(examples), start + BATCH))
    whole = concatenate(parts) if len(parts) > 1 else parts[0]
    return take(whole, torch.from_numpy(np.argsort(order, kind="stable")))


def _by_length(columns: Columns, count: int) -> np.ndarray:
    """An order in which examples of like length are neighbours, so that little padding is computed."""
    ragged = [column.lengths for column in columns.values() if isinstance(column, Ragged)]
    return np.arange(count) if not ragged else np.argsort(ragged[0].numpy(), kind="stable")
