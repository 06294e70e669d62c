"""What sources of many graphs share: one graph a record, cut from common tables, and the task that they suggest."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sonde.base.errors import UserError, unknown
from sonde.base.graphs import Graph
from sonde.contracts.records import Records
from sonde.data.source import Guess
from sonde.data.sources import _folders

GRAPH = "graph"
# Whole numbers with more different values than this are a quantity.
_MANY = 50


def numbers(path: Path) -> np.ndarray:
    """The numbers of a file without a header, a row a line, float64 (N, C).

    Raises:
        UserError: it cannot be read, or a line holds something else; names the line.
    """
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        return np.array([[float(cell) for cell in line.split(",")] for line in lines], dtype=np.float64).reshape(
            len(lines), -1
        )
    except ValueError:
        pass
    width = len(lines[0].split(",")) if lines else 0
    for place, line in enumerate(lines, start=1):
        cells = line.split(",")
        try:
            [float(cell) for cell in cells]
        except ValueError:
            raise UserError(f"{path} line {place}: {line.strip()[:60]!r} holds no numbers", expected="1, 2") from None
        if len(cells) != width:
            raise UserError(f"{path} line {place} has {len(cells)} numbers", expected=f"{width}, as line 1")
    raise UserError(f"{path} cannot be read")


def whole(values: np.ndarray, path: Path) -> np.ndarray:
    """Numbers that are whole ones, int64."""
    wrong = np.flatnonzero((values != np.floor(values)).reshape(len(values), -1).any(axis=1))
    if len(wrong):
        raise UserError(f"{path} line {int(wrong[0]) + 1} is no whole number", expected="whole numbers")
    return values.astype(np.int64)


def cut(
    of_node: np.ndarray,
    edges: np.ndarray,
    count: int,
    *,
    parts: Mapping[str, np.ndarray],
    path: Path,
) -> list[Graph]:
    """The graphs of nodes and edges that lie in common tables.

    `of_node` (N,) is the graph of each node, in order; `edges` (E, 2) are numbers of all nodes; `parts` the arrays of
    `Graph` by name, with a row for each node or edge.

    Raises:
        UserError: an edge leads from one graph to another, or to a node that is not there.
    """
    total = len(of_node)
    inside = (edges >= 0).all(axis=1) & (edges < total).all(axis=1)
    if not inside.all():
        row = int(np.flatnonzero(~inside)[0])
        raise UserError(f"{path} line {row + 1} names a node that is not there", expected=f"the {total:,} nodes")
    if (np.diff(of_node) < 0).any():
        raise UserError(f"the nodes of one graph do not stand together beside {path}", expected="graph after graph")
    torn = np.flatnonzero(of_node[edges[:, 0]] != of_node[edges[:, 1]])
    if len(torn):
        raise UserError(f"{path} line {int(torn[0]) + 1} joins nodes of two graphs", expected="edges within a graph")
    of_edge = of_node[edges[:, 0]] if len(edges) else np.empty(0, dtype=np.int64)
    order = np.argsort(of_edge, kind="stable")
    nodes = np.searchsorted(of_node, np.arange(count + 1))
    bounds = np.searchsorted(of_edge[order], np.arange(count + 1))
    found = []
    for number in range(count):
        first, stop = int(nodes[number]), int(nodes[number + 1])
        mine = order[bounds[number] : bounds[number + 1]]
        rows: dict[str, Any] = {
            name: values[mine] if name.startswith("edge") else values[first:stop] for name, values in parts.items()
        }
        found.append(Graph(count=stop - first, edges=edges[mine] - first, **rows))
    return found


def once(edges: np.ndarray) -> np.ndarray | None:
    """Of edges that are there in both directions the rows of one of them; None where some is there one way only."""
    forward = edges[:, 0] <= edges[:, 1]
    one, other = edges[forward], edges[~forward][:, ::-1]
    loops = one[:, 0] == one[:, 1]
    if {tuple(pair) for pair in one[~loops].tolist()} != {tuple(pair) for pair in other.tolist()}:
        return None
    return np.flatnonzero(forward)


def guess(path: Path, kind: str, what: str, records: Records, target: str | None, data: dict[str, Any]) -> Guess:
    """The task that graphs with labels suggest."""
    able = {name: values for name, values in records.fields.items() if name not in (GRAPH, "split")}
    if target is not None and target not in able:
        raise unknown(target, able, what="--target: the field")
    if not able:
        raise UserError(f"nothing is said of the graphs of {path} that could be learned", expected="labels")
    chosen = target or next((name for name in able if name in ("label", "y", "target", "class")), next(iter(able)))
    values = able[chosen]
    lists = values.dtype == object and any(isinstance(value, (list, tuple)) for value in values)
    names = {str(value) for value in values}
    decimal = values.dtype.kind == "f" and not (values == np.floor(values)).all()
    quantity = decimal or (values.dtype.kind in "if" and len(names) > _MANY)
    learn = {"kind": "labels" if lists else "number" if quantity else "category", "field": chosen}
    warning = ""
    split: dict[str, Any] = {"by": "random" if lists or quantity else "stratified", "validation": 0.1, "test": 0.1}
    if "split" in records.fields:
        split, warning = _folders.given_split(set(records.fields["split"]))
    sizes = [graph.count for graph in records.fields[GRAPH] if isinstance(graph, Graph)]
    largest = max(sizes, default=0)
    about = f"{len(records):,} graphs ({what})"
    if sizes:
        about += f" of {min(sizes)} to {largest} nodes"
    return Guess(
        about=about,
        count=len(records),
        data={"source": str(path), "kind": kind, "split": split, **data},
        inputs={"graph": {"kind": "graph", "field": GRAPH, **({"max_nodes": 2 * largest} if largest > 1000 else {})}},
        target=learn,
        warnings=(warning,) if warning else (),
    )
