"""A graph network: messages along edges, layer by layer; then an answer for each graph, or for each node."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from sonde.base.errors import UserError
from sonde.contracts.backbone import Backbone, BackboneConfig
from sonde.contracts.columns import Tensors
from sonde.contracts.specs import InputSpec, LayoutName, OutputSpec, Per
from sonde.networks.graph.layers import GCN, GIN, GPS, GATv2, random_walks
from sonde.networks.graph.segments import Edges, Segments, SparseRows, linear

# Attention over whole graphs and random walks take memory by the square of the largest graph.
LARGEST = 4096


class GraphConfig(BackboneConfig):
    kind: Literal["graph"] = "graph"
    layer: Literal["gcn", "gin", "gatv2", "transformer"] = Field(
        "gin", description="gcn, gin (with edge values: GINE), gatv2, or transformer (GPS: messages and attention)"
    )
    width: int = Field(128, ge=1, description="width of the vector of each node")
    layers: int = Field(4, ge=1, description="layers on top of each other: how far a node sees")
    heads: int = Field(4, ge=1, description="heads of gatv2 and transformer; width is a multiple")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of what each layer gives dropped")
    input_dropout: float = Field(0.0, ge=0, lt=1, description="share of what the nodes come with dropped")
    attention_dropout: float = Field(0.0, ge=0, lt=1, description="gatv2: share of a node's edges dropped")
    norm: Literal["none", "batch", "layer"] = Field("batch", description="after each layer; transformer has its own")
    residual: bool = Field(True, description="add what went into a layer to what comes out")
    project: bool = Field(True, description="bring nodes to the width before the first layer")
    virtual_node: bool = Field(False, description="a node joined to all others of its graph (Gilmer et al. 2017)")
    positions: int = Field(
        0, ge=0, le=64, description="steps of the random walks that tell a node's position; transformer: 16 is usual"
    )
    pool: Literal["mean", "sum", "max", "all"] = Field("mean", description="one vector from all nodes; all: three")
    readout: int = Field(1, ge=0, description="hidden layers between the pooled vector and the answer")

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> GraphConfig:
        if self.layer in ("gatv2", "transformer") and self.width % self.heads:
            raise ValueError(f"width = {self.width} is no multiple of heads = {self.heads}")
        if not self.project and self.layer == "transformer":
            raise ValueError("a transformer needs project = true")
        return self


class Graph(Backbone):
    """ "nodes" (M, C) and "edges" (2, E) to (B, W) for graphs or nodes "at" some place, or (M, W) for all nodes."""

    Config = GraphConfig
    accepts: ClassVar[tuple[LayoutName, ...]] = ("graph",)
    gives: ClassVar[tuple[Per, ...]] = ("example", "node")
    tiny: ClassVar[Mapping[str, Any]] = {"width": 8, "layers": 2, "heads": 2}

    def __init__(self, config: GraphConfig, spec: InputSpec, output: OutputSpec) -> None:
        super().__init__(config, spec, output)
        needs_square = config.layer == "transformer" or config.positions > 0
        if needs_square and spec.size[0] > LARGEST:
            raise UserError(
                "layer 'transformer' and positions take memory by the square of a graph, which may have "
                f"{spec.size[0]:,} nodes",
                expected=f"graphs of at most {LARGEST:,} nodes",
                hint='layer = "gcn", "gin" or "gatv2" with positions = 0',
            )
        self.config, self.per_example = config, output.chosen == "example"
        # GIN adds the nodes themselves.
        self.takes_sparse = config.project or config.layer in ("gcn", "gatv2")
        self.width = config.width
        channels = spec.channels + config.positions
        self.entry = nn.Linear(channels, config.width) if config.project else None
        inward = [config.width if config.project else channels] + [config.width] * (config.layers - 1)
        self.layers = nn.ModuleList(_layer(config, each, spec.edge_channels) for each in inward)
        with_norm = config.norm != "none" and config.layer != "transformer"
        kind = nn.BatchNorm1d if config.norm == "batch" else nn.LayerNorm
        self.norms = nn.ModuleList(kind(config.width) for _ in inward if with_norm)
        self.final = nn.LayerNorm(config.width) if config.layer == "transformer" else None
        self.virtual = nn.ModuleList(_mlp(config.width) for _ in inward[1:] if config.virtual_node)
        self.dropout, self.input_dropout = nn.Dropout(config.dropout), nn.Dropout(config.input_dropout)
        self.readout = nn.Sequential()
        if self.per_example and not spec.node_examples:
            pooled = config.width * (3 if config.pool == "all" else 1)
            sizes = [pooled] + [config.width] * max(config.readout, int(config.pool == "all"))
            for before, after in pairwise(sizes):
                self.readout.extend([nn.Linear(before, after), nn.ReLU(), nn.Dropout(config.dropout)])

    @classmethod
    def smaller(cls, config: GraphConfig) -> GraphConfig:
        width = max(config.heads, config.width // 2 // config.heads * config.heads)
        return config.model_copy(update={"width": width, "layers": max(1, config.layers // 2)})

    def forward(self, tensors: Tensors) -> Tensor:
        nodes_MC = tensors["nodes"]
        edges = Edges.of(tensors["edges"], tensors.get("edge_values"), len(nodes_MC))
        graphs = Segments.of(tensors["length"], len(nodes_MC))
        sparse = None if self.config.positions or not self.takes_sparse else SparseRows.of(tensors)
        values_MW = self._nodes(nodes_MC, sparse, edges, graphs)
        if not self.per_example:
            return values_MW
        if "at" in tensors:
            return values_MW.index_select(0, tensors["at"])
        return self.readout(self._pool(values_MW, graphs))

    def _enter(
        self, nodes_MC: Tensor, sparse: SparseRows | None, edges: Edges, graphs: Segments
    ) -> Tensor | SparseRows:
        """What the first layer is given: the nodes as they came, or brought to the width."""
        given: Tensor | SparseRows
        if sparse is not None:
            given = sparse.drop(self.config.input_dropout) if self.training else sparse
        else:
            if self.config.positions:
                walks = random_walks(edges, graphs, self.config.positions, nodes_MC.dtype)
                nodes_MC = torch.cat([nodes_MC, walks], dim=1)
            given = self.input_dropout(nodes_MC)
        return given if self.entry is None else linear(self.entry, given)

    def _nodes(self, nodes_MC: Tensor, sparse: SparseRows | None, edges: Edges, graphs: Segments) -> Tensor:
        config = self.config
        values: Any = self._enter(nodes_MC, sparse, edges, graphs)
        if config.layer == "gatv2":
            edges = edges.with_loops()
        virtual_BW = nodes_MC.new_zeros(len(graphs.count), config.width)
        for number, layer in enumerate(self.layers):
            if number and config.virtual_node:
                virtual_BW = virtual_BW + self.virtual[number - 1](graphs.sum(values) + virtual_BW)
                values = values + graphs.spread(virtual_BW)
            if config.layer == "transformer":
                values = layer(values, edges, graphs)
                continue
            found = layer(values, edges)
            if self.norms:
                found = self.norms[number](found)
            if number < len(self.layers) - 1:
                found = torch.relu(found)
            found = self.dropout(found)
            adds = config.residual and isinstance(values, Tensor) and found.shape == values.shape
            values = values + found if adds else found
        return values if self.final is None else self.final(values)

    def _pool(self, values_MW: Tensor, graphs: Segments) -> Tensor:
        if self.config.pool == "all":
            return torch.cat([graphs.mean(values_MW), graphs.sum(values_MW) / 16, graphs.max(values_MW)], dim=1)
        return {"mean": graphs.mean, "sum": graphs.sum, "max": graphs.max}[self.config.pool](values_MW)


def _layer(config: GraphConfig, inward: int, edge_channels: int) -> nn.Module:
    if config.layer == "gcn":
        return GCN(inward, config.width, edge_channels)
    if config.layer == "gin":
        return GIN(inward, config.width, edge_channels, batch_norm=config.norm == "batch")
    if config.layer == "gatv2":
        return GATv2(inward, config.width, edge_channels, heads=config.heads, dropout=config.attention_dropout)
    return GPS(config.width, edge_channels, heads=config.heads, dropout=config.dropout)


def _mlp(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
