"""Pictures from files, and one way to bring them to a size: what a picture and its mask must do alike."""

from __future__ import annotations

import io
import warnings
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sonde.base.errors import RecordError
from sonde.base.files import read_bytes

ResizeMode = Literal["crop", "squash", "pad"]
Interpolation = Literal["bilinear", "bicubic", "lanczos", "nearest"]


def read_image(value: object) -> Image.Image:
    """A picture from a path, the bytes of a file, or an array (H, W) or (H, W, C) of uint8; upright, fully decoded.

    Raises:
        RecordError: it is no picture, or it is cut short.
    """
    if isinstance(value, np.ndarray):
        return Image.fromarray(np.ascontiguousarray(value))
    content = read_bytes(value)
    try:
        with warnings.catch_warnings():
            # Odd metadata is not the user's concern: what matters is whether the pixels can be decoded.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(content))
            image.load()
            return ImageOps.exif_transpose(image)
    except Exception as error:  # a decoder may raise nearly anything on a broken file
        name = value if not isinstance(value, (bytes, bytearray, memoryview)) else "the picture"
        # Pillow's own words name an object in memory.
        why = "its content is of no known format" if isinstance(error, UnidentifiedImageError) else error
        raise RecordError(
            f"{name} is not a readable picture: {why}", expected="a whole PNG, JPEG, WebP, BMP, GIF or TIFF file"
        ) from error


def fit_to(
    image: Image.Image, size: tuple[int, int], *, how: ResizeMode, interpolation: Interpolation = "bilinear"
) -> Image.Image:
    """The picture at `size` (height, width).

    crop: the shorter side is brought to size and the rest cut off around the centre; squash: both sides are brought to
    size; pad: the longer side is brought to size and the rest filled with black.
    """
    height, width = size
    if image.size == (width, height):
        return image
    sampling = Image.Resampling[interpolation.upper()]
    if how == "squash":
        return image.resize((width, height), sampling)
    if how == "crop":
        return ImageOps.fit(image, (width, height), sampling)
    return ImageOps.pad(image, (width, height), sampling)
