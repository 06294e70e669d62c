"""Columns of texts as what they say: whole numbers, numbers, true and false, dates, or texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars
from polars import Series

from sonde.contracts.records import MISSING_NUMBERS, as_field
from sonde.data.sources import _dates

# The formats of columns of dates, where they are known.
Dates = Mapping[str, str]


def from_texts(texts: Series, *, as_text: bool = False, date: str | None = None) -> np.ndarray:
    """A column that came as texts (CSV), null where it was empty; `as_text` leaves it as it is written, `date` is its
    format."""
    if as_text:
        return _objects(texts.to_list())
    if texts.null_count() == len(texts):
        return np.full(len(texts), None, dtype=object)
    # Codes such as 007 or 01234 would lose their zeros as numbers.
    if not texts.str.contains(r"^\s*[+-]?0\d").any():
        numbers = _numbers(texts)
        if numbers is not None:
            return numbers
    lower = texts.str.to_lowercase()
    if lower.is_in(["true", "false"]).all():  # of those that are there
        return _objects([None if value is None else value == "true" for value in lower.to_list()])
    times = _times(texts, date)
    return _objects(texts.to_list()) if times is None else times


def from_values(values: Sequence[object], *, as_text: bool = False, date: str | None = None) -> np.ndarray:
    """A column of Python values (JSON): types stand, only texts may be dates."""
    try:
        field = as_field(values)
    except OverflowError:  # whole numbers past 64 bits name things; they are not quantities
        return _objects([None if value is None else str(value) for value in values])
    if field.dtype != object or not {type(value) for value in values} <= {str, type(None)}:
        return field
    times = None if as_text else _times(Series(values, dtype=polars.String), date)
    return field if times is None else times


def from_frame(column: Series, *, as_text: bool = False, date: str | None = None) -> np.ndarray:
    """A column that has a type already (Parquet)."""
    kind = column.dtype
    if kind.is_integer():
        return column.cast(polars.Float64 if column.null_count() or kind == polars.UInt64 else polars.Int64).to_numpy()
    if kind.is_float() or kind.is_decimal():
        return column.cast(polars.Float64).fill_null(float("nan")).to_numpy()
    if kind in (polars.Date, polars.Datetime):
        if isinstance(kind, polars.Datetime) and kind.time_zone:
            column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return _microseconds(column)
    if kind == polars.Duration:  # in seconds
        return column.dt.total_microseconds().cast(polars.Float64).fill_null(float("nan")).to_numpy() / 1e6
    if kind == polars.String:
        times = None if as_text else _times(column, date)
        return _objects(column.to_list()) if times is None else times
    if kind in (polars.Categorical, polars.Enum):
        return _objects(column.cast(polars.String).to_list())
    return _objects(column.to_list())


def _numbers(texts: Series) -> np.ndarray | None:
    """int64, or float64 where a value is missing or has decimals; None when some value is no number."""
    stripped = texts.str.strip_chars()
    whole = stripped.cast(polars.Int64, strict=False)
    if not whole.null_count():
        return whole.to_numpy()
    numbers = stripped.cast(polars.Float64, strict=False)
    if numbers.null_count() > texts.null_count():
        wrong = stripped.filter(numbers.is_null() & texts.is_not_null())
        if not wrong.str.to_lowercase().is_in(MISSING_NUMBERS).all() or len(wrong) + texts.null_count() == len(texts):
            return None
    return numbers.fill_null(float("nan")).to_numpy()


def _times(texts: Series, format: str | None) -> np.ndarray | None:
    """datetime64[us], or None when the texts are no dates of one format, or may be those of two."""
    found = _dates.read(texts, format)
    return None if found is None else found.moments


def _microseconds(times: Series) -> np.ndarray:
    return times.cast(polars.Datetime("us")).to_numpy().astype("datetime64[us]")


def _objects(values: Sequence[object]) -> np.ndarray:
    field = np.empty(len(values), dtype=object)
    field[:] = values
    return field
