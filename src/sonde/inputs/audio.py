"""Sound: WAV, FLAC, OGG and other files as log-mel features, computed alike in training and in serving."""

from __future__ import annotations

import base64
import dataclasses
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import PIL.Image
import torch
from pydantic import Field, model_validator

from sonde.base.config import Config
from sonde.base.constants import constant
from sonde.base.errors import RecordError, UserError
from sonde.base.files import read_bytes
from sonde.base.rng import BatchRng
from sonde.base.threads import each
from sonde.contracts.augment import AugmentParams
from sonde.contracts.columns import Columns, Tensors
from sonde.contracts.finding import Finding, judged
from sonde.contracts.input import Input, each_value
from sonde.contracts.part import agree
from sonde.contracts.preprocessing import Preprocessing
from sonde.contracts.records import Record, Records
from sonde.contracts.specs import Advice, InputSpec, OutputSpec
from sonde.inputs import _corrupt, _mel
from sonde.inputs._extractor import Extractor

if TYPE_CHECKING:
    from torch import Tensor

# Training recordings that rate, length, mean and deviation are taken from.
SAMPLE = 2000
# More samples than an example can have: an hour at 16,000 a second.
MOST_SAMPLES = 1 << 26
# The highest rate and the most seconds, unless the recipe says more: speech has little above 8 kHz.
RATE, SECONDS = 16_000, 30.0
# Examples are at most so many times as long as what 90 % of the recordings need.
OUTLYING = 2.0

# Seconds of a recording on a report, and the width of its picture.
HEARD, SHOWN = 10.0, 224


class Augment(Config):
    """What is done at random to training recordings. Zero switches a part off."""

    gain: float = Field(default=6.0, ge=0, description="largest change of loudness, in dB")
    shift: float = Field(
        default=0.1, ge=0, le=1, description="latest start, as a share of the length, if there is room"
    )
    speed: float = Field(
        default=0.0, ge=0, le=0.5, description="largest change of speed (and so of pitch), as a share; speech takes 0.1"
    )
    time: float = Field(default=0.1, ge=0, le=1, description="longest stretch blanked out, as a share of the recording")
    frequency: float = Field(default=0.1, ge=0, le=1, description="widest range of bands blanked out, as a share")
    masks: int = Field(default=1, ge=0, description="how many stretches, and how many ranges (SpecAugment)")


class AudioConfig(Config):
    kind: Literal["audio"] = "audio"
    field: str = Field(default="audio", description="the field that holds the recording")
    rate: int | None = Field(
        default=None,
        ge=1000,
        le=1 << 20,
        description="samples per second; what most recordings have (at most 16000) if left out",
    )
    n_mels: int | None = Field(
        default=None, ge=4, le=256, description="mel bands; 40 for rates up to 8000, else 64, if left out"
    )
    seconds: float | None = Field(
        default=None,
        gt=0,
        description="length of all examples: shorter recordings are padded, longer ones cut at their end; "
        "if left out what 99 % need, at most 30 and at most twice what 90 % need",
    )
    augment: Augment = Field(default=Augment(), description="random changes, in training only")

    renamed: ClassVar[Mapping[str, str]] = {"bands": "n_mels"}

    @model_validator(mode="after")
    def _has_a_length(self) -> Self:
        # What a recipe leaves to the data is at most this rate.
        if (self.seconds or 0) * (self.rate or RATE) > MOST_SAMPLES:
            raise ValueError(f"{self.seconds} seconds are more than {MOST_SAMPLES:,} samples")
        return self


@dataclass(frozen=True, kw_only=True)
class Audio(Input):
    """One recording a record: "frames" float16 (T, F), log-mel, and "length" (), how many of them are real.

    All channels are mixed to one. `mean` and `deviation` are per band, over the real frames of the training split.
    With an `extractor`, the settings of a pretrained network's own, frames are float32 as that gives them (a waveform
    has one band), `steps` of them; they are neither standardized nor augmented.
    Shape suffixes: B example, T frame, F band, M mask, N sample.
    """

    Config = AudioConfig
    reads_file: ClassVar[bool] = True
    takes_file: ClassVar[bool] = True

    config: AudioConfig
    rate: int
    n_mels: int
    seconds: float
    mean: list[float]
    deviation: list[float]
    extractor: dict[str, Any] | None = None
    steps: int = 0

    @classmethod
    def fit(cls, config: AudioConfig, records: Records) -> Self:
        if config.field not in records.fields:
            raise UserError(
                f"the records have no field {config.field!r}", expected="one of: " + ", ".join(records.fields)
            )
        values = _some(config, records)
        found = _headers(config, values)
        usual = Counter(rate for rate, _ in found).most_common()
        # Of rates that are equally common the lower one: nothing is made up then.
        rate = config.rate or min(RATE, min(rate for rate, count in usual if count == usual[0][1]))
        bands = config.n_mels or (40 if rate <= 8000 else 64)
        part = cls(
            config=config,
            rate=rate,
            n_mels=bands,
            seconds=config.seconds or _usual_seconds([seconds for _, seconds in found]),
            mean=[0.0] * bands,
            deviation=[1.0] * bands,
        )
        moments = [one for one in each(part._moments, values) if one is not None]
        if not moments:
            part.encode({config.field: values[0]})
        count, total_F, square_F = torch.stack(moments).sum(0)
        mean_F = total_F / count
        # A band that is always silent has no deviation; any scale will do then.
        deviation_F = (square_F / count - mean_F**2).clamp_min(1e-6).sqrt()
        return dataclasses.replace(part, mean=mean_F.tolist(), deviation=deviation_F.tolist())

    @classmethod
    def fit_to(cls, config: AudioConfig, records: Records, wanted: Preprocessing) -> Self:
        if wanted.sound is None:
            return super().fit_to(config, records, wanted)
        extractor = Extractor(wanted.sound.extractor)
        if config.rate not in (None, extractor.rate) or config.n_mels is not None:
            setting = "n_mels" if config.n_mels is not None else "rate"
            raise UserError(
                f"{setting} is what the pretrained network's own features of sound have", hint=f"leave {setting} out"
            )
        found = _headers(config, _some(config, records))
        seconds = config.seconds or _usual_seconds([each for _, each in found])
        frames_TF, _ = extractor(np.zeros(max(1, round(seconds * extractor.rate)), dtype=np.float32))
        return cls(
            config=config,
            rate=extractor.rate,
            n_mels=frames_TF.shape[1],
            seconds=seconds,
            mean=[0.0] * frames_TF.shape[1],
            deviation=[1.0] * frames_TF.shape[1],
            extractor=dict(wanted.sound.extractor),
            steps=len(frames_TF),
        )

    @cached_property
    def _extract(self) -> Extractor | None:
        return None if self.extractor is None else Extractor(self.extractor)

    def _moments(self, value: object) -> Tensor | None:
        """Of a recording the number of frames, the sum of values and that of squares per band, float64 (3, F)."""
        try:
            frames_TF = self._frames(value).double()
        except RecordError:
            return None
        count_F = torch.full((self.n_mels,), float(len(frames_TF)), dtype=torch.float64)
        return torch.stack([count_F, frames_TF.sum(0), frames_TF.square().sum(0)])

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator) -> tuple[AudioConfig, Records]:
        sounds = np.empty(count, dtype=object)
        sounds[:] = [_tone(300.0 + 50 * index, 1200 + 400 * (index % 4), rng) for index in range(count)]
        return AudioConfig(n_mels=16), Records(
            fields={"audio": sounds}, ids=[f"tone {index}" for index in range(count)]
        )

    @staticmethod
    def recommend(config: AudioConfig, output: OutputSpec, records: Records) -> Advice:
        if "example" not in output.per:
            return _for_a_text(len(records))
        length, notes = _length_advice(config, records)
        return Advice(
            input=length,
            notes=notes,
            network={"kind": "cnn"},
            training={
                "epochs": 20 if len(records) < 5000 else 12,
                "batch_size": 32,
                # On spoken digits, after 15 epochs: 99.0 % of the test split with muon, 93.5 % with adamw at 1e-3.
                "optimizer": {"kind": "muon", "lr": 0.02},
                "schedule": {"kind": "one-cycle"},
            },
        )

    def check_fitted(self, inputs: Mapping[str, Input]) -> None:
        agree(1000 <= self.rate <= 1 << 20, f"rate is {self.rate}")
        agree(4 <= self.n_mels <= 256, f"n_mels is {self.n_mels}")
        agree(0 < self.seconds * self.rate <= MOST_SAMPLES, f"seconds is {self.seconds}")
        agree(len(self.mean) == len(self.deviation) == self.n_mels, "mean and deviation are not one a band")
        agree(min(self.deviation) > 0, "a deviation is not above 0")

    @property
    def length(self) -> int:
        """Frames of every example."""
        return self.steps or 1 + self._limit // _mel.hop(self.rate)

    @property
    def _limit(self) -> int:
        """Samples of the longest example."""
        return max(1, round(self.seconds * self.rate))

    @property
    def spec(self) -> InputSpec:
        return InputSpec(layout="frames", channels=self.n_mels, size=(self.length,))

    @property
    def frame_seconds(self) -> float:
        """Seconds from one frame to the next."""
        return _mel.hop(self.rate) / self.rate

    @cached_property
    def _filters(self) -> Tensor:
        return _mel.filters(self.rate, self.n_mels)

    def encode(self, record: Record) -> Tensors:
        value = record.get(self.config.field)
        if value is None:
            raise RecordError(f"the record has no recording in field {self.config.field!r}")
        if self._extract is not None:
            return self._as_the_network_wants(self._extract, value)
        real_TF = self._frames(value)
        frames_TF = torch.full((self.length, self.n_mels), math.log(_mel.FLOOR), dtype=torch.float16)
        frames_TF[: len(real_TF)] = real_TF
        return {"frames": frames_TF, "length": torch.tensor(len(real_TF))}

    def _as_the_network_wants(self, extract: Extractor, value: object) -> Tensors:
        samples_N = resample(*_samples(value, self.seconds), self.rate)[: self._limit]
        real_TF, length = extract(samples_N)
        frames_TF = torch.zeros(self.length, self.n_mels)
        frames_TF[: len(real_TF)] = real_TF[: self.length]
        return {"frames": frames_TF, "length": torch.tensor(min(length, self.length))}

    def _frames(self, value: object) -> Tensor:
        """The real frames of a recording, float32 (T, F)."""
        samples_N = resample(*_samples(value, self.seconds), self.rate)[: self._limit]
        return _mel.log_mel(torch.from_numpy(samples_N), self.rate, self._filters)

    def show(self, record: Record) -> dict[str, Any]:
        """The recording to listen to (at most 10 s), and its log-mel picture."""
        samples_N = resample(*_samples(record[self.config.field], HEARD), self.rate)[: round(HEARD * self.rate)]
        held = io.BytesIO()
        _soundfile().write(held, samples_N, self.rate, format="WAV", subtype="PCM_16")
        frames_TF = _mel.log_mel(torch.from_numpy(samples_N), self.rate, self._filters)
        low, high = frames_TF.quantile(0.02), frames_TF.max()
        grey = ((frames_TF - low) / (high - low).clamp_min(1e-6)).clamp(0, 1).mul(255).byte().flip(1).T.numpy()
        picture = io.BytesIO()
        PIL.Image.fromarray(np.ascontiguousarray(grey)).resize((SHOWN, 2 * grey.shape[0])).save(picture, "PNG")
        return {
            "sound": f"data:audio/wav;base64,{base64.b64encode(held.getvalue()).decode()}",
            "picture": f"data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}",
        }

    def audit(self, columns: Columns, ids: Sequence[str]) -> list[Finding]:
        frames, length = columns["frames"], columns["length"]
        assert isinstance(frames, torch.Tensor)
        assert isinstance(length, torch.Tensor)
        loudest_N = torch.cat([part.flatten(1).float().amax(1) for part in frames.split(32)])
        silent = torch.nonzero(loudest_N <= math.log(_mel.FLOOR) + 1e-2).flatten().tolist()
        cut = int((length >= self.length).sum())
        return [
            Finding(
                check="silent recordings",
                verdict=judged(len(silent) / len(ids), warn=0.001, fail=0.5),
                text=f"{len(silent):,} of {len(ids):,} recordings are silent",
                fix="listen to them; leave them out if the sound was lost on the way",
                records=[ids[int(index)] for index in silent],
            ),
            Finding(
                check="cut recordings",
                # The seconds that are taken from the data are those of the longest usual ones: they fill it uncut.
                verdict="pass" if self.config.seconds is None else judged(cut / len(ids), warn=0.05),
                text=f"{cut:,} of {len(ids):,} recordings ({cut / len(ids):.1%}) fill the {self.seconds:g} s that are "
                "read; the longer ones lose their end",
                fix="inputs.<name>.seconds = a larger number reads more of each",
                numbers={"share": cut / len(ids)},
            ),
        ]

    @property
    def corruptions(self) -> Sequence[str]:
        return _corrupt.SOUNDS

    def corrupt(self, records: Records, kind: str, severity: int, rng: np.random.Generator) -> Records:
        def change(value: Any) -> bytes:
            samples_N, rate = _samples(value, self.seconds)
            place = io.BytesIO()
            _soundfile().write(
                place, _corrupt.samples(samples_N, rate, kind, severity, rng), rate, "FLOAT", format="WAV"
            )
            return place.getvalue()

        return each_value(records, self.config.field, change)

    def augment(self, tensors: Tensors, rng: BatchRng) -> tuple[Tensors, AugmentParams]:
        if self.extractor is not None:
            return tensors, AugmentParams()
        settings, length_B = self.config.augment, tensors["length"]
        frames_BTF = tensors["frames"].float()
        size, bands = frames_BTF.shape[1:]
        place_T = torch.arange(size, device=frames_BTF.device)
        blank_BTF = torch.zeros(frames_BTF.shape, dtype=torch.bool, device=frames_BTF.device)
        if settings.speed:
            factor_B = 1 + settings.speed * (2 * rng.uniform("speed") - 1)
            frames_BTF, length_B = _mel.change_speed(frames_BTF, length_B, factor_B, self.rate)
        if settings.shift:
            room_B = (size - length_B).clamp(max=round(settings.shift * size))
            later_B = (rng.uniform("shift") * (room_B + 1)).long()
            source_BT = place_T[None, :] - later_B[:, None]
            frames_BTF = frames_BTF.gather(1, source_BT.clamp_min(0)[:, :, None].expand(-1, -1, bands))
            blank_BTF |= (source_BT < 0)[:, :, None]
            length_B = length_B + later_B
        if settings.gain:
            nepers_B11 = (rng.uniform("gain", 1, 1) * 2 - 1) * (settings.gain * math.log(10) / 10)
            frames_BTF = frames_BTF + nepers_B11
        if settings.masks and settings.time:
            blank_BTF |= _stretches(rng, "time", settings.masks, settings.time, length_B, size)[:, :, None]
        if settings.masks and settings.frequency:
            all_B = torch.full_like(length_B, bands)
            blank_BTF |= _stretches(rng, "frequency", settings.masks, settings.frequency, all_B, bands)[:, None, :]
        # The mean is what padding looks like to a network: zero, once standardized.
        mean_F = constant(self.mean, frames_BTF.device)
        return {"frames": torch.where(blank_BTF, mean_F, frames_BTF), "length": length_B}, AugmentParams()

    def preprocess(self, tensors: Tensors) -> Tensors:
        """Log-mel frames (B, T, F) to floats of mean 0 and deviation 1 per band, with zeros beyond each length."""
        if self.extractor is not None:
            return tensors
        frames_BTF, length_B = tensors["frames"], tensors["length"]
        scale_F = 1 / constant(self.deviation, frames_BTF.device)
        shift_F = -constant(self.mean, frames_BTF.device) * scale_F
        beyond_BT = torch.arange(frames_BTF.shape[1], device=frames_BTF.device)[None, :] >= length_B[:, None]
        standard_BTF = torch.addcmul(shift_F, frames_BTF.float(), scale_F)
        return {**tensors, "frames": standard_BTF.masked_fill(beyond_BT[:, :, None], 0.0)}


def _for_a_text(count: int) -> Advice:
    """Settings for answers or features along a recording, in so many of them.

    Digit strings of fsdd (benchmarks/digit_strings.py, 1,500 of them): see docs/log.md.
    """
    few = count < 5000
    return Advice(
        input={"augment": {"speed": 0.1, "masks": 2, "time": 0.05, "frequency": 0.2}},
        network={"kind": "recurrent", "width": 128 if few else 256, "layers": 2 if few else 4, "subsample": 4},
        training={
            "epochs": int(np.clip(40_000 / max(1, count), 10, 60)),
            "batch_size": 32,
            "optimizer": {"kind": "muon", "lr": 0.02, "lr_adamw": 2e-3},
            "schedule": {"kind": "warmup-cosine", "warmup": 0.1},
        },
    )


def _usual_seconds(seconds: Sequence[float]) -> float:
    """The length of examples: what 99 % of the recordings need, but not for the sake of a few that are far longer than
    the others, because every example is padded to it."""
    most, usual = np.percentile(seconds, [99, 90], method="inverted_cdf")
    return math.ceil(min(SECONDS, float(most), OUTLYING * float(usual)) * 100) / 100


def _length_advice(config: AudioConfig, records: Records) -> tuple[dict[str, float], tuple[str, ...]]:
    """The length as a setting, and what is cut, where recordings are longer than examples will be."""
    values = records.fields[config.field]
    chosen = np.linspace(0, len(values) - 1, min(SAMPLE, len(values))).astype(int)
    seconds = [one[1] for one in each(_header, values[chosen]) if one is not None]
    if config.seconds is not None or not seconds:
        return {}, ()
    limit = _usual_seconds(seconds)
    longer = sum(one > limit for one in seconds)
    if not longer:
        return {}, ()
    note = (
        f"{longer:,} of {len(seconds):,} recordings are longer than {limit:g} s (the longest is {max(seconds):.4g} s) "
        "and are cut there; seconds in the recipe changes it"
    )
    return {"seconds": limit}, (note,)


def _stretches(rng: BatchRng, name: str, count: int, share: float, size_B: Tensor, most: int) -> Tensor:
    """Random stretches of 0 to `share` of each size, as a mask (B, most) that is true inside any of them.

    SpecAugment's masks (Park et al. 2019), their width relative to the length of the example (Park et al. 2020).
    """
    u_BM2 = rng.uniform(name, count, 2)
    width_BM = (u_BM2[:, :, 0] * (share * size_B[:, None] + 1)).floor()
    start_BM = (u_BM2[:, :, 1] * (size_B[:, None] - width_BM + 1)).floor()
    place = torch.arange(most, device=u_BM2.device)
    inside = (place >= start_BM[:, :, None]) & (place < (start_BM + width_BM)[:, :, None])
    return inside.any(dim=1)


def resample(samples_N: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """The sound at another rate, float32, by a polyphase low-pass filter."""
    if rate == wanted:
        return samples_N
    from scipy.signal import resample_poly

    common = math.gcd(rate, wanted)
    return resample_poly(samples_N, wanted // common, rate // common).astype(np.float32)


def _samples(value: object, seconds: float) -> tuple[np.ndarray, int]:
    """The first seconds of a recording mixed to one channel, float32 (N,), and its rate.

    Raises:
        RecordError: it is no recording, has no samples, or samples that are not numbers.
    """
    soundfile = _soundfile()
    content, name = read_bytes(value), _name(value)
    promised = int.from_bytes(content[4:8], "little") + 8 if content[:4] == b"RIFF" else 0
    # The decoder takes half a WAV for a whole one. Sizes beyond 2 GiB mean that the writer did not know.
    if len(content) + 8 < promised < 1 << 31:
        raise RecordError(f"{name} is cut short: it has {len(content)} of {promised} bytes", expected="a whole file")
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            rate = int(file.samplerate)
            samples = file.read(math.ceil(seconds * rate), dtype="float32", always_2d=True)
    except Exception as error:  # a decoder may raise nearly anything on a broken file
        raise RecordError(
            f"{name} is not a readable recording: {str(error).split(': ', 1)[-1]}",
            expected="a whole WAV, FLAC, OGG or other sound file",
        ) from error
    if not len(samples):
        raise RecordError(f"{name} has no samples", expected="a recording that is not empty")
    if not np.isfinite(samples).all():
        raise RecordError(f"{name} has samples that are NaN or infinite", expected="samples from -1 to 1")
    return np.ascontiguousarray(samples.mean(axis=1)), rate


def _some(config: AudioConfig, records: Records) -> list[object]:
    """The recordings that rate and length are taken from."""
    chosen = np.linspace(0, len(records) - 1, min(SAMPLE, len(records))).astype(int)
    return list(records.fields[config.field][chosen])


def _headers(config: AudioConfig, values: list[object]) -> list[tuple[int, float]]:
    """The rates and seconds of those that can be read.

    Raises:
        UserError: none can.
    """
    found = [one for one in each(_header, values) if isinstance(one, tuple)]
    if not found:
        raise UserError(
            f"none of the first {len(values)} records has a readable recording in field {config.field!r}",
            expected="WAV, FLAC, OGG or other sound files",
        )
    return found


def _header(value: object) -> tuple[int, float] | None:
    """The rate and the seconds of a recording, None where it is not one."""
    soundfile = _soundfile()
    try:
        found = soundfile.info(io.BytesIO(read_bytes(value)))
    except Exception:  # as in _samples, which will say what is wrong
        return None
    return (int(found.samplerate), found.frames / found.samplerate) if found.frames else None


def _soundfile() -> ModuleType:
    try:
        import soundfile
    except ImportError as error:
        raise UserError(
            "audio needs the package soundfile, which is not installed", hint='pip install "sonde[audio]"'
        ) from error
    return soundfile


def _name(value: object) -> str:
    return "the recording" if isinstance(value, (bytes, bytearray, memoryview)) else str(value)


def _tone(hertz: float, count: int, rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    time = np.arange(count) / 8000
    samples = 0.3 * np.sin(2 * np.pi * hertz * time) + 0.01 * rng.standard_normal(count)
    _soundfile().write(file, samples.astype(np.float32), 8000, format="WAV")
    return file.getvalue()
