"""Heads of targets' own, and several inputs whatever is asked: features meet at positions, pixels and nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from network_fakes import SPECS, Asking, Offer, asking, features
from torch import nn
from torch.nn import functional

from sonde.base import lookup
from sonde.contracts.backbone import Backbone, BackboneConfig
from sonde.contracts.layouts import LAYOUTS
from sonde.contracts.specs import Features, OutputSpec
from sonde.contracts.task import Task
from sonde.networks import assemble
from sonde.networks._heads import Broadcast, Fusion

POSITION, PIXEL = OutputSpec(per=("position",), width=5), OutputSpec(per=("pixel",), width=5)
NODE, EXAMPLE = OutputSpec(per=("node",), width=5), OutputSpec(per=("example",), width=5)
EITHER = OutputSpec(per=("position", "pixel"))


class NodesConfig(BackboneConfig):
    kind: str = "nodes"


class Nodes(Backbone):
    """One layer for every node."""

    Config = NodesConfig
    accepts: ClassVar = ("graph",)
    gives: ClassVar = ("node",)

    def __init__(self, config: NodesConfig, spec: Any, output: OutputSpec) -> None:
        super().__init__(config, spec, output)
        self.layer, self.width = nn.Linear(spec.channels, 6), 6

    def forward(self, tensors):
        return self.layer(tensors["nodes"]).tanh()


def tiny(kind, **settings):
    """The class of a kind and settings that make it small."""
    if kind == "nodes":
        return Nodes, NodesConfig(**settings)
    found = lookup.find("networks", kind, Backbone)
    return found, found.Config.model_validate({**found.tiny, **settings})


def network(task, kinds, **settings):
    torch.manual_seed(0)
    made = {name: tiny(kind, **settings.get(name, {})) for name, kind in kinds.items()}
    return assemble(
        task, {name: config for name, (_, config) in made.items()}, {name: kind for name, (kind, _) in made.items()}
    )


def offers(*layouts):
    return {layout: Offer(offered=SPECS[layout]) for layout in layouts}


def given(*layouts, seed=0):
    return {layout: features(SPECS[layout], seed=seed + number) for number, layout in enumerate(layouts)}


class Decoder(nn.Module):
    """Answers for queries by looking at every position, or at every pixel of the coarsest grid."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(3, width) / width**0.5)
        self.answer = nn.Linear(width, 2)

    def forward(self, features, scale=1.0):
        (only,) = features.values()
        values = only.values[-1].flatten(2).transpose(1, 2) if isinstance(only.values, tuple) else only.values
        scores = self.queries @ values.transpose(1, 2)
        if only.inside_BT is not None:
            scores = scores.masked_fill(~only.inside_BT[:, None], -torch.inf)
        return scale * self.answer(scores.softmax(2) @ values)


@dataclass(frozen=True, kw_only=True)
class Queries(Asking):
    """Brings a decoder; notes the widths that it was told."""

    told: list[Any]

    def head(self, widths):
        self.told.append(dict(widths))
        ((_, width),) = widths.items()
        return Decoder(width[-1] if isinstance(width, tuple) else width)


@pytest.mark.parametrize(
    ("layout", "kind", "width", "chosen"),
    [
        ("tokens", "recurrent", 16, "position"),
        ("frames", "transformer", 16, "position"),
        ("grid", "cnn", (4, 8), "pixel"),
        ("grid", "transformer", 16, "position"),
    ],
)
def test_a_head_of_the_targets_own_takes_the_first_that_a_backbone_gives(layout, kind, width, chosen):
    target = Queries(output=EITHER, told=[])
    net = network(Task(inputs=offers(layout), target=target), {layout: kind})
    assert target.told == [{layout: width}]
    assert net.outputs[layout].per == (chosen,)
    inputs = given(layout)
    answer = net(inputs)
    assert answer.shape == (4, 3, 2)
    answer.square().sum().backward()
    assert not [name for name, parameter in net.named_parameters() if parameter.grad is None]
    net.eval()
    torch.testing.assert_close(net(inputs, 2.0), 2 * net(inputs))
    assert torch.equal(net.answer(net.features(inputs), 0.5), net(inputs, 0.5))


def test_a_head_sees_which_positions_are_real():
    net = network(Task(inputs=offers("tokens"), target=Queries(output=EITHER, told=[])), {"tokens": "recurrent"}).eval()
    inputs = given("tokens")
    beyond = torch.arange(9) >= inputs["tokens"]["length"][:, None]
    changed = {"tokens": {**inputs["tokens"], "tokens": inputs["tokens"]["tokens"].masked_fill(beyond, 3)}}
    torch.testing.assert_close(net(changed), net(inputs))
    assert net.features(inputs)["tokens"].inside_BT.sum(1).tolist() == inputs["tokens"]["length"].tolist()
    picture = network(Task(inputs=offers("grid"), target=Queries(output=EITHER, told=[])), {"grid": "cnn"})
    found = picture.features(given("grid"))["grid"]
    assert found.size == SPECS["grid"].size
    assert found.inside_BT is None


SEVERAL = [
    (POSITION, {"tokens": "recurrent", "columns": "mlp"}, (4, 9, 5)),
    (POSITION, {"columns": "mlp", "vector": "mlp", "frames": "transformer"}, (4, 9, 5)),
    (PIXEL, {"grid": "unet", "columns": "mlp"}, (4, 5, 24, 32)),
    (PIXEL, {"columns": "mlp", "grid": "cnn", "tokens": "recurrent"}, (4, 5, 24, 32)),
    (NODE, {"graph": "nodes", "columns": "mlp"}, (3 + 4 + 5 + 6, 5)),
    (EXAMPLE, {"grid": "cnn", "tokens": "recurrent", "columns": "mlp"}, (4, 5)),
]


@pytest.mark.parametrize(("output", "kinds", "shape"), SEVERAL)
def test_several_inputs_whatever_is_asked(output, kinds, shape):
    main = None if output is EXAMPLE else next(name for name in kinds if name in ("tokens", "frames", "grid", "graph"))
    if output is PIXEL:
        main = "grid"
    net = network(asking(output, offers(*kinds), of=main), kinds)
    assert isinstance(net.head.fusion, Fusion) == (output is EXAMPLE)
    assert isinstance(net.head.broadcast, Broadcast) == (output is not EXAMPLE)
    inputs = given(*kinds)
    answer = net(inputs)
    assert answer.shape == shape
    answer.square().sum().backward()
    assert not [name for name, parameter in net.named_parameters() if parameter.grad is None]
    net.eval()
    before = net(inputs)
    torch.testing.assert_close(net.answer(net.features(inputs)), before, rtol=0, atol=0)
    for name in kinds:
        changed = net({**inputs, name: features(SPECS[name], seed=7)})
        assert (changed - before).abs().mean() > 1e-5, name
    others = [name for name in kinds if name != main]
    for name in others:
        # What one example's table says reaches all of its own answers and nobody else's.
        key = {"columns": "numbers", "vector": "vector", "tokens": "tokens", "grid": "grid"}[name]
        tensors = {each: value.clone() for each, value in inputs[name].items()}
        tensors[key][1] = features(SPECS[name], seed=9)[key][1]
        apart = (net({**inputs, name: tensors}) - before).detach().abs()
        if output is NODE:
            touched = [float(rows.max()) > 0 for rows in apart.split([3, 4, 5, 6])]
            assert bool((apart.split([3, 4, 5, 6])[1].amax(1) > 0).all())
        else:
            touched = (apart.flatten(1).amax(1) > 0).tolist()
        assert touched == [False, True, False, False], name


@pytest.mark.parametrize(("output", "kinds", "shape"), SEVERAL)
def test_alone_as_in_a_batch(output, kinds, shape):
    main = {POSITION: ("tokens", "frames"), PIXEL: ("grid",), NODE: ("graph",), EXAMPLE: ()}[output]
    of = next((name for name in kinds if name in main), None)
    net = network(asking(output, offers(*kinds), of=of), kinds).eval()
    inputs = given(*kinds)
    together = net(inputs)
    for index in range(4):
        one = net({name: LAYOUTS[name].alone(tensors, index) for name, tensors in inputs.items()})
        row = together.split([3, 4, 5, 6])[index] if output is NODE else together[index : index + 1, : one.shape[1]]
        torch.testing.assert_close(one, row, rtol=1e-4, atol=1e-5)


def test_answers_at_chosen_positions_with_a_table_beside():
    kinds = {"tokens": "transformer", "columns": "mlp"}
    net = network(
        asking(OutputSpec(per=("position",), width=13, causal=True), offers(*kinds), of="tokens"), kinds
    ).eval()
    chosen = torch.tensor([30, 0, 19])
    torch.testing.assert_close(net(given(*kinds), chosen), net(given(*kinds)).flatten(0, 1)[chosen])


def test_a_pixel_head_brings_answers_to_the_size_of_the_picture():
    net = network(asking(PIXEL, offers("grid")), {"grid": "resnet"}).eval()
    found = net.features(given("grid"))
    assert isinstance(found["grid"], Features)
    raw = net.head.answer(found["grid"].values)
    expected = functional.interpolate(raw, size=(24, 32), mode="bilinear") if raw.shape[2:] != (24, 32) else raw
    torch.testing.assert_close(net.answer(found), expected)
