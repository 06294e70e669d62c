"""Nodes of one graph: nodes.csv and edges.csv in a folder, with features.npz or not; or one .npz file of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from sonde.base.config import Config
from sonde.base.errors import UserError, unknown
from sonde.base.graphs import Graph
from sonde.contracts.records import Records, is_missing, numbers_of
from sonde.data.source import Guess, Source
from sonde.data.sources import _content, _folders, _graph_files, _tables
from sonde.data.split import part_of

NODE, GRAPH = "node", "graph"
_NODES, _EDGES, _FEATURES = ("nodes", "node"), ("edges", "edge", "links"), ("features", "x", "node_features")
_IDS, _LABELS = ("node", "id", "node_id", "name"), ("label", "class", "y", "target", "category", "subject")
_MASKS = {"train_mask": "train", "val_mask": "validation", "valid_mask": "validation", "test_mask": "test"}


class NodeGraphConfig(Config):
    kind: Literal["node-graph"] = "node-graph"
    id: str | None = Field(default=None, description="the column of nodes.csv that names nodes; the first if left out")
    features: list[str] = Field(
        default=[], description="columns of nodes.csv that are numbers of the nodes, beside features.npz"
    )


class NodeGraph(Source):
    """Fields "node" (its name), "graph" (the same for all) and the columns of nodes.csv; masks become "split"."""

    Config: ClassVar = NodeGraphConfig
    distinct: ClassVar[bool] = True

    @staticmethod
    def recognise(path: Path) -> bool:
        if path.is_dir():
            return _table(path, _NODES) is not None and _table(path, _EDGES) is not None
        return path.suffix.lower() == ".npz" and path.is_file() and _is_graph(path)

    @staticmethod
    def guess(path: Path, target: str | None) -> Guess:
        records = NodeGraph.read(path, NodeGraphConfig())
        able = {name: values for name, values in records.fields.items() if name not in (NODE, GRAPH, "split")}
        if target is not None and target not in able:
            raise unknown(target, able, what="--target: the column")
        chosen = target or next((name for name in able if name.lower() in _LABELS), None) or next(iter(able), None)
        if chosen is None:
            raise UserError(f"nothing is said of the nodes of {path} that could be learned", expected="a column label")
        numbers = [name for name, values in able.items() if name != chosen and values.dtype.kind in "if"]
        graph = records.fields[GRAPH][0]
        if "split" in records.fields:
            parts = {part for value in records.fields["split"] if (part := part_of(value))}
            split, warning = _folders.given_split(parts)
        else:
            split, warning = {"by": "stratified", "validation": 0.1, "test": 0.1}, ""
        missing = is_missing(records.fields[chosen])
        quantity = records.fields[chosen].dtype.kind == "f" and not _are_whole(records.fields[chosen])
        data: dict[str, Any] = {"source": str(path), "kind": "node-graph", "split": split}
        if numbers:
            data["features"] = numbers
        if missing.any():
            data["drop_unlabelled"] = True
        return Guess(
            about=f"one graph of {graph.count:,} nodes and {len(graph.edges):,} edges, "
            f"{graph.numbers.shape[1] + len(numbers):,} numbers a node",
            count=len(records),
            data=data,
            inputs={"nodes": {"kind": "nodes", "field": NODE}},
            target={"kind": "number" if quantity else "category", "field": chosen},
            notes={"target.field": "a node's label; --target chooses another"},
            warnings=(warning,) if warning else (),
        )

    @staticmethod
    def read(path: Path, config: NodeGraphConfig) -> Records:
        return _from_folder(path, config) if path.is_dir() else _from_arrays(path)

    @staticmethod
    def inputs(path: Path, config: NodeGraphConfig, fields: Sequence[str]) -> Records | None:
        """A table with a column of nodes."""
        table = _table(path, _NODES) if path.is_dir() else path
        if table is None or not _content.table_format(table):
            return None
        found = _tables.read_plain(table).fields
        names = found[_id_column(found, config, table)]
        return Records(fields={NODE: names}, ids=[f"node {name}" for name in names.tolist()])

    @staticmethod
    def sample(folder: Path) -> Path:
        rows = [f"p{place},{'ab'[place % 2]},{place / 3:.2f}" for place in range(12)]
        (folder / "nodes.csv").write_text("\n".join(["node,label,weight", *rows]) + "\n", encoding="utf-8")
        pairs = [f"p{place},p{(place + 2) % 12}" for place in range(12)]
        (folder / "edges.csv").write_text("\n".join(["src,dst", *pairs]) + "\n", encoding="utf-8")
        return folder


def _table(folder: Path, names: Sequence[str]) -> Path | None:
    """The one table of a folder that is called so."""
    for file in _folders.entries(folder):
        if file.is_file() and _content.table_format(file) and _content.table_stem(file).lower() in names:
            return file
    return None


def _is_graph(path: Path) -> bool:
    import zipfile

    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        names = {name.removesuffix(".npy") for name in file.namelist()}
    return bool({"edge_index", "edges", "adj_indptr"} & names) and bool({"y", "labels", "label"} & names)


def _id_column(fields: Any, config: NodeGraphConfig, path: Path) -> str:
    if config.id is not None:
        if config.id not in fields:
            raise unknown(config.id, fields, what=f"data.id: {path} has other columns; the column")
        return config.id
    return next((name for name in fields if name.lower() in _IDS), next(iter(fields)))


def _from_folder(path: Path, config: NodeGraphConfig) -> Records:
    nodes, edges = _table(path, _NODES), _table(path, _EDGES)
    if nodes is None or edges is None:
        raise UserError(
            f"{path} has no table called {'nodes' if nodes is None else 'edges'}",
            expected="nodes.csv with a node a row, and edges.csv with an edge a row",
        )
    fields = dict(_tables.read_plain(nodes).fields)
    column = _id_column(fields, config, nodes)
    names = [str(value) for value in fields[column].tolist()]
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise UserError(f"{nodes} has the node {twice!r} twice", expected="a row for each node")
    ends, values = _graph_files.edges(_tables.read_plain(edges).fields, names, edges)
    parts = [_column(fields, name, nodes) for name in config.features]
    beside = next((file for file in _folders.entries(path) if file.suffix == ".npz" and file.stem in _FEATURES), None)
    if beside is not None:
        parts.append(_graph_files.features(beside, len(names)))
    numbers = np.concatenate(parts, axis=1) if parts else np.empty((len(names), 0), dtype=np.float32)
    graph = Graph(count=len(names), edges=ends, numbers=numbers, edge_numbers=values, names=names)
    rest = {name: each for name, each in fields.items() if name not in (column, *config.features)}
    return _records(graph, fields[column], rest, nodes)


def _column(fields: Any, name: str, path: Path) -> np.ndarray:
    """A column of numbers, float32 (N, 1)."""
    if name not in fields:
        raise unknown(name, fields, what=f"data.features: {path} has other columns; the column")
    values = numbers_of(fields[name])
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise UserError(f"{path} row {row + 1}: {name} is no finite number", expected="a number for every node")
    return values.astype(np.float32)[:, None]


def _from_arrays(path: Path) -> Records:
    """Arrays as PyTorch Geometric has them (x, edge_index, y, masks), or as the gnn-benchmark sets do (adj_, attr_)."""
    found = _graph_files.arrays(path)
    labels = next((found[name] for name in ("y", "labels", "label") if name in found), None)
    adjacency = _graph_files.matrix(found, "adj_", path)
    if adjacency is not None:
        ends = np.stack(np.nonzero(adjacency), axis=1)
        # The same edge both ways is one edge.
        ends = np.unique(np.sort(ends, axis=1), axis=0)
    else:
        raw = found.get("edge_index", found.get("edges"))
        if raw is None or raw.ndim != 2 or 2 not in raw.shape or raw.dtype.kind not in "iu":
            raise UserError(f"{path} has no edges", expected='an array "edge_index" of whole numbers, (2, E)')
        ends = (raw.T if raw.shape[0] == 2 else raw).astype(np.int64)
        ends = np.unique(np.sort(ends, axis=1), axis=0)
    if labels is None:
        raise UserError(f"{path} has no labels", expected='an array "y" with one for each node')
    count = len(labels)
    if len(ends) and not 0 <= int(ends.min()) <= int(ends.max()) < count:
        raise UserError(f"{path} has an edge to node {int(ends.max())} and {count} labels", expected="nodes from 0 up")
    numbers = _graph_files.matrix(found, "attr_", path)
    if numbers is None:
        numbers = found.get("x", found.get("features", np.empty((count, 0)))).astype(np.float32)
    numbers = _graph_files.of_nodes(numbers, count, path)
    fields: dict[str, np.ndarray] = {"label": labels.astype(np.int64) if labels.dtype.kind in "iu" else labels}
    masks = {split: found[name].astype(bool) for name, split in _MASKS.items() if name in found}
    if masks:
        split = np.full(count, "none", dtype=object)
        for name, mask in masks.items():
            split[mask] = name
        fields["split"] = split
    graph = Graph(count=count, edges=ends, numbers=numbers, names=[str(place) for place in range(count)])
    return _records(graph, np.arange(count), fields, path)


def _records(graph: Graph, names: np.ndarray, fields: dict[str, np.ndarray], path: Path) -> Records:
    for name in (NODE, GRAPH):
        if name in fields:
            raise UserError(f"{path} has a column {name!r} that does not name the nodes", hint="rename it")
    whole = np.empty(graph.count, dtype=object)
    whole[:] = [graph] * graph.count
    return Records(fields={NODE: names, GRAPH: whole, **fields}, ids=[f"node {name}" for name in names.tolist()])


def _are_whole(values: np.ndarray) -> bool:
    present = values[~np.isnan(values)]
    return bool((present == np.floor(present)).all())
