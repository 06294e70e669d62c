"""Pictures from files, and one way to bring them to a size: what a picture and its mask must do alike."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sonde.base.errors import RecordError
from sonde.base.files import read_bytes

# The tag of EXIF that says how a picture is turned.
_ORIENTATION = 0x0112

# Pixels between the pictures of a sheet.
GAP = 4

ResizeMode = Literal["crop", "squash", "pad"]
Interpolation = Literal["bilinear", "bicubic", "lanczos", "nearest"]
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
            f"{name} is not a readable picture: {why}", expected="a whole PNG, JPEG, WebP, BMP, GIF, TIFF or PNM file"
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


def upright_size(path: Path) -> tuple[int, int] | None:
    """Width and height of a picture as its EXIF orientation turns it, from the head of its file; None where it cannot
    be read."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(_ORIENTATION, 1) >= 5
            return (image.height, image.width) if turned else (image.width, image.height)
    except (OSError, ValueError, SyntaxError):
        return None


def colours_of(image: Image.Image) -> np.ndarray:
    """The colours of a picture as 0xrrggbb, int64 (H, W)."""
    pixels = np.asarray(image.convert("RGB")).astype(np.int64)
    return pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]


def hex_of(colour: int) -> str:
    """0xff8000 as "#ff8000"."""
    return f"#{colour:06x}"


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


def placement(image_size: tuple[int, int], size: tuple[int, int], *, how: ResizeMode) -> tuple[float, ...]:
    """Where `fit_to` puts a picture of `image_size` (height, width), in `size`: scale y, scale x, offset y, offset x,
    and the height and width that it had.

    A place goes to place * scale + offset, both in pixels from the outer border of the first one; back by the inverse.
    Pillow brings the sides of a padded picture to whole pixels: the scales of its axes differ by that.

    >>> placement((100, 200), (64, 64), how="pad")
    (0.32, 0.32, 16.0, 0.0, 100.0, 200.0)
    """
    (height, width), (to_height, to_width) = image_size, size
    scales = (to_height / height, to_width / width)
    offsets = (0.0, 0.0)
    if how == "crop":
        scale = max(scales)
        scales = (scale, scale)
        offsets = ((to_height - height * scale) / 2, (to_width - width * scale) / 2)
    elif how == "pad":
        # As `ImageOps.contain` and `ImageOps.pad` round.
        ratio, wanted = width / height, to_width / to_height
        inner_height = round(height / width * to_width) if ratio > wanted else to_height
        inner_width = round(width / height * to_height) if ratio < wanted else to_width
        scales = (inner_height / height, inner_width / width)
        offsets = (float(round((to_height - inner_height) * 0.5)), float(round((to_width - inner_width) * 0.5)))
    return (*scales, *offsets, float(height), float(width))


def side_by_side(pictures: Sequence[Image.Image], columns: int = 4) -> Image.Image:
    """Pictures of one size in rows on one sheet, a little apart."""
    width, height = pictures[0].size
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), "white")
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % columns * (width + GAP), number // columns * (height + GAP)))
    return sheet
