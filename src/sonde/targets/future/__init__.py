"""The future of a series: the next steps of every channel, as one number each or as quantiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import numpy as np
import torch
from pydantic import Field, field_validator

from sonde.base.config import Config
from sonde.base.errors import RecordError, UserError, unknown
from sonde.base.gradients import without_gradient
from sonde.base.rng import BatchRng
from sonde.base.stretches import locate
from sonde.contracts.batch import Batch
from sonde.contracts.columns import Columns, EvalColumns, Ragged, Tensors
from sonde.contracts.input import Input
from sonde.contracts.panel import Panel
from sonde.contracts.part import agree
from sonde.contracts.records import Record, Records
from sonde.contracts.specs import Advice, FeatureWidth, InputSpec, OutputSpec
from sonde.contracts.target import Prediction, Target
from sonde.targets._sums import weighted_sum
from sonde.targets.future import drawing, scores
from sonde.targets.future.head import FutureHead
from sonde.targets.future.scales import error_scales

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from torch import Tensor, nn

# Examples whose baseline is computed at once.
CHUNK = 256


class FutureConfig(Config):
    kind: Literal["future"] = "future"
    field: str = Field(default="future", description="the field that holds what comes next: steps by channels")
    input: str | None = Field(default=None, description="the series that goes on; the only one if left out")
    item: str | None = Field(default="item", description="the field that names the series of a record, if there is one")
    channels: tuple[str, ...] = Field(default=(), description="names of the channels, for answers and scores")
    season: int = Field(default=1, ge=1, description="steps after which the series begins to repeat itself")
    loss: Literal["quantile", "mse", "mae", "huber"] = Field(
        default="quantile", description="quantile: answers are quantiles; mse: the mean; mae: the median"
    )
    quantiles: tuple[float, ...] = Field(
        default=(0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975), description="levels of the quantiles, 0.5 among them"
    )
    per: Literal["channel", "example"] = Field(
        default="channel",
        description="channel: every channel is forecast from features of its own; example: all from the same",
    )

    @field_validator("quantiles")
    @classmethod
    def _are_levels(cls, levels: tuple[float, ...]) -> tuple[float, ...]:
        if list(levels) != sorted(set(levels)) or not levels or not 0 < levels[0] <= levels[-1] < 1:
            raise ValueError("quantiles are levels between 0 and 1 that rise")
        if 0.5 not in levels:
            raise ValueError("0.5 is not among the quantiles: the median is the forecast")
        return levels


@runtime_checkable
class Continues(Protocol):
    """A series input whose windows can be forecast: scales of its channels, and what is known of the steps ahead."""

    centre: list[float]
    scale: list[float]
    ahead: int

    @property
    def num_known(self) -> int: ...

    def times_ahead(self, record: Record, length: int | None = None) -> np.ndarray: ...


@dataclass(frozen=True, kw_only=True)
class Future(Target):
    """Truth: "future" float32 (B, H, C) by the scales of the training split, NaN where missing; of the given past its
    last "season" (B, m, C); "error_scales" (B, 2, C): mean absolute and mean squared seasonal difference of the series
    in training, in the units of the data (of the record's own past, where training does not know the series).

    Beside inputs of other kinds it learns several steps of several channels, without the naive forecasts beside it.
    Shape suffixes: B example, C channel, H step ahead, Q quantile, m step of a season, T step of the past.
    """

    Config = FutureConfig
    asks: ClassVar = OutputSpec(per=("channel", "example"))
    best: ClassVar = ("mae", "min")
    baseline_name: ClassVar = "seasonal naive"
    lower_is_better: ClassVar = frozenset({"mse", "mae", "mase", "rmsse", "smape", "wql", "crps", "rmse"})
    no_shares: ClassVar = frozenset({"skill", "skill_over_naive"})
    ragged: ClassVar = ("future", "season")

    config: FutureConfig
    history: str | None
    horizon: int
    names: list[str]
    centre: list[float]
    scale: list[float]
    num_known: int
    items: list[str]
    item_scales: Tensor

    @classmethod
    def fit(cls, config: FutureConfig, records: Records, inputs: Mapping[str, Input]) -> Self:
        if config.field not in records.fields:
            raise unknown(config.field, records.fields, what="the field")
        truths = [_array(value) for value in records.fields[config.field]]
        good = [value for value in truths if isinstance(value, np.ndarray)]
        if not good:
            raise UserError(f"no training record has numbers in field {config.field!r}", expected="steps by channels")
        horizon, channels = good[0].shape
        history = _history(config, inputs)
        part = None if history is None else inputs[history]
        if isinstance(part, Continues) and len(part.centre) >= channels:
            centre, scale, num_known = part.centre[:channels], part.scale[:channels], part.num_known
            if num_known and part.ahead != horizon:
                raise UserError(
                    f"the series is known {part.ahead} steps ahead, and {horizon} are to be forecast",
                    expected="time stamps and known values for all of the horizon",
                )
        else:
            history, num_known = None, 0
            whole = np.concatenate(good)
            centre, scale = np.nanmean(whole, 0).tolist(), (np.nanstd(whole, 0) + 1e-9).tolist()
        items, item_scales = error_scales(config, records, truths, history, inputs)
        names = list(config.channels) or ([f"channel {n + 1}" for n in range(channels)] if channels > 1 else ["value"])
        if len(names) != channels:
            raise UserError(f"target.channels names {len(names)} channels, the data has {channels}")
        return cls(
            config=config,
            history=history,
            horizon=horizon,
            names=names,
            centre=centre,
            scale=scale,
            num_known=num_known,
            items=items,
            item_scales=torch.from_numpy(item_scales),
        )

    def check_fitted(self, inputs: Mapping[str, Input]) -> None:
        agree(self.horizon >= 1, f"horizon is {self.horizon}")
        agree(len(self.names) == len(self.centre) == len(self.scale) >= 1, "names and scales are not one a channel")
        agree(min(self.scale) > 0, "a scale is not above 0")
        shape = (len(self.items), 2, len(self.names))
        agree(tuple(self.item_scales.shape) == shape, f"item_scales have shape {tuple(self.item_scales.shape)}")
        agree(self.history is None or self.history in inputs, f"its series is {self.history!r}")
        if self.history is not None:
            part = inputs[self.history]
            agree(isinstance(part, Continues) and part.num_known == self.num_known, "what is known ahead differs")
            agree(len(self.names) <= part.spec.channels, "the series has fewer channels than are forecast")

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator, given: Records) -> tuple[FutureConfig, Records]:
        future = np.empty(count, dtype=object)
        future[:] = [None] * count
        for place in range(count):
            future[place] = rng.normal(size=(4, 1)).cumsum(axis=0)
        config = FutureConfig(season=3, quantiles=(0.1, 0.5, 0.9))
        return config, Records(fields={"future": future}, ids=[f"future {index}" for index in range(count)])

    @classmethod
    def recommend(cls, config: FutureConfig, inputs: Mapping[str, Config], records: Records) -> Advice:
        return Advice()

    @property
    def monitor(self) -> tuple[str, Literal["max", "min"]]:
        return {"mse": "mse", "quantile": "wql"}.get(self.config.loss, "mae"), "min"

    @property
    def levels(self) -> tuple[float, ...]:
        """The levels of the answers: (0.5,) where they are points."""
        return self.config.quantiles if self.config.loss == "quantile" else (0.5,)

    def outputs(self, inputs: Mapping[str, InputSpec]) -> dict[str, OutputSpec]:
        by_channel = self.history is not None and self.config.per == "channel"
        return {
            name: OutputSpec(per=("channel",) if by_channel and name == self.history else ("example",))
            for name in inputs
        }

    def head(self, widths: Mapping[str, FeatureWidth]) -> nn.Module:
        by_channel = self.history is not None and self.config.per == "channel"
        return FutureHead(
            {name: width for name, width in widths.items() if isinstance(width, int)},
            main=self.history if by_channel else None,
            channels=len(self.names),
            horizon=self.horizon,
            answers=len(self.levels),
            known=self.num_known,
        )

    def encode(self, record: Record, given: Mapping[str, Tensors]) -> Tensors:
        columns: dict[str, Columns] = {}
        for name, tensors in given.items():
            columns[name] = {key: value[None] for key, value in tensors.items()}
            if name == self.history:
                columns[name]["frames"] = Ragged.of([tensors["frames"]])
        found, errors = self.encode_many(Records.of([record]), columns)
        if errors:
            raise errors[0]
        return {name: column[0] for name, column in found.items()}

    def encode_many(self, records: Records, given: Mapping[str, Columns]) -> tuple[Columns, dict[int, RecordError]]:
        values = [self._checked(value) for value in records.fields.get(self.config.field, np.full(len(records), None))]
        errors = {index: value for index, value in enumerate(values) if isinstance(value, RecordError)}
        good = [value for value in values if isinstance(value, np.ndarray)]
        if not good:
            return {}, errors
        found = locate(good)
        standard = [((part - self.centre) / self.scale).astype(np.float32) for part in found.parts]
        columns: Columns = {
            "future": Ragged(
                values=torch.from_numpy(np.concatenate(standard)),
                starts=torch.from_numpy(found.starts),
                lengths=torch.from_numpy(found.lengths),
            )
        }
        if self.history is not None:
            frames = given[self.history]["frames"]
            assert isinstance(frames, Ragged)
            kept = torch.tensor([index for index in range(len(values)) if index not in errors])
            frames = frames.take(kept)
            lengths = frames.lengths.clamp(max=self.config.season)
            columns["season"] = Ragged(
                values=frames.values[:, : len(self.names)],
                starts=frames.starts + frames.lengths - lengths,
                lengths=lengths,
            )
            columns["error_scales"] = self._error_scales(records, kept, frames)
        return columns, errors

    def _error_scales(self, records: Records, kept: Tensor, frames: Ragged) -> Tensor:
        known = {name: place for place, name in enumerate(self.items)}
        names = records.fields.get(self.config.item or "")
        rows: list[int] = kept.tolist()
        places = torch.tensor([known.get("" if names is None else str(names[index]), -1) for index in rows])
        found = torch.zeros(len(places), 2, len(self.names))
        if self.items:
            found = torch.where((places >= 0)[:, None, None], self.item_scales[places.clamp_min(0)], found)
        for row in torch.nonzero(places < 0).flatten().tolist():
            past = frames[row][:, : len(self.names)] * torch.tensor(self.scale)
            gaps = past[self.config.season :] - past[: -self.config.season]
            found[row] = torch.stack([gaps.abs().nanmean(0), gaps.square().nanmean(0)]).nan_to_num()
        return found

    def _checked(self, value: object) -> Any:
        """What comes next as an array (H, C), or what is wrong with it."""
        found = _array(value)
        if isinstance(found, RecordError):
            return found
        if found.shape != (self.horizon, len(self.names)):
            return RecordError(
                f"what comes next, in field {self.config.field!r}, has shape {found.shape}",
                expected=f"{self.horizon} steps by {len(self.names)} channels, as in training",
            )
        if np.isinf(found).any():
            return RecordError("what comes next has a value that is infinite", expected="finite numbers or NaN")
        return found

    def collate(self, columns: Columns) -> Tensors:
        """ "future" (B, H, C); "season" (B, m, C), padded at its end, and "season_length" (B,)."""
        tensors: Tensors = {}
        for name, column in columns.items():
            if isinstance(column, Ragged):
                tensors[name] = column.padded()
                if name == "season":
                    tensors["season_length"] = column.lengths
            else:
                tensors[name] = column
        return tensors

    def counts(self, batch: Batch) -> Tensors:
        there_B = (~batch.truth["future"].isnan()).flatten(1).sum(1).float() * len(self.levels)
        return {self.config.loss: weighted_sum(there_B, batch.weight_B)}

    def loss(self, network: nn.Module, batch: Batch, rng: BatchRng) -> Tensors:
        answer_BCHQ = self._answers(network, batch)
        true_BCH = batch.truth["future"].transpose(1, 2)
        there_BCH1 = ~true_BCH.isnan()[..., None]
        error_BCHQ = true_BCH.nan_to_num()[..., None] - answer_BCHQ
        if self.config.loss == "quantile":
            levels_Q = error_BCHQ.new_tensor(self.levels)
            cost_BCHQ = torch.maximum(levels_Q * error_BCHQ, (levels_Q - 1) * error_BCHQ)
        elif self.config.loss == "mse":
            cost_BCHQ = error_BCHQ.square()
        elif self.config.loss == "mae":
            cost_BCHQ = error_BCHQ.abs()
        else:
            cost_BCHQ = torch.nn.functional.huber_loss(error_BCHQ, torch.zeros_like(error_BCHQ), reduction="none")
        return {self.config.loss: weighted_sum(cost_BCHQ * there_BCH1, batch.weight_B)}

    def _answers(self, network: nn.Module, batch: Batch) -> Tensor:
        """The network's answers on the scale of the training split, float32 (B, C, H, Q)."""
        given = {} if self.history is None else batch.inputs[self.history]
        ahead = given.get("ahead") if self.num_known else None
        answer_BCHQ = (network(batch.inputs) if ahead is None else network(batch.inputs, ahead)).float()
        if "window_scale" in given:
            wide = len(self.names)
            scale_BC11 = given["window_scale"][:, :wide, None, None]
            answer_BCHQ = answer_BCHQ * scale_BC11 + given["window_centre"][:, :wide, None, None]
        return answer_BCHQ

    def _forecast(self, network: nn.Module, batch: Batch) -> Tensor:
        """As `_answers`, quantiles in their order."""
        return self._answers(network, batch).sort(dim=-1).values

    @without_gradient
    def predict(self, network: nn.Module, batch: Batch) -> list[Prediction]:
        """{"forecast": {channel: [...]}}, and where quantiles are learned "quantiles": {level: {channel: [...]}}; in
        the units of the data."""
        units_BCHQ = self._in_units(self._forecast(network, batch).double().cpu().numpy())
        middle = self.levels.index(0.5)
        found: list[Prediction] = []
        for units_CHQ in units_BCHQ:
            answer: Prediction = {"forecast": self._named(units_CHQ[:, :, middle])}
            if len(self.levels) > 1:
                answer["quantiles"] = {
                    f"{level:g}": self._named(units_CHQ[:, :, place]) for place, level in enumerate(self.levels)
                }
            found.append(answer)
        return found

    def _named(self, values_CH: np.ndarray) -> dict[str, list[float]]:
        return {name: row.tolist() for name, row in zip(self.names, values_CH, strict=True)}

    def _in_units(self, standard_BCHQ: np.ndarray) -> np.ndarray:
        column = (1, -1, 1, 1)
        return standard_BCHQ * np.reshape(self.scale, column) + np.reshape(self.centre, column)

    def decode(
        self, predictions: list[Prediction], inputs: Mapping[str, Input], records: Records | None = None
    ) -> list[Prediction]:
        """Adds "time", the time stamps of the forecast, where the records have some."""
        part = None if self.history is None else inputs[self.history]
        if records is None or not isinstance(part, Continues):
            return predictions
        found = []
        for prediction, record in zip(predictions, records, strict=True):
            try:
                times = np.datetime_as_string(part.times_ahead(record)).tolist()
            except RecordError:
                times = []
            found.append({"time": times, **prediction} if len(times) == self.horizon else prediction)
        return found

    @without_gradient
    def eval_outputs(self, network: nn.Module, batch: Batch) -> Columns:
        return {**self._measured(self._forecast(network, batch), batch.truth)}

    def baseline(self, truth: Columns) -> Columns | None:
        """The seasonal naive forecast: every step as the one a season before."""
        if self.history is None:
            return None
        from sonde.contracts.columns import take

        count, parts = len(truth["future"]), []
        for start in range(0, count, CHUNK):
            some = self.collate(take(truth, torch.arange(start, min(start + CHUNK, count))))
            naive_BCHQ = scores.seasonal_naive(some, self.horizon)[..., None].expand(-1, -1, -1, len(self.levels))
            parts.append(self._measured(naive_BCHQ, some))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _measured(self, answer_BCHQ: Tensor, truth: Tensors) -> Tensors:
        return scores.measure(
            answer_BCHQ,
            truth,
            levels=self.levels,
            centre=answer_BCHQ.new_tensor(self.centre, dtype=torch.float64),
            scale=answer_BCHQ.new_tensor(self.scale, dtype=torch.float64),
        )

    def metrics(self, columns: EvalColumns, weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        """mse and mae (by the scales of the training split), mase, rmsse, smape, and for quantiles wql, crps, and how
        often the truth lies inside central intervals; skill over the seasonal naive and the naive forecast."""
        return scores.metrics(columns, weights_RN, self.levels, self.names)

    def costs(self, columns: EvalColumns) -> np.ndarray:
        """The mean absolute error, by the scales of the training split."""
        return columns["absolute"].sum(1) / np.maximum(columns["count"].sum(1), 1)

    def panels(self, columns: EvalColumns) -> list[Panel]:
        return drawing.panels(columns, self.levels, self.names[0])

    def draw(self, prediction: Prediction, record: Record, inputs: Mapping[str, Input]) -> Picture | None:
        """The end of the past and the forecast as a fan, a picture for all channels."""
        if self.history is None:
            return None
        return drawing.fan(prediction, record.get(inputs[self.history].config.field), self.levels)


def _history(config: FutureConfig, inputs: Mapping[str, Input]) -> str | None:
    """The series that goes on; None where no input is one."""
    series = [name for name, part in inputs.items() if isinstance(part, Continues)]
    if config.input is not None:
        if config.input not in inputs:
            raise unknown(config.input, inputs, what="target.input: the input")
        return config.input if config.input in series else None
    if len(series) > 1:
        raise UserError(
            f"target 'future' can go on with several inputs: {', '.join(series)}", hint="choose one with target.input"
        )
    return series[0] if series else None


def _array(value: object) -> np.ndarray | RecordError:
    if value is None:
        return RecordError("the record says nothing of what comes next", expected="steps by channels")
    try:
        found = value if isinstance(value, np.ndarray) and value.dtype == np.float64 else np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        return RecordError(f"what comes next is no array of numbers: {error}", expected="steps by channels")
    found = found[:, None] if found.ndim == 1 else found
    if found.ndim != 2 or not found.size:
        return RecordError(f"what comes next has shape {found.shape}", expected="steps by channels")
    return found
