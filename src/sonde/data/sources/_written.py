"""Columns of texts that are to be written: translations, captions, transcripts. For `sonde new`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

# What people call a text that is made from something else, and of a recording.
_NAMES = frozenset(
    {"transcript", "transcription", "caption", "translation", "summary", "highlights", "tgt", "target_text", "target"}
)
_OF_A_SOUND = _NAMES | {"text", "sentence", "normalized_text", "words"}
# The texts that they are made from, where it is another text.
_SOURCES = frozenset({"src", "source", "source_text", "article", "document", "text", "input"})
_CODES = (
    "ar bg bn ca cs da de el en es et fa fi fr ga he hi hr hu id it ja ko lt lv mk ms mt nb nl "
    "no pl pt ro ru sk sl sq sr sv sw ta th tr uk ur vi zh"
)
_LANGUAGES = frozenset(_CODES.split(" "))
_FIRST = "en"
# Texts of a column that are all different but for this share are no classes.
_DIFFERENT, _FEWEST = 0.5, 20


def written(texts: Mapping[str, np.ndarray], *, sound: bool, picture: bool) -> str | None:
    """The column that looks like a text to write from the others, by its name; None where none does.

    `texts` are the columns that hold texts; `sound` and `picture` say whether there are files of these.
    """
    able = [name for name, values in texts.items() if _many(values)]
    by_name = {name.lower(): name for name in able}
    for name in _OF_A_SOUND if sound else _NAMES:
        if name in by_name and (sound or picture or _has_source(by_name, name)):
            return by_name[name]
    languages = [name for name in able if re.split(r"[-_]", name.lower())[0] in _LANGUAGES]
    if len(languages) >= 2 and not sound and not picture:
        return next((name for name in languages if name.lower() != _FIRST), languages[1])
    return None


def _has_source(by_name: Mapping[str, str], name: str) -> bool:
    return any(other in by_name for other in _SOURCES if other != name)


def _many(values: np.ndarray) -> bool:
    texts = [value for value in values if isinstance(value, str)]
    return len(set(texts)) > max(_FEWEST, _DIFFERENT * len(texts))


def source_of(names: Sequence[str], target: str) -> str | None:
    """Of several columns with texts the one that the target is most likely made from, by its name."""
    lower = {name.lower(): name for name in names if name != target}
    if re.split(r"[-_]", target.lower())[0] in _LANGUAGES and _FIRST in lower:
        return lower[_FIRST]
    return next((lower[name] for name in sorted(_SOURCES) if name in lower), None)
