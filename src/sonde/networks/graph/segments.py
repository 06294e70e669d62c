"""Sums over the edges of each node and the nodes of each graph, the same to the last bit every time.

Edges are sorted by the node that they lead to, and what belongs together lies together. On an accelerator sums are
segment reductions, since scattering adds in any order; on a CPU `index_add` goes through in order, and is quicker.
M node, E edge, B graph, W width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sonde.contracts.columns import Tensors


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Rows in segments that lie end to end: `owner` (rows,) is the segment of each, `count` how many each has."""

    owner: Tensor
    count: Tensor

    @staticmethod
    def of(count: Tensor, rows: int) -> Segments:
        place = torch.arange(len(count), device=count.device)
        return Segments(owner=place.repeat_interleave(count, output_size=rows), count=count)

    def sum(self, values: Tensor) -> Tensor:
        """(rows, ...) to (segments, ...); nothing adds up to 0."""
        if values.device.type == "cpu":
            return values.new_zeros(len(self.count), *values.shape[1:]).index_add(0, self.owner, values)
        return torch.segment_reduce(values, "sum", lengths=self.count, axis=0, unsafe=True, initial=0)

    def mean(self, values: Tensor) -> Tensor:
        count = self.count.clamp_min(1).to(values.dtype)
        return self.sum(values) / count.view(-1, *[1] * (values.ndim - 1))

    def max(self, values: Tensor) -> Tensor:
        """The largest of each; 0 for a segment without rows."""
        found = torch.segment_reduce(values, "max", lengths=self.count, axis=0, unsafe=True)
        empty = (self.count == 0).view(-1, *[1] * (values.ndim - 1))
        return found.masked_fill(empty, 0)

    def spread(self, values: Tensor) -> Tensor:
        """(segments, ...) to (rows, ...): each segment's value for each of its rows."""
        if values.device.type == "cpu":
            return values.index_select(0, self.owner)
        return _Spread.apply(values, self.owner, self.count)  # type: ignore[no-untyped-call]

    def softmax(self, values: Tensor) -> Tensor:
        """The softmax over the rows of each segment."""
        largest = self.max(values.detach())
        raised = (values - self.spread(largest)).exp()
        return raised / self.spread(self.sum(raised))


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, owner: Tensor, count: Tensor) -> Tensor:
        ctx.save_for_backward(count)
        return values.index_select(0, owner)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (count,) = ctx.saved_tensors
        total = torch.segment_reduce(grads[0].contiguous(), "sum", lengths=count, axis=0, unsafe=True, initial=0)
        return total, None, None


class _Pick(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, chosen: Tensor, order: Tensor, count: Tensor) -> Tensor:
        ctx.save_for_backward(order, count)
        return values.index_select(0, chosen)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        order, count = ctx.saved_tensors
        sorted_grad = grads[0].index_select(0, order)
        total = torch.segment_reduce(sorted_grad, "sum", lengths=count, axis=0, unsafe=True, initial=0)
        return total, None, None, None


@dataclass(frozen=True, kw_only=True)
class Edges:
    """The edges of a batch, sorted by where they lead: `source` (E,), and the segments of each target."""

    source: Tensor
    into: Segments
    values: Tensor | None
    # For the gradient of `from_source`: the edges in the order of their sources, and how many each node has.
    order: Tensor | None
    out: Tensor | None

    @staticmethod
    def of(edges_2E: Tensor, values_ED: Tensor | None, count: int) -> Edges:
        """Edges as the layout has them, of `count` nodes."""
        source, target = edges_2E
        order = torch.argsort(target, stable=True)
        source = source.index_select(0, order)
        into = torch.bincount(target, minlength=count)
        back = out = None
        if source.device.type != "cpu":
            back, out = torch.argsort(source, stable=True), torch.bincount(source, minlength=count)
        return Edges(
            source=source,
            into=Segments(owner=target.index_select(0, order), count=into),
            values=None if values_ED is None else values_ED.index_select(0, order),
            order=back,
            out=out,
        )

    def from_source(self, values: Tensor) -> Tensor:
        """(M, ...) to (E, ...): of each edge the value of the node that it comes from."""
        if self.order is None:
            return values.index_select(0, self.source)
        return _Pick.apply(values, self.source, self.order, self.out)  # type: ignore[no-untyped-call]

    def with_loops(self) -> Edges:
        """The same with an edge from every node to itself, which has the mean of the values that lead to it; those that
        were there go."""
        kept = self.source != self.into.owner
        source, target = self.source[kept], self.into.owner[kept]
        count = len(self.into.count)
        nodes = torch.arange(count, device=source.device)
        values = None
        if self.values is not None:
            own = Segments(owner=target, count=torch.bincount(target, minlength=count)).mean(self.values[kept])
            values = torch.cat([self.values[kept], own])
        return Edges.of(torch.stack([torch.cat([source, nodes]), torch.cat([target, nodes])]), values, count)


@dataclass(frozen=True, kw_only=True)
class SparseRows:
    """Rows that are mostly zeros (words of papers): entry s is `values[s]` in row `rows.owner[s]`, `columns[s]`.

    A linear layer of them costs a sum over entries in place of a product with a large matrix.
    """

    rows: Segments
    columns: Tensor
    values: Tensor

    @staticmethod
    def of(tensors: Tensors) -> SparseRows | None:
        """Those that the input gives beside "nodes", None where it gives none."""
        if "entries" not in tensors:
            return None
        row, column = tensors["entries"]
        count = torch.bincount(row, minlength=len(tensors["nodes"]))
        return SparseRows(rows=Segments(owner=row, count=count), columns=column, values=tensors["entry_values"])

    def drop(self, share: float) -> SparseRows:
        """With a share of the entries dropped and the others raised, as dropout does it: zeros stay zeros."""
        return replace(self, values=nn.functional.dropout(self.values, share))


def linear(layer: nn.Linear, values: Tensor | SparseRows) -> Tensor:
    """The layer on rows, dense or sparse."""
    if isinstance(values, Tensor):
        return layer(values)
    table = layer.weight.T
    if values.values.device.type == "cpu":
        # The same sums in one pass, without a row for each entry.
        starts = values.rows.count.cumsum(0) - values.rows.count
        found = nn.functional.embedding_bag(
            values.columns, table.contiguous(), starts, mode="sum", per_sample_weights=values.values
        )
    else:
        order, count = torch.argsort(values.columns, stable=True), torch.bincount(values.columns, minlength=len(table))
        chosen = _Pick.apply(table.contiguous(), values.columns, order, count)  # type: ignore[no-untyped-call]
        found = values.rows.sum(chosen * values.values[:, None])
    return found if layer.bias is None else found + layer.bias
