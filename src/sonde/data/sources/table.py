"""A table with a record a row: CSV, TSV, Parquet or JSONL; one file, or one each for train, validation and test.

A manifest (a table with a column of paths to pictures or sounds) is a table too: such paths are relative to its folder.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import polars
from pydantic import Field

from sonde.base.config import Config
from sonde.base.errors import UserError, near
from sonde.contracts.records import Records
from sonde.data.source import Guess, Source
from sonde.data.sources import _csv, _folders, _roles, _tagged, _typed
from sonde.data.sources._folders import TABLES

_CSV = frozenset({".csv", ".tsv"})
# What polars reads from JSON exactly as it is meant; lists and objects are read as Python has them.
_PLAIN = (polars.Int64, polars.Float64, polars.Boolean, polars.String, polars.Null)

_NOTES = {"data.quoting": "some stand within values, so all are taken as they stand"}


class TableConfig(Config):
    kind: Literal["table"] = "table"
    header: bool = Field(default=True, description="whether the first row of a CSV file names the columns")
    quoting: bool = Field(default=True, description="whether double quotes in a CSV file enclose values")
    separator: str | None = Field(
        default=None,
        min_length=1,
        max_length=1,
        description="what stands between the values; seen from the first line if left out",
    )
    decimal: Literal[".", ","] = Field(default=".", description="the decimal point of the numbers in a CSV file")
    texts: list[str] = Field(
        default=[], description="columns of a CSV file that stay as they are written: codes such as 00123"
    )
    columns: list[str] = Field(default=[], description="the names of the columns, for a CSV file without a header")

    @property
    def dialect(self) -> _csv.Dialect:
        return _csv.Dialect(
            separator=self.separator,
            header=self.header,
            quoting=self.quoting,
            decimal=self.decimal,
            columns=tuple(self.columns),
        )


class Table(Source):
    """Every column is a field: int64 or float64, texts, true and false as objects, dates as datetime64[us].

    Records are "row 1", "row 2", ..., of several files "train.csv row 1".
    """

    Config: ClassVar = TableConfig

    @staticmethod
    def recognise(path: Path) -> bool:
        if path.is_file():
            return path.suffix.lower() in TABLES and not _tagged.is_tagged(path)
        return path.is_dir() and bool(_folders.tables_in(path)) and not _tagged.files_in(path)

    @staticmethod
    def guess(path: Path, target: str | None) -> Guess:
        options = _options(path)
        records = Table.read(path, TableConfig(**options))
        roles = _roles.guess(records, target)
        columns = f"{len(records):,} rows with {len(records.fields)} columns"
        return Guess(
            about=f"{columns}: {', '.join(list(records.fields)[:8])}{', ...' if len(records.fields) > 8 else ''}",
            count=len(records),
            data={"source": str(path), "kind": "table", "split": roles.split, **options},
            inputs=roles.inputs,
            target=roles.target,
            notes=roles.notes | _NOTES if "quoting" in options else roles.notes,
            read_as=tuple(roles.read_as),
            warnings=tuple(roles.warnings),
        )

    @staticmethod
    def read(path: Path, config: TableConfig) -> Records:
        files = _files(path)
        if files[0][1].suffix.lower() in _CSV:
            frames = [_csv.read(file, config.dialect) for _, file in files]
            whole = _joined(files, frames)
            fields = {column.name: _typed.from_texts(column, as_text=column.name in config.texts) for column in whole}
        elif files[0][1].suffix.lower() == ".parquet":
            frames = [_parquet(file) for _, file in files]
            whole = _joined(files, frames)
            fields = {column.name: _typed.from_frame(column) for column in whole}
        else:
            fields, counts = _json_columns([file for _, file in files])
            return _records(files, fields, counts)
        return _records(files, fields, [frame.height for frame in frames])

    @staticmethod
    def sample(folder: Path) -> Path:
        path = folder / "plants.csv"
        rows = [f"{index % 3},{index / 4},{'moss' if index % 2 else 'fern, tall'!r}" for index in range(12)]
        path.write_text("\n".join(["light,height,label", *rows]).replace("'", '"') + "\n", encoding="utf-8")
        return path


def like(path: Path, config: TableConfig, *, needed: Collection[str], answers: Collection[str]) -> TableConfig:
    """How to read a file whose rows are like those of a table that `config` reads.

    CSV rows of a table without a header may have one all the same, if it names the columns `needed`; and may come
    without the columns of the `answers`.
    """
    if config.header or path.suffix.lower() not in _CSV:
        return config
    if set(needed) <= set(_csv.first_line(path)):
        dialect = _csv.sniff(path)
        return TableConfig(quoting=dialect.quoting, decimal=dialect.decimal)
    width = len(_csv.first_row(path, config.dialect))
    for columns in ([name for name in config.columns if name not in answers], list(needed)):
        if width == len(columns) < len(config.columns):
            return config.model_copy(update={"columns": columns})
    return config


def _files(path: Path) -> list[tuple[str | None, Path]]:
    """The files of a table with their splits, all of one format."""
    if not path.exists():
        raise UserError(f"the table {path} does not exist")
    if path.is_file():
        files: list[tuple[str | None, Path]] = [(None, path)]
    else:
        files = _folders.tables_in(path)
    if not files:
        several = [file.name for file in _folders.entries(path) if file.suffix.lower() in TABLES]
        raise UserError(
            f"the folder {path} has {len(several)} tables" + (f": {', '.join(several[:5])}" if several else ""),
            expected="one table, or one each for train, validation and test",
            hint=f"name one of them: {path / several[0]}" if several else None,
        )
    suffixes = {file.suffix.lower() for _, file in files}
    wrong = suffixes - TABLES
    if wrong or len(suffixes) > 1:
        raise UserError(
            f"{path} is not a table of a known format: {', '.join(sorted(wrong or suffixes))}",
            expected="files of one kind: " + ", ".join(sorted(TABLES)),
        )
    return files


def _options(path: Path) -> dict[str, Any]:
    """The settings that a CSV file needs over the defaults."""
    first = _files(path)[0][1]
    if first.suffix.lower() not in _CSV:
        return {}
    dialect = _csv.sniff(first)
    options: dict[str, Any] = {}
    if not dialect.quoting:
        options["quoting"] = False
    if dialect.decimal != ".":
        options["decimal"] = dialect.decimal
    if not dialect.header:
        frame = _csv.read(first, dialect)
        options |= {"header": False, "columns": _roles.names_for([_typed.from_texts(column) for column in frame])}
    return options


def _joined(files: list[tuple[str | None, Path]], frames: list[polars.DataFrame]) -> polars.DataFrame:
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
        frame = polars.read_parquet(file)
    except (polars.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{file} is not a readable Parquet file: {error}") from error
    if not frame.height:
        raise UserError(f"{file} has no rows")
    return frame


def _json_columns(files: list[Path]) -> tuple[dict[str, np.ndarray], list[int]]:
    """The fields of JSONL files, and the number of rows of each; a field that a line lacks is missing there."""
    contents = [_csv.read_bytes(file) for file in files]
    try:
        frames = [polars.read_ndjson(content, infer_schema_length=None) for content in contents]
        whole = polars.concat(frames, how="diagonal_relaxed")
        if all(kind in _PLAIN for kind in whole.dtypes):
            return {column.name: _typed.from_frame(column) for column in whole}, [frame.height for frame in frames]
    except polars.exceptions.PolarsError:
        pass  # line by line then, which knows where the fault is
    rows: list[dict[str, Any]] = []
    counts = []
    for file, content in zip(files, contents, strict=True):
        lines = [(number, line) for number, line in enumerate(content.decode().split("\n"), start=1) if line.strip()]
        rows += [_json_row(file, number, line) for number, line in lines]
        counts.append(len(lines))
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: _typed.from_values([row.get(name) for row in rows]) for name in names}, counts


def _json_row(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{file}:{number} is not JSON: {error.msg.removesuffix(' at')} at character {error.pos + 1}",
            expected="one JSON object a line",
        ) from error
    if not isinstance(row, dict):
        raise UserError(
            f"{file}:{number} is JSON, but not an object: {line.strip()[:40]}",
            expected='a line such as {"text": "...", "label": 1}',
            hint=f"jq -c '.[]' {file.name} > lines.jsonl" if isinstance(row, list) else None,
        )
    return row


def _records(files: list[tuple[str | None, Path]], fields: dict[str, np.ndarray], counts: list[int]) -> Records:
    several = len(files) > 1
    ids = [
        f"{file.name} row {number}" if several else f"row {number}"
        for (_, file), count in zip(files, counts, strict=True)
        for number in range(1, count + 1)
    ]
    # Rows say it more exactly than the names of files, where both do.
    if several and "split" not in fields:
        splits = [split for (split, _), count in zip(files, counts, strict=True) for _ in range(count)]
        fields = {**fields, "split": _folders.objects(splits)}
    return Records(fields=fields, ids=ids)
