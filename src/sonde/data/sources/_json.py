"""Tables in JSON: an object a line (JSONL), a list of objects, or the forms in which pandas writes a frame."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars

from sonde.base.errors import UserError
from sonde.data.sources import _content, _typed

# What polars reads from JSON exactly as it is meant; lists and objects are read as Python has them.
_PLAIN = (polars.Int64, polars.Float64, polars.Boolean, polars.String, polars.Null)

Fields = dict[str, np.ndarray]


def read(
    files: list[Path], encoding: str | None, texts: Sequence[str], dates: _typed.Dates
) -> tuple[Fields, list[int]]:
    """The fields of files, and the number of rows of each; a field that a row lacks is missing there.

    Raises:
        UserError: a file is no JSON, or not of rows; names the line.
    """
    contents = [_content.read_text(file, encoding)[0] for file in files]
    arrays = [_rows_of(file, content) for file, content in zip(files, contents, strict=True)]
    if all(rows is None for rows in arrays):
        try:
            frames = [polars.read_ndjson(content, infer_schema_length=None) for content in contents]
            whole = polars.concat(frames, how="diagonal_relaxed")
            if all(kind in _PLAIN for kind in whole.dtypes):
                fields = {
                    column.name: _typed.from_frame(column, as_text=column.name in texts, date=dates.get(column.name))
                    for column in whole
                }
                return fields, [frame.height for frame in frames]
        except polars.exceptions.PolarsError:
            pass  # line by line then, which knows where the fault is
    rows: list[dict[str, Any]] = []
    counts = []
    for file, content, found in zip(files, contents, arrays, strict=True):
        found = _lines(file, content) if found is None else found
        rows += found
        counts.append(len(found))
    names = dict.fromkeys(name for row in rows for name in row)
    fields = {
        name: _typed.from_values([row.get(name) for row in rows], as_text=name in texts, date=dates.get(name))
        for name in names
    }
    return fields, counts


def _lines(file: Path, content: bytes) -> list[dict[str, Any]]:
    lines = [(number, line) for number, line in enumerate(content.decode().split("\n"), start=1) if line.strip()]
    return [_row(file, number, line) for number, line in lines]


def _row(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise _not_json(f"{file}:{number}", error, "one JSON object a line") from error
    if not isinstance(row, dict):
        raise UserError(
            f"{file}:{number} is JSON, but not an object: {line.strip()[:40]}",
            expected='a line such as {"text": "...", "label": 1}, or one list of such objects in a .json file',
        )
    return row


def _not_json(where: str, error: json.JSONDecodeError, expected: str) -> UserError:
    return UserError(
        f"{where} is not JSON: {error.msg.removesuffix(' at')} at character {error.colno}", expected=expected
    )


def _rows_of(file: Path, content: bytes) -> list[dict[str, Any]] | None:
    """The rows of a file that is one JSON value; None where it has one a line."""
    start = content.lstrip()[:1]
    first = content.lstrip().split(b"\n", 1)[0].strip()
    if start == b"{" and _is_object(first) and (len(first) < len(content.strip()) or _content_is_row(first)):
        return None
    if start != b"[" and _content.table_format(file) != "json":
        return None
    if start == b"[" and _content.table_format(file) == "jsonl" and not _is_list(content):
        return None
    try:
        value = json.loads(content)
    except json.JSONDecodeError as error:
        raise _not_json(f"{file}:{error.lineno}", error, "a list of objects, or an object a line") from error
    rows = _rows_in(value)
    if rows is None:
        kinds = {"list": "an empty list", "dict": "object"}
        what = f"a list of {type(value[0]).__name__}" if isinstance(value, list) and value else type(value).__name__
        names = f" with the keys {', '.join(list(value)[:5])}" if isinstance(value, dict) else ""
        raise UserError(
            f"{file} is JSON, but not a table: {kinds.get(what, what)}{names}",
            expected='a list of objects such as [{"text": "...", "label": 1}, ...]',
        )
    return rows


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _is_list(content: bytes) -> bool:
    try:
        return isinstance(json.loads(content), list)
    except ValueError:
        return False


def _content_is_row(line: bytes) -> bool:
    """Whether the only object of a file is a row rather than a whole table."""
    return _rows_in(json.loads(line)) is None


def _rows_in(value: Any) -> list[dict[str, Any]] | None:
    """The rows in a list of objects, in an object with one such list, in a list for each column, or in pandas' default,
    an object for each column."""
    if isinstance(value, list):
        return value if value and all(isinstance(row, dict) for row in value) else None
    if not isinstance(value, dict) or not value:
        return None
    lists = [each for each in value.values() if isinstance(each, list) and each and isinstance(each[0], dict)]
    if len(lists) == 1:
        return _rows_in(lists[0])
    columns = list(value.values())
    if all(isinstance(each, list) for each in columns) and len(set(map(len, columns))) == 1 and columns[0]:
        return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
    if all(isinstance(each, dict) and each.keys() == columns[0].keys() for each in columns) and columns[0]:
        return [{name: value[name][row] for name in value} for row in columns[0]]
    return None
