"""The columns of a table: what is learned of a number, a category and a date, and how whole columns become numbers.

Every column is a dictionary that JSON can hold, so that an artifact holds it as it is.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, NotRequired

import numpy as np
import torch
from pydantic import Field
from typing_extensions import TypedDict

from sonde.base import dates, number_formats
from sonde.base.errors import RecordError, UserError, near
from sonde.base.number_formats import PLAIN, NumberFormat
from sonde.contracts.part import agree
from sonde.contracts.records import MISSING_NUMBERS, format_of, is_missing

# A quantile transform knows this many points of a distribution; more would not change the third digit.
POINTS = 1000
# Categories that an error lists.
SHOWN = 20
# A plainly scaled number so many deviations out says no more than one farther out, and could overflow.
FARTHEST = 100.0
# Robustly scaled numbers are bent to stay below this, and hardly changed around zero (Holzmueller et al. 2024).
SMOOTH_CLIP = 3.0
# The interquartile range of a normal distribution, in deviations.
NORMAL_RANGE = 1.349
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?$")

Errors = dict[int, RecordError]
Scale = Literal["standard", "quantile", "robust"]


class Number(TypedDict):
    """`heights` at `knots` make the quantile transform; without knots it is (number - centre) / spread, smoothly bent
    to stay below `clip` where there is one."""

    kind: Literal["number"]
    field: str
    missing: bool
    centre: float
    spread: float
    knots: list[float]
    heights: list[float]
    format: NumberFormat
    clip: NotRequired[float]


class Category(TypedDict):
    """Value i of `values` has the id i + 1; None stands for a missing value. Anything else is 0."""

    kind: Literal["category"]
    field: str
    missing: bool
    values: list[str | None]


class Date(TypedDict):
    """`centre` and `spread` are in years. `hours`: whether training had any time of day but midnight."""

    kind: Literal["date"]
    field: str
    missing: bool
    centre: float
    spread: float
    hours: bool


TableColumn = Annotated[Number | Category | Date, Field(discriminator="kind")]


class Encoded(NamedTuple):
    """A field as numbers (N, C) or ids (N,), where it is missing (N,), and the errors of records, by position."""

    values: np.ndarray
    absent: np.ndarray
    errors: Errors


def learn(field: str, values: np.ndarray, *, scale: Scale, min_count: int, listed: bool) -> TableColumn:
    """What the training split says of a field; `listed` makes it a category whatever it holds.

    Raises:
        UserError: it holds nothing, or nothing that belongs into a table.
    """
    kind = kind_of(field, values)
    if listed or kind == "category":
        return learn_category(field, values, min_count, listed=listed)
    return learn_number(field, values, scale) if kind == "number" else learn_date(field, values)


def encode(column: TableColumn, values: np.ndarray) -> Encoded:
    """A whole field at once."""
    if column["kind"] == "number":
        return encode_number(column, values)
    return encode_category(column, values) if column["kind"] == "category" else encode_date(column, values)


def check(column: TableColumn) -> None:
    """Whether what was learned of a column agrees with itself; see `Part.check_fitted`."""
    field = column["field"]
    if column["kind"] == "category":
        agree(len(set(column["values"])) == len(column["values"]), f"field {field!r} has a value twice")
        return
    agree(column["spread"] > 0, f"the spread of field {field!r} is not above 0")
    if column["kind"] == "number":
        knots = column["knots"]
        agree(column.get("clip", 1.0) > 0, f"the clip of field {field!r} is not above 0")
        agree(len(knots) == len(column["heights"]), f"field {field!r} has {len(knots)} knots, and other heights")
        agree(sorted(set(knots)) == knots, f"the knots of field {field!r} are not in order")


def width(column: TableColumn) -> int:
    """How many numbers a column becomes; a category becomes none, but an id."""
    if column["kind"] == "category":
        return 0
    own = 1 if column["kind"] == "number" else 7 if column["hours"] else 5
    return own + column["missing"]


def missing(field: str) -> RecordError:
    """The error for a missing value where training had none."""
    return RecordError(
        f"field {field!r} is missing",
        expected="a value, because every record of the training split has one",
        hint="allow_missing = true in the settings of the table takes the mean instead",
    )


def unknown_category(column: Category, value: object) -> RecordError:
    """The error for a category that training never showed, or too seldom."""
    field, known = column["field"], [each for each in column["values"] if each is not None]
    close = near(str(value), known)
    return RecordError(
        f"field {field!r} is {value!r}, which training did not show",
        expected="one of: " + ", ".join(known[:SHOWN]) + (", ..." if len(known) > SHOWN else ""),
        hint=f"did you mean {close!r}?" if close else None,
    )


def kind_of(field: str, values: np.ndarray) -> Literal["number", "category", "date"]:
    """What a field holds.

    Raises:
        UserError: neither numbers, categories nor dates.
    """
    if values.ndim > 1:
        raise _wrong_kind(field, "arrays")
    if values.dtype != object:
        if values.dtype.kind == "M":
            return "date"
        return "category" if values.dtype.kind in "bU" else "number"
    there = values[~is_missing(values)]
    types = set(map(type, there))
    if not types:
        raise UserError(
            f"field {field!r} has no value in the training split", hint=f"leave {field!r} out of the table's fields"
        )
    if all(issubclass(one, (date, np.datetime64)) for one in types):
        return "date"
    if all(issubclass(one, (int, float, np.number)) and one is not bool for one in types):
        return "number"
    wrong = next((one for one in types if not issubclass(one, (str, bool, np.bool_, int, float, np.number))), None)
    if wrong is not None:
        raise _wrong_kind(field, "files" if issubclass(wrong, Path) else f"values of type {wrong.__name__}")
    if types == {str} and all(map(_DATE.match, there)) and not encode_as_dates(field, there)[1]:
        return "date"
    # Plain numbers have been read as such by the source: as texts they name something.
    return "number" if types == {str} and format_of(there) != PLAIN else "category"


def _wrong_kind(field: str, what: str) -> UserError:
    return UserError(
        f"field {field!r} holds {what}",
        expected="numbers, categories or dates in a table",
        hint="give it an input of its own (image, audio, text), or leave it out of the table's fields",
    )


def _wrong(field: str, value: object, expected: str) -> RecordError:
    plain = value.item() if isinstance(value, np.generic) else value
    return RecordError(f"field {field!r} is {plain!r}", expected=expected)


def learn_number(field: str, values: np.ndarray, scale: Scale) -> Number:
    """Scale a number: "standard" to mean 0 and deviation 1, "quantile" to a normal distribution, whatever it was;
    "robust" by median and quartiles, then smoothly clipped (RealMLP, Holzmueller et al. 2024, "Better by Default").

    The second evens out long tails and outliers; as scikit-learn's QuantileTransformer, which Gorishniy et al. 2021
    ("Revisiting Deep Learning Models for Tabular Data") use throughout.
    """
    format = format_of(values)
    numbers, _ = _as_numbers(field, values, format)
    there = numbers[np.isfinite(numbers)]
    if not len(there):
        raise UserError(
            f"field {field!r} has no number in the training split", hint=f"leave {field!r} out of the table's fields"
        )
    knots, heights = _quantiles(there) if scale == "quantile" else ([], [])
    centre, spread = _robust(there) if scale == "robust" else (float(there.mean()), _spread(there))
    column: Number = {
        "kind": "number",
        "field": field,
        "missing": bool(np.isnan(numbers).any()),
        "centre": centre,
        "spread": spread,
        "knots": knots,
        "heights": heights,
        "format": format,
    }
    return {**column, "clip": SMOOTH_CLIP} if scale == "robust" else column


def _spread(numbers: np.ndarray) -> float:
    """The standard deviation; 1 where all numbers are equal, up to rounding."""
    spread = float(numbers.std())
    return spread if spread > 1e-12 * float(np.abs(numbers).max()) else 1.0


def _robust(numbers: np.ndarray) -> tuple[float, float]:
    """Median and interquartile range in deviations of a normal distribution; half the range where quartiles agree."""
    low, middle, high = np.percentile(numbers, [25, 50, 75])
    if high > low:
        return float(middle), float((high - low) / NORMAL_RANGE)
    span = float(numbers.max() - numbers.min())
    return float(middle), span / 2 if span > 1e-12 * float(np.abs(numbers).max()) else 1.0


def _quantiles(numbers: np.ndarray) -> tuple[list[float], list[float]]:
    """Points of the distribution and their places in a normal one; a value that fills several has their middle."""
    share = (np.arange(min(POINTS, len(numbers))) + 0.5) / min(POINTS, len(numbers))
    knots, place = np.unique(np.quantile(numbers, share), return_inverse=True)
    middle = np.bincount(place, weights=share) / np.bincount(place)
    return knots.tolist(), torch.special.ndtri(torch.from_numpy(middle)).tolist()


def encode_number(column: Number, values: np.ndarray) -> Encoded:
    """float32 (N, 1), or (N, 2) with a second number that is 1 where the first is missing."""
    numbers, errors = _as_numbers(column["field"], values, column["format"])
    absent = np.isnan(numbers)
    if column["knots"]:
        scaled = np.interp(np.where(absent, column["knots"][0], numbers), column["knots"], column["heights"])
    else:
        scaled = (numbers - column["centre"]) / column["spread"]
        clip = column.get("clip")
        scaled = np.clip(scaled, -FARTHEST, FARTHEST) if clip is None else scaled / np.hypot(1, scaled / clip)
    parts = [np.where(absent, 0.0, scaled)]
    if column["missing"]:
        parts.append(absent)
    return Encoded(np.stack(parts, axis=1).astype(np.float32), absent, errors)


def _as_numbers(field: str, values: np.ndarray, format: NumberFormat) -> tuple[np.ndarray, Errors]:
    """float64 (N,), NaN where missing or wrong."""
    errors: Errors = {}
    try:
        # "1.013" is a thousand where points stand between thousands.
        numbers = values.astype(np.float64) if format == PLAIN else None
    except (TypeError, ValueError):
        numbers = None
    if numbers is None:
        numbers = np.full(len(values), np.nan)
        for index, value in enumerate(values):
            try:
                numbers[index] = _number(value, format)
            except (TypeError, ValueError):
                # A table of few rows may not show that a column holds numbers: what stands for none comes as text.
                if isinstance(value, str) and value.strip().lower() in MISSING_NUMBERS:
                    continue
                errors[index] = _wrong(field, value, "a number")
    for index in np.flatnonzero(np.isinf(numbers)):
        errors[int(index)] = RecordError(f"field {field!r} is infinite", expected="a finite number, or none")
    numbers[np.isinf(numbers)] = np.nan
    return numbers, errors


def _number(value: object, format: NumberFormat) -> float:
    if value is None:
        return math.nan
    if isinstance(value, str) and format != PLAIN:
        found = number_formats.parse(value, format)
        if found is None:
            raise ValueError(value)
        return found
    return float(value)  # type: ignore[arg-type]


def learn_category(field: str, values: np.ndarray, min_count: int, *, listed: bool) -> Category:
    """Give an id to every value that training shows `min_count` times; `listed` says that the recipe asks for it.

    Raises:
        UserError: nearly every record has a value of its own, and the recipe does not ask for it.
    """
    counts = Counter(_names(values))
    missing = counts.get(None, 0)
    there = sum(counts.values()) - missing
    distinct = len(counts) - bool(missing)
    if not listed and distinct > max(20, there / 2):
        raise UserError(
            f"field {field!r} has {distinct} different values in {there} records: it is a name or text, not a category",
            hint=f"leave it out of the table's fields, give it a text input, or add {field!r} to categories",
        )
    kept = sorted(name for name, count in counts.items() if name is not None and count >= min_count)
    values_kept = [*([None] if missing >= min_count else []), *kept]
    return {"kind": "category", "field": field, "missing": bool(missing), "values": values_kept}


def encode_category(column: Category, values: np.ndarray) -> Encoded:
    """int64 (N,), the id of each value."""
    ids = {name: one for one, name in enumerate(column["values"], start=1)}
    names = _names(values)
    found = np.fromiter((ids.get(name, 0) for name in names), np.int64, len(names))
    return Encoded(found, np.fromiter((name is None for name in names), bool, len(names)), {})


def _names(values: np.ndarray) -> Sequence[str | None]:
    """What categories are called: 3, 3.0 and "3" are one, and so are true and "true". None where missing."""
    if values.dtype == object:
        return [value if type(value) is str else _name(value) for value in values]
    distinct, place = np.unique(values, return_inverse=True)
    return np.array([_name(value) for value in distinct], dtype=object)[place].tolist()


def _name(value: object) -> str | None:
    if value is None or value != value:
        return None
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def learn_date(field: str, values: np.ndarray) -> Date:
    moments, _ = encode_as_dates(field, values)
    there = moments[~np.isnat(moments)]
    if not len(there):
        raise UserError(
            f"field {field!r} has no date in the training split", hint=f"leave {field!r} out of the table's fields"
        )
    years = _years(there)
    return {
        "kind": "date",
        "field": field,
        "missing": len(there) < len(moments),
        "centre": float(years.mean()),
        "spread": _spread(years),
        "hours": bool((there != there.astype("datetime64[D]")).any()),
    }


def encode_date(column: Date, values: np.ndarray) -> Encoded:
    """float32 (N, C): the year with its fraction, then sine and cosine of the place in the year, in the week and, where
    there are hours, in the day; then 1 where it is missing, if that happens."""
    moments, errors = encode_as_dates(column["field"], values)
    absent = np.isnat(moments)
    moments = np.where(absent, np.datetime64(0, "s"), moments)
    days = moments.astype("datetime64[D]")
    # 1970 began on a Thursday.
    turns = [_years(moments) % 1, (days.astype(np.int64) + 3) % 7 / 7]
    if column["hours"]:
        turns.append((moments - days).astype(np.int64) / 86400)
    angles = 2 * np.pi * np.stack(turns, axis=1)
    year = np.clip((_years(moments) - column["centre"]) / column["spread"], -FARTHEST, FARTHEST)
    numbers = np.concatenate([year[:, None], np.sin(angles), np.cos(angles)], axis=1)
    numbers[absent] = 0.0
    if column["missing"]:
        numbers = np.concatenate([numbers, absent[:, None]], axis=1)
    return Encoded(numbers.astype(np.float32), absent, errors)


def encode_as_dates(field: str, values: np.ndarray) -> tuple[np.ndarray, Errors]:
    """datetime64[s] (N,), in UTC where a zone is given; NaT where missing or wrong."""
    if values.dtype.kind == "M":
        return values.astype("datetime64[s]"), {}
    errors: Errors = {}
    moments = np.full(len(values), np.datetime64("NaT", "s"))
    for index in np.flatnonzero(~is_missing(values)):
        try:
            moments[index] = _moment(values[index])
        except (TypeError, ValueError):
            errors[int(index)] = _wrong(field, values[index], "a date such as 2024-05-31 or 2024-05-31T12:30:00")
    return moments, errors


def _moment(value: object) -> np.datetime64:
    if isinstance(value, np.datetime64):
        return value.astype("datetime64[s]")
    if isinstance(value, str):
        value = dates.parse(value)
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value.astimezone(UTC).replace(tzinfo=None)
    if not isinstance(value, date):
        raise TypeError
    return np.datetime64(value).astype("datetime64[s]")


def _years(moments: np.ndarray) -> np.ndarray:
    """Years since 1970 with their fraction."""
    year = moments.astype("datetime64[Y]")
    start, end = year.astype("datetime64[s]"), (year + 1).astype("datetime64[s]")
    return year.astype(np.int64) + (moments - start).astype(np.float64) / (end - start).astype(np.float64)
