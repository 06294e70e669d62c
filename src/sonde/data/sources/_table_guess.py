"""What `sonde new` makes of a table: how to read it, which of its columns name files, and what its columns are for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars

from sonde.base.errors import UserError
from sonde.contracts.records import Records, is_missing
from sonde.data.source import Guess
from sonde.data.sources import _content, _csv, _dates, _folders, _named_files, _roles, _tables, _typed
from sonde.data.sources._folders import Medium
from sonde.data.sources._named_files import Files, Found

Options = dict[str, Any]
Read = Callable[[Options], Records]

_ENCODINGS = {"cp1252": "Western European (Windows-1252, Latin-1)", "utf-16": "UTF-16", "utf-32": "UTF-32"}
# Columns that may name files though their values come again, or are whole numbers.
_NAMES_FILES = re.compile(
    r"(?i)(.*[_\W])?(file|files|filename|path|image|img|photo|picture|audio|sound|clip|wav|document|doc|id)s?"
    r"([_\W]?(id|name|names|path|file|no|number))?|.*[a-z](Id|ID)"
)
# Texts that stand for no class in a column of classes; at most so large a share of the rows has them.
_NO_CLASS = frozenset({"na", "n/a", "#n/a", "nan", "null", "?"})
_MOST_WITHOUT = 0.5
# So many columns and tables are named in a line.
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """The settings that a table needs over the defaults, and what they are for: lines and comments for people."""

    options: Options
    said: list[str]
    notes: dict[str, str]


def guess(path: Path, target: str | None, read: Read) -> Guess:
    """The task that a table suggests.

    Raises:
        UserError: it is broken, has no such column, or nothing can be learned from it.
    """
    reading = _how_to_read(path)
    options, notes = reading.options, reading.notes
    records = read(options)
    dates, unclear, said = _dates_of(records, options, read)
    options |= {"dates": dates} if dates else {}
    root = path if path.is_dir() else path.parent
    table = _tables.files(path, options.get("files", []))[0][1]
    found, looked = _files_of(records, root, table)
    folders = {column: each.folder for column, each in found.items() if each.folder}
    if folders:
        options["folders"] = folders
        said += [_said_of_files(column, each) for column, each in found.items() if each.folder]
    warnings = [_not_there(column, each) for column, each in found.items() if each.found < each.looked_for]
    files: dict[str, Medium] = {column: each.medium for column, each in found.items()}
    roles = _roles.guess(records, target, files=files, unclear=unclear, looked=looked)
    no_class = _no_class(records, roles.target)
    if no_class:
        options["missing"] = no_class
        said.append(f"{', '.join(map(repr, no_class))} in {roles.target['field']!r} as no value")
        records = read({key: value for key, value in options.items() if key != "folders"})
        roles = _roles.guess(records, target, files=files, unclear=unclear, looked=looked)
    names = list(records.fields)
    columns = f"{len(records):,} rows with {len(names)} columns"
    return Guess(
        about=f"{columns}: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}",
        count=len(records),
        data={"source": str(path), "kind": "table", "split": roles.split, **options, **roles.data},
        inputs=roles.inputs,
        target=roles.target,
        notes=roles.notes | notes,
        read_as=(*reading.said, *said, *roles.read_as),
        warnings=(*warnings, *roles.warnings),
    )


def _how_to_read(path: Path) -> _Reading:
    """Which files belong to the data, and how they are written."""
    options: Options = {}
    said: list[str] = []
    notes: dict[str, str] = {}
    files = _tables.files(path)
    kept, left = _without_other_tables(path, files)
    if left:
        options["files"] = [file.name for _, file in kept]
        notes["data.files"] = f"left out: {', '.join(left)}"
        files = kept
    format = _content.table_format(files[0][1])
    if format in _content.TEXTS:
        encodings = {_content.read_text(file)[1] for _, file in files} - {"utf-8"}
        if len(encodings) == 1:
            options["encoding"] = encodings.pop()
            said.append(f"the text as {_ENCODINGS.get(options['encoding'], options['encoding'])}")
    if format in ("csv", "tsv"):
        options |= _dialect(files, notes)
    return _Reading(options=options, said=said, notes=notes)


def _without_other_tables(path: Path, files: _tables.Files) -> tuple[_tables.Files, list[str]]:
    """The tables that have the columns of the first; which others lie in the folder, and why they do not count."""
    if not path.is_dir():
        return files, []
    first = _columns_of(files[0][1])
    kept: _tables.Files = []
    left = []
    for split, file in files:
        lacking = [name for name in first if name not in _columns_of(file)]
        # What only lacks columns is a table to predict for. One with others is an error that `fit` names.
        if split == "test" and lacking and set(_columns_of(file)) < set(first):
            left.append(f"{file.name} (has no column {lacking[0]!r}: nothing to score by)")
        else:
            kept.append((split, file))
    known = {file.name for _, file in files}
    aside = [one.name for one in _folders.entries(path) if one.is_file() and _content.table_format(one)]
    left += [f"{name} (no part of the data)" for name in aside if name not in known]
    return ([(None, kept[0][1])] if len(kept) == 1 else kept), left


def _columns_of(file: Path) -> list[str]:
    format = _content.table_format(file)
    if format in ("csv", "tsv"):
        return [name or "" for name in _csv.first_line(file)]
    if format == "parquet" and file.suffix.lower() not in _content.PACKED:
        return list(polars.read_parquet_schema(file))
    return list(_tables.read_plain(file).fields)


def _dialect(files: _tables.Files, notes: dict[str, str]) -> Options:
    """The settings that CSV files need over the defaults."""
    dialect = _csv.sniff(files[0][1])
    options: Options = {}
    ragged = [file for _, file in files if _csv.sniff(file).ragged == "skip"]
    if not dialect.quoting:
        options["quoting"] = False
        notes["data.quoting"] = "some stand within values, so all are taken as they stand"
    if dialect.decimal != ".":
        options["decimal"] = dialect.decimal
    if ragged:
        options["ragged"] = "skip"
        rows = [(file, _csv.read_rows(file, _csv.Dialect(ragged="skip", header=dialect.header))) for file in ragged]
        notes["data.ragged"] = "left out: " + "; ".join(_tables.skipped(file, each) for file, each in rows)
    if not dialect.header:
        frame = _csv.read(files[0][1], dialect)
        options |= {"header": False, "columns": _roles.names_for([_typed.from_texts(column) for column in frame])}
    return options


def _dates_of(records: Records, options: Options, read: Read) -> tuple[dict[str, str], set[str], list[str]]:
    """The formats of columns whose order of day and month had to be found out, the columns where it could not be, and
    what to say of them."""
    texts = [name for name, values in records.fields.items() if values.dtype.kind == "M" or _may_be_dates(values)]
    if not texts:
        return {}, set(), []
    written = read({**options, "texts": texts})
    formats: dict[str, str] = {}
    unclear: set[str] = set()
    said = []
    for name in texts:
        values = written.fields[name]
        if values.dtype != object or not all(value is None or isinstance(value, str) for value in values):
            continue
        found = _dates.read(polars.Series(name, values.tolist(), dtype=polars.String))
        if found is not None and found.moments is None:
            unclear.add(name)
        elif found is not None and found.format is not None:
            formats[name] = found.format
            first = next(value for value in values if value is not None)
            order = "the day" if found.format.startswith("%d") else "the month"
            said.append(f"{name}: {first!r} with {order} first (told by {found.shown})")
    return formats, unclear, said


def _may_be_dates(values: np.ndarray) -> bool:
    some = [value for value in values[:_SHOWN] if value is not None] if values.dtype == object else []
    return bool(some) and all(isinstance(value, str) and _dates.looks_like(value) for value in some)


def _files_of(records: Records, root: Path, table: Path) -> tuple[dict[str, Found], str | None]:
    """The columns that name files, with the folders of these ("" where paths lead there); and what was looked for and
    not found.

    Raises:
        UserError: a column names files, and none of them is there.
    """
    found: dict[str, Found] = {}
    files = Files(root)
    looked = None
    for name, values in records.fields.items():
        if not _names_files(name, values):
            continue
        paths = _as_they_stand(values, root)
        each = paths or _named_files.find(values, table, files)
        if each is not None and each.folder not in {one.folder for one in found.values() if one.folder}:
            found[name] = each
        elif each is None and _endings(values):
            raise UserError(
                f"none of the files is there that column {name!r} of {table} names",
                expected="files in the table's folder or in folders within it",
                hint=f"looked for {_named_files.tried(values, files)}; data.folders names another folder",
            )
        elif each is None and files.by_name:
            looked = looked or f"no files are named by {name!r}: looked for {_named_files.tried(values, files)}"
    return found, looked


def _names_files(name: str, values: np.ndarray) -> bool:
    if values.dtype.kind == "i":
        return bool(_NAMES_FILES.fullmatch(name)) and len(np.unique(values)) == len(values)
    if values.dtype != object:
        return False
    present = values[~is_missing(values)].tolist()
    if not present or not all(isinstance(value, str) for value in present):
        return False
    distinct = len(set(present))
    return distinct > 1 and (_endings(values) or bool(_NAMES_FILES.fullmatch(name)) or 2 * distinct > len(present))


def _endings(values: np.ndarray) -> bool:
    """Whether all values are names with the ending of a picture, sound or text."""
    return all(isinstance(value, str) and _named_files.medium_of(value) for value in values[~is_missing(values)])


def _as_they_stand(values: np.ndarray, root: Path) -> Found | None:
    """Paths relative to the table, if most lead to files."""
    names = list(dict.fromkeys(name for name in _named_files.names_of(values) if name))
    if not _endings(values) or not names:
        return None
    there = sum((root / name).is_file() for name in names)
    medium = _named_files.commonest([_named_files.medium_of(name) for name in names])
    if 2 * there < len(names) or medium is None:
        return None
    return Found(folder="", medium=medium, found=there, looked_for=len(names))


def _said_of_files(column: str, found: Found) -> str:
    whole = f"all {found.found:,}" if found.found == found.looked_for else f"{found.found:,} of {found.looked_for:,}"
    where = "beside the table" if found.folder == "." else f"in {found.folder}/"
    return f"{column}: names of {found.medium} files {where} ({whole} are there)"


def _not_there(column: str, found: Found) -> str:
    lacking = found.looked_for - found.found
    return f"{lacking:,} of the {found.looked_for:,} files that {column!r} names are not there, and will be skipped"


def _no_class(records: Records, target: Mapping[str, Any]) -> list[str]:
    """Texts such as NA that stand for no class in the column to learn."""
    values = records.fields[target["field"]] if target["kind"] == "category" else np.empty(0)
    if values.dtype != object:
        return []
    texts = [value for value in values if isinstance(value, str)]
    found = sorted({text for text in texts if text.strip().lower() in _NO_CLASS})
    share = sum(text in found for text in texts) / max(1, len(texts))
    enough = len(set(texts) - set(found)) > 1
    return found if enough and share <= _MOST_WITHOUT else []
