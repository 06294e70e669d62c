from __future__ import annotations

import copy

import pytest
import torch
from network_fakes import SPECS, Offer, asking, features
from safetensors.torch import save
from torch import nn

from sonde.base import lookup
from sonde.base.errors import UserError
from sonde.contracts.backbone import Backbone
from sonde.contracts.specs import InputSpec, OutputSpec
from sonde.networks import assemble
from sonde.networks._assemble import wrap

EXAMPLE = OutputSpec(per=("example",), width=5)
PIXEL = OutputSpec(per=("pixel",), width=5)
CAUSAL = OutputSpec(per=("position",), width=13, causal=True)


def network(kinds, output, specs=None, settings=None, of=None, **options):
    """A network of tiny backbones; `kinds` maps inputs, named by their layout, to kinds."""
    torch.manual_seed(0)
    backbones = {name: lookup.find("networks", kind, Backbone) for name, kind in kinds.items()}
    configs = {
        name: backbone.Config.model_validate({**backbone.tiny, **(settings or {})})
        for name, backbone in backbones.items()
    }
    inputs = {name: Offer(offered=(specs or SPECS)[name]) for name in kinds}
    return assemble(asking(output, inputs, of=of), configs, backbones, **options)


def refused(kinds, output, **options):
    with pytest.raises(UserError) as caught:
        network(kinds, output, **options)
    return str(caught.value)


def test_several_inputs_meet_in_one_answer():
    kinds = {"grid": "resnet", "tokens": "recurrent", "columns": "mlp"}
    net = network(kinds, EXAMPLE)
    inputs = {layout: features(SPECS[layout]) for layout in kinds}
    answer = net(inputs)
    assert answer.shape == (4, 5)
    answer.square().sum().backward()
    assert not [name for name, parameter in net.named_parameters() if parameter.grad is None]
    net.eval()
    before = net(inputs)
    for layout in kinds:
        # Every input counts, and none by the size of its features.
        changed = net({**inputs, layout: features(SPECS[layout], seed=1)})
        assert 1e-4 < (changed - before).abs().mean() < 1


def test_features_of_several_sizes_are_brought_to_the_picture():
    specs = {"grid": InputSpec(layout="grid", channels=3, size=(37, 50))}
    for kind in ("cnn", "resnet", "unet"):
        net = network({"grid": kind}, PIXEL, specs=specs)
        assert net({"grid": features(specs["grid"])}).shape == (4, 5, 37, 50)


def test_a_language_model_answers_with_its_embedding():
    net = network({"tokens": "transformer"}, CAUSAL)
    assert net.head.answer is None
    backbone = net.backbones["tokens"]
    tensors = {"tokens": features(SPECS["tokens"])}
    expected = backbone(tensors["tokens"]) @ backbone.entry.layer.weight.T
    torch.testing.assert_close(net.eval()(tensors), backbone.eval()(tensors["tokens"]) @ backbone.entry.layer.weight.T)
    assert expected.shape == (4, 9, 13)
    # No weight is held twice, so that weights can be saved; a copy answers with its own.
    save(net.state_dict())
    twin = copy.deepcopy(net)
    twin.backbones["tokens"].entry.layer.weight.data.zero_()
    assert not twin(tensors).any()
    assert net(tensors).any()
    untied = network({"tokens": "transformer"}, CAUSAL, settings={"tie": False})
    assert isinstance(untied.head.answer, nn.Linear)
    # Answers that are not tokens have a layer of their own.
    assert network({"tokens": "transformer"}, EXAMPLE).head.answer is not None
    assert network({"tokens": "transformer"}, OutputSpec(per=("position",), width=4)).head.answer is not None


@pytest.mark.parametrize("kind", ["transformer", "recurrent"])
def test_answers_at_chosen_positions(kind):
    given = {"tokens": features(SPECS["tokens"])}
    chosen = torch.tensor([30, 0, 19, 20])
    net = network({"tokens": kind}, CAUSAL).eval()
    own = wrap(nn.Embedding(13, 13), asking(CAUSAL, {"tokens": Offer(offered=SPECS["tokens"])}))
    for each, name in ((net, kind), (own, "own")):
        answers = each(given, chosen)
        assert answers.shape == (4, 13), name
        torch.testing.assert_close(answers, each(given).flatten(0, 1)[chosen])


def test_first_answers_are_close_to_no_opinion():
    for kinds, output in (({"grid": "cnn"}, EXAMPLE), ({"grid": "cnn"}, PIXEL), ({"columns": "mlp"}, EXAMPLE)):
        (layout,) = kinds
        assert network(kinds, output)({layout: features(SPECS[layout])}).abs().max() < 1


def test_a_network_that_does_not_give_what_is_asked():
    assert refused({"grid": "unet"}, EXAMPLE) == (
        "network 'unet' answers per pixel; the target needs one answer per example. "
        "hint: use network 'cnn', 'huggingface', 'mlp', 'resnet', 'timm' or 'transformer', or a target such as 'mask'"
    )
    assert refused({"grid": "mlp"}, PIXEL) == (
        "network 'mlp' answers per example; the target needs an answer per pixel. "
        "hint: use network 'cnn', 'dit', 'resnet', 'timm', 'transformer' or 'unet', or a target such as 'category'"
    )


class Shrinks(Offer):
    """Gives some batches another size."""

    resizes = True


def test_pictures_that_change_their_size_need_a_network_that_takes_any():
    def answer(kind, output, size):
        backbone = lookup.find("networks", kind, Backbone)
        config = backbone.Config(**backbone.tiny)
        net = assemble(asking(output, {"x": Shrinks(offered=SPECS["grid"])}), {"x": config}, {"x": backbone})
        return net({"x": {"grid": torch.zeros(2, SPECS["grid"].channels, *size)}})

    for kind in ("cnn", "resnet"):
        assert answer(kind, EXAMPLE, (11, 9)).shape == (2, EXAMPLE.width)
    for kind, output, hint in (("mlp", EXAMPLE, ", or use network 'cnn' or 'resnet'"), ("cnn", PIXEL, "")):
        with pytest.raises(
            UserError, match=f"augment.small_fraction of input 'x'.*set augment.small_fraction to 0{hint}"
        ):
            answer(kind, output, (11, 9))


def test_a_network_that_does_not_take_the_input():
    assert refused({"tokens": "resnet"}, EXAMPLE) == (
        "network 'resnet' takes grid or frames; input 'tokens' offers tokens. "
        "hint: use network 'huggingface', 'ngrams', 'recurrent' or 'transformer'"
    )
    assert refused({"columns": "cnn"}, EXAMPLE).endswith("hint: use network 'mlp' or 'tabm'")


def test_a_target_that_no_network_can_answer_for_the_input():
    assert refused({"tokens": "transformer"}, PIXEL) == (
        "the target needs an answer per pixel; input 'tokens' offers tokens, which has none. "
        "Expected an input that offers grid. hint: use a target of one answer per example, such as 'category'"
    )
    assert refused({"vector": "transformer"}, CAUSAL).startswith(
        "the target needs an answer per position; input 'vector' offers vector, which has none. "
        "Expected an input that offers grid, tokens, frames or set."
    )
    assert refused({"tokens": "transformer"}, OutputSpec(per=("position", "pixel"), width=5, condition=3)).startswith(
        "network 'transformer' cannot be steered by a condition."
    )
    either = OutputSpec(per=("node", "pixel"), width=5)
    assert refused({"tokens": "transformer"}, either).startswith(
        "the target needs an answer per node or an answer per pixel; input 'tokens' offers tokens, which has none. "
        "Expected an input that offers grid or graph."
    )


def test_parts_of_one_input_are_answered_for_only():
    assert refused({"tokens": "recurrent", "frames": "recurrent"}, OutputSpec(per=("position",), width=5)) == (
        "the target needs an answer for parts of several inputs: tokens, frames. "
        "Expected one input whose positions, pixels or nodes are answered for. "
        "hint: choose one with target.input, or keep one input"
    )
    assert refused({"grid": "unet", "columns": "mlp"}, PIXEL) == (
        "the target needs an answer per pixel; input 'columns' offers columns, which has none. "
        "Expected an input that offers grid. hint: use a target of one answer per example, such as 'category'"
    )


class LooksAhead(lookup.find("networks", "recurrent", Backbone)):
    causal = False


def test_a_network_that_looks_ahead():
    backbone = LooksAhead
    task = asking(CAUSAL, {"text": Offer(offered=SPECS["tokens"])})
    with pytest.raises(UserError) as caught:
        assemble(task, {"text": backbone.Config()}, {"text": backbone})
    assert str(caught.value) == (
        "network 'recurrent' looks ahead; the target's answers may depend on earlier positions only. "
        "hint: use network 'recurrent' or 'transformer'"
    )


def test_a_word_that_no_input_can_be_named():
    backbone = lookup.find("networks", "mlp", Backbone)
    task = asking(EXAMPLE, {"values": Offer(offered=SPECS["vector"])})
    with pytest.raises(UserError, match=r"an input cannot be named 'values': PyTorch uses that word\. hint: choose"):
        assemble(task, {"values": backbone.Config()}, {"values": backbone})


class Mine(nn.Module):
    def __init__(self, layer: nn.Module, *swap: int) -> None:
        super().__init__()
        self.layer, self.swap = layer, swap

    def forward(self, given):
        return self.layer(given.movedim(*self.swap)).movedim(*self.swap[::-1]) if self.swap else self.layer(given)


@pytest.mark.parametrize(
    ("layout", "module", "output"),
    [
        ("vector", Mine(nn.Linear(6, 5)), EXAMPLE),
        ("columns", Mine(nn.Linear(4, 5)), EXAMPLE),
        ("frames", Mine(nn.Linear(12, 5)), OutputSpec(per=("position",), width=5)),
        ("tokens", Mine(nn.Embedding(13, 5)), OutputSpec(per=("position",), width=5)),
        ("grid", Mine(nn.Linear(3, 5), 1, 3), PIXEL),
    ],
)
def test_anyones_module_answers_for_itself(layout, module, output):
    net = wrap(module, asking(output, {"given": Offer(offered=SPECS[layout])}))
    tensors = features(SPECS[layout])
    main = {"columns": "numbers"}.get(layout, layout)
    assert torch.equal(net({"given": tensors}), module(tensors[main]))
    with pytest.raises(NotImplementedError):
        net.extend({"given": tensors}, None)


def test_a_module_whose_answers_have_another_shape():
    net = wrap(nn.Linear(6, 4), asking(EXAMPLE, {"given": Offer(offered=SPECS["vector"])}))
    with pytest.raises(UserError) as caught:
        net({"given": features(SPECS["vector"])})
    assert str(caught.value) == (
        "the module Linear answered with shape (4, 4). Expected a tensor of shape (4, 5), for vector of shape (4, 6)."
    )
    net = wrap(nn.LSTM(12, 5, batch_first=True), asking(CAUSAL, {"given": Offer(offered=SPECS["frames"])}))
    with pytest.raises(UserError, match="the module LSTM answered with tuple"):
        net({"given": features(SPECS["frames"])})


def test_a_module_takes_one_input():
    inputs = {"a": Offer(offered=SPECS["vector"]), "b": Offer(offered=SPECS["grid"])}
    with pytest.raises(UserError, match="a module of your own takes one input; this task has 2: a, b"):
        wrap(nn.Identity(), asking(EXAMPLE, inputs))
