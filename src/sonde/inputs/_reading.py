"""Texts and words as records hold them: a text, the path of a file or its bytes, or a list of words."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sonde.base import encodings
from sonde.base.errors import RecordError
from sonde.base.files import read_bytes
from sonde.base.words import split_words


def read_text(value: object) -> str | None:
    """The text of a value, None for a missing one."""
    if value is None or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, (Path, bytes, bytearray, memoryview)):
        content = read_bytes(value)
        name = value if isinstance(value, Path) else "the text"
        try:
            return encodings.decode(content)
        except UnicodeDecodeError as error:
            raise RecordError(
                f"{name} is not UTF-8: byte {content[error.start]:#04x} at offset {error.start}",
                expected="text in UTF-8, or one that is certainly Western European",
                hint="iconv -f cp1250 -t UTF-8, if it is Central European, or the like",
            ) from error
    if isinstance(value, (int, float, np.integer, np.floating)):
        return str(value)
    if not isinstance(value, str):
        raise RecordError(f"{value!r} is not a text", expected="a text, or the path of a UTF-8 text file")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RecordError(
                f"the text holds half a character ({value[error.start]!a}) at position {error.start}",
                expected="whole Unicode characters",
            ) from error
    return value


def is_words(value: object) -> bool:
    """Whether a value is a list of words, and no whole text."""
    return isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim == 1)


def read_words(value: object, field: str) -> tuple[list[str], str | None, list[int]]:
    """The words of a value and, where it is a text and no list of words, the text and where each starts in it.

    Raises:
        RecordError: there are none, or they cannot be read.
    """
    if not is_words(value):
        text = read_text(value)
        words, starts = split_words(text or "")
        if not words:
            raise RecordError(f"the record has no words in field {field!r}")
        return words, text, starts
    words = list(value)  # type: ignore[call-overload]
    if not words:
        raise RecordError(f"the record has no words in field {field!r}")
    for number, word in enumerate(words, start=1):
        if not isinstance(word, str) or not word.strip():
            raise RecordError(f"word {number} of {len(words)} is {word!r}", expected="a text")
        read_text(word)
    return words, None, []
