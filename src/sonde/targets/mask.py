"""A class for every pixel or voxel (semantic segmentation): road, car, sky; organs and lesions."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import numpy as np
import torch
from PIL import Image, ImageColor
from pydantic import Field, model_validator

from sonde import metrics
from sonde.base import boxes
from sonde.base.config import Config
from sonde.base.constants import constant
from sonde.base.errors import RecordError, UserError, unknown
from sonde.base.gradients import without_gradient
from sonde.base.images import ResizeMode, colours_of, fit_to, hex_of, read_image
from sonde.base.rng import BatchRng
from sonde.base.slices import middle_slices
from sonde.base.threads import each
from sonde.base.volumes import read_volume, to_file, to_ras
from sonde.contracts.augment import AugmentParams
from sonde.contracts.batch import Batch
from sonde.contracts.columns import Columns, EvalColumns, Ragged, Tensors
from sonde.contracts.finding import Finding
from sonde.contracts.input import Input
from sonde.contracts.panel import Panel
from sonde.contracts.part import agree
from sonde.contracts.records import Record, Records
from sonde.contracts.specs import Advice, InputSpec, OutputSpec
from sonde.contracts.target import Prediction, Target
from sonde.targets import _mask_audit
from sonde.targets import _panels as panels
from sonde.targets import _volume_masks as volumes
from sonde.targets._classes import MOST, ClassWeights, check_classes, class_weights
from sonde.targets._inputs import asked_of_one, the_input
from sonde.targets._sums import weighted_sum

if TYPE_CHECKING:
    from torch import Tensor, nn

# The code of a pixel without a class; also of what lies outside the picture.
IGNORED = 255
# How many training masks the classes are looked for in.
SAMPLE = 2000


class MaskConfig(Config):
    kind: Literal["mask"] = "mask"
    field: str = Field(
        default="mask", description="the field that holds the mask: a picture or volume whose values are class ids"
    )
    input: str | None = Field(
        default=None, description="the image or volume input it belongs to; the only one if left out"
    )
    classes: list[str] | None = Field(
        default=None, description="names of the ids 0, 1, ... (or of those found, in order)"
    )
    ignore: int | None = Field(default=None, ge=0, description="the id of pixels that have no class")
    palette: dict[str, Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$")]] | None = Field(
        default=None,
        description='for masks in colours: the colour of each class, { road = "#804080", ... }; ids are their places',
    )
    nearest_colour: bool = Field(
        default=False, description="take pixels of a colour that palette lacks for the class of the nearest one"
    )
    cross_entropy: float = Field(default=1.0, ge=0, description="weight of the cross-entropy term")
    dice: float = Field(default=0.0, ge=0, description="weight of the Dice term, which minds small classes more")
    class_weights: ClassWeights = Field(
        default="none", description="balanced: every class has the same say; or a table of weights by class name"
    )

    tolerance: float = Field(
        default=1.0, ge=0, description="volumes: mm that surfaces may lie apart and still agree, for the score nsd"
    )

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        if not self.cross_entropy and not self.dice:
            raise ValueError("cross_entropy and dice are both 0: nothing would be learned")
        if self.palette is not None and self.classes is not None:
            raise ValueError("palette names the classes, and so does classes; give one of them")
        if self.nearest_colour and self.palette is None:
            raise ValueError("nearest_colour is for masks in colours; give palette as well")
        return self


@runtime_checkable
class Resizes(Protocol):
    """Settings of an input that brings pictures to one size: its masks are brought there in the same way."""

    resize_mode: ResizeMode


@runtime_checkable
class HasSpacing(Protocol):
    """Settings of an input of volumes, whose voxels have lengths."""

    spacing: tuple[float, float, float] | None


@dataclass(frozen=True, kw_only=True)
class Mask(Target):
    """Truth: "mask" uint8 (B, H, W), the code of each pixel's class; 255 where there is none. Of volumes (B, X, Y, Z)
    in the size and spacing of the file: answers are brought there, and scored there case by case.

    `ids` are the values of the classes in mask files, `pixels` how many training pixels each has, `weights` what each
    counts in the loss. Losses are summed over pixels: cross-entropy, and soft Dice (Milletari et al. 2016) per picture
    over the classes that are in it. Dice is one number a picture: it is multiplied by the pixels that the picture
    counts for, so that dividing by the count of pixels gives its mean over pictures, weighted by their pixels.
    Shape suffixes: B example, K class, H row, W column.
    """

    Config = MaskConfig
    reads_file: ClassVar[bool] = True
    baseline_name: ClassVar = "commonest class"
    best: ClassVar = ("miou", "max")
    asks: ClassVar = OutputSpec(per=("pixel",))
    accepts: ClassVar = ("grid",)
    dimensions: ClassVar = (2, 3)
    ragged: ClassVar[tuple[str, ...]] = ("voxels",)
    lower_is_better: ClassVar = volumes.LOWER_IS_BETTER
    no_shares: ClassVar = volumes.LOWER_IS_BETTER

    config: MaskConfig
    input: str
    size: list[int]
    how: ResizeMode
    ids: list[int]
    classes: list[str]
    pixels: list[int]
    weights: list[float] | None

    @classmethod
    def fit(cls, config: MaskConfig, records: Records, inputs: Mapping[str, Input]) -> Self:
        if config.field not in records.fields:
            raise unknown(config.field, records.fields, what="the field")
        name = the_input(inputs, "grid", config.input, "mask")
        settings, size = inputs[name].config, list(inputs[name].spec.size)
        is_volume = len(size) == 3 and isinstance(settings, HasSpacing)
        if not is_volume and not (isinstance(settings, Resizes) and len(size) == 2):
            raise UserError(
                f"the input {name!r} is neither a picture nor a volume",
                expected="an input of kind image or volume for target 'mask'",
            )
        sample = records.take(np.linspace(0, len(records) - 1, min(SAMPLE, len(records))).astype(int))
        found = _found(sample, config, is_volume=is_volume)
        ids, classes = _named(sorted(found), config)
        pixels = [found.get(value, 0) for value in ids]
        weights = class_weights(config.class_weights, classes, pixels)
        return cls(
            config=config,
            input=name,
            size=size,
            how=settings.resize_mode if isinstance(settings, Resizes) else "pad",
            ids=ids,
            classes=classes,
            pixels=pixels,
            weights=weights,
        )

    def check_fitted(self, inputs: Mapping[str, Input]) -> None:
        check_classes(self.classes, self.pixels, self.weights)
        agree(len(set(self.ids)) == len(self.ids) == len(self.classes), "the ids are not one a class")
        agree(min(self.ids) >= 0 and max(self.ids) < 1 << 16, f"the ids are from {min(self.ids)} to {max(self.ids)}")
        agree(self.input == the_input(inputs, "grid", self.config.input, "mask"), f"its input is {self.input!r}")
        agree(tuple(self.size) == inputs[self.input].spec.size, f"its size {self.size} is not that of its input")

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator, given: Records) -> tuple[MaskConfig, Records]:
        masks = np.empty(count, dtype=object)
        shapes = [(20, 16 + index % 3) for index in range(count)]
        if "volume" in given.fields:
            shapes = [volume.shape for volume in given.fields["volume"]]
        masks[:] = [rng.integers(0, 4, shape, dtype=np.uint8) for shape in shapes]
        config = MaskConfig(ignore=3, dice=0.5, classes=["road", "car", "sky"])
        return config, Records(fields={"mask": masks}, ids=[f"picture {index}" for index in range(count)])

    @classmethod
    def recommend(cls, config: MaskConfig, inputs: Mapping[str, Config], records: Records) -> Advice:
        return Advice(target={"dice": 1.0})

    @property
    def width(self) -> int:
        return len(self.classes)

    def outputs(self, inputs: Mapping[str, InputSpec]) -> dict[str, OutputSpec]:
        return asked_of_one(inputs, self.input, replace(self.asks, width=self.width))

    @property
    def monitor(self) -> tuple[str, Literal["max", "min"]]:
        return ("dice", "max") if self.of_volumes else self.best

    @property
    def of_volumes(self) -> bool:
        return len(self.size) == 3

    @property
    def labels(self) -> volumes.Labels:
        """The classes of volumes that are scored: all but the id 0, the background."""
        background = self.ids.index(0) if 0 in self.ids else None
        return volumes.Labels(
            classes=self.classes, background=background, tolerance=self.config.tolerance, ignored=IGNORED
        )

    def encode(self, record: Record, given: Mapping[str, Tensors]) -> Tensors:
        if self.of_volumes:
            mask = volumes.read_labels(record.get(self.config.field), self.config.field)
            volumes.check_space(mask, given[self.input], self.config.field)
            codes = self._coded(mask.values)
            places = volumes.places_of(codes, self.labels)
            space = {name: given[self.input][name] for name in ("native", "affine")}
            return {"voxels": torch.from_numpy(codes.ravel()), "places": torch.from_numpy(places), **space}
        # Moved up by one (255 becomes 0), so that the black around a padded picture is what is ignored.
        raised = Image.fromarray(self._coded(read_ids(record.get(self.config.field), self.config)) + np.uint8(1))
        fitted = np.array(
            fit_to(raised, (self.size[0], self.size[1]), how=self.how, interpolation="nearest"), dtype=np.uint8
        )
        return {"mask": torch.from_numpy(fitted - np.uint8(1))}

    def _coded(self, values: np.ndarray) -> np.ndarray:
        """The codes of ids, uint8."""
        codes = np.full(int(max(*self.ids, values.max(initial=0), self.config.ignore or 0)) + 1, -1)
        codes[self.ids] = np.arange(len(self.ids))
        if self.config.ignore is not None:
            codes[self.config.ignore] = IGNORED
        mask = codes[values]
        if (mask < 0).any():
            raise _unknown_id(int(values[mask < 0].min()), self.ids, self.classes)
        return mask.astype(np.uint8)

    def collate(self, columns: Columns) -> Tensors:
        voxels, native_B3 = columns.get("voxels"), columns.get("native")
        if not isinstance(voxels, Ragged) or not isinstance(native_B3, torch.Tensor):
            return super().collate(columns)
        places = columns["places"]
        assert isinstance(places, torch.Tensor)
        return {"mask": volumes.padded(voxels, native_B3, IGNORED), "places": places}

    def focus(self, truth: Tensors, rng: BatchRng) -> Tensor | None:
        return volumes.focus(truth["places"], rng) if "places" in truth else None

    def audit(self, columns: Columns, ids: Sequence[str]) -> list[Finding]:
        # Volumes keep their voxels as they are, of any size.
        mask = columns.get("mask")
        return [] if not isinstance(mask, torch.Tensor) else _mask_audit.audit(mask, self.classes, IGNORED, ids)

    def apply_augment(self, truth: Tensors, params: AugmentParams) -> Tensors:
        if params.mix_weight_B is not None:
            return super().apply_augment(truth, params)
        return {"mask": params.grids(truth["mask"], IGNORED)}

    def counts(self, batch: Batch) -> Tensors:
        pixels = weighted_sum(self._pixels(batch.truth["mask"]), batch.weight_B)
        weights = {"cross_entropy": self.config.cross_entropy, "dice": self.config.dice}
        return {term: pixels for term, weight in weights.items() if weight}

    def _pixels(self, mask_BHW: Tensor) -> Tensor:
        """What each picture counts for (B,): its pixels that have a class, times the weights of these."""
        if self.weights is None:
            return (mask_BHW != IGNORED).flatten(1).sum(1).float()
        weight_256 = torch.zeros(IGNORED + 1, device=mask_BHW.device)
        weight_256[: len(self.weights)] = constant(self.weights, mask_BHW.device)
        return weight_256[mask_BHW.long()].flatten(1).sum(1)

    def _logits(self, network: nn.Module, batch: Batch) -> Tensor:
        """The answers for each pixel of the picture that went in; for each voxel of volumes as they came."""
        logits_BKHW = network(batch.inputs).float()
        tensors = batch.inputs[self.input]
        return volumes.in_native(logits_BKHW, tensors) if volumes.is_volume(tensors) else logits_BKHW

    def loss(self, network: nn.Module, batch: Batch, rng: BatchRng) -> Tensors:
        logits_BKHW = self._logits(network, batch)
        mask_BHW = batch.truth["mask"]
        terms: Tensors = {}
        if self.config.cross_entropy:
            weights_K = None if self.weights is None else constant(self.weights, logits_BKHW.device)
            cost_BHW = torch.nn.functional.cross_entropy(
                logits_BKHW, mask_BHW.long(), weight=weights_K, ignore_index=IGNORED, reduction="none"
            )
            terms["cross_entropy"] = weighted_sum(cost_BHW, batch.weight_B) * self.config.cross_entropy
        if self.config.dice:
            cost_B = dice_loss(logits_BKHW.softmax(1), mask_BHW) * self._pixels(mask_BHW)
            terms["dice"] = weighted_sum(cost_B, batch.weight_B) * self.config.dice
        return terms

    @without_gradient
    def predict(self, network: nn.Module, batch: Batch) -> list[Prediction]:
        """{"size": [H, W], "shares": {class: part of the pixels}, "mask": {"ids": [...], "lengths": [...]}}.

        "mask" is run-length coded, row by row from the top left: so many pixels of this id, then so many of that.
        The ids are those of the mask files. `unpack` gives the picture back. Of volumes in the voxel order of the file,
        the last axis first, beside the "millilitres" of each label.
        """
        codes_BHW = self._logits(network, batch).argmax(1).cpu().numpy()
        if not self.of_volumes:
            return [self._packed(codes_HW) for codes_HW in codes_BHW]
        answers = []
        for index, codes in enumerate(codes_BHW):
            in_file, millilitres = volumes.answer(codes, batch.inputs[self.input], index, self.labels)
            answers.append({"millilitres": millilitres, **self._packed(in_file)})
        return answers

    def _packed(self, codes_HW: np.ndarray) -> Prediction:
        flat = codes_HW.ravel()
        starts = np.append(0, np.flatnonzero(np.diff(flat)) + 1)
        lengths = np.diff(np.append(starts, flat.size))
        shares_K = np.bincount(flat, minlength=len(self.classes)) / flat.size
        return {
            "size": list(codes_HW.shape),
            "shares": dict(zip(self.classes, shares_K.tolist(), strict=True)),
            "mask": {"ids": np.array(self.ids)[flat[starts]].tolist(), "lengths": lengths.tolist()},
        }

    @without_gradient
    def eval_outputs(self, network: nn.Module, batch: Batch) -> Columns:
        """The pixels of each picture by [true, predicted] class: "confusion" int64 (B, K, K)."""
        predicted_BHW, true_BHW = self._logits(network, batch).argmax(1), batch.truth["mask"].long()
        found: Columns = {"confusion": self._confusion(predicted_BHW, true_BHW)}
        if self.of_volumes:
            found |= volumes.outputs(predicted_BHW, true_BHW, batch.inputs[self.input], self.labels)
        return found

    def _confusion(self, predicted_BHW: Tensor, true_BHW: Tensor) -> Tensor:
        count, num_classes = len(true_BHW), len(self.classes)
        picture_B11 = torch.arange(count, device=true_BHW.device).reshape(-1, *[1] * (true_BHW.ndim - 1))
        cell_BHW = (picture_B11 * num_classes + true_BHW) * num_classes + predicted_BHW
        # Pixels without a class go to one last cell, which is dropped.
        last = count * num_classes**2
        cell_BHW = torch.where(true_BHW == IGNORED, last, cell_BHW)
        cells = torch.bincount(cell_BHW.flatten(), minlength=last + 1)[:last]
        return cells.reshape(count, num_classes, num_classes)

    def draw(self, prediction: Prediction, record: Record, inputs: Mapping[str, Input]) -> Image.Image | None:
        """The picture as the network saw it, with the classes over it; of a volume three slices with outlines."""
        codes = {value: code for code, value in enumerate(self.ids)}
        codes_HW = np.vectorize(codes.__getitem__, otypes=[np.int64])(unpack(prediction))
        if self.of_volumes:
            volume = read_volume(record[inputs[self.input].config.field])
            return middle_slices(volume, np.array(self.ids)[to_ras(codes_HW, volume.orientation)])
        picture = read_image(record[inputs[self.input].config.field])
        fitted = fit_to(picture.convert("RGB"), (self.size[0], self.size[1]), how=self.how)
        return _painted(fitted, codes_HW)

    def files(self, prediction: Prediction, record: Record, inputs: Mapping[str, Input]) -> dict[str, bytes]:
        """The mask in the format of its input: a NIfTI file in the same space, an array, or a picture of the ids."""
        ids = unpack(prediction).astype(np.uint8 if max(self.ids) < 1 << 8 else np.uint16)
        if self.of_volumes:
            ending, content = to_file(ids, record[inputs[self.input].config.field])
            return {ending: content}
        held = io.BytesIO()
        Image.fromarray(ids).save(held, "PNG")
        return {".png": held.getvalue()}

    def baseline(self, truth: Columns) -> Columns:
        """The commonest class of training, everywhere."""
        if self.of_volumes:
            return self._baseline_of_volumes(truth)
        masks_NHW, num_classes = truth["mask"], len(self.classes)
        common = int(np.argmax(self.pixels))
        confusion = torch.zeros(len(masks_NHW), num_classes, num_classes, dtype=torch.int64)
        for index in range(len(masks_NHW)):
            counts = torch.bincount(masks_NHW[index].flatten().long(), minlength=IGNORED + 1)
            confusion[index, :, common] = counts[:num_classes]
        return {"confusion": confusion}

    def _baseline_of_volumes(self, truth: Columns) -> Columns:
        batch = self.collate(truth)
        constant_B = torch.full_like(batch["mask"], int(np.argmax(self.pixels)))
        native, affine = truth["native"], truth["affine"]
        assert isinstance(native, torch.Tensor)
        assert isinstance(affine, torch.Tensor)
        confusion = self._confusion(constant_B.long(), batch["mask"].long())
        space = {"native": native, "affine": affine}
        return {"confusion": confusion, **volumes.outputs(constant_B, batch["mask"], space, self.labels)}

    def costs(self, columns: EvalColumns) -> np.ndarray:
        """The share of each picture's pixels that are wrong."""
        confusion_NKK = columns["confusion"]
        total_N = np.maximum(confusion_NKK.sum(axis=(1, 2)), 1)
        return 1 - np.trace(confusion_NKK, axis1=1, axis2=2) / total_N

    def panels(self, columns: EvalColumns) -> list[Panel]:
        return [panels.heatmap(columns["confusion"].sum(0), self.classes, "pixels")] if len(self.classes) <= 50 else []

    def metrics(self, columns: Mapping[str, np.ndarray], weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        """miou and class_accuracy are means over the classes that occur; pixels of all pictures are thrown together."""
        counts = metrics.tally_of_confusion(metrics.confusion_of_pixels(columns["confusion"], weights_RN))
        iou_RK = metrics.iou(counts)
        if self.of_volumes:
            accuracy = {"voxel_accuracy": metrics.accuracy(counts)}
            return volumes.scores(columns, weights_RN, self.labels) | accuracy
        scores = {
            "miou": metrics.mean_of_defined(iou_RK),
            "pixel_accuracy": metrics.accuracy(counts),
            "class_accuracy": metrics.balanced_accuracy(counts),
        }
        return scores | {f"iou/{name}": iou_RK[:, code] for code, name in enumerate(self.classes)}


def _painted(picture: Image.Image, codes_HW: np.ndarray) -> Image.Image:
    """The picture with every class in a colour of its own over it, half transparent."""
    palette_K3 = np.array([ImageColor.getrgb(boxes.COLOURS[code % len(boxes.COLOURS)]) for code in range(IGNORED + 1)])
    over = Image.fromarray(palette_K3[codes_HW].astype(np.uint8))
    return Image.blend(picture.convert("RGB"), over, 0.5)


def unpack(prediction: Prediction) -> np.ndarray:
    """The predicted mask as class ids, int64 (H, W)."""
    runs = prediction["mask"]
    return np.repeat(np.array(runs["ids"], dtype=np.int64), runs["lengths"]).reshape(prediction["size"])


def read_ids(value: Any, config: MaskConfig) -> np.ndarray:
    """The class ids of a mask, int64 (H, W): a path, the bytes of a file, or an array. Of a picture in colours the
    places of these in the palette; without a palette grey is an id, though it be stored as a colour.

    Raises:
        RecordError: there is none, it is unreadable, or it holds colours that are no classes.
    """
    field = config.field
    if value is None:
        raise RecordError(f"the record has no mask in field {field!r}")
    if config.palette is not None:
        return _places(colours_of(read_image(value)), config)
    ids = value if isinstance(value, np.ndarray) else np.asarray(read_image(value))
    if ids.ndim == 3 and ids.shape[2] in (2, 3, 4):
        channels = ids[..., : 1 if ids.shape[2] == 2 else 3]
        if (channels != channels[..., :1]).any():
            raise RecordError(
                f"the mask in field {field!r} is in colours",
                expected="a class id a pixel, or a colour for each class in target.palette",
                hint="sonde new writes the palette that masks have",
            )
        ids = channels[..., 0]
    if ids.ndim != 2 or ids.dtype.kind not in "uib" or (ids.size and ids.min() < 0):
        raise RecordError(
            f"the mask in field {field!r} is an array of {ids.dtype} {ids.shape}",
            expected="one class id a pixel: a grey or palette PNG, or whole numbers (height, width)",
        )
    return ids.astype(np.int64)


def _places(colours_HW: np.ndarray, config: MaskConfig) -> np.ndarray:
    """The place of each pixel's colour in the palette, int64 (H, W)."""
    palette = np.array([int(colour[1:], 16) for colour in (config.palette or {}).values()])
    order = np.argsort(palette)
    place_HW = order[np.searchsorted(palette[order], colours_HW).clip(max=len(palette) - 1)]
    strange = palette[place_HW] != colours_HW
    if strange.any():
        others, which = np.unique(colours_HW[strange], return_inverse=True)
        if not config.nearest_colour:
            raise RecordError(
                f"the mask in field {config.field!r} has {int(strange.sum())} pixels of the colour "
                f"{hex_of(int(others[0]))}",
                expected="the colours of target.palette",
                hint="add it to target.palette, or set target.nearest_colour = true",
            )
        distance = ((_channels(others)[:, None] - _channels(palette)[None]) ** 2).sum(2)
        place_HW[strange] = distance.argmin(1)[which]
    return place_HW


def _channels(colours: np.ndarray) -> np.ndarray:
    """Red, green and blue of colours (N, 3)."""
    return np.stack([colours >> 16, colours >> 8 & 0xFF, colours & 0xFF], axis=1)


def dice_loss(probabilities_BKHW: Tensor, mask_BHW: Tensor) -> Tensor:
    """One minus the soft Dice of each picture (B,), a mean over the classes in it; pixels of code 255 do not count."""
    probabilities_BKHW, mask_BHW = probabilities_BKHW.flatten(3), mask_BHW.flatten(2)
    class_K11 = torch.arange(probabilities_BKHW.shape[1], device=mask_BHW.device)[:, None, None]
    true_BKHW = (mask_BHW[:, None] == class_K11).float()
    valid_B1HW = (mask_BHW != IGNORED)[:, None].float()
    both_BK = (probabilities_BKHW * true_BKHW).sum((2, 3))
    true_BK = true_BKHW.sum((2, 3))
    sizes_BK = (probabilities_BKHW * valid_B1HW).sum((2, 3)) + true_BK
    present_BK = (true_BK > 0).float()
    lost_BK = (1 - 2 * both_BK / sizes_BK.clamp_min(1e-6)) * present_BK
    return lost_BK.sum(1) / present_BK.sum(1).clamp_min(1)


def _found(records: Records, config: MaskConfig, *, is_volume: bool) -> dict[int, int]:
    """The ids in masks, without the ignored one, and how many pixels have each. Unreadable masks are left out."""

    def ids_of(value: Any) -> tuple[np.ndarray, np.ndarray] | RecordError:
        try:
            ids = volumes.read_labels(value, config.field).values if is_volume else read_ids(value, config)
            return np.unique(ids, return_counts=True)
        except RecordError as error:
            return error

    found: dict[int, int] = {}
    why = ""
    for name, result in zip(records.ids, each(ids_of, records.fields[config.field]), strict=True):
        if isinstance(result, RecordError):
            why = why or f", such as {name}: {result}"
            continue
        for value, count in zip(*result, strict=True):
            found[int(value)] = found.get(int(value), 0) + int(count)
    found.pop(-1 if config.ignore is None else config.ignore, None)
    if not found:
        raise UserError(f"no training record has a readable mask in field {config.field!r}{why}")
    return found


def _named(found: Sequence[int], config: MaskConfig) -> tuple[list[int], list[str]]:
    """The ids of the classes and their names."""
    ids, names = list(found), [str(value) for value in found]
    if config.palette is not None:
        named = [(value, name) for value, name in enumerate(config.palette) if value != config.ignore]
        ids, names = [value for value, _ in named], [name for _, name in named]
    elif config.classes is not None:
        names = list(config.classes)
        ids = [value for value in range(len(names) + 1) if value != config.ignore][: len(names)]
        if not set(found) <= set(ids):
            if len(found) != len(names):
                raise UserError(
                    f"target.classes names {len(names)} classes, the masks hold the ids {', '.join(map(str, found))}",
                    expected="one name for each id",
                    hint="an id of pixels without a class belongs into target.ignore",
                )
            ids = list(found)
    if len(ids) < 2 or len(ids) > IGNORED - 1:
        raise UserError(
            f"the training masks hold {len(ids)} classes in field {config.field!r}",
            expected=f"from 2 to {IGNORED - 1}",
            hint="masks hold class ids, not colours or grey values" if len(ids) > 1 else None,
        )
    return ids, names


def _unknown_id(value: int, ids: Sequence[int], classes: Sequence[str]) -> RecordError:
    known = ", ".join(
        f"{one} {name}" if str(one) != name else name for one, name in zip(ids[:MOST], classes, strict=False)
    )
    return RecordError(
        f"the mask has pixels of the id {value}, which no training mask has",
        expected=f"one of: {known}",
        hint=f"set target.ignore = {value}, or name every class in target.classes",
    )
