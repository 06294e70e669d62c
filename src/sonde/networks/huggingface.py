"""Any encoder of the transformers library, pretrained: BERT, MiniLM, Whisper, wav2vec 2.0, ViT and more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sonde.base import weight_files
from sonde.base.config import FilePath
from sonde.base.errors import UserError
from sonde.contracts.backbone import Backbone, BackboneConfig
from sonde.contracts.columns import Tensors
from sonde.contracts.layouts import LAYOUTS
from sonde.contracts.preprocessing import Preprocessing
from sonde.contracts.specs import Features, InputSpec, LayoutName, OutputSpec, Per
from sonde.networks import _hub, _transformers
from sonde.networks._sequences import inside, pool

Pool = Literal["mean", "max", "cls"]
# Encoders of sound that take channels before time.
CHANNELS_FIRST = ("whisper", "qwen2_audio_encoder", "qwen2_5_omni_audio_encoder")


class HuggingFaceConfig(BackboneConfig):
    kind: Literal["huggingface"] = "huggingface"
    name: str | None = Field(
        None, description="a network of the Hugging Face hub, such as google-bert/bert-base-uncased"
    )
    weights: FilePath | None = Field(
        None,
        description="a Hugging Face folder (or a zip of one), relative to this recipe; or package:NAME",
    )
    pickled: bool = Field(
        False, description="take weights that are no safetensors too; they are read without running code"
    )
    pool: Pool | None = Field(
        None, description="one vector of all positions: mean, max or cls; as the folder says, or mean (pictures: cls)"
    )
    settings: dict[str, bool | int | float | str] = Field(
        {}, description="laid over the network's config.json: hidden_dropout_prob, ..."
    )
    architecture: dict[str, Any] | None = Field(
        None, description="a config.json in full, for a network that starts from nothing; artifacts have it"
    )


class HuggingFace(Backbone):
    """(B, T) tokens, (B, T, C) frames or (B, C, H, W) pictures to (B, width), or (B, T, width) per position.

    Of networks with a decoder only the encoder is taken, of those with several towers the one for this input.
    """

    Config = HuggingFaceConfig
    accepts: ClassVar[tuple[LayoutName, ...]] = ("tokens", "frames", "grid")
    gives: ClassVar[tuple[Per, ...]] = ("example", "position")
    loads_itself: ClassVar[bool] = True
    takes_subwords: ClassVar[bool] = False
    inner: ClassVar[str] = "model."

    def __init__(self, config: HuggingFaceConfig, spec: InputSpec, output: OutputSpec) -> None:
        super().__init__(config, spec, output)
        path = HuggingFace.first_weights(config)
        described = _described(config, path)
        self.layout: LayoutName = spec.layout
        wanted = _transformers.configuration(described, spec.layout, config.settings)
        if path is None:
            model = _transformers.build(wanted)
        else:
            model, self.notes = _transformers.load(wanted, path, pickled=config.pickled)
        if model.config.is_encoder_decoder:
            model = model.get_encoder()
            self.foreign = "encoder."
        _drop_pooler(model)
        self.model: Any = model
        self.pool: Pool | None = None
        if output.chosen == "example":
            self.pool = config.pool or _pool_of(path) or ("cls" if spec.layout == "grid" else "mean")
        self.transposed = str(model.config.model_type) in CHANNELS_FIRST
        # Sound without an attention mask: what is padded is heard as silence.
        self.masks = spec.layout == "tokens" or _masks_sound(model.config)
        self.fixed_length = not self.masks
        self._check(spec, described)
        self.width = self._probe(spec)

    @classmethod
    def tiny_for(cls, spec: InputSpec) -> Mapping[str, Any]:
        small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        if spec.layout == "tokens":
            about = {"model_type": "bert", "vocab_size": spec.vocabulary, "max_position_embeddings": 1024}
        elif spec.layout == "grid":
            size, channels = list(spec.size), spec.channels
            about = {"model_type": "vit", "image_size": size, "num_channels": channels, "patch_size": 4}
        else:
            about = {"model_type": "audio-spectrogram-transformer", "num_mel_bins": spec.channels}
            about |= {"max_length": spec.size[0], "patch_size": 4, "time_stride": 4, "frequency_stride": 4}
        return {"architecture": {**about, **small}}

    @classmethod
    def preprocessing(cls, config: HuggingFaceConfig) -> Preprocessing | None:
        path = HuggingFace.first_weights(config)
        return None if path is None else _transformers.preprocessing(path)

    @classmethod
    def first_weights(cls, config: HuggingFaceConfig) -> Path | None:
        if config.weights is not None:
            return weight_files.locate(config.weights)
        return None if config.name is None else _hub.folder(config.name, pickled=config.pickled)

    @classmethod
    def resolved(cls, config: HuggingFaceConfig) -> HuggingFaceConfig:
        """With the network's config.json, and without the place of its weights."""
        path = HuggingFace.first_weights(config)
        if path is None:
            return config
        held = {"architecture": _described(config, path), "pool": config.pool or _pool_of(path)}
        return config.model_copy(update={**held, "name": None, "weights": None})

    def forward(self, tensors: Tensors) -> Tensor | Features:
        values = tensors[LAYOUTS[self.layout].main]
        if values.shape[1] == 0:
            # Batches of nothing but empty examples: one position of padding stands for each.
            values = values.new_zeros(len(values), 1, *values.shape[2:])
        inside_BT = inside(tensors, values.shape[1]) if "length" in tensors else None
        hidden_BTW = self._hidden(values, inside_BT)
        if hidden_BTW.ndim == 4:
            hidden_BTW = hidden_BTW.flatten(2).transpose(1, 2)
        if "length" in tensors and hidden_BTW.shape[1] != values.shape[1]:
            inside_BT = _coarser(tensors["length"], values.shape[1], hidden_BTW.shape[1])
        if self.pool is None:
            return Features(values=hidden_BTW, inside_BT=inside_BT)
        return hidden_BTW[:, 0] if self.pool == "cls" else pool(hidden_BTW, inside_BT, self.pool)

    def _hidden(self, values: Tensor, inside_BT: Tensor | None) -> Tensor:
        if self.layout == "frames":
            values = values[..., 0] if values.shape[2] == 1 else values.transpose(1, 2) if self.transposed else values
        given = {str(self.model.main_input_name): values}
        if self.layout != "grid" and self.masks and inside_BT is not None:
            given["attention_mask"] = inside_BT.long()
        return self.model(**given).last_hidden_state

    def _check(self, spec: InputSpec, described: Mapping[str, Any]) -> None:
        if spec.subwords:
            raise UserError("a pretrained network knows no subwords of sonde's", hint="leave the input's subwords out")
        known = int(getattr(self.model.config, "vocab_size", 0) or 0)
        if spec.layout == "tokens" and not known:
            raise UserError(
                f"the network {described['model_type']!r} takes no texts",
                hint="use the input that it was made for: image, audio",
            )
        if spec.vocabulary > known and spec.layout == "tokens":
            raise UserError(
                f"the input has {spec.vocabulary:,} tokens, the network knows {known:,}",
                hint='give the input tokenizer = "from the network"',
            )

    @torch.no_grad()
    def _probe(self, spec: InputSpec) -> int:
        """Of an example as long as they get: the width of the features. What has no say in them is not trained."""
        if next(self.parameters()).is_meta:
            return _told_width(self.model.config)
        example = self._example(spec)
        self.eval()
        try:
            features = self.forward(example)
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
            shape = " x ".join(map(str, example[LAYOUTS[spec.layout].main].shape[1:]))
            raise UserError(
                f"the network {self.model.config.model_type!r} does not take {spec.layout} of {shape}: {error}",
                hint="look at the input's size, length or rate, or choose another network",
            ) from error
        self._rest_what_is_unused(spec)
        self.train()
        values = features.values if isinstance(features, Features) else features
        assert isinstance(values, Tensor)
        return values.shape[-1]

    def _example(self, spec: InputSpec) -> Tensors:
        """A random example, where the weights are."""
        found = LAYOUTS[spec.layout].random(spec, 1, torch.Generator().manual_seed(0))
        device = next(self.parameters()).device
        return {name: value.to(device) for name, value in found.items()}

    def _rest_what_is_unused(self, spec: InputSpec) -> None:
        """Layers whose answers nobody reads (a mask's embedding, a head of pretraining) get no gradient: several
        processes would wait for it."""
        size = (min(spec.size[0], 8),) if spec.layout == "tokens" else spec.size
        small = self._example(replace(spec, size=size))
        with torch.enable_grad():
            features = self.forward(small)
            values = features.values if isinstance(features, Features) else features
            assert isinstance(values, Tensor)
            used = torch.autograd.grad(values.sum(), list(self.parameters()), allow_unused=True)
        for parameter, gradient in zip(self.parameters(), used, strict=True):
            if gradient is None:
                parameter.requires_grad_(False)


def _described(config: HuggingFaceConfig, path: Path | None) -> Mapping[str, Any]:
    if path is not None:
        return _transformers.architecture(path)
    if config.architecture is None:
        raise UserError(
            "the network 'huggingface' needs to know which one",
            expected="network.weights, a folder; or network.name, a name on the hub",
        )
    return config.architecture


def _pool_of(path: Path | None) -> Pool | None:
    """What a folder of sentence-transformers says of pooling."""
    if path is None:
        return None
    about = _transformers.read_json(path / "1_Pooling" / "config.json")
    named: dict[str, Pool] = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_max_tokens": "max",
        "pooling_mode_cls_token": "cls",
    }
    return next((how for name, how in named.items() if about.get(name)), None)


def _drop_pooler(model: Any) -> None:
    """Without the layer that some put on top of the first position: features come from below it."""
    pooler = getattr(model, "pooler", None)
    if isinstance(pooler, nn.Module) and any(True for _ in pooler.parameters()):
        model.pooler = None


def _told_width(config: Any) -> int:
    """The width of the features as the configuration has it, for an outline without values, which answers nothing.

    Raises:
        NotImplementedError: it says nothing of that.
    """
    for name in ("hidden_size", "d_model", "n_embd"):
        if isinstance(getattr(config, name, None), int):
            return int(getattr(config, name))
    sizes = getattr(config, "hidden_sizes", None)
    if not sizes:
        raise NotImplementedError(f"{config.model_type} does not say how wide its features are")
    return int(sizes[-1])


def _masks_sound(config: Any) -> bool:
    """Whether an encoder of sound was trained with an attention mask: those of wav2vec 2.0's kind with layer norms."""
    return getattr(config, "feat_extract_norm", None) == "layer"


def _coarser(length_B: Tensor, steps: int, positions: int) -> Tensor:
    """Which of fewer positions hold data, bool (B, positions): every fourth frame has an answer, say."""
    held_B = (length_B * (positions / steps)).ceil().long().clamp(1, positions)
    return torch.arange(positions, device=length_B.device) < held_B[:, None]
