"""Files of pretrained weights: read without running code, and matched with a network's own names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sonde.base.errors import UserError
from sonde.contracts.weights import listing

# Under which name training scripts keep the weights, beside the optimizer and the epoch.
NESTED = ("state_dict", "model_state_dict", "model", "net", "network")
# What data-parallel training and compiling put before every name.
PREFIXES = ("module.", "_orig_mod.")
FORMATS = "a .safetensors or .pth file of tensors by name, or a folder that holds one"
# The last tensors may differ: a classifier for other classes, its weight and its bias.
CLASSIFIER = 2


def read(path: Path) -> dict[str, Tensor]:
    """The weights in a file, or in the only checkpoint of a folder; pickled code is never run.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        raise UserError(f"network.weights: there is no file {path}", expected=FORMATS)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return _tensors(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a damaged file can fail in many ways
        if isinstance(error, (SafetensorError, OSError)) or path.suffix != ".safetensors":
            raise UserError(f"the weights in {path} cannot be read: {_first_line(error)}", expected=FORMATS) from error
        raise


def _of_folder(path: Path) -> dict[str, Tensor]:
    for index in sorted(path.glob("*.safetensors.index.json")):
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        return {name: value for shard in shards for name, value in read(path / shard).items()}
    for ending in ("safetensors", "pth", "pt", "bin"):
        found = sorted(path.glob(f"*.{ending}"))
        if len(found) == 1:
            return read(found[0])
        if found:
            names = listing([each.name for each in found])
            raise UserError(
                f"network.weights: {path} holds {len(found)} files of weights: {names}",
                hint="give the path of one of them",
            )
    raise UserError(f"network.weights: there is no file of weights in {path}", expected=FORMATS)


def _tensors(held: Any) -> dict[str, Tensor]:
    """The mapping of names to tensors somewhere in what training saved."""
    for name in NESTED:
        if isinstance(held, Mapping) and isinstance(held.get(name), Mapping):
            held = held[name]
            break
    weights = {str(name): value for name, value in dict(held).items() if isinstance(value, Tensor)}
    if not weights:
        raise ValueError("it holds no mapping of names to tensors")
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def by_order(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The same weights under the network's own names, where no name fits but number, order and shapes of all tensors
    do (those of a last classifier apart): the same network, written down in other words. None where that is not so."""
    if len(own.keys() & weights.keys()) > len(own) / 2:
        return None
    counted = [name for name in own if not name.endswith("num_batches_tracked")]
    theirs = [name for name in weights if not name.endswith("num_batches_tracked")]
    if len(counted) != len(theirs):
        return None
    fits = [own[mine].shape == weights[their].shape for mine, their in zip(counted, theirs, strict=True)]
    same_rank = all(own[mine].ndim == weights[their].ndim for mine, their in zip(counted, theirs, strict=True))
    if not same_rank or not all(fits[:-CLASSIFIER]):
        return None
    return {mine: weights[their] for mine, their in zip(counted, theirs, strict=True)}


def differences(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """What the network lacks of a checkpoint, what the checkpoint lacks of the network, and what has another shape."""
    missing = [name for name in own if name not in weights]
    unused = [name for name in weights if name not in own]
    other = [
        f"{name} {tuple(weights[name].shape)} for {tuple(value.shape)}"
        for name, value in own.items()
        if name in weights and weights[name].shape != value.shape
    ]
    lists = (
        ("of the network are not in the checkpoint", missing),
        ("of the checkpoint are not in the network", unused),
        ("have another shape", other),
    )
    return [f"{len(names)} {what}: {listing(names)}" for what, names in lists if names]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
