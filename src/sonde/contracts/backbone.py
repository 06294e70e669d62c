"""The contract of a backbone: from what an input offers to features."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from sonde.base import weight_files
from sonde.base.config import Config, FilePath
from sonde.contracts.adapters import LoraConfig
from sonde.contracts.columns import Tensors
from sonde.contracts.preprocessing import Preprocessing
from sonde.contracts.specs import Features, FeatureWidth, InputSpec, LayoutName, OutputSpec, Per


class BackboneConfig(Config):
    """The settings that every backbone has; they are applied where networks are assembled, once for all."""

    weights: FilePath | None = Field(
        default=None,
        description="start from these weights: a .safetensors file, an artifact or a run (relative to this recipe), or "
        "package:NAME",
    )
    freeze: bool = Field(default=False, description="keep the backbone as it starts and train the head only")
    lora: LoraConfig | None = Field(
        default=None, description="train low-rank adapters (LoRA) beside the backbone's layers: { rank = 8 }"
    )
    cache_features: bool = Field(
        default=True,
        description="frozen: compute the features once, without augmentation; false: in every step, augmented",
    )

    @field_validator("lora", mode="before")
    @classmethod
    def _usual_adapters(cls, value: object) -> object:
        """`lora = true` is short for the usual settings."""
        return {} if value is True else None if value is False else value

    @model_validator(mode="after")
    def _one_way_to_learn(self) -> BackboneConfig:
        if self.freeze and self.lora is not None:
            raise ValueError("freeze trains the head only, lora trains adapters; give one of them")
        return self


class Backbone(nn.Module, abc.ABC):
    """Built for what is asked (`output.chosen`): `forward` gives (B, width) per example, (B, T, width) per position,
    (B, C, width) per channel, (M, width) per node; per pixel a tuple of grids (B, width[i], *size_i), finest first.

    Where its positions are not those of the input (patches of a picture, every fourth frame), it gives `Features`.
    """

    Config: ClassVar[type[BackboneConfig]]
    accepts: ClassVar[tuple[LayoutName, ...]]
    gives: ClassVar[tuple[Per, ...]]
    # Whether it can answer causally.
    causal: ClassVar[bool] = False
    # Whether it can be steered by a condition (`OutputSpec.condition`).
    conditions: ClassVar[bool] = False
    # Whether it takes all positions for real, padding included, because its input has one length (a picture of sound).
    fixed_length: bool = False
    # Whether it takes grids of another size than it was built for.
    any_size: ClassVar[bool] = False
    # How many axes the grids that it takes can have.
    dimensions: ClassVar[tuple[int, ...]] = (2,)
    # Whether it loads `weights` by itself when it is made (timm adapts them to the input).
    loads_itself: ClassVar[bool] = False
    # Whether it is several networks in one (`members`), which the standard head knows how to answer for.
    ensemble: ClassVar[bool] = False
    # Settings that make it small, for the conformance kit.
    tiny: ClassVar[Mapping[str, Any]] = {}
    # Whether it takes tokens that come with their subwords (`InputSpec.subwords`).
    takes_subwords: ClassVar[bool] = True
    # Where a network of another library stands inside it: what that library's own names are prefixed with here...
    inner: ClassVar[str] = ""

    # How many networks it is in one: it gives the features of each, (B * members, width), one example after another.
    # In training each is told how wrong it was by itself, else the head averages their answers.
    members: int = 1

    # ... and there, where only a part of its network was taken.
    foreign: str = ""

    # What people should know of how first weights were found, one line each.
    notes: tuple[str, ...] = ()

    # Channels of the features: one number, or one per grid when asked per pixel.
    width: FeatureWidth

    @classmethod
    def tiny_for(cls, spec: InputSpec) -> Mapping[str, Any]:
        """Settings that make it small, for the conformance kit; `tiny`, unless they hang on the input."""
        return cls.tiny

    @classmethod
    def preprocessing(cls, config: Any) -> Preprocessing | None:
        """How the pretrained weights that `config` names want their input prepared; None: they do not mind, or there
        are none."""
        return None

    @classmethod
    def first_weights(cls, config: Any) -> Path | None:
        """The file or folder of the weights that `config` names, on this machine; None where there are none."""
        return None if config.weights is None else weight_files.locate(config.weights)

    @classmethod
    def resolved(cls, config: Any) -> Any:
        """The settings with all that the place of the weights says of the network: what an artifact keeps, so that it
        needs that place no more."""
        return config

    @abc.abstractmethod
    def __init__(self, config: Any, spec: InputSpec, output: OutputSpec) -> None:
        super().__init__()

    @abc.abstractmethod
    def forward(self, tensors: Tensors) -> Tensor | tuple[Tensor, ...] | Features: ...

    @classmethod
    def smaller(cls, config: Any) -> Any:
        """Settings of a network of this kind that costs a fraction, to be tried first; None: there is none."""
        return None

    @property
    def embedding_weight(self) -> Tensor | None:
        """The weight (vocabulary, width) that the standard head answers with, where they are tied; None: its own."""
        return None

    def extend(self, tensors: Tensors, cache: Any) -> tuple[Tensor, Any]:
        """Features of further positions, given the cache of the earlier ones (None at the start); causal ones only.

        Extending piece by piece equals `forward` on the whole.
        """
        raise NotImplementedError(f"{type(self).__name__} has no cache")

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take over pretrained weights by name (see `BackboneConfig.weights`).

        Raises:
            UserError: names or shapes differ; lists both sides.
        """
        from sonde.contracts.weights import load_by_name

        load_by_name(self, weights)
