"""Series with a label or number each: .ts files (aeon, sktime), UCR's .tsv, or rows of item, time, values, label."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from sonde.base.config import Config
from sonde.base.errors import UserError
from sonde.contracts.records import Records, as_field
from sonde.data.source import Guess, Source
from sonde.data.sources import _content, _folders, _series_items, _series_labelled

# Bytes of a .tsv that are looked at, and the fewest steps of UCR's series.
_PEEK, _STEPS = 20_000, 8
_UCR = re.compile(r"_(TRAIN|TEST)$")


class LabelledSeriesConfig(Config):
    kind: Literal["labelled-series"] = "labelled-series"
    item: str | None = Field(default=None, description="tables: the column that names the series of a row")
    time: str | None = Field(default=None, description="tables: the column of time stamps or steps")
    values: tuple[str, ...] = Field(default=(), description="tables: the columns of the series' values")
    label: str | None = Field(default=None, description="tables: the column of the label, one for each series")
    dates: dict[str, str] = Field(
        default={}, description='tables: how columns write dates, where that is not clear: { day = "%d/%m/%Y" }'
    )


class LabelledSeries(Source):
    """Fields "series" (T, channels), NaN where missing, "label" (texts, or numbers of .ts files for regression), and
    "split" where files are named so."""

    Config: ClassVar = LabelledSeriesConfig
    distinct: ClassVar[bool] = True

    @staticmethod
    def recognise(path: Path) -> bool:
        return bool(_files(path))

    @staticmethod
    def guess(path: Path, target: str | None) -> Guess:
        if target not in (None, "label"):
            raise UserError(f"labelled series have no field {target!r} to learn", expected="label")
        records = LabelledSeries.read(path, LabelledSeriesConfig())
        return _series_labelled.guess(path, records, {"source": str(path), "kind": "labelled-series"}, "label")

    @staticmethod
    def read(path: Path, config: LabelledSeriesConfig) -> Records:
        if not path.exists():
            raise UserError(f"the series {path} do not exist")
        if config.item is not None:
            return _series_labelled.from_table(path, config)
        files = _files(path)
        if not files:
            raise UserError(
                f"{path} holds no labelled series", expected="NAME_TRAIN.ts and NAME_TEST.ts, or .tsv files named so"
            )
        series: list[np.ndarray] = []
        labels: list[str | float] = []
        splits: list[str | None] = []
        ids: list[str] = []
        for split, file in files:
            found = _ts(file) if file.suffix.lower() == ".ts" else _tsv(file)
            series += [each for each, _ in found]
            labels += [label for _, label in found]
            splits += [split] * len(found)
            ids += [f"{file.name} {number}" for number in range(1, len(found) + 1)]
        fields = {"series": _folders.arrays(series), "label": as_field(labels)}
        if files[0][0] is not None:
            fields["split"] = _folders.objects(splits)
        return Records(fields=fields, ids=ids)

    @staticmethod
    def inputs(path: Path, config: LabelledSeriesConfig, fields: Sequence[str]) -> Records | None:
        if config.item is not None and path.is_file() and _content.table_format(path) is not None:
            return _series_labelled.from_table(path, config.model_copy(update={"label": None}))
        return LabelledSeries.read(path, LabelledSeriesConfig()) if _files(path, alone=True) else None

    @staticmethod
    def sample(folder: Path) -> Path:
        for part, shift in (("TRAIN", 0.0), ("TEST", 0.5)):
            rows = []
            for number in range(12):
                values = np.sin(np.arange(16) * (1 + number % 2) / 2 + shift + number)
                rows.append(",".join(f"{value:.4f}" for value in values) + f":{'slow' if number % 2 == 0 else 'fast'}")
            head = ["@problemName Waves", "@timeStamps false", "@classLabel true slow fast", "@data"]
            (folder / f"Waves_{part}.ts").write_text("\n".join([*head, *rows]) + "\n", encoding="utf-8")
        return folder


def _files(path: Path, *, alone: bool = False) -> list[tuple[str | None, Path]]:
    """The .ts or .tsv files of a data set, with their splits."""
    if path.is_file():
        return [(None, path)] if _is_series(path, alone=alone) else []
    if not path.is_dir():
        return []
    found = [each for each in _folders.entries(path) if each.is_file() and _is_series(each, alone=True)]
    if len(found) == 1:
        return [(None, found[0])]
    named = [(_folders.split_in(each.stem), each) for each in found]
    known = [(split, each) for split, each in named if split is not None]
    stems = {_UCR.sub("", each.stem) for each in found}
    return [*_folders.in_order(known)] if len(known) == len(found) and len(stems) == 1 else []


def _is_series(path: Path, *, alone: bool) -> bool:
    """A .ts file of this kind (others hold video, or programs), or a .tsv as UCR's."""
    suffix = path.suffix.lower()
    if suffix not in (".ts", ".tsv") or (suffix == ".tsv" and not (_UCR.search(path.stem) and alone)):
        return False
    with path.open("rb") as file:
        head = file.read(_PEEK)
    if suffix == ".ts":
        return re.search(rb"^@(data|problemname|timestamps|classlabel)\b", head, re.I | re.M) is not None
    cells = head.split(b"\n", 1)[0].split(b"\t")
    return len(cells) > _STEPS and all(re.fullmatch(rb"\s*(-?[\d.]+(e[-+]?\d+)?|NaN)\s*", cell, re.I) for cell in cells)


def _ts(file: Path) -> list[tuple[np.ndarray, str | float]]:
    """A .ts file: @ lines, then channels parted by colons, the label last.

    Raises:
        UserError: a line has no label, no numbers, or channels of different lengths; values have time stamps.
    """
    head: dict[str, str] = {}
    found: list[tuple[np.ndarray, str | float]] = []
    inside = False
    for number, line in enumerate(_text(file).splitlines(), start=1):
        line, where = line.strip(), f"{file} line {number}"
        if not line or line.startswith(("#", "%")):
            continue
        if not inside:
            key, _, rest = line.partition(" ")
            head[key.lower()] = rest.strip().lower()
            inside = key.lower() == "@data"
            continue
        *channels, label = line.split(":")
        if not channels:
            raise UserError(f"{where} has no label", expected="values, a colon, and the label")
        if head.get("@timestamps") == "true":
            raise UserError(f"{file} has time stamps beside its values", expected="@timeStamps false: values alone")
        values = [_series_items.floats(each.split(","), where) for each in channels]
        if len({len(each) for each in values}) > 1:
            raise UserError(f"{where} has channels of different lengths", expected="one length for all of a record")
        is_number = head.get("@targetlabel", "").startswith("true")
        found.append((np.stack(values, axis=1), _number(label, where) if is_number else label.strip()))
    if not found:
        raise UserError(f"{file} has no series", expected="lines after @data")
    return found


def _tsv(file: Path) -> list[tuple[np.ndarray, str | float]]:
    """A .tsv file of the UCR archive: the label, then the values; shorter series end in NaN."""
    found: list[tuple[np.ndarray, str | float]] = []
    for number, line in enumerate(_text(file).splitlines(), start=1):
        if line.strip():
            label, *cells = line.rstrip().split("\t")
            values = _series_items.floats(cells, f"{file} line {number}")
            last = np.flatnonzero(~np.isnan(values))
            if not len(last):
                raise UserError(f"{file} line {number} has no values")
            found.append((values[: last[-1] + 1, None], label.strip()))
    return found


def _text(file: Path) -> str:
    content, _ = _content.read_text(file)
    return content.decode("utf-8")


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"{where}: {text!r} is no number", expected="a number, as @targetLabel says") from error
