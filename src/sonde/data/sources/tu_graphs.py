"""Graphs in the text format of the TU Dortmund sets: NAME_A.txt, NAME_graph_indicator.txt, NAME_graph_labels.txt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from sonde.base.config import Config
from sonde.base.errors import UserError
from sonde.base.graphs import Graph
from sonde.contracts.records import Records
from sonde.data.source import Guess, Source
from sonde.data.sources import _folders, _graph_sets

_EDGES, _OWNERS = "_A.txt", "_graph_indicator.txt"


class TUGraphsConfig(Config):
    kind: Literal["tu-graphs"] = "tu-graphs"


class TUGraphs(Source):
    """Fields "graph", and "label" (whole numbers) or "value" (numbers), or both (Morris et al. 2020, "TUDataset").

    Labels of nodes and edges are categories, attributes are numbers; edges stand in both directions there, and are
    taken once where they do.
    """

    Config: ClassVar = TUGraphsConfig
    distinct: ClassVar[bool] = True

    @staticmethod
    def recognise(path: Path) -> bool:
        return path.is_dir() and _name(path) is not None

    @staticmethod
    def guess(path: Path, target: str | None) -> Guess:
        records = TUGraphs.read(path, TUGraphsConfig())
        return _graph_sets.guess(path, "tu-graphs", "TU text format", records, target, {})

    @staticmethod
    def read(path: Path, config: TUGraphsConfig) -> Records:
        name = _name(path)
        if name is None:
            raise UserError(f"{path} holds no TU graphs", expected=f"NAME{_EDGES} and NAME{_OWNERS}")
        graphs = _graphs(path, name)
        fields: dict[str, np.ndarray] = {_graph_sets.GRAPH: _folders.objects(graphs)}
        for field, ending in (("label", "_graph_labels.txt"), ("value", "_graph_attributes.txt")):
            file = path / f"{name}{ending}"
            if not file.is_file():
                continue
            values = _graph_sets.numbers(file)
            if len(values) != len(graphs):
                raise UserError(f"{file} has {len(values):,} lines", expected=f"{len(graphs):,}, one a graph")
            if field == "label":
                fields[field] = _graph_sets.whole(values[:, 0], file)
            else:
                several = values.shape[1] > 1
                fields |= {f"value {n + 1}" if several else "value": values[:, n] for n in range(values.shape[1])}
        return Records(fields=fields, ids=[f"graph {number}" for number in range(1, len(graphs) + 1)])

    @staticmethod
    def inputs(path: Path, config: TUGraphsConfig, fields: Sequence[str]) -> Records | None:
        return TUGraphs.read(path, config) if TUGraphs.recognise(path) else None

    @staticmethod
    def sample(folder: Path) -> Path:
        edges, owners = [], []
        for graph in range(12):
            first = len(owners)
            owners += [graph + 1] * 3
            for one, other in ((0, 1), (1, 2)):
                edges += [(first + one + 1, first + other + 1), (first + other + 1, first + one + 1)]
        files = {
            "TOY_A.txt": [f"{one}, {other}" for one, other in edges],
            "TOY_graph_indicator.txt": [str(owner) for owner in owners],
            "TOY_graph_labels.txt": [str(graph % 2) for graph in range(12)],
            "TOY_node_labels.txt": [str((place // 3) % 2) for place in range(len(owners))],
        }
        for name, lines in files.items():
            (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return folder


def _name(path: Path) -> str | None:
    """The name of the one set that a folder holds."""
    found = [file.name.removesuffix(_EDGES) for file in _folders.entries(path) if file.name.endswith(_EDGES)]
    return found[0] if len(found) == 1 and (path / f"{found[0]}{_OWNERS}").is_file() else None


def _graphs(path: Path, name: str) -> list[Graph]:
    def rows(ending: str) -> np.ndarray | None:
        file = path / f"{name}{ending}"
        return _graph_sets.numbers(file) if file.is_file() else None

    owner = _graph_sets.whole(_graph_sets.numbers(path / f"{name}{_OWNERS}")[:, 0], path / f"{name}{_OWNERS}") - 1
    edges_file = path / f"{name}{_EDGES}"
    edges = _graph_sets.numbers(edges_file)
    if edges.shape[1] != 2:
        raise UserError(f"{edges_file} has {edges.shape[1]} numbers a line", expected="two: the ends of an edge")
    edges = _graph_sets.whole(edges, edges_file) - 1
    kept = _graph_sets.once(edges)
    parts: dict[str, np.ndarray] = {}
    wanted = (
        ("numbers", "_node_attributes.txt", len(owner)),
        ("categories", "_node_labels.txt", len(owner)),
        ("edge_numbers", "_edge_attributes.txt", len(edges)),
        ("edge_categories", "_edge_labels.txt", len(edges)),
    )
    for part, ending, count in wanted:
        values = rows(ending)
        if values is None:
            continue
        if len(values) != count:
            raise UserError(f"{path / (name + ending)} has {len(values):,} lines", expected=f"{count:,}")
        if part.endswith("categories"):
            values = _graph_sets.whole(values, path / f"{name}{ending}").astype(str).astype(object)
        else:
            values = values.astype(np.float32)
        parts[part] = values if kept is None or not part.startswith("edge") else values[kept]
    edges = edges if kept is None else edges[kept]
    return _graph_sets.cut(owner, edges, int(owner.max()) + 1 if len(owner) else 0, parts=parts, path=edges_file)
