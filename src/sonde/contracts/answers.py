"""Answers as JSON holds them: arrays become pictures in a text, or lists of numbers."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image


def is_picture(value: object) -> bool:
    """Whether an answer's value is a picture: floats in [0, 1], (H, W) grey or (H, W, 3) in colour."""
    return (
        isinstance(value, np.ndarray)
        and value.dtype.kind == "f"
        and (value.ndim == 2 or (value.ndim == 3 and value.shape[2] == 3))
    )


def to_picture(values: np.ndarray) -> Image:
    """A picture (H, W) or (H, W, 3) of floats in [0, 1] as Pillow has it."""
    from PIL import Image

    return Image.fromarray(np.round(np.clip(values, 0, 1) * 255).astype(np.uint8))


def to_uri(values: np.ndarray) -> str:
    """A picture as a text: the data URI of a PNG."""
    held = io.BytesIO()
    to_picture(values).save(held, "PNG")
    return f"data:image/png;base64,{base64.b64encode(held.getvalue()).decode()}"


def to_json(answer: Mapping[str, Any]) -> dict[str, Any]:
    """An answer that JSON can hold: pictures as data URIs, other arrays as lists."""
    return {name: _plain(value) for name, value in answer.items()}


def without_pictures(answer: Mapping[str, Any]) -> dict[str, Any]:
    """An answer without its pictures, which were written elsewhere."""
    return {name: value for name, value in answer.items() if not is_picture(value)}


def _plain(value: Any) -> Any:
    if is_picture(value):
        return to_uri(value)
    return value.tolist() if isinstance(value, np.ndarray) else value
