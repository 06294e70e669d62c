"""The target `boxes`: truth, loss, answers and scores of object detection, over a head of choice.

B example, M object, P place, K class, N answer, R row of weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from sonde import metrics
from sonde.base.config import Config
from sonde.base.errors import RecordError, UnseenError, UserError, unknown
from sonde.base.images import ResizeMode
from sonde.base.rng import BatchRng
from sonde.contracts.augment import AugmentParams
from sonde.contracts.batch import Batch
from sonde.contracts.columns import Columns, EvalColumns, Ragged, Tensors
from sonde.contracts.input import Input
from sonde.contracts.records import Record, Records
from sonde.contracts.specs import Advice, FeatureWidth, InputSpec, OutputSpec
from sonde.contracts.target import Prediction, Target
from sonde.targets._inputs import asked_of_one, the_input
from sonde.targets._sums import weighted_sum
from sonde.targets.boxes import advice, answers, geometry, truth
from sonde.targets.boxes.assignment import assign
from sonde.targets.boxes.dense import Dense, DenseHead
from sonde.targets.boxes.truth import CROWD, DIFFICULT, PLAIN

# Scores from which on answers count in the metrics, which weigh every score.
EVAL_SCORE = 0.01
# Objects of which augmentation leaves less than this share, or less than so many pixels a side, need not be found.
VISIBLE, LEAST = 0.3, 3.0
# Weights of the terms, and of background in the score's (Zhang et al. 2021, VarifocalNet).
BOX, BACKGROUND, FOCUS = 2.5, 0.75, 2.0


class BoxesConfig(Config):
    kind: Literal["boxes"] = "boxes"
    field: str = Field(default="boxes", description="the field that holds the objects of a picture")
    input: str | None = Field(default=None, description="the image input it belongs to; the only one if left out")
    classes: list[str] | None = Field(default=None, description="the labels to find; those of the data if left out")
    units: Literal["pixels", "shares"] = Field(
        default="pixels", description="what boxes are given in: pixels of the picture, or shares of its sides"
    )
    size_field: str | None = Field(
        default=None, description="a field with the width and height of the picture that the boxes were drawn on"
    )
    invalid_boxes: Literal["error", "drop"] = Field(
        default="error", description="boxes without an area or beyond the picture: error stops, drop leaves them out"
    )
    levels: int = Field(default=3, ge=1, le=6, description="levels of the feature pyramid, each half as fine")
    width: int = Field(default=96, ge=8, description="channels of the pyramid and of the head")
    convolutions: int = Field(default=2, ge=0, description="3x3 convolutions before each answer of the head")
    max_overlap: float = Field(
        default=0.6, gt=0, le=1, description="of two answers of one class that overlap more (IoU) the better one stays"
    )
    max_answers: int = Field(default=100, ge=1, description="most answers for a picture")
    min_score: float = Field(default=0.3, ge=0, le=1, description="predictions below this score are left out")


@runtime_checkable
class Placed(Protocol):
    """Settings of an input that puts pictures into a grid."""

    resize_mode: ResizeMode


@dataclass(frozen=True, kw_only=True)
class Boxes(Target):
    """Truth: "objects" float (B, M, 11), padded, and "length" (B,); `truth` says what the columns are.

    Losses are sums over places (score: varifocal, Zhang et al. 2021; box: complete IoU, Zheng et al. 2020), divided by
    the number of objects, pictures counting as one each, so that pictures of background count too.
    """

    Config = BoxesConfig
    ragged: ClassVar = ("objects",)
    best: ClassVar = ("map", "max")
    asks: ClassVar = OutputSpec(per=("pixel",))
    accepts: ClassVar = ("grid",)
    lower_is_better: ClassVar = frozenset({"error"})

    config: BoxesConfig
    input: str
    classes: list[str]

    @staticmethod
    def fields(config: BoxesConfig) -> list[str]:
        return [config.field, *([config.size_field] if config.size_field else [])]

    @classmethod
    def fit(cls, config: BoxesConfig, records: Records, inputs: Mapping[str, Input]) -> Self:
        for field in cls.fields(config):
            if field not in records.fields:
                raise unknown(field, records.fields, what="the field")
        name = the_input(inputs, "grid", config.input, "boxes")
        _check_input(name, inputs[name])
        found = {label for value in records.fields[config.field] for label in truth.labels_of(value)}
        if not found:
            raise UserError(
                f"no training record has a box in field {config.field!r}",
                expected='objects such as {"label": "car", "box": [x1, y1, x2, y2]}',
            )
        return cls(config=config, input=name, classes=list(config.classes) if config.classes else sorted(found))

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator, given: Records) -> tuple[BoxesConfig, Records]:
        values = np.empty(count, dtype=object)
        values[:] = [
            [
                {"label": ("cell", "dust")[number % 2], "box": [1 + number, 2, 9 + number, 8 + index % 3]}
                for number in range(index % 4)
            ]
            for index in range(count)
        ]
        values[1][0]["difficult"], values[2][1]["crowd"] = True, True
        return BoxesConfig(width=8, convolutions=1), Records(
            fields={"boxes": values}, ids=[f"picture {index}" for index in range(count)]
        )

    @classmethod
    def recommend(cls, config: BoxesConfig, inputs: Mapping[str, Config], records: Records) -> Advice:
        return advice.recommend(config, inputs, records)

    def outputs(self, inputs: Mapping[str, InputSpec]) -> dict[str, OutputSpec]:
        return asked_of_one(inputs, self.input, self.asks)

    def head(self, widths: Mapping[str, FeatureWidth]) -> nn.Module:
        settings = self.config
        return DenseHead(
            widths,
            self.input,
            len(self.classes),
            levels=settings.levels,
            width=settings.width,
            convolutions=settings.convolutions,
        )

    def encode(self, record: Record, given: Mapping[str, Tensors]) -> Tensors:
        placement = given[self.input].get("placement")
        if placement is None:
            raise RecordError(f"the input {self.input!r} does not say where it put the picture", expected="a placement")
        height, width = placement[4:].tolist()
        if self.config.size_field:
            _check_size(record.get(self.config.size_field), (width, height))
        found = truth.read_objects(
            record.get(self.config.field),
            self.config.field,
            (height, width),
            units=self.config.units,
            invalid=self.config.invalid_boxes,
        )
        rows = torch.zeros(len(found), truth.WIDTH)
        for row, each in zip(rows, found, strict=True):
            if each.label not in self.classes:
                raise UnseenError(
                    f"the label {each.label!r} in field {self.config.field!r} is none of those in training",
                    expected="one of: " + ", ".join(self.classes),
                )
            row[truth.PICTURE] = torch.tensor(each.box)
            row[truth.CLASS], row[truth.FLAG], row[truth.AREA] = self.classes.index(each.label), each.flag, each.area
        rows[:, truth.GRID] = geometry.to_grid(rows[:, truth.PICTURE], placement)
        return {"objects": rows}

    def apply_augment(self, truth_tensors: Tensors, params: AugmentParams) -> Tensors:
        if params.mix_weight_B is not None:
            return super().apply_augment(truth_tensors, params)
        objects = truth_tensors["objects"]
        if not params.moved or not objects.shape[1]:
            return truth_tensors
        x1, y1, x2, y2 = objects[..., truth.GRID].unbind(-1)
        corners = torch.stack([torch.stack(each, -1) for each in ((y1, x1), (y1, x2), (y2, x1), (y2, x2))], 2)
        moved = params.points(corners.flatten(1, 2)).unflatten(1, corners.shape[1:3])
        whole = torch.cat([moved.amin(2).flip(-1), moved.amax(2).flip(-1)], -1)
        size = params.resized or params.size
        limits = whole.new_tensor([size[1], size[0], size[1], size[0]])
        cut = torch.minimum(whole.clamp_min(0), limits)
        seen = geometry.area(cut) / geometry.area(whole).clamp_min(1e-6)
        hidden = (seen < VISIBLE) | ((cut[..., 2:] - cut[..., :2]).amin(-1) < LEAST)
        objects = objects.clone()
        objects[..., truth.GRID] = cut
        plain = objects[..., truth.FLAG] == PLAIN
        objects[..., truth.FLAG] = torch.where(hidden & plain, float(DIFFICULT), objects[..., truth.FLAG])
        return {**truth_tensors, "objects": objects}

    def counts(self, batch: Batch) -> Tensors:
        number = weighted_sum(batch.truth["length"].float() + 1, batch.weight_B)
        return {"score": number, "box": number}

    def loss(self, network: nn.Module, batch: Batch, rng: BatchRng) -> Tensors:
        given: Dense = network(batch.inputs)
        objects_BMx = batch.truth["objects"]
        class_BM = _class(batch.truth)
        logits_BPK = given.logits_BPK.float()
        ignored_BM = objects_BMx[..., truth.FLAG] != PLAIN
        object_BM4 = objects_BMx[..., truth.GRID]
        found = assign(
            logits_BPK.detach().sigmoid(),
            given.box_BP4.detach(),
            given.centre_P2,
            given.stride_P,
            object_BM4,
            class_BM,
            ignored_BM,
        )
        if not object_BM4.shape[1]:
            scores_B = _varifocal(logits_BPK, torch.zeros_like(logits_BPK), found.ignored_BP)
            nothing = given.box_BP4.sum() * 0
            return {"score": weighted_sum(scores_B, batch.weight_B), "box": nothing}
        mine_BP = found.object_BP.clamp_min(0)
        class_BP = class_BM.gather(1, mine_BP).clamp_min(0)
        wanted_BPK = functional.one_hot(class_BP, len(self.classes)) * found.quality_BP[..., None]
        scores_B = _varifocal(logits_BPK, wanted_BPK, found.ignored_BP)
        wanted_BP4 = object_BM4.gather(1, mine_BP[..., None].expand(-1, -1, 4))
        lost_BP = (1 - geometry.complete_iou(given.box_BP4, wanted_BP4)) * found.quality_BP
        boxes_B = torch.where(found.object_BP >= 0, lost_BP, 0.0).sum(1)
        return {
            "score": weighted_sum(scores_B, batch.weight_B),
            "box": weighted_sum(boxes_B, batch.weight_B) * BOX,
        }

    def _answers(self, network: nn.Module, batch: Batch, min_score: float) -> answers.Answers:
        """The answers for a batch, boxes in pixels of the pictures as they were."""
        given: Dense = network(batch.inputs)
        found = answers.best(
            given.logits_BPK.float().sigmoid(),
            given.box_BP4.float(),
            min_score=min_score,
            max_answers=self.config.max_answers,
            max_overlap=self.config.max_overlap,
        )
        placement_N6 = batch.inputs[self.input]["placement"][found.picture_N]
        return found._replace(box_N4=geometry.to_picture(found.box_N4, placement_N6))

    @torch.no_grad()
    def predict(self, network: nn.Module, batch: Batch) -> list[Prediction]:
        """{"boxes": [{"label": ..., "score": ..., "box": [x1, y1, x2, y2]}, ...]}, best first, in pixels of the picture
        as it came (upright)."""
        found = self._answers(network, batch, self.config.min_score)
        predictions: list[Prediction] = [{"boxes": []} for _ in range(len(batch))]
        columns = (found.picture_N, found.class_N, found.score_N, found.box_N4)
        for picture, code, score, box in zip(*(each.cpu().tolist() for each in columns), strict=True):
            predictions[picture]["boxes"].append(
                {"label": self.classes[code], "score": round(score, 4), "box": [round(side, 2) for side in box]}
            )
        return predictions

    @torch.no_grad()
    def eval_outputs(self, network: nn.Module, batch: Batch) -> Columns:
        """What `metrics.match_boxes` makes of each picture's answers and objects, in its columns."""
        found = self._answers(network, batch, EVAL_SCORE)
        objects = batch.truth["objects"].cpu()
        matched = metrics.match_boxes(
            picture_N=found.picture_N.cpu().numpy(),
            score_N=found.score_N.cpu().numpy(),
            class_N=found.class_N.cpu().numpy(),
            box_N4=found.box_N4.cpu().double().numpy(),
            object_BM4=objects[..., truth.PICTURE].double().numpy(),
            class_BM=_class({"objects": objects, "length": batch.truth["length"].cpu()}).numpy(),
            crowd_BM=(objects[..., truth.FLAG] == CROWD).numpy(),
            ignored_BM=(objects[..., truth.FLAG] == DIFFICULT).numpy(),
            area_BM=objects[..., truth.AREA].double().numpy(),
            num_classes=len(self.classes),
        )
        length_B = torch.bincount(found.picture_N.cpu(), minlength=len(batch))
        starts_B = length_B.cumsum(0) - length_B
        return {
            name: Ragged(values=torch.from_numpy(value), starts=starts_B, lengths=length_B)
            if name in metrics.BOX_ANSWERS
            else torch.from_numpy(value)
            for name, value in matched.items()
        }

    def metrics(self, columns: EvalColumns, weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        """COCO's twelve, by their rules (boxes of all pictures and classes); AP by class; and what AP50 would gain if
        each kind of error were mended (Bolya et al. 2020, TIDE)."""
        return metrics.box_scores(columns, weights_RN, self.classes)

    def warnings(self, columns: EvalColumns) -> list[str]:
        if columns["objects"].sum() and not sum(map(len, columns["score"])):
            return [f"no answer for the validation split scores {EVAL_SCORE:g} or more"]
        return []


def _class(truths: Tensors) -> Tensor:
    """The class of every object (B, M), -1 for padding."""
    codes = truths["objects"][..., truth.CLASS].long()
    place = torch.arange(codes.shape[1], device=codes.device)
    return torch.where(place[None] < truths["length"][:, None].to(codes.device), codes, -1)


def _varifocal(logits_BPK: Tensor, wanted_BPK: Tensor, ignored_BP: Tensor) -> Tensor:
    """The cross-entropy with the wanted scores, in sums (B,): answers of objects count by the score that is wanted,
    background by how much it scores."""
    score_BPK = logits_BPK.detach().sigmoid()
    weight_BPK = torch.where(wanted_BPK > 0, wanted_BPK, BACKGROUND * score_BPK**FOCUS)
    weight_BPK = weight_BPK * (~ignored_BP)[..., None]
    cost_BPK = functional.binary_cross_entropy_with_logits(logits_BPK, wanted_BPK, reduction="none")
    return (cost_BPK * weight_BPK).sum((1, 2))


def _check_input(name: str, part: Input) -> None:
    """That an input puts pictures into a grid, and that its augmentation shows no object without its box."""
    settings = part.config
    if not isinstance(settings, Placed) or len(part.spec.size) != 2:
        raise UserError(f"the input {name!r} is no picture", expected="an input of kind image for target 'boxes'")
    augment = getattr(settings, "augment", None)
    if augment is None:
        return
    moves = [each for each in ("shift", "zoom", "rotate") if getattr(augment, each, 0)]
    if moves and getattr(augment, "border", "fill") != "fill":
        raise UserError(
            f"inputs.{name}.augment: {' and '.join(moves)} with border = 'reflect' mirror objects at the borders, which "
            "have no boxes there",
            hint='set border = "fill" in augment',
        )
    mixes = [each for each in ("mixup", "cutmix") if getattr(augment, each, 0)]
    if mixes:
        raise UserError(f"inputs.{name}.augment: {' and '.join(mixes)} mixes pictures, and boxes cannot be mixed")


def _check_size(value: Any, size: tuple[float, float]) -> None:
    """That boxes were drawn on the picture as it is read, (width, height); a size of 0 says nothing.

    Raises:
        RecordError: they were not: the picture was turned by its EXIF orientation, or is another one.
    """
    try:
        width, height = (float(each) for each in value)
    except (TypeError, ValueError):
        raise RecordError(f"the size that the boxes were drawn on is {value!r}", expected="[width, height]") from None
    if not width or not height or (width, height) == size:
        return
    shown, found = f"{width:g} x {height:g}", f"{size[0]:g} x {size[1]:g}"
    if (height, width) == size:
        raise RecordError(
            f"the boxes were drawn on {shown} pixels, and the picture is upright at {found}",
            expected="boxes in the upright picture, as its EXIF orientation turns it",
            hint="turn the pixels of such pictures back and take the orientation away (exiftool -Orientation=), or draw "
            "the boxes anew",
        )
    raise RecordError(f"the boxes were drawn on {shown} pixels, and the picture has {found}", expected="the same size")
