"""What inputs and targets share: settings, what was fitted, and how both are saved."""

from __future__ import annotations

import abc
import dataclasses
import functools
import json
import typing
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from pydantic import BaseModel, ConfigDict, create_model

from sonde.base.config import Config
from sonde.contracts.columns import Columns, Ragged, Tensors
from sonde.contracts.finding import Finding


class Part(abc.ABC):
    """A kind of input or target is a frozen dataclass: its first field is `config`, the others are what `fit` learned
    from the training split, each a tensor or a value that JSON can hold. That is all that saving needs."""

    Config: ClassVar[type[Config]]
    # Whether the field holds a file (a path, or a file's bytes) rather than a value.
    reads_file: ClassVar[bool] = False
    # The encoded tensors whose first dimension differs from example to example.
    ragged: ClassVar[tuple[str, ...]] = ()

    config: Any

    @staticmethod
    def fields(config: Any) -> list[str]:
        """The fields of a record that it reads."""
        return [config.field]

    def texts(self) -> list[str]:
        """The fields whose numbers are written in a way of their own ("1.013,50"): a table must leave them as texts."""
        return []

    def collate(self, columns: Columns) -> Tensors:
        """Tensors from encoded examples. A ragged column is padded at its end; "length" (B,) says how far it goes."""
        return collate(columns)

    def audit(self, columns: Columns, ids: Sequence[str]) -> list[Finding]:
        """What is odd about a split's encoded examples that only this kind can see: blank pictures, cut texts."""
        return []

    def save(self) -> tuple[dict[str, Any], Tensors]:
        """What was fitted, as JSON values and tensors; `restore` takes both back."""
        fitted = {one.name: getattr(self, one.name) for one in dataclasses.fields(self) if one.name != "config"}  # type: ignore[arg-type]
        values = {name: value for name, value in fitted.items() if not isinstance(value, torch.Tensor)}
        return values, {name: value for name, value in fitted.items() if isinstance(value, torch.Tensor)}

    @classmethod
    def restore(cls, config: Config, values: Mapping[str, Any], tensors: Tensors) -> Self:
        """The part that `save` took apart. Every value has to be of the type that its field says.

        Raises:
            ValueError: a value or a tensor is missing, too many or of another type.
        """
        given = json.dumps(dict(values), allow_nan=False)
        held = dict(_fitted_values(cls).model_validate_json(given, strict=True))
        wanted = {one.name for one in dataclasses.fields(cls) if _types(cls)[one.name] is torch.Tensor}  # type: ignore[arg-type]
        if tensors.keys() != wanted:
            raise ValueError(f"it has the tensors {sorted(tensors)}; expected {sorted(wanted)}")
        return cls(config=config, **held, **tensors)  # type: ignore[call-arg]

    def check_fitted(self, inputs: Mapping[str, Any]) -> None:  # noqa: B027 (a kind may have nothing to check)
        """Whether what was fitted agrees with itself and, for a target, with the inputs that it was fitted beside.

        An artifact may have been changed: what is restored is checked before anything is built or computed with it.

        Raises:
            ValueError: says what does not agree.
        """


def agree(whole: bool, what: str) -> None:
    """For `Part.check_fitted`.

    Raises:
        ValueError: `what` does not hold.
    """
    if not whole:
        raise ValueError(what)


@functools.cache
def _types(kind: type[Part]) -> dict[str, Any]:
    # A module may know torch to the type checker only (see sonde.base.lazy).
    return typing.get_type_hints(kind, localns={"Tensor": torch.Tensor})


@functools.cache
def _fitted_values(kind: type[Part]) -> type[BaseModel]:
    """A model of the fields of a kind that are saved as JSON."""
    types = _types(kind)
    fields: dict[str, Any] = {
        one.name: (types[one.name], ...)
        for one in dataclasses.fields(kind)  # type: ignore[arg-type]
        if one.name != "config" and types[one.name] is not torch.Tensor
    }
    return create_model(kind.__name__, __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields)


def collate(columns: Columns) -> Tensors:
    """Columns as tensors; a ragged one is padded, and "length" (B,) says how far it goes."""
    tensors: Tensors = {}
    for name, column in columns.items():
        if isinstance(column, Ragged):
            tensors[name] = column.padded()
            tensors["length"] = column.lengths
        else:
            tensors[name] = column
    return tensors
