"""TabM: many small multilayer perceptrons in one, for tables; what leads on them beside gradient boosting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sonde.contracts.backbone import Backbone
from sonde.contracts.columns import Tensors
from sonde.contracts.specs import InputSpec, LayoutName, OutputSpec, Per
from sonde.networks._columns import ColumnsAsVector, ColumnsConfig
from sonde.networks._layers import Activation, Widths, activation, initialize


class TabmConfig(ColumnsConfig):
    kind: Literal["tabm"] = "tabm"
    members: int = Field(16, ge=1, le=1024, description="how many networks are trained as one; answers are their mean")
    hidden: Widths = Field((256, 256), min_length=1, description="width of each hidden layer, shared by all members")
    activation: Activation = Field("relu", description="relu, leaky-relu, gelu, silu, tanh or sigmoid")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of each hidden layer's values dropped in training")


class Tabm(Backbone):
    """(B, columns) or (B, C) to (B, hidden[-1]), once for every member in training: (B * members, hidden[-1]).

    "TabM-mini" of Gorishniy et al. 2025, "TabM: Advancing Tabular Deep Learning with Parameter-Efficient Ensembling":
    all weights are shared, but each member scales what goes in by numbers of its own; here also what comes out, so that
    the one head answers for each member in its own way. Each is trained on every example by its own loss; answers are
    averaged.
    """

    Config = TabmConfig
    accepts: ClassVar[tuple[LayoutName, ...]] = ("columns", "vector")
    gives: ClassVar[tuple[Per, ...]] = ("example",)
    ensemble: ClassVar[bool] = True
    tiny: ClassVar[Mapping[str, Any]] = {"members": 3, "hidden": [16], "embedding": 4, "resolution": 4}

    def __init__(self, config: TabmConfig, spec: InputSpec, output: OutputSpec) -> None:
        nn.Module.__init__(self)
        self.columns = ColumnsAsVector(config, spec) if spec.layout == "columns" else None
        width = spec.channels if self.columns is None else self.columns.width
        # Random signs: members that see mirrored inputs learn different things from the start (Wen et al. 2020).
        # Vectors, not matrices: optimizers neither decay nor orthogonalize vectors, and no scale should be.
        self.scale_in = nn.Parameter(torch.randint(0, 2, (config.members * width,)).float() * 2 - 1)
        layers: list[nn.Module] = []
        for hidden in config.hidden:
            layers += [nn.Linear(width, hidden), activation(config.activation), nn.Dropout(config.dropout)]
            width = hidden
        self.layers = nn.Sequential(*layers)
        initialize(self.layers, config.activation)
        self.scale_out = nn.Parameter(1 + 0.5 * torch.randn(config.members * width))
        self.width = width
        self.members = config.members

    @classmethod
    def smaller(cls, config: TabmConfig) -> TabmConfig:
        return config.model_copy(update={"members": max(1, config.members // 4), "hidden": config.hidden[:1]})

    def forward(self, tensors: Tensors) -> Tensor:
        values_BW = tensors["vector"] if self.columns is None else self.columns(tensors)
        scale_in_KW, scale_out_KW = (each.view(self.members, -1) for each in (self.scale_in, self.scale_out))
        features_BKW = self.layers(values_BW[:, None] * scale_in_KW) * scale_out_KW
        return features_BKW.flatten(0, 1)
