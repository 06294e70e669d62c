"""Rows of a table: numbers, categories and dates, with missing values; whole columns are encoded at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from sonde.base.config import Config
from sonde.base.errors import RecordError, UserError, near
from sonde.base.number_formats import PLAIN
from sonde.base.threads import each
from sonde.contracts.columns import Columns, Tensors, take
from sonde.contracts.finding import Finding
from sonde.contracts.input import Input
from sonde.contracts.part import agree
from sonde.contracts.records import Record, Records, is_missing
from sonde.contracts.specs import Advice, InputSpec, OutputSpec
from sonde.inputs import _corrupt, _table

# Tables of fewer rows are small; so many columns are not embedded number by number there.
FEW = 2000
MANY = 100


class TableConfig(Config):
    kind: Literal["table"] = "table"
    fields: tuple[str, ...] = Field(min_length=1, description="the columns to learn from")
    categories: tuple[str, ...] = Field(
        default=(), description="fields to take as categories though they hold numbers, or many different texts"
    )
    scale: _table.Scale = Field(
        default="quantile",
        description="numbers: standard (mean 0, deviation 1), robust (by quartiles, clipped) or quantile (made normal)",
    )
    min_count: int = Field(default=2, ge=1, description="categories that training shows less often count as unknown")
    allow_missing: bool = Field(
        default=False, description="answer also where a field is missing that the training split never missed"
    )
    allow_unknown: bool = Field(default=True, description="answer also for a category that training never showed")

    @model_validator(mode="after")
    def _categories_are_fields(self) -> Self:
        for field in self.categories:
            if field not in self.fields:
                raise ValueError(f"categories names {field!r}, which is not one of fields")
        return self


@dataclass(frozen=True, kw_only=True)
class Table(Input):
    """One row a record: "numbers" float32 (C,) and "categories" int64 (K,); either may be empty.

    `columns` are those of `_table`, in the order of the fields. A missing number becomes 0, which is the mean, and
    where the training split had missing ones a further number says so. Category 0 is what training never showed, or
    too seldom; a missing category that training showed is a category of its own.
    """

    Config = TableConfig

    config: TableConfig
    columns: list[_table.TableColumn]

    @classmethod
    def fit(cls, config: TableConfig, records: Records) -> Self:
        for field in config.fields:
            if field not in records.fields:
                close = near(field, records.fields)
                raise UserError(
                    f"the table has no field {field!r}",
                    expected="one of: " + ", ".join(records.fields),
                    hint=f"did you mean {close!r}?" if close else None,
                )
        return cls(
            config=config,
            columns=[
                _table.learn(
                    field,
                    records.fields[field],
                    scale=config.scale,
                    min_count=config.min_count,
                    listed=field in config.categories,
                )
                for field in config.fields
            ],
        )

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator) -> tuple[TableConfig, Records]:
        size, colour = rng.normal(10, 3, count), np.array(["red", "blue", None], dtype=object)
        size[1::5] = np.nan
        return TableConfig(fields=("size", "rooms", "colour", "new", "sold"), min_count=1), Records(
            fields={
                "size": size,
                "rooms": rng.integers(1, 7, count),
                "colour": colour[np.arange(count) % 3],
                "new": (np.arange(count) % 2 == 0).astype(object),
                "sold": np.datetime64("2024-02-28T06:30:00") + np.arange(count) * np.timedelta64(25, "h"),
            },
            ids=[f"row {index}" for index in range(count)],
        )

    @staticmethod
    def fields(config: TableConfig) -> list[str]:
        return list(config.fields)

    @staticmethod
    def recommend(config: TableConfig, output: OutputSpec, records: Records) -> Advice:
        count = len(records)
        # Where values are missing at all, a small training split may by chance not miss any of a field.
        missing = any(is_missing(records.fields[field]).any() for field in config.fields)
        own = {"allow_missing": True} if missing else {}
        if count < FEW:
            # docs/log.md, "defaults for tables": under Muon strong decay bounds the singular values of each layer. That
            # holds on few records where choosing a checkpoint by fewer still does not.
            many = len(config.fields) > MANY
            plain = {"numeric_embedding": "none", "dropout": 0.3}
            embedded = {"numeric_embedding": "piecewise", "embedding": 8, "resolution": 16, "dropout": 0.1}
            return Advice(
                input={**({"scale": "robust"} if many else {}), **own},
                network={"kind": "mlp", **(plain if many else embedded)},
                training={
                    "epochs": 100,
                    "batch_size": 64,
                    "optimizer": {"kind": "muon", "lr": 0.02, "weight_decay": 0.7},
                    "schedule": {"kind": "warmup-cosine", "warmup": 0.05},
                    "checkpoint": "last",
                },
                leads=False,
            )
        return Advice(
            input=own,
            network={"kind": "mlp"},
            training={
                # Of 4,000 rows 20 epochs are 250 steps; with three times as many, accuracy rises from 0.79 to 0.83.
                "epochs": max(20, min(100, round(240_000 / count))) if count < 50_000 else 10,
                "batch_size": 256,
                # California housing, 20 epochs of one-cycle: RMSE 0.470 with muon, 0.489 with adamw at 2e-3.
                "optimizer": {"kind": "muon", "lr": 0.02},
                "schedule": {"kind": "one-cycle"},
            },
        )

    def check_fitted(self, inputs: Mapping[str, Input]) -> None:
        fields = [column["field"] for column in self.columns]
        agree(fields == list(self.config.fields), f"the columns are {fields}, the fields {list(self.config.fields)}")
        for column in self.columns:
            _table.check(column)

    @property
    def spec(self) -> InputSpec:
        sizes = tuple(len(column["values"]) + 1 for column in self.columns if column["kind"] == "category")
        return InputSpec(layout="columns", channels=sum(map(_table.width, self.columns)), categories=sizes)

    def show(self, record: Record) -> dict[str, Any]:
        return {"values": {name: _shown(record.get(name)) for name in self.config.fields}}

    def named(self, columns: Columns) -> dict[str, np.ndarray]:
        """Numbers as they are scaled, categories as their ids; of a date its place in time."""
        numbers, categories = columns["numbers"], columns["categories"]
        assert isinstance(numbers, torch.Tensor)
        assert isinstance(categories, torch.Tensor)
        found: dict[str, np.ndarray] = {}
        number = category = 0
        for column in self.columns:
            if column["kind"] == "category":
                found[column["field"]] = categories[:, category].numpy()
                category += 1
            else:
                found[column["field"]] = numbers[:, number].numpy()
                number += _table.width(column)
        return found

    def audit(self, columns: Columns, ids: Sequence[str]) -> list[Finding]:
        named = self.named(columns)
        constant = [name for name, values in named.items() if len(values) and (values == values[0]).all()]
        return [
            Finding(
                check="constant columns",
                verdict="warn" if constant else "pass",
                text=f"{len(constant)} of {len(named)} columns have one value only"
                + (f": {', '.join(constant[:5])}" if constant else ""),
                fix="take them out of inputs.<name>.fields: they say nothing",
                numbers={"columns": constant},
            )
        ]

    @property
    def corruptions(self) -> Sequence[str]:
        return tuple(kind for kind in _corrupt.TABLES if self._corruptible(kind))

    def corrupt(self, records: Records, kind: str, severity: int, rng: np.random.Generator) -> Records:
        changed = {
            name: _corrupt.column(records.fields[name], kind, severity, rng)
            for name in self._corruptible(kind)
            if name in records.fields
        }
        return records.with_fields(**changed)

    def _corruptible(self, kind: str) -> list[str]:
        """The columns that it can happen to: noise to numbers, a loss where training knew losses."""
        if kind == "noise":
            return [column["field"] for column in self.columns if column["kind"] == "number"]
        lost = kind == "missing values" and not self.config.allow_missing
        return [column["field"] for column in self.columns if not lost or column["missing"]]

    def texts(self) -> list[str]:
        return [column["field"] for column in self.columns if column["kind"] == "number" and column["format"] != PLAIN]

    def encode(self, record: Record) -> Tensors:
        columns, errors = self.encode_many(Records.of([record]))
        if errors:
            raise errors[0]
        return {name: column[0] for name, column in columns.items()}

    def encode_many(self, records: Records) -> tuple[Columns, dict[int, RecordError]]:
        count, nothing = len(records), np.full(len(records), None)
        # Numbers are computed in numpy, which lets go of the interpreter: many rows gain from several columns at once.
        results = each(
            lambda one: _table.encode(one, records.fields.get(one["field"], nothing)),
            self.columns,
            threads=count > 1000,
        )
        errors: dict[int, RecordError] = {}
        parts: dict[str, list[np.ndarray]] = {"number": [np.empty((count, 0), np.float32)], "category": []}
        for column, result in zip(self.columns, results, strict=True):
            parts["category" if column["kind"] == "category" else "number"].append(result.values)
            errors = {**result.errors, **errors}
            if not column["missing"] and not self.config.allow_missing:
                for index in np.flatnonzero(result.absent).tolist():
                    errors.setdefault(index, _table.missing(column["field"]))
            if column["kind"] == "category" and not self.config.allow_unknown:
                for index in np.flatnonzero((result.values == 0) & ~result.absent).tolist():
                    errors.setdefault(index, _table.unknown_category(column, records.fields[column["field"]][index]))
        ids = np.stack(parts["category"], axis=1) if parts["category"] else np.empty((count, 0), np.int64)
        numbers = np.concatenate(parts["number"], axis=1)
        columns: Columns = {"numbers": torch.from_numpy(numbers), "categories": torch.from_numpy(ids)}
        if not errors:
            return columns, {}
        good = [index for index in range(count) if index not in errors]
        return (take(columns, torch.tensor(good)) if good else {}), dict(sorted(errors.items()))


def _shown(value: object) -> str:
    """A cell as people read it."""
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else f"{float(value):.6g}"
    return "" if value is None else str(value)
