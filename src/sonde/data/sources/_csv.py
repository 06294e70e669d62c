"""CSV and TSV as columns of texts: polars reads, and where it or a doubt stops, the csv module finds the line."""

from __future__ import annotations

import contextlib
import csv
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import polars

from sonde.base.errors import UserError
from sonde.data.sources import _content

_SEPARATORS = ",\t;|"
_COMMA_NUMBER = r"^\s*[+-]?\d+(,\d+)?([eE][+-]?\d+)?\s*$"
# How many rows tell whether the first one is a header.
_PEEK = 200
# And how much of a file its separator.
_PEEK_BYTES = 16_384
# Of the lines this share has as many separators as the first one; a few may be broken.
_ALIKE = 0.9
# A table with more than one row, and with a larger share, of too many or too few values is none of this dialect.
MOST_RAGGED = 0.05


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a file writes its rows. `columns` names them where there is no header; `decimal` is the point of numbers."""

    separator: str | None = None
    header: bool = True
    quoting: bool = True
    decimal: Literal[".", ","] = "."
    columns: tuple[str, ...] = ()
    encoding: str | None = None
    ragged: Literal["error", "skip"] = "error"


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The values of a file, and what was skipped: places among its rows (0 comes after the header), and lines."""

    frame: polars.DataFrame
    skipped: tuple[int, ...] = ()
    skipped_lines: tuple[int, ...] = ()


def read(path: Path, dialect: Dialect) -> polars.DataFrame:
    """Every column as texts, an empty value null.

    Raises:
        UserError: as `read_rows`.
    """
    return read_rows(path, dialect).frame


def read_rows(path: Path, dialect: Dialect) -> Rows:
    """As `read`, with what was skipped.

    Raises:
        UserError: of no certain encoding, empty, a row with too many or too few values (unless those are skipped), a
            quote out of place, two columns of a name.
    """
    content, _ = _content.read_text(path, dialect.encoding)
    found = _rows(path, content, dialect)
    names = _names(path, found.frame.row(0), dialect)
    header = int(dialect.header)
    frame = found.frame.slice(header).rename(dict(zip(found.frame.columns, names, strict=True)))
    if not frame.height:
        raise UserError(f"{path} has a header and no rows", hint="if its first row is data: header = false")
    if dialect.decimal != ".":
        frame = frame.with_columns(_with_points(column) for column in frame)
    return replace(found, frame=frame, skipped=tuple(place - header for place in found.skipped))


def _with_points(texts: polars.Series) -> polars.Series:
    """Numbers such as 1,5 as 1.5, where all values are numbers."""
    return texts.str.replace(",", ".", literal=True) if texts.str.contains(_COMMA_NUMBER).all() else texts


def first_row(path: Path, dialect: Dialect) -> tuple[str | None, ...]:
    """The values of the first row, be it a header or not.

    Raises:
        UserError: of no certain encoding, empty, a quote out of place.
    """
    return _rows(path, _content.read_text(path, dialect.encoding)[0], dialect).frame.row(0)


def first_line(path: Path) -> tuple[str | None, ...]:
    """The values of the first line: the names, if it is a header."""
    content, _ = _content.read_text(path)
    return _parse(content.lstrip(b"\r\n").split(b"\n", 1)[0], _separator(path, content), quoting=True).row(0)


def _parse(content: bytes, separator: str, *, quoting: bool) -> polars.DataFrame:
    quote = '"' if quoting else None
    return polars.read_csv(content, has_header=False, separator=separator, quote_char=quote, infer_schema=False)


def _rows(path: Path, content: bytes, dialect: Dialect) -> Rows:
    """All rows but blank ones, the header too, as texts."""
    separator = dialect.separator or _separator(path, content)
    if not content.endswith(b"\n"):
        content += b"\n"  # without it polars overlooks an empty value too many at the very end
    try:
        rows = _parse(content.lstrip(b"\r\n"), separator, quoting=dialect.quoting)
    except polars.exceptions.PolarsError as error:
        if dialect.ragged == "skip":
            return _without_ragged(path, content, separator, dialect)
        _check(path, content, separator, dialect)
        raise UserError(f"{path} cannot be read as CSV: {error}") from error
    # Polars fills up a short row and a blank line with nulls, and leaves quotes within a value as they are.
    quotes = (
        dialect.quoting and b'"' in content and any(column.str.contains('"', literal=True).any() for column in rows)
    )
    if not quotes and not rows[:, -1].null_count():
        return Rows(frame=rows)
    if dialect.ragged == "skip":
        return _without_ragged(path, content, separator, dialect)
    filled = _check(path, content, separator, dialect)
    filled = filled[filled.index(True) :]
    if len(filled) != rows.height:
        raise UserError(f"{path} cannot be read as CSV: {len(filled)} rows were found and {rows.height} parsed")
    return Rows(frame=rows if all(filled) else rows.filter(polars.Series(filled)))


def _without_ragged(path: Path, content: bytes, separator: str, dialect: Dialect) -> Rows:
    """The rows that have as many values as the first, row by row; which ones have not."""
    width = 0
    kept: list[list[str]] = []
    places: list[int] = []
    lines: list[int] = []
    for line, values in _records(path, content, separator, quoting=dialect.quoting):
        width = width or len(values)
        if len(values) == width:
            kept.append(values)
        elif values:
            places.append(len(kept) + len(places))
            lines.append(line)
    if not kept:
        raise UserError(f"{path} has no rows")
    texts = [[value or None for value in column] for column in zip(*kept, strict=True)]
    names = [f"column_{number}" for number in range(1, width + 1)]
    frame = polars.DataFrame(dict(zip(names, texts, strict=True)), schema=dict.fromkeys(names, polars.String))
    return Rows(frame=frame, skipped=tuple(places), skipped_lines=tuple(lines))


def _check(path: Path, content: bytes, separator: str, dialect: Dialect) -> list[bool]:
    """Go through the rows one by one; whether each has values or is a blank line.

    Raises:
        UserError: a row has too many or too few values, or a quote is out of place; names the line.
    """
    names: list[str] = []
    filled: list[bool] = []
    for line, values in _records(path, content, separator, quoting=dialect.quoting):
        filled.append(bool(values))
        names = names or (_names(path, tuple(values), dialect) if values else [])
        if values and len(values) != len(names):
            raise UserError(
                f"{path} line {line} has {_counted(len(values))}, where there are {len(names)} columns",
                expected=f"the columns {', '.join(names)}",
                hint=f"a value that holds the separator {separator!r} stands in double quotes; or skip such rows with "
                'data.ragged = "skip"',
            )
    return filled


def _records(path: Path, content: bytes, separator: str, *, quoting: bool) -> Iterator[tuple[int, list[str]]]:
    """The rows as the csv module reads them, none of them checked but for its quotes, with the lines they begin on."""
    # Only a newline ends a row here; the csv module would end it at a carriage return too.
    text = re.sub(r"\r(?=\n|\Z)", "", content.decode()).replace("\r", " ")
    lines = text.removesuffix("\n").split("\n")
    reader = csv.reader(
        (line + "\n" for line in lines),
        delimiter=separator,
        quoting=csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE,
        strict=True,
    )
    whole = re.compile(rf'(?<![^{re.escape(separator)}\n])"(?:[^"]|"")*"(?=[{re.escape(separator)}\n]|\Z)')
    limit = csv.field_size_limit(sys.maxsize)
    start = 0
    try:
        for values in reader:
            written = "\n".join(lines[start : reader.line_num])
            rest = whole.sub(lambda found: "\n" * found.group().count("\n"), written) if quoting else ""
            if '"' in rest:
                line = start + 1 + rest.count("\n", 0, rest.index('"'))
                raise _quote_error(path, line, "stands inside a value")
            yield start + 1, values
            start = reader.line_num
    except csv.Error as error:
        if reader.line_num == len(lines) and "end of data" in str(error):
            raise _quote_error(path, start + 1, "is never closed") from error
        raise _quote_error(path, reader.line_num, "stands inside a value") from error
    finally:
        csv.field_size_limit(limit)


def _quote_error(path: Path, line: int, what: str) -> UserError:
    return UserError(
        f"{path} line {line} has a double quote that {what}",
        expected="quotes around whole values, doubled within them",
        hint="quoting = false in [data] takes quotes as any other character",
    )


def sniff(path: Path) -> Dialect:
    """The dialect that a file seems to have: its encoding, whether quotes mean anything, whether the first row is a
    header, and whether a few rows have too many or too few values, and are better skipped."""
    content, encoding = _content.read_text(path)
    separator = _separator(path, content)
    plain = Dialect(header=False, encoding=None if encoding == "utf-8" else encoding)
    try:
        return _sniffed(_rows(path, content, plain), separator, plain)
    except UserError:
        # Quotes are taken as they stand only if that makes a table of the file; else the error is the better word.
        for other in (replace(plain, quoting=False), replace(plain, ragged="skip")):
            with contextlib.suppress(UserError):
                rows = _rows(path, content, other)
                if len(rows.skipped) <= max(1, MOST_RAGGED * rows.frame.height):
                    return _sniffed(rows, separator, other)
        raise


def _sniffed(rows: Rows, separator: str, dialect: Dialect) -> Dialect:
    frame = rows.frame.head(_PEEK)
    backbone = frame.slice(1) if frame.height > 1 else frame
    # Where a comma does not part values it may stand for the point of numbers, as in much of Europe.
    comma = separator != "," and any(_commas(column) for column in backbone)
    if comma:
        frame = frame.with_columns(_with_points(column) for column in frame)
    return replace(dialect, header=_is_header(frame), decimal="," if comma else ".")


def _commas(texts: polars.Series) -> bool:
    """Whether all values are whole or decimal numbers, and some have a decimal comma."""
    there = texts.drop_nulls()
    return len(there) > 0 and there.str.contains(_COMMA_NUMBER).all() and there.str.contains(",").any()


def _is_header(peek: polars.DataFrame) -> bool:
    """A first row with a number in it or of whole sentences is data, and so is one with a value that its column has
    again, unless it stands over numbers (a column "airbag" may hold the word, too)."""
    first = peek.row(0)
    if all(value and value.rstrip().endswith((".", "!")) and len(value.split()) >= 4 for value in first):
        return False
    if all(value == str(place) for place, value in enumerate(first)):
        return True  # columns that were never named are numbered from 0
    if any(map(_is_number, first)):
        return False
    columns = [
        (value, peek[name].slice(1).drop_nulls()) for name, value in zip(peek.columns, first, strict=True) if value
    ]
    over_numbers = any(len(below) and all(map(_is_number, below)) for _, below in columns)
    return over_numbers or not any(below.eq(value).any() for value, below in columns)


def _is_number(text: str | None) -> bool:
    try:
        float(text or "")
    except ValueError:
        return False
    return True


def _separator(path: Path, content: bytes) -> str:
    """A tab by the file's name, else what the lines have as often; or at least what the first line has most of."""
    if _content.table_format(path) == "tsv":
        return "\t"
    lines = [line for line in content[:_PEEK_BYTES].split(b"\n") if line.strip()]
    # The last one may be cut short.
    whole = lines[: max(1, len(lines) - (len(content) > _PEEK_BYTES))]
    unquoted = [b"".join(line.split(b'"')[::2]) for line in whole]
    counts = {separator: [line.count(separator.encode()) for line in unquoted] for separator in _SEPARATORS}

    def alike(found: list[int]) -> bool:
        return found[0] > 0 and sum(count == found[0] for count in found) >= _ALIKE * len(found)

    return max(_SEPARATORS, key=lambda one: (alike(counts[one]), counts[one][0]))


def _names(path: Path, first: tuple[str | None, ...], dialect: Dialect) -> list[str]:
    if not dialect.header:
        names = list(dialect.columns) or [f"column_{number}" for number in range(1, len(first) + 1)]
        if len(names) != len(first):
            raise UserError(f"{path} has {len(first)} columns, and data.columns names {len(names)}")
    else:
        names = [(name or "").strip() or f"column_{number}" for number, name in enumerate(first, start=1)]
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"{path} has two columns named {name!r}",
                expected="a header with different names" if dialect.header else "different names in data.columns",
                hint="if its first row is data: header = false" if dialect.header else None,
            )
    return names


def _counted(values: int) -> str:
    return "1 value" if values == 1 else f"{values} values"
