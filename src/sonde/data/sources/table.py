"""A table with a record a row: CSV, TSV, JSON, JSONL, Parquet or a workbook (xlsx), packed or not.

It is one file, or one each for train, validation and test.

A table may name files, pictures, sounds or texts: by paths relative to its folder, or by bare names in `folders`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from sonde.base.config import Config
from sonde.base.errors import UserError
from sonde.contracts.records import Records
from sonde.data.source import Guess, Source
from sonde.data.sources import _content, _csv, _folders, _named_files, _table_guess, _tables, _tagged


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
    encoding: str | None = Field(
        default=None, description="of CSV and JSON files; if left out, UTF-8, UTF-16 or, where certain, cp1252"
    )
    ragged: Literal["error", "skip"] = Field(
        default="error", description="rows of a CSV file with too many or too few values: skip leaves them out"
    )
    missing: list[str] = Field(
        default=[], description="texts that stand for no value; numbers know NA, ? and the like anyway"
    )
    dates: dict[str, str] = Field(
        default={}, description='how columns write dates, where that is not clear: { day = "%d/%m/%Y" }'
    )
    folders: dict[str, str] = Field(
        default={},
        description="the folder, beside the table, of the files that a column names; at any depth, endings may lack",
    )
    sheet: str | None = Field(default=None, description="the sheet of a workbook; the first if left out")
    files: list[str] = Field(default=[], description="the tables of a folder that belong to the data; all if left out")
    texts: list[str] = Field(default=[], description="columns that stay as they are written: codes such as 00123")
    columns: list[str] = Field(default=[], description="the names of the columns, for a CSV file without a header")

    @property
    def dialect(self) -> _csv.Dialect:
        return _csv.Dialect(
            separator=self.separator,
            header=self.header,
            quoting=self.quoting,
            decimal=self.decimal,
            columns=tuple(self.columns),
            encoding=self.encoding,
            ragged=self.ragged,
        )


class Table(Source):
    """Every column is a field: int64 or float64, texts, true and false as objects, dates as datetime64[us].

    Records are "row 1", "row 2", ..., of several files "train.csv row 1".
    """

    Config: ClassVar = TableConfig

    @staticmethod
    def recognise(path: Path) -> bool:
        if path.is_file():
            return _content.table_format(path) is not None and not _tagged.is_tagged(path)
        return path.is_dir() and bool(_folders.tables_in(path)) and not _tagged.files_in(path)

    @staticmethod
    def guess(path: Path, target: str | None) -> Guess:
        return _table_guess.guess(path, target, lambda options: Table.read(path, TableConfig(**options)))

    @staticmethod
    def read(path: Path, config: TableConfig) -> Records:
        files = _tables.files(path, config.files)
        format = _content.table_format(files[0][1])
        if format in ("csv", "tsv"):
            read = _tables.from_csv(files, config.dialect, config.missing, config.texts, config.dates)
        elif format in ("json", "jsonl"):
            read = _tables.from_json(files, config.encoding, config.missing, config.texts, config.dates)
        else:
            read = _tables.from_frames(files, config.sheet, config.missing, config.texts, config.dates)
        root = path if path.is_dir() else path.parent
        return _with_files(_tables.records(files, read), root, config.folders)

    @staticmethod
    def sample(folder: Path) -> Path:
        path = folder / "plants.csv"
        rows = [f"{index % 3},{index / 4},{'moss' if index % 2 else 'fern, tall'!r}" for index in range(12)]
        path.write_text("\n".join(["light,height,label", *rows]).replace("'", '"') + "\n", encoding="utf-8")
        return path


def read_rows(path: Path, config: TableConfig) -> Records:
    """As `Table.read`, for rows to answer for: the files that columns name may lie in another folder than those of the
    training data, test_images and not train_images.

    Raises:
        UserError: there is no folder with the files that a column names.
    """
    records = Table.read(path, config.model_copy(update={"folders": {}}))
    known = [column for column in config.folders if column in records.fields]
    files = _named_files.Files(path.parent)
    folders = {}
    for column in known:
        found = _named_files.find(records.fields[column], path, files)
        if found is None:
            raise UserError(
                f"the files are not there that column {column!r} of {path} names",
                expected=f"a folder of them beside the table, as {config.folders[column]} beside the training data",
                hint=f"looked for {_named_files.tried(records.fields[column], files)}",
            )
        folders[column] = found.folder
    return _with_files(records, path.parent, folders)


def _with_files(records: Records, root: Path, folders: Mapping[str, str]) -> Records:
    """The records with the paths of the files that columns name."""
    for column in folders:
        if column not in records.fields:
            raise UserError(
                f"data.folders names the column {column!r}, which is not there",
                expected="one of: " + ", ".join(records.fields),
            )
    paths = {
        column: _named_files.resolve(records.fields[column], root / folder, column)
        for column, folder in folders.items()
    }
    return records.with_fields(**paths)


def like(path: Path, config: TableConfig, *, needed: Collection[str], answers: Collection[str]) -> TableConfig:
    """How to read a file whose rows are like those of a table that `config` reads.

    CSV rows of a table without a header may have one all the same, if it names the columns `needed`; and may come
    without the columns of the `answers`.
    """
    config = config.model_copy(update={"files": [], "ragged": "error"})
    if config.header or _content.table_format(path) not in ("csv", "tsv"):
        return config
    if set(needed) <= set(_csv.first_line(path)):
        dialect = _csv.sniff(path)
        return config.model_copy(
            update={"header": True, "columns": [], "quoting": dialect.quoting, "decimal": dialect.decimal}
        )
    width = len(_csv.first_row(path, config.dialect))
    for columns in ([name for name in config.columns if name not in answers], list(needed)):
        if width == len(columns) < len(config.columns):
            return config.model_copy(update={"columns": columns})
    return config
