"""Graphs: nodes and edges with numbers and names, from any source of graphs or as JSON holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field

from sonde.base import graphs
from sonde.base.config import Config
from sonde.base.errors import RecordError, UserError
from sonde.base.graphs import Graph as Value
from sonde.contracts.columns import Columns, Ragged, Tensors
from sonde.contracts.finding import Finding, judged
from sonde.contracts.input import Input
from sonde.contracts.part import agree
from sonde.contracts.records import Record, Records
from sonde.contracts.specs import Advice, InputSpec, OutputSpec
from sonde.inputs._graphs import RAGGED, both_ways, degrees, described, lay_out, one_hots

FEW = 5000


class GraphConfig(Config):
    kind: Literal["graph"] = "graph"
    field: str = Field(default="graph", description="the field that holds the graph")
    directed: bool = Field(default=False, description="whether an edge leads one way only")
    max_nodes: int = Field(default=1000, ge=1, description="a graph with more nodes than this is unreadable")


@dataclass(frozen=True, kw_only=True)
class Graph(Input):
    """On the graph layout. Encoded: "nodes" float32 (n, C + K), standardized numbers, then the code of each category;
    "edges" int32 (e, 2), in both directions unless directed; "edge_values" likewise.

    `centre` and `spread` are those of all training nodes; `values` are the texts that codes stand for, 1 the first, 0
    what training never showed. `plain`: nothing is said of nodes, and their degrees stand in.
    """

    Config = GraphConfig
    pads: ClassVar[bool] = False
    ragged: ClassVar = RAGGED

    config: GraphConfig
    centre: list[float]
    spread: list[float]
    values: list[list[str]]
    edge_centre: list[float]
    edge_spread: list[float]
    edge_values: list[list[str]]
    plain: bool

    @classmethod
    def fit(cls, config: GraphConfig, records: Records) -> Self:
        if config.field not in records.fields:
            raise UserError(f"there is no field {config.field!r}", expected="one of: " + ", ".join(records.fields))
        found: list[Value] = []
        first: RecordError | None = None
        for value in records.fields[config.field]:
            try:
                found.append(_read(value, config))
            except RecordError as error:
                first = first or error
        if not found:
            raise UserError(f"no record of the training split has a graph: {first.what if first else 'there is none'}")
        # A graph without edges cannot tell what is said of edges.
        joined = [each for each in found if len(each.edges)] or found[:1]
        shapes = {(*_shape(each)[:2], *_shape(other)[2:]) for each in found for other in joined[:1]}
        shapes |= {_shape(each) for each in joined}
        if len(shapes) > 1:
            raise UserError(
                f"the graphs differ in what they say of nodes and edges: {_said(min(shapes))}; {_said(max(shapes))}",
                expected="the same numbers and texts for each",
            )
        centre, spread = _scaled([each.numbers for each in found])
        edge_centre, edge_spread = _scaled([each.edge_numbers for each in joined])
        nothing = not found[0].numbers.shape[1] + found[0].categories.shape[1]
        _, values = described(*_together(found, "numbers", "categories"), None)
        _, edge_values = described(*_together(joined, "edge_numbers", "edge_categories"), None)
        return cls(
            config=config,
            centre=centre,
            spread=spread,
            values=values,
            edge_centre=edge_centre,
            edge_spread=edge_spread,
            edge_values=edge_values,
            plain=nothing,
        )

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator) -> tuple[GraphConfig, Records]:
        field = np.empty(count, dtype=object)
        for index in range(count):
            size = 3 + index % 4
            edges = [[place, (place + 1) % size, float(rng.normal())] for place in range(size)]
            nodes = [{"size": float(rng.normal()), "colour": "red" if place % 2 else "blue"} for place in range(size)]
            field[index] = {"nodes": nodes, "edges": edges}
        return GraphConfig(), Records(fields={"graph": field}, ids=[f"row {index}" for index in range(count)])

    @staticmethod
    def recommend(config: GraphConfig, output: OutputSpec, records: Records) -> Advice:
        return Advice(
            network={"kind": "graph", "layer": "gin", "width": 64},
            training={
                "epochs": 100 if len(records) < FEW else 30,
                "batch_size": 32,
                "optimizer": {"kind": "adamw", "lr": 0.001},
                "schedule": {"kind": "one-cycle"},
            },
        )

    def check_fitted(self, inputs: Any) -> None:
        for centre, spread in ((self.centre, self.spread), (self.edge_centre, self.edge_spread)):
            agree(len(centre) == len(spread), "centre and spread are not one a number")
            agree(min(spread, default=1.0) > 0, "a spread is not above 0")
        for values in (*self.values, *self.edge_values):
            agree(sorted(set(values)) == values, "the values of a category are not in order")
        agree(not self.plain or not (self.centre or self.values), "the nodes are plain, and have numbers or texts")

    @property
    def _sizes(self) -> list[int]:
        return [len(each) + 1 for each in self.values]

    @property
    def _edge_sizes(self) -> list[int]:
        return [len(each) + 1 for each in self.edge_values]

    @property
    def spec(self) -> InputSpec:
        channels = 2 if self.plain else len(self.centre) + sum(self._sizes)
        return InputSpec(
            layout="graph",
            channels=channels,
            size=(self.config.max_nodes,),
            edge_channels=len(self.edge_centre) + sum(self._edge_sizes),
        )

    def encode(self, record: Record) -> Tensors:
        graph = _read(record.get(self.config.field), self.config)
        wanted = (len(self.centre), len(self.values), len(self.edge_centre), len(self.edge_values))
        if _shape(graph)[:2] != wanted[:2] or (len(graph.edges) and _shape(graph) != wanted):
            raise RecordError(f"the graph has {_said(_shape(graph))}", expected=f"{_said(wanted)}, as in training")
        centre, spread = (np.array(each, dtype=np.float32) for each in (self.centre, self.spread))
        nodes, _ = described((graph.numbers - centre) / spread, graph.categories, self.values)
        if len(graph.edges):
            centre, spread = (np.array(each, dtype=np.float32) for each in (self.edge_centre, self.edge_spread))
            values, _ = described((graph.edge_numbers - centre) / spread, graph.edge_categories, self.edge_values)
        else:
            values = np.empty((0, wanted[2] + wanted[3]), dtype=np.float32)
        edges = graph.edges
        if not self.config.directed:
            edges, values = both_ways(edges, values)
        tensors = {
            "nodes": degrees(edges, graph.count) if self.plain else torch.from_numpy(nodes),
            "edges": torch.from_numpy(np.ascontiguousarray(edges, dtype=np.int32)),
        }
        return {**tensors, "edge_values": torch.from_numpy(values)} if wanted[2] + wanted[3] else tensors

    def collate(self, columns: Columns) -> Tensors:
        return lay_out(columns)

    def preprocess(self, tensors: Tensors) -> Tensors:
        changed = dict(tensors)
        if not self.plain:
            changed["nodes"] = one_hots(tensors["nodes"], len(self.centre), self._sizes)
        if "edge_values" in tensors:
            changed["edge_values"] = one_hots(tensors["edge_values"], len(self.edge_centre), self._edge_sizes)
        return changed

    def show(self, record: Record) -> dict[str, Any]:
        try:
            graph = _read(record.get(self.config.field), self.config)
        except RecordError as error:
            return {"values": {self.config.field: error.what}}
        return {"values": {"nodes": str(graph.count), "edges": str(len(graph.edges))}}

    def named(self, columns: Columns) -> dict[str, np.ndarray]:
        """How large each graph is: slices show where it hurts."""
        nodes, edges = columns["nodes"], columns["edges"]
        assert isinstance(nodes, Ragged)
        assert isinstance(edges, Ragged)
        return {"nodes": nodes.lengths.double().numpy(), "edges": edges.lengths.double().numpy()}

    def audit(self, columns: Columns, ids: Sequence[str]) -> list[Finding]:
        bare: list[int] = np.flatnonzero(self.named(columns)["edges"] == 0).tolist()
        share = len(bare) / max(1, len(ids))
        return [
            Finding(
                check="graphs without edges",
                verdict=judged(share, warn=0.05),
                text=f"{len(bare):,} of {len(ids):,} graphs ({share:.1%}) have no edge",
                fix="look at how their edges are written",
                records=[ids[place] for place in bare[:1000]],
                numbers={"share": share},
            )
        ]


def _read(value: object, config: GraphConfig) -> Value:
    if isinstance(value, Value):
        graph = value
    elif isinstance(value, Mapping) and graphs.holds(value):
        try:
            graph = graphs.from_mapping(value)
        except ValueError as error:
            raise RecordError(
                f"the graph in field {config.field!r} is wrong: {error}",
                expected='{"nodes": [...], "edges": [[0, 1], ...]}',
            ) from error
    else:
        shown = "missing" if value is None else f"{str(value)[:60]!r}"
        raise RecordError(
            f"the graph in field {config.field!r} is {shown}", expected='{"nodes": [...], "edges": [[0, 1], ...]}'
        )
    if not 1 <= graph.count <= config.max_nodes:
        raise RecordError(
            f"the graph has {graph.count:,} nodes",
            expected=f"1 to {config.max_nodes:,}",
            hint="raise max_nodes of the input" if graph.count else None,
        )
    return graph


def _shape(graph: Value) -> tuple[int, int, int, int]:
    parts = (graph.numbers, graph.categories, graph.edge_numbers, graph.edge_categories)
    return parts[0].shape[1], parts[1].shape[1], parts[2].shape[1], parts[3].shape[1]


def _said(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} numbers and {shape[1]} texts for a node, {shape[2]} numbers and {shape[3]} texts for an edge"


def _together(found: Sequence[Value], numbers: str, categories: str) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.concatenate([getattr(each, numbers) for each in found]),
        np.concatenate([getattr(each, categories) for each in found]),
    )


def _scaled(parts: Sequence[np.ndarray]) -> tuple[list[float], list[float]]:
    """Mean and deviation of each column of numbers, over all rows."""
    rows = np.concatenate(parts).astype(np.float64)
    if not len(rows):
        return [0.0] * rows.shape[1], [1.0] * rows.shape[1]
    spread = rows.std(axis=0)
    return rows.mean(axis=0).tolist(), np.where(spread > 0, spread, 1.0).tolist()
