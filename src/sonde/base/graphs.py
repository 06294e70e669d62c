"""A graph as sources read it: nodes and edges with numbers and names, whatever the file it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


def _nothing() -> np.ndarray:
    return np.empty((0, 0), dtype=np.float32)


def _no_names() -> np.ndarray:
    return np.empty((0, 0), dtype=object)


@dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """N nodes, E edges from `edges[:, 0]` to `edges[:, 1]`, int64 (E, 2), as the file has them.

    `numbers` float32 (N, C) and `categories` texts (N, K) describe the nodes, `edge_numbers` (E, D) and
    `edge_categories` (E, L) the edges; any may have no columns. `names` (N,) are what the nodes are called, where
    records are nodes of one graph. Its text is a digest of all that it holds, so that a snapshot sees every change.
    """

    count: int
    edges: np.ndarray
    numbers: np.ndarray = field(default_factory=_nothing)
    categories: np.ndarray = field(default_factory=_no_names)
    edge_numbers: np.ndarray = field(default_factory=_nothing)
    edge_categories: np.ndarray = field(default_factory=_no_names)
    names: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, rows in (
            ("numbers", self.count),
            ("categories", self.count),
            ("edge_numbers", len(self.edges)),
            ("edge_categories", len(self.edges)),
        ):
            values = getattr(self, name)
            if not values.size:
                object.__setattr__(self, name, np.empty((rows, 0), dtype=values.dtype))

    def __str__(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{self.count} {self.edges.shape}".encode())
        for values in (self.edges, self.numbers, self.edge_numbers):
            digest.update(np.ascontiguousarray(values).tobytes())
        for texts in (self.categories, self.edge_categories):
            digest.update("\0".join(map(str, texts.ravel().tolist())).encode())
        digest.update("\0".join(self.names).encode())
        return f"graph {digest.hexdigest()}"


KEYS = {
    "nodes": ("nodes", "node_feat", "x"),
    "edges": ("edges", "edge_index"),
    "edge_values": ("edge_values", "edge_attr", "edge_feat"),
    "count": ("num_nodes",),
}


def holds(value: object) -> bool:
    """Whether a value is a graph as JSON has it: a mapping with edges, and nodes or their number."""
    if not isinstance(value, Mapping):
        return False
    return _of(value, "edges") is not None and (_of(value, "nodes") is not None or _of(value, "count") is not None)


def from_mapping(value: Mapping[str, Any]) -> Graph:
    """The graph of a mapping: "nodes" a number, a text, a list or a mapping for each; "edges" pairs of places from 0
    up, with numbers behind them or not; or "edge_index" two lists, as PyTorch Geometric has it ("node_feat", "x",
    "edge_attr", "num_nodes").

    >>> from_mapping({"nodes": ["C", "O"], "edges": [[0, 1]]}).categories.tolist()
    [['C'], ['O']]

    Raises:
        ValueError: it holds something else; says what.
    """
    nodes, edges = _of(value, "nodes"), _of(value, "edges")
    numbers, categories = _described(nodes, "nodes") if nodes is not None else (_nothing(), _no_names())
    stated = _of(value, "count")
    count = len(nodes) if nodes is not None else _whole(stated)
    if "edges" not in value and "edge_index" in value:
        if not isinstance(edges, Sequence) or len(edges) != 2:
            raise ValueError("edge_index holds no two lists")
        edges = list(zip(*edges, strict=True))
    if not isinstance(edges, Sequence) or any(not isinstance(each, Sequence) or len(each) < 2 for each in edges):
        raise ValueError("edges are no list of pairs")
    try:
        ends = np.array([each[:2] for each in edges], dtype=np.float64).reshape(len(edges), 2)
    except (TypeError, ValueError) as error:
        raise ValueError(f"an edge has an end that is no number: {edges[0]!r}") from error
    if not (ends == np.floor(ends)).all() or (len(ends) and not 0 <= ends.min() <= ends.max() < count):
        wrong = next(
            tuple(pair) for pair in ends.tolist() if any(end != int(end) or not 0 <= end < count for end in pair)
        )
        raise ValueError(
            f"an edge leads from {wrong[0]:g} to {wrong[1]:g}, and there are {count} nodes, 0 to {count - 1}"
        )
    values = _of(value, "edge_values")
    if values is None:
        values = [list(each[2:]) for each in edges]
    if len(values) != len(edges):
        raise ValueError(f"there are {len(values)} values for {len(edges)} edges")
    edge_numbers, edge_categories = _described(values, "values of edges")
    return Graph(
        count=count,
        edges=ends.astype(np.int64),
        numbers=numbers,
        categories=categories,
        edge_numbers=edge_numbers,
        edge_categories=edge_categories,
    )


def _of(value: Mapping[str, Any], what: str) -> Any:
    found = next((value[key] for key in KEYS[what] if value.get(key) is not None), None)
    return found.tolist() if isinstance(found, np.ndarray) else found


def _whole(value: Any) -> int:
    if isinstance(value, Sequence) and len(value) == 1:
        value = value[0]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"num_nodes is {value!r}, which is no number of nodes")
    return value


def _described(rows: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    """The numbers and the texts of rows, (N, C) each: a row is a value, a list or a mapping with the same keys."""
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise ValueError(f"the {what} are no list")
    if rows and isinstance(rows[0], Mapping):
        names = sorted(rows[0])
        if any(not isinstance(row, Mapping) or sorted(row) != names for row in rows):
            raise ValueError(f"the {what} do not all have the keys {', '.join(names)}")
        rows = [[row[name] for name in names] for row in rows]
    else:
        rows = [list(row) if isinstance(row, Sequence) and not isinstance(row, str) else [row] for row in rows]
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise ValueError(f"the {what} have {min(widths)} to {max(widths)} values each")
    numbers, texts = [], []
    for column in zip(*rows, strict=True):
        kinds = {type(each) for each in column}
        if kinds <= {int, float, bool}:
            numbers.append(np.array(column, dtype=np.float32))
            if not np.isfinite(numbers[-1]).all():
                raise ValueError(f"the {what} have a number that is not finite")
        elif kinds == {str}:
            texts.append(np.array(column, dtype=object))
        else:
            bad = next((each for each in column if not isinstance(each, (int, float, str))), column[-1])
            raise ValueError(f"the {what} hold {column[0]!r} and {bad!r}, which are not all numbers or all texts")
    return (
        np.stack(numbers, axis=1) if numbers else _nothing(),
        np.stack(texts, axis=1) if texts else _no_names(),
    )
