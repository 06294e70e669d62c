"""The files of a table and what they say, column by column, whatever their format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import polars

from sonde.base.errors import UserError, near
from sonde.contracts.records import Records
from sonde.data.sources import _content, _csv, _excel, _folders, _json, _typed

# Lines of skipped rows that are told.
_SHOWN = 5

NONE: Mapping[str, str] = MappingProxyType({})

# Tables with their splits (None where names tell none).
Files = list[tuple[str | None, Path]]


@dataclass(frozen=True, kw_only=True)
class Read:
    """The fields of all files together, the places of the rows of each file, and what people should know."""

    fields: dict[str, np.ndarray]
    places: list[Sequence[int]]
    notes: tuple[str, ...] = ()


def files(path: Path, chosen: Sequence[str] = ()) -> Files:
    """The files of a table with their splits, all of one format; of a folder those that are `chosen`, if any are.

    Raises:
        UserError: there is no table, or there are several that are not one data set.
    """
    if not path.exists():
        raise UserError(f"the table {path} does not exist")
    if path.is_file():
        found: Files = [(None, path)]
    elif chosen:
        found = _chosen(path, chosen)
    else:
        found = _folders.tables_in(path)
    if not found:
        several = [file.name for file in _folders.tables(path)]
        raise UserError(
            f"the folder {path} has {len(several)} tables" + (f": {', '.join(several[:5])}" if several else ""),
            expected="one table, or one each for train, validation and test",
            hint=f"name one of them: {path / several[0]}" if several else None,
        )
    formats = {_content.table_format(file) for _, file in found}
    if None in formats or len(formats) > 1:
        suffixes = sorted({file.suffix.lower() for _, file in found})
        raise UserError(
            f"{path} is not a table of a known format: {', '.join(suffixes)}",
            expected="files of one kind: .csv, .tsv, .json, .jsonl, .parquet or .xlsx (also .gz, .bz2, .xz, .zip)",
        )
    return found


def _chosen(root: Path, names: Sequence[str]) -> Files:
    for name in names:
        if not (root / name).is_file():
            raise UserError(f"data.files names {name!r}, and there is no such file in {root}")
    named = [(_folders.split_in(_content.table_stem(Path(name))), root / name) for name in names]
    if len(named) == 1:
        return [(None, named[0][1])]
    known = [(split, path) for split, path in named if split is not None]
    if len(known) < len(named):
        raise UserError(
            f"data.files names {len(names)} tables: {', '.join(names)}",
            expected="one, or one each for train, validation and test, named so",
        )
    return [*_folders.in_order(known)]


def from_csv(
    files: Files,
    dialect: _csv.Dialect,
    missing: Sequence[str] = (),
    texts: Sequence[str] = (),
    dates: _typed.Dates = NONE,
) -> Read:
    found = [_csv.read_rows(file, dialect) for _, file in files]
    whole = _joined(files, [rows.frame for rows in found])
    if missing:
        whole = whole.with_columns(polars.when(~polars.all().is_in(missing)).then(polars.all()))
    fields = {
        column.name: _typed.from_texts(column, as_text=column.name in texts, date=dates.get(column.name))
        for column in whole
    }
    places = [_left(rows.frame.height, rows.skipped) for rows in found]
    notes = [skipped(file, rows) for (_, file), rows in zip(files, found, strict=True) if rows.skipped]
    return Read(fields=fields, places=places, notes=tuple(notes))


def _left(height: int, skipped: Sequence[int]) -> Sequence[int]:
    """The places of the rows that were not skipped."""
    if not skipped:
        return range(height)
    gone = set(skipped)
    return [place for place in range(height + len(skipped)) if place not in gone]


def skipped(file: Path, rows: _csv.Rows) -> str:
    lines = ", ".join(map(str, rows.skipped_lines[:_SHOWN])) + (", ..." if len(rows.skipped_lines) > _SHOWN else "")
    count = len(rows.skipped_lines)
    what = f"{count:,} rows, which have" if count > 1 else "one row, which has"
    return f"skipped {what} too many or too few values: {file.name} line{'s' if count > 1 else ''} {lines}"


def read_plain(file: Path) -> Read:
    """One file at the defaults of its format."""
    files: Files = [(None, file)]
    format = _content.table_format(file)
    if format in ("csv", "tsv"):
        return from_csv(files, _csv.Dialect())
    return from_json(files) if format in ("json", "jsonl") else from_frames(files)


def from_json(
    files: Files,
    encoding: str | None = None,
    missing: Sequence[str] = (),
    texts: Sequence[str] = (),
    dates: _typed.Dates = NONE,
) -> Read:
    fields, counts = _json.read([file for _, file in files], encoding, texts, dates)
    return Read(fields=_without(fields, missing), places=[range(count) for count in counts])


def from_frames(
    files: Files,
    sheet: str | None = None,
    missing: Sequence[str] = (),
    texts: Sequence[str] = (),
    dates: _typed.Dates = NONE,
) -> Read:
    """Parquet, and sheets of workbooks, whose texts may be anything as those of CSV files may."""
    excel = _content.table_format(files[0][1]) == "excel"
    notes: list[str] = []
    frames = []
    for _, file in files:
        if not excel:
            frames.append(_parquet(file))
            continue
        frame, others = _excel.read(file, sheet)
        frames.append(frame)
        if others and sheet is None:
            notes.append(f"{file.name}: the first sheet was read, not {', '.join(others[:_SHOWN])}")
    fields = {}
    for column in _joined(files, frames):
        date = dates.get(column.name)
        if excel and column.dtype == polars.String:
            fields[column.name] = _typed.from_texts(column, as_text=column.name in texts, date=date)
        else:
            fields[column.name] = _typed.from_frame(column, as_text=column.name in texts, date=date)
    return Read(fields=_without(fields, missing), places=[range(frame.height) for frame in frames], notes=tuple(notes))


def _without(fields: dict[str, np.ndarray], missing: Sequence[str]) -> dict[str, np.ndarray]:
    """The fields with None where a text stands for no value."""
    if not missing:
        return fields
    gone = set(missing)
    return {
        name: _folders.objects([None if isinstance(value, str) and value in gone else value for value in values])
        if values.dtype == object
        else values
        for name, values in fields.items()
    }


def records(files: Files, read: Read) -> Records:
    """The rows as records, named by their place in their file."""
    several = len(files) > 1
    ids = [
        f"{file.name} row {place + 1}" if several else f"row {place + 1}"
        for (_, file), places in zip(files, read.places, strict=True)
        for place in places
    ]
    fields = read.fields
    # Rows say it more exactly than the names of files, where both do.
    if several and "split" not in fields:
        splits = [split for (split, _), places in zip(files, read.places, strict=True) for _ in places]
        fields = {**fields, "split": _folders.objects(splits)}
    return Records(fields=fields, ids=ids, notes=read.notes)


def _joined(files: Files, frames: list[polars.DataFrame]) -> polars.DataFrame:
    """The rows of all files, in the column order of the first.

    Raises:
        UserError: a file has other columns, or columns of another type.
    """
    for (_, file), frame in zip(files, frames, strict=True):
        _same_columns(files[0][1], frames[0].columns, file, frame.columns)
    try:
        return polars.concat([frame.select(frames[0].columns) for frame in frames], how="vertical_relaxed")
    except polars.exceptions.PolarsError as error:
        raise UserError(f"the columns of {files[0][1].parent} have different types: {error}") from error


def _same_columns(first: Path, expected: list[str], file: Path, names: list[str]) -> None:
    lacking = [name for name in expected if name not in names]
    further = [name for name in names if name not in expected]
    if not lacking and not further:
        return
    which = f"has no column {lacking[0]!r}, which" if lacking else f"has a column {further[0]!r}, which no"
    close = near((lacking or further)[0], names if lacking else expected)
    raise UserError(
        f"{file} {which} {first.name} has" if lacking else f"{file} {which} {first.name} knows",
        expected="the same columns in all files of a folder",
        hint=f"did you mean {close!r}?" if close else f"data.source = {str(first)!r} takes that file alone",
    )


def _parquet(file: Path) -> polars.DataFrame:
    try:
        frame = polars.read_parquet(_content.read_bytes(file) if file.suffix.lower() in _content.PACKED else file)
    except (polars.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{file} is not a readable Parquet file: {error}") from error
    if not frame.height:
        raise UserError(f"{file} has no rows")
    return frame
