"""Clips: MP4, AVI and other files; some frames of each, evenly through it, as a grid of time, height and width."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field

from sonde.base.config import Config
from sonde.base.constants import constant
from sonde.base.errors import RecordError, UserError
from sonde.base.images import ResizeMode, fit_to
from sonde.base.rng import BatchRng
from sonde.base.threads import each
from sonde.base.videos import read_frames
from sonde.contracts.augment import AugmentParams
from sonde.contracts.columns import Columns, Tensors
from sonde.contracts.finding import Finding, judged
from sonde.contracts.input import Input
from sonde.contracts.part import agree
from sonde.contracts.records import Record, Records
from sonde.contracts.specs import Advice, InputSpec, OutputSpec, Per

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

# How many training clips the mean, the deviation and the size are taken from.
SAMPLE = 100
# Colours this near each other in all pixels are grey: files of clips have no grey.
GREY = 12
# A clip whose bytes deviate less than this is blank; frames of a clip on a report.
BLANK, SHOWN = 1.0, 6
# More numbers than a clip can have.
MOST_PIXELS = 1 << 26
Side = Annotated[int, Field(ge=1, le=1 << 12)]


class VideoAugment(Config):
    """What is done at random to training clips, alike in all frames. Zero switches a part off."""

    flip: bool = Field(default=False, description="mirror left and right; not where directions have names")
    shift: float = Field(default=0.0, ge=0, le=0.5, description="largest shift, as a share of the side; edges reflect")
    brightness: float = Field(default=0.0, ge=0, le=1, description="largest change of brightness, as a share")
    contrast: float = Field(default=0.0, ge=0, le=1, description="largest change of contrast, as a share")


class VideoConfig(Config):
    kind: Literal["video"] = "video"
    field: str = Field(default="video", description="the field that holds the clip")
    frames: Annotated[int, Field(ge=1, le=1 << 10)] = Field(
        default=16, description="frames of each clip, evenly through all of it"
    )
    size: Side | tuple[Side, Side] | None = Field(
        default=None, description="side, or height and width, in pixels; the data's own (at most 64) if left out"
    )
    channels: Literal[1, 3] | None = Field(default=None, description="1 grey, 3 colour; what the data has if left out")
    resize_mode: ResizeMode = Field(default="crop", description="crop, squash or pad frames of another shape")
    augment: VideoAugment = Field(default=VideoAugment(), description="random changes, in training only")


@dataclass(frozen=True, kw_only=True)
class Video(Input):
    """One clip a record, uint8 (C, T, H, W). `mean` and `deviation` are per channel, in [0, 1], of training."""

    Config = VideoConfig
    reads_file: ClassVar[bool] = True
    takes_file: ClassVar[bool] = True

    config: VideoConfig
    size: list[int]
    channels: int
    mean: list[float]
    deviation: list[float]

    @classmethod
    def fit(cls, config: VideoConfig, records: Records) -> Self:
        sample = records.take(np.linspace(0, len(records) - 1, min(SAMPLE, len(records))).astype(int))
        found = each(lambda record: _attempt(record, config), sample)
        clips = [one for one in found if not isinstance(one, RecordError)]
        if not clips:
            raise UserError(
                f"none of the first {len(sample)} records has a readable clip in field {config.field!r}: {found[0]}",
                expected="MP4, AVI or other clips",
            )
        channels = config.channels or (1 if all(_is_grey(frames) for frames in clips) else 3)
        size = _size(config.size, {(frames[0].height, frames[0].width) for frames in clips})
        pixels = np.stack([_pixels(frames, size, channels, config.resize_mode) for frames in clips])
        moments = pixels.transpose(1, 0, 2, 3, 4).reshape(channels, -1).astype(np.float32) / 255
        return cls(
            config=config,
            size=[config.frames, *size],
            channels=channels,
            mean=moments.mean(axis=1).tolist(),
            deviation=np.maximum(moments.std(axis=1), 1e-3).tolist(),
        )

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator) -> tuple[VideoConfig, Records]:
        clips = np.empty(count, dtype=object)
        clips[:] = [rng.integers(0, 256, (5 + index % 4, 9, 10, 3), dtype=np.uint8) for index in range(count)]
        config = VideoConfig(frames=8, size=8, augment=VideoAugment(flip=True, shift=0.2, brightness=0.2, contrast=0.2))
        return config, Records(fields={"video": clips}, ids=[f"clip {index}" for index in range(count)])

    @staticmethod
    def recommend(config: VideoConfig, output: OutputSpec, records: Records) -> Advice:
        return Advice(
            input={"frames": config.frames, "augment": {"shift": 0.1, "brightness": 0.2, "contrast": 0.2}},
            target={"smoothing": 0.1},
            network={"kind": "cnn", "widths": [16, 32, 64, 128], "convolutions": [1, 1, 1, 1]},
            training={
                "epochs": int(np.clip(20_000 / max(1, len(records)), 4, 60)),
                "batch_size": 32,
                "optimizer": {"kind": "muon", "lr": 0.02},
                "schedule": {"kind": "one-cycle"},
            },
        )

    def check_fitted(self, inputs: Mapping[str, Input]) -> None:
        agree(len(self.size) == 3 and min(self.size) >= 1, f"size is {self.size}, not frames, height and width")
        agree(int(np.prod(np.array(self.size, dtype=float))) <= MOST_PIXELS, f"size is {self.size}: too many pixels")
        agree(self.size[0] == self.config.frames, f"size is {self.size} and frames {self.config.frames}")
        agree(self.channels in (1, 3), f"channels is {self.channels}, not 1 or 3")
        agree(len(self.mean) == len(self.deviation) == self.channels, "mean and deviation are not one a channel")
        agree(min(self.deviation) > 0, "a deviation is not above 0")

    @property
    def spec(self) -> InputSpec:
        return InputSpec(layout="grid", channels=self.channels, size=(self.size[0], self.size[1], self.size[2]))

    @property
    def gives(self) -> tuple[Per, ...]:
        # Nobody has masks of single frames beside a clip.
        return ("example", "position")

    def encode(self, record: Record) -> Tensors:
        frames = _frames(record, self.config)
        size = (self.size[1], self.size[2])
        return {"grid": torch.from_numpy(_pixels(frames, size, self.channels, self.config.resize_mode))}

    def augment(self, tensors: Tensors, rng: BatchRng) -> tuple[Tensors, AugmentParams]:
        settings, grid = self.config.augment, tensors["grid"]
        params = AugmentParams(size=(self.size[0], self.size[1], self.size[2]))
        if settings.flip or settings.shift:
            u_B3 = rng.uniform("place", 3)
            still_B = torch.zeros_like(u_B3[:, 0]).long()
            most = [round(settings.shift * side) for side in self.size[1:]]
            moved = [(u_B3[:, axis] * (2 * side + 1)).long() - side for axis, side in enumerate(most)]
            flip_B = (u_B3[:, 2] < 0.5) & settings.flip
            params = AugmentParams(
                size=params.size,
                shift_BD=torch.stack([still_B, *moved], dim=1),
                flip_BD=torch.stack([still_B.bool(), still_B.bool(), flip_B], dim=1),
            )
            grid = _moved(grid, params)
        if settings.brightness or settings.contrast:
            u_B2 = 2 * rng.uniform("colour", 2) - 1
            values = grid.float()
            mean = values.mean(dim=(1, 2, 3, 4), keepdim=True)
            contrast, brightness = (
                (1 + strength * u_B2[:, place]).reshape(-1, 1, 1, 1, 1)
                for place, strength in enumerate((settings.contrast, settings.brightness))
            )
            grid = (((values - mean) * contrast + mean) * brightness).clamp_(0, 255)
        return {"grid": grid}, params

    def preprocess(self, tensors: Tensors) -> Tensors:
        """Bytes (B, C, T, H, W) to floats of mean 0 and deviation 1 per channel."""
        grid = tensors["grid"]
        shape = (-1, 1, 1, 1)
        scale = 1 / (255 * constant(self.deviation, grid.device)).reshape(shape)
        shift = -255 * constant(self.mean, grid.device).reshape(shape) * scale
        return {"grid": grid.float() * scale + shift}

    def show(self, record: Record) -> dict[str, Any]:
        from sonde.base.images import side_by_side

        frames = read_frames(record[self.config.field], SHOWN)
        for frame in frames:
            frame.thumbnail((112, 112))
        held = io.BytesIO()
        side_by_side([frame.convert("RGB") for frame in frames], columns=SHOWN).save(held, "JPEG", quality=85)
        return {"picture": f"data:image/jpeg;base64,{base64.b64encode(held.getvalue()).decode()}"}

    def audit(self, columns: Columns, ids: Sequence[str]) -> list[Finding]:
        grid = columns["grid"]
        assert isinstance(grid, torch.Tensor)
        spread_N = torch.cat([part.flatten(1).float().std(1) for part in grid.split(16)])
        # The most that a pixel changes through the clip.
        still_N = torch.cat([(part.amax(2).int() - part.amin(2).int()).flatten(1).amax(1) for part in grid.split(16)])
        found = []
        for check, wrong_N, text, fix in (
            ("blank clips", spread_N < BLANK, "are of one colour", "look at them; leave them out if they were lost"),
            ("still clips", still_N == 0, "never move", "are they pictures? Then input kind image is quicker"),
        ):
            wrong = torch.nonzero(wrong_N).flatten().tolist()
            found.append(
                Finding(
                    check=check,
                    verdict=judged(len(wrong) / max(1, len(ids)), warn=0.001, fail=0.5),
                    text=f"{len(wrong):,} of {len(ids):,} clips {text}",
                    fix=fix,
                    records=[ids[int(index)] for index in wrong],
                )
            )
        return found


def _frames(record: Record, config: VideoConfig) -> list[Image]:
    if record.get(config.field) is None:
        raise RecordError(f"the record has no clip in field {config.field!r}")
    return read_frames(record[config.field], config.frames)


def _attempt(record: Record, config: VideoConfig) -> list[Image] | RecordError:
    try:
        return _frames(record, config)
    except RecordError as error:
        return error


def _is_grey(frames: list[Image]) -> bool:
    pixels = np.asarray(frames[len(frames) // 2].convert("RGB")).astype(np.int16)
    return int((pixels.max(axis=2) - pixels.min(axis=2)).max()) <= GREY


def _size(wanted: int | tuple[int, int] | None, found: set[tuple[int, int]]) -> tuple[int, int]:
    if isinstance(wanted, int):
        return wanted, wanted
    if wanted is not None:
        return wanted
    only = next(iter(found)) if len(found) == 1 else (64, 64)
    return only if max(only) <= 64 else (64, 64)


def _pixels(frames: list[Image], size: tuple[int, int], channels: int, how: ResizeMode) -> np.ndarray:
    """uint8 (C, T, H, W)."""
    mode = "RGB" if channels == 3 else "L"
    stacked = np.stack([np.asarray(fit_to(frame.convert(mode), size, how=how)) for frame in frames])
    return stacked[None] if channels == 1 else np.ascontiguousarray(stacked.transpose(3, 0, 1, 2))


def _moved(grid: Tensor, params: AugmentParams) -> Tensor:
    """Every frame moved by whole pixels, reflected at the borders."""
    index_B = torch.arange(len(grid), device=grid.device)[:, None, None]
    rows_BH, columns_BW = params.sources(1), params.sources(2)
    picked = grid[index_B, :, :, rows_BH[:, :, None], columns_BW[:, None, :]]  # (B, H, W, C, T)
    return picked.permute(0, 3, 4, 1, 2).contiguous()
