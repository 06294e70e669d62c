"""Files of words with a tag each, told from tables and plain texts by their names or first bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sonde.base.errors import UserError
from sonde.data.sources import _folders

CONLLU = frozenset({".conllu"})
CONLL = frozenset({".conll", ".conll03", ".bio", ".iob", ".iob2"})
JSONL = frozenset({".jsonl", ".ndjson"})
# These may hold anything, and so may JSONL: their first bytes tell.
_COLUMNS = (frozenset({".tsv"}), frozenset({".txt"}))
SUFFIXES = CONLLU | CONLL | JSONL | {".tsv", ".txt"}

_WORD_KEYS = ("tokens", "words")
_TAG_KEYS = ("tags", "labels", "ner_tags")
_SPAN_KEYS = ("spans", "entities", "labels", "label")
# A span as an object: ours and spaCy's names first, then those of doccano.
START_KEYS, END_KEYS, LABEL_KEYS = ("start", "start_offset"), ("end", "end_offset"), ("label", "labels")

DOCUMENT = b"-DOCSTART-"
_BOM = b"\xef\xbb\xbf"
# How much of a file tells what it is, and how many of its records.
_PEEK_BYTES, _PEEK_RECORDS = 32_768, 20
_IN_SCHEME = re.compile(rb"O|[BIESLU]-\S+")
_UPPER = re.compile(rb"(?![-+]?\.?\d)[^a-z\s]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sentence:
    """Words with a tag each; the line of the file that they begin at, and the name that the file gives them."""

    words: list[str]
    tags: list[str]
    line: int
    name: str | None = None


def is_tagged(file: Path) -> bool:
    """Whether a file holds tagged words for certain; reads its first bytes where the name leaves it open."""
    suffix = file.suffix.lower()
    if suffix in CONLLU | CONLL:
        return True
    if suffix not in SUFFIXES:
        return False
    lines = _first_lines(file)
    return _is_tagged_json(lines) if suffix in JSONL else _is_tagged_columns(lines)


def files_in(root: Path) -> list[tuple[str | None, Path]]:
    """The files of tagged words in a folder with their splits, all of one format: the first of CoNLL-U, CoNLL, JSONL,
    .tsv and .txt that is there. Beside files that are named after splits, others (a list of the tags) do not count."""
    found = [path for path in _folders.entries(root) if path.suffix.lower() in SUFFIXES and path.is_file()]
    for suffixes in (CONLLU, CONLL, JSONL, *_COLUMNS):
        files = [path for path in found if path.suffix.lower() in suffixes]
        named = [(split, path) for path in files if (split := _folders.split_in(path.stem))]
        if named and (len(named) == len(files) or suffixes not in (CONLLU, CONLL)):
            named = _folders.in_order(named)
            if all(is_tagged(path) for _, path in named):
                return [*named]
        elif files and all(is_tagged(path) for path in files):
            return [(_folders.split_in(path.stem), path) for path in files]
    return []


def read_lines(file: Path) -> list[bytes]:
    """The lines of a UTF-8 file without their ends; a byte-order mark and Windows line ends are taken off.

    They stay bytes, because those split at ASCII spaces only: a word may hold a no-break space.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from error
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file}:{content.count(10, 0, error.start) + 1} is not UTF-8: byte {content[error.start]:#04x} "
            f"at offset {error.start}",
            expected="text in UTF-8",
            hint=f"iconv -f LATIN1 -t UTF-8 {file.name} > converted{file.suffix}, if it is Latin-1",
        ) from error
    return content.removeprefix(_BOM).replace(b"\r\n", b"\n").split(b"\n")


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Where a JSON object holds its words and their tags, or its text and the spans in it."""

    words: str
    tags: str
    spans: bool


def keys_of(row: Mapping[str, Any], tag: str | None = None) -> Keys | None:
    """The keys of a JSON object, None if it holds no tagged words; `tag` names that of the tags or spans."""
    words = next((key for key in _WORD_KEYS if _is_texts(row.get(key))), None)
    tags = _list_in(row, _TAG_KEYS if tag is None else (tag,))
    spans = _list_in(row, _SPAN_KEYS if tag is None else (tag,)) if isinstance(row.get("text"), str) else None
    if words and tags and not (spans and row[tags] and all(map(_is_span, row[tags]))):
        return Keys(words=words, tags=tags, spans=False)
    return Keys(words="text", tags=spans, spans=True) if spans else None


def _list_in(row: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if isinstance(row.get(name), list)), None)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _first_lines(file: Path) -> list[bytes]:
    """The first lines of a file, without one that is cut off."""
    try:
        with file.open("rb") as stream:
            content = stream.read(_PEEK_BYTES + 1)
    except OSError:
        return []
    lines = content.removeprefix(_BOM).split(b"\n")
    return lines[:-1] if len(content) > _PEEK_BYTES else lines


def _is_tagged_json(lines: list[bytes]) -> bool:
    """By the first record that has tags or spans: as many words as tags, or what looks like spans."""
    for row in islice(_objects(lines), _PEEK_RECORDS):
        keys = keys_of(row)
        if keys is None:
            return False
        if row[keys.tags]:
            return all(map(_is_span, row[keys.tags])) if keys.spans else len(row[keys.words]) == len(row[keys.tags])
    return False


def _objects(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError:
                return
            if not isinstance(row, dict):
                return
            yield row


def _is_span(value: object) -> bool:
    if isinstance(value, dict):
        return all(any(key in value for key in keys) for keys in (START_KEYS, END_KEYS, LABEL_KEYS))
    if not isinstance(value, list) or len(value) != 3:
        return False
    return [type(each) for each in value] == [int, int, str]


def _is_tagged_columns(lines: list[bytes]) -> bool:
    """Sentences of more than one word, blank lines between them, equal columns of which the last is clearly tags."""
    lines = [b"" if line.startswith(DOCUMENT) else line.rstrip() for line in lines if not line.startswith(b"#")]
    rows = [line for line in lines if line]
    if len(rows) < 2:
        return False
    separator = b"\t" if b"\t" in rows[0] else None
    split = [row.split(separator) for row in rows]
    if len(split[0]) < 2 or any(len(values) != len(split[0]) for values in split):
        return False
    if any(not values[0] or b" " in values[0] for values in split):
        return False
    sentences = [block for block in b"\n".join(lines).split(b"\n\n") if block.strip()]
    if len(sentences) < 2 or len(rows) < 2 * len(sentences):
        return False
    tags = [values[-1] for values in split]
    if all(_IN_SCHEME.fullmatch(tag) for tag in tags):
        return True
    return 2 * len(set(tags)) <= len(tags) and all(_UPPER.fullmatch(tag) for tag in tags)
