"""One or several numbers: a price, an age, a temperature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field

from sonde import metrics
from sonde.base.config import Config
from sonde.base.errors import RecordError, UserError, unknown
from sonde.base.gradients import without_gradient
from sonde.base.number_formats import PLAIN, NumberFormat
from sonde.base.rng import BatchRng
from sonde.contracts.augment import AugmentParams, partner
from sonde.contracts.batch import Batch
from sonde.contracts.columns import Columns, EvalColumns, Tensors
from sonde.contracts.input import Input
from sonde.contracts.panel import Panel
from sonde.contracts.part import agree
from sonde.contracts.records import Records, format_of, numbers_of
from sonde.contracts.target import Prediction, Target
from sonde.targets import _panels as panels
from sonde.targets._classes import objects, text_of
from sonde.targets._sums import examples, weighted_sum

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sonde.contracts.classical import Problem

# The interquartile range of a normal distribution, in deviations.
NORMAL_RANGE = 1.349


class NumberConfig(Config):
    kind: Literal["number"] = "number"
    field: str = Field(default="value", description="the field that holds the number")
    fields: list[str] = Field(default=[], description="instead of field: several fields, learned together")
    loss: Literal["mse", "huber", "mae"] = Field(default="mse", description="huber and mae mind outliers less")
    delta: float = Field(default=1.0, gt=0, description="where huber turns from square to straight, in deviations")
    scale: Literal["standard", "robust"] = Field(
        default="standard",
        description="by mean and deviation; robust: by median and quartiles, which outliers do not move",
    )
    transform: Literal["none", "log"] = Field(
        default="none", description="log: learn the logarithm, for positive quantities"
    )


@dataclass(frozen=True, kw_only=True)
class Number(Target):
    """Truth: "value" float32 (B, F), one column a field, transformed and brought to about mean 0 and deviation 1.

    `centre` and `scale` are those of the training split. The loss is on that scale, summed over fields too and divided
    by their number; predictions and metrics are in the units of the data. Shape suffixes: B example, F field.
    """

    Config = NumberConfig
    baseline_name: ClassVar = "mean"
    best: ClassVar = ("rmse", "min")
    lower_is_better: ClassVar = frozenset({"rmse", "mae"})

    config: NumberConfig
    names: list[str]
    centre: list[float]
    scale: list[float]
    formats: list[NumberFormat]

    @classmethod
    def fit(cls, config: NumberConfig, records: Records, inputs: Mapping[str, Input]) -> Self:
        names = cls.fields(config)
        places = []
        formats: list[NumberFormat] = []
        for name in names:
            if name not in records.fields:
                raise unknown(name, records.fields, what="the field")
            formats.append(format_of(records.fields[name]))
            values = numbers_of(records.fields[name], formats[-1])
            # What is no number is named, record by record, when it is encoded.
            good = values[_is_good(values, config.transform)]
            _require_spread(name, records.fields[name], good)
            places.append(_place(_transformed(good, config.transform), config.scale))
        return cls(
            config=config,
            names=names,
            centre=[centre for centre, _ in places],
            scale=[scale for _, scale in places],
            formats=formats,
        )

    def check_fitted(self, inputs: Mapping[str, Input]) -> None:
        agree(self.names == self.fields(self.config), f"the names are {self.names}, not those of the settings")
        lengths = {len(self.names), len(self.centre), len(self.scale), len(self.formats)}
        agree(len(lengths) == 1, "names, centre, scale and formats are not one a field")
        agree(min(self.scale) > 0, "a scale is not above 0")

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator, given: Records) -> tuple[NumberConfig, Records]:
        fields = {"price": rng.lognormal(size=count), "age": rng.integers(1, 90, count)}
        return NumberConfig(fields=["price", "age"]), Records(fields=fields, ids=[f"row {i}" for i in range(count)])

    @staticmethod
    def fields(config: NumberConfig) -> list[str]:
        return config.fields or [config.field]

    def texts(self) -> list[str]:
        return [name for name, format in zip(self.names, self.formats, strict=True) if format != PLAIN]

    @property
    def width(self) -> int:
        return len(self.names)

    def encode_many(self, records: Records, given: Mapping[str, Columns]) -> tuple[Columns, dict[int, RecordError]]:
        values_NF = np.empty((len(records), len(self.names)))
        errors: dict[int, RecordError] = {}
        for column, name in enumerate(self.names):
            field = records.fields.get(name, objects([None] * len(records)))
            values = numbers_of(field, self.formats[column])
            good = _is_good(values, self.config.transform)
            for index in np.flatnonzero(~good):
                errors.setdefault(int(index), _wrong_number(field[index], values[index], name))
            values_NF[:, column] = _transformed(np.where(good, values, 1.0), self.config.transform)
        values_NF = (values_NF - np.array(self.centre)) / np.array(self.scale)
        kept = np.array([index not in errors for index in range(len(records))], dtype=bool)
        return {"value": torch.from_numpy(values_NF[kept].astype(np.float32))}, errors

    def apply_augment(self, truth: Tensors, params: AugmentParams) -> Tensors:
        if params.mix_weight_B is None:
            return truth
        value_BF = truth["value"]
        return {"value": torch.lerp(partner(value_BF), value_BF, params.mix_weight_B[:, None])}

    def counts(self, batch: Batch) -> Tensors:
        return {self.config.loss: examples(batch, each=len(self.names))}

    def loss(self, network: nn.Module, batch: Batch, rng: BatchRng) -> Tensors:
        answer_BF, value_BF = network(batch.inputs).float(), batch.truth["value"]
        if self.config.loss == "mse":
            cost_BF = torch.nn.functional.mse_loss(answer_BF, value_BF, reduction="none")
        elif self.config.loss == "mae":
            cost_BF = torch.nn.functional.l1_loss(answer_BF, value_BF, reduction="none")
        else:
            cost_BF = torch.nn.functional.huber_loss(answer_BF, value_BF, delta=self.config.delta, reduction="none")
        return {self.config.loss: weighted_sum(cost_BF, batch.weight_B)}

    @without_gradient
    def predict(self, network: nn.Module, batch: Batch) -> list[Prediction]:
        """{"value": x}, or {"values": {field: x}} where several fields are learned; in the units of the data."""
        rows = self._in_units(network(batch.inputs).float().cpu().numpy()).tolist()
        if not self.config.fields:
            return [{"value": row[0]} for row in rows]
        return [{"values": dict(zip(self.names, row, strict=True))} for row in rows]

    @without_gradient
    def eval_outputs(self, network: nn.Module, batch: Batch) -> Columns:
        """Answers and values (B, F), both on the scale of the loss, where float32 keeps their digits."""
        return {"answer": network(batch.inputs).float(), "value": batch.truth["value"]}

    def baseline(self, truth: Columns) -> Columns:
        """The mean (or the median, where scaling is robust) of training."""
        zeros_NF = torch.zeros(len(truth["value"]), len(self.names))
        return {"answer": zeros_NF, "value": truth["value"]}

    def costs(self, columns: EvalColumns) -> np.ndarray:
        """The mean absolute error, on the scale of the loss."""
        return np.abs(columns["answer"] - columns["value"]).mean(axis=1)

    def nonconformity(self, columns: EvalColumns) -> np.ndarray:
        """The absolute errors (N, F), on the scale of the loss."""
        return np.abs(columns["answer"].astype(np.float64) - columns["value"])

    def regions(self, answers: Tensor, limits: np.ndarray) -> list[Prediction]:
        """{"low", "high"}, or {"intervals": {field: [low, high]}} of several fields; none where a limit is infinite."""
        answer_BF = answers.float().cpu().numpy().astype(np.float64)
        low_BF, high_BF = self._in_units(answer_BF - limits), self._in_units(answer_BF + limits)
        ends = [
            [None if np.isinf(limit) else [low, high] for low, high, limit in zip(*row, strict=True)]
            for row in zip(low_BF.tolist(), high_BF.tolist(), limits.tolist(), strict=True)
        ]
        if not self.config.fields:
            return [{"low": one[0] if one else None, "high": one[1] if one else None} for (one,) in ends]
        return [{"intervals": dict(zip(self.names, row, strict=True))} for row in ends]

    def region_sizes(self, regions: Sequence[Prediction]) -> list[float]:
        sizes = []
        for each in regions:
            pairs = list(each["intervals"].values()) if "intervals" in each else [(each["low"], each["high"])]
            widths = [np.inf if pair is None or pair[0] is None else pair[1] - pair[0] for pair in pairs]
            sizes.append(float(np.mean(widths)))
        return sizes

    def panels(self, columns: EvalColumns) -> list[Panel]:
        true_NF, answer_NF = self._in_units(columns["value"]), self._in_units(columns["answer"])
        return [
            each
            for name, true, answer in zip(self.names, true_NF.T, answer_NF.T, strict=True)
            for each in panels.numbers(name, true, answer)
        ][:8]

    def _in_units(self, standard_BF: np.ndarray) -> np.ndarray:
        """From the scale of the loss to the units of the data; float64, for large numbers that differ little."""
        values_BF = standard_BF.astype(np.float64) * np.array(self.scale) + np.array(self.centre)
        # e**700 is near the largest float64: an answer stays a number that JSON can hold.
        return np.exp(np.minimum(values_BF, 700.0)) if self.config.transform == "log" else values_BF

    def classical(self, truth: Columns) -> Problem:
        from sonde.contracts.classical import Problem

        value_NF = truth["value"]
        assert isinstance(value_NF, torch.Tensor)
        return Problem(kind="numbers", width=self.width, truth=value_NF)

    def metrics(self, columns: Mapping[str, np.ndarray], weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        """rmse, mae and r2; for several fields their means, and each field's own as "rmse/<field>"."""
        true_NF, answer_NF = self._in_units(columns["value"]), self._in_units(columns["answer"])
        kinds = {"rmse": metrics.rmse, "mae": metrics.mae, "r2": metrics.r2}
        pairs = list(zip(true_NF.T, answer_NF.T, strict=True))
        each = {name: [score(true, answer, weights_RN) for true, answer in pairs] for name, score in kinds.items()}
        scores = {name: np.mean(values, axis=0) for name, values in each.items()}
        if self.config.fields:
            for name, values in each.items():
                scores |= {f"{name}/{field}": value for field, value in zip(self.names, values, strict=True)}
        return scores


def _is_good(values: np.ndarray, transform: str) -> np.ndarray:
    return np.isfinite(values) & ((values > 0) if transform == "log" else True)


def _transformed(values: np.ndarray, transform: str) -> np.ndarray:
    return np.log(values) if transform == "log" else values


def _place(values: np.ndarray, scale: str) -> tuple[float, float]:
    """The centre and the spread of numbers."""
    if scale == "robust":
        low, middle, high = np.percentile(values, [25, 50, 75])
        if high > low:
            return float(middle), float((high - low) / NORMAL_RANGE)
    # Logarithms of numbers that hardly differ may not differ at all.
    return float(values.mean()), float(values.std()) or 1.0


def _require_spread(name: str, field: np.ndarray, good: np.ndarray) -> None:
    if not len(good):
        shown = repr(field[0].item() if isinstance(field[0], np.generic) else field[0]) if len(field) else "nothing"
        raise UserError(
            f"field {name!r} has no usable number in the training split; it holds {shown}",
            expected="finite numbers, above zero where target.transform is log",
            hint='names are learned by the target kind "category"',
        )
    if (good == good[0]).all():
        raise UserError(
            f"all {len(good):,} values in field {name!r} of the training split are {good[0]:g}",
            expected="numbers that differ",
            hint="look at data.split, or choose another target.field",
        )


def _wrong_number(value: object, number: float, name: str) -> RecordError:
    if np.isfinite(number):
        return RecordError(
            f"the value {number:g} in field {name!r} has no logarithm",
            expected="a number above zero",
            hint="set target.transform to none",
        )
    if text_of(value) is None:
        return RecordError(f"the value in field {name!r} is missing or NaN", expected="a finite number")
    shown = repr(value) if isinstance(value, str) else str(value)
    return RecordError(f"the value {shown} in field {name!r} is not a finite number", expected="a finite number")
