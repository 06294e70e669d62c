"""The contracts: what an input, a target and a network body promise, and what passes between them.

A task is a choice of inputs and one target. `encode` and `collate` are the only way from a record to tensors: training,
evaluation, prediction and serving all take it. Shape suffixes: B example, T position, C channel, H row, W column.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from sonde.base.config import Config
from sonde.base.errors import RecordError
from sonde.base.rng import Draw
from sonde.base.threads import each
from sonde.columns import Column, Columns, Ragged, Tensors, stack, take
from sonde.records import Record, Records

Prediction = dict[str, Any]
Form = Literal["grid", "tokens", "frames", "vector", "columns"]
Per = Literal["example", "position", "pixel"]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What an input offers, and what a network has to accept.

    | form    | collated tensors (B first)                                     |
    |---------|----------------------------------------------------------------|
    | grid    | "grid" (B, channels, *size)                                    |
    | tokens  | "tokens" int64 (B, T), "length" int64 (B,); T <= size[0] + 1   |
    |         | "undropped" (B, T) too where augmentation hid some             |
    | frames  | "frames" (B, T, channels), "length" int64 (B,); T <= size[0]   |
    | vector  | "vector" (B, channels)                                         |
    | columns | "numbers" (B, channels), "categories" int64 (B, len(categories)) |
    """

    form: Form
    channels: int = 0
    size: tuple[int, ...] = ()
    vocabulary: int = 0
    categories: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a target asks of a network: `width` numbers per example (B, width), per position (B, T, width) or per
    pixel (B, width, H, W). A causal answer at a position may depend on that position and earlier ones only.

    Per position, `network(inputs, at_N)` gives the answers at chosen positions alone, (N, width): `at_N` int64 counts
    them through the whole batch (example * T + position). So padding costs no answer over a large vocabulary.
    """

    per: Per
    width: int
    causal: bool = False


@dataclass(frozen=True, kw_only=True)
class Moves:
    """What augmentation did to a batch, so that the truth can follow. None: nothing of that sort was done.

    `rows_BH`, `columns_BW`: the source row and column of every output row and column (-1: outside the picture).
    `affine_B23`: maps output to source places, both in [-1, 1] (as `torch.nn.functional.affine_grid` takes it).
    `share_B`: example i became share * i + (1 - share) * `partner`(i).
    """

    rows_BH: Tensor | None = None
    columns_BW: Tensor | None = None
    affine_B23: Tensor | None = None
    share_B: Tensor | None = None


def partner(values: Tensor) -> Tensor:
    """Each example's partner in mixing: its neighbour in the batch (a last odd one meets itself).

    Neighbours, so that any even split of a batch over micro-batches or machines mixes the same pairs.
    """
    even = len(values) - len(values) % 2
    swapped = values[:even].reshape(-1, 2, *values.shape[1:]).flip(1).reshape(values[:even].shape)
    return torch.cat([swapped, values[even:]])


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Examples collated into tensors. Every tensor has the example as its first dimension.

    `records_B` are the positions of the examples in their split: they key the randomness and name the records.
    `weight_B` (or None) says how much each example counts.
    """

    inputs: dict[str, Tensors]
    truth: Tensors
    records_B: Tensor
    weight_B: Tensor | None = None

    def __len__(self) -> int:
        return len(self.records_B)

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(
            inputs={name: {key: change(value) for key, value in part.items()} for name, part in self.inputs.items()},
            truth={key: change(value) for key, value in self.truth.items()},
            records_B=change(self.records_B),
            weight_B=None if self.weight_B is None else change(self.weight_B),
        )

    def to(self, device: torch.device) -> Batch:
        if self.records_B.device == device:
            return self
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def split(self, size: int) -> list[Batch]:
        """Micro-batches of at most `size` examples."""
        if size >= len(self):
            return [self]
        return [
            self.map(lambda tensor, start=start: tensor[start : start + size]) for start in range(0, len(self), size)
        ]


class Part(abc.ABC):
    """What an input and a target share: settings, what was fitted, and how both are saved.

    A kind is a frozen dataclass: its first field is `config`, the others are what `fit` learnt from the training
    split, each a tensor or a value that JSON can hold. That is all that saving needs.
    """

    Config: ClassVar[type[Config]]
    # Whether the field holds a file (a path, or a file's bytes) rather than a value.
    reads_file: ClassVar[bool] = False
    # Whether a file alone is a record to answer for (a picture is, a row of a table is not).
    takes_file: ClassVar[bool] = False
    # The encoded tensors whose first dimension differs from example to example.
    ragged: ClassVar[tuple[str, ...]] = ()

    config: Any

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator) -> tuple[Config, Records]:
        """A tiny data set of this kind and settings to go with it: what the conformance kit tries the kind on."""
        raise NotImplementedError(f"{cls.__name__} has no sample data")

    @staticmethod
    def fields(config: Any) -> list[str]:
        """The fields of a record that it reads."""
        return [config.field]

    @abc.abstractmethod
    def encode(self, record: Record) -> Tensors:
        """One record as tensors: pure and deterministic, the same in training and in serving.

        Raises:
            RecordError: this record cannot be read.
        """

    def encode_many(self, records: Records) -> tuple[Columns, dict[int, RecordError]]:
        """A column of records, and the errors of those that cannot be read, by position; the columns hold the others.

        Equal to `encode` record by record. The default uses threads for files; override it where whole columns are
        quicker.
        """
        results = each(self._attempt, records, threads=self.reads_file)
        errors = {index: result for index, result in enumerate(results) if isinstance(result, RecordError)}
        examples = [result for result in results if not isinstance(result, RecordError)]
        return stack(examples, self.ragged) if examples else {}, errors

    def _attempt(self, record: Record) -> Tensors | RecordError:
        try:
            return self.encode(record)
        except RecordError as error:
            return error

    def collate(self, columns: Columns) -> Tensors:
        """Tensors from encoded examples. A ragged column is padded at its end; "length" (B,) says how far it goes."""
        return collate(columns)

    def save(self) -> tuple[dict[str, Any], Tensors]:
        """What was fitted, as JSON values and tensors; `restore` takes both back."""
        fitted = {one.name: getattr(self, one.name) for one in dataclasses.fields(self) if one.name != "config"}  # type: ignore[arg-type]
        values = {name: value for name, value in fitted.items() if not isinstance(value, Tensor)}
        return values, {name: value for name, value in fitted.items() if isinstance(value, Tensor)}

    @classmethod
    def restore(cls, config: Config, values: Mapping[str, Any], tensors: Tensors) -> Self:
        return cls(config=config, **values, **tensors)  # type: ignore[call-arg]


def collate(columns: Mapping[str, Column]) -> Tensors:
    tensors: Tensors = {}
    for name, column in columns.items():
        if isinstance(column, Ragged):
            tensors[name] = column.padded()
            tensors["length"] = column.lengths
        else:
            tensors[name] = column
    return tensors


class Input(Part):
    """What goes in. Fitted on the training split only; frozen after that."""

    @classmethod
    @abc.abstractmethod
    def fit(cls, config: Any, records: Records) -> Self:
        """Learn statistics, a vocabulary, categories from the records of the training split."""

    @staticmethod
    @abc.abstractmethod
    def recommend(target: str, config: Any, records: Records) -> dict[str, dict[str, Any]]:
        """Settings that do well without editing, for a target kind and a data set; `config` is of this kind.

        Up to four parts of a recipe: "input" (of this kind), "target", "network" and "training".
        """

    @property
    @abc.abstractmethod
    def shape(self) -> Shape:
        """What a network has to accept."""

    @property
    def resizes(self) -> bool:
        """Whether augmentation gives some batches another size than `shape` says."""
        return False

    def arrange(self, columns: Columns) -> Columns:
        """Encoded records as the examples that are drawn from them: usually the same, windows for a stream."""
        return columns

    def augment(self, tensors: Tensors, draw: Draw) -> tuple[Tensors, Moves]:
        """Change a training batch at random, all of it at once, on its device. Never called outside training."""
        return tensors, Moves()

    def front(self) -> nn.Module:
        """The fixed first layer, tensors -> tensors: from what `collate` gives to normalized floats.

        It runs after `augment`, so that batches travel and are augmented in their small form (bytes).
        """
        return nn.Identity()


class Target(Part):
    """What comes out, how wrong it was, and how to say it."""

    # The score that picks the best checkpoint, and which way is better.
    best: ClassVar[tuple[str, Literal["max", "min"]]]
    # The scores of which a lower one is better, for `training.monitor`; "rmse" also stands for "rmse/<field>".
    lower_is_better: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    @abc.abstractmethod
    def fit(cls, config: Any, records: Records, inputs: Mapping[str, Input]) -> Self:
        """Learn classes, scales from the records of the training split. `inputs` are fitted already."""

    @property
    @abc.abstractmethod
    def ask(self) -> Ask:
        """What a network has to give."""

    def follow(self, truth: Tensors, moves: Moves) -> Tensors:
        """What augmentation did to the inputs, done to the truth. The default is right when nothing is moved or mixed
        that the truth could see: override it to support mixing, or where the truth is a picture itself."""
        if moves.share_B is not None:
            raise NotImplementedError(f"{type(self).__name__} cannot follow mixed examples")
        return truth

    @abc.abstractmethod
    def count(self, batch: Batch) -> Tensor:
        """What the sums of `loss` are divided by: a 0-d float tensor, additive over batches."""

    @abc.abstractmethod
    def loss(self, network: nn.Module, batch: Batch, draw: Draw) -> Tensors:
        """The loss of a batch as SUMS, one 0-d tensor per term; loss(A + B) = loss(A) + loss(B)."""

    @abc.abstractmethod
    def predict(self, network: nn.Module, inputs: dict[str, Tensors]) -> list[Prediction]:
        """The answers for a batch, JSON-able, one per example."""

    def say(self, predictions: list[Prediction], inputs: Mapping[str, Input]) -> list[Prediction]:
        """The answers put into words with the help of the inputs: token ids become text. Most say all by themselves."""
        return predictions

    @abc.abstractmethod
    def measure(self, network: nn.Module, batch: Batch) -> Tensors:
        """What `metrics` needs to know of each example, as columns (B, ...)."""

    @abc.abstractmethod
    def metrics(self, columns: Mapping[str, np.ndarray], weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        """The scores that this field reports, each (R,): once for every row of example weights.

        Weights make one function serve the plain value (all ones), weighted records and the bootstrap (counts).
        """


class Body(nn.Module, abc.ABC):
    """A network body: from what an input offers to features.

    Built for what is asked: `forward` gives (B, width) per example, (B, T, width) per position; per pixel a tuple of
    grids (B, widths[i], H_i, W_i), finest first, which the head brings to the size of the input.
    """

    Config: ClassVar[type[Config]]
    accepts: ClassVar[tuple[Form, ...]]
    gives: ClassVar[tuple[Per, ...]]
    # Whether it can answer causally.
    causal: ClassVar[bool] = False
    # Whether it takes all positions for real, padding included, because its input has one length (a picture of sound).
    fixed_length: ClassVar[bool] = False
    # Whether it takes grids of another size than it was built for.
    any_size: ClassVar[bool] = False
    # Settings that make it small, for the conformance kit.
    tiny: ClassVar[Mapping[str, Any]] = {}

    # Channels of the features: one number, or one per grid when asked per pixel.
    width: int | tuple[int, ...]

    @abc.abstractmethod
    def __init__(self, config: Any, shape: Shape, ask: Ask) -> None:
        super().__init__()

    @abc.abstractmethod
    def forward(self, tensors: Tensors) -> Tensor | tuple[Tensor, ...]: ...

    def extend(self, tensors: Tensors, cache: Any) -> tuple[Tensor, Any]:
        """Features of further positions, given the cache of the earlier ones (None at the start); causal bodies only.

        Extending piece by piece equals `forward` on the whole.
        """
        raise NotImplementedError(f"{type(self).__name__} has no cache")


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Encoded records of one split, column by column; `weight` (N,) or None."""

    inputs: dict[str, Columns]
    truth: Columns
    weight: Tensor | None = None
    count: int

    def __len__(self) -> int:
        return self.count

    def take(self, indices: Tensor) -> Examples:
        return Examples(
            inputs={name: take(columns, indices) for name, columns in self.inputs.items()},
            truth=take(self.truth, indices),
            weight=None if self.weight is None else self.weight[indices],
            count=len(indices),
        )


@dataclass(frozen=True, kw_only=True)
class Task:
    """Fitted inputs and a fitted target: everything between a record and a network."""

    inputs: dict[str, Input]
    target: Target

    def collate_inputs(self, columns: Mapping[str, Columns]) -> dict[str, Tensors]:
        return {name: part.collate(columns[name]) for name, part in self.inputs.items()}

    def collate(self, examples: Examples, records_B: Tensor) -> Batch:
        return Batch(
            inputs=self.collate_inputs(examples.inputs),
            truth=self.target.collate(examples.truth) if examples.truth else {},
            records_B=records_B,
            weight_B=examples.weight,
        )

    def predict(self, network: nn.Module, inputs: dict[str, Tensors]) -> list[Prediction]:
        """The answers for collated inputs."""
        return self.target.say(self.target.predict(network, inputs), self.inputs)

    def augment(self, batch: Batch, draw: Draw) -> Batch:
        inputs, truth = dict(batch.inputs), batch.truth
        for name, part in self.inputs.items():
            inputs[name], moves = part.augment(batch.inputs[name], draw)
            truth = self.target.follow(truth, moves)
        return Batch(inputs=inputs, truth=truth, records_B=batch.records_B, weight_B=batch.weight_B)
