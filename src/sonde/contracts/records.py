"""A data set as the user has it: named fields, one value per record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sonde.base import number_formats
from sonde.base.number_formats import PLAIN, NumberFormat

Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Records:
    """A data set as the user has it: named fields of equal length.

    `fields` maps a name to an array whose first axis is the record. Numbers are float64 or int64 (a missing one is
    NaN), texts and files (`pathlib.Path`) are objects (a missing one is None), pictures may be arrays themselves.
    `ids` name the records for people: a path relative to the data set, or "row 17". `notes` say what a source did that
    people should know (rows that it skipped); only what a source reads has any.
    """

    fields: Mapping[str, np.ndarray]
    ids: Sequence[str]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, values in self.fields.items():
            if len(values) != len(self.ids):
                raise ValueError(f"field {name} has {len(values)} values for {len(self.ids)} records")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: values[index] for name, values in self.fields.items()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def take(self, indices: np.ndarray) -> Records:
        """The records at these positions, in this order."""
        places: list[int] = indices.tolist()
        return Records(
            fields={name: values[indices] for name, values in self.fields.items()},
            ids=[self.ids[place] for place in places],
        )

    def part(self, start: int, stop: int) -> Records:
        """The records from `start` to before `stop`; their fields are views."""
        return Records(
            fields={name: values[start:stop] for name, values in self.fields.items()}, ids=self.ids[start:stop]
        )

    def with_fields(self, **fields: np.ndarray) -> Records:
        return Records(fields={**self.fields, **fields}, ids=self.ids, notes=self.notes)

    @staticmethod
    def of(rows: Sequence[Record]) -> Records:
        """Records from single ones, as serving gets them. A field that a row lacks is None there."""
        names = dict.fromkeys(name for row in rows for name in row)
        return Records(
            fields={name: as_field([row.get(name) for row in rows]) for name in names},
            ids=[f"input {number}" for number in range(1, len(rows) + 1)],
        )


def as_field(values: Sequence[object]) -> np.ndarray:
    """A field from Python values: numbers as numbers (a missing one is NaN), everything else as objects."""
    kinds = {type(value) for value in values}
    if kinds and kinds <= {int, float, bool, type(None)} and kinds != {type(None)}:
        if kinds == {int}:
            return np.array(values, dtype=np.int64)
        if kinds <= {bool, type(None)}:
            return _objects(values)
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return _objects(values)


def _objects(values: Sequence[object]) -> np.ndarray:
    field = np.empty(len(values), dtype=object)
    field[:] = list(values)
    return field


# What people and programs write for a missing number; in a column of texts they may be words and stay.
MISSING_NUMBERS = ("", "na", "n/a", "#n/a", "nan", "null", "none", "?", "-")


def is_missing(field: np.ndarray) -> np.ndarray:
    """Which values of a field are missing (None or NaN), as a bool array."""
    if field.dtype == object:
        return np.fromiter(
            (value is None or (isinstance(value, float) and value != value) for value in field), bool, len(field)
        )
    if field.dtype.kind == "f" and field.ndim == 1:
        return np.isnan(field)
    if field.dtype.kind == "M":
        return np.isnat(field)
    return np.zeros(len(field), dtype=bool)


def numbers_of(values: np.ndarray, format: NumberFormat = PLAIN) -> np.ndarray:
    """A field as float64 (N,); NaN where a value is missing or no number. A text such as "1.5" is a number; in another
    `format` so is "$1,234.00"."""
    if values.ndim == 1 and values.dtype.kind in "iufb":
        return values.astype(np.float64)
    if format != PLAIN:
        return number_formats.parse_many(values, format)
    try:
        numbers = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    except (TypeError, ValueError):
        numbers = None
    if numbers is None or numbers.ndim != 1:
        numbers = np.array([_number(value) for value in values], dtype=np.float64)
    return numbers


def format_of(values: np.ndarray) -> NumberFormat:
    """How the texts of a field write numbers; plain where they are none, or no one format."""
    if values.dtype != object:
        return PLAIN
    texts = [value for value in values if isinstance(value, str) and value.strip().lower() not in MISSING_NUMBERS]
    found = number_formats.detect(texts)
    return PLAIN if found is None else found[0]


def _number(value: Any) -> float:
    try:
        return float("nan") if isinstance(value, np.ndarray) else float(value)
    except (TypeError, ValueError):
        return float("nan")
