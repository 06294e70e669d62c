"""Optimizers by name, and which parameters each of them updates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from sonde.base.config import Config
from sonde.base.errors import UserError
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
    groups = [
        {"params": list(group.values()), "weight_decay": decay}
        for group, decay in ((decayed, config.weight_decay), (plain, 0.0))
        if group
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
