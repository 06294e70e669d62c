"""Weights by name into a module: what fits, and what is told where it does not."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sonde.base.errors import UserError

# How many names an error lists.
LISTED = 8


def load_by_name(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put weights into a module whose names and shapes they have.

    Raises:
        UserError: something is missing, left over or of another shape; nothing was changed.
    """
    wrong = misfits(module.state_dict(), weights)
    if wrong:
        raise UserError(
            f"the weights do not fit {type(module).__name__}: {wrong}",
            expected="the weights of a network of this kind with these settings",
            hint="set network.weights to the file of this network, and its settings to those that it was trained with",
        )
    module.load_state_dict(dict(weights))


def misfits(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    """What keeps weights from going where a module's own are, by name; "" where nothing does. No value is looked at."""
    missing = [name for name in own if name not in weights]
    unused = [name for name in weights if name not in own]
    both = [(name, value, weights[name]) for name, value in own.items() if name in weights]
    other = [f"{name} {tuple(new.shape)} for {tuple(old.shape)}" for name, old, new in both if old.shape != new.shape]
    kind = [f"{name} {_dtype(new)} for {_dtype(old)}" for name, old, new in both if _nature(old) != _nature(new)]
    lists = (
        ("missing", missing),
        ("not used", unused),
        ("of another shape", other),
        ("of another kind of number", kind),
    )
    return "; ".join(f"{len(names)} {what}: {listing(names)}" for what, names in lists if names)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _nature(tensor: Tensor) -> tuple[bool, bool, bool]:
    return tensor.is_floating_point(), tensor.is_complex(), tensor.dtype == torch.bool


def listing(names: list[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
