from __future__ import annotations

import pytest
import torch
from network_fakes import SPECS, features
from pydantic import ValidationError
from torch import nn

from sonde.contracts.specs import InputSpec, OutputSpec
from sonde.networks.transformer import Transformer, TransformerConfig, rotate, sinusoids

TINY = {"width": 16, "layers": 2, "heads": 2, "dropout": 0.0}
CAUSAL = OutputSpec(per=("position",), width=13, causal=True)
POSITION = OutputSpec(per=("position",), width=13)
EXAMPLE = OutputSpec(per=("example",), width=3)


def transformer(ask, shape=SPECS["tokens"], **settings):
    torch.manual_seed(0)
    backbone = Transformer(TransformerConfig(**{**TINY, **settings}), shape, ask).eval()
    for parameter in backbone.parameters():
        # Norms and biases too, so that a wrong one shows.
        parameter.data += 0.1 * torch.randn_like(parameter)
    return backbone


def test_the_decoder_is_gpt2():
    from transformers import GPT2Config, GPT2Model

    backbone = transformer(CAUSAL)
    settings = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": backbone.steps, "vocab_size": 13}
    theirs = GPT2Model(GPT2Config(**settings, activation_function="gelu", bos_token_id=0, eos_token_id=0)).eval()
    names = {"wte.weight": backbone.entry.layer.weight, "wpe.weight": backbone.position_embedding.weight}
    names |= {"ln_f.weight": backbone.norm.weight, "ln_f.bias": backbone.norm.bias}
    for number, block in enumerate(backbone.blocks):
        for their_name, module in (
            ("ln_1", block.norm1),
            ("ln_2", block.norm2),
            ("attn.c_attn", block.attention.qkv),
            ("attn.c_proj", block.attention.out),
            ("mlp.c_fc", block.fc1),
            ("mlp.c_proj", block.fc2),
        ):
            weight = module.weight.T if isinstance(module, nn.Linear) else module.weight
            names |= {f"h.{number}.{their_name}.weight": weight, f"h.{number}.{their_name}.bias": module.bias}
    theirs.load_state_dict({name: value.detach() for name, value in names.items()})
    tokens = features(SPECS["tokens"])["tokens"]
    with torch.inference_mode():
        expected = theirs(input_ids=tokens).last_hidden_state
        torch.testing.assert_close(backbone({"tokens": tokens}), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
def test_the_encoder_is_torchs(bias):
    backbone = transformer(POSITION, bias=bias)
    layer = nn.TransformerEncoderLayer(16, 2, 64, 0.0, "gelu", batch_first=True, norm_first=True, bias=bias)
    theirs = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(16, bias=bias), enable_nested_tensor=False).eval()
    for their_layer, block in zip(theirs.layers, backbone.blocks, strict=True):
        for their_module, module in (
            (their_layer.norm1, block.norm1),
            (their_layer.norm2, block.norm2),
            (their_layer.self_attn.out_proj, block.attention.out),
            (their_layer.linear1, block.fc1),
            (their_layer.linear2, block.fc2),
        ):
            their_module.load_state_dict(module.state_dict())
        their_layer.self_attn.in_proj_weight.data.copy_(block.attention.qkv.weight)
        if bias:
            their_layer.self_attn.in_proj_bias.data.copy_(block.attention.qkv.bias)
    theirs.norm.load_state_dict(backbone.norm.state_dict())
    tensors = features(SPECS["tokens"])
    embedded = backbone.entry(tensors) + backbone.position_embedding(torch.arange(9))
    padded = torch.arange(9) >= tensors["length"][:, None]
    expected = theirs(embedded, src_key_padding_mask=padded)
    ours = backbone(tensors)
    for index, length in enumerate(tensors["length"].tolist()):
        torch.testing.assert_close(ours[index, :length], expected[index, :length], rtol=1e-4, atol=1e-5)


def test_rotary_attention_depends_on_distances_alone():
    torch.manual_seed(0)
    query, key = torch.randn(2, 8)
    near = rotate(query, sinusoids(torch.tensor(3), 8)) @ rotate(key, sinusoids(torch.tensor(1), 8))
    far = rotate(query, sinusoids(torch.tensor(103), 8)) @ rotate(key, sinusoids(torch.tensor(101), 8))
    torch.testing.assert_close(near, far, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(rotate(query, sinusoids(torch.tensor(9), 8)).norm(), query.norm())


def test_first_weights_are_those_of_gpt2():
    torch.manual_seed(0)
    config = TransformerConfig(width=64, layers=8)
    backbone = Transformer(config, InputSpec(layout="tokens", vocabulary=500, size=(64,)), CAUSAL)
    for block in backbone.blocks:
        assert block.attention.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert block.attention.out.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
        assert block.fc2.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
        assert not block.fc1.bias.any()
        assert torch.equal(block.norm1.weight, torch.ones(64))
    assert backbone.entry.layer.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_patches_cut_the_picture_row_by_row():
    shape = InputSpec(layout="grid", channels=1, size=(4, 6))
    backbone = Transformer(TransformerConfig(**TINY, patch=2), shape, EXAMPLE)
    grid = torch.arange(24.0).reshape(1, 1, 4, 6)
    with torch.no_grad():
        backbone.entry.layer.weight.fill_(0.25)
        backbone.entry.layer.bias.zero_()
    expected = [grid[0, 0, row : row + 2, column : column + 2].mean() for row in (0, 2) for column in (0, 2, 4)]
    torch.testing.assert_close(backbone.entry({"grid": grid})[0, :, 0], torch.stack(expected))
    assert backbone.steps == 6


@pytest.mark.parametrize(("size", "patch"), [((28, 28), 4), ((64, 64), 8), ((5, 9), 1), ((224, 224), 28)])
def test_a_patch_is_an_eighth_of_the_picture(size, patch):
    backbone = Transformer(TransformerConfig(**TINY), InputSpec(layout="grid", channels=1, size=size), EXAMPLE)
    assert backbone.entry.patch == (patch, patch)


def test_more_positions_than_were_learnt():
    backbone = transformer(CAUSAL)
    tokens = torch.zeros(1, 11, dtype=torch.int64)
    with pytest.raises(ValueError, match="position 11 is beyond the 10 positions that were learned"):
        backbone({"tokens": tokens})
    _, cache = backbone.extend({"tokens": tokens[:, :8]}, None)
    with pytest.raises(ValueError, match="position 11 is beyond"):
        backbone.extend({"tokens": tokens[:, :3]}, cache)
    assert transformer(CAUSAL, positions="rotary")({"tokens": tokens}).shape == (1, 11, 16)


def test_an_encoder_cannot_be_extended():
    with pytest.raises(NotImplementedError, match="looks ahead"):
        transformer(POSITION).extend(features(SPECS["tokens"]), None)


def test_settings_that_do_not_fit_each_other():
    with pytest.raises(ValidationError, match="width 10 is not a multiple of heads 4"):
        TransformerConfig(width=10)
    with pytest.raises(ValidationError, match="rotary positions need an even width / heads; it is 5"):
        TransformerConfig(width=10, heads=2, positions="rotary")
