"""Nodes of one graph: papers that cite each other, people who know each other; each batch holds the whole graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field

from sonde.base.config import Config
from sonde.base.errors import RecordError, UserError, near
from sonde.base.graphs import Graph
from sonde.contracts.columns import Columns, Tensors
from sonde.contracts.finding import Finding
from sonde.contracts.input import Input
from sonde.contracts.part import agree
from sonde.contracts.records import Record, Records
from sonde.contracts.specs import Advice, InputSpec, OutputSpec
from sonde.inputs import _graphs

if TYPE_CHECKING:
    from sonde.contracts.classical import FeatureMap

Scale = Literal["standard", "row", "none"]
# Where fewer of the nodes' numbers than this share are not zero, they are given as entries, too.
SPARSE = 0.1


class NodesConfig(Config):
    kind: Literal["nodes"] = "nodes"
    field: str = Field(default="node", description="the field that names the node of a record")
    graph: str = Field(default="graph", description="the field that holds the graph, the same in every record")
    directed: bool = Field(default=False, description="whether an edge leads one way only")
    scale: Scale | None = Field(
        default=None,
        description="numbers of nodes: standard (mean 0, deviation 1 in training), row (counts as shares of their sum) "
        "or none; row for counts and standard for others if left out",
    )


@dataclass(frozen=True, kw_only=True)
class Nodes(Input):
    """A record is a node; encoded it is its place, "at" int64. The graph is fitted into the input: the nodes of all
    splits and what is known of them, but no label (transductive learning, Kipf and Welling 2017).

    On the graph layout with "at": `features` (N, C) are the nodes' numbers as they came, `edges` int64 (E, 2) in both
    directions unless directed, `edge_features` (E, D), `names` what the nodes are called.
    """

    Config = NodesConfig
    takes_file: ClassVar[bool] = True
    pads: ClassVar[bool] = False

    config: NodesConfig
    names: list[str]
    scale: Scale
    centre: list[float]
    spread: list[float]
    features: torch.Tensor
    edges: torch.Tensor
    edge_features: torch.Tensor

    @classmethod
    def fit(cls, config: NodesConfig, records: Records) -> Self:
        graph = _the_graph(config, records)
        values, sizes = _graphs.described(graph.numbers, graph.categories, None)
        features = _graphs.one_hots(torch.from_numpy(values), graph.numbers.shape[1], [len(each) + 1 for each in sizes])
        edges, edge_values = graph.edges, graph.edge_numbers.astype(np.float32)
        if not config.directed:
            edges, edge_values = _graphs.both_ways(edges, edge_values)
        if not features.shape[1]:
            features = _graphs.degrees(edges, graph.count)
        counts = bool(((features >= 0) & (features == features.round())).all()) and int(features.max()) < 256
        scale: Scale = config.scale or ("row" if counts and features.shape[1] > 1 else "standard")
        names = list(graph.names) or [str(place) for place in range(graph.count)]
        centre, spread = [0.0] * features.shape[1], [1.0] * features.shape[1]
        if scale == "standard":
            places = {name: place for place, name in enumerate(names)}
            known = [places[str(value)] for value in records.fields[config.field] if str(value) in places]
            mine = features[torch.tensor(known, dtype=torch.int64)].double()
            centre = mine.mean(0).tolist()
            spread = [one if one > 0 else 1.0 for one in mine.std(0, correction=0).tolist()]
        return cls(
            config=config,
            names=names,
            scale=scale,
            centre=centre,
            spread=spread,
            # Counts of words are bytes: an artifact holds the graph.
            features=features.to(torch.uint8) if counts else features,
            edges=torch.from_numpy(np.ascontiguousarray(edges)),
            edge_features=torch.from_numpy(np.ascontiguousarray(edge_values)),
        )

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator) -> tuple[NodesConfig, Records]:
        ring = np.stack([np.arange(count), (np.arange(count) + 1) % count], axis=1)
        graph = Graph(
            count=count,
            edges=ring,
            numbers=rng.normal(size=(count, 3)).astype(np.float32),
            names=[f"n{place}" for place in range(count)],
        )
        fields = {"node": _objects(graph.names), "graph": _objects([graph] * count)}
        return NodesConfig(), Records(fields=fields, ids=[f"node n{place}" for place in range(count)])

    @staticmethod
    def fields(config: NodesConfig) -> list[str]:
        return [config.field, config.graph]

    @staticmethod
    def recommend(config: NodesConfig, output: OutputSpec, records: Records) -> Advice:
        return Advice(
            network={
                "kind": "graph",
                "layer": "gcn",
                "layers": 2,
                "width": 64,
                "dropout": 0.5,
                "input_dropout": 0.5,
                "norm": "none",
                "residual": False,
                "project": False,
            },
            training={
                # Every step computes the whole graph: all training nodes at once.
                "steps": 200,
                "batch_size": max(1, min(len(records), 4096)),
                "evaluate_every": 5,
                # Adam with decay in its gradient, as the papers have it (docs/log.md).
                "optimizer": {"kind": "adam", "lr": 0.01, "weight_decay": 5e-4},
                "schedule": {"kind": "constant"},
            },
            notes=("each step computes the whole graph; test nodes are seen, their labels are not (transductive)",),
        )

    def check_fitted(self, inputs: Any) -> None:
        count, width = len(self.names), self.features.shape[-1]
        agree(len(set(self.names)) == count > 0, "two nodes have one name")
        agree(self.features.ndim == 2 and len(self.features) == count, "not one row of numbers for each node")
        agree(self.features.dtype in (torch.uint8, torch.float32), "numbers of nodes are neither bytes nor float32")
        agree(len(self.centre) == len(self.spread) == width, "centre and spread are not one a number")
        agree(min(self.spread, default=1.0) > 0, "a spread is not above 0")
        agree(
            self.edges.dtype == torch.int64 and self.edges.ndim == 2 and self.edges.shape[1] == 2, "edges are no pairs"
        )
        inside = not len(self.edges) or (int(self.edges.min()) >= 0 and int(self.edges.max()) < count)
        agree(inside, "an edge leads to a node that is not there")
        agree(self.edge_features.ndim == 2 and len(self.edge_features) == len(self.edges), "not one row for each edge")
        agree(self.edge_features.dtype == torch.float32, "numbers of edges are not float32")

    @property
    def spec(self) -> InputSpec:
        return InputSpec(
            layout="graph",
            channels=self.features.shape[1],
            size=(len(self.names),),
            edge_channels=self.edge_features.shape[1],
            node_examples=True,
        )

    def feature_map(self) -> FeatureMap:
        from sonde.inputs._propagated import Propagated

        return Propagated()

    def encode(self, record: Record) -> Tensors:
        value = record.get(self.config.field)
        if value is None or (isinstance(value, float) and value != value):
            raise RecordError(f"the node in field {self.config.field!r} is missing", expected="a node of the graph")
        place = self._places.get(str(value))
        if place is None:
            close = near(str(value), self.names) if len(self.names) <= 100_000 else None
            raise RecordError(
                f"the graph that was learned has no node {str(value)!r}",
                expected=f"one of its {len(self.names):,} nodes, such as {self.names[0]}",
                hint=f"did you mean {close!r}?" if close else "nodes that are new need a new run: the graph is learned",
            )
        return {"at": torch.tensor(place)}

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    def preprocess(self, tensors: Tensors) -> Tensors:
        return {**tensors, **self._on(tensors["at"].device)}

    def _on(self, device: torch.device) -> Tensors:
        """The whole graph on a device, made once for each."""
        if device not in self._graphs_on:
            # A tensor made in inference mode could not be used in training afterwards.
            with torch.inference_mode(False):
                self._graphs_on[device] = {name: value.to(device) for name, value in self._whole().items()}
        return self._graphs_on[device]

    @cached_property
    def _graphs_on(self) -> dict[torch.device, Tensors]:
        return {}

    def _whole(self) -> Tensors:
        nodes = self.features.float()
        if self.scale == "row":
            nodes = nodes / nodes.sum(1, keepdim=True).clamp_min(1)
        elif self.scale == "standard":
            nodes = (nodes - torch.tensor(self.centre)) / torch.tensor(self.spread)
        whole = {"nodes": nodes, "edges": self.edges.T.contiguous(), "length": torch.tensor([len(nodes)])}
        if self.edge_features.shape[1]:
            whole["edge_values"] = self.edge_features
        entries = nodes.nonzero()
        if len(entries) < SPARSE * nodes.numel():
            whole["entries"] = entries.T.contiguous()
            whole["entry_values"] = nodes[entries[:, 0], entries[:, 1]]
        return whole

    def show(self, record: Record) -> dict[str, Any]:
        """The node, and how many neighbours it has."""
        name = str(record.get(self.config.field))
        place = self._places.get(name)
        if place is None:
            return {"values": {self.config.field: name}}
        near = self.edges[self.edges[:, 1] == place, 0].tolist()
        shown = ", ".join(self.names[one] for one in near[:8]) + (", ..." if len(near) > 8 else "")
        return {"values": {self.config.field: name, "neighbours": f"{len(near)}: {shown}" if near else "none"}}

    def named(self, columns: Columns) -> dict[str, np.ndarray]:
        """How many neighbours each node has: slices show where it hurts."""
        at = columns["at"]
        assert isinstance(at, torch.Tensor)
        degrees = torch.bincount(self.edges[:, 1], minlength=len(self.names))
        return {"neighbours": degrees[at].double().numpy()}

    def audit(self, columns: Columns, ids: Sequence[str]) -> list[Finding]:
        (degrees,) = self.named(columns).values()
        alone: list[int] = np.flatnonzero(degrees == 0).tolist()
        share = len(alone) / max(1, len(degrees))
        return [
            Finding(
                check="lone nodes",
                verdict="warn" if share > 0.2 else "pass",
                text=f"{len(alone):,} of {len(degrees):,} nodes ({share:.1%}) have no edge",
                fix="look at the edge list: are the names of its nodes those of the nodes?",
                records=[ids[place] for place in alone[:1000]],
                numbers={"share": share},
            )
        ]


def _the_graph(config: NodesConfig, records: Records) -> Graph:
    for name in (config.field, config.graph):
        if name not in records.fields:
            raise UserError(f"there is no field {name!r}", expected="one of: " + ", ".join(records.fields))
    values = records.fields[config.graph]
    graph = values[0] if len(values) else None
    if not isinstance(graph, Graph) or any(value is not graph for value in values):
        raise UserError(
            f"the field {config.graph!r} does not hold one graph for all records",
            expected="a source of nodes and edges",
            hint='nodes.csv and edges.csv in a folder; graphs that are records themselves: the input kind "graph"',
        )
    return graph


def _objects(values: Sequence[Any]) -> np.ndarray:
    field = np.empty(len(values), dtype=object)
    field[:] = list(values)
    return field
