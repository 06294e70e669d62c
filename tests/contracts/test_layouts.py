"""The layouts: random examples keep to their own check, a broken tensor does not; and backbones of every layout go
through the conformance kit, faulty ones not."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sonde.contracts.backbone import Backbone, BackboneConfig
from sonde.contracts.columns import Tensors
from sonde.contracts.layouts import LAYOUTS
from sonde.contracts.specs import InputSpec, OutputSpec
from sonde.testing import check_network

SPECS = [layout.sample for layout in LAYOUTS.values()] + [
    InputSpec(layout="grid", channels=2, size=(4, 6, 8)),
    InputSpec(layout="columns", channels=3),
    InputSpec(layout="columns", channels=0, categories=(4,)),
    InputSpec(layout="graph", channels=3, size=(7,), edge_channels=2),
]


def random(spec, count=5, seed=0):
    return LAYOUTS[spec.layout].random(spec, count, torch.Generator().manual_seed(seed))


def name_of(spec):
    return f"{spec.layout} {spec.size}"


@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_random_examples_keep_to_the_spec_and_differ(spec):
    layout = LAYOUTS[spec.layout]
    tensors = random(spec)
    layout.check(spec, tensors, 5)
    main = layout.main if tensors[layout.main].numel() else "categories"
    assert torch.equal(random(spec)[main], tensors[main])
    assert not torch.equal(random(spec, seed=1)[main], tensors[main])


@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_one_example_alone_is_a_batch_of_its_own(spec):
    layout, tensors = LAYOUTS[spec.layout], random(spec)
    if "length" in tensors and spec.layout != "graph":
        tensors["length"] = torch.tensor([3, spec.size[0], 1, 0, 2])
    start = 0
    for index in range(5):
        one = layout.alone(tensors, index)
        layout.check(spec, one, 1)
        main = one[layout.main]
        if spec.layout == "graph":
            size = int(tensors["length"][index])
            assert torch.equal(main, tensors["nodes"][start : start + size])
            here = (tensors["edges"][0] >= start) & (tensors["edges"][0] < start + size)
            assert torch.equal(one["edges"] + start, tensors["edges"][:, here])
            if spec.edge_channels:
                assert torch.equal(one["edge_values"], tensors["edge_values"][here])
            start += size
        elif "length" in tensors:
            # Without padding; an empty one keeps a single position, as networks need one.
            length = max(1, int(tensors["length"][index]))
            assert torch.equal(main[0], tensors[layout.main][index, :length])
        else:
            assert torch.equal(main[0], tensors[layout.main][index])


def broken(name: str, tensors: Tensors, change: Any) -> Tensors:
    return {**tensors, name: change(tensors[name])}


def nan(values: Tensor) -> Tensor:
    values = values.clone()
    values.view(-1)[0] = float("nan")
    return values


@pytest.mark.parametrize(
    ("layout", "name", "change", "said"),
    [
        ("grid", "grid", nan, "not finite"),
        ("grid", "grid", lambda x: (x * 100).to(torch.uint8), "holds no floats"),
        ("grid", "grid", lambda x: x[:, :, 1:], "its spec says"),
        ("grid", "grid", lambda x: x[1:], "its spec says"),
        ("tokens", "tokens", lambda x: x + 11, "outside the vocabulary"),
        ("tokens", "tokens", lambda x: x.repeat(1, 2), "more tokens than the spec promises"),
        ("tokens", "tokens", lambda x: x - 12, "outside the vocabulary"),
        ("tokens", "length", lambda x: x[1:], "not one length per example"),
        ("tokens", "length", lambda x: x + 1, "a length beyond the tensor"),
        ("frames", "frames", lambda x: x[:, :, 1:], "its spec says"),
        ("frames", "frames", lambda x: x[:, 1:], "a length beyond the tensor"),
        ("frames", "frames", lambda x: x.repeat(1, 2, 1), "longer than the spec promises"),
        ("vector", "vector", lambda x: x[:, None], "its spec says"),
        ("columns", "numbers", nan, "not finite"),
        ("columns", "categories", lambda x: x + 5, "outside its range"),
        ("columns", "categories", lambda x: x - 5, "outside its range"),
        ("graph", "nodes", lambda x: x[1:], "do not add up"),
        ("graph", "nodes", nan, "not finite"),
        ("graph", "length", lambda x: torch.cat([x[:3], x[3:4] + x[4:], x[:1] * 0]), "more nodes than"),
        ("set", "set", lambda x: x[:, :, 1:], "its spec says"),
        ("set", "length", lambda x: x[1:], "not one length per example"),
    ],
)
def test_a_broken_tensor_fails_the_check(layout, name, change, said):
    spec = LAYOUTS[layout].sample
    tensors = broken(name, random(spec), change)
    with pytest.raises(AssertionError, match=said):
        LAYOUTS[layout].check(spec, tensors, 5)


def test_an_edge_between_graphs_fails_the_check():
    spec = LAYOUTS["graph"].sample
    tensors = random(spec)
    strange = torch.tensor([[0], [len(tensors["nodes"]) - 1]])
    with pytest.raises(AssertionError, match="an edge leads from one graph to another"):
        LAYOUTS["graph"].check(spec, {**tensors, "edges": torch.cat([tensors["edges"], strange], 1)}, 5)
    valued = InputSpec(layout="graph", channels=5, size=(8,), edge_channels=2)
    with pytest.raises(AssertionError, match="edge_values has shape"):
        LAYOUTS["graph"].check(valued, {**tensors, "edge_values": torch.zeros(3, 2)}, 5)


def real(tensors: Tensors, steps: int) -> Tensor:
    """Which positions are no padding, bool (B, T)."""
    return torch.arange(steps) < tensors["length"][:, None]


class Tiny(BackboneConfig):
    kind: str = "tiny"


class Messages(Backbone):
    """Two rounds of message passing (Gilmer et al. 2017): the mean of a node's neighbours, added to what it was."""

    Config = Tiny
    accepts: ClassVar = ("graph",)
    gives: ClassVar = ("example", "node")

    def __init__(self, config: Tiny, spec: InputSpec, output: OutputSpec) -> None:
        super().__init__(config, spec, output)
        self.entry = nn.Linear(spec.channels, 8)
        self.rounds = nn.ModuleList(nn.Linear(16, 8) for _ in range(2))
        self.width, self.per = 8, output.chosen

    def forward(self, tensors: Tensors) -> Tensor:
        nodes_MW = self.entry(tensors["nodes"]).tanh()
        source_E, end_E = tensors["edges"]
        degree_M1 = torch.zeros(len(nodes_MW), 1).index_add(0, end_E, torch.ones(len(end_E), 1)).clamp_min(1)
        for layer in self.rounds:
            heard_MW = torch.zeros_like(nodes_MW).index_add(0, end_E, nodes_MW[source_E]) / degree_M1
            nodes_MW = nodes_MW + layer(torch.cat([nodes_MW, heard_MW], 1)).tanh()
        if self.per == "node":
            return nodes_MW
        return self.pooled(nodes_MW, tensors["length"])

    def pooled(self, nodes_MW: Tensor, length_B: Tensor) -> Tensor:
        graph_M = torch.arange(len(length_B)).repeat_interleave(length_B)
        return torch.zeros(len(length_B), 8).index_add(0, graph_M, nodes_MW) / length_B[:, None]


class Leaky(Messages):
    """Normalizes over all nodes that are there, whosever they are."""

    def pooled(self, nodes_MW: Tensor, length_B: Tensor) -> Tensor:
        return super().pooled(nodes_MW - nodes_MW.mean(0), length_B)


class Pooling(Backbone):
    """Deep sets (Zaheer et al. 2017): each element by itself, then the mean of those that are real."""

    Config = Tiny
    accepts: ClassVar = ("set",)
    gives: ClassVar = ("example", "position")

    def __init__(self, config: Tiny, spec: InputSpec, output: OutputSpec) -> None:
        super().__init__(config, spec, output)
        self.each = nn.Sequential(nn.Linear(spec.channels, 8), nn.Tanh())
        self.mix = nn.Linear(16, 8)
        self.width, self.per = 8, output.chosen

    def forward(self, tensors: Tensors) -> Tensor:
        elements_BNW = self.each(tensors["set"])
        mean_BW = self.mean(elements_BNW, tensors)
        if self.per == "position":
            return self.mix(torch.cat([elements_BNW, mean_BW[:, None].expand_as(elements_BNW)], 2))
        return self.mix(torch.cat([mean_BW, mean_BW.square()], 1))

    def mean(self, elements_BNW: Tensor, tensors: Tensors) -> Tensor:
        inside_BN = real(tensors, elements_BNW.shape[1])
        return (elements_BNW * inside_BN[:, :, None]).sum(1) / inside_BN.sum(1, keepdim=True)


class SeesPadding(Pooling):
    def mean(self, elements_BNW: Tensor, tensors: Tensors) -> Tensor:
        return elements_BNW.mean(1)


class Steered(Backbone):
    """A perceptron whose features are scaled and moved by a condition (FiLM, Perez et al. 2018); unsteered at first."""

    Config = Tiny
    accepts: ClassVar = ("vector", "frames")
    gives: ClassVar = ("example", "position")
    conditions: ClassVar = True

    def __init__(self, config: Tiny, spec: InputSpec, output: OutputSpec) -> None:
        super().__init__(config, spec, output)
        self.entry = nn.Linear(spec.channels, 8)
        self.steer = nn.Linear(output.condition, 16) if output.condition else None
        if self.steer is not None:
            nn.init.zeros_(self.steer.weight)
            nn.init.zeros_(self.steer.bias)
        self.width, self.per = 8, output.chosen

    def forward(self, tensors: Tensors) -> Tensor:
        if "vector" in tensors:
            return self.steered(self.entry(tensors["vector"]).tanh(), tensors)
        values_BTW = self.entry(tensors["frames"]).tanh()
        if self.per == "position":
            return self.steered(values_BTW, tensors)
        inside_BT = real(tensors, values_BTW.shape[1])
        return self.steered((values_BTW * inside_BT[:, :, None]).sum(1) / inside_BT.sum(1, keepdim=True), tensors)

    def steered(self, values: Tensor, tensors: Tensors) -> Tensor:
        if self.steer is None:
            return values
        steer = self.steer(self.given(tensors["condition"]))
        scale, move = (steer if values.ndim == 2 else steer[:, None]).chunk(2, dim=-1)
        return values * (1 + scale) + move

    def given(self, condition: Tensor) -> Tensor:
        return condition


class Deaf(Steered):
    """Trains its steering, on nothing."""

    def given(self, condition: Tensor) -> Tensor:
        return torch.ones_like(condition)


class Mixes(Steered):
    """Steers every example by the mean of all conditions."""

    def given(self, condition: Tensor) -> Tensor:
        return condition.mean(0, keepdim=True).expand_as(condition)


class Voxels(Backbone):
    """One convolution, for pictures and volumes."""

    Config = Tiny
    accepts: ClassVar = ("grid",)
    gives: ClassVar = ("example", "pixel")
    dimensions: ClassVar = (2, 3)
    conditions: ClassVar = True

    def __init__(self, config: Tiny, spec: InputSpec, output: OutputSpec) -> None:
        super().__init__(config, spec, output)
        layer = (nn.Conv2d, nn.Conv3d)[len(spec.size) - 2]
        self.down = layer(spec.channels, 4, 2, stride=2)
        self.up = layer(4, 6, 1)
        self.steer = nn.Linear(output.condition, 4) if output.condition else None
        self.per, self.width = output.chosen, (6, 4) if output.chosen == "pixel" else 4

    def forward(self, tensors: Tensors) -> Tensor | tuple[Tensor, ...]:
        grid = tensors["grid"]
        deep = self.down(grid).tanh()
        if self.steer is not None:
            steer_BC = self.steer(tensors["condition"])
            deep = deep + steer_BC.reshape(*steer_BC.shape, *[1] * (grid.ndim - 2))
        if self.per == "example":
            return deep.flatten(2).mean(2) + 0 * self.up(deep).sum()
        return functional.interpolate(self.up(deep), size=grid.shape[2:]), deep


@pytest.mark.parametrize("kind", [Messages, Pooling, Steered, Voxels])
def test_backbones_of_every_layout_conform(kind):
    check_network(kind)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Leaky, "differs alone and in a batch"),
        (SeesPadding, "differs with and without padding"),
        (Deaf, "the condition changes nothing"),
        (Mixes, "differs alone and in a batch|changes another"),
    ],
)
def test_backbones_with_a_leak_do_not(kind, said):
    with pytest.raises(AssertionError, match=said):
        check_network(kind)
