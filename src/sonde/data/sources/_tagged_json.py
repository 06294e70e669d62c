"""Tagged words in JSONL: lists of words and tags, or texts with spans of characters, which become BIO tags.

BIO (Ramshaw & Marcus 1995, in its second version): the first word of a span is B-label, its others I-label, the rest O.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sonde.base.errors import RecordError, UserError
from sonde.base.words import split_words
from sonde.data.sources._tagged import END_KEYS, LABEL_KEYS, START_KEYS, Keys, Sentence, keys_of

_FORMS = (
    'a record such as {"tokens": ["In", "Oslo"], "tags": ["O", "B-place"]} '
    'or {"text": "In Oslo", "spans": [[3, 7, "place"]]}'
)
_OUTSIDE = "O"


def read_json(file: Path, lines: list[bytes], tag: str | None) -> Iterator[Sentence]:
    """`tag` names the list of tags or of spans, where a record has several.

    Raises:
        UserError: some records are wrong. All are read before, so that it can say how many.
    """
    faults: list[tuple[int, RecordError]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            words, tags = _read(line, tag)
        except RecordError as error:
            faults.append((number, error))
        else:
            yield Sentence(words=words, tags=tags, line=number)
    if faults:
        number, error = faults[0]
        more = len(faults) - 1
        others = f" ({more} more line{'s are' if more > 1 else ' is'} wrong, too)" if more else ""
        raise UserError(f"{file}:{number} {error.what}{others}", expected=error.expected, hint=error.hint)


def _read(line: bytes, tag: str | None) -> tuple[list[str], list[str]]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise RecordError(
            f"is not JSON: {error.msg.removesuffix(' at')} at character {error.pos + 1}",
            expected="one JSON object a line",
        ) from error
    if not isinstance(row, dict):
        raise RecordError(f"is JSON, but not an object: {line.decode().strip()[:40]}", expected=_FORMS)
    keys = keys_of(row, tag)
    if keys is not None:
        return (_spanned if keys.spans else _listed)(row, keys)
    if tag is not None and tag not in row:
        raise RecordError(f"has no {tag!r}, which data.tag names", expected="one of: " + ", ".join(row))
    raise RecordError(f"has the keys {', '.join(row)}" if row else "has no keys", expected=_FORMS)


def _listed(row: dict[str, Any], keys: Keys) -> tuple[list[str], list[str]]:
    words, tags = row[keys.words], row[keys.tags]
    if len(words) != len(tags):
        raise RecordError(
            f"has {len(words)} words in {keys.words!r} and {len(tags)} tags in {keys.tags!r}",
            expected="a tag for every word",
        )
    if not words:
        raise RecordError("has no words", hint="remove the line")
    for word, tag in zip(words, tags, strict=True):
        if not isinstance(tag, str):
            what = "no tag" if tag is None else f"the tag {tag!r}"
            raise RecordError(
                f"has {what} for the word {word!r}",
                expected="tags as texts",
                hint="write the names that the numbers stand for" if isinstance(tag, int) else None,
            )
        if not tag.strip() or not word.strip():
            what = f"an empty tag for the word {word!r}" if word.strip() else "an empty word"
            raise RecordError(f"has {what}", expected="a tag for every word")
    return words, tags


def _spanned(row: dict[str, Any], keys: Keys) -> tuple[list[str], list[str]]:
    text: str = row[keys.words]
    words, starts = split_words(text)
    if not words:
        raise RecordError("has a text without words", hint="remove the line")
    tags = [_OUTSIDE] * len(words)
    for start, end, label in (_span(each, keys.tags, len(text)) for each in row[keys.tags]):
        shown = f"the span {start}-{end} ({label})"
        for border, what in ((start, "begins"), (end, "ends")):
            place = bisect_left(starts, border) - 1  # the last word that starts before the border
            if place >= 0 and border < starts[place] + len(words[place]):
                raise RecordError(
                    f"has {shown}, which {what} inside the word {words[place]!r} at {starts[place]}",
                    expected="spans of whole words, the end after their last character",
                    hint="correct the span, or give the words themselves: tokens and tags",
                )
        inside = range(bisect_left(starts, start), bisect_left(starts, end))
        if not inside:
            raise RecordError(f"has {shown}, which holds no word", expected="spans of one word or more")
        for place in inside:
            if tags[place] != _OUTSIDE:
                raise RecordError(
                    f"has {shown}, whose word {words[place]!r} is in another span ({tags[place][2:]}) too",
                    expected="spans that do not overlap: a word has one tag",
                )
            tags[place] = ("B-" if place == inside.start else "I-") + label
    return words, tags


def _span(value: Any, key: str, length: int) -> tuple[int, int, str]:
    """Start, end and label of a span in any of the forms that people write."""
    parts: list[Any] = value if isinstance(value, list) else []
    if isinstance(value, dict):
        parts = [
            next((value[name] for name in names if name in value), None) for names in (START_KEYS, END_KEYS, LABEL_KEYS)
        ]
        if isinstance(parts[2], list) and len(parts[2]) == 1:
            parts[2] = parts[2][0]
    if [type(each) for each in parts] != [int, int, str] or not str(parts[2]).strip():
        raise RecordError(
            f"has {json.dumps(value, ensure_ascii=False)[:60]} in {key!r}",
            expected='spans such as [3, 7, "place"] or {"start": 3, "end": 7, "label": "place"}',
        )
    start, end, label = parts
    if not 0 <= start < end <= length:
        raise RecordError(
            f"has the span {start}-{end} ({label}) in a text of {length} characters",
            expected="a start before the end, and both within the text",
        )
    return start, end, label.strip()
