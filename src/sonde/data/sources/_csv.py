"""CSV and TSV as columns. Rows are counted before polars parses them, so that errors name the line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars

from sonde.base.errors import UserError
from sonde.data.sources import _typed

_SEPARATORS = ",\t;|"
_COMMA_NUMBER = r"^\s*[+-]?\d+(,\d+)?([eE][+-]?\d+)?\s*$"
_QUOTE, _NEWLINE, _RETURN = ord('"'), ord("\n"), ord("\r")
# How many rows tell whether the first one is a header, and which columns seem to hold numbers.
_PEEK = 200
# And how much of a file its separator.
_PEEK_BYTES = 16_384
# Bytes that are looked at together: few enough to stay near the processor.
_BLOCK = 1 << 18


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a file writes its rows. `columns` names them where there is no header; `decimal` is the point of numbers."""

    separator: str | None = None
    header: bool = True
    quoting: bool = True
    decimal: Literal[".", ","] = "."
    columns: tuple[str, ...] = ()


def read(path: Path, dialect: Dialect, *, numbers: bool = True) -> polars.DataFrame:
    """Every column as texts, an empty value null; with `numbers` those that `_typed` would take as numbers as such.

    Raises:
        UserError: not UTF-8, empty, a row with too many or too few values, a quote out of place, two columns of a name.
    """
    content = read_bytes(path)
    separator = dialect.separator or _separator(path, content)
    quick = _quickly(path, content, separator, dialect) if numbers and dialect.decimal == "." else None
    return _carefully(path, content, separator, dialect) if quick is None else quick


def _quickly(path: Path, content: bytes, separator: str, dialect: Dialect) -> polars.DataFrame | None:
    """A table without quotes and blank lines, whose numbers polars reads as such: several times quicker.

    None where it is not that plain, or something is wrong, which the careful way then finds.
    """
    rows = content.count(b"\n") + (not content.endswith(b"\n"))
    ends = content.find(b"\n")
    header = content if ends < 0 else content[:ends]
    columns = header.count(separator.encode()) + 1
    blank = content[:1] in b"\r\n" or b"\n\n" in content or b"\n\r\n" in content
    plain = not blank and not (dialect.quoting and b'"' in content) and content.count(b"\r") == content.count(b"\r\n")
    # Where no row has too many values, which polars tells, and all have the right number together, none has too few.
    even = content.count(separator.encode()) == rows * (columns - 1)
    if not plain or not even or rows < 1 + dialect.header or _has_codes(content, separator):
        return None
    names = _names(path, _parse(header, separator, dialect.quoting).row(0), dialect)
    try:
        start = ends + 1 if dialect.header else 0
        peek = _parse(content[start : _end_of_row(content, start, _PEEK)], separator, dialect.quoting)
        kinds = {"i": polars.Int64, "f": polars.Float64}
        types = [kinds.get(_typed.from_texts(column).dtype.kind, polars.String) for column in peek]
        frame = _parse(content, separator, dialect.quoting, dict(zip(names, types, strict=True)), header=dialect.header)
    except (polars.exceptions.PolarsError, ValueError):
        return None
    return frame if frame.height == rows - dialect.header else None


def _end_of_row(content: bytes, start: int, rows: int) -> int:
    """Where so many rows from `start` on end."""
    end = start - 1
    for _ in range(rows):
        end = content.find(b"\n", end + 1)
        if end < 0:
            return len(content)
    return end


def _has_codes(content: bytes, separator: str) -> bool:
    """Whether some value starts with a zero and a further digit (007): as a number it would lose its zeros."""
    begins = np.zeros(256, dtype=bool)
    begins[[ord(separator), _NEWLINE, _QUOTE, ord(" "), ord("\t")]] = True
    for start in range(0, len(content), _BLOCK):
        # Two places before a block and one after it are seen too, so that it does not matter where it ends.
        piece = content[start - 2 : start + _BLOCK + 1] if start else b"\n\n" + content[: _BLOCK + 1]
        block = np.frombuffer(piece, dtype=np.uint8)
        is_digit = block - np.uint8(ord("0")) <= 9
        at = np.flatnonzero((block[2:-1] == ord("0")) & is_digit[3:] & ~is_digit[1:-2]) + 1
        signs = (block[at] == ord("-")) | (block[at] == ord("+"))
        if (begins[block[at]] | (signs & begins[block[at - 1]])).any():
            return True
    return False


def _carefully(path: Path, content: bytes, separator: str, dialect: Dialect) -> polars.DataFrame:
    rows = _rows(path, content, separator, dialect.quoting)
    first = _parse(content[rows.starts[0] : rows.ends[0]], separator, dialect.quoting).row(0)
    names = _names(path, first, dialect)
    wrong = rows.counts != len(names)
    if wrong.any():
        at = int(wrong.argmax())
        raise UserError(
            f"{path} line {rows.line(at)} has {_counted(int(rows.counts[at]))}, where there are {len(names)} columns",
            expected=f"the columns {', '.join(names)}",
            hint=f"a value that holds the separator {separator!r} stands in double quotes",
        )
    start = int(rows.starts[1]) if dialect.header and len(rows.starts) > 1 else 0
    count = len(rows.starts) - dialect.header
    if not count:
        raise UserError(f"{path} has a header and no rows", hint="if its first row is data: header = false")
    backbone = content[start:]
    if rows.blank:
        kept = slice(int(dialect.header), None)
        backbone = b"\n".join(content[at:end] for at, end in zip(rows.starts[kept], rows.ends[kept], strict=True))
    try:
        frame = _parse(backbone, separator, dialect.quoting)
    except polars.exceptions.PolarsError as error:
        raise UserError(f"{path} cannot be read as CSV: {error}") from error
    if frame.height != count:
        raise UserError(f"{path} cannot be read as CSV: {count} rows were found and {frame.height} parsed")
    frame = frame.rename(dict(zip(frame.columns, names, strict=True)))
    return frame if dialect.decimal == "." else frame.with_columns(_with_points(column) for column in frame)


def _with_points(texts: polars.Series) -> polars.Series:
    """Numbers such as 1,5 as 1.5, where all values are numbers."""
    return texts.str.replace(",", ".", literal=True) if texts.str.contains(_COMMA_NUMBER).all() else texts


def first_row(path: Path, dialect: Dialect) -> tuple[str | None, ...]:
    """The values of the first row, be it a header or not.

    Raises:
        UserError: not UTF-8, empty, a quote out of place.
    """
    content = read_bytes(path)
    separator = dialect.separator or _separator(path, content)
    rows = _rows(path, content, separator, dialect.quoting)
    return _parse(content[rows.starts[0] : rows.ends[0]], separator, dialect.quoting).row(0)


def first_line(path: Path) -> tuple[str | None, ...]:
    """The values of the first line: the names, if it is a header."""
    content = read_bytes(path)
    return _parse(content.lstrip(b"\r\n").split(b"\n", 1)[0], _separator(path, content), True).row(0)


def _parse(
    backbone: bytes,
    separator: str,
    quoting: bool,
    types: dict[str, type[polars.DataType]] | None = None,
    *,
    header: bool = False,
) -> polars.DataFrame:
    """Every column as texts, or named and typed by `types`; then a row with a value too many is an error."""
    quote = '"' if quoting else None
    return polars.read_csv(
        backbone, has_header=header, separator=separator, quote_char=quote, infer_schema=False, schema=types
    )


def sniff(path: Path) -> Dialect:
    """The dialect that a file seems to have: whether quotes mean anything and whether the first row is a header."""
    content = read_bytes(path)
    separator = _separator(path, content)
    quoting = True
    try:
        rows = _rows(path, content, separator, True)
    except UserError:
        rows = _rows(path, content, separator, False)
        # Quotes are taken as they stand only if that makes a table of the file; else the error is the better word.
        if (rows.counts != rows.counts[0]).any():
            raise
        quoting = False
    peek = content[: rows.ends[:_PEEK][-1]]
    frame = _parse(peek, separator, quoting)
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
    """A first row with a number in it, or with a value that its column has again, is data."""
    first = peek.row(0)
    if all(value == str(place) for place, value in enumerate(first)):
        return True  # columns that were never named are numbered from 0
    again = (peek[name].slice(1).eq(value).any() for name, value in zip(peek.columns, first, strict=True) if value)
    return not any(map(_is_number, first)) and not any(again)


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
        raise UserError(
            f"{path} line {content.count(_NEWLINE, 0, error.start) + 1} is not UTF-8: "
            f"byte {content[error.start]:#04x} at offset {error.start}",
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


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Where each row that is not blank begins and ends, and how many values it has; `breaks` are all line ends."""

    starts: np.ndarray
    ends: np.ndarray
    counts: np.ndarray
    breaks: np.ndarray
    blank: bool

    def line(self, row: int) -> int:
        """The line of the file on which a row begins, counted from 1."""
        return int(np.searchsorted(self.breaks, self.starts[row])) + 1


def _rows(path: Path, content: bytes, separator: str, quoting: bool) -> _Rows:
    data = np.frombuffer(content, dtype=np.uint8)
    breaks = np.flatnonzero(data == _NEWLINE)
    separators = np.flatnonzero(data == ord(separator))
    ends = breaks
    if quoting and content.find(b'"') >= 0:
        quotes = np.flatnonzero(data == _QUOTE)
        _check_quotes(path, data, quotes, breaks, ord(separator))
        # What follows an odd number of quotes is inside a value.
        ends = breaks[np.searchsorted(quotes, breaks) % 2 == 0]
        separators = separators[np.searchsorted(quotes, separators) % 2 == 0]
    if not len(ends) or ends[-1] != len(data) - 1:
        ends = np.append(ends, len(data))
    starts = np.concatenate([[0], ends[:-1] + 1])
    counts = np.diff(np.searchsorted(separators, np.concatenate([[0], ends]))) + 1
    lengths = ends - starts
    returns = (lengths == 1) & (data[np.minimum(starts, len(data) - 1)] == _RETURN)
    filled = (lengths > 0) & ~returns
    return _Rows(
        starts=starts[filled], ends=ends[filled], counts=counts[filled], breaks=breaks, blank=not bool(filled.all())
    )


def _check_quotes(path: Path, data: np.ndarray, quotes: np.ndarray, breaks: np.ndarray, separator: int) -> None:
    """A quote opens at the beginning of a value and closes at its end; within, it is doubled."""
    before = np.where(quotes[::2] > 0, data[quotes[::2] - 1], _NEWLINE)
    last = len(data) - 1
    after = np.where(quotes[1::2] < last, data[np.minimum(quotes[1::2] + 1, last)], _NEWLINE)
    edges = np.zeros(256, dtype=bool)
    edges[[separator, _NEWLINE, _QUOTE]] = True
    opens = edges[before]
    edges[_RETURN] = True
    closes = edges[after]
    wrong = np.concatenate([quotes[::2][~opens], quotes[1::2][~closes]])
    if not len(wrong) and len(quotes) % 2 == 0:
        return
    at = int(wrong.min()) if len(wrong) else int(quotes[-1])
    raise UserError(
        f"{path} line {int(np.searchsorted(breaks, at)) + 1} has a double quote that "
        + ("stands inside a value" if len(wrong) else "is never closed"),
        expected="quotes around whole values, doubled within them",
        hint="quoting = false in [data] takes quotes as any other character",
    )


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
