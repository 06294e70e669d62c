"""CSV and TSV as columns of texts: polars reads, and where it or a doubt stops, the csv module finds the line."""

from __future__ import annotations

import contextlib
import csv
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars

from sonde.base.errors import UserError

_SEPARATORS = ",\t;|"
_COMMA_NUMBER = r"^\s*[+-]?\d+(,\d+)?([eE][+-]?\d+)?\s*$"
# How many rows tell whether the first one is a header.
_PEEK = 200
# And how much of a file its separator.
_PEEK_BYTES = 16_384


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a file writes its rows. `columns` names them where there is no header; `decimal` is the point of numbers."""

    separator: str | None = None
    header: bool = True
    quoting: bool = True
    decimal: Literal[".", ","] = "."
    columns: tuple[str, ...] = ()


def read(path: Path, dialect: Dialect) -> polars.DataFrame:
    """Every column as texts, an empty value null.

    Raises:
        UserError: not UTF-8, empty, a row with too many or too few values, a quote out of place, two columns of a name.
    """
    rows = _rows(path, read_bytes(path), dialect)
    names = _names(path, rows.row(0), dialect)
    frame = rows.slice(int(dialect.header)).rename(dict(zip(rows.columns, names, strict=True)))
    if not frame.height:
        raise UserError(f"{path} has a header and no rows", hint="if its first row is data: header = false")
    return frame if dialect.decimal == "." else frame.with_columns(_with_points(column) for column in frame)


def _with_points(texts: polars.Series) -> polars.Series:
    """Numbers such as 1,5 as 1.5, where all values are numbers."""
    return texts.str.replace(",", ".", literal=True) if texts.str.contains(_COMMA_NUMBER).all() else texts


def first_row(path: Path, dialect: Dialect) -> tuple[str | None, ...]:
    """The values of the first row, be it a header or not.

    Raises:
        UserError: not UTF-8, empty, a quote out of place.
    """
    return _rows(path, read_bytes(path), dialect).row(0)


def first_line(path: Path) -> tuple[str | None, ...]:
    """The values of the first line: the names, if it is a header."""
    content = read_bytes(path)
    return _parse(content.lstrip(b"\r\n").split(b"\n", 1)[0], _separator(path, content), quoting=True).row(0)


def _parse(content: bytes, separator: str, *, quoting: bool) -> polars.DataFrame:
    quote = '"' if quoting else None
    return polars.read_csv(content, has_header=False, separator=separator, quote_char=quote, infer_schema=False)


def _rows(path: Path, content: bytes, dialect: Dialect) -> polars.DataFrame:
    """All rows but blank ones, the header too, as texts."""
    separator = dialect.separator or _separator(path, content)
    if not content.endswith(b"\n"):
        content += b"\n"  # without it polars overlooks an empty value too many at the very end
    try:
        rows = _parse(content.lstrip(b"\r\n"), separator, quoting=dialect.quoting)
    except polars.exceptions.PolarsError as error:
        _check(path, content, separator, dialect)
        raise UserError(f"{path} cannot be read as CSV: {error}") from error
    # Polars fills up a short row and a blank line with nulls, and leaves quotes within a value as they are.
    quotes = (
        dialect.quoting and b'"' in content and any(column.str.contains('"', literal=True).any() for column in rows)
    )
    if not quotes and not rows[:, -1].null_count():
        return rows
    filled = _check(path, content, separator, dialect)
    filled = filled[filled.index(True) :]
    if len(filled) != rows.height:
        raise UserError(f"{path} cannot be read as CSV: {len(filled)} rows were found and {rows.height} parsed")
    return rows if all(filled) else rows.filter(polars.Series(filled))


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
                hint=f"a value that holds the separator {separator!r} stands in double quotes",
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
    """The dialect that a file seems to have: whether quotes mean anything and whether the first row is a header."""
    content = read_bytes(path)
    separator = _separator(path, content)
    try:
        rows = _rows(path, content, Dialect(header=False))
    except UserError:
        # Quotes are taken as they stand only if that makes a table of the file; else the error is the better word.
        with contextlib.suppress(UserError):
            return _sniffed(_rows(path, content, Dialect(header=False, quoting=False)), separator, quoting=False)
        raise
    return _sniffed(rows, separator, quoting=True)


def _sniffed(rows: polars.DataFrame, separator: str, *, quoting: bool) -> Dialect:
    frame = rows.head(_PEEK)
    backbone = frame.slice(1) if frame.height > 1 else frame
    # Where a comma does not part values it may stand for the point of numbers, as in much of Europe.
    comma = separator != "," and any(_commas(column) for column in backbone)
    if comma:
        frame = frame.with_columns(_with_points(column) for column in frame)
    return Dialect(header=_is_header(frame), quoting=quoting, decimal="," if comma else ".")


def _commas(texts: polars.Series) -> bool:
    """Whether all values are whole or decimal numbers, and some have a decimal comma."""
    there = texts.drop_nulls()
    return len(there) > 0 and there.str.contains(_COMMA_NUMBER).all() and there.str.contains(",").any()


def _is_header(peek: polars.DataFrame) -> bool:
    """A first row with a number in it is data, and so is one with a value that its column has again, unless it stands
    over numbers (a column "airbag" may hold the word, too)."""
    first = peek.row(0)
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


def read_bytes(path: Path) -> bytes:
    """The text of a file in UTF-8, without a byte order mark.

    Raises:
        UserError: it cannot be read, is empty, or is not UTF-8; names the line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        if not content.isascii():
            content.decode()
    except UnicodeDecodeError as error:
        wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} line {line} is not UTF-8: byte {content[error.start]:#04x} at offset {error.start}",
            expected="text in UTF-8",
            hint=f"iconv -f {'UTF-16' if wide else 'LATIN1'} -t UTF-8 {path.name} > converted{path.suffix}"
            + ("" if wide else ", if it is Latin-1"),
        ) from error
    content = content.removeprefix(b"\xef\xbb\xbf")
    if not re.search(rb"\S", content):
        raise UserError(f"{path} is empty", expected="a header and rows")
    return content


def _separator(path: Path, content: bytes) -> str:
    """A tab by the file's name, else what every line has as often; or at least what the first line has most of."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    lines = [line for line in content[:_PEEK_BYTES].split(b"\n") if line.strip()]
    # The last one may be cut short.
    whole = lines[: max(1, len(lines) - (len(content) > _PEEK_BYTES))]
    unquoted = [b"".join(line.split(b'"')[::2]) for line in whole]
    counts = {separator: [line.count(separator.encode()) for line in unquoted] for separator in _SEPARATORS}
    return max(_SEPARATORS, key=lambda one: (len(set(counts[one])) == 1 and counts[one][0] > 0, counts[one][0]))


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
