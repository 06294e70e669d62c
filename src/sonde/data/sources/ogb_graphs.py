"""Graphs as the Open Graph Benchmark has them: edge.csv, num-node-list.csv, graph-label.csv in raw, packed or not."""

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

_SPLITS = {"train": "train", "valid": "validation", "test": "test"}


class OGBGraphsConfig(Config):
    kind: Literal["ogb-graphs"] = "ogb-graphs"


class OGBGraphs(Source):
    """Fields "graph", "label" (several: "label 1", ...), and "split" where the folder split says it (Hu et al. 2020).

    Whole numbers of nodes and edges are categories, others numbers. Edges are in the files once.
    """

    Config: ClassVar = OGBGraphsConfig
    distinct: ClassVar[bool] = True

    @staticmethod
    def recognise(path: Path) -> bool:
        return path.is_dir() and _file(path, "edge") is not None and _file(path, "num-node-list") is not None

    @staticmethod
    def guess(path: Path, target: str | None) -> Guess:
        records = OGBGraphs.read(path, OGBGraphsConfig())
        return _graph_sets.guess(path, "ogb-graphs", "OGB tables", records, target, {})

    @staticmethod
    def read(path: Path, config: OGBGraphsConfig) -> Records:
        graphs = _graphs(path)
        fields: dict[str, np.ndarray] = {_graph_sets.GRAPH: _folders.objects(graphs)}
        labels = _file(path, "graph-label")
        if labels is not None:
            values = _graph_sets.numbers(labels)
            if len(values) != len(graphs):
                raise UserError(f"{labels} has {len(values):,} lines", expected=f"{len(graphs):,}, one a graph")
            for column in range(values.shape[1]):
                name = "label" if values.shape[1] == 1 else f"label {column + 1}"
                one = values[:, column]
                fields[name] = one.astype(np.int64) if (one == np.floor(one)).all() else one
        split = _split(path, len(graphs))
        if split is not None:
            fields["split"] = split
        return Records(fields=fields, ids=[f"graph {number}" for number in range(1, len(graphs) + 1)])

    @staticmethod
    def inputs(path: Path, config: OGBGraphsConfig, fields: Sequence[str]) -> Records | None:
        return OGBGraphs.read(path, config) if OGBGraphs.recognise(path) else None

    @staticmethod
    def sample(folder: Path) -> Path:
        raw = folder / "raw"
        raw.mkdir()
        files = {
            "edge.csv": ["0,1", "1,2"] * 12,
            "num-node-list.csv": ["3"] * 12,
            "num-edge-list.csv": ["2"] * 12,
            "node-feat.csv": [f"{place % 3},{place % 2}" for place in range(36)],
            "graph-label.csv": [str(graph % 2) for graph in range(12)],
        }
        for name, lines in files.items():
            (raw / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return folder


def _file(path: Path, name: str) -> Path | None:
    folders = [folder for folder in (path / "raw", path) if folder.is_dir()]
    tried = (folder / f"{name}.csv{ending}" for folder in folders for ending in ("", ".gz"))
    return next((file for file in tried if file.is_file()), None)


def _counts(path: Path, name: str) -> np.ndarray:
    file = _file(path, name)
    if file is None:
        raise UserError(f"{path} has no {name}.csv", expected="the tables of OGB: edge, num-node-list, num-edge-list")
    return _graph_sets.whole(_graph_sets.numbers(file)[:, 0], file)


def _graphs(path: Path) -> list[Graph]:
    nodes, lengths = _counts(path, "num-node-list"), _counts(path, "num-edge-list")
    file = _file(path, "edge")
    assert file is not None
    edges = _graph_sets.whole(_graph_sets.numbers(file).reshape(-1, 2), file)
    if len(nodes) != len(lengths) or int(lengths.sum()) != len(edges):
        raise UserError(
            f"{file} has {len(edges):,} edges; num-edge-list says {int(lengths.sum()):,} in {len(lengths):,} graphs",
            expected=f"edges of {len(nodes):,} graphs",
        )
    # Edges count the nodes of their own graph.
    first = np.repeat(np.cumsum(nodes) - nodes, lengths)
    size = np.repeat(nodes, lengths)
    outside = np.flatnonzero((edges >= size[:, None]).any(axis=1) | (edges < 0).any(axis=1))
    if len(outside):
        row = int(outside[0])
        raise UserError(f"{file} line {row + 1} names a node that its graph of {size[row]} nodes does not have")
    parts: dict[str, np.ndarray] = {}
    for name, prefix, count in (("node-feat", "", int(nodes.sum())), ("edge-feat", "edge_", len(edges))):
        table = _file(path, name)
        if table is None:
            continue
        values = _graph_sets.numbers(table)
        if len(values) != count:
            raise UserError(f"{table} has {len(values):,} lines", expected=f"{count:,}")
        if (values == np.floor(values)).all():
            parts[f"{prefix}categories"] = values.astype(np.int64).astype(str).astype(object)
        else:
            parts[f"{prefix}numbers"] = values.astype(np.float32)
    owner = np.repeat(np.arange(len(nodes)), nodes)
    return _graph_sets.cut(owner, edges + first[:, None], len(nodes), parts=parts, path=file)


def _split(path: Path, count: int) -> np.ndarray | None:
    """The split of split/NAME/{train,valid,test}.csv, None where there is none, or more than one."""
    folder = path / "split"
    if not folder.is_dir():
        return None
    named = [each for each in _folders.folders(folder) if (each / "train.csv").is_file() or _packed(each, "train")]
    if len(named) != 1:
        return None
    split = np.full(count, "none", dtype=object)
    for name, part in _SPLITS.items():
        file = named[0] / f"{name}.csv"
        file = file if file.is_file() else named[0] / f"{name}.csv.gz"
        if file.is_file():
            split[_graph_sets.whole(_graph_sets.numbers(file)[:, 0], file)] = part
    return split


def _packed(folder: Path, name: str) -> bool:
    return (folder / f"{name}.csv.gz").is_file()
