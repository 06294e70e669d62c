"""The layouts: which tensors an input of each layout gives, what can be answered for, and how both are checked.

A layout is a word of the language that inputs, targets and networks share. This is the only place that defines them.

| layout  | tensors as `preprocess` gives them (B examples)                                    | size, channels     |
|---------|------------------------------------------------------------------------------------|--------------------|
| grid    | "grid" float (B, channels, *size); 2-D or 3-D. Or whole grids, each of its own      | size of the grid,  |
|         | "shape" (B, D) and filled up to the largest: networks then answer in windows of     | or of a window     |
|         | `size` (see `sonde.networks._windows`)                                              |                    |
| tokens  | "tokens" int64 (B, T), "length" int64 (B,); T <= size[0] + 1. "clean_tokens" (B, T) | longest, -         |
|         | too where augmentation hid some. "subwords" (B, T, P) where a token is the sum of   |                    |
|         | itself and its parts (0: no part). "starts" (B, W) and "words" (B,) where records   |                    |
|         | are lists of words: the first token of each, and how many there are                |                    |
| frames  | "frames" float (B, T, channels), "length" int64 (B,); T <= size[0]                  | longest, channels  |
| vector  | "vector" float (B, channels)                                                       | -, channels        |
| columns | "numbers" float (B, channels), "categories" int64 (B, len(categories))              | -, channels        |
| graph   | "nodes" float (M, channels), "edges" int64 (2, E), "length" int64 (B,): the nodes   | most nodes,        |
|         | of all graphs end to end, and how many belong to each; "edge_values" (E,           | channels           |
|         | edge_channels) where edges have values. "at" int64 (B,) where the examples are      |                    |
|         | nodes of one graph: which ones; then "length" is (1,). Where "nodes" are mostly 0,  |                    |
|         | "entries" (2, S), row and column, and "entry_values" (S,) are the others, too       |                    |
| set     | "set" float (B, N, channels), "length" int64 (B,): elements without an order        | most, channels     |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from sonde.contracts.columns import Tensors
from sonde.contracts.specs import InputSpec, LayoutName, Per

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass(frozen=True, kw_only=True)
class Layout:
    """`main` is the tensor that anyone's own module is given, `gives` what a backbone can answer for.

    `random` makes `count` examples of a spec, `check` asserts that tensors keep to one, `alone` takes one example out
    of a batch as a batch of its own, without padding. `sample` is a small spec. All four serve the conformance kit.
    """

    main: str
    gives: tuple[Per, ...]
    sample: InputSpec
    random: Callable[[InputSpec, int, Generator], Tensors]
    check: Callable[[InputSpec, Tensors, int], None]
    alone: Callable[[Tensors, int], Tensors]


def _row(tensors: Tensors, index: int) -> Tensors:
    return {name: value[index : index + 1] for name, value in tensors.items()}


def _sequence(main: str, tensors: Tensors, index: int) -> Tensors:
    row = _row(tensors, index)
    length = max(1, int(row["length"]))
    return {**row, **{name: row[name][:, :length] for name in (main, "subwords") if name in row}}


def _graph(tensors: Tensors, index: int) -> Tensors:
    ends = tensors["length"].cumsum(0)
    start, stop = int(ends[index] - tensors["length"][index]), int(ends[index])
    edges = tensors["edges"]
    own = (edges[0] >= start) & (edges[0] < stop)
    alone = {
        "nodes": tensors["nodes"][start:stop],
        "edges": edges[:, own] - start,
        "length": tensors["length"][index : index + 1],
    }
    if "edge_values" in tensors:
        alone["edge_values"] = tensors["edge_values"][own]
    # What else there is, is by example: the fingerprint of a molecule.
    return {**_row({name: value for name, value in tensors.items() if name not in alone}, index), **alone}


def _random_values(main: str, spec: InputSpec, count: int, generator: Generator) -> Tensors:
    """Numbers for grids and vectors, and for sequences that are all of the full length."""
    if main == "grid":
        return {main: torch.randn(count, spec.channels, *spec.size, generator=generator)}
    if main == "vector":
        return {main: torch.randn(count, spec.channels, generator=generator)}
    values = torch.randn(count, spec.size[0], spec.channels, generator=generator)
    return {main: values, "length": torch.full((count,), spec.size[0])}


def _random_tokens(spec: InputSpec, count: int, generator: Generator) -> Tensors:
    tokens = torch.randint(1, spec.vocabulary, (count, spec.size[0]), generator=generator)
    tensors = {"tokens": tokens, "length": torch.full((count,), spec.size[0])}
    if spec.subwords:
        tensors["subwords"] = torch.randint(0, spec.subwords, (count, spec.size[0], 3), generator=generator)
    return tensors


def _random_columns(spec: InputSpec, count: int, generator: Generator) -> Tensors:
    categories = torch.empty(count, len(spec.categories), dtype=torch.int64)
    for column, size in zip(categories.T, spec.categories, strict=True):
        column.copy_(torch.randint(0, size, (count,), generator=generator))
    return {"numbers": torch.randn(count, spec.channels, generator=generator), "categories": categories}


def _random_graphs(spec: InputSpec, count: int, generator: Generator) -> Tensors:
    """Rings of different sizes, each with one chord; every edge in both directions."""
    sizes = [3 + index % max(1, spec.size[0] - 2) for index in range(count)]
    edges, start = [], 0
    for size in sizes:
        ring = [(start + node, start + (node + 1) % size) for node in range(size)] + [(start, start + size // 2)]
        edges += [*ring, *((target, source) for source, target in ring)]
        start += size
    tensors = {
        "nodes": torch.randn(start, spec.channels, generator=generator),
        "edges": torch.tensor(edges).T.contiguous(),
        "length": torch.tensor(sizes),
    }
    if spec.edge_channels:
        tensors["edge_values"] = torch.randn(len(edges), spec.edge_channels, generator=generator)
    return tensors


def _check_numbers(values: Tensor, shape: tuple[int | None, ...], name: str) -> None:
    assert values.is_floating_point(), f"{name} holds no floats"
    assert torch.isfinite(values).all(), f"{name} holds numbers that are not finite"
    fits = values.ndim == len(shape) and all(
        wanted is None or found == wanted for found, wanted in zip(values.shape, shape, strict=True)
    )
    assert fits, f"{name} has shape {tuple(values.shape)}, its spec says {shape}"


def _check_length(spec: InputSpec, tensors: Tensors, steps: int, count: int) -> None:
    assert tensors["length"].dtype == torch.int64
    assert tensors["length"].shape == (count,), "not one length per example"
    assert int(tensors["length"].max()) <= steps, "a length beyond the tensor"
    assert steps <= spec.size[0], "longer than the spec promises"


def _check_grid(spec: InputSpec, tensors: Tensors, count: int) -> None:
    if "shape" in tensors:
        assert tensors["shape"].shape == (count, len(spec.size)), "not the shape of every grid"
        largest = tensors["shape"].amax(0).tolist()
        _check_numbers(tensors["grid"], (count, spec.channels, *largest), "grid")
        return
    _check_numbers(tensors["grid"], (count, spec.channels, *spec.size), "grid")


def _check_tokens(spec: InputSpec, tensors: Tensors, count: int) -> None:
    tokens = tensors["tokens"]
    assert tokens.dtype == torch.int64
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < spec.vocabulary, "a token is outside the vocabulary"
    assert tokens.shape[1] <= spec.size[0] + 1, "more tokens than the spec promises"
    assert tensors["length"].shape == (count,), "not one length per example"
    assert int(tensors["length"].max()) <= tokens.shape[1], "a length beyond the tensor"
    if spec.subwords:
        assert tensors["subwords"].shape[:2] == tokens.shape, "not the subwords of every token"
        assert int(tensors["subwords"].max()) < spec.subwords, "a subword is outside its range"
    if "starts" in tensors:
        _check_starts(tensors, count)


def _check_starts(tensors: Tensors, count: int) -> None:
    starts, words, length = tensors["starts"], tensors["words"], tensors["length"]
    assert starts.dtype == words.dtype == torch.int64
    assert words.shape == (count,), "not one number of words per example"
    assert int(words.max()) <= starts.shape[1], "more words than starts"
    inside = torch.arange(starts.shape[1]) < words[:, None]
    assert bool((starts < length[:, None])[inside].all()), "a word starts beyond the tokens"


def _check_sequence(main: str, spec: InputSpec, tensors: Tensors, count: int) -> None:
    _check_numbers(tensors[main], (count, None, spec.channels), main)
    _check_length(spec, tensors, tensors[main].shape[1], count)


def _check_vector(spec: InputSpec, tensors: Tensors, count: int) -> None:
    _check_numbers(tensors["vector"], (count, spec.channels), "vector")


def _check_columns(spec: InputSpec, tensors: Tensors, count: int) -> None:
    _check_numbers(tensors["numbers"], (count, spec.channels), "numbers")
    assert tensors["categories"].shape == (count, len(spec.categories))
    for column, size in zip(tensors["categories"].T, spec.categories, strict=True):
        assert 0 <= int(column.min()) <= int(column.max()) < size, "a category is outside its range"


def _check_graph(spec: InputSpec, tensors: Tensors, count: int) -> None:
    nodes, edges, length = tensors["nodes"], tensors["edges"], tensors["length"]
    _check_numbers(nodes, (None, spec.channels), "nodes")
    graphs = 1 if "at" in tensors else count
    assert length.shape == (graphs,), "not one length per graph"
    if "at" in tensors:
        assert tensors["at"].shape == (count,), "not one node per example"
        assert 0 <= int(tensors["at"].min()) <= int(tensors["at"].max()) < len(nodes), "a node that is not there"
    assert int(length.sum()) == len(nodes), "the lengths do not add up to the nodes"
    assert int(length.max()) <= spec.size[0], "more nodes than the spec promises"
    assert edges.dtype == torch.int64
    assert edges.ndim == 2
    assert len(edges) == 2
    graph_M = torch.arange(graphs).repeat_interleave(length)
    assert torch.equal(graph_M[edges[0]], graph_M[edges[1]]), "an edge leads from one graph to another"
    if spec.edge_channels:
        _check_numbers(tensors["edge_values"], (edges.shape[1], spec.edge_channels), "edge_values")


LAYOUTS: dict[LayoutName, Layout] = {
    "grid": Layout(
        main="grid",
        gives=("example", "position", "pixel"),
        sample=InputSpec(layout="grid", channels=3, size=(32, 32)),
        random=partial(_random_values, "grid"),
        check=_check_grid,
        alone=_row,
    ),
    "tokens": Layout(
        main="tokens",
        gives=("example", "position"),
        sample=InputSpec(layout="tokens", vocabulary=11, size=(16,)),
        random=_random_tokens,
        check=_check_tokens,
        alone=partial(_sequence, "tokens"),
    ),
    "frames": Layout(
        main="frames",
        gives=("example", "position", "channel"),
        sample=InputSpec(layout="frames", channels=32, size=(32,)),
        random=partial(_random_values, "frames"),
        check=partial(_check_sequence, "frames"),
        alone=partial(_sequence, "frames"),
    ),
    "vector": Layout(
        main="vector",
        gives=("example",),
        sample=InputSpec(layout="vector", channels=6),
        random=partial(_random_values, "vector"),
        check=_check_vector,
        alone=_row,
    ),
    "columns": Layout(
        main="numbers",
        gives=("example",),
        sample=InputSpec(layout="columns", channels=4, categories=(3, 5)),
        random=_random_columns,
        check=_check_columns,
        alone=_row,
    ),
    "graph": Layout(
        main="nodes",
        gives=("example", "node"),
        sample=InputSpec(layout="graph", channels=5, size=(8,)),
        random=_random_graphs,
        check=_check_graph,
        alone=_graph,
    ),
    "set": Layout(
        main="set",
        gives=("example", "position"),
        sample=InputSpec(layout="set", channels=4, size=(9,)),
        random=partial(_random_values, "set"),
        check=partial(_check_sequence, "set"),
        alone=partial(_sequence, "set"),
    ),
}
