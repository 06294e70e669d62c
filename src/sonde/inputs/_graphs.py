"""What inputs on the graph layout share: a batch laid end to end, and codes as zeros and a one.

M node, E edge, C number, K category.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sonde.contracts.columns import Columns, Ragged, Tensors

RAGGED = ("nodes", "edges", "edge_values")


def lay_out(columns: Columns) -> Tensors:
    """The graphs of a batch end to end: "nodes", "edges" int64 (2, E) with numbers of the whole batch, "edge_values",
    "length" (B,), and all other columns as they are."""
    nodes, edges = columns["nodes"], columns["edges"]
    assert isinstance(nodes, Ragged)
    assert isinstance(edges, Ragged)
    length_B = nodes.lengths
    values_M = nodes.joined()
    device = values_M.device
    first_E = (length_B.cumsum(0) - length_B).repeat_interleave(edges.lengths).to(device, non_blocking=True)
    tensors: Tensors = {
        "nodes": values_M,
        "edges": (edges.joined().to(torch.int64) + first_E[:, None]).T.contiguous(),
        "length": length_B.to(device, non_blocking=True),
    }
    for name, column in columns.items():
        if name == "edge_values":
            assert isinstance(column, Ragged)
            tensors[name] = column.joined()
        elif name not in tensors:
            assert isinstance(column, Tensor)
            tensors[name] = column
    return tensors


def one_hots(values_MC: Tensor, numbers: int, sizes: Sequence[int]) -> Tensor:
    """`numbers` numbers and then a code for each category, as floats: each code as `size` zeros with a one."""
    parts = [values_MC[:, :numbers].float()]
    codes_MK = values_MC[:, numbers:].to(torch.int64)
    offset = torch.tensor([0, *sizes[:-1]], device=values_MC.device).cumsum(0)
    if sizes:
        found = torch.zeros(len(values_MC), sum(sizes), device=values_MC.device)
        parts.append(found.scatter_(1, codes_MK + offset, 1.0))
    return torch.cat(parts, dim=1)


def both_ways(edges_E2: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, ...]:
    """Edges, and what is said of them, in both directions; those from a node to itself once."""
    turned = edges_E2[:, 0] != edges_E2[:, 1]
    edges = np.concatenate([edges_E2, edges_E2[turned, ::-1]])
    return (edges, *(np.concatenate([each, each[turned]]) for each in others))


def described(
    numbers_NC: np.ndarray, categories_NK: np.ndarray, known: Sequence[Sequence[str]] | None
) -> tuple[np.ndarray, list[list[str]]]:
    """Numbers with the code of each category behind them, float32 (N, C + K), and the values that codes stand for:
    those that are `known`, or else those that are there. What is not known is 0, the first value 1."""
    found = [list(each) for each in known] if known is not None else []
    codes = np.zeros(categories_NK.shape, dtype=np.float32)
    for column in range(categories_NK.shape[1]):
        texts = categories_NK[:, column].astype(str)
        if known is None:
            found.append(np.unique(texts).tolist())
        values = np.array(found[column], dtype=str)
        if len(values) and len(texts):
            place = np.searchsorted(values, texts).clip(max=len(values) - 1)
            codes[:, column] = np.where(values[place] == texts, place + 1, 0)
    return np.concatenate([numbers_NC.astype(np.float32), codes], axis=1), found


def degrees(edges_E2: np.ndarray, count: int) -> Tensor:
    """What is known of nodes that nothing is said of: one, and the logarithm of how many edges lead to each."""
    leading = torch.bincount(torch.from_numpy(np.ascontiguousarray(edges_E2[:, 1])).long(), minlength=count)
    return torch.stack([torch.ones(count), leading.float().log1p()], dim=1)
