"""Features that were computed before: as columns beside the examples, and back into what a head takes.

N example, B example of a batch, T position, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sonde.contracts.columns import Columns, Ragged, Tensors
from sonde.contracts.specs import Features

# The columns are called so; of grids there is one for each level.
NAME = "features"
LENGTH = "features_length"


def to_columns(features: Features) -> Columns:
    """Columns of the examples of one batch: fixed vectors or grids, or ragged ones of the positions that are real."""
    values = features.values
    if isinstance(values, tuple):
        return {f"{NAME}.{level}": grid.cpu() for level, grid in enumerate(values)}
    if values.ndim == 2:
        return {NAME: values.cpu()}
    values = values.cpu()
    lengths = torch.full((len(values),), values.shape[1])
    if features.inside_BT is not None:
        lengths = features.inside_BT.sum(1).cpu()
    inside_BT = torch.arange(values.shape[1]) < lengths[:, None]
    return {NAME: Ragged(values=values[inside_BT], starts=lengths.cumsum(0) - lengths, lengths=lengths)}


def names(columns: Columns) -> list[str]:
    """Which of an input's columns hold features."""
    return [name for name in columns if name == NAME or name.startswith(f"{NAME}.")]


def collate(columns: Columns) -> Tensors:
    """Tensors of features: what is ragged padded with zeros, with its length beside it."""
    tensors: Tensors = {}
    for name, column in columns.items():
        if isinstance(column, Ragged):
            tensors[name] = column.padded()
            tensors[LENGTH] = column.lengths
        else:
            tensors[name] = column
    return tensors


def from_tensors(tensors: Tensors, size: tuple[int, ...]) -> Features | None:
    """The features that a batch brings along; None where it brings the input itself. `size` is that of a grid."""
    if f"{NAME}.0" in tensors:
        count = sum(name.startswith(f"{NAME}.") for name in tensors)
        return Features(values=tuple(tensors[f"{NAME}.{level}"] for level in range(count)), size=size)
    if NAME not in tensors:
        return None
    values = tensors[NAME]
    return Features(values=values, inside_BT=_inside(tensors, values))


def _inside(tensors: Tensors, values: Tensor) -> Tensor | None:
    if LENGTH not in tensors:
        return None
    return torch.arange(values.shape[1], device=values.device) < tensors[LENGTH][:, None]
