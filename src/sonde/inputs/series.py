"""A series: numbers in time, one channel or several; a window of it to forecast from, or a whole one to classify."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field

from sonde.base import frequency
from sonde.base.config import Config
from sonde.base.errors import RecordError, UserError, unknown
from sonde.base.frequency import Frequency
from sonde.base.rng import BatchRng
from sonde.base.stretches import Stretches, locate
from sonde.contracts.augment import AugmentParams
from sonde.contracts.columns import Columns, Ragged, Tensors
from sonde.contracts.finding import Finding, judged
from sonde.contracts.input import Input
from sonde.contracts.part import agree
from sonde.contracts.records import Record, Records
from sonde.contracts.specs import Advice, InputSpec, OutputSpec
from sonde.inputs import _calendar

if TYPE_CHECKING:
    from torch import Tensor

# A deviation within a window below this share of the training split's is not divided by.
LEAST = 1e-3
# Records from which on networks of convolutions are trained for fewer epochs.
MANY = 2000
# Steps of a series on a report.
SHOWN = 400


class Augment(Config):
    """What is done at random to training series. Zero switches a part off."""

    noise: float = Field(default=0.0, ge=0, description="deviation of noise that is added, in deviations of a channel")
    scale: float = Field(default=0.0, ge=0, lt=1, description="largest change of a series' size, as a share")


class SeriesConfig(Config):
    kind: Literal["series"] = "series"
    field: str = Field(default="series", description="the field that holds the values: steps by channels")
    time: str | None = Field(default=None, description="the field of time stamps: calendar features are made of them")
    known: str | None = Field(
        default=None, description="the field of what is known ahead, too, for all steps of the past and the future"
    )
    future: str | None = Field(default="future", description="the field that goes on: in training scaling learns of it")
    length: int | None = Field(
        default=None, ge=1, description="most steps, the latest ones are kept; the longest of training if left out"
    )
    normalize: Literal["instance", "last", "none"] = Field(
        default="none",
        description="instance: each window by its own mean and deviation, undone in forecasts; last: by its last value",
    )
    augment: Augment = Field(default=Augment(), description="random changes, in training only")


@dataclass(frozen=True, kw_only=True)
class Series(Input):
    """One series a record: "frames" float32 (T, C) by `centre` and `scale` of the training split, NaN where missing.

    `preprocess` fills what is missing with the value before it, and normalizes each window: "window_centre" and
    "window_scale" (B, C) undo that. Where there are time stamps or what is known ahead, "ahead" float32 (A, K) are the
    calendar and the known values of the `ahead` steps that follow.
    Shape suffixes: B example, T step, C channel, A step ahead, K number known of a step.
    """

    Config = SeriesConfig
    ragged: ClassVar[tuple[str, ...]] = ("frames", "ahead")

    config: SeriesConfig
    length: int
    centre: list[float]
    scale: list[float]
    ahead: int
    months: int
    seconds: int
    cycles: list[str]
    known_centre: list[float]
    known_scale: list[float]

    @classmethod
    def fit(cls, config: SeriesConfig, records: Records) -> Self:
        for name in cls.fields(config):
            if name not in records.fields:
                raise unknown(name, records.fields, what="the field")
        found = [_array(value) for value in records.fields[config.field]]
        read = [value for value in found if isinstance(value, np.ndarray)]
        if not read:
            first = next(iter(found))
            raise UserError(
                f"none of the {len(records)} training records has a series in field {config.field!r}: {first}",
                expected="arrays or lists of numbers, steps by channels",
            )
        channels = max(value.shape[1] for value in read)
        later = [_array(value) for value in records.fields.get(config.future or "", ())]
        rows = [value for value in (*found, *later) if isinstance(value, np.ndarray) and value.shape[1] == channels]
        # Windows of one series overlap: each of its steps counts once.
        centre, scale = _standard(locate(rows).parts)
        ahead, step, span, known = cls._what_is_ahead(config, records, found)
        known_centre, known_scale = _standard(known) if known else ([], [])
        return cls(
            config=config,
            length=config.length or max(map(len, read)),
            centre=centre,
            scale=scale,
            ahead=ahead,
            months=step.months,
            seconds=step.seconds,
            cycles=_calendar.names(step.months, step.seconds, span),
            known_centre=known_centre,
            known_scale=known_scale,
        )

    @classmethod
    def _what_is_ahead(
        cls, config: SeriesConfig, records: Records, found: Sequence[Any]
    ) -> tuple[int, Frequency, int, list[np.ndarray]]:
        """Steps ahead of which something is known, the frequency of time stamps and the seconds from the first of them
        to the last, and the known values of training."""
        lengths = {
            len(records.fields[name][place]) - len(found[place])
            for name in (config.time, config.known)
            if name is not None
            for place in range(len(records))
            if isinstance(found[place], np.ndarray) and records.fields[name][place] is not None
        }
        if len(lengths) > 1 or min(lengths, default=0) < 0:
            raise UserError(
                "training records know of different numbers of steps ahead",
                expected="time stamps and known values for all steps of the past and of the future",
            )
        step, span = Frequency(), 0
        if config.time is not None:
            stamps = [np.asarray(value, "datetime64[s]") for value in records.fields[config.time] if value is not None]
            step = frequency.find(max(stamps, key=len)) or Frequency()
            span = int((max(each[-1] for each in stamps) - min(each[0] for each in stamps)).astype(np.int64))
        known = (
            [] if config.known is None else locate([np.asarray(each) for each in records.fields[config.known]]).parts
        )
        return max(lengths, default=0), step, span, known

    def check_fitted(self, inputs: Mapping[str, Input]) -> None:
        agree(self.length >= 1, f"length is {self.length}")
        agree(len(self.centre) == len(self.scale) >= 1, "centre and scale are not one a channel")
        agree(min(self.scale) > 0, "a scale is not above 0")
        agree(len(self.known_centre) == len(self.known_scale), "the scales of what is known are not one each")
        agree(min(self.known_scale, default=1.0) > 0, "a scale of what is known is not above 0")
        agree(self.ahead >= 0, f"ahead is {self.ahead}")
        agree(set(self.cycles) <= set(_calendar.CYCLES), f"the cycles are {self.cycles}")

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator) -> tuple[SeriesConfig, Records]:
        whole = np.cumsum(rng.normal(size=(60 + count, 2)), axis=0)
        whole[7] = np.nan
        start = np.datetime64("2024-01-01T00:00:00")
        times = start + np.arange(len(whole)) * np.timedelta64(3600, "s")
        series, stamps = np.empty(count, dtype=object), np.empty(count, dtype=object)
        for place in range(count):
            series[place], stamps[place] = whole[place : place + 24], times[place : place + 28]
        config = SeriesConfig(time="time", normalize="instance")
        return config, Records(fields={"series": series, "time": stamps}, ids=[f"window {n}" for n in range(count)])

    @staticmethod
    def fields(config: SeriesConfig) -> list[str]:
        return [name for name in (config.field, config.time, config.known) if name is not None]

    @staticmethod
    def recommend(config: SeriesConfig, output: OutputSpec, records: Records) -> Advice:
        if "channel" in output.per:
            # On ETTh1, daily temperatures and sunspots a linear forecast of normalized windows beats the seasonal naive
            # one by 10 to 38 % after seconds of training (docs/log.md).
            return Advice(
                input={"normalize": "instance"},
                network={"kind": "linear", "trend": 1},
                training={
                    "epochs": 10,
                    "batch_size": 64,
                    "optimizer": {"kind": "adamw", "lr": 2e-3},
                    "schedule": {"kind": "warmup-cosine", "warmup": 0.1},
                },
            )
        few = len(records) < MANY
        return Advice(
            network={"kind": "resnet", "depth": 10, "width": 0.5},
            training={
                "epochs": 100 if few else 30,
                "batch_size": 16 if few else 64,
                "optimizer": {"kind": "adamw", "lr": 1e-3},
                "schedule": {"kind": "warmup-cosine", "warmup": 0.1},
            },
            min_steps=1500,
        )

    @property
    def spec(self) -> InputSpec:
        return InputSpec(layout="frames", channels=len(self.centre), size=(self.length,))

    @property
    def num_known(self) -> int:
        """Numbers that are known of each step ahead."""
        return len(self.known_centre) + 2 * len(self.cycles) if self.ahead else 0

    @property
    def step(self) -> Frequency:
        """From one time stamp to the next."""
        return Frequency(months=self.months, seconds=self.seconds)

    def encode(self, record: Record) -> Tensors:
        columns, errors = self.encode_many(Records.of([record]))
        if errors:
            raise errors[0]
        return {name: column[0] for name, column in columns.items()}

    def encode_many(self, records: Records) -> tuple[Columns, dict[int, RecordError]]:
        nothing = np.full(len(records), None)
        found = [self._checked(value) for value in records.fields.get(self.config.field, nothing)]
        errors = {index: value for index, value in enumerate(found) if isinstance(value, RecordError)}
        times: list[np.ndarray] = []
        known: list[np.ndarray] = []
        for index, value in enumerate(found):
            if self.num_known and isinstance(value, np.ndarray):
                record = records[index]
                try:
                    later = self.times_ahead(record, len(value)) if self.cycles else None
                    values = self._known_ahead(record, len(value)) if self.known_centre else None
                except RecordError as error:
                    errors[index] = error
                    continue
                times += [] if later is None else [later]
                known += [] if values is None else [values]
        kept = [value[-self.length :] for index, value in enumerate(found) if index not in errors]
        if not kept:
            return {}, dict(sorted(errors.items()))
        columns: Columns = {"frames": _ragged(locate(kept), np.array(self.centre), np.array(self.scale))}
        if self.num_known:
            columns["ahead"] = self._ahead(times, known)
        return columns, dict(sorted(errors.items()))

    def _checked(self, value: object) -> Any:
        """A series of a record as an array (T, C), or what is wrong with it."""
        found = _array(value)
        if isinstance(found, RecordError):
            return found
        if found.shape[1] != len(self.centre):
            return RecordError(
                f"the series has {found.shape[1]} channels", expected=f"{len(self.centre)}, as in training"
            )
        if np.isinf(found).any():
            return RecordError("the series has a value that is infinite", expected="finite numbers, NaN where missing")
        if np.isnan(found[-self.length :]).all():
            return RecordError("the series has no value at all", expected="one number at least")
        return found

    def _ahead(self, times: list[np.ndarray], known: list[np.ndarray]) -> Ragged:
        """What is known of the steps ahead of each series, (A, K)."""
        calendar = values = None
        if times:
            found = locate(times)
            features = np.concatenate([_calendar.features(part, self.cycles) for part in found.parts])
            calendar = Ragged(
                values=torch.from_numpy(features),
                starts=torch.from_numpy(found.starts),
                lengths=torch.from_numpy(found.lengths),
            )
        if known:
            values = _ragged(locate(known), np.array(self.known_centre), np.array(self.known_scale))
            values = Ragged(values=values.values.nan_to_num(), starts=values.starts, lengths=values.lengths)
        if calendar is None or values is None:
            only = calendar if values is None else values
            assert only is not None
            return only
        if torch.equal(calendar.starts, values.starts) and len(calendar.values) == len(values.values):
            both = torch.cat([calendar.values, values.values], dim=1)
            return Ragged(values=both, starts=values.starts, lengths=values.lengths)
        return Ragged.of([torch.cat([calendar[place], values[place]], dim=1) for place in range(len(values))])

    def _known_ahead(self, record: Record, length: int) -> np.ndarray:
        """The known values of the steps ahead, float64 (A, K)."""
        value = record.get(self.config.known or "")
        known = None if value is None else np.asarray(value, dtype=np.float64)
        if known is None or known.shape != (length + self.ahead, len(self.known_centre)):
            shape = "nothing" if known is None else f"shape {known.shape}"
            raise RecordError(
                f"what is known ahead, in field {self.config.known!r}, has {shape}",
                expected=f"{length} steps of the past and {self.ahead} of the future, by {len(self.known_centre)}",
            )
        return known[length:]

    def times_ahead(self, record: Record, length: int | None = None) -> np.ndarray:
        """The time stamps of the steps ahead, datetime64[s] (A,): those that are given, or those that follow.

        Raises:
            RecordError: the record has no time stamps, or not one for each step.
        """
        value = record.get(self.config.time or "")
        if value is None or len(value) == 0:
            raise RecordError(f"the record has no time stamps in field {self.config.time!r}")
        try:
            times = np.asarray(value, dtype="datetime64[s]")
        except (ValueError, TypeError) as error:
            raise RecordError(f"the time stamps cannot be read: {error}", expected="2024-05-31T14:00:00") from error
        if length is None:
            series = _array(record.get(self.config.field))
            length = len(series) if isinstance(series, np.ndarray) else len(times)
        if len(times) >= length + self.ahead:
            return times[length : length + self.ahead]
        if len(times) < length:
            raise RecordError(f"the record has {len(times)} time stamps for {length} steps", expected="one each")
        return self.step.after(times[length - 1], self.ahead)

    def collate(self, columns: Columns) -> Tensors:
        frames = columns["frames"]
        assert isinstance(frames, Ragged)
        tensors: Tensors = {"frames": frames.padded(), "length": frames.lengths}
        ahead = columns.get("ahead")
        if isinstance(ahead, Ragged):
            tensors["ahead"] = ahead.padded()
        return tensors

    def audit(self, columns: Columns, ids: Sequence[str]) -> list[Finding]:
        frames = columns["frames"]
        assert isinstance(frames, Ragged)
        missing = float(frames.values.isnan().float().mean()) if len(frames.values) else 0.0
        return [
            Finding(
                check="missing values",
                verdict=judged(missing, warn=0.05, fail=0.9),
                text=f"{missing:.1%} of the values of all series are missing; each is taken as the one before it",
                fix="look at where they are missing; a channel without values says nothing",
                numbers={"share": missing},
            )
        ]

    def augment(self, tensors: Tensors, rng: BatchRng) -> tuple[Tensors, AugmentParams]:
        settings, frames_BTC = self.config.augment, tensors["frames"]
        if settings.scale:
            factor_B11 = 1 + settings.scale * (2 * rng.uniform("scale", 1, 1) - 1)
            frames_BTC = frames_BTC * factor_B11
        if settings.noise:
            uniform_BTC = rng.uniform("noise", *frames_BTC.shape[1:]).clamp(1e-6, 1 - 1e-6)
            frames_BTC = frames_BTC + settings.noise * math.sqrt(2) * torch.erfinv(2 * uniform_BTC - 1)
        return {**tensors, "frames": frames_BTC}, AugmentParams()

    def preprocess(self, tensors: Tensors) -> Tensors:
        frames_BTC, inside_BT1 = _filled(tensors["frames"], tensors["length"])
        count_B11 = inside_BT1.sum(1, keepdim=True)
        centre_B1C = torch.zeros_like(frames_BTC[:, :1])
        scale_B1C = torch.ones_like(centre_B1C)
        if self.config.normalize == "instance":
            centre_B1C = (frames_BTC * inside_BT1).sum(1, keepdim=True) / count_B11
            square_B1C = ((frames_BTC - centre_B1C).square() * inside_BT1).sum(1, keepdim=True) / count_B11
            scale_B1C = (square_B1C + LEAST**2).sqrt()
        elif self.config.normalize == "last":
            last_B11 = (tensors["length"].clamp_min(1) - 1)[:, None, None].expand(-1, -1, frames_BTC.shape[2])
            centre_B1C = frames_BTC.gather(1, last_B11)
        frames_BTC = (frames_BTC - centre_B1C) / scale_B1C * inside_BT1
        made = {"frames": frames_BTC, "window_centre": centre_B1C[:, 0], "window_scale": scale_B1C[:, 0]}
        return {**tensors, **made}

    def show(self, record: Record) -> dict[str, Any]:
        found = _array(record.get(self.config.field))
        if isinstance(found, RecordError):
            return {"values": {self.config.field: str(found)}}
        shown = ", ".join(f"{value:.4g}" for value in found[-SHOWN:, 0][-8:])
        return {"values": {"steps": str(len(found)), "channels": str(found.shape[1]), "ends with": shown}}


def _array(value: object) -> np.ndarray | RecordError:
    """A record's series as float64 (T, C), as it is where it is one already; or what is wrong with it."""
    if value is None:
        return RecordError("the record has no series")
    try:
        found = value if isinstance(value, np.ndarray) and value.dtype == np.float64 else np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        return RecordError(f"the series is no array of numbers: {error}", expected="steps by channels")
    if found.ndim == 1:
        found = found[:, None]
    if found.ndim != 2 or not found.size:
        return RecordError(f"the series has shape {found.shape}", expected="steps by channels, one step at least")
    return found


def _standard(parts: Sequence[np.ndarray]) -> tuple[list[float], list[float]]:
    """Mean and deviation of every channel over all rows; 1 where nothing differs."""
    centre, scale = [], []
    for channel in range(parts[0].shape[1]):
        values = np.concatenate([part[:, channel] for part in parts])
        values = values[np.isfinite(values)]
        mean = float(values.mean()) if len(values) else 0.0
        deviation = float(values.std()) if len(values) else 0.0
        centre.append(mean)
        scale.append(deviation if deviation > 1e-12 * max(1.0, abs(mean)) else 1.0)
    return centre, scale


def _ragged(found: Stretches, centre_C: np.ndarray, scale_C: np.ndarray) -> Ragged:
    values = np.concatenate([((part - centre_C) / scale_C).astype(np.float32) for part in found.parts])
    return Ragged(
        values=torch.from_numpy(values),
        starts=torch.from_numpy(found.starts.copy()),
        lengths=torch.from_numpy(found.lengths.copy()),
    )


def _filled(frames_BTC: Tensor, length_B: Tensor) -> tuple[Tensor, Tensor]:
    """Frames without NaN: the value before, at the beginning the first that there is, 0 where there is none; and which
    steps are real (B, T, 1)."""
    steps = frames_BTC.shape[1]
    place_T = torch.arange(steps, device=frames_BTC.device)
    inside_BT1 = (place_T[None, :] < length_B[:, None].clamp_min(1))[:, :, None]
    there_BTC = ~frames_BTC.isnan() & inside_BT1
    place_BTC = torch.where(there_BTC, place_T[None, :, None], -1)
    last_BTC = place_BTC.cummax(1).values
    first_B1C = torch.where(there_BTC, place_T[None, :, None], steps).amin(1, keepdim=True)
    source_BTC = torch.where(last_BTC >= 0, last_BTC, first_B1C)
    some_B1C = first_B1C < steps
    filled_BTC = frames_BTC.gather(1, source_BTC.clamp(max=steps - 1))
    return torch.where(some_B1C & inside_BT1, filled_BTC, 0.0), inside_BT1
