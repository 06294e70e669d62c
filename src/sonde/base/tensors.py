"""Tensors and JSON values in one safetensors file that notices every flipped bit and every missing byte."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from sonde.base import files
from sonde.base.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

# Length of the digest, in hexadecimal digits.
DIGITS = 32


def write(path: Path, tensors: Mapping[str, Tensor], values: object) -> None:
    """Replace `path` by a file of these tensors and values, whole or not at all."""
    whole = unshared(tensors)
    text = json.dumps(values, allow_nan=False)
    # One key: safetensors writes several in no fixed order, and the same state has to give the same bytes.
    files.write_bytes(path, save(whole, metadata={"sonde": _digest(whole, text) + text}))


def unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, none of them in the memory of another: tied weights have several names."""
    held: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        place = value.untyped_storage().data_ptr()
        held[name] = value.clone() if value.numel() and place in seen else value
        seen.add(place)
    return held


def read(path: Path) -> tuple[dict[str, Tensor], Any]:
    """What `write` wrote.

    Raises:
        UserError: the file is missing, cut short or changed.
    """
    try:
        with safe_open(path, framework="pt") as file:
            digest, text = _metadata(file)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if digest != _digest(tensors, text):
            raise ValueError("its content does not match its digest")
        return tensors, json.loads(text)
    except MemoryError:
        raise
    except Exception as error:  # a damaged header can fail in many ways
        raise UserError(
            f"{path} is damaged: {error}", hint="restore it from a copy, or use another checkpoint"
        ) from error


def read_values(path: Path) -> Any:
    """Only the values, without reading or verifying the tensors."""
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads(_metadata(file)[1])
    except Exception as error:
        raise UserError(f"{path} is damaged: {error}") from error


def _metadata(file: Any) -> tuple[str, str]:
    """The digest, and the values as JSON."""
    held = (file.metadata() or {})["sonde"]
    return held[:DIGITS], held[DIGITS:]


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=DIGITS // 2)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
