"""Many decision trees as arrays of nodes, walked all at once.

T tree, M node of any tree, V number of a leaf, B row, S category. All trees lie in the same arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sonde.base.errors import UserError

# Rows times trees walked at once: what a cache holds.
CELLS = 200_000


@dataclass(frozen=True, kw_only=True)
class Tree:
    """One tree: a row goes left where its column is at most the threshold or, at a node of categories, where
    `goes_left` (a row of it for each such node, numbered by `table`, else -1) says so. A leaf is its own child."""

    column: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    depth: int
    table: np.ndarray
    goes_left: np.ndarray

    @staticmethod
    def of_sklearn(tree: object, values_MV: np.ndarray) -> Tree:
        """A tree of scikit-learn's forests."""
        left, right, own = tree.children_left, tree.children_right, np.arange(tree.node_count)  # type: ignore[attr-defined]
        leaf = left < 0
        return Tree(
            column=np.where(leaf, 0, tree.feature),  # type: ignore[attr-defined]
            threshold=np.where(leaf, 0.0, tree.threshold),  # type: ignore[attr-defined]
            left=np.where(leaf, own, left),
            right=np.where(leaf, own, right),
            # Of inner nodes nobody asks.
            value=np.where(leaf[:, None], values_MV, 0.0),
            depth=int(tree.max_depth),  # type: ignore[attr-defined]
            table=np.full(tree.node_count, -1),  # type: ignore[attr-defined]
            goes_left=np.zeros((0, 1), dtype=bool),
        )


def pack(trees: Sequence[Tree]) -> dict[str, Tensor]:
    """The arrays of many trees one after another; "roots" (T,) says where each begins."""
    nodes = np.array([len(tree.column) for tree in trees])
    roots = nodes.cumsum() - nodes
    most = max([tree.goes_left.shape[1] for tree in trees], default=1)
    tables = np.array([len(tree.goes_left) for tree in trees])
    first = tables.cumsum() - tables
    wide = [np.pad(tree.goes_left, ((0, 0), (0, most - tree.goes_left.shape[1]))) for tree in trees]
    return {
        "column": _whole([tree.column for tree in trees], np.int32),
        "threshold": _whole([tree.threshold for tree in trees], np.float64),
        "left": _whole([tree.left + root for tree, root in zip(trees, roots, strict=True)], np.int32),
        "right": _whole([tree.right + root for tree, root in zip(trees, roots, strict=True)], np.int32),
        "value": _whole([tree.value for tree in trees], np.float32),
        "table": _whole([np.where(t.table < 0, -1, t.table + n) for t, n in zip(trees, first, strict=True)], np.int32),
        "goes_left": _whole(wide, np.bool_),
        "roots": torch.from_numpy(roots.astype(np.int32)),
        "depth": torch.tensor(max(tree.depth for tree in trees)),
    }


def _whole(parts: Sequence[np.ndarray], kind: type) -> Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(kind))


NAMES = ("column", "threshold", "left", "right", "value", "table", "goes_left", "roots", "depth")


def check(held: Mapping[str, Tensor]) -> None:
    """That arrays which come from a file are trees.

    Raises:
        UserError: one is missing, or a number points to nowhere.
    """
    missing = [name for name in NAMES if name not in held]
    nodes = 0 if missing else len(held["column"])
    inside = not missing and all(
        held[name].ndim == 1 and len(held[name]) == nodes and _within(held[name], 0, nodes)
        for name in ("left", "right")
    )
    if (
        not inside
        or not _within(held["roots"], 0, nodes)
        or not _within(held["column"], 0, 1 << 31)
        or not _within(held["table"], -1, len(held["goes_left"]))
        or any(len(held[name]) != nodes for name in ("threshold", "value", "table"))
        or not 0 <= int(held["depth"]) <= nodes
    ):
        raise UserError("the trees are damaged", expected="nodes that point to nodes", hint="restore them from a copy")


def _within(values: Tensor, low: int, stop: int) -> bool:
    return not len(values) or (int(values.min()) >= low and int(values.max()) < stop)


class Forest:
    """Packed trees made ready to be walked, with the indices that torch wants."""

    def __init__(self, held: Mapping[str, Tensor]) -> None:
        check(held)
        self.column, self.table, self.roots = (held[name].long() for name in ("column", "table", "roots"))
        # The left child of node m is at 2 m, the right one at 2 m + 1.
        self.children = torch.stack([held["left"], held["right"]], dim=1).long().flatten()
        self.threshold, self.value, self.goes_left = held["threshold"], held["value"], held["goes_left"]
        self.depth = int(held["depth"])

    def summed(self, rows_BF: Tensor) -> Tensor:
        """The leaves' values summed over all trees, float64 (B, V)."""
        size = max(1, CELLS // max(1, len(self.roots) * self.value.shape[1]))
        return torch.cat([self._values(part).double().sum(1) for part in rows_BF.split(size)])

    def alone(self, rows_BF: Tensor) -> Tensor:
        """The leaves' values of each tree, float64 (B, T), for trees that give one number."""
        size = max(1, CELLS // max(1, len(self.roots)))
        return torch.cat([self._values(part)[:, :, 0].double() for part in rows_BF.split(size)])

    def _values(self, rows_BF: Tensor) -> Tensor:
        leaf_BT = self._leaves(rows_BF)
        return self.value.index_select(0, leaf_BT.flatten()).unflatten(0, leaf_BT.shape)

    def _leaves(self, rows_BF: Tensor) -> Tensor:
        """The leaf that each row reaches in each tree, int64 (B, T); columns of categories hold their number."""
        # index_select takes a quarter of the time that indexing takes.
        node_N = self.roots.repeat(len(rows_BF))
        shape = (len(rows_BF), len(self.roots))
        for _ in range(self.depth):
            value_N = rows_BF.gather(1, self.column.index_select(0, node_N).view(shape)).flatten()
            right_N = value_N > self.threshold.index_select(0, node_N)
            if len(self.goes_left):
                table_N = self.table.index_select(0, node_N)
                category_N = value_N.long().clamp(0, self.goes_left.shape[1] - 1)
                listed_N = self.goes_left.flatten().index_select(
                    0, table_N.clamp_min(0) * self.goes_left.shape[1] + category_N
                )
                right_N = torch.where(table_N < 0, right_N, ~listed_N)
            node_N = self.children.index_select(0, 2 * node_N + right_N)
        return node_N.view(shape)
