"""The layers of graph networks. M node, E edge, B graph, N longest graph, H head, W width, D channels of edges."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sonde.networks.graph.segments import Edges, Segments, SparseRows, linear


class GCN(nn.Module):
    """Graph convolution (Kipf and Welling 2017): the mean over neighbours and itself, each weighted by both degrees.

    Where edges have values, a message is relu(node + edge), as in OGB's baselines (Hu et al. 2020).
    """

    def __init__(self, inward: int, width: int, edge_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inward, width, bias=False)
        self.bias = nn.Parameter(torch.zeros(width))
        self.edge = nn.Linear(edge_channels, width) if edge_channels else None
        nn.init.xavier_uniform_(self.linear.weight)

    def forward(self, values_M: Tensor | SparseRows, edges: Edges) -> Tensor:
        """`edges` without loops: a node's own message is added here."""
        values_MW = linear(self.linear, values_M)
        degree_M1 = (edges.into.count + 1).to(values_MW.dtype)[:, None]
        norm_M1 = degree_M1.rsqrt()
        own_MW = values_MW
        if self.edge is None or edges.values is None:
            message_EW = edges.from_source(values_MW * norm_M1)
        else:
            own_MW = functional.relu(values_MW)
            message_EW = functional.relu(edges.from_source(values_MW) + self.edge(edges.values))
            message_EW = message_EW * norm_M1.index_select(0, edges.source)
        return (edges.into.sum(message_EW) + own_MW * norm_M1) * norm_M1 + self.bias


class GIN(nn.Module):
    """Graph isomorphism network (Xu et al. 2019): a small MLP of itself plus the sum of its neighbours; with values of
    edges, of relu(node + edge) (GINE, Hu et al. 2020)."""

    def __init__(self, inward: int, width: int, edge_channels: int, *, batch_norm: bool) -> None:
        super().__init__()
        self.epsilon = nn.Parameter(torch.zeros(()))
        self.edge = nn.Linear(edge_channels, inward) if edge_channels else None
        norm = nn.BatchNorm1d(width) if batch_norm else nn.Identity()
        self.mlp = nn.Sequential(nn.Linear(inward, width), norm, nn.ReLU(), nn.Linear(width, width))

    def forward(self, values_MW: Tensor, edges: Edges) -> Tensor:
        message_EW = edges.from_source(values_MW)
        if self.edge is not None and edges.values is not None:
            message_EW = functional.relu(message_EW + self.edge(edges.values))
        return self.mlp((1 + self.epsilon) * values_MW + edges.into.sum(message_EW))


class GATv2(nn.Module):
    """Graph attention with a score that can rank neighbours anew for each node (Brody et al. 2022)."""

    def __init__(self, inward: int, width: int, edge_channels: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.source = nn.Linear(inward, width)
        self.target = nn.Linear(inward, width)
        self.edge = nn.Linear(edge_channels, width, bias=False) if edge_channels else None
        self.score = nn.Parameter(torch.empty(heads, width // heads))
        self.bias = nn.Parameter(torch.zeros(width))
        for layer in (self.source, self.target):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.xavier_uniform_(self.score)

    def forward(self, values_M: Tensor | SparseRows, edges: Edges) -> Tensor:
        """`edges` with loops: a node attends to itself, too."""
        source_EW = edges.from_source(linear(self.source, values_M))
        sum_EW = source_EW + edges.into.spread(linear(self.target, values_M))
        if self.edge is not None and edges.values is not None:
            sum_EW = sum_EW + self.edge(edges.values)
        raised_EHW = functional.leaky_relu(sum_EW, 0.2).unflatten(1, (self.heads, -1))
        weight_EH = edges.into.softmax((raised_EHW * self.score).sum(2))
        weight_EH = functional.dropout(weight_EH, self.dropout, self.training)
        message_EHW = source_EW.unflatten(1, (self.heads, -1)) * weight_EH[:, :, None]
        return edges.into.sum(message_EHW).flatten(1) + self.bias


class Attention(nn.Module):
    """Every node of a graph attends to every other (Vaswani et al. 2017), padded within the batch."""

    def __init__(self, width: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, values_MW: Tensor, graphs: Segments) -> Tensor:
        flat, longest = places(graphs)
        count = len(graphs.count)
        values_BNC = padded(self.qkv(values_MW), flat, count, longest)
        query, key, value = values_BNC.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        real_BN = torch.arange(longest, device=flat.device) < graphs.count[:, None]
        # A graph without nodes would have no key at all.
        real_BN[:, 0] = True
        mask = real_BN[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        found_BHNW = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        return self.out(found_BHNW.transpose(1, 2).flatten(2).flatten(0, 1).index_select(0, flat))


class GPS(nn.Module):
    """A layer of a graph transformer: messages along the edges and attention over the whole graph, added, then a
    feed-forward part (Rampasek et al. 2022, "Recipe for a General, Powerful, Scalable Graph Transformer")."""

    def __init__(self, width: int, edge_channels: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.local = GIN(width, width, edge_channels, batch_norm=False)
        self.attention = Attention(width, heads=heads, dropout=dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.feed = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, values_MW: Tensor, edges: Edges, graphs: Segments) -> Tensor:
        normed_MW = self.norms[0](values_MW)
        both_MW = self.local(normed_MW, edges) + self.attention(normed_MW, graphs)
        values_MW = values_MW + self.drop(both_MW)
        return values_MW + self.drop(self.feed(self.norms[1](values_MW)))


def places(graphs: Segments) -> tuple[Tensor, int]:
    """Where each node stands among graphs padded to the longest, int64 (M,), and how long that is."""
    longest = max(1, int(graphs.count.max())) if len(graphs.count) else 1
    first_B = graphs.count.cumsum(0) - graphs.count
    within_M = torch.arange(len(graphs.owner), device=graphs.owner.device) - first_B.index_select(0, graphs.owner)
    return graphs.owner * longest + within_M, longest


def padded(values_MW: Tensor, flat_M: Tensor, count: int, longest: int) -> Tensor:
    """Nodes end to end as (count, longest, W), zeros where there is none."""
    empty = values_MW.new_zeros(count * longest, values_MW.shape[1])
    return empty.index_copy(0, flat_M, values_MW).unflatten(0, (count, longest))


@torch.no_grad()
def random_walks(edges: Edges, graphs: Segments, steps: int, dtype: torch.dtype) -> Tensor:
    """How likely a random walk is back where it started after 1 to `steps` steps, (M, steps): a node's position as its
    surroundings have it (Dwivedi et al. 2022, "Graph Neural Networks with Learnable Structural and Positional
    Representations")."""
    flat_M, longest = places(graphs)
    count = len(graphs.count)
    target_E, source_E = edges.into.owner, edges.source
    degree_M = edges.into.count.clamp_min(1).to(dtype)
    within_M = flat_M % longest
    index_E = flat_M.index_select(0, target_E) * longest + within_M.index_select(0, source_E)
    step_BNN = torch.zeros(count * longest * longest, device=flat_M.device, dtype=dtype)
    # Parallel edges add up; they all have the same value, so that the order says nothing.
    step_BNN = step_BNN.index_add(0, index_E, (1 / degree_M).index_select(0, target_E)).view(count, longest, longest)
    walk_BNN, found = step_BNN, []
    for _ in range(steps):
        found.append(walk_BNN.diagonal(dim1=1, dim2=2).reshape(-1).index_select(0, flat_M))
        walk_BNN = walk_BNN @ step_BNN
    return torch.stack(found, dim=1)
