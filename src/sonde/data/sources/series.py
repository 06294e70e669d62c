"""Series to forecast: a column for each channel (CSV), rows of item, time and value, Monash's .tsf, M4's ragged CSV.

A record is a window: what is known of a series, and what comes next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from sonde.base import frequency
from sonde.base.config import Config
from sonde.base.errors import UserError, unknown
from sonde.base.frequency import Frequency
from sonde.contracts.records import Records
from sonde.data.source import Guess, Source
from sonde.data.sources import _content, _folders, _series_items, _series_labelled, _series_windows
from sonde.data.sources._series_guess import guess_table, has_times, labelled_columns, roles_of
from sonde.data.sources._series_items import Items, Roles
from sonde.data.sources._series_windows import Cut

# Lookbacks are so many horizons or seasons, whichever is longer, and no more than this share of what trains.
_TIMES, _MOST = 3, 0.25


class SeriesConfig(Config):
    kind: Literal["series"] = "series"
    time: str | None = Field(default=None, description="the column of time stamps; found if left out")
    item: str | None = Field(default=None, description="long tables: the column that names the series of a row")
    values: tuple[str, ...] = Field(default=(), description="the columns to forecast; all numbers if left out")
    past: tuple[str, ...] = Field(default=(), description="further columns, known up to the time of the forecast")
    known: tuple[str, ...] = Field(default=(), description="columns that are known ahead, too: prices, holidays")
    static: tuple[str, ...] = Field(default=(), description="columns with one value for each series: its kind, place")
    dates: dict[str, str] = Field(
        default={}, description='how columns write dates, where that is not clear: { day = "%d/%m/%Y" }'
    )
    frequency: str | None = Field(
        default=None, description="hourly, daily, monthly, 15_minutes, ...; found if left out"
    )
    lookback: int | None = Field(default=None, ge=1, description="steps that a forecast sees")
    horizon: int | None = Field(default=None, ge=1, description="steps that are forecast")
    train: float | None = Field(
        default=None, gt=0, description="share (or steps, from 1 on) of each series that trains; what is left"
    )
    validation: float = Field(default=0.1, ge=0, description="share (or steps) after that, to choose the weights by")
    test: float = Field(default=0.2, ge=0, description="share (or steps) after that, for the final scores")
    stride: int = Field(default=1, ge=1, description="steps from one training window to the next")

    @model_validator(mode="after")
    def _known_frequency(self) -> Self:
        if self.frequency is not None and frequency.named(self.frequency) is None:
            raise ValueError(f"{self.frequency!r} is none; write hourly, daily, weekly, monthly, yearly or 15_minutes")
        return self

    @property
    def given_frequency(self) -> Frequency | None:
        return None if self.frequency is None else frequency.named(self.frequency)


class Series(Source):
    """Fields "series" (L, channels), "future" (H, values), "time", "known", "item" and static columns; "split" follows
    time, "block" names neighbours whose horizons overlap."""

    Config: ClassVar = SeriesConfig
    distinct: ClassVar[bool] = True
    splits_itself: ClassVar[bool] = True

    @staticmethod
    def recognise(path: Path) -> bool:
        if _tsf(path) is not None or _series_items.ragged_files(path):
            return True
        table = _table(path)
        return table is not None and has_times(table)

    @staticmethod
    def guess(path: Path, target: str | None) -> Guess:
        config = SeriesConfig()
        notes: dict[str, str] = {}
        data: dict[str, object] = {}
        if _tsf(path) is None and not _series_items.ragged_files(path):
            table = _series_items.table_of(path, {})
            labelled = labelled_columns(table, target)
            if labelled is not None:
                columns = SimpleNamespace(**labelled, dates={})
                found = _series_labelled.from_table(path, columns)
                source = {"source": str(path), "kind": "labelled-series", **labelled}
                return _series_labelled.guess(path, found, source, labelled["label"])
            data, notes = guess_table(table, target)
            config = SeriesConfig.model_validate(data)
        elif target is not None:
            raise UserError(f"a file of series has no column {target!r} to forecast", expected="no --target")
        found, num_values, _ = _read(path, config)
        cut = _cut(found, config)
        records = Series.read(path, config)
        counts = {each: int((records.fields["split"] == each).sum()) for each in ("train", "validation", "test")}
        if found.horizon is not None:
            cut = replace(cut, validation=found.horizon, test=found.horizon)
        data |= {"lookback": cut.lookback, "horizon": cut.horizon, "validation": cut.validation, "test": cut.test}
        steps = sum(len(item.values) for item in found.items)
        warnings = tuple(records.notes)
        if counts["validation"] == 0:
            warnings = (*warnings, "no series is long enough to validate by: the last weights are taken")
        static = list(found.items[0].static)
        inputs: dict[str, dict[str, object]] = {"series": {"kind": "series", "field": "series"}}
        if "time" in records.fields:
            inputs["series"]["time"] = "time"
        if "known" in records.fields:
            inputs["series"]["known"] = "known"
        if static:
            inputs["static"] = {"kind": "table", "fields": static}
        several = f"{len(found.items):,} series" if len(found.items) > 1 else "one series"
        return Guess(
            about=f"{several} of {num_values} channel{'s' if num_values > 1 else ''}, {found.frequency}, "
            f"{steps:,} steps",
            count=len(records),
            data={
                "source": str(path),
                "kind": "series",
                "split": {"by": "given", "validation": 0, "test": 0},
                "group": "block",
                **data,
            },
            inputs=inputs,
            target={
                "kind": "future",
                "field": "future",
                "season": min(found.frequency.season, cut.lookback),
                "channels": list(found.channels[:num_values]),
            },
            notes={
                **notes,
                "data.split": "by time, as validation and test below say",
                "data.group": "neighbours share most of their horizon: intervals resample them together",
                "target.season": f"steps after which {found.frequency} series begin to repeat themselves",
                "data.horizon": f"{counts['train']:,} training, {counts['validation']:,} validation, "
                f"{counts['test']:,} test windows",
            },
            warnings=warnings,
        )

    @staticmethod
    def read(path: Path, config: SeriesConfig) -> Records:
        found, num_values, num_known = _read(path, config)
        return _series_windows.windows(found, _cut(found, config), num_values, num_known)

    @staticmethod
    def inputs(path: Path, config: SeriesConfig, fields: Sequence[str]) -> Records | None:
        if not path.is_file() and not Series.recognise(path):
            return None
        if config.known:
            raise UserError(
                f"the model needs what is known ahead ({', '.join(config.known)}), which a file of the past lacks",
                hint="give records in Python: model.predict({'series': past, 'known': past and future values, ...})",
            )
        found, _, _ = _read(path, config)
        return _series_windows.last_windows(found, _cut(found, config).lookback)

    @staticmethod
    def sample(folder: Path) -> Path:
        path = folder / "tides.csv"
        rows = [f"2024-01-{1 + hour // 24:02} {hour % 24:02}:00,{hour % 12},{hour % 24 / 2}" for hour in range(400)]
        path.write_text("\n".join(["time,level,light", *rows]) + "\n", encoding="utf-8")
        return path


def _tsf(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix.lower() == ".tsf" else None
    found = [each for each in _folders.entries(path) if each.suffix.lower() == ".tsf"] if path.is_dir() else []
    return found[0] if len(found) == 1 else None


def _table(path: Path) -> Path | None:
    """The one table that a path is or holds."""
    if path.is_file():
        return path if _content.table_format(path) in ("csv", "tsv", "parquet") else None
    found = _folders.tables(path) if path.is_dir() else []
    return found[0] if len(found) == 1 and _content.table_format(found[0]) in ("csv", "tsv", "parquet") else None


def _read(path: Path, config: SeriesConfig) -> tuple[Items, int, int]:
    """All series, and how many channels are to be forecast and how many are known ahead."""
    if not path.exists():
        raise UserError(f"the series {path} do not exist")
    tsf = _tsf(path)
    if tsf is not None:
        return _series_items.from_tsf(tsf, config.given_frequency), 1, 0
    if _series_items.ragged_files(path):
        return _series_items.from_ragged(path, config.given_frequency), 1, 0
    records = _series_items.table_of(path, config.dates)
    roles = _filled(records, config)
    found = _series_items.from_table(records, roles, config.given_frequency)
    return found, len(roles.values), len(roles.known)


def _filled(records: Records, config: SeriesConfig) -> Roles:
    """The roles of the columns: those of the settings, the others found."""
    named = (config.time, config.item, *config.values, *config.past, *config.known, *config.static)
    for name in named:
        if name is not None and name not in records.fields:
            raise unknown(name, records.fields, what="[data] names a column that is not there:")
    if config.time is None or not config.values:
        roles = roles_of(records, config.time, config.item)
        taken = {*config.past, *config.known, *config.static}
        values = config.values or tuple(name for name in roles.values if name not in taken)
        roles = replace(roles, values=values, time=config.time or roles.time)
    else:
        roles = Roles(time=config.time, item=config.item, values=config.values)
    return replace(roles, item=config.item or roles.item, past=config.past, known=config.known, static=config.static)


def _cut(found: Items, config: SeriesConfig) -> Cut:
    """How the series are cut, with what the settings leave to the data."""
    longest = max(len(item.values) for item in found.items)
    horizon = config.horizon or found.horizon or min(found.frequency.horizon, max(1, longest // 8))
    lookback = config.lookback
    if lookback is None:
        wanted = _TIMES * max(horizon, found.frequency.season)
        trains = longest - sum(_series_windows.steps_of(each, longest, horizon) for each in _held_out(config))
        lookback = max(1, min(wanted, int(_MOST * trains)))
        if longest <= 200:
            lookback = max(1, min(wanted, int(2 * _MOST * trains)))
    if longest <= horizon:
        raise UserError(
            f"the longest series has {longest} steps, and data.horizon is {horizon}", hint="a smaller data.horizon"
        )
    return Cut(
        lookback=lookback,
        horizon=horizon,
        train=config.train,
        validation=config.validation,
        test=config.test,
        stride=config.stride,
    )


def _held_out(config: SeriesConfig) -> tuple[float, float]:
    return config.validation, config.test
