"""A graph as sources read it: nodes and edges with numbers and names, whatever the file it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

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
