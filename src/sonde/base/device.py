"""Where the numbers are computed and in which format."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

Format = Literal["fp32", "bf16", "bf16-math"]


def choose_device() -> torch.device:
    """The accelerator that is there, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The number format of matrix products and convolutions; weights, losses and statistics stay in float32.

    `bf16` is autocast: activations are kept in bfloat16. `bf16-math` keeps everything in float32 and lets oneDNN
    multiply in bfloat16.
    """

    kind: Format
    device: torch.device

    @property
    def matmul_dtype(self) -> torch.dtype:
        """For matrix matmul_dtype that no autocast reaches."""
        return torch.float32 if self.kind == "fp32" else torch.bfloat16

    def forward(self) -> contextlib.AbstractContextManager[object]:
        """For the forward pass."""
        if self.kind != "bf16":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def matmul_precision(self) -> contextlib.AbstractContextManager[object]:
        """For forward and backward pass."""
        return _bf16_math() if self.kind == "bf16-math" else contextlib.nullcontext()


@contextlib.contextmanager
def _bf16_math() -> Iterator[None]:
    places = (torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv, torch.backends.mkldnn.rnn)  # type: ignore[attr-defined]
    before = [place.fp32_precision for place in places]
    for place in places:
        place.fp32_precision = "bf16"
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out; the CPU's allocator says so in words only."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def formats(device: torch.device) -> tuple[Format, ...]:
    """The formats that a device computes in quickly, fp32 first."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return ("fp32", "bf16")
    if device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return ("fp32", "bf16", "bf16-math")
    return ("fp32",)
