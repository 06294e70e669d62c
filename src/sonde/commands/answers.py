"""Answers as a file: JSONL, a JSON array, CSV or TSV, by the ending of its name."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sonde.base import files
from sonde.base.errors import UserError

ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")


def check(path: Path) -> None:
    """Fail before the work rather than after it.

    Raises:
        UserError: answers cannot be written there, or the ending says no format.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UserError(
            f"--out {path} has no ending that says how to write answers",
            expected="one of: " + ", ".join(ENDINGS),
            hint=f"--out {path.with_suffix('.csv')} gives a table",
        )
    files.check_writable(path)


def write(path: Path, answers: Sequence[Mapping[str, Any]]) -> None:
    """All answers, in their order, whole or not at all."""
    ending = path.suffix.lower()
    if ending in (".csv", ".tsv"):
        text = to_csv(answers, "," if ending == ".csv" else "\t")
    elif ending == ".json":
        text = json.dumps(answers, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    else:
        text = "".join(json.dumps(one, ensure_ascii=False, allow_nan=False) + "\n" for one in answers)
    files.write_bytes(path, text.encode())


def to_csv(answers: Sequence[Mapping[str, Any]], separator: str = ",") -> str:
    """A row an answer under a header. What is nested gets a column each ("probabilities.yes"), lists are JSON.

    Columns stand in the order in which they first appear, and an "error" last.
    """
    rows = [_flat(answer) for answer in answers]
    names = dict.fromkeys(name for row in rows for name in row)
    if "error" in names:
        names.pop("error")
        names["error"] = None
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(row.get(name)) for name in names] for row in rows)
    return text.getvalue()


def _flat(answer: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in answer.items():
        if isinstance(value, Mapping):
            row |= _flat(value, f"{before}{name}.")
        else:
            row[before + name] = value
    return row


def _cell(value: Any) -> Any:
    """A value as a cell: nothing for none, true and false as JSON has them, lists as JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (bool, list, tuple)) else value
