"""Low-rank adapters on the layers of any backbone, and peft's format for them, in and out.

A adapter's first layer (in to rank), B its second (rank to out).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from sonde.base import files
from sonde.base.errors import UserError, near
from sonde.contracts.adapters import LoraConfig
from sonde.contracts.backbone import Backbone
from sonde.contracts.weights import listing
from sonde.networks._quantized import Linear4bit, quantize

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# What peft puts before the names of the network that an adapter belongs to.
PREFIX = "base_model.model."
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# Kinds of adapters of peft's that compute something else.
OTHER_KINDS = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "layers_to_transform", "modules_to_save")


def apply(backbone: Backbone, config: LoraConfig, *, restoring: bool = False) -> None:
    """Freeze a backbone and put adapters beside its layers; at first they add nothing, unless they come from a file.

    Raises:
        UserError: no layer has such a name, or the adapter is not one of this network.
    """
    held: dict[str, Tensor] = {}
    if config.adapter is not None:
        config, held = _read(backbone, config, restoring=restoring)
    backbone.requires_grad_(False)
    chosen = _chosen(backbone, config)
    if config.quantize is not None:
        quantize(backbone, config.quantize)
        chosen = {name: backbone.get_submodule(name) for name in chosen}
    for layer in chosen.values():
        _add(layer, config)
    if held:
        backbone.load_state_dict(held, strict=False)


def settings_of(backbone: nn.Module, config: LoraConfig) -> LoraConfig:
    """The settings that put the same adapters beside the same layers, without the place where they came from."""
    layers = adapted(backbone)
    first = next(iter(layers.values()))
    rank = len(first.lora_A.weight)
    named = tuple(layers) if config.adapter is not None else config.layers
    return config.model_copy(
        update={"rank": rank, "alpha": first.lora_scale * rank, "layers": named, "adapter": None, "merge": False}
    )


def adapted(module: nn.Module) -> dict[str, Any]:
    """The layers of a network that have an adapter, by name."""
    return {name: each for name, each in module.named_modules() if isinstance(getattr(each, "lora_A", None), nn.Module)}


def _candidates(backbone: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, each in backbone.named_modules():
        # torch's own attention computes with the weights of its projections, past their forward.
        if isinstance(each, nn.modules.linear.NonDynamicallyQuantizableLinear):
            continue
        if isinstance(each, (nn.Linear, *CONVOLUTIONS)) or _is_transposed(each):
            yield name, each


def _chosen(backbone: Backbone, config: LoraConfig) -> dict[str, nn.Module]:
    candidates = dict(_candidates(backbone))
    if config.layers is None:
        # Of depthwise convolutions, which are thin themselves, there is nothing to save.
        found = {name: each for name, each in candidates.items() if getattr(each, "groups", 1) == 1}
    else:
        found = {name: each for name, each in candidates.items() if any(_ends(name, end) for end in config.layers)}
        lost = [end for end in config.layers if not any(_ends(name, end) for name in found)]
        ends = sorted({name.rpartition(".")[2] for name in candidates})
        if lost:
            close = near(lost[0], ends)
            raise UserError(
                f"network.lora.layers: no linear layer or convolution of the network ends in {lost[0]!r}",
                expected=f"one of: {listing(ends)}",
                hint=f"did you mean {close!r}?" if close else None,
            )
        grouped = [name for name, each in found.items() if getattr(each, "groups", 1) != 1]
        if grouped:
            raise UserError(
                f"network.lora.layers: {grouped[0]} is a convolution in groups, which gets no adapter",
                hint="name other layers",
            )
    if not found:
        raise UserError("network.lora: the network has no linear layer or convolution", hint="leave lora out")
    return found


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def _is_transposed(layer: nn.Module) -> bool:
    """GPT-2's linear layers in transformers, whose weight is (in, out)."""
    return type(layer).__name__ == "Conv1D" and isinstance(getattr(layer, "nf", None), int)


def _add(layer: Any, config: LoraConfig) -> None:
    """The adapter of one layer, beside it under names of its own: its weights keep theirs."""
    layer.lora_A, layer.lora_B = _thin_layers(layer, config.rank)
    nn.init.kaiming_uniform_(layer.lora_A.weight, a=math.sqrt(5))
    nn.init.zeros_(layer.lora_B.weight)
    layer.lora_dropout = nn.Dropout(config.dropout)
    layer.lora_scale = config.scale
    layer.register_forward_hook(_added)


def _thin_layers(layer: Any, rank: int) -> tuple[Any, Any]:
    """From what goes into a layer to `rank` values, and from there to what comes out of it."""
    if isinstance(layer, CONVOLUTIONS):
        # The same class, so that one that pads in a way of its own (timm's "same") is followed.
        kind: Any = type(layer)
        plain: Any = next(each for each in CONVOLUTIONS if isinstance(layer, each))
        geometry = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
        first = kind(layer.in_channels, rank, layer.kernel_size, bias=False, **geometry)
        return first, plain(rank, layer.out_channels, 1, bias=False)
    inward, outward = layer.weight.shape if _is_transposed(layer) else (layer.in_features, layer.out_features)
    return nn.Linear(inward, rank, bias=False), nn.Linear(rank, outward, bias=False)


def _added(layer: Any, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output + layer.lora_scale * layer.lora_B(layer.lora_A(layer.lora_dropout(given[0])))


@torch.no_grad()
def merge(module: nn.Module) -> None:
    """Add every adapter to the layer that it stands beside, and take it away; 4-bit layers become full ones."""
    for name, layer in adapted(module).items():
        delta = _delta(layer)
        if isinstance(layer, Linear4bit):
            plain = layer.dequantized()
            plain.weight.add_(delta)
            parent, _, last = name.rpartition(".")
            setattr(module.get_submodule(parent), last, plain)
            continue
        layer.weight.add_(delta.T if _is_transposed(layer) else delta)
        del layer.lora_A, layer.lora_B, layer.lora_dropout, layer.lora_scale
        for key, hook in list(layer._forward_hooks.items()):
            if hook is _added:
                del layer._forward_hooks[key]
    for name, layer in list(module.named_modules()):
        if isinstance(layer, Linear4bit):
            parent, _, last = name.rpartition(".")
            setattr(module.get_submodule(parent), last, layer.dequantized())


def _delta(layer: Any) -> Tensor:
    """What an adapter adds to its layer, in the shape of that layer's weight (out, in, ...)."""
    a, b = layer.lora_A.weight, layer.lora_B.weight
    return layer.lora_scale * (b.flatten(1) @ a.flatten(1)).reshape(len(b), *a.shape[1:])


def write(backbone: Backbone, config: LoraConfig, folder: Path, *, base: str) -> int:
    """The adapter in peft's format, in a folder of its own; gives its bytes. `base` says what it belongs to."""
    layers = adapted(backbone)
    names = [_outside(backbone, name) for name in layers]
    tensors = {
        f"{PREFIX}{outside}.{part}.weight": getattr(layer, part).weight.detach().cpu().contiguous()
        for outside, layer in zip(names, layers.values(), strict=True)
        for part in ("lora_A", "lora_B")
    }
    first = next(iter(layers.values()))
    rank = len(first.lora_A.weight)
    described = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": first.lora_scale * rank,
        "lora_dropout": config.dropout,
        "target_modules": names,
        "bias": "none",
        "fan_in_fan_out": _is_transposed(first),
        "inference_mode": True,
    }
    content = save(tensors, {"format": "pt"})
    with files.folder(folder) as new:
        files.write_json(new / CONFIG, described)
        files.write_bytes(new / WEIGHTS, content)
    return len(content)


def _outside(backbone: Backbone, name: str) -> str:
    """A name as the library has it that the network comes from."""
    return backbone.foreign + name.removeprefix(backbone.inner)


def _read(backbone: Backbone, config: LoraConfig, *, restoring: bool) -> tuple[LoraConfig, dict[str, Tensor]]:
    """The settings and weights of an adapter, under the names that they have in this backbone.

    Raises:
        UserError: there is none, it is of a kind that is not known, or one of another network.
    """
    folder = Path(str(config.adapter))
    try:
        described = files.read_json(folder / CONFIG)
        held = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"network.lora.adapter: {folder} is no adapter: {error}", expected=f"a folder with {CONFIG} and {WEIGHTS}"
        ) from error
    strange = [name for name in OTHER_KINDS if described.get(name)]
    if described.get("peft_type") != "LORA" or strange:
        kind = f"{described.get('peft_type')}" + (f" with {', '.join(strange)}" if strange else "")
        raise UserError(f"network.lora.adapter: {folder} is of the kind {kind}", expected="plain LoRA")
    candidates = {_outside(backbone, name): name for name, _ in _candidates(backbone)}
    mapped = _mapped({name.removeprefix(PREFIX): value for name, value in held.items()}, candidates)
    if mapped is None:
        raise UserError(
            f"network.lora.adapter: {folder} is not one of this network: it belongs to "
            f"{listing(sorted({name.rpartition('.lora_')[0].removeprefix(PREFIX) for name in held}))}",
            expected=f"layers such as {listing(list(candidates))}",
        )
    layers = tuple(dict.fromkeys(name.rpartition(".lora_")[0] for name in mapped))
    update = {"rank": int(described["r"]), "alpha": float(described["lora_alpha"]), "layers": layers, "adapter": None}
    return config.model_copy(update=update), {} if restoring else mapped


def _mapped(held: Mapping[str, Tensor], candidates: Mapping[str, str]) -> dict[str, Tensor] | None:
    """Weights under this network's names. An adapter of a whole model (a classifier) has the encoder's name first."""
    split = [(name.rpartition(".lora_"), value) for name, value in held.items()]
    first = split[0][0][0] if split else ""
    parts = first.split(".")
    for cut in range(len(parts)):
        prefix = ".".join(parts[:cut]) + ("." if cut else "")
        if all(layer.startswith(prefix) and layer.removeprefix(prefix) in candidates for (layer, _, _), _ in split):
            return {f"{candidates[layer.removeprefix(prefix)]}.lora_{rest}": value for (layer, _, rest), value in split}
    return None
