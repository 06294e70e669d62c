"""Graphs as JSON: a list or lines of records with nodes and edges, or with a field "graph" that has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from sonde.base import graphs
from sonde.base.config import Config
from sonde.base.errors import UserError
from sonde.contracts.records import Records
from sonde.data.source import Guess, Source
from sonde.data.sources import _content, _folders, _graph_sets, _tables
from sonde.data.split import part_of

# Where a file shows whether it holds graphs.
_HEAD = 4096


class JSONGraphsConfig(Config):
    kind: Literal["json-graphs"] = "json-graphs"


class JSONGraphs(Source):
    """Field "graph" and those beside it: {"nodes": ["C", "O"], "edges": [[0, 1]], "label": "alcohol"} a line.

    The names of PyTorch Geometric (edge_index, node_feat, edge_attr, num_nodes) are understood, too.
    """

    Config: ClassVar = JSONGraphsConfig
    distinct: ClassVar[bool] = True

    @staticmethod
    def recognise(path: Path) -> bool:
        if not path.is_file() or _content.table_format(path) not in ("json", "jsonl"):
            return False
        try:
            with path.open("rb") as file:
                head = file.read(_HEAD)
        except OSError:
            return False
        nodes = any(name in head for name in (b'"nodes"', b'"num_nodes"', b'"node_feat"'))
        return nodes and (b'"edges"' in head or b'"edge_index"' in head)

    @staticmethod
    def guess(path: Path, target: str | None) -> Guess:
        records = JSONGraphs.read(path, JSONGraphsConfig())
        if "split" in records.fields and None in {part_of(value) for value in records.fields["split"]}:
            records = Records(
                fields={name: values for name, values in records.fields.items() if name != "split"}, ids=records.ids
            )
        return _graph_sets.guess(path, "json-graphs", "JSON", records, target, {})

    @staticmethod
    def read(path: Path, config: JSONGraphsConfig) -> Records:
        found = _tables.read_plain(path).fields
        count = len(next(iter(found.values()), ()))
        named = _graph_sets.GRAPH in found
        parts = () if named else [name for keys in graphs.KEYS.values() for name in keys if name in found]
        if not named and not parts:
            raise UserError(f"{path} holds no graphs", expected='records with "nodes" and "edges", or with "graph"')
        values: list[Any] = []
        for place in range(count):
            value = found[_graph_sets.GRAPH][place] if named else {name: found[name][place] for name in parts}
            values.append(_graph(value))
        rest = {name: each for name, each in found.items() if name not in (*parts, _graph_sets.GRAPH)}
        fields: dict[str, np.ndarray] = {_graph_sets.GRAPH: _folders.objects(values), **rest}
        return Records(fields=fields, ids=[f"row {place + 1}" for place in range(count)])

    @staticmethod
    def inputs(path: Path, config: JSONGraphsConfig, fields: Sequence[str]) -> Records | None:
        return JSONGraphs.read(path, config) if JSONGraphs.recognise(path) else None

    @staticmethod
    def sample(folder: Path) -> Path:
        path = folder / "graphs.jsonl"
        rows = [
            f'{{"nodes": ["{"CN"[row % 2]}", "O", "C"], "edges": [[0, 1], [1, 2]], "label": "{"ab"[row % 2]}"}}'
            for row in range(12)
        ]
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
        return path


def _graph(value: Any) -> Any:
    """The graph of a record; what is none stays as it is, and is told as a record that cannot be read."""
    try:
        return graphs.from_mapping(value) if graphs.holds(value) else value
    except ValueError:
        return value
