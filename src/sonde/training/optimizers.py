"""Optimizers by name, and which parameters each of them updates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from sonde.base.config import Config
from sonde.base.errors import UserError
from sonde.networks import Network, layer_numbers
from sonde.training.light import SGD, Adam, AdamW
from sonde.training.muon import Muon


class OptimizerConfig(Config):
    kind: Literal["sgd", "adam", "adamw", "muon"] = Field(default="adamw", description="sgd, adam, adamw or muon")
    lr: float = Field(default=1e-3, gt=0, description="highest learning rate; the schedule scales it")
    weight_decay: float = Field(
        default=0.01, ge=0, description="decay of weight matrices; norms and biases are left out"
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="sgd and muon")
    nesterov: bool = Field(default=True, description="sgd and muon: look ahead along the momentum")
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="adam and adamw, and muon's other parameters")
    eps: float = Field(default=1e-8, gt=0, description="adam and adamw")
    lr_adamw: float | None = Field(
        default=None, gt=0, description="muon: learning rate of what AdamW trains (default lr / 10)"
    )

    lr_head: float | None = Field(
        default=None, gt=0, description="learning rate of the head, where the backbone is pretrained; lr if left out"
    )
    layer_decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="factor on the learning rate from each layer of the backbone to the one below; 1 is off",
    )
    unfreeze: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the training over which the layers join in, the last one first; 0: all from the start",
    )

    renamed: ClassVar[Mapping[str, str]] = {"lr_other": "lr_adamw"}

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_a_kind(cls, values: dict[str, object]) -> dict[str, object]:
        # A sensible rate differs a hundredfold between optimizers: the default follows the kind.
        rates = {"sgd": 0.1, "muon": 0.02}
        kind = values.get("kind")
        if isinstance(kind, str) and kind in rates and "lr" not in values:
            return {**values, "lr": rates[kind]}
        return values

    @model_validator(mode="after")
    def _muon_has_one_rate(self) -> OptimizerConfig:
        if self.kind == "muon" and (self.lr_head is not None or self.layer_decay < 1 or self.unfreeze):
            raise ValueError("lr_head, layer_decay and unfreeze are for sgd, adam and adamw")
        return self


def split_parameters(network: nn.Module, *, matrices: bool) -> tuple[dict[str, nn.Parameter], ...]:
    """Named parameters as (muon, decayed, not decayed).

    Norms, biases and other vectors are not decayed. With `matrices`, weights of two or more dimensions inside the
    network go to Muon; embeddings and the layers called `answer` that heads end in do not (Jordan 2024).
    """
    embeddings = {
        f"{path}.{name}" if path else name
        for path, module in network.named_modules()
        if isinstance(module, nn.Embedding)
        for name, _ in module.named_parameters(recurse=False)
    }
    groups: tuple[dict[str, nn.Parameter], ...] = ({}, {}, {})
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2:
            groups[2][name] = parameter
        elif matrices and name not in embeddings and ".answer." not in f".{name}":
            groups[0][name] = parameter
        else:
            groups[1][name] = parameter
    return groups


# The factor on a parameter's learning rate, and the share of the training after which it joins in.
Place = tuple[float, float]


def _places(config: OptimizerConfig, network: nn.Module) -> dict[str, Place]:
    """Where the parameters of a network's backbones and its head stand; those of other modules are all alike.

    Rates that fall towards the input: Clark et al. 2020 (ELECTRA); layers that join in from the last one on: Howard and
    Ruder 2018 (ULMFiT).
    """
    if not isinstance(network, Network):
        return {}
    places: dict[str, Place] = {}
    for name, backbone in network.backbones.items():
        numbers = layer_numbers(backbone)
        last = max(numbers.values(), default=0)
        for parameter, number in numbers.items():
            starts = config.unfreeze * (last - number + 1) / (last + 1)
            places[f"backbones.{name}.{parameter}"] = (config.layer_decay ** (last - number), starts)
    head = (config.lr_head or config.lr) / config.lr
    return places | {f"head.{name}": (head, 0.0) for name, _ in network.head.named_parameters()}


def _by_place(group: Mapping[str, nn.Parameter], places: Mapping[str, Place]) -> dict[Place, dict[str, nn.Parameter]]:
    found: dict[Place, dict[str, nn.Parameter]] = {}
    for name, parameter in group.items():
        found.setdefault(places.get(name, (1.0, 0.0)), {})[name] = parameter
    return found


def build(
    config: OptimizerConfig, network: nn.Module, matmul_dtype: torch.dtype = torch.bfloat16
) -> list[torch.optim.Optimizer]:
    """The optimizers of a network: one, or Muon and AdamW side by side. Each group keeps its full rate as
    "initial_lr".

    `matmul_dtype` is the number format of Muon's matrix products.

    Raises:
        UserError: nothing is left to train.
    """
    muon, decayed, plain = split_parameters(network, matrices=config.kind == "muon")
    if not muon and not decayed and not plain:
        raise UserError("no parameter of the network is trained", hint="set network.freeze to false")
    optimizers: list[torch.optim.Optimizer] = []
    lr = config.lr
    if muon:
        optimizers.append(
            Muon(
                muon.values(),
                lr=lr,
                momentum=config.momentum,
                nesterov=config.nesterov,
                weight_decay=config.weight_decay,
                matmul_dtype=matmul_dtype,
            )
        )
        lr = config.lr_adamw or lr / 10
    places = _places(config, network)
    groups = [
        {"params": list(part.values()), "weight_decay": decay, "lr": lr * factor, "starts": starts}
        for group, decay in ((decayed, config.weight_decay), (plain, 0.0))
        for (factor, starts), part in _by_place(group, places).items()
    ]
    if groups:
        if config.kind == "sgd":
            nesterov = config.nesterov and config.momentum > 0
            optimizers.append(SGD(groups, lr=lr, momentum=config.momentum, nesterov=nesterov, fused=True))
        elif config.kind == "adam":
            optimizers.append(Adam(groups, lr=lr, betas=config.betas, eps=config.eps, fused=True))
        else:
            optimizers.append(AdamW(groups, lr=lr, betas=config.betas, eps=config.eps, fused=True))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers
