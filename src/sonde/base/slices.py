"""Pictures of volumes: a slice along each axis, side by side, and outlines of labels on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sonde.base.boxes import COLOURS
from sonde.base.volumes import Volume

if TYPE_CHECKING:
    from PIL.Image import Image

# The longer side of each slice, in pixels, and the gap between them.
SIDE, GAP = 224, 4


def middle_slices(volume: Volume, labels: np.ndarray | None = None) -> Image:
    """Slices along the three axes through the middle, or through that of `labels`: whole numbers (X, Y, Z), all but 0
    outlined. Voxels are as long as their spacing says; the front, the head and the right-hand side of a
    patient are up or to the right."""
    from PIL import Image

    values = volume.values if volume.values.ndim == 3 else volume.values[..., 0]
    place = [side // 2 for side in values.shape]
    if labels is not None and labels.any():
        place = [round(float(each.mean())) for each in np.nonzero(labels)]
    low, high = np.nanpercentile(values.astype(np.float32), (0.5, 99.5))
    pictures = []
    for axis in range(3):
        grey = _up(np.take(values, place[axis], axis)).astype(np.float32)
        bytes_HW = np.nan_to_num(np.clip((grey - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)
        spacing = np.delete(volume.spacing, axis)
        size = np.array(grey.shape)[::-1] * spacing
        to = tuple(np.maximum(1, np.round(size * SIDE / size.max())).astype(int).tolist())
        picture = Image.fromarray(bytes_HW).resize(to, Image.Resampling.BILINEAR).convert("RGB")
        if labels is not None:
            codes = Image.fromarray(_up(np.take(labels, place[axis], axis)).astype(np.uint8))
            picture = _outlined(picture, np.asarray(codes.resize(to, Image.Resampling.NEAREST)))
        pictures.append(picture)
    sheet = Image.new("RGB", (sum(one.width + GAP for one in pictures) - GAP, SIDE), "black")
    left = 0
    for one in pictures:
        sheet.paste(one, (left, (SIDE - one.height) // 2))
        left += one.width + GAP
    return sheet


def _up(plane: np.ndarray) -> np.ndarray:
    """A plane with its second axis up."""
    return plane.T[::-1]


def _outlined(picture: Image, codes_HW: np.ndarray) -> Image:
    """The picture with the border of every label in its colour."""
    from PIL import Image, ImageColor

    padded = np.pad(codes_HW, 1, mode="edge")
    inner = np.ones(codes_HW.shape, dtype=bool)
    for rows, columns in (
        (slice(0, -2), slice(1, -1)),
        (slice(2, None), slice(1, -1)),
        (slice(1, -1), slice(0, -2)),
        (slice(1, -1), slice(2, None)),
    ):
        inner &= padded[rows, columns] == codes_HW
    pixels = np.array(picture)
    for code in np.unique(codes_HW[codes_HW > 0]).tolist():
        pixels[(codes_HW == code) & ~inner] = ImageColor.getrgb(COLOURS[(code - 1) % len(COLOURS)])
    return Image.fromarray(pixels)
