"""Common corruptions of pictures, texts, recordings and rows, at severities 1 to 5: what happens to inputs in use.

Those of pictures have the settings of Hendrycks and Dietterich 2019 ("Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations"), lengths in proportion to their 224 pixels; the others are steps of their own kind.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image, ImageFilter

Generator = np.random.Generator
# Sides that the settings of pictures were made for.
SIDE = 224


def picture(image: Image.Image, kind: str, severity: int, rng: Generator) -> np.ndarray:
    """A corrupted copy, uint8 (H, W) or (H, W, C)."""
    image = image if image.mode in ("L", "RGB") else image.convert("RGB")
    return np.asarray(PICTURES[kind](image, severity - 1, rng))


def _bytes(values: np.ndarray) -> np.ndarray:
    return (255 * values.clip(0, 1)).round().astype(np.uint8)


def _gaussian_noise(image: Image.Image, at: int, rng: Generator) -> np.ndarray:
    values = np.asarray(image) / 255
    return _bytes(values + (0.08, 0.12, 0.18, 0.26, 0.38)[at] * rng.normal(size=values.shape))


def _shot_noise(image: Image.Image, at: int, rng: Generator) -> np.ndarray:
    photons = (60, 25, 12, 5, 3)[at]
    return _bytes(rng.poisson(np.asarray(image) / 255 * photons) / photons)


def _impulse_noise(image: Image.Image, at: int, rng: Generator) -> np.ndarray:
    values = np.array(image)
    drawn = rng.random(values.shape)
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[at]
    values[drawn < share / 2] = 0
    values[drawn > 1 - share / 2] = 255
    return values


def _blur(image: Image.Image, at: int, rng: Generator) -> np.ndarray:
    radius = max(0.7 + 0.3 * at, (1, 2, 3, 4, 6)[at] * min(image.size) / SIDE)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)))


def _brightness(image: Image.Image, at: int, rng: Generator) -> np.ndarray:
    return _bytes(np.asarray(image) / 255 + (0.1, 0.2, 0.3, 0.4, 0.5)[at])


def _contrast(image: Image.Image, at: int, rng: Generator) -> np.ndarray:
    values = np.asarray(image) / 255
    mean = values.mean(axis=(0, 1), keepdims=True)
    return _bytes((values - mean) * (0.4, 0.3, 0.2, 0.1, 0.05)[at] + mean)


def _pixelate(image: Image.Image, at: int, rng: Generator) -> np.ndarray:
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[at]
    small = image.resize([max(1, round(side * share)) for side in image.size], Image.Resampling.BOX)
    return np.asarray(small.resize(image.size, Image.Resampling.NEAREST))


def _jpeg(image: Image.Image, at: int, rng: Generator) -> np.ndarray:
    place = io.BytesIO()
    image.save(place, "JPEG", quality=(25, 18, 15, 10, 7)[at])
    return np.asarray(Image.open(place))


PICTURES: Mapping[str, Callable[[Image.Image, int, Generator], np.ndarray]] = {
    "gaussian noise": _gaussian_noise,
    "shot noise": _shot_noise,
    "impulse noise": _impulse_noise,
    "blur": _blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "pixelate": _pixelate,
    "jpeg": _jpeg,
}

# The neighbours of each letter on a keyboard.
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
# The share of letters or words that is changed.
_SHARES = (0.01, 0.03, 0.06, 0.1, 0.2)


def word(value: str, kind: str, severity: int, rng: Generator) -> str:
    """A word with typing errors or in capitals; never empty, so that what belongs to words still does."""
    share = _SHARES[severity - 1]
    if kind == "capitals":
        return value.upper() if rng.random() < 3 * share else value
    letters = list(value)
    for place in range(len(letters)):
        if rng.random() < share:
            _mistype(letters, place, rng)
    return "".join(letters) or value


def _mistype(letters: list[str], place: int, rng: Generator) -> None:
    """Swap, drop, double or mistake the letter at a place."""
    how = rng.integers(4)
    if how == 0 and place + 1 < len(letters):
        letters[place], letters[place + 1] = letters[place + 1], letters[place]
    elif how == 1:
        letters[place] = ""
    elif how == 2:
        letters[place] *= 2
    else:
        row = next((row for row in _KEYS if letters[place].lower() in row and letters[place]), None)
        if row is not None:
            at = row.index(letters[place].lower())
            letters[place] = row[at - 1] if at and rng.random() < 0.5 else row[(at + 1) % len(row)]


def words(values: Sequence[str], kind: str, severity: int, rng: Generator) -> list[str]:
    """All words of a text; "lost words" leaves some out, but never all."""
    if kind == "lost words":
        kept = [each for each in values if rng.random() >= _SHARES[severity - 1] * 1.5]
        return kept or list(values[:1])
    return [word(each, kind, severity, rng) for each in values]


TEXTS = ("typos", "capitals", "lost words")


def samples(values: np.ndarray, rate: int, kind: str, severity: int, rng: Generator) -> np.ndarray:
    """A corrupted recording, float32 (N,) from -1 to 1."""
    at = severity - 1
    values = values.astype(np.float64)
    loud = max(1e-6, float(np.sqrt((values**2).mean())))
    if kind == "noise":
        # The ratio of the signal to white noise, in decibels.
        values = values + loud * 10 ** (-(20, 15, 10, 5, 0)[at] / 20) * rng.normal(size=len(values))
    elif kind == "soft":
        values = values * 10 ** (-(6, 12, 20, 30, 40)[at] / 20)
    elif kind == "clipping":
        limit = float(np.abs(values).max()) * (0.7, 0.5, 0.3, 0.2, 0.1)[at]
        values = values.clip(-limit, limit)
    elif kind == "band-pass":
        spectrum = np.fft.rfft(values)
        place = np.linspace(0, 1, len(spectrum))
        high, low = (0.8, 0.6, 0.45, 0.3, 0.2)[at], (0.005, 0.01, 0.02, 0.03, 0.05)[at]
        values = np.fft.irfft(spectrum * ((place >= low) & (place <= high)), len(values))
    else:
        # A dropout: nothing for a share of the time.
        length = int(len(values) * (0.05, 0.1, 0.15, 0.2, 0.3)[at])
        start = int(rng.integers(0, max(1, len(values) - length)))
        values = values.copy()
        values[start : start + length] = 0
    return values.clip(-1, 1).astype(np.float32)


SOUNDS = ("noise", "soft", "clipping", "band-pass", "dropout")


def column(values: np.ndarray, kind: str, severity: int, rng: Generator) -> np.ndarray:
    """A corrupted column of a table: numbers with noise, values swapped between records, values missing."""
    at = severity - 1
    share = (0.05, 0.1, 0.2, 0.3, 0.5)[at]
    if kind == "noise":
        if values.dtype.kind not in "fi":
            return values
        found = values.astype(np.float64)
        return found + share * np.nanstd(found) * rng.normal(size=len(found))
    hit = rng.random(len(values)) < share
    if kind == "swapped values":
        found = values.copy()
        found[hit] = rng.permutation(values)[hit]
        return found
    if values.dtype.kind in "fi":
        return np.where(hit, np.nan, values.astype(np.float64))
    found = values.copy()
    found[hit] = np.datetime64("NaT") if values.dtype.kind == "M" else None
    return found


TABLES = ("noise", "swapped values", "missing values")
