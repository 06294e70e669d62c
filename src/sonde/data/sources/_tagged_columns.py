"""Tagged words in columns: CoNLL files with a word and its tag a line, and CoNLL-U with its ten columns.

The format of CoNLL-U is that of https://universaldependencies.org/format.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from sonde.base.errors import UserError, unknown
from sonde.data.sources._tagged import CONLLU, DOCUMENT, Sentence

# The columns of CoNLL-U that can be tags, by number.
CONLLU_TAGS = {"upos": 3, "xpos": 4, "feats": 5, "deprel": 7}
_CONLLU_WIDTH = 10
# Without a value, which the format allows in these columns; there it is a tag like others.
NO_VALUE, _OPTIONAL = "_", ("xpos", "feats")
_NAME = re.compile(rb"#\s*sent_id\s*=\s*(.*\S)")


class _Texts(dict[bytes, str]):
    """Words and tags as texts, each kept once: a corpus repeats them."""

    def __missing__(self, value: bytes) -> str:
        text = self[value] = value.decode("utf-8").strip()
        return text


def is_conllu(file: Path, lines: list[bytes]) -> bool:
    """By its name, or by ten columns of which the first counts the words (CoNLL-X files are read alike)."""
    if file.suffix.lower() in CONLLU:
        return True
    first = next((line for line in lines if line.strip() and not line.startswith((b"#", DOCUMENT))), b"")
    values = first.split(b"\t")
    return len(values) == _CONLLU_WIDTH and values[0].split(b"-")[0] == b"1"


def read_conllu(file: Path, lines: list[bytes], tag: str) -> Iterator[Sentence]:
    """Words of several tokens ("3-4") and empty nodes ("5.1") are left out: their parts have lines of their own."""
    if tag not in CONLLU_TAGS:
        raise unknown(tag, CONLLU_TAGS, what="data.tag: the CoNLL-U column")
    column = CONLLU_TAGS[tag]
    texts = _Texts()
    for start, block in _blocks(lines):
        comments = next((number for number, line in enumerate(block) if not line.startswith(b"#")), len(block))
        rows = [line.split(b"\t") for line in block[comments:]]
        for number, row in enumerate(rows, start=start + comments):
            if len(row) != _CONLLU_WIDTH:
                raise _wrong_width(file, number, row, "the ten columns of CoNLL-U between tabs")
            if not row[0].isdigit() and not re.fullmatch(rb"\d+[-.]\d+", row[0]):
                raise UserError(
                    f"{file}:{number} begins with {row[0].decode()!r}",
                    expected="the number of the word (3), of several (3-4) or of an empty node (5.1)",
                )
        words = [texts[row[1]] for row in rows if row[0].isdigit()]
        tags = [texts[row[column]] for row in rows if row[0].isdigit()]
        if not words:
            continue
        if "" in words or "" in tags or (NO_VALUE in tags and tag not in _OPTIONAL):
            numbers = [number for number, row in enumerate(rows, start=start + comments) if row[0].isdigit()]
            raise _missing(file, numbers, words, tags, tag)
        names = [match[1].decode() for line in block[:comments] if (match := _NAME.match(line))]
        yield Sentence(words=words, tags=tags, line=start + comments, name=names[0] if names else None)


def _missing(file: Path, numbers: list[int], words: list[str], tags: list[str], tag: str) -> UserError:
    number, word = next(
        (number, word)
        for number, word, found in zip(numbers, words, tags, strict=True)
        if not word or not found or (found == NO_VALUE and tag not in _OPTIONAL)
    )
    if not word:
        return UserError(f"{file}:{number} has no word", expected="the word in the second column")
    return UserError(
        f"{file}:{number} has no {tag} for the word {word!r}",
        expected="a tag for every word",
        hint=f'data.tag = "{"xpos" if tag == "upos" else "upos"}" learns another column',
    )


def read_conll(file: Path, lines: list[bytes], word_column: int | None, tag_column: int | None) -> Iterator[Sentence]:
    """The first line of words says how many columns there are, and whether tabs or spaces stand between them."""
    columns = _Columns(file, lines, 0 if word_column is None else word_column, -1 if tag_column is None else tag_column)
    texts = _Texts()
    for start, block in _blocks(lines):
        comments = 0
        while comments < len(block) and block[comments].startswith(b"#") and columns.is_comment(block[comments]):
            comments += 1
        rows = [line.split(columns.separator) for line in block[comments:]]
        if not rows:
            continue
        for number, row in enumerate(rows, start=start + comments):
            if len(row) != columns.width:
                raise _wrong_width(file, number, row, f"{columns.width} columns, as in line {columns.first}")
        words, tags = [texts[row[columns.word]] for row in rows], [texts[row[columns.tag]] for row in rows]
        if "" in words or "" in tags:
            place = min(values.index("") for values in (words, tags) if "" in values)
            what = f"tag for the word {words[place]!r}" if words[place] else "word"
            raise UserError(
                f"{file}:{start + comments + place} has no {what}", expected="a word and its tag in every line"
            )
        yield Sentence(words=words, tags=tags, line=start + comments)


class _Columns:
    """How the lines of a CoNLL file are to be read: what its first line of words says."""

    def __init__(self, file: Path, lines: list[bytes], word: int, tag: int) -> None:
        places = (at for at, line in enumerate(lines) if line.strip() and not line.startswith((b"#", DOCUMENT)))
        place = next(places, None)
        if place is None:
            raise UserError(
                f"{file} has no words", expected="lines with a word and its tag, and blank lines between sentences"
            )
        self.first = place + 1
        self.separator = b"\t" if b"\t" in lines[place] else None
        values = lines[place].split(self.separator)
        self.width = len(values)
        if self.width < 2:
            raise UserError(
                f"{file}:{self.first} has one column: {lines[place].decode().strip()[:40]}",
                expected="a word and its tag, with a tab or spaces between them",
            )
        for name, number in (("word_column", word), ("tag_column", tag)):
            if not -self.width <= number < self.width:
                raise UserError(
                    f"data.{name} = {number}, and {file}:{self.first} has {self.width} columns",
                    expected=f"a number from 0 to {self.width - 1}, or from the end: -1 to -{self.width}",
                )
        self.word, self.tag = word % self.width, tag % self.width
        if self.word == self.tag:
            raise UserError(
                f"words and tags of {file} would both be taken from column {self.tag} of {self.width}",
                hint="data.word_column and data.tag_column choose them, from 0",
            )
        self._lines = lines

    def is_comment(self, line: bytes) -> bool:
        """Whether a line at the start of a sentence is a comment, and not the word "#" with its tag."""
        values = line.split(self.separator)
        if len(values) != self.width:
            return True
        return self.separator is None and values[self.tag] not in self._tags

    @cached_property
    def _tags(self) -> set[bytes]:
        rows = [line.split() for line in self._lines if not line.startswith((b"#", DOCUMENT))]
        return {row[self.tag] for row in rows if len(row) == self.width}


def counts_words(file: Path, lines: list[bytes]) -> bool:
    """Whether the first of three or more columns numbers the words of every sentence: 1, 2, 3, ..."""
    columns = _Columns(file, lines, 0, -1)
    found = False
    for _, block in _blocks(lines):
        rows = [line.split(columns.separator) for line in block if not line.startswith(b"#")]
        if [row[0] for row in rows] != [b"%d" % number for number in range(1, len(rows) + 1)]:
            return False
        found |= len(rows) > 1
    return found and columns.width > 2


def _blocks(lines: list[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """The lines between blank ones, and the number of the first of them; the start of a document is blank too."""
    start = 0
    for place, line in enumerate(lines):
        if not line.strip() or line.startswith(DOCUMENT):
            if place > start:
                yield start + 1, lines[start:place]
            start = place + 1
    if len(lines) > start:
        yield start + 1, lines[start:]


def _wrong_width(file: Path, number: int, row: list[bytes], expected: str) -> UserError:
    shown = b" ".join(row).decode().strip()
    return UserError(
        f"{file}:{number} has {len(row)} column{'s' if len(row) > 1 else ''}: {shown[:40]}",
        expected=expected,
        hint="a blank line ends a sentence",
    )
