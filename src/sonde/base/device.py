"""Where the numbers are computed and in which format."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Literal

import torch


def choose_device() -> torch.device:
    """The accelerator that is there, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The number format of matrix products and convolutions; weights, losses and statistics stay in float32."""

    kind: Literal["fp32", "bf16"]
    device: torch.device

    def __call__(self) -> contextlib.AbstractContextManager[object]:
        if self.kind == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def choose_precision(kind: Literal["auto", "fp32", "bf16"], device: torch.device) -> Precision:
    """`auto` is bf16 where the processor computes in it, fp32 elsewhere."""
    if kind == "auto":
        if device.type == "cuda":
            kind = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
        else:
            kind = "bf16" if device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported() else "fp32"
    return Precision(kind=kind, device=device)
