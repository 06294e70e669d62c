"""Which column of a table is time, which names the series, which are channels: what `sonde new` makes of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import polars

from sonde.base import frequency
from sonde.base.errors import SondeError, UserError, unknown
from sonde.contracts.records import Records, is_missing
from sonde.data.sources import _content, _dates, _series_items, _typed
from sonde.data.sources._series_items import Roles

# Rows that a table is recognised by, and the fewest that make a series.
_PEEK, _FEWEST = 400, 30
# Bytes of a file that these rows are looked for in.
_PEEK_BYTES = 200_000


def has_times(path: Path) -> bool:
    """Whether a table is one of series: its first columns are time stamps at regular distances (for each item), and
    what else it has are numbers, or values that stay the same for an item. Reads its first rows."""
    try:
        records = _peek(path)
        if records is None or len(records) < _FEWEST:
            return False
        roles = roles_of(records, None, None)
    except (SondeError, ValueError):
        return False
    others = set(records.fields) - {roles.time, roles.item, *roles.values}
    names = list(records.fields)
    first = {roles.time} if roles.item is None else {roles.time, roles.item}
    if set(names[: len(first)]) != first or not roles.values or not _stay_the_same(records, roles, others):
        return False
    return _is_regular(records, roles)


def guess_table(records: Records, target: str | None) -> tuple[dict[str, object], dict[str, str]]:
    """The options of `[data]` for a table, and why.

    Raises:
        UserError: no column holds time stamps, or `target` is no column of numbers.
    """
    roles = roles_of(records, None, None)
    values, past = roles.values, ()
    notes = {
        "data.values": "what is forecast; data.past takes what is known up to then, data.known what is known ahead"
    }
    if target is not None:
        if target not in records.fields:
            raise unknown(target, records.fields, what="--target: the column")
        if target not in values:
            raise UserError(f"--target {target}: the column holds no numbers to forecast", expected=", ".join(values))
        past = tuple(name for name in values if name != target)
        values = (target,)
        notes["data.past"] = "seen by the forecast, and not forecast; a column that is known ahead goes into data.known"
    found: dict[str, object] = {"time": roles.time}
    if roles.item is not None:
        found["item"] = roles.item
    found["values"] = list(values)
    if past:
        found["past"] = list(past)
    static = _static(records, roles)
    if static:
        found["static"] = static
    return found, notes


def labelled_columns(records: Records, target: str | None) -> dict[str, Any] | None:
    """The columns of a long table whose series each have one value in the column `target`; None if they have not."""
    if target is None or target not in records.fields:
        return None
    roles = roles_of(records, None, None)
    if roles.item is None or target in (roles.item, roles.time) or target not in _static(records, roles):
        return None
    return {"item": roles.item, "time": roles.time, "values": list(roles.values), "label": target}


def roles_of(records: Records, time: str | None, item: str | None) -> Roles:
    """What the columns are for: time stamps, an item where times come again, and numbers.

    Raises:
        UserError: no column holds time stamps, or no column tells apart rows of one time.
    """
    time = time or _time_column(records)
    stamps = records.fields[time]
    if item is None and len(np.unique(stamps)) < len(stamps):
        item = _item_column(records, time)
    values = tuple(
        name
        for name, column in records.fields.items()
        if name not in (time, item, "split") and column.dtype.kind in "if" and not _is_static(column, item, records)
    )
    return Roles(time=time, item=item, values=values)


def _time_column(records: Records) -> str:
    for name, values in records.fields.items():
        if values.dtype.kind == "M":
            return name
    for name, values in records.fields.items():
        years = values.dtype.kind == "i" and name.lower() in ("year", "time", "date", "t", "step", "ds", "timestamp")
        if years:
            return name
    raise UserError(
        f"no column holds time stamps: {', '.join(records.fields)}",
        expected="dates of one kind in one column",
        hint="data.time names the column, data.dates says how it writes them",
    )


def _item_column(records: Records, time: str) -> str:
    """The first column that tells apart all rows of one time."""
    stamps = records.fields[time]
    for name, values in records.fields.items():
        if name == time or values.dtype.kind == "f" or is_missing(values).any():
            continue
        pairs = np.stack([stamps.astype("datetime64[s]").astype(str), values.astype(str)], axis=1)
        items = len(np.unique(values.astype(str)))
        if len(np.unique(pairs, axis=0)) == len(stamps) and items <= len(stamps) / 2:
            return name
    raise UserError(
        f"the column {time!r} has the same time in several rows, and no column tells them apart",
        expected="one row for each time, or for each item and time",
        hint="data.item names the column of the series",
    )


def _is_static(column: np.ndarray, item: str | None, records: Records) -> bool:
    if item is None:
        return False
    names, place = np.unique(records.fields[item].astype(str), return_inverse=True)
    first = np.full(len(names), -1)
    first[place[::-1]] = np.arange(len(place))[::-1]
    same = column == column[first[place]]
    return bool(np.all(same | is_missing(column))) and len(names) > 1


def _static(records: Records, roles: Roles) -> list[str]:
    others = [name for name in records.fields if name not in (roles.time, roles.item, "split", *roles.values)]
    return [name for name in others if _is_static(records.fields[name], roles.item, records)]


def _stay_the_same(records: Records, roles: Roles, others: set[str]) -> bool:
    return all(_is_static(records.fields[name], roles.item, records) for name in others)


def _is_regular(records: Records, roles: Roles) -> bool:
    stamps = records.fields[roles.time]
    if stamps.dtype.kind == "M":
        stamps = stamps.astype("datetime64[s]")
    elif not _series_items.counts_steps(stamps):
        stamps = (stamps - 1970).astype("datetime64[Y]").astype("datetime64[s]")
    else:
        stamps = stamps.astype("datetime64[s]")
    names = np.zeros(len(stamps)) if roles.item is None else records.fields[roles.item].astype(str)
    longest: np.ndarray = max((stamps[names == name] for name in np.unique(names)[:20]), key=len)
    rising = len(longest) >= _FEWEST / 3 and bool((np.diff(longest) > np.timedelta64(0, "s")).all())
    return rising and frequency.find(longest) is not None


def _peek(path: Path) -> Records | None:
    """The first rows of a table, typed; None where none of its first values looks like a time."""
    if _content.table_format(path) == "parquet":
        return _series_items.table_of(path, {})
    if path.suffix.lower() in _content.PACKED:
        return None
    with path.open("rb") as file:
        lines = file.read(_PEEK_BYTES).splitlines()[:-1][:_PEEK]
    if len(lines) < _FEWEST:
        return None
    separator = max((b",", b";", b"\t"), key=lines[0].count)
    first = [cell.strip(b"\"' ").decode("latin-1") for cell in lines[1].split(separator)[:2]]
    if not any(_dates.looks_like(cell) or re.fullmatch(r"\d{1,9}", cell) for cell in first):
        return None
    try:
        frame = polars.read_csv(b"\n".join(lines), separator=separator.decode(), infer_schema=False)
    except polars.exceptions.PolarsError:
        return None
    fields = {column.name: _typed.from_texts(column) for column in frame}
    return Records(fields=fields, ids=[f"row {place + 1}" for place in range(frame.height)])
