"""Pictures from files, and one way to bring them to a size: what a picture and its mask must do alike."""

from __future__ import annotations

import io
import warnings
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sonde.base.errors import RecordError
from sonde.base.files import read_bytes

ResizeMode = Literal["crop", "squash", "pad"]
ORIENTATION = 0x0112


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


class Header(NamedTuple):
    """What is known of a picture before its pixels are decoded; the sides are those of the upright picture."""

    mode: str
    height: int
    width: int


def read_header(value: object) -> Header | None:
    """A picture's header; None where it is no picture. A set of photos is looked over without holding their pixels."""
    try:
        if isinstance(value, np.ndarray):
            image = read_image(value)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = Image.open(io.BytesIO(read_bytes(value)))
        width, height = image.size
        # These orientations lie on their side (EXIF 2.32, tag Orientation).
        lies = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    except Exception:  # as in read_image, which says what is wrong
        return None
    return Header(image.mode, width, height) if lies else Header(image.mode, height, width)


def fit_to(image: Image.Image, size: tuple[int, int], *, how: ResizeMode, nearest: bool = False) -> Image.Image:
    """The picture at `size` (height, width).

    crop: the shorter side is brought to size and the rest cut off around the centre; squash: both sides are brought to
    size; pad: the longer side is brought to size and the rest filled with black.
    """
    height, width = size
    if image.size == (width, height):
        return image
    sampling = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    if how == "squash":
        return image.resize((width, height), sampling)
    if how == "crop":
        return ImageOps.fit(image, (width, height), sampling)
    return ImageOps.pad(image, (width, height), sampling)
