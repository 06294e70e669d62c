"""A few hundred plain numbers for each example, whatever its layout: what a cheap model can judge data by."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sonde.contracts.columns import Tensors
from sonde.contracts.specs import InputSpec
from sonde.contracts.task import Task
from sonde.data.batches import in_order
from sonde.data.store import Encoded

# Numbers for a picture: the mean of so many cells each way. Buckets that tokens are counted in. Parts of a recording.
CELLS, BUCKETS, PARTS = 12, 512, 4
BATCH = 256


def plain(task: Task, encoded: Encoded, indices: np.ndarray) -> np.ndarray:
    """float32 (len(indices), F) for the examples at these positions, as the network would see them."""
    examples = encoded.examples.take(torch.from_numpy(indices))
    rows = []
    with torch.inference_mode():
        for start in range(0, len(examples), BATCH):
            batch = task.preprocess(in_order(task, examples, BATCH, start))
            parts = [_BY_LAYOUT[spec.layout](batch.inputs[name], spec) for name, spec in task.specs.items()]
            rows.append(torch.cat([part.float().cpu() for part in parts], dim=1))
    return torch.cat(rows).numpy()


def _grid(tensors: Mapping[str, Tensor], spec: InputSpec) -> Tensor:
    grid = tensors["grid"].float()
    size = [min(CELLS, each) for each in grid.shape[2:]]
    pool = functional.adaptive_avg_pool2d if len(size) == 2 else functional.adaptive_avg_pool3d
    cells = pool(grid, size if len(size) == 2 else [min(6, each) for each in size])  # type: ignore[arg-type]
    return torch.cat([cells.flatten(1), grid.flatten(2).mean(2), grid.flatten(2).std(2)], dim=1)


def _tokens(tensors: Mapping[str, Tensor], spec: InputSpec) -> Tensor:
    """How often each of some buckets of tokens and of pairs of neighbours occurs, as square roots of shares."""
    tokens_BT = tensors["tokens"]
    inside_BT = torch.arange(tokens_BT.shape[1]) < tensors["length"][:, None]
    pairs_BT = (tokens_BT[:, :-1] * 1_000_003 + tokens_BT[:, 1:]) % BUCKETS
    counts = torch.zeros(len(tokens_BT), 2 * BUCKETS)
    counts.scatter_add_(1, tokens_BT % BUCKETS, inside_BT.float())
    counts.scatter_add_(1, BUCKETS + pairs_BT, inside_BT[:, 1:].float())
    length_B1 = tensors["length"][:, None].clamp(min=1)
    return torch.cat([(counts / length_B1).sqrt(), length_B1.log()], dim=1)


def _frames(tensors: Mapping[str, Tensor], spec: InputSpec) -> Tensor:
    """Mean and deviation of each channel, and its mean over each quarter of the time."""
    frames_BTC, length_B = tensors["frames"].float(), tensors["length"].clamp(min=1)
    place_T = torch.arange(frames_BTC.shape[1])
    found = []
    for part in range(-1, PARTS):
        low_B1 = length_B[:, None] * max(0, part) // PARTS
        high_B1 = length_B[:, None] if part < 0 else torch.maximum(low_B1 + 1, length_B[:, None] * (part + 1) // PARTS)
        weight_BT = ((place_T >= low_B1) & (place_T < high_B1)).float()
        weight_BT = weight_BT / weight_BT.sum(1, keepdim=True).clamp(min=1)
        mean_BC = torch.einsum("bt,btc->bc", weight_BT, frames_BTC)
        found.append(mean_BC)
        if part < 0:
            square_BC = torch.einsum("bt,btc->bc", weight_BT, frames_BTC.square())
            found.append((square_BC - mean_BC.square()).clamp(min=0).sqrt())
    return torch.cat([*found, length_B[:, None].log()], dim=1)


def _columns(tensors: Mapping[str, Tensor], spec: InputSpec) -> Tensor:
    """The numbers, and each category of up to 32 values as as many zeros and a one."""
    parts = [tensors["numbers"].float()]
    for codes_B, size in zip(tensors["categories"].T, spec.categories, strict=True):
        parts.append(functional.one_hot(codes_B.clamp(max=31), min(size, 32)).float())
    return torch.cat(parts, dim=1)


def _vector(tensors: Mapping[str, Tensor], spec: InputSpec) -> Tensor:
    return tensors["vector"].float()


def _graph(tensors: Mapping[str, Tensor], spec: InputSpec) -> Tensor:
    """Sums and means of the nodes' numbers, and how many nodes and edges there are."""
    nodes_MC, length_B = tensors["nodes"].float(), tensors["length"]
    if "at" in tensors:
        # Examples are nodes of one graph: each with the mean of those that lead to it.
        source, target = tensors["edges"]
        count = torch.bincount(target, minlength=len(nodes_MC)).clamp(min=1)[:, None]
        around = torch.zeros_like(nodes_MC).index_add_(0, target, nodes_MC[source]) / count
        return torch.cat([nodes_MC, around], dim=1)[tensors["at"]]
    graph_M = torch.repeat_interleave(torch.arange(len(length_B)), length_B)
    sums_BC = torch.zeros(len(length_B), nodes_MC.shape[1]).index_add_(0, graph_M, nodes_MC)
    edges_B = torch.bincount(graph_M[tensors["edges"][0]], minlength=len(length_B))[:, None]
    return torch.cat([sums_BC, sums_BC / length_B[:, None].clamp(min=1), length_B[:, None], edges_B], dim=1)


def _set(tensors: Mapping[str, Tensor], spec: InputSpec) -> Tensor:
    return _frames({"frames": tensors["set"], "length": tensors["length"]}, spec)


_BY_LAYOUT: dict[str, Callable[[Tensors, InputSpec], Tensor]] = {
    "grid": _grid,
    "tokens": _tokens,
    "frames": _frames,
    "columns": _columns,
    "vector": _vector,
    "graph": _graph,
    "set": _set,
}
