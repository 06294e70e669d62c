"""Frames of clips, through PyAV (the libraries of ffmpeg): some of them, evenly through the clip."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sonde.base.errors import RecordError, UserError
from sonde.base.files import read_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

_EXPECTED = "a whole clip: MP4, AVI, MOV, MKV, WebM or another format that ffmpeg reads"


def read_frames(value: object, count: int) -> list[Image]:
    """`count` frames of a clip (a path, or the bytes of a file), in the middles of as many equal stretches of it; one
    of fewer frames repeats some. An array uint8 (T, H, W) or (T, H, W, 3) is a clip, too.

    Raises:
        RecordError: it is no clip, it has no pictures, or it is cut short.
    """
    from PIL import Image

    if isinstance(value, np.ndarray):
        if value.ndim not in (3, 4) or not len(value) or value.dtype != np.uint8:
            raise RecordError(
                f"the clip is an array of {value.dtype} {value.shape}", expected="uint8 (frames, height, width[, 3])"
            )
        return [Image.fromarray(value[index]) for index in spread(len(value), count)]
    content = read_bytes(value)
    name = str(value) if isinstance(value, Path) else "the clip"
    announced = _announced(content, name)
    found = _chosen(content, name, spread(announced, count)) if announced else {}
    total = len(found) and max(found) + 1
    if len(found) < len(set(spread(announced or 1, count))):
        # The header counts otherwise than the frames that there are: count these.
        total = sum(1 for _ in _decoded(content, name))
        if not total:
            raise RecordError(f"{name} has no frames", expected=_EXPECTED)
        found = _chosen(content, name, spread(total, count))
        announced = total
    return [found[index] for index in spread(announced, count)]


def spread(total: int, count: int) -> list[int]:
    """The middles of `count` equal stretches of `total` frames.

    >>> spread(8, 4)
    [1, 3, 5, 7]
    """
    return [min(total - 1, int((number + 0.5) * total / count)) for number in range(count)]


def _chosen(content: bytes, name: str, wanted: list[int]) -> dict[int, Image]:
    """The frames at these places, as far as the clip has them."""
    last, needed = max(wanted), set(wanted)
    found: dict[int, Image] = {}
    for number, frame in enumerate(_decoded(content, name)):
        if number in needed:
            found[number] = frame.to_image()
        if number >= last:
            break
    return found


def _library() -> Any:
    try:
        import av
    except ImportError as error:
        raise UserError(f"clips need the package av (PyAV): {error}", hint="pip install 'sonde[video]'") from error
    return av


def _announced(content: bytes, name: str) -> int:
    """How many packets of pictures the file holds: a frame each, as far as it is whole."""
    av = _library()
    try:
        with av.open(io.BytesIO(content)) as container:
            if not container.streams.video:
                raise RecordError(f"{name} holds no moving pictures", expected=_EXPECTED)
            return sum(1 for packet in container.demux(container.streams.video[0]) if packet.size)
    except (av.FFmpegError, ValueError) as error:
        raise _unreadable(name, error) from error


def _decoded(content: bytes, name: str) -> Iterator[Any]:
    av = _library()
    try:
        with av.open(io.BytesIO(content)) as container:
            yield from container.decode(container.streams.video[0])
    except (av.FFmpegError, ValueError) as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> RecordError:
    return RecordError(f"{name} is not a readable clip: {error}", expected=_EXPECTED)
