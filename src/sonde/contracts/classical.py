"""The contract of a classical model: from a feature matrix to the answers that a target's standard head would give.

It is fitted by scikit-learn in one go and kept as tensors, so that its artifact holds no pickle and runs no code of
others. Shape suffixes: N training row, B row, F number, C categorical column, E entry of a bag, K answer.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from sonde.base.config import Config
from sonde.base.errors import UserError
from sonde.contracts.columns import Tensors
from sonde.contracts.specs import Per

if TYPE_CHECKING:
    from torch import Tensor

# One of several classes, any number of labels, numbers.
ProblemKind = Literal["classes", "labels", "numbers"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What a target asks of a classical model, with the truths of some examples.

    `truth`: the class int64 (N,), labels 0 or 1 (N, K), or numbers float32 (N, K). Answers (B, K) are logits for a
    softmax, logits for a sigmoid, or the numbers. `weight_N` says how much each row counts (None: all the same). `per`
    "position" has a row for each word of each example, in order.
    """

    kind: ProblemKind
    width: int
    truth: Tensor
    weight_N: Tensor | None = None
    per: Literal["example", "position"] = "example"

    def take(self, rows: Tensor) -> Problem:
        weight_N = None if self.weight_N is None else self.weight_N[rows]
        return Problem(kind=self.kind, width=self.width, truth=self.truth[rows], weight_N=weight_N, per=self.per)


@dataclass(frozen=True, kw_only=True)
class Bag:
    """Rows that are mostly zero: row b has `length_B[b]` entries, `values` at `columns`, one row after another."""

    columns: Tensor
    values: Tensor
    length_B: Tensor
    width: int

    def take(self, rows: Tensor) -> Bag:
        starts = (self.length_B.cumsum(0) - self.length_B)[rows]
        length = self.length_B[rows]
        place = torch.arange(int(length.sum())) - (length.cumsum(0) - length).repeat_interleave(length)
        entries = starts.repeat_interleave(length) + place
        return Bag(columns=self.columns[entries], values=self.values[entries], length_B=length, width=self.width)


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Features: `numbers` float (B, F), `categories` int64 (B, C) of `sizes` values each, and a bag or none.

    `same_scale`: the numbers are of one unit, as pixels are; others have to be standardized one by one.
    """

    numbers: Tensor
    categories: Tensor
    sizes: tuple[int, ...] = ()
    bag: Bag | None = None
    same_scale: bool = False

    def __len__(self) -> int:
        return len(self.numbers)

    @staticmethod
    def of(numbers: Tensor, *, bag: Bag | None = None, same_scale: bool = False) -> Matrix:
        nothing = numbers.new_empty((len(numbers), 0), dtype=torch.int64)
        return Matrix(numbers=numbers, categories=nothing, bag=bag, same_scale=same_scale)

    def take(self, rows: Tensor) -> Matrix:
        return Matrix(
            numbers=self.numbers[rows],
            categories=self.categories[rows],
            sizes=self.sizes,
            bag=None if self.bag is None else self.bag.take(rows),
            same_scale=self.same_scale,
        )

    @property
    def num_columns(self) -> int:
        """Columns of a dense matrix of it, with one for each value of a category."""
        return self.numbers.shape[1] + sum(self.sizes)

    def dense(self) -> Tensor:
        """Numbers and one column for each value of a category, float64 (B, num_columns); a bag is left out."""
        parts = [self.numbers.double()]
        for column, size in zip(self.categories.T, self.sizes, strict=True):
            parts.append(torch.nn.functional.one_hot(column, size).double())
        return torch.cat(parts, dim=1)


def beside(parts: Sequence[Matrix]) -> Matrix:
    """The features of several inputs of the same examples as one matrix."""
    if len(parts) == 1:
        return parts[0]
    bags = [part.bag for part in parts if part.bag is not None]
    return Matrix(
        numbers=torch.cat([part.numbers for part in parts], dim=1),
        categories=torch.cat([part.categories for part in parts], dim=1),
        sizes=tuple(size for part in parts for size in part.sizes),
        bag=_bags_beside(bags) if bags else None,
    )


def _bags_beside(bags: Sequence[Bag]) -> Bag:
    columns, row, offset = [], [], 0
    for bag in bags:
        columns.append(bag.columns + offset)
        row.append(torch.arange(len(bag.length_B)).repeat_interleave(bag.length_B))
        offset += bag.width
    order = torch.cat(row).argsort(stable=True)
    return Bag(
        columns=torch.cat(columns)[order],
        values=torch.cat([bag.values for bag in bags])[order],
        length_B=torch.stack([bag.length_B for bag in bags]).sum(0),
        width=offset,
    )


def below(parts: Sequence[Matrix]) -> Matrix:
    """The rows of several batches as one matrix."""
    first = parts[0]
    bags = [part.bag for part in parts if part.bag is not None]
    bag = None
    if bags:
        bag = Bag(
            columns=torch.cat([each.columns for each in bags]),
            values=torch.cat([each.values for each in bags]),
            length_B=torch.cat([each.length_B for each in bags]),
            width=bags[0].width,
        )
    return Matrix(
        numbers=torch.cat([part.numbers for part in parts]),
        categories=torch.cat([part.categories for part in parts]),
        sizes=first.sizes,
        bag=bag,
        same_scale=first.same_scale,
    )


class FeatureMap(torch.nn.Module, abc.ABC):
    """From the preprocessed tensors of one input to features that a classical model can take; what it learned from the
    training split are its buffers."""

    # What the features are, in the field's words.
    about: str = ""
    # The classical model that people try first on such features.
    first_choice: ClassVar[str] = "linear"
    # What it has rows for: examples, or the words of each.
    gives: ClassVar[tuple[Per, ...]] = ("example",)

    def learn(self, batches: Iterable[Tensors], per: Per) -> None:
        """Learn what it needs from the training split. Most need nothing."""

    def restore(self, tensors: Tensors) -> None:
        """Take over what an earlier one has learned (its `state_dict`).

        Raises:
            UserError: it does not fit.
        """
        if tensors:
            raise UserError(f"{type(self).__name__} learns nothing, and was given {', '.join(tensors)}")

    @abc.abstractmethod
    def forward(self, tensors: Tensors, per: Per) -> Matrix: ...


class EstimatorConfig(Config):
    """Settings of a classical model; each kind names itself, as `kind`."""


class Unsuitable(UserError):
    """A classical model cannot be fitted to these features or truths, for the reason that is told."""


class Estimator(torch.nn.Module, abc.ABC):
    """A classical model, fitted and kept as tensors: its buffers are all that it knows.

    `fit` trains scikit-learn's model and takes it over; `forward` gives its answers (see `Problem`).
    """

    Config: ClassVar[type[EstimatorConfig]]
    # Where it stands among others: the cheaper one first.
    rank: ClassVar[int]
    solves: ClassVar[tuple[ProblemKind, ...]] = ("classes", "labels", "numbers")
    # Whether it takes bags, and how many columns at most.
    takes_bags: ClassVar[bool] = False
    most_columns: ClassVar[int] = 10_000
    # Training rows from which on it is fitted to a sample of so many.
    most_rows: ClassVar[int] = 1_000_000

    def __init__(self, config: Any, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.config = config
        for name, value in tensors.items():
            self.register_buffer(name, value)

    @classmethod
    @abc.abstractmethod
    def about(cls, problem: Problem) -> str:
        """What it is for such a problem, in the field's words: "logistic regression"."""

    @classmethod
    def trials(cls, problem: Problem, matrix: Matrix) -> list[Any]:
        """Settings worth trying, those that do well on most data first."""
        return [cls.Config.model_validate({})]

    @classmethod
    @abc.abstractmethod
    def fit(
        cls, config: Any, matrix: Matrix, problem: Problem, *, held_out: tuple[Matrix, Problem] | None, seed: int
    ) -> Any:
        """Fitted to a training split; `held_out` is the validation split, for those that stop by it.

        Raises:
            Unsuitable: it cannot be, for the reason that is told.
        """

    @abc.abstractmethod
    def forward(self, matrix: Matrix) -> Tensor:
        """float64 (B, K)."""
