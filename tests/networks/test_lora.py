"""Adapters: only they learn, merging changes no answer, and peft reads and writes the same."""

from __future__ import annotations

import json
import warnings

import peft
import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from sonde.base.errors import UserError
from sonde.contracts.adapters import LoraConfig
from sonde.contracts.specs import InputSpec, OutputSpec
from sonde.networks import layer_numbers, lora
from sonde.networks._quantized import Linear4bit
from sonde.networks.huggingface import HuggingFace, HuggingFaceConfig
from sonde.networks.resnet import ResNet, ResNetConfig
from sonde.networks.timm import Timm, TimmConfig
from sonde.networks.transformer import Transformer, TransformerConfig

EXAMPLE = OutputSpec(per=("example",), width=3)
TOKENS = InputSpec(layout="tokens", vocabulary=50, size=(16,))
COLOUR = InputSpec(layout="grid", channels=3, size=(32, 32))
BERT = {
    "model_type": "bert", "vocab_size": 50, "max_position_embeddings": 32, "hidden_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128,
}  # fmt: skip


def bert(seed=0):
    torch.manual_seed(seed)
    return HuggingFace(HuggingFaceConfig(architecture=BERT), TOKENS, EXAMPLE).eval()


def shaken(backbone):
    """With adapters that do something."""
    for layer in lora.adapted(backbone).values():
        nn.init.normal_(layer.lora_B.weight, std=0.2)
    return backbone


def tokens():
    generator = torch.Generator().manual_seed(1)
    return {"tokens": torch.randint(1, 50, (2, 9), generator=generator), "length": torch.tensor([9, 9])}


def kinds():
    torch.manual_seed(0)
    grid = {"grid": torch.randn(2, 3, 32, 32)}
    return {
        "bert": (bert(), tokens()),
        "transformer": (Transformer(TransformerConfig(width=16, layers=2, heads=2), TOKENS, EXAMPLE), tokens()),
        "resnet": (ResNet(ResNetConfig(**ResNet.tiny), COLOUR, EXAMPLE), grid),
        "same": (Timm(TimmConfig(name="tf_efficientnet_lite0"), COLOUR, EXAMPLE), grid),
        "gpt2": (
            HuggingFace(
                HuggingFaceConfig(
                    architecture={"model_type": "gpt2", "vocab_size": 50, "n_positions": 32, "n_embd": 16,
                                  "n_layer": 1, "n_head": 2}
                ), TOKENS, EXAMPLE,
            ), tokens(),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["bert", "transformer", "resnet", "same", "gpt2"])
def test_at_first_nothing_changes_then_adapters_learn_alone_and_merge(kind):
    backbone, given = kinds()[kind]
    backbone.eval()
    names = set(backbone.state_dict())
    with torch.no_grad():
        before = backbone(given)
    lora.apply(backbone, LoraConfig(rank=2))
    assert names < set(backbone.state_dict()), "the layers keep their names"
    with torch.no_grad():
        assert torch.equal(backbone(given), before)
    shaken(backbone)(given).square().sum().backward()
    trained = {name for name, value in backbone.named_parameters() if value.grad is not None}
    assert trained
    assert all(".lora_" in name for name in trained)
    assert trained == {name for name, value in backbone.named_parameters() if value.requires_grad}
    with torch.no_grad():
        adapted = backbone(given)
        assert not torch.allclose(adapted, before, atol=1e-3)
        lora.merge(backbone)
        torch.testing.assert_close(backbone(given), adapted, rtol=1e-4, atol=1e-4)
    assert set(backbone.state_dict()) == names


def test_layers_by_the_end_of_their_names():
    backbone = bert()
    lora.apply(backbone, LoraConfig(layers=("query", "value")))
    assert {name.rpartition(".")[2] for name in lora.adapted(backbone)} == {"query", "value"}
    with pytest.raises(UserError, match=r"ends in 'quer'\. Expected one of: .*hint: did you mean 'query'\?"):
        lora.apply(bert(), LoraConfig(layers=("quer",)))
    depthwise, _ = kinds()["same"]
    with pytest.raises(UserError, match="is a convolution in groups"):
        lora.apply(depthwise, LoraConfig(layers=("conv_dw",)))


def theirs(model, folder=None, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if folder is not None:
            return peft.PeftModel.from_pretrained(model, folder).eval()
        return peft.get_peft_model(model, peft.LoraConfig(**settings)).eval()


def copied(backbone):
    """The library's own network with the same weights."""
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**BERT), add_pooling_layer=False)
    model.load_state_dict({name.removeprefix("model."): value for name, value in backbone.state_dict().items()})
    return model.eval()


def hidden(model):
    given = tokens()
    with torch.no_grad():
        return model(input_ids=given["tokens"]).last_hidden_state.mean(1)


def test_peft_reads_what_is_written(tmp_path):
    backbone = bert()
    model = copied(backbone)
    config = LoraConfig(rank=4, alpha=10)
    lora.apply(backbone, config)
    size = lora.write(shaken(backbone), config, tmp_path / "adapter", base="minilm")
    assert size == (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size
    with torch.no_grad():
        torch.testing.assert_close(
            hidden(theirs(model, tmp_path / "adapter")), backbone(tokens()), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_what_peft_writes_is_read(tmp_path, prefix):
    backbone = bert()
    adapted = theirs(copied(backbone), r=4, lora_alpha=8, target_modules=["query", "dense"], init_lora_weights=False)
    adapted.save_pretrained(tmp_path)
    if prefix:
        # As an adapter of a whole classifier has it.
        held = load_file(tmp_path / "adapter_model.safetensors")
        moved = {name.replace(".model.", f".model.{prefix}", 1): value for name, value in held.items()}
        save_file(moved, tmp_path / "adapter_model.safetensors")
    config = LoraConfig(adapter=str(tmp_path))
    lora.apply(backbone, config)
    with torch.no_grad():
        torch.testing.assert_close(backbone(tokens()), hidden(adapted), rtol=1e-5, atol=1e-5)
    kept = lora.settings_of(backbone, config)
    assert (kept.rank, kept.alpha, kept.adapter) == (4, 8.0, None)
    again = bert()
    lora.apply(again, kept, restoring=True)
    again.load_state_dict(backbone.state_dict())
    with torch.no_grad():
        assert torch.equal(again(tokens()), backbone(tokens()))


def test_convolutions_as_peft_has_them(tmp_path):
    torch.manual_seed(0)
    backbone = Timm(TimmConfig(name="test_efficientnet"), COLOUR, EXAMPLE).eval()
    model = timm.create_model("test_efficientnet", num_classes=0).eval()
    model.load_state_dict(backbone.model.state_dict())
    config = LoraConfig(rank=3, layers=("conv_pw", "conv_pwl", "conv_stem"))
    lora.apply(backbone, config)
    lora.write(shaken(backbone), config, tmp_path / "adapter", base="timm")
    grid = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        found = theirs(model, tmp_path / "adapter")(grid)
        torch.testing.assert_close(backbone({"grid": grid}), found, rtol=1e-4, atol=1e-5)


def test_adapters_that_do_not_belong(tmp_path):
    def refused(folder):
        with pytest.raises(UserError) as caught:
            lora.apply(bert(), LoraConfig(adapter=str(folder)))
        return str(caught.value)

    assert "is no adapter" in refused(tmp_path)
    torch.manual_seed(0)
    other = Transformer(TransformerConfig(width=16, layers=1, heads=2), TOKENS, EXAMPLE)
    lora.apply(other, LoraConfig())
    lora.write(other, LoraConfig(), tmp_path / "other", base="x")
    assert "is not one of this network: it belongs to blocks.0.attention.out" in refused(tmp_path / "other")
    described = json.loads((tmp_path / "other" / "adapter_config.json").read_text())
    (tmp_path / "other" / "adapter_config.json").write_text(json.dumps({**described, "use_dora": True}))
    assert "is of the kind LORA with use_dora. Expected plain LoRA" in refused(tmp_path / "other")


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_quantized_layers(kind):
    backbone = bert()
    full = {name: value.clone() for name, value in backbone.state_dict().items()}
    with torch.no_grad():
        before = backbone(tokens())
    lora.apply(backbone, LoraConfig(rank=2, quantize=kind))
    layers = [each for each in backbone.modules() if isinstance(each, Linear4bit)]
    assert len(layers) == 12
    held = sum(each.packed.numel() + 4 * each.absmax.numel() + 4 * each.code.numel() for each in layers)
    assert held < sum(4 * each.in_features * each.out_features for each in layers) / 3
    shaken(backbone)(tokens()).square().sum().backward()
    assert all(value.grad is not None for value in backbone.parameters() if value.requires_grad)
    with torch.no_grad():
        for layer in lora.adapted(backbone).values():
            layer.lora_B.weight.zero_()
        rounded = backbone(tokens())
        # 4 bits round, and not by much.
        assert 1e-4 < float((rounded - before).abs().max()) < 0.5
        again = bert(1)
        lora.apply(again, LoraConfig(rank=2, quantize=kind), restoring=True)
        again.load_state_dict(backbone.state_dict())
        assert torch.equal(again(tokens()), rounded)
        adapted = shaken(backbone)(tokens())
        lora.merge(backbone)
        torch.testing.assert_close(backbone(tokens()), adapted, rtol=1e-4, atol=1e-4)
    assert backbone.state_dict().keys() == full.keys()


def test_layer_numbers_rise_towards_the_head():
    numbers = layer_numbers(bert())
    assert numbers["model.embeddings.word_embeddings.weight"] == 0
    assert numbers["model.encoder.layer.0.output.dense.weight"] == 1
    assert numbers["model.encoder.layer.1.attention.self.query.bias"] == 2
    numbers = layer_numbers(Timm(TimmConfig(name="tf_efficientnet_lite0"), COLOUR, EXAMPLE))
    assert numbers["model.conv_stem.weight"] == numbers["model.bn1.weight"] == 0
    assert numbers["model.blocks.0.0.conv_dw.weight"] == 1
    assert numbers["model.conv_head.weight"] == max(numbers.values()) == 17
