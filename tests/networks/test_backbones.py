"""What every network holds, for every kind on disk, every layout that it accepts and every answer that it gives."""

from __future__ import annotations

import pytest
import torch
from network_fakes import SPECS, Offer, alone, asking, features

from sonde.base import lookup
from sonde.contracts.backbone import Backbone
from sonde.contracts.layouts import LAYOUTS
from sonde.contracts.specs import OutputSpec
from sonde.networks import assemble

FOUND = {kind: lookup.find("networks", kind, Backbone) for kind in lookup.kinds("networks")}
# One whose settings hang on its input is tried by the conformance kit and tests of its own.
KINDS = {kind: backbone for kind, backbone in FOUND.items() if "tiny_for" not in vars(backbone)}
CASES = [
    (kind, layout, per, causal)
    for kind, backbone in KINDS.items()
    for layout in backbone.accepts
    for per in backbone.gives
    # Graphs are laid end to end, and tried by the conformance kit.
    if per in LAYOUTS[layout].gives and layout != "graph"
    for causal in ((False, True) if backbone.causal and per == "position" and layout != "grid" else (False,))
]
# Settings beyond `tiny` under which the same has to hold.
VARIANTS = [
    ("mlp", "columns", {"numeric_embedding": "none", "norm": "layer"}),
    ("mlp", "columns", {"numeric_embedding": "periodic", "norm": "batch"}),
    ("mlp", "vector", {"hidden": []}),
    ("cnn", "frames", {"activation": "gelu", "norm": "none"}),
    ("cnn", "frames", {"activation": "tanh", "convolutions": 2}),
    ("cnn", "grid", {"norm": "group"}),
    ("resnet", "frames", {"stem": "imagenet"}),
    ("resnet", "frames", {"depth": 50}),
    ("resnet", "frames", {"depth": 20, "width": 0.5}),
    ("recurrent", "tokens", {"pool": "last"}),
    ("recurrent", "tokens", {"pool": "mean", "cell": "gru"}),
    ("recurrent", "frames", {"pool": "last", "cell": "rnn", "bidirectional": False}),
    ("transformer", "tokens", {"pool": "class"}),
    ("transformer", "tokens", {"pool": "max", "positions": "rotary", "norm": "rms", "bias": False}),
    ("transformer", "frames", {"positions": "sinusoidal", "activation": "relu"}),
    ("transformer", "grid", {"patch": 5, "pool": "class"}),
]


def network(kind, layout, per="example", causal=False, **settings):
    torch.manual_seed(0)
    backbone = KINDS[kind]
    config = backbone.Config.model_validate({**backbone.tiny, **settings})
    output = OutputSpec(per=(per,), width=13 if layout == "tokens" else 5, causal=causal)
    return assemble(asking(output, {"given": Offer(offered=SPECS[layout])}), {"given": config}, {"given": backbone})


def answer_shape(layout, per, width):
    if per == "pixel":
        return (4, width, *SPECS[layout].size)
    if per == "position":
        # The positions of a picture are its patches, here of 3 pixels.
        return (4, 8 * 11 if layout == "grid" else SPECS[layout].size[0], width)
    if per == "channel":
        return (4, SPECS[layout].channels, width)
    return (4, width)


def check(net, layout, per):
    """The answer's shape, a gradient for every parameter, the same answers alone, and after saving and loading."""
    tensors = features(SPECS[layout])
    answer = net.train()({"given": tensors})
    count, *rest = answer_shape(layout, per, 13 if layout == "tokens" else 5)
    assert answer.shape == (count * net.members, *rest)
    (answer**2).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    net.eval()
    with torch.inference_mode():
        together = net({"given": tensors})
        for index in range(4):
            one = net({"given": alone(tensors, index)})
            inside = together[index : index + 1]
            inside = inside[:, : one.shape[1]] if per == "position" else inside
            torch.testing.assert_close(one, inside, rtol=1e-5, atol=1e-5)
    return together


@pytest.mark.parametrize(("kind", "layout", "per", "causal"), CASES)
def test_every_network_answers_what_is_asked(kind, layout, per, causal):
    net = network(kind, layout, per, causal)
    before = check(net, layout, per)
    torch.manual_seed(1)
    again = network(kind, layout, per, causal)
    again.load_state_dict(net.state_dict())
    with torch.inference_mode():
        assert torch.equal(again.eval()({"given": features(SPECS[layout])}), before)


@pytest.mark.parametrize(("kind", "layout", "settings"), VARIANTS)
def test_every_setting_answers_what_is_asked(kind, layout, settings):
    check(network(kind, layout, **settings), layout, "example")


@pytest.mark.parametrize(("kind", "layout"), [(kind, layout) for kind, layout, _, causal in CASES if causal])
def test_causal_answers_see_no_later_position_and_extending_equals_the_whole(kind, layout):
    net = network(kind, layout, "position", causal=True).eval()
    tensors = {**features(SPECS[layout]), "length": torch.full((4,), 9)}
    with torch.inference_mode():
        whole = net({"given": tensors})
        changed = {**tensors, layout: torch.cat([tensors[layout][:, :6], tensors[layout][:, 6:].flip(0)], dim=1)}
        torch.testing.assert_close(net({"given": changed})[:, :6], whole[:, :6], rtol=0, atol=0)
        assert not torch.allclose(net({"given": changed})[:, 6:], whole[:, 6:])
        cache, pieces, caches = None, [], []
        for start, stop in ((0, 3), (3, 4), (4, 8), (8, 9)):
            piece, cache = net.extend({"given": {layout: tensors[layout][:, start:stop]}}, cache)
            pieces.append(piece)
            caches.append(cache)
        torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-5, atol=1e-5)
        # A cache is a value: what came later has not changed it.
        again, _ = net.extend({"given": {layout: tensors[layout][:, 3:4]}}, caches[0])
        torch.testing.assert_close(again, pieces[1], rtol=0, atol=0)


@pytest.mark.parametrize("kind", [kind for kind, backbone in KINDS.items() if "tokens" in backbone.accepts])
def test_no_length_means_no_padding(kind):
    net = network(kind, "tokens").eval()
    tokens = features(SPECS["tokens"])["tokens"]
    with torch.inference_mode():
        full = net({"given": {"tokens": tokens, "length": torch.full((4,), 9)}})
        assert torch.equal(net({"given": {"tokens": tokens}}), full)


@pytest.mark.parametrize("kind", [kind for kind, backbone in KINDS.items() if "tokens" in backbone.accepts])
def test_an_empty_text_has_an_answer(kind):
    net = network(kind, "tokens")
    tokens = torch.zeros(2, 4, dtype=torch.int64)
    with torch.inference_mode():
        net.eval()
        beside = net({"given": {"tokens": tokens, "length": torch.tensor([0, 4])}})
        by_itself = net({"given": {"tokens": tokens[:1, :0], "length": torch.tensor([0])}})
    assert torch.isfinite(beside).all()
    torch.testing.assert_close(by_itself, beside[:1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "layout"), sorted({(kind, layout) for kind, layout, _, _ in CASES}))
def test_half_precision_trains(kind, layout):
    per = KINDS[kind].gives[0]
    net = network(kind, layout, per)
    with torch.autocast("cpu", torch.bfloat16):
        answer = net({"given": features(SPECS[layout])})
    answer.float().square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_settings_are_described_and_kinds_named(kind):
    config = KINDS[kind].Config
    assert config().kind == kind
    assert all(field.description for name, field in config.model_fields.items() if name != "kind")
    assert config.model_validate(config().model_dump(mode="json")) == config()
