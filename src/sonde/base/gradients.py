"""Methods that need no gradient."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def without_gradient(method: Callable[P, T]) -> Callable[P, T]:
    """As `torch.no_grad()`, which torch has to be loaded for when the class is made: `sonde new` does without it."""

    @functools.wraps(method)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with torch.no_grad():
            return method(*args, **kwargs)

    return wrapped
