"""Multilayer perceptron: linear layers and activations, for tables (embeds categories), vectors and small pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from sonde.contracts.backbone import Backbone
from sonde.contracts.columns import Tensors
from sonde.contracts.specs import InputSpec, LayoutName, OutputSpec, Per
from sonde.networks._columns import ColumnsAsVector, ColumnsConfig
from sonde.networks._layers import Activation, Widths, activation, initialize


class MlpConfig(ColumnsConfig):
    kind: Literal["mlp"] = "mlp"
    hidden: Widths = Field((256, 128), description="width of each hidden layer; [] is a linear model")
    activation: Activation = Field("relu", description="relu, leaky-relu, gelu, silu, tanh or sigmoid")
    norm: Literal["none", "batch", "layer"] = Field("none", description="none, batch or layer, after each linear layer")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of each hidden layer's values dropped in training")


class Mlp(Backbone):
    """(B, C), (B, columns) or (B, C, H, W) to (B, hidden[-1])."""

    Config = MlpConfig
    accepts: ClassVar[tuple[LayoutName, ...]] = ("vector", "columns", "grid")
    gives: ClassVar[tuple[Per, ...]] = ("example",)
    tiny: ClassVar[Mapping[str, Any]] = {"hidden": [16], "embedding": 4, "resolution": 4}

    def __init__(self, config: MlpConfig, spec: InputSpec, output: OutputSpec) -> None:
        super().__init__(config, spec, output)
        self.layout = spec.layout
        if spec.layout == "columns":
            self.columns = ColumnsAsVector(config, spec)
            width = self.columns.width
        else:
            width = spec.channels * math.prod(spec.size)
        layers: list[nn.Module] = []
        for hidden in config.hidden:
            layers += [nn.Linear(width, hidden), _norm(config.norm, hidden), activation(config.activation)]
            layers += [nn.Dropout(config.dropout)]
            width = hidden
        self.layers = nn.Sequential(*layers)
        initialize(self.layers, config.activation)
        self.width = width

    @classmethod
    def smaller(cls, config: MlpConfig) -> MlpConfig:
        return config.model_copy(update={"hidden": tuple(max(8, width // 4) for width in config.hidden[:1])})

    def forward(self, tensors: Tensors) -> Tensor:
        if self.layout == "columns":
            return self.layers(self.columns(tensors))
        return self.layers(tensors[self.layout].flatten(1))


def _norm(name: Literal["none", "batch", "layer"], width: int) -> nn.Module:
    if name == "batch":
        return nn.BatchNorm1d(width)
    return nn.LayerNorm(width) if name == "layer" else nn.Identity()
