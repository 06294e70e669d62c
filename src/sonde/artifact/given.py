"""What people give a model to answer for, as records: data frames, mappings, arrays, paths, and lists of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sonde.base.errors import UserError
from sonde.contracts.input import Input
from sonde.contracts.records import Record, Records, as_field


def record_of(value: Any, inputs: Mapping[str, Input]) -> Record:
    """One input as a record: a mapping of fields, the one field's value, or the values of all columns in order.

    Raises:
        UserError: it is one value where the model reads several fields.
    """
    if isinstance(value, Mapping):
        record = dict(value)
        for name in file_fields(inputs):
            if isinstance(record.get(name), str):
                record[name] = Path(record[name])
        return record
    (first, *others) = inputs.values()
    fields = [name for part in (first, *others) for name in part.fields(part.config)]
    if not others and first.takes_file:
        return {fields[0]: Path(value) if first.reads_file and isinstance(value, str) else value}
    if isinstance(value, (list, tuple, np.ndarray)) and len(value) == len(fields):
        return dict(zip(fields, value.tolist() if isinstance(value, np.ndarray) else value, strict=True))
    raise UserError(
        f"{value!r} is one value alone", expected=f"a mapping with the fields {', '.join(fields)}, or a data frame"
    )


def file_fields(inputs: Mapping[str, Input]) -> list[str]:
    """The fields that hold files."""
    return [name for part in inputs.values() if part.reads_file for name in part.fields(part.config)]


def records_in(inputs: Any, parts: Mapping[str, Input], size: int) -> Iterator[Records]:
    """All inputs as records, at most `size` at once, in order."""
    frame = frame_of(inputs)
    if frame is not None:
        files = {name: frame[name] for name in file_fields(parts) if name in frame}
        for name, values in files.items():
            frame[name] = as_field([Path(value) if isinstance(value, str) else value for value in values])
        count = len(next(iter(frame.values()), ()))
        whole = Records(fields=frame, ids=[f"row {number}" for number in range(1, count + 1)])
        for start in range(0, count, size):
            yield whole.part(start, min(start + size, count))
        return
    pending: list[Record] = []
    for value in _several(inputs):
        pending.append(record_of(value, parts))
        if len(pending) == size:
            yield Records.of(pending)
            pending = []
    if pending:
        yield Records.of(pending)


def _several(inputs: Any) -> Iterable[Any]:
    """The inputs one by one; a text, a path, the bytes of a file or a mapping that comes alone is one input."""
    return [inputs] if isinstance(inputs, (str, Path, bytes, bytearray, Mapping)) else inputs


def frame_of(inputs: Any) -> dict[str, np.ndarray] | None:
    """The columns of a polars or pandas data frame, None where it is none.

    Neither library is imported: who gives a frame has it.
    """
    library = type(inputs).__module__.partition(".")[0]
    if library == "polars" and type(inputs).__name__ == "LazyFrame":
        inputs = inputs.collect()
    if library not in ("polars", "pandas") or type(inputs).__name__ != "DataFrame":
        return None
    names: Sequence[Any] = list(inputs.columns)
    column = _from_polars if library == "polars" else _from_pandas
    return {str(name): column(inputs[name]) for name in names}


def _from_polars(series: Any) -> np.ndarray:
    if series.dtype.is_temporal() and str(series.dtype).startswith(("Date", "Datetime")):
        if getattr(series.dtype, "time_zone", None):
            series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return series.to_numpy().astype("datetime64[us]")
    if series.dtype.is_numeric() and not series.null_count():
        return _plain(series.to_numpy())
    return as_field(series.to_list())


def _from_pandas(series: Any) -> np.ndarray:
    kind = getattr(series.dtype, "kind", "O")
    if kind == "M":
        if getattr(series.dtype, "tz", None) is not None:
            series = series.dt.tz_convert("UTC").dt.tz_localize(None)
        return series.to_numpy().astype("datetime64[us]")
    if isinstance(series.dtype, np.dtype) and kind in "iuf":
        return _plain(series.to_numpy())
    missing = series.isna().to_numpy()
    values = series.astype(object).to_list()
    return as_field(
        [None if gone else _python(value) for value, gone in zip(values, missing, strict=True)],
    )


def _plain(values: np.ndarray) -> np.ndarray:
    """Numbers in the two types that records have."""
    return values.astype(np.int64 if values.dtype.kind in "iu" and values.dtype != np.uint64 else np.float64)


def _python(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
