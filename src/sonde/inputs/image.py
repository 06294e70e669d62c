"""Pictures: PNG, JPEG and other files, or arrays; brought to one size, augmented a whole batch at once."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, get_args

import numpy as np
import torch
from pydantic import Field, model_validator

from sonde.base.config import Config
from sonde.base.constants import constant
from sonde.base.errors import RecordError, UserError
from sonde.base.images import Header, Interpolation, ResizeMode, fit_to, placement, read_header, read_image
from sonde.base.rng import BatchRng
from sonde.base.threads import each
from sonde.contracts.at_hand import WeightsAtHand
from sonde.contracts.augment import AugmentParams, partner
from sonde.contracts.columns import Columns, Tensors
from sonde.contracts.finding import Finding, judged
from sonde.contracts.input import Input, each_value
from sonde.contracts.part import agree
from sonde.contracts.preprocessing import Preprocessing
from sonde.contracts.records import Record, Records
from sonde.contracts.specs import Advice, InputSpec, OutputSpec
from sonde.inputs import _corrupt

if TYPE_CHECKING:
    from torch import Tensor

# How many training pictures the mean and the deviation are taken from: more would not change the third digit.
SAMPLE = 1000
# Pillow's modes of one channel.
GREY = ("1", "L", "I", "I;16", "F")
# Pictures that are smaller at first have this share of their side: half the pixels.
SMALL = 0.7
# Pictures with masks of so many pixels a side go in as patches: more of them are seen for the same time.
LARGE = 112
# Strokes in black and white of at most so many pixels a side are as clear on a small picture, and learned sooner.
# Omniglot (105 x 105): 20-way 1-shot 0.94 at 32 pixels in 2 minutes of a core, 0.91 at 64 pixels in 4.
STROKES, STROKES_SIZE = 128, 32

# A picture whose bytes deviate less than this is blank.
BLANK = 1.0
# The longer side of a picture on a report.
SHOWN = 224


# More pixels than a picture can have that a network is to see as a whole.
MOST_PIXELS = 1 << 24
Side = Annotated[int, Field(ge=1, le=1 << 16)]


# Photos from this side on, and at most so many of them, are fine-tuned where pretrained weights are at hand.
SMALLEST_PHOTO, MANY = 96, 10_000


class Augment(Config):
    """What is done at random to training pictures. Zero switches a part off."""

    flip: bool = Field(default=False, description="mirror left and right")
    shift: float = Field(
        default=0.0, ge=0, le=0.5, description="largest shift, as a share of the side; edges are reflected"
    )
    border: Literal["reflect", "fill"] = Field(
        default="reflect",
        description="what comes in from beyond the borders: the picture in the mirror, or its mean colour",
    )
    zoom: float = Field(default=0.0, ge=0, lt=1, description="largest change of scale: 0.2 means from 1/1.2 to 1.2")
    rotate: float = Field(default=0.0, ge=0, le=180, description="largest rotation in degrees")
    brightness: float = Field(default=0.0, ge=0, le=1, description="largest change of brightness, as a share")
    contrast: float = Field(default=0.0, ge=0, le=1, description="largest change of contrast, as a share")
    saturation: float = Field(default=0.0, ge=0, le=1, description="largest change of saturation, as a share")
    cutout: float = Field(default=0.0, ge=0, le=1, description="side of a square blanked out, as a share of the side")
    small_fraction: float = Field(
        default=0.0, ge=0, lt=1, description="share of the training, at its start, that sees pictures of 0.7 the side"
    )
    renamed: ClassVar[Mapping[str, str]] = {"small": "small_fraction"}

    mixup: float = Field(default=0.0, ge=0, description="mixup's beta parameter (0.2 is usual)")
    cutmix: float = Field(default=0.0, ge=0, description="cutmix's beta parameter (1.0 is usual)")


class ImageConfig(Config):
    kind: Literal["image"] = "image"
    field: str = Field(default="image", description="the field that holds the picture")
    size: Side | tuple[Side, Side] | None = Field(
        default=None,
        description="side, or height and width, in pixels; if left out that of the pretrained weights, or the data's "
        "own (at most 64)",
    )
    channels: Literal[1, 3] | None = Field(default=None, description="1 grey, 3 colour; what the data has if left out")
    resize_mode: ResizeMode = Field(default="crop", description="crop, squash or pad pictures of another shape")
    interpolation: Interpolation | None = Field(
        default=None,
        description="bilinear, bicubic, lanczos or nearest; that of the pretrained weights, or bilinear, if left out",
    )
    augment: Augment = Field(default=Augment(), description="random changes, in training only")

    renamed: ClassVar[Mapping[str, str]] = {"fit": "resize_mode"}

    @model_validator(mode="after")
    def _has_a_size(self) -> Self:
        sides = (self.size, self.size) if isinstance(self.size, int) else self.size
        if sides is not None and math.prod(sides) > MOST_PIXELS:
            raise ValueError(f"size {sides[0]} x {sides[1]} is more than {MOST_PIXELS:,} pixels")
        return self


@dataclass(frozen=True, kw_only=True)
class Image(Input):
    """One picture a record, uint8 (C, H, W). `mean` and `deviation` are per channel, in [0, 1]: of the training split,
    or, with a pretrained network, of what its weights were trained on.

    Beside "grid" goes "placement" (6,), float32: where the picture was put (see `sonde.base.images.placement`), for
    truths and answers that are places in it.
    """

    Config = ImageConfig
    reads_file: ClassVar[bool] = True
    takes_file: ClassVar[bool] = True

    config: ImageConfig
    size: list[int]
    channels: int
    mean: list[float]
    deviation: list[float]
    interpolation: Interpolation = "bilinear"

    @classmethod
    def fit(cls, config: ImageConfig, records: Records) -> Self:
        sample = records.take(np.linspace(0, len(records) - 1, min(SAMPLE, len(records))).astype(int))
        values = list(sample.fields[config.field])
        # Headers first: a thousand photos that are decoded at once would fill the memory.
        headers = [one for one in each(read_header, values) if one is not None]
        channels = config.channels or (1 if all(one.mode in GREY for one in headers) else 3)
        size = _size(config.size, [(one.height, one.width) for one in headers])
        interpolation = config.interpolation or "bilinear"
        found = each(lambda value: _try_pixels(value, size, channels, config.resize_mode, interpolation), values)
        readable = [one for one in found if one is not None]
        if not readable:
            raise UserError(
                f"none of the first {len(sample)} records has a readable picture in field {config.field!r}",
                expected="PNG, JPEG or other picture files",
            )
        pixels = np.stack(readable)
        moments = pixels.reshape(len(pixels), channels, -1).astype(np.float32) / 255
        return cls(
            config=config,
            size=list(size),
            channels=channels,
            mean=moments.mean(axis=(0, 2)).tolist(),
            # A picture set of one colour has no deviation; any scale will do then.
            deviation=np.maximum(moments.std(axis=(0, 2)), 1e-3).tolist(),
            interpolation=interpolation,
        )

    @classmethod
    def fit_to(cls, config: ImageConfig, records: Records, wanted: Preprocessing) -> Self:
        if wanted.picture is None:
            return super().fit_to(config, records, wanted)
        picture = wanted.picture
        filters = {"interpolation": picture.interpolation} if picture.interpolation in get_args(Interpolation) else {}
        asked = {"size": picture.size, "channels": len(picture.mean), **filters}
        left_out = {name: value for name, value in asked.items() if getattr(config, name) is None}
        part = cls.fit(config.model_copy(update=left_out), records)
        mean, deviation = list(picture.mean), list(picture.deviation)
        if part.channels != len(mean):
            # A grey picture is the mean of its colours.
            mean = [sum(mean) / len(mean)] * part.channels
            deviation = [sum(deviation) / len(deviation)] * part.channels
        return replace(part, mean=mean, deviation=deviation)

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator) -> tuple[ImageConfig, Records]:
        pictures = np.empty(count, dtype=object)
        pictures[:] = [_png(rng.integers(0, 256, (20, 16 + index % 3, 3), dtype=np.uint8)) for index in range(count)]
        config = ImageConfig(
            size=(16, 16), augment=Augment(flip=True, shift=0.1, border="fill", brightness=0.2, cutout=0.3)
        )
        return config, Records(fields={"image": pictures}, ids=[f"picture {index}" for index in range(count)])

    @staticmethod
    def recommend(config: ImageConfig, output: OutputSpec, records: Records) -> Advice:
        sample = records.take(np.linspace(0, len(records) - 1, min(32, len(records))).astype(int))
        pictures = [one for one in each(read_header, sample.fields[config.field]) if one is not None]
        # Letters and digits mean something else in the mirror; photos, which have colours, rarely do.
        photos = any(one.mode not in GREY for one in pictures)
        few = len(records) < 10_000
        colour = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2} if photos else {"brightness": 0.2}
        if "position" in output.per:
            return _for_a_text(config, pictures, len(records))
        if "example" not in output.per:
            size = _mask_size(pictures)
            return Advice(
                input={"size": size, "augment": {"flip": photos, "zoom": 0.5, "shift": 0.1, **colour}},
                network={"kind": "unet", "patch": 2 if min(size) >= LARGE else 1},
                training={
                    "epochs": 30 if len(records) >= 100 else 60,
                    "batch_size": 4,
                    "optimizer": {"kind": "muon", "lr": 0.02},
                    "schedule": {"kind": "one-cycle"},
                },
            )
        if few:
            augment = {"shift": 0.1, "zoom": 0.1, "rotate": 10, "cutout": 0.2}
            epochs, size = 30, 64
        else:
            # Fashion-MNIST, 4 epochs: 92.2 % with the pictures as they are, 91.6 to 91.9 % shifted, flipped or cut out.
            augment = {"shift": 0.07, "cutout": 0.3} if photos else {"small_fraction": 0.5}
            epochs, size = 12 if photos else max(4, min(24, round(240_000 / len(records)))), 128
        if photos:
            augment = {"flip": True, **augment, **({"zoom": 0.25, "rotate": 15} | colour if few else {})}
        if photos or not few:
            network = {"widths": [32, 64, 128, 256], "convolutions": [1, 2, 2, 2 if photos else 1]}
        else:
            network = {"widths": [32, 64, 128]}
        return Advice(
            input={**_strokes_size(config, pictures), "augment": augment},
            target={"smoothing": 0.1},
            network={"kind": "cnn", **network},
            training={
                "epochs": epochs,
                "batch_size": size,
                "optimizer": {"kind": "muon", "lr": 0.02 if few and not photos else 0.05},
                "schedule": {"kind": "one-cycle"},
            },
        )

    def check_fitted(self, inputs: Mapping[str, Input]) -> None:
        agree(len(self.size) == 2 and min(self.size) >= 1, f"size is {self.size}, not height and width")
        agree(math.prod(self.size) <= MOST_PIXELS, f"size is {self.size}, more than {MOST_PIXELS:,} pixels")
        agree(self.channels in (1, 3), f"channels is {self.channels}, not 1 or 3")
        agree(len(self.mean) == len(self.deviation) == self.channels, "mean and deviation are not one a channel")
        agree(min(self.deviation) > 0, "a deviation is not above 0")

    @staticmethod
    def fine_tune(config: ImageConfig, output: OutputSpec, records: Records, weights: WeightsAtHand) -> Advice | None:
        sample = records.take(np.linspace(0, len(records) - 1, min(32, len(records))).astype(int))
        pictures = [one for one in each(read_header, sample.fields[config.field]) if one is not None]
        photos = bool(pictures) and all(
            min(one.width, one.height) >= SMALLEST_PHOTO and one.mode not in GREY for one in pictures
        )
        # What the weights know is photos; drawings, digits and small pictures are learned from scratch as quickly.
        if weights.layout != "grid" or "example" not in output.per or not photos or len(records) > MANY:
            return None
        colour = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}
        return Advice(
            input={"size": 128, "augment": {"flip": True, "shift": 0.1, "zoom": 0.25, "rotate": 15, **colour}},
            target={"smoothing": 0.1},
            network=weights.network,
            training={
                "epochs": 12 if len(records) < 500 else 6,
                "batch_size": 32,
                "optimizer": {"kind": "adamw", "lr": 5e-4, "lr_head": 3e-3},
                "schedule": {"kind": "warmup-cosine", "warmup": 0.1},
            },
        )

    @property
    def spec(self) -> InputSpec:
        return InputSpec(layout="grid", channels=self.channels, size=(self.size[0], self.size[1]))

    def encode(self, record: Record) -> Tensors:
        if record.get(self.config.field) is None:
            raise RecordError(f"the record has no picture in field {self.config.field!r}")
        image = read_image(record[self.config.field])
        size, how = (self.size[0], self.size[1]), self.config.resize_mode
        return {
            "grid": torch.from_numpy(_pixels(image, size, self.channels, how, self.interpolation)),
            "placement": torch.tensor(placement((image.height, image.width), size, how=how)),
        }

    def encode_many(self, records: Records) -> tuple[Columns, dict[int, RecordError]]:
        pictures = records.fields.get(self.config.field)
        ready = pictures is not None and pictures.dtype == np.uint8 and list(pictures.shape[1:]) == self.size
        if pictures is not None and ready and self.channels == 1:
            size = (self.size[0], self.size[1])
            where = torch.tensor(placement(size, size, how=self.config.resize_mode))
            grid = torch.from_numpy(np.ascontiguousarray(pictures))[:, None]
            return {"grid": grid, "placement": where.repeat(len(grid), 1)}, {}
        return super().encode_many(records)

    def augment(self, tensors: Tensors, rng: BatchRng) -> tuple[Tensors, AugmentParams]:
        settings = self.config.augment
        grid = tensors["grid"]
        params = AugmentParams(size=(self.size[0], self.size[1]))
        # Whole pixels are always reflected.
        if settings.zoom or settings.rotate or (settings.shift and settings.border == "fill"):
            params = replace(params, affine=_affine(settings, rng, len(grid), self.size[0] / self.size[1]))
            fill = constant(self.mean, grid.device) * 255 if settings.border == "fill" else None
            grid = _warp(grid, params.affine, fill)
        elif settings.flip or settings.shift:
            params = _whole_pixels(settings, rng, params)
            grid = _gather(grid, params)
        grid = _colour(settings, rng, grid)
        if settings.cutout:
            middle = constant(self.mean, grid.device).mul(255).to(grid.dtype)
            grid = _cutout(settings.cutout, rng, grid, middle)
        if rng.progress < settings.small_fraction:
            size = tuple(max(1, round(side * SMALL)) for side in self.size)
            params = replace(params, resized=size)
            grid = torch.nn.functional.interpolate(grid.float(), size=size, mode="bilinear", antialias=True)
        if settings.mixup or settings.cutmix:
            grid, mix_weight_B = _mix(settings, rng, grid)
            params = replace(params, mix_weight_B=mix_weight_B)
        return {**tensors, "grid": grid}, params

    def picture(self, grid: np.ndarray) -> np.ndarray:
        """A grid (C, H, W) as `preprocess` gives it as floats in [0, 1], (H, W) or (H, W, 3): what people look at."""
        scale, middle = np.array(self.deviation, np.float32), np.array(self.mean, np.float32)
        values = np.clip(grid * scale[:, None, None] + middle[:, None, None], 0, 1).astype(np.float32)
        return values[0] if self.channels == 1 else np.ascontiguousarray(values.transpose(1, 2, 0))

    def show(self, record: Record) -> dict[str, Any]:
        image = read_image(record[self.config.field]).convert("L" if self.channels == 1 else "RGB")
        image.thumbnail((SHOWN, SHOWN))
        held = io.BytesIO()
        image.save(held, "PNG" if max(image.size) <= 64 else "JPEG", quality=85)
        kind = "png" if max(image.size) <= 64 else "jpeg"
        return {"picture": f"data:image/{kind};base64,{base64.b64encode(held.getvalue()).decode()}"}

    def audit(self, columns: Columns, ids: Sequence[str]) -> list[Finding]:
        grid = columns["grid"]
        assert isinstance(grid, torch.Tensor)
        # From 32 pictures at a time, so that bytes become floats a little at a time.
        spread_N = torch.cat([part.flatten(1).float().std(1) for part in grid.split(32)])
        blank = torch.nonzero(spread_N < BLANK).flatten().tolist()
        return [
            Finding(
                check="blank pictures",
                verdict=judged(len(blank) / len(ids), warn=0.001, fail=0.5),
                text=f"{len(blank):,} of {len(ids):,} pictures are of one colour",
                fix="look at them; leave them out if the pictures were lost on the way",
                records=[ids[int(index)] for index in blank],
            )
        ]

    @property
    def resizes(self) -> bool:
        return self.config.augment.small_fraction > 0

    @property
    def corruptions(self) -> Sequence[str]:
        return tuple(_corrupt.PICTURES)

    def corrupt(self, records: Records, kind: str, severity: int, rng: np.random.Generator) -> Records:
        def change(value: Any) -> np.ndarray:
            return _corrupt.picture(read_image(value), kind, severity, rng)

        return each_value(records, self.config.field, change)

    def preprocess(self, tensors: Tensors) -> Tensors:
        """Bytes (B, C, H, W) to floats of mean 0 and deviation 1 per channel, in the memory order that is fast.

        Convolutions run 3 to 4 times faster on channels-last grids on CPUs, and at least as fast on GPUs. Planes are
        scaled before they are brought into that order: on CPUs it takes a third of the time. One plane is in both
        orders at once; only a copy made in that order tells the layers so.
        """
        grid = tensors["grid"]
        scale = 1 / (255 * constant(self.deviation, grid.device))[:, None, None]
        shift = -255 * constant(self.mean, grid.device)[:, None, None] * scale
        order = torch.channels_last if grid.shape[1] == 1 else torch.contiguous_format
        grid = grid.to(torch.float32, memory_format=order, copy=True).mul_(scale).add_(shift)
        return {**tensors, "grid": grid.contiguous(memory_format=torch.channels_last)}


def _for_a_text(config: ImageConfig, pictures: list[Header], count: int) -> Advice:
    """Settings for features that a decoder writes a text from, in so many records."""
    # Never mirrored: a text may say what is left and what is right.
    augment = {"shift": 0.1, "zoom": 0.2, "rotate": 10}
    size = {} if config.size is not None else {"size": 48} if count < 20_000 else {}
    return Advice(
        input={**size, **_strokes_size(config, pictures), "augment": augment},
        network={"kind": "cnn", "widths": [32, 64, 128, 256], "convolutions": [1, 1, 1, 1]},
        training={
            "epochs": int(np.clip(80_000 / max(1, count), 8, 60)),
            "batch_size": 64,
            "optimizer": {"kind": "muon", "lr": 0.02, "lr_adamw": 3e-3, "weight_decay": 0.05},
            "schedule": {"kind": "warmup-cosine", "warmup": 0.1},
        },
    )


def _mask_size(pictures: list[Header]) -> tuple[int, int]:
    """The shape of the picture of median size, under 320 pixels and in multiples of 16, as halving four times likes
    it: one picture that is far larger than the others says nothing of them."""
    by_area = sorted((one.height * one.width, one.height, one.width) for one in pictures)
    _, height, width = by_area[len(by_area) // 2] if by_area else (0, 128, 128)
    scale = min(1.0, 320 / max(height, width))
    return max(16, round(height * scale / 16) * 16), max(16, round(width * scale / 16) * 16)


def _strokes_size(config: ImageConfig, pictures: list[Header]) -> dict[str, int]:
    """The size for drawings in pure black and white, where nothing else was asked for."""
    drawn = all(one.mode == "1" and STROKES_SIZE < max(one.width, one.height) <= STROKES for one in pictures)
    return {"size": STROKES_SIZE} if pictures and drawn and config.size is None else {}


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    read_image(pixels).save(file, "PNG")
    return file.getvalue()


def _try_pixels(
    value: object, size: tuple[int, int], channels: int, how: ResizeMode, interpolation: Interpolation
) -> np.ndarray | None:
    try:
        return _pixels(read_image(value), size, channels, how, interpolation)
    except RecordError:
        return None


def _size(wanted: int | tuple[int, int] | None, found: list[tuple[int, int]]) -> tuple[int, int]:
    if isinstance(wanted, int):
        return wanted, wanted
    if wanted is not None:
        return wanted
    if len(set(found)) == 1 and max(found[0]) <= 64:
        return found[0]
    return 64, 64


def _pixels(
    image: Any, size: tuple[int, int], channels: int, how: ResizeMode, interpolation: Interpolation
) -> np.ndarray:
    """uint8 (C, H, W). 16-bit and float pictures are brought to 8 bits; transparency is laid on white."""
    if image.mode in ("I", "I;16", "F"):
        values = np.asarray(image, dtype=np.float32)
        top = 65535.0 if image.mode != "F" else max(1.0, float(values.max(initial=0)))
        image = _from_float(values / top)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = _on_white(image)
    image = fit_to(image.convert("RGB" if channels == 3 else "L"), size, how=how, interpolation=interpolation)
    pixels = np.array(image, dtype=np.uint8)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _from_float(values: np.ndarray) -> Any:
    return read_image((np.clip(values, 0, 1) * 255).astype(np.uint8))


def _on_white(image: Any) -> Any:
    from PIL import Image as Pillow

    image = image.convert("RGBA")
    return Pillow.alpha_composite(Pillow.new("RGBA", image.size, (255, 255, 255, 255)), image)


def _whole_pixels(settings: Augment, rng: BatchRng, params: AugmentParams) -> AugmentParams:
    """Flips and shifts by whole pixels."""
    u_B3 = rng.uniform("place", 3)
    shifts = []
    for axis, size in enumerate(params.size):
        most = round(settings.shift * size)
        shifts.append((u_B3[:, axis] * (2 * most + 1)).long() - most)
    flip_B = (u_B3[:, 2] < 0.5) & settings.flip
    flip_BD = torch.stack([torch.zeros_like(flip_B), flip_B], dim=1)
    return replace(params, shift_BD=torch.stack(shifts, dim=1), flip_BD=flip_BD)


def _gather(grid: Tensor, params: AugmentParams) -> Tensor:
    batch, channels, height, width = grid.shape
    index_BHW = params.sources(0)[:, :, None] * width + params.sources(1)[:, None, :]
    flat = grid.reshape(batch, channels, height * width)
    return flat.gather(2, index_BHW.reshape(batch, 1, -1).expand(-1, channels, -1)).reshape(grid.shape)


def _affine(settings: Augment, rng: BatchRng, batch: int, aspect: float) -> Tensor:
    """Zoom, rotation, shift and flip as one map from output to source places; `aspect` is height / width."""
    u_B5 = rng.uniform("place", 5)
    signed = u_B5 * 2 - 1
    zoom_B = (signed[:, 0] * math.log(1 + settings.zoom)).exp()
    angle_B = signed[:, 1] * math.radians(settings.rotate)
    cos_B, sin_B = angle_B.cos() / zoom_B, angle_B.sin() / zoom_B
    mirror_B = torch.where(u_B5[:, 4] < 0.5, -1.0, 1.0) if settings.flip else torch.ones_like(zoom_B)
    # A rotation in pixels is not one in [-1, 1] unless the picture is square: hence the aspect.
    return torch.stack(
        [
            torch.stack([cos_B * mirror_B, -sin_B * aspect, 2 * settings.shift * signed[:, 2]], dim=1),
            torch.stack([sin_B * mirror_B / aspect, cos_B, 2 * settings.shift * signed[:, 3]], dim=1),
        ],
        dim=1,
    )


def _warp(grid: Tensor, affine_B23: Tensor | None, fill_C: Tensor | None) -> Tensor:
    """The picture as the map moves it; what lies beyond its borders is reflected, or `fill_C` where that is given."""
    assert affine_B23 is not None
    places = _places(affine_B23, grid.shape[2], grid.shape[3])
    if fill_C is None:
        return torch.nn.functional.grid_sample(
            grid.float(), places, mode="bilinear", padding_mode="reflection", align_corners=False
        )
    fill_C11 = fill_C[:, None, None]
    # Moved so that the zeros that are sampled outside stand for it.
    moved = torch.nn.functional.grid_sample(
        grid - fill_C11, places, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return moved.add_(fill_C11)


def _places(affine_B23: Tensor, height: int, width: int) -> Tensor:
    """`torch.nn.functional.affine_grid` without corners aligned, (B, H, W, 2), to rounding; 7 times quicker on CPUs."""
    device = affine_B23.device
    x_W = (torch.arange(width, device=device) * 2 + 1) / width - 1
    y_H = (torch.arange(height, device=device) * 2 + 1) / height - 1
    places = affine_B23.new_empty(len(affine_B23), height, width, 2)
    for axis in (0, 1):
        along_x, along_y, shift = affine_B23[:, axis].unbind(1)
        from_y_BH = along_y[:, None] * y_H + shift[:, None]
        torch.add((along_x[:, None] * x_W)[:, None, :], from_y_BH[:, :, None], out=places[..., axis])
    return places


def _colour(settings: Augment, rng: BatchRng, grid: Tensor) -> Tensor:
    """Brightness, contrast and saturation, each a blend: with black, with the mean grey, with the grey picture.

    All three together are scale * value + grey * the picture's grey + shift, so that each value is touched once.
    """
    if not (settings.brightness or settings.contrast or settings.saturation):
        return grid
    values = grid.float()
    kept_B3111 = 1 + torch.tensor(
        [settings.brightness, settings.contrast, settings.saturation], device=grid.device
    ).reshape(3, 1, 1, 1) * (rng.uniform("colour", 3, 1, 1, 1) * 2 - 1)
    brightness, contrast, saturation = kept_B3111.unbind(1)
    scale, shift = brightness, torch.zeros_like(brightness)
    if settings.contrast:
        shift = values.mean(dim=(1, 2, 3), keepdim=True) * scale * (1 - contrast)
        scale = scale * contrast
    if settings.saturation and grid.shape[1] == 3:
        red, green, blue = values.split(1, dim=1)
        grey = (red * 0.299).add_(green, alpha=0.587).add_(blue, alpha=0.114)  # ITU-R BT.601
        shift = torch.addcmul(shift, grey, scale * (1 - saturation))
        scale = scale * saturation
    return torch.addcmul(shift, values, scale).clamp_(0, 255)


def _box(rng: BatchRng, name: str, side_B: Tensor, height: int, width: int) -> Tensor:
    """A mask (B, H, W) that is true inside a box whose sides are `side_B` of the picture's, its centre anywhere."""
    u_B2 = rng.uniform(name, 2)
    rows_H = torch.arange(height, device=side_B.device) + 0.5
    columns_W = torch.arange(width, device=side_B.device) + 0.5
    inside_BH = (rows_H[None] - u_B2[:, :1] * height).abs() < side_B[:, None] * height / 2
    inside_BW = (columns_W[None] - u_B2[:, 1:] * width).abs() < side_B[:, None] * width / 2
    return inside_BH[:, :, None] & inside_BW[:, None, :]


def _cutout(side: float, rng: BatchRng, grid: Tensor, fill_C: Tensor) -> Tensor:
    """A square blanked out (DeVries and Taylor 2017)."""
    side_B = torch.full((len(grid),), side, device=grid.device)
    box_BHW = _box(rng, "cutout", side_B, grid.shape[-2], grid.shape[-1])
    return torch.where(box_BHW[:, None], fill_C[:, None, None], grid)


def _beta(rng: BatchRng, name: str, parameter: float) -> Tensor:
    """Beta(a, a) by Joehnk's rejection: of 16 candidates the first accepted one (none is, once in 65,000 at a = 1)."""
    powers = rng.uniform(name, 16, 2).clamp_min(1e-6) ** (1 / parameter)
    total = powers.sum(dim=2)
    first = (total <= 1).int().argmax(dim=1, keepdim=True)
    return (powers[:, :, 0] / total.clamp_min(1e-12)).gather(1, first)[:, 0]


def _mix(settings: Augment, rng: BatchRng, grid: Tensor) -> tuple[Tensor, Tensor]:
    """mixup (Zhang et al. 2018) or cutmix (Yun et al. 2019), half of the batch each where both are on."""
    use_cutmix = rng.uniform("which") < (0.5 if settings.mixup else 1.0) if settings.cutmix else None
    other = partner(grid)
    values, shares = grid.float(), torch.ones(len(grid), device=grid.device)
    mixed = values
    if settings.mixup:
        shares = _beta(rng, "mixup", settings.mixup)
        mixed = torch.lerp(other.float(), values, shares[:, None, None, None])
    if use_cutmix is not None:
        kept = _beta(rng, "cutmix", settings.cutmix)
        box_BHW = _box(rng, "cutmix-place", (1 - kept).sqrt(), grid.shape[-2], grid.shape[-1])
        pasted = torch.where(box_BHW[:, None], other.float(), values)
        mixed = torch.where(use_cutmix[:, None, None, None], pasted, mixed)
        shares = torch.where(use_cutmix, 1 - box_BHW.float().mean(dim=(1, 2)), shares)
    return mixed, shares
