"""What an input offers, what a target asks of it, and what a backbone gives: the words that kinds fit together by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor


LayoutName = Literal["grid", "tokens", "frames", "vector", "columns", "graph", "set"]
# What there is an answer for: a whole example, a position of a sequence, a pixel (or voxel), a node of a graph, a
# channel of a sequence (each of several series that were measured together).
Per = Literal["example", "position", "pixel", "node", "channel"]


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What an input offers, and what a backbone has to accept; `sonde.contracts.layouts` says what each layout holds.

    `channels` are numbers per pixel, frame, node or element; `size` is that of a grid, or the largest length of a
    sequence or set; `vocabulary` the number of tokens, `subwords` the number of parts that tokens are made of (0: they
    are not taken apart); `categories` how many values each categorical column has; `edge_channels` the numbers per edge
    of a graph. `node_examples`: all examples are nodes of one graph, which every batch holds.
    """

    layout: LayoutName
    channels: int = 0
    size: tuple[int, ...] = ()
    vocabulary: int = 0
    subwords: int = 0
    categories: tuple[int, ...] = ()
    edge_channels: int = 0
    node_examples: bool = False


@dataclass(frozen=True, kw_only=True)
class OutputSpec:
    """What a target asks of one backbone.

    `per`: any of these, the best first; a backbone is built for the first that it and its input can give. `width` is
    the number of answers of the standard head, 0 where the target brings its own head. A `causal` answer at a position
    depends on that position and earlier ones only. `condition` is how many numbers per example steer the backbone
    (time, class, an embedded text): they are given as the tensor "condition" (B, condition) of that input. Features of
    other inputs steer it, too; where "steered" (B,) of that input is 0 they do not.
    """

    per: tuple[Per, ...]
    width: int = 0
    causal: bool = False
    condition: int = 0

    @property
    def chosen(self) -> Per:
        """What a backbone is built for: the only one that is left once a backbone was chosen."""
        return self.per[0]

    def choose(self, per: Per) -> OutputSpec:
        return replace(self, per=(per,))


@dataclass(frozen=True, kw_only=True)
class Features:
    """What a backbone made of one input.

    `values`: (B, W) per example, (B, T, W) per position, (B, C, W) per channel, (M, W) per node, or grids
    (B, W_i, *size_i) per pixel, finest first. `inside_BT` says which positions are real (None: all of them), `length_B`
    how many nodes each example has, `size` is that of the grid that went in. Each position stands for
    `stride` positions of the input.
    """

    values: Tensor | tuple[Tensor, ...]
    inside_BT: Tensor | None = None
    length_B: Tensor | None = None
    size: tuple[int, ...] = ()
    stride: int = 1


# Channels of the features of a backbone: one number, or one for each grid.
FeatureWidth = int | tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Advice:
    """Settings that do well unedited on some data: sections of a recipe, as TOML holds them.

    `data` is for targets: how records have to be split so that its scores mean what they say. A split that the data
    set gives itself stays. `min_steps` are the optimizer steps below which too little is learned, however few records
    there are: `epochs` is raised to that. `leads`: whether its training suits the networks of other inputs, too; one
    that does not gives way to theirs. `notes` are what people should know of the advice.
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    input: Mapping[str, Any] = field(default_factory=dict)
    target: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    min_steps: int = 300
    notes: tuple[str, ...] = ()
    leads: bool = True
