"""The transformer without padding gives the losses and the gradients that it gives with padding."""

from __future__ import annotations

import pytest
import torch
from network_fakes import SPECS, Offer, asking, features

from sonde.contracts.specs import OutputSpec
from sonde.networks import assemble
from sonde.networks._packing import packed, padded
from sonde.networks.transformer import Transformer, TransformerConfig

LENGTHS = torch.tensor([7, 2, 9, 0, 7, 1, 4, 8])
STEPS = 9


def inputs(layout, lengths=LENGTHS):
    """Sequences of these lengths, with noise where they are padded."""
    tensors = {**features(SPECS[layout], count=4, seed=0)}
    tensors[layout] = torch.cat([tensors[layout], features(SPECS[layout], count=4, seed=1)[layout]])
    return {"given": {**tensors, "length": lengths}}


def network(layout, packing, per="example", causal=False, **settings):
    torch.manual_seed(0)
    config = TransformerConfig(**{"width": 16, "layers": 2, "heads": 2, "dropout": 0.0, **settings}, packing=packing)
    task = asking(OutputSpec(per=(per,), width=13, causal=causal), {"given": Offer(offered=SPECS[layout])})
    net = assemble(task, {"given": config}, {"given": Transformer})
    for parameter in net.parameters():
        # Norms and biases too, so that a wrong one shows.
        parameter.data += 0.1 * torch.randn_like(parameter)
    return net


def loss_and_gradients(net, given, at_N=None, truth=None):
    logits = net(given) if at_N is None else net(given, at_N)
    if truth is None:
        truth = torch.arange(len(logits)) % 13
    loss = torch.nn.functional.cross_entropy(logits.float(), truth)
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in net.named_parameters()}


def check_equal(one, other, tolerance=1e-5):
    torch.testing.assert_close(one[0], other[0], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(one[1], other[1], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("layout", ["tokens", "frames"])
@pytest.mark.parametrize("positions", ["learned", "rotary", "sinusoidal"])
@pytest.mark.parametrize("pool", ["mean", "max", "class"])
def test_one_answer_per_example(layout, positions, pool):
    settings = {"positions": positions, "pool": pool}
    check_equal(
        *(loss_and_gradients(network(layout, packing, **settings), inputs(layout)) for packing in (True, False))
    )


@pytest.mark.parametrize("layout", ["tokens", "frames"])
@pytest.mark.parametrize("positions", ["learned", "rotary", "sinusoidal"])
@pytest.mark.parametrize("causal", [False, True])
def test_one_answer_per_position(layout, positions, causal):
    inside = torch.arange(STEPS) < LENGTHS[:, None]
    at = inside.flatten().nonzero()[:, 0]
    truth = torch.arange(len(at)) % 13
    nets = [network(layout, packing, "position", causal, positions=positions) for packing in (True, False)]
    check_equal(*(loss_and_gradients(net, inputs(layout), at, truth) for net in nets))
    with torch.no_grad():
        torch.testing.assert_close(
            nets[0](inputs(layout))[inside], nets[1](inputs(layout))[inside], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("packing", [True, False])
def test_padding_is_not_seen(packing):
    net, given = network("tokens", packing), inputs("tokens")
    beyond = torch.arange(STEPS) >= LENGTHS[:, None].clamp(min=1)
    changed = {**given["given"], "tokens": given["given"]["tokens"].masked_fill(beyond, 3)}
    with torch.no_grad():
        assert torch.equal(net(given), net({"given": changed}))


def test_bfloat16():
    with torch.autocast("cpu", torch.bfloat16):
        answers = [network("tokens", packing)(inputs("tokens")) for packing in (True, False)]
    torch.testing.assert_close(answers[0], answers[1], rtol=2e-2, atol=2e-2)


def test_dropout_is_a_function_of_the_seed():
    net = network("tokens", True, dropout=0.5).train()

    def answer(seed):
        torch.manual_seed(seed)
        return net(inputs("tokens"))

    assert torch.equal(answer(1), answer(1))
    assert not torch.allclose(answer(1), answer(2))


def test_micro_batches_give_the_gradient_of_the_batch():
    whole, parts = network("tokens", True), network("tokens", True)
    given = inputs("tokens")["given"]
    whole({"given": given}).square().sum().backward()
    for start in range(0, 8, 2):
        parts({"given": {name: tensor[start : start + 2] for name, tensor in given.items()}}).square().sum().backward()
    for (name, one), other in zip(whole.named_parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_nothing_is_moved_where_nothing_is_padded():
    backbone, seen = network("tokens", True).backbones["given"], []
    backbone.blocks[0].register_forward_hook(lambda module, given, answer: seen.append(given[2]))
    backbone(inputs("tokens", torch.full((8,), STEPS))["given"])
    backbone(inputs("tokens")["given"])
    full, ragged = seen
    assert full.row_N is full.spread_S is None
    assert len(full.groups) == 1
    assert full.groups[0].mask is None
    assert len(ragged.row_N) == LENGTHS.clamp(min=1).sum()


def test_rows_are_the_real_positions():
    x = torch.arange(8.0 * STEPS).reshape(8, STEPS, 1)
    layout = packed(LENGTHS, STEPS, causal=False)
    inside = torch.arange(STEPS) < LENGTHS.clamp(min=1)[:, None]
    rows = layout.pack(x)
    assert sorted(rows.flatten().tolist()) == sorted(x[inside].flatten().tolist())
    assert torch.equal(layout.unpack(rows, 8)[inside], x[inside])
    assert torch.equal(layout.gather([part for _, part in layout.spread(rows)]), rows)


@pytest.mark.parametrize("causal", [False, True])
def test_examples_of_like_length_attend_side_by_side(causal):
    layout = packed(LENGTHS, STEPS, causal=causal)
    rows = torch.arange(len(layout.row_N))[:, None]
    assert [(group.count, group.steps) for group, _ in layout.spread(rows)] == [(2, 9), (2, 7), (1, 4), (1, 2), (2, 1)]
    for group, part in layout.spread(rows):
        real = [len(example.unique()) for example in part]
        assert min(real) >= 0.8 * group.steps
        # A causal position never looks at the padding behind it.
        expected = None if causal or min(real) == group.steps else real
        assert expected == (None if group.mask is None else group.mask.sum((1, 2, 3)).tolist())


def test_padded_rows_are_all_positions():
    x = torch.randn(4, STEPS, 2)
    layout = padded(4, STEPS, torch.arange(STEPS) < LENGTHS[:4, None], causal=False)
    assert torch.equal(layout.unpack(layout.pack(x), 4), x)
    ((group, part),) = layout.spread(layout.pack(x))
    assert torch.equal(part, x)
    assert group.mask.sum((1, 2, 3)).tolist() == [7, 2, 9, 0]
