"""Linear layers whose weight is kept in 4 bits (Dettmers et al. 2023), by the kernels of bitsandbytes."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from sonde.base.errors import UserError
from sonde.base.quiet import quiet

# Weights that share a scale.
BLOCK = 64


def library() -> Any:
    try:
        with quiet("bitsandbytes"), quiet("bitsandbytes.backends.utils"):
            import bitsandbytes
    except ImportError as error:
        raise UserError(
            f"4-bit layers need the package bitsandbytes: {error}", hint="pip install 'sonde[qlora]'"
        ) from error
    return bitsandbytes


class Linear4bit(nn.Module):
    """A linear layer (in to out) with its weight in 4 bits, `packed`, and a scale for every 64 of them, `absmax`.

    These are plain buffers: checkpoints and artifacts hold them as they are. The weight itself is not trained; the
    gradient goes through it.
    """

    def __init__(self, layer: nn.Linear, kind: Literal["nf4", "fp4"]) -> None:
        super().__init__()
        self.in_features, self.out_features, self.kind = layer.in_features, layer.out_features, kind
        packed, absmax, code = _packed(layer.weight.detach(), kind)
        self.packed: Tensor
        self.absmax: Tensor
        self.register_buffer("packed", packed)
        self.register_buffer("absmax", absmax)
        self.register_buffer("code", code)
        self.bias = layer.bias

    @property
    def _state(self) -> Any:
        return library().functional.QuantState(
            absmax=self.absmax,
            shape=torch.Size((self.out_features, self.in_features)),
            code=self.code,
            blocksize=BLOCK,
            quant_type=self.kind,
            dtype=torch.float32,
        )

    def forward(self, x: Tensor) -> Tensor:
        # The product is in float32 whatever autocast says: the scales are.
        with torch.autocast(x.device.type, enabled=False):
            return library().matmul_4bit(x.float(), self.packed.t(), quant_state=self._state, bias=self.bias)

    def dequantized(self) -> nn.Linear:
        """The full layer that it stands for."""
        plain = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device=self.packed.device)
        with torch.no_grad():
            plain.weight.copy_(library().functional.dequantize_4bit(self.packed, self._state))
        if self.bias is not None:
            plain.bias = self.bias
        return plain.requires_grad_(False)


def _packed(weight: Tensor, kind: Literal["nf4", "fp4"]) -> tuple[Tensor, Tensor, Tensor]:
    """Two weights a byte, a scale for each block, and the 16 values that there are."""
    if weight.is_meta:
        count = weight.numel()
        return (
            weight.new_empty(count // 2, 1, dtype=torch.uint8),
            weight.new_empty(count // BLOCK),
            weight.new_empty(16),
        )
    packed, state = library().functional.quantize_4bit(weight.float(), blocksize=BLOCK, quant_type=kind)
    return packed, state.absmax, state.code


def quantize(module: nn.Module, kind: Literal["nf4", "fp4"]) -> None:
    """Keep every linear layer inside in 4 bits, those apart whose rows are no multiple of 64.

    Raises:
        UserError: there is none, or bitsandbytes is not installed.
    """
    chosen = [
        name for name, layer in module.named_modules() if type(layer) is nn.Linear and layer.in_features % BLOCK == 0
    ]
    if not chosen:
        raise UserError(
            f"network.lora.quantize: the network has no linear layer of a multiple of {BLOCK} inputs",
            hint="leave quantize out",
        )
    for name in chosen:
        parent, _, last = name.rpartition(".")
        layer = module.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        setattr(module.get_submodule(parent), last, Linear4bit(layer, kind))
