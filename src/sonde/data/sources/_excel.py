"""Sheets of Excel and OpenDocument workbooks as columns."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars

from sonde.base.errors import UserError, near
from sonde.data.sources import _content


def read(path: Path, sheet: str | None) -> tuple[polars.DataFrame, list[str]]:
    """One sheet, the first that holds anything if none is named; its first row names the columns. Also the names of the
    sheets that were not read.

    Raises:
        UserError: no reader is installed, the workbook is broken, or it has no such sheet.
    """
    try:
        import fastexcel
    except ImportError as error:
        raise UserError(
            f"{path} is a workbook, and no reader for those is installed",
            expected="the package fastexcel",
            hint="pip install 'sonde[excel]', or save the sheet as CSV",
        ) from error
    content = _content.read_bytes(path)
    try:
        with _quiet():
            book = fastexcel.read_excel(content)
            name = _chosen(path, book, sheet)
            frame = book.load_sheet(name).to_polars()
    except fastexcel.FastExcelError as error:
        raise UserError(f"{path} is not a readable workbook: {str(error).splitlines()[0]}") from error
    frame = frame.select(column for column in frame if not _is_blank(column))
    frame = frame.filter(~polars.all_horizontal(polars.all().is_null()))
    if not frame.height:
        raise UserError(f"the sheet {name!r} of {path} has no rows under a header")
    frame = frame.rename(dict(zip(frame.columns, _named(frame.columns), strict=True)))
    return frame.with_columns(_whole_numbers(column) for column in frame), [
        other for other in book.sheet_names if other != name
    ]


def _chosen(path: Path, book, sheet: str | None) -> str:  # type: ignore[no-untyped-def]
    names = book.sheet_names
    if sheet is not None and sheet not in names:
        close = near(sheet, names)
        raise UserError(
            f"{path} has no sheet {sheet!r}",
            expected="one of: " + ", ".join(names),
            hint=f"did you mean {close!r}?" if close else None,
        )
    return sheet or next((name for name in names if book.load_sheet(name).height), names[0])


def _is_blank(column: polars.Series) -> bool:
    """A column without a name and without a value, as formatting leaves behind."""
    return column.name.startswith("__UNNAMED__") and column.null_count() == len(column)


@contextmanager
def _quiet() -> Iterator[None]:
    """fastexcel warns of columns of mixed types, which become texts here."""
    logger = logging.getLogger("fastexcel")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _whole_numbers(column: polars.Series) -> polars.Series:
    """A workbook knows one type of number: whole ones become whole again."""
    if column.dtype == polars.Float64 and not column.null_count() and bool((column == column.round()).all()):
        return column.cast(polars.Int64, strict=False) if bool((column.abs() < 2**53).all()) else column
    return column


def _named(columns: list[str]) -> list[str]:
    """The names of columns as those of a CSV file without some would be."""
    return [f"column_{place}" if name.startswith("__UNNAMED__") else name for place, name in enumerate(columns, 1)]
