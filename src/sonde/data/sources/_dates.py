"""Columns of texts that are dates: the format that all values have, and what decides between day and month first."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars
from polars import Series

from sonde.base import dates
from sonde.base.errors import UserError

# Values that a format is looked for in before the whole column is read.
_SAMPLE = 20
# So many different dates are in order by no chance.
_ENOUGH = 10


@dataclass(frozen=True, kw_only=True)
class Dates:
    """A column of dates: its moments, datetime64[us], None where the order of day and month stays open.

    `format` is given where that order had to be found out, and `shown` says by what.
    """

    moments: np.ndarray | None
    format: str | None = None
    shown: Literal["", "days past the twelfth", "the order of the rows", "nothing"] = ""


def looks_like(text: str) -> bool:
    return re.match(dates.LIKE, text) is not None


def read(texts: Series, format: str | None = None) -> Dates | None:
    """What a column of texts says as dates; None when they are no dates of one format.

    Raises:
        UserError: a value is not of the `format` that was asked for.
    """
    if format is not None:
        return _asked_for(texts, format)
    present = texts.drop_nulls()
    if not len(present) or not present.head(_SAMPLE).str.contains(dates.LIKE).all():
        return None
    written, offsets = _plain(texts)
    sample = written.drop_nulls().head(_SAMPLE)
    for each in dates.FORMATS:
        if _parsed(sample, each) is not None and (found := _parsed(written, each)) is not None:
            return Dates(moments=_microseconds(found, offsets))
    for month_first, day_first in dates.AMBIGUOUS:
        fitting = {
            each: found
            for each in (month_first, day_first)
            if _parsed(sample, each) is not None and (found := _parsed(written, each)) is not None
        }
        if fitting:
            return _decided(fitting, offsets)
    return None


def _asked_for(texts: Series, format: str) -> Dates:
    found = texts.str.strip_chars().str.to_datetime(_chrono(format), strict=False, time_unit="us")
    found = found.dt.replace_time_zone(None)
    if found.null_count() > texts.null_count():
        row = int((found.is_null() & texts.is_not_null()).arg_max() or 0)
        raise UserError(
            f"row {row + 1} has {texts[row]!r} in column {texts.name!r}, which is no date in the format {format!r}",
            expected="what data.dates says of this column",
        )
    return Dates(moments=_microseconds(found, None), format=format)


def _decided(fitting: dict[str, Series], offsets: Series | None) -> Dates:
    """The reading of two that is possible, or that the rows are sorted by."""
    if len(fitting) == 1:
        format, found = fitting.popitem()
        return Dates(moments=_microseconds(found, offsets), format=format, shown="days past the twelfth")
    sorted_by = [format for format, found in fitting.items() if _is_sorted(found)]
    if len(sorted_by) == 1:
        found = _microseconds(fitting[sorted_by[0]], offsets)
        return Dates(moments=found, format=sorted_by[0], shown="the order of the rows")
    return Dates(moments=None, shown="nothing")


def _is_sorted(moments: Series) -> bool:
    there = moments.drop_nulls()
    return there.n_unique() > _ENOUGH and (there.is_sorted() or there.is_sorted(descending=True))


def _plain(texts: Series) -> tuple[Series, Series | None]:
    """Dates as `dates.FORMATS` are for, and the minutes that their zones are before UTC."""
    texts = texts.str.strip_chars()
    zones = texts.str.extract(dates.ZONE, 2)
    offsets = None
    if zones.null_count() < len(zones):
        known = {zone: dates.minutes(zone) for zone in zones.drop_nulls().unique()}
        offsets = zones.replace_strict(known, default=0, return_dtype=polars.Int64)
        texts = texts.str.replace(dates.ZONE, "$1").str.strip_chars()
    return texts.str.replace(dates.WEEKDAY, "").str.replace_all(dates.MONTH_NAME, "$1"), offsets


def _parsed(texts: Series, format: str) -> Series | None:
    """All values in one format, None when some value is not."""
    padded = not format.startswith(dates.SHORT_GERMAN) or texts.drop_nulls().str.contains(dates.PADDED).all()
    if not padded:
        return None
    written, known = texts, format
    if format in dates.MONTHS:
        written, known = texts + " 1", f"{format} %d"
    found = written.str.to_datetime(_chrono(known), strict=False, time_unit="us").dt.replace_time_zone(None)
    if found.null_count() > texts.null_count():
        return None
    # What parses "%Y" here also takes years of two digits for such.
    first, last = dates.YEARS if format in dates.MONTHS else (1000, 10_000)
    years = found.dt.year().drop_nulls()
    return found if bool(((years >= first) & (years < last)).all()) else None


def _chrono(format: str) -> str:
    """The format as polars has it: only the fraction of a second is written otherwise."""
    return format.replace(".%f", "%.f").replace("%z", "%#z")


def _microseconds(moments: Series, offsets: Series | None) -> np.ndarray:
    found = moments.cast(polars.Datetime("us")).to_numpy().astype("datetime64[us]")
    return found if offsets is None else found - offsets.to_numpy().astype("timedelta64[m]")
