"""How pretrained weights want their input prepared: what a backbone tells the input that feeds it.

Weights only mean something for inputs that are normalized, resized, cut into tokens as they were in their training.
`Backbone.preprocessing` says how, `Input.fit_to` keeps to it and carries it into the artifact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class PicturePreprocessing:
    """`mean` and `deviation` per channel, of values in [0, 1]; the filter that resizes; (height, width) in training."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    interpolation: str = "bilinear"
    size: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class TextPreprocessing:
    """The text of a tokenizer.json, and the most tokens that the network has positions for (0: no limit)."""

    tokenizer: str
    length: int = 0


@dataclass(frozen=True, kw_only=True)
class SoundPreprocessing:
    """The settings of a feature extractor of the transformers library, as its preprocessor_config.json has them."""

    extractor: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What there is for each kind of input: a network of two towers has several."""

    picture: PicturePreprocessing | None = None
    text: TextPreprocessing | None = None
    sound: SoundPreprocessing | None = None

    def __str__(self) -> str:
        return " and ".join(name for name in ("picture", "text", "sound") if getattr(self, name)) or "nothing"
