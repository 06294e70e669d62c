"""Series as files hold them, as one kind of thing: a name, time stamps, values, and what is known of the item.

Wide tables (a column for each channel), long tables (a row for each item and time), Monash's .tsf, M4's ragged CSV.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sonde.base import dates, frequency
from sonde.base.errors import UserError, unknown
from sonde.base.frequency import Frequency
from sonde.contracts.records import Records, is_missing
from sonde.data.sources import _content, _csv, _tables

# Gaps are filled up to so many times the rows that are there; past that the time stamps are no grid.
_FILLED = 2.0
_M4 = re.compile(r'"?(id|V1|item_id)"?,"?(V2|0|1)"?(,|$)')
_TSF_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})(?:[ T](\d{2})[-:](\d{2})[-:](\d{2}))?$")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One series: `values` float64 (T, channels), NaN where missing; `times` datetime64[s] (T,) or None."""

    name: str
    values: np.ndarray
    times: np.ndarray | None = None
    static: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Roles:
    """What the columns of a table are for. Channels are `values`, then `past`, then `known`."""

    time: str
    item: str | None
    values: tuple[str, ...]
    past: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    static: tuple[str, ...] = ()

    @property
    def channels(self) -> tuple[str, ...]:
        return (*self.values, *self.past, *self.known)


@dataclass(frozen=True, kw_only=True)
class Items:
    """All series of a data set, with their frequency, the names of their channels, and what people should know."""

    items: list[Item]
    channels: tuple[str, ...]
    frequency: Frequency
    notes: tuple[str, ...] = ()
    horizon: int | None = None


def table_of(path: Path, formats: Mapping[str, str]) -> Records:
    """A table's columns, typed.

    Raises:
        UserError: it cannot be read.
    """
    files = _tables.files(path)
    if _content.table_format(files[0][1]) in ("csv", "tsv"):
        read = _tables.from_csv(files, _csv.sniff(files[0][1]), dates=formats)
    else:
        read = _tables.read_plain(files[0][1])
    return _tables.records(files, read)


def is_ragged(path: Path) -> bool:
    """Whether a file begins as M4's do: an id, then numbered values."""
    if path.suffix.lower() != ".csv":
        return False
    with path.open("rb") as file:
        first = file.readline(4096).decode("utf-8", "replace").strip()
    return _M4.match(first) is not None


def from_table(records: Records, roles: Roles, given: Frequency | None) -> Items:
    """The series of a wide or long table, on a regular grid of time: what lacks in between is filled with NaN.

    Raises:
        UserError: a column is missing or holds no numbers, a time stamp is missing, or comes twice for an item.
    """
    for name in (roles.time, *([roles.item] if roles.item else []), *roles.channels, *roles.static):
        if name not in records.fields:
            raise unknown(name, records.fields, what="the column")
    times = _times(records, roles.time)
    values = np.stack([_numbers(records, name) for name in roles.channels], axis=1)
    names = _item_names(records, roles.item)
    order = np.lexsort([times, names])
    bounds = np.flatnonzero(names[order][1:] != names[order][:-1]) + 1
    groups = np.split(order, bounds)
    found = given or _frequency([times[rows] for rows in groups])
    items, filled, loose = [], 0, 0
    for rows in groups:
        name = str(names[rows[0]])
        _check_times(records, rows, times[rows], name)
        static = {each: records.fields[each][rows[0]] for each in roles.static}
        item = Item(name=name, values=values[rows], times=times[rows], static=static)
        regular = _on_grid(item, found)
        filled += 0 if regular is None else len(regular.values) - len(rows)
        loose += regular is None
        items.append(regular or item)
    if counts_steps(records.fields[roles.time]):
        items, found = [replace(item, times=None) for item in items], given or Frequency()
    notes = [f"{filled:,} time stamps lack, and were put in without values"] if filled else []
    if loose:
        notes.append(f"the time stamps of {loose} of {len(items)} series are on no regular grid: rows count as steps")
    return Items(items=items, channels=roles.channels, frequency=found, notes=tuple(notes))


def from_ragged(path: Path, given: Frequency | None) -> Items:
    """M4's layout: a row for each series, its id first, short ones cut off or filled with nothing at the end.

    In a folder, series of "Monthly-test.csv" go on where those of "Monthly-train.csv" end; `horizon` is their length.
    """
    files = ragged_files(path)
    parts = [_ragged_rows(file) for file in files]
    found = given or frequency.named(re.split(r"[-_. ]", files[0].stem)[0]) or Frequency()
    later = parts[1] if len(parts) > 1 else {}
    for name in later:
        if name not in parts[0]:
            raise UserError(f"{files[1]} has the series {name!r}, which {files[0].name} lacks")
    items = [
        Item(name=name, values=np.concatenate([row, *([later[name]] if name in later else [])])[:, None])
        for name, row in parts[0].items()
    ]
    horizon = max(map(len, later.values())) if later else None
    return Items(items=items, channels=("value",), frequency=found, horizon=horizon)


def ragged_files(path: Path) -> list[Path]:
    """The file itself; of a folder the one with "train" in its name, and the one with "test" if there is one."""
    if path.is_file():
        return [path] if is_ragged(path) else []
    found = [each for each in sorted(path.glob("*.csv")) if is_ragged(each)]
    train = [each for each in found if "train" in each.stem.lower()]
    test = [each for each in found if "test" in each.stem.lower()]
    if len(train) == 1 and len(test) <= 1 and len(found) == 1 + len(test):
        return [*train, *test]
    return found if len(found) == 1 else []


def _ragged_rows(file: Path) -> dict[str, np.ndarray]:
    text, _ = _content.read_text(file)
    rows: dict[str, np.ndarray] = {}
    for number, line in enumerate(text.decode("utf-8").splitlines()[1:], start=2):
        name, *cells = [cell.strip().strip('"') for cell in line.split(",")]
        while cells and cells[-1] in ("", "NA", "NaN"):
            cells.pop()
        if not name and not cells:
            continue
        if name in rows:
            raise UserError(f"{file} line {number} has the series {name!r} again", expected="one row for each")
        rows[name] = floats(cells, f"{file} line {number}")
    if not rows:
        raise UserError(f"{file} has a header and no series")
    return rows


def from_tsf(path: Path, given: Frequency | None) -> Items:
    """A file of the Monash archive (Godahewa et al. 2021): @ lines, then attributes and values parted by colons.

    Raises:
        UserError: a line is not of this format; names it.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    attributes: list[tuple[str, str]] = []
    found, horizon, items, inside = given, None, [], False
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if not inside:
            key = words[0].lower()
            if key == "@attribute" and len(words) == 3:
                attributes.append((words[1], words[2].lower()))
            elif key == "@frequency" and len(words) > 1:
                found = found or frequency.named(words[1])
            elif key == "@horizon" and len(words) > 1 and words[1].isdigit():
                horizon = int(words[1])
            inside = key == "@data"
            continue
        items.append(_tsf_item(line, attributes, found or Frequency(), f"{path} line {number}"))
    if not items:
        raise UserError(f"{path} has no series", expected="lines after @data")
    return Items(items=items, channels=("value",), frequency=found or Frequency(), horizon=horizon)


def _tsf_item(line: str, attributes: Sequence[tuple[str, str]], found: Frequency, where: str) -> Item:
    parts = line.strip().split(":")
    if len(parts) != len(attributes) + 1:
        raise UserError(
            f"{where} has {len(parts) - 1} attributes, and the file says {len(attributes)}",
            expected=":".join([*(name for name, _ in attributes), "values"]),
        )
    values = floats(parts[-1].split(","), where)
    name, start, static = "", None, {}
    for (key, kind), text in zip(attributes, parts, strict=False):
        if kind == "date":
            start = _tsf_date(text, where)
        elif key in ("series_name", "item_id", "id") or not name:
            name = text
        else:
            static[key] = float(text) if kind == "numeric" else text
    times = None
    if start is not None and (found.months or found.seconds):
        times = np.concatenate([[start], found.after(start, len(values) - 1)])
    return Item(name=name, values=values[:, None], times=times, static=static)


def _tsf_date(text: str, where: str) -> np.datetime64:
    match = _TSF_DATE.match(text.strip())
    if match is None:
        raise UserError(f"{where}: {text!r} is no start of a series", expected="1979-01-01 00-00-00")
    year, month, day, hour, minute, second = (each or "00" for each in match.groups())
    return np.datetime64(f"{year}-{month}-{day}T{hour}:{minute}:{second}", "s")


def floats(cells: Sequence[str], where: str) -> np.ndarray:
    try:
        return np.array([np.nan if cell.strip() in ("", "?", "NA", "NaN") else float(cell) for cell in cells])
    except ValueError as error:
        raise UserError(f"{where}: {error}", expected="numbers, or ? where one is missing") from error


def _times(records: Records, name: str) -> np.ndarray:
    values = records.fields[name]
    missing = is_missing(values)
    if missing.any():
        raise UserError(
            f"{records.ids[int(missing.argmax())]} has no time in column {name!r}",
            hint="fill it in, or remove the row",
        )
    if values.dtype.kind == "M":
        return values.astype("datetime64[s]")
    if counts_steps(values):
        # They lie on a grid as seconds do.
        return values.astype("datetime64[s]")
    if values.dtype.kind == "i":
        return (values - 1970).astype("datetime64[Y]").astype("datetime64[s]")
    shown = str(values[0])
    try:
        dates.parse(shown)
        why = "not all of its values are dates of one kind"
    except ValueError as error:
        why = str(error)
    raise UserError(
        f"the column {name!r} has {shown!r} at {records.ids[0]}, which is no time: {why}",
        expected="dates such as 2024-05-31 or 2024-05-31 14:00, or whole numbers",
        hint='data.dates = { day = "%d/%m/%Y" } says how a column writes them',
    )


def counts_steps(values: np.ndarray) -> bool:
    """Whether whole numbers count steps; else they are years."""
    return values.dtype.kind == "i" and not (values.min() >= 1000 and values.max() < 2500)


def _numbers(records: Records, name: str) -> np.ndarray:
    values = records.fields[name]
    if values.dtype.kind in "if":
        return values.astype(np.float64)
    if all(value is None or isinstance(value, bool) for value in values):
        return np.array([np.nan if value is None else float(value) for value in values])
    wrong = next(place for place, value in enumerate(values) if value is not None)
    raise UserError(
        f"the column {name!r} has {str(values[wrong])!r} at {records.ids[wrong]}, which is no number",
        expected="numbers in every channel of a series",
        hint="leave the column out of data.values, data.past and data.known",
    )


def _item_names(records: Records, item: str | None) -> np.ndarray:
    if item is None:
        return np.full(len(records), "", dtype="<U1")
    missing = is_missing(records.fields[item])
    if missing.any():
        raise UserError(f"{records.ids[int(missing.argmax())]} has no item in column {item!r}", hint="fill it in")
    return records.fields[item].astype(str)


def _check_times(records: Records, rows: np.ndarray, times: np.ndarray, name: str) -> None:
    twice = np.flatnonzero(times[1:] == times[:-1])
    if len(twice):
        first, second = (records.ids[int(rows[place])] for place in (twice[0], twice[0] + 1))
        of_item = f" for item {name!r}" if name else ""
        raise UserError(
            f"the time {times[twice[0]]} comes twice{of_item}: {first} and {second}",
            expected="one row for each time" + ("" if name else ", or a column that tells the items apart"),
            hint=None if name else "data.item = the column that names the series",
        )


def _frequency(times: Sequence[np.ndarray]) -> Frequency:
    """That of the longest series."""
    longest = times[int(np.argmax([len(each) for each in times]))]
    return frequency.find(longest) or Frequency()


def _on_grid(item: Item, found: Frequency) -> Item | None:
    """The item with a row for every step; None where its time stamps are on no grid."""
    assert item.times is not None
    places = found.places(item.times)
    if places is None or len(np.unique(places)) < len(places) or places[-1] + 1 > _FILLED * len(places) + 2:
        return None
    if places[-1] + 1 == len(places):
        return item
    values = np.full((int(places[-1]) + 1, item.values.shape[1]), np.nan)
    values[places] = item.values
    times = np.concatenate([item.times[:1], found.after(item.times[0], len(values) - 1)])
    times[places] = item.times
    return Item(name=item.name, values=values, times=times, static=item.static)
