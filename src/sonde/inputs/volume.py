"""Volumes: NIfTI, .npy and .npz of CT, MRI or microscopy; oriented, of one spacing, in patches or whole."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from sonde.base.config import Config
from sonde.base.errors import RecordError, UserError
from sonde.base.rng import BatchRng
from sonde.base.threads import each
from sonde.base.volumes import Volume as Voxels
from sonde.base.volumes import read_volume
from sonde.contracts.augment import AugmentParams
from sonde.contracts.columns import Columns, Ragged, Tensors
from sonde.contracts.finding import Finding, judged
from sonde.contracts.input import Input
from sonde.contracts.part import agree
from sonde.contracts.records import Record, Records
from sonde.contracts.specs import Advice, InputSpec, OutputSpec, Per
from sonde.inputs import _patches

if TYPE_CHECKING:
    from torch import Tensor

# How many training volumes are looked at for size, spacing and channels.
SAMPLE = 100
# More voxels than a patch can have, and those that the advice gives it: 61,440 take about 1 s a step of four on a core.
MOST_VOXELS, ADVISED_VOXELS = 1 << 27, 48 * 48 * 48
# Sides of advised patches are multiples of this, as halving three times likes it.
STEP = 8
# Spacings that differ by less than this share are alike.
ALIKE = 0.01
# Air in CT, in Hounsfield units: volumes that go down so far are taken for CT.
AIR = -500

Millimetres = Annotated[float, Field(gt=0, le=1e6)]
Side = Annotated[int, Field(ge=1, le=1 << 12)]


class VolumeAugment(Config):
    """What is done at random to training volumes. Zero switches a part off."""

    flip: bool = Field(default=False, description="mirror along each axis; not where left and right have labels")
    shift: float = Field(default=0.0, ge=0, le=0.5, description="whole volumes: largest shift, as a share of the side")
    zoom: float = Field(default=0.0, ge=0, lt=1, description="largest change of scale: 0.2 means from 1/1.2 to 1.2")
    rotate: float = Field(default=0.0, ge=0, le=180, description="largest rotation about each axis, in degrees")
    brightness: float = Field(default=0.0, ge=0, le=1, description="largest change of brightness, in deviations")
    contrast: float = Field(default=0.0, ge=0, le=1, description="largest change of contrast, as a share")
    noise: float = Field(default=0.0, ge=0, le=1, description="largest deviation of noise that is added, in deviations")


class VolumeConfig(Config):
    kind: Literal["volume"] = "volume"
    field: str = Field(default="volume", description="the field that holds the volume")
    view: Literal["patches", "whole"] = Field(
        default="whole",
        description="patches: train on parts, answer in windows that overlap; whole: one grid around the middle",
    )
    size: tuple[Side, Side, Side] | None = Field(
        default=None, description="voxels of a patch, or of the whole grid; from the training volumes if left out"
    )
    spacing: Annotated[tuple[Millimetres, Millimetres, Millimetres], Field()] | None = Field(
        default=None, description="mm from voxel to voxel that volumes are brought to; the median if left out"
    )
    window: tuple[float, float] | None = Field(
        default=None,
        description="clip to these values, such as [-160, 240] (Hounsfield); percentiles of each volume if left out",
    )
    percentiles: tuple[Annotated[float, Field(ge=0, le=100)], Annotated[float, Field(ge=0, le=100)]] = Field(
        default=(0.5, 99.5), description="clip to these percentiles of each volume, where there is no window"
    )
    foreground: float = Field(
        default=0.5, ge=0, le=1, description="patches: share of them around a voxel of a label, each label as often"
    )
    augment: VolumeAugment = Field(default=VolumeAugment(), description="random changes, in training only")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for name, ends in (("window", self.window), ("percentiles", self.percentiles)):
            if ends is not None and not ends[0] < ends[1]:
                raise ValueError(f"{name} is {list(ends)}: the first has to be below the second")
        if self.size is not None and math.prod(self.size) > MOST_VOXELS:
            raise ValueError(f"size {list(self.size)} is more than {MOST_VOXELS:,} voxels")
        return self


@dataclass(frozen=True, kw_only=True)
class Volume(Input):
    """One volume a record, its axes right, anterior, superior; encoded in its own size and spacing as float16 of mean 0
    and deviation 1. What a network sees has `spacing`: patches or whole grids of `size`, answers are for all voxels.

    Encoded: "voxels" (X * Y * Z, C); "native" (3,), the size; "affine" (12,), to mm; "orientation" (6,), the axes of
    the file. Preprocessed also "placement" (6,): a place (in voxels from the border) goes to place * the first three +
    the last three in the grid.
    """

    Config = VolumeConfig
    reads_file: ClassVar[bool] = True
    takes_file: ClassVar[bool] = True
    ragged: ClassVar[tuple[str, ...]] = ("voxels",)

    config: VolumeConfig
    size: list[int]
    channels: int
    spacing: list[float]

    @classmethod
    def fit(cls, config: VolumeConfig, records: Records) -> Self:
        found, why = _look(config, records)
        if not found:
            raise UserError(
                f"no training record has a readable volume in field {config.field!r}{why}",
                expected="NIfTI files (.nii, .nii.gz) or arrays (.npy, .npz)",
            )
        channels = {one.channels for one in found}
        if len(channels) > 1:
            raise UserError(
                f"the volumes in field {config.field!r} have {_either(channels)} channels", expected="one number"
            )
        spacing = config.spacing or tuple(_median([one.spacing for one in found]))
        size = config.size or _typical(found, spacing, config.view)
        return cls(config=config, size=list(size), channels=channels.pop(), spacing=[float(each) for each in spacing])

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator) -> tuple[VolumeConfig, Records]:
        volumes = np.empty(count, dtype=object)
        volumes[:] = [rng.normal(size=(8, 7 + index % 3, 9)).astype(np.float32) for index in range(count)]
        config = VolumeConfig(
            size=(8, 8, 8),
            augment=VolumeAugment(flip=True, zoom=0.2, rotate=10, brightness=0.2, noise=0.1),
        )
        return config, Records(fields={"volume": volumes}, ids=[f"volume {index}" for index in range(count)])

    @staticmethod
    def recommend(config: VolumeConfig, output: OutputSpec, records: Records) -> Advice:
        found, _ = _look(config, records)
        if not found:
            return Advice()
        dense = "example" not in output.per
        spacing = config.spacing or tuple(_median([one.spacing for one in found]))
        size = config.size or _typical(found, spacing, "patches" if dense else "whole")
        lowest = min(one.lowest for one in found)
        window = _median([one.ends for one in found]) if lowest <= AIR and config.window is None else None
        augment = {"zoom": 0.15, "rotate": 15, "brightness": 0.2, "contrast": 0.2, "noise": 0.1}
        settings: dict[str, Any] = {"view": "patches" if dense else "whole", "size": list(size), "augment": augment}
        notes: tuple[str, ...] = ()
        if window is not None:
            settings["window"] = [round(float(each)) for each in window]
            notes = (f"the volumes go down to {lowest:.0f}, as CT does: they are clipped to inputs.*.window",)
        widths = [16, 32, 64, 128]
        network: dict[str, Any] = {"kind": "cnn", "widths": widths}
        if dense:
            # As nnU-Net has it. Whether relu and Muon do as well since the head was mended was not tried (docs/log.md).
            network = {"kind": "unet", "activation": "leaky-relu", "widths": widths}
        return Advice(
            input=settings,
            network=network,
            training={
                "epochs": int(np.clip(2400 / max(1, len(records)), 4, 100)),
                "batch_size": 2 if dense else 8,
                "optimizer": {"kind": "adamw", "lr": 0.005} if dense else {"kind": "muon", "lr": 0.02},
                "schedule": {"kind": "one-cycle"},
                **({"ema_decay": 0.98} if dense else {}),
            },
            notes=notes,
        )

    def check_fitted(self, inputs: Mapping[str, Input]) -> None:
        agree(len(self.size) == 3 and min(self.size) >= 1, f"size is {self.size}, not three sides")
        agree(math.prod(self.size) <= MOST_VOXELS, f"size is {self.size}, more than {MOST_VOXELS:,} voxels")
        agree(1 <= self.channels <= 1 << 10, f"channels is {self.channels}")
        agree(len(self.spacing) == 3 and min(self.spacing) > 0, f"spacing is {self.spacing}, not three lengths")
        agree(max(self.spacing) <= 1e6, f"spacing is {self.spacing}")

    @property
    def spec(self) -> InputSpec:
        return InputSpec(layout="grid", channels=self.channels, size=(self.size[0], self.size[1], self.size[2]))

    @property
    def gives(self) -> tuple[Per, ...]:
        # A patch does not know what the whole is.
        return ("pixel",) if self.config.view == "patches" else super().gives

    def encode(self, record: Record) -> Tensors:
        volume = read_of(record, self.config.field)
        values = volume.values.reshape(*volume.size, -1)
        if values.shape[3] != self.channels:
            raise RecordError(
                f"the volume in field {self.config.field!r} has {values.shape[3]} channels", expected=str(self.channels)
            )
        voxels = np.stack([_scaled(values[..., each], self.config) for each in range(self.channels)], axis=-1)
        return {
            "voxels": torch.from_numpy(voxels.reshape(-1, self.channels)),
            "native": torch.tensor(volume.size),
            "affine": torch.from_numpy(volume.affine[:3].astype(np.float32).ravel()),
            "orientation": torch.from_numpy(volume.orientation.astype(np.int64).ravel()),
        }

    def collate(self, columns: Columns) -> Tensors:
        """Volumes in one tensor (B, C, *largest), each at its beginning; what lies beyond is 0, the mean."""
        voxels, native_B3 = columns["voxels"], columns["native"]
        assert isinstance(voxels, Ragged)
        assert isinstance(native_B3, torch.Tensor)
        largest = native_B3.amax(0).tolist()
        grid = torch.zeros(len(native_B3), self.channels, *largest, dtype=torch.float16, device=voxels.values.device)
        for index, size in enumerate(native_B3.tolist()):
            grid[(index, slice(None), *map(slice, size))] = voxels[index].reshape(*size, self.channels).movedim(-1, 0)
        others = {name: column for name, column in columns.items() if isinstance(column, torch.Tensor)}
        return {"voxels": grid, **others}

    def augment(self, tensors: Tensors, rng: BatchRng) -> tuple[Tensors, AugmentParams]:
        voxels, native_B3 = tensors["voxels"].float(), tensors["native"]
        settings, patches = self.config.augment, self.config.view == "patches"
        place = _patches.Place(size=tuple(self.size), scale_B3=self._scale(tensors), native_B3=native_B3)
        foreground = self.config.foreground if patches else None
        affine_B34 = place.random(settings, rng, tensors.get("focus"), foreground, tuple(voxels.shape[2:]))
        grid = _patches.sampled(voxels, affine_B34, tuple(self.size))
        params = AugmentParams(size=tuple(voxels.shape[2:]), affine=affine_B34, cropped=tuple(self.size))
        return {"grid": _patches.intensity(grid, settings, rng)}, params

    def preprocess(self, tensors: Tensors) -> Tensors:
        """Patches of training as they are; else whole volumes in `spacing`, and where their voxels went."""
        if "grid" in tensors:
            return {"grid": tensors["grid"]}
        voxels, native_B3, scale_B3 = tensors["voxels"], tensors["native"], self._scale(tensors)
        known = {name: tensors[name] for name in ("native", "affine", "orientation")}
        if self.config.view == "whole":
            place = _patches.Place(size=tuple(self.size), scale_B3=scale_B3, native_B3=native_B3)
            grid = _patches.sampled(voxels.float(), place.middle(tuple(voxels.shape[2:])), tuple(self.size))
            half_3 = torch.tensor(self.size, device=grid.device) / 2
            return {"grid": grid, **known, "placement": torch.cat([scale_B3, half_3 - native_B3 / 2 * scale_B3], dim=1)}
        shape_B3 = (native_B3 * scale_B3).round().long().clamp_min(1)
        grid = voxels.float() if torch.equal(shape_B3, native_B3) else _patches.resized(voxels, native_B3, shape_B3)
        placement = torch.cat([shape_B3 / native_B3, torch.zeros_like(scale_B3)], dim=1)
        return {"grid": grid, "shape": shape_B3, **known, "placement": placement}

    def _scale(self, tensors: Tensors) -> Tensor:
        """Voxels of the network for one voxel of each volume, along each axis (B, 3); 1 where they are nearly alike."""
        spacing_B3 = tensors["affine"].reshape(-1, 3, 4)[:, :, :3].square().sum(1).sqrt()
        scale_B3 = spacing_B3 / torch.tensor(self.spacing, device=spacing_B3.device)
        return torch.where((scale_B3 - 1).abs() < ALIKE, torch.ones_like(scale_B3), scale_B3)

    def show(self, record: Record) -> dict[str, Any]:
        from sonde.base.slices import middle_slices

        held = io.BytesIO()
        middle_slices(read_of(record, self.config.field)).save(held, "PNG")
        return {"picture": f"data:image/png;base64,{base64.b64encode(held.getvalue()).decode()}"}

    def audit(self, columns: Columns, ids: Sequence[str]) -> list[Finding]:
        voxels = columns["voxels"]
        assert isinstance(voxels, Ragged)
        blank = [index for index in range(len(voxels)) if not voxels[index].any()]
        return [
            Finding(
                check="blank volumes",
                verdict=judged(len(blank) / max(1, len(ids)), warn=0.001, fail=0.5),
                text=f"{len(blank):,} of {len(ids):,} volumes hold one value",
                fix="look at them; leave them out if their voxels were lost on the way",
                records=[ids[index] for index in blank],
            )
        ]


def read_of(record: Record, field: str) -> Voxels:
    """The volume of a record.

    Raises:
        RecordError: there is none, or it cannot be read.
    """
    if record.get(field) is None:
        raise RecordError(f"the record has no volume in field {field!r}")
    return read_volume(record[field])


def _scaled(values: np.ndarray, config: VolumeConfig) -> np.ndarray:
    """Voxels clipped, of mean 0 and deviation 1, float16. Those that are no numbers count as the lowest."""
    values = values.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        raise RecordError(f"no voxel in field {config.field!r} is a number")
    if not finite.all():
        values = np.where(finite, values, values[finite].min())
    low, high = config.window or np.percentile(values, config.percentiles)
    values = np.clip(values, low, high)
    deviation = float(values.std())
    return ((values - values.mean()) / deviation if deviation > 0 else values * 0).astype(np.float16)


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What is known of one training volume: `ends` are its percentiles."""

    size: tuple[int, int, int]
    spacing: np.ndarray
    channels: int
    lowest: float
    ends: np.ndarray


def _look(config: VolumeConfig, records: Records) -> tuple[list[_Seen], str]:
    """What some of the volumes are like, and why the first of those that cannot be read cannot be."""

    def seen(record: Record) -> _Seen | RecordError:
        try:
            volume = read_of(record, config.field)
        except RecordError as error:
            return error
        values = volume.values[np.isfinite(volume.values)] if volume.values.dtype.kind == "f" else volume.values
        channels = volume.values.shape[3] if volume.values.ndim == 4 else 1
        some = values.ravel()[:: 1 + values.size // 1_000_000]
        some = some if some.size else np.zeros(1)
        ends = np.percentile(some, config.percentiles)
        return _Seen(size=volume.size, spacing=volume.spacing, channels=channels, lowest=float(some.min()), ends=ends)

    sample = records.take(np.linspace(0, len(records) - 1, min(SAMPLE, len(records))).astype(int))
    results = each(seen, sample)
    errors = (
        f", such as {name}: {one}"
        for name, one in zip(sample.ids, results, strict=True)
        if isinstance(one, RecordError)
    )
    return [one for one in results if isinstance(one, _Seen)], next(errors, "")


def _median(rows: Sequence[np.ndarray]) -> np.ndarray:
    return np.median(np.stack(list(rows)), axis=0)


def _typical(found: Sequence[_Seen], spacing: Sequence[float], view: str) -> tuple[int, int, int]:
    """The median size in voxels of `spacing`, in steps; a patch no larger than a step of training should be."""
    size = _median([np.array(one.size) * one.spacing / np.array(spacing) for one in found])
    if view == "whole":
        size = np.max([np.array(one.size) * one.spacing / np.array(spacing) for one in found], axis=0)
    # The longest sides give way first.
    while np.prod(size) > ADVISED_VOXELS:
        size = np.where(size >= size.max() * 0.99, size * 0.9, size)
    sides = [max(STEP, round(side / STEP) * STEP) if side > STEP else max(1, round(side)) for side in size.tolist()]
    return sides[0], sides[1], sides[2]


def _either(values: set[int]) -> str:
    return " or ".join(map(str, sorted(values)))
