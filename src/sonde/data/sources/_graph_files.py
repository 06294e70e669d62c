"""Nodes and edges of one graph in files: tables, and arrays as NumPy and SciPy write them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sonde.base.errors import UserError, near
from sonde.contracts.records import numbers_of

# How the two ends of an edge are called.
_ENDS = (("src", "dst"), ("source", "target"), ("from", "to"), ("u", "v"), ("head", "tail"), ("node1", "node2"))


def arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file; nothing of it is run.

    Raises:
        UserError: it is none, or holds objects.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is not a readable .npz file: {error}", expected="arrays of numbers, without pickled objects"
        ) from error


def matrix(found: Mapping[str, np.ndarray], prefix: str, path: Path) -> np.ndarray | None:
    """The dense matrix of arrays in SciPy's sparse form ("csr": prefix + data, indices, indptr, shape), float32; None
    where there is none.

    Raises:
        UserError: the arrays do not fit together.
    """
    parts = [found.get(prefix + name) for name in ("data", "indices", "indptr", "shape")]
    if any(part is None for part in parts):
        return None
    values, columns, starts, shape = (np.asarray(part) for part in parts)
    form = found.get(prefix + "format")
    if form is not None and bytes(np.asarray(form, dtype="S").item()) != b"csr":
        raise UserError(f"{path} holds a sparse matrix that is not CSR", hint="scipy.sparse.save_npz(x.tocsr())")
    height, width = (int(side) for side in shape)
    rows = np.diff(starts)
    sound = len(starts) == height + 1 and (rows >= 0).all() and int(rows.sum()) == len(columns) == len(values)
    if not sound or (len(columns) and not 0 <= int(columns.min()) <= int(columns.max()) < width):
        raise UserError(f"{path} holds a damaged sparse matrix", expected="data, indices and indptr that fit its shape")
    dense = np.zeros((height, width), dtype=np.float32)
    dense[np.repeat(np.arange(height), rows), columns] = values
    return dense


def features(path: Path, count: int) -> np.ndarray:
    """The numbers of `count` nodes, float32 (N, C), from an .npz file with a sparse matrix or one array.

    Raises:
        UserError: there is no such matrix, or it has other rows.
    """
    found = arrays(path)
    dense = matrix(found, "", path)
    if dense is None:
        wide = [each for each in found.values() if each.ndim == 2 and each.dtype.kind in "iufb"]
        if len(wide) != 1:
            raise UserError(
                f"{path} holds {len(wide)} matrices of numbers: {', '.join(found) or 'nothing'}",
                expected="one: a row for each node",
            )
        dense = wide[0].astype(np.float32)
    return of_nodes(dense, count, path)


def of_nodes(values: np.ndarray, count: int, path: Path) -> np.ndarray:
    """`values` if it has a row of finite numbers for each of `count` nodes."""
    if len(values) != count:
        raise UserError(
            f"{path} has {len(values):,} rows for {count:,} nodes", expected="a row for each node, in order"
        )
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise UserError(f"{path} has a number that is not finite, in row {row + 1}", expected="finite numbers")
    return values


def ends(columns: list[str], path: Path) -> tuple[str, str]:
    """The two columns of an edge table that name the ends of an edge."""
    lower = {name.lower(): name for name in columns}
    for first, second in _ENDS:
        if first in lower and second in lower:
            return lower[first], lower[second]
    if len(columns) < 2:
        raise UserError(f"{path} has {len(columns)} columns", expected="two that name the ends of an edge: src and dst")
    return columns[0], columns[1]


def edges(fields: Mapping[str, np.ndarray], names: list[str], path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The edges of a table, int64 (E, 2), as places of `names`, and the numbers beside them, float32 (E, D).

    Raises:
        UserError: an edge leads to a node that is not there, or has a number that is missing.
    """
    first, second = ends(list(fields), path)
    places = {name: place for place, name in enumerate(names)}
    found = np.empty((len(fields[first]), 2), dtype=np.int64)
    for column, name in enumerate((first, second)):
        found[:, column] = [places.get(str(value), -1) for value in fields[name].tolist()]
    bad = np.flatnonzero((found < 0).any(axis=1))
    if len(bad):
        row = int(bad[0])
        name = first if found[row, 0] < 0 else second
        value = fields[name][row]
        close = near(str(value), names) if len(names) <= 100_000 else None
        raise UserError(
            f"{path} row {row + 1}: {name} is {value!r}, and there is no such node"
            + (f" ({len(bad):,} such rows)" if len(bad) > 1 else ""),
            expected="the names of nodes, as the table of nodes has them",
            hint=f"did you mean {close!r}?" if close else None,
        )
    rest = {name: numbers_of(values) for name, values in fields.items() if name not in (first, second)}
    rest = {name: values for name, values in rest.items() if not np.isnan(values).all()}
    for name, values in rest.items():
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise UserError(f"{path} row {row + 1}: {name} is no finite number", expected="a number for every edge")
    columns = [values.astype(np.float32) for values in rest.values()]
    return found, np.stack(columns, axis=1) if columns else np.empty((len(found), 0), dtype=np.float32)
