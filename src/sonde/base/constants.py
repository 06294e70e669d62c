"""Small fixed numbers as tensors, made once for each device."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def constant(values: Sequence[float], device: torch.device) -> Tensor:
    """A float32 tensor (N,) of these values on a device. It is shared: never change it in place."""
    return _made(tuple(values), device)


@functools.lru_cache(maxsize=256)
def _made(values: tuple[float, ...], device: torch.device) -> Tensor:
    # A tensor made in inference mode could not be used in training afterwards.
    with torch.inference_mode(False):
        return torch.tensor(values, device=device, dtype=torch.float32)
