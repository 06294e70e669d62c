"""Weights by name into a module: what fits, and what is told where it does not."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from sonde.base.errors import UserError

# How many names an error lists.
LISTED = 8


def load_by_name(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put weights into a module whose names and shapes they have.

    Raises:
        UserError: something is missing, left over or of another shape; nothing was changed.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in weights]
    unused = [name for name in weights if name not in own]
    other = [
        f"{name} {tuple(weights[name].shape)} for {tuple(value.shape)}"
        for name, value in own.items()
        if name in weights and weights[name].shape != value.shape
    ]
    if missing or unused or other:
        lists = (("missing", missing), ("not used", unused), ("of another shape", other))
        raise UserError(
            f"the weights do not fit {type(module).__name__}: "
            + "; ".join(f"{len(names)} {what}: {listing(names)}" for what, names in lists if names),
            expected="the weights of a network of this kind with these settings",
            hint="set network.weights to the file of this network, and its settings to those that it was trained with",
        )
    module.load_state_dict(dict(weights))


def listing(names: list[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
