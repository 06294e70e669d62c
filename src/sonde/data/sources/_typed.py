"""Columns of texts as what they say: whole numbers, numbers, true and false, dates, or texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars
from polars import Series

from sonde.contracts.records import MISSING_NUMBERS, as_field

_DATE = r"^\s*\d{1,4}[-/.]\d{1,2}([-/.]\d{1,4})?([ T]\d{1,2}:\d{2}|\s*$)"
# Tried in this order; a column is a date when every value is, in one format.
_FORMATS = (
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y/%m/%d",
    "%d.%m.%Y",
    "%Y-%m",
)
# Which of the two is meant shows only where some day is past the twelfth.
_AMBIGUOUS = ("%m/%d/%Y", "%d/%m/%Y")


def from_texts(texts: Series, *, as_text: bool = False) -> np.ndarray:
    """A column that came as texts (CSV), null where it was empty; `as_text` leaves it as it is written."""
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
    times = _times(texts)
    return _objects(texts.to_list()) if times is None else times


def from_values(values: Sequence[object]) -> np.ndarray:
    """A column of Python values (JSON): types stand, only texts may be dates."""
    try:
        field = as_field(values)
    except OverflowError:  # whole numbers past 64 bits name things; they are not quantities
        return _objects([None if value is None else str(value) for value in values])
    if field.dtype != object or not {type(value) for value in values} <= {str, type(None)}:
        return field
    times = _times(Series(values, dtype=polars.String))
    return field if times is None else times


def from_frame(column: Series) -> np.ndarray:
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
        times = _times(column)
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


def _times(texts: Series) -> np.ndarray | None:
    """datetime64[us], or None when the texts are no dates of one format."""
    present = texts.drop_nulls()
    if not len(present) or not present.head(20).str.contains(_DATE).all():
        return None
    present = present.str.strip_chars()
    for format in _FORMATS:
        parsed = _parsed(texts, format)
        if parsed.null_count() == texts.null_count():
            return _microseconds(parsed)
    fitting = [parsed for each in _AMBIGUOUS if (parsed := _parsed(texts, each)).null_count() == texts.null_count()]
    return _microseconds(fitting[0]) if len(fitting) == 1 else None


def _parsed(texts: Series, format: str) -> Series:
    plain = texts.str.strip_chars()
    if format == "%Y-%m":
        plain, format = plain + "-01", "%Y-%m-%d"
    times = plain.str.to_datetime(format, strict=False, time_unit="us")
    return times.dt.replace_time_zone(None)


def _microseconds(times: Series) -> np.ndarray:
    return times.cast(polars.Datetime("us")).to_numpy().astype("datetime64[us]")


def _objects(values: Sequence[object]) -> np.ndarray:
    field = np.empty(len(values), dtype=object)
    field[:] = values
    return field
