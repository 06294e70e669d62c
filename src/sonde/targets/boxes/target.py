"""The target `boxes`: truth, loss, answers and scores of object detection, over a head of choice.

B example, M object, P place, K class, N answer, R row of weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from sonde import metrics
from sonde.base import boxes
from sonde.base.config import Config
from sonde.base.errors import RecordError, UnseenError, UserError, unknown
from sonde.base.images import ResizeMode, read_image, side_by_side
from sonde.base.rng import BatchRng
from sonde.contracts.augment import AugmentParams
from sonde.contracts.batch import Batch
from sonde.contracts.columns import Columns, EvalColumns, Ragged, Tensors
from sonde.contracts.finding import Finding
from sonde.contracts.input import Input
from sonde.contracts.part import agree
from sonde.contracts.records import Record, Records
from sonde.contracts.specs import Advice, FeatureWidth, InputSpec, OutputSpec
from sonde.contracts.target import Prediction, Target
from sonde.targets._inputs import asked_of_one, the_input
from sonde.targets._sums import weighted_sum
from sonde.targets.boxes import advice, answers, audit, dense, geometry, queries
from sonde.targets.boxes.dense import Dense, DenseHead
from sonde.targets.boxes.objects import (
    AREA,
    CLASS,
    CROWD,
    DIFFICULT,
    FLAG,
    GRID,
    PICTURE,
    PLAIN,
    WIDTH,
    labels_of,
    read_objects,
)
from sonde.targets.boxes.queries import Queries, QueriesHead

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

# Scores from which on answers count in the metrics, which weigh every score.
EVAL_SCORE = 0.01
# Training pictures below which a head of queries does worse than a dense one.
MANY_PICTURES = 2000
# Objects of which augmentation leaves less than this share, or less than so many pixels a side, need not be found.
VISIBLE, LEAST = 0.3, 3.0


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
    head: Literal["dense", "queries"] = Field(
        default="dense",
        description="dense: an answer at every place, of overlapping ones the best stays; queries: a DETR, which needs "
        "more pictures and longer training",
    )
    queries: int = Field(default=100, ge=1, description="head queries: most objects in a picture")
    layers: int = Field(default=3, ge=1, description="head queries: layers of the decoder")
    levels: int = Field(default=3, ge=1, le=6, description="levels of the feature pyramid, each half as fine")
    width: int = Field(
        default=64, ge=8, multiple_of=4, description="channels of the pyramid and of the head, a multiple of 4"
    )
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
    """Truth: "objects" float (B, M, 11), padded, and "length" (B,); `objects` says what the columns are.

    Losses are sums over places and queries (scores: varifocal, Zhang et al. 2021; boxes: complete IoU, Zheng et al.
    2020, and what DETR has), divided by the number of objects, each picture counting as one more, so that pictures of
    background count too.
    """

    Config = BoxesConfig
    ragged: ClassVar = ("objects",)
    best: ClassVar = ("map", "max")
    loss_reaches_zero: ClassVar = False
    asks: ClassVar = OutputSpec(per=("pixel",))
    accepts: ClassVar = ("grid",)
    dimensions: ClassVar = (2,)
    lower_is_better: ClassVar = frozenset({"error"})

    config: BoxesConfig
    input: str
    classes: list[str]
    pictures: int

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
        found = {label for value in records.fields[config.field] for label in labels_of(value)}
        if not found:
            raise UserError(
                f"no training record has a box in field {config.field!r}",
                expected='objects such as {"label": "car", "box": [x1, y1, x2, y2]}',
            )
        classes = list(config.classes) if config.classes else sorted(found)
        return cls(config=config, input=name, classes=classes, pictures=len(records))

    def check_fitted(self, inputs: Mapping[str, Input]) -> None:
        agree(
            bool(self.classes) and len(set(self.classes)) == len(self.classes), "the classes are none, or not distinct"
        )
        agree(self.input == the_input(inputs, "grid", self.config.input, "boxes"), f"its input is {self.input!r}")
        agree(self.pictures > 0, f"it was fitted on {self.pictures} pictures")

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
        settings, count = self.config, len(self.classes)
        sizes = {"levels": settings.levels, "width": settings.width, "convolutions": settings.convolutions}
        if settings.head == "dense":
            return DenseHead(widths, self.input, count, **sizes)
        return QueriesHead(widths, self.input, count, **sizes, queries=settings.queries, layers=settings.layers)

    def encode(self, record: Record, given: Mapping[str, Tensors]) -> Tensors:
        placement = given[self.input].get("placement")
        if placement is None:
            raise RecordError(f"the input {self.input!r} does not say where it put the picture", expected="a placement")
        height, width = placement[4:].tolist()
        if self.config.size_field:
            _check_size(record.get(self.config.size_field), (width, height))
        found = read_objects(
            record.get(self.config.field),
            self.config.field,
            (height, width),
            units=self.config.units,
            invalid=self.config.invalid_boxes,
        )
        rows = torch.zeros(len(found), WIDTH)
        for row, each in zip(rows, found, strict=True):
            if each.label not in self.classes:
                raise UnseenError(
                    f"the label {each.label!r} in field {self.config.field!r} is none of those in training",
                    expected="one of: " + ", ".join(self.classes),
                )
            row[PICTURE] = torch.tensor(each.box)
            row[CLASS], row[FLAG], row[AREA] = self.classes.index(each.label), each.flag, each.area
        rows[:, GRID] = geometry.to_grid(rows[:, PICTURE], placement)
        return {"objects": rows}

    def audit(self, columns: Columns, ids: Sequence[str]) -> list[Finding]:
        objects = columns["objects"]
        assert isinstance(objects, Ragged)
        return audit.audit(objects, ids)

    def apply_augment(self, truth: Tensors, params: AugmentParams) -> Tensors:
        if params.mix_weight_B is not None:
            return super().apply_augment(truth, params)
        objects = truth["objects"]
        if not params.moved or not objects.shape[1]:
            return truth
        x1, y1, x2, y2 = objects[..., GRID].unbind(-1)
        corners = torch.stack([torch.stack(each, -1) for each in ((y1, x1), (y1, x2), (y2, x1), (y2, x2))], 2)
        moved = params.points(corners.flatten(1, 2)).unflatten(1, corners.shape[1:3])
        whole = torch.cat([moved.amin(2).flip(-1), moved.amax(2).flip(-1)], -1)
        size = params.resized or params.size
        limits = whole.new_tensor([size[1], size[0], size[1], size[0]])
        cut = torch.minimum(whole.clamp_min(0), limits)
        seen = geometry.area(cut) / geometry.area(whole).clamp_min(1e-6)
        hidden = (seen < VISIBLE) | ((cut[..., 2:] - cut[..., :2]).amin(-1) < LEAST)
        objects = objects.clone()
        objects[..., GRID] = cut
        plain = objects[..., FLAG] == PLAIN
        objects[..., FLAG] = torch.where(hidden & plain, float(DIFFICULT), objects[..., FLAG])
        return {**truth, "objects": objects}

    def counts(self, batch: Batch) -> Tensors:
        number = weighted_sum(batch.truth["length"].float() + 1, batch.weight_B)
        more = {"query_score": number, "query_box": number} if self.config.head == "queries" else {}
        return {"score": number, "box": number, **more}

    def loss(self, network: nn.Module, batch: Batch, rng: BatchRng) -> Tensors:
        given: Dense | Queries = network(batch.inputs)
        costs = queries.costs if isinstance(given, Queries) else dense.costs
        terms = costs(given, batch.truth["objects"], _class(batch.truth))  # type: ignore[arg-type]
        return {name: weighted_sum(cost_B, batch.weight_B) for name, cost_B in terms.items()}

    def _answers(self, network: nn.Module, batch: Batch, min_score: float) -> answers.Answers:
        """The answers for a batch, boxes in pixels of the pictures as they were."""
        given: Dense | Queries = network(batch.inputs)
        whole = isinstance(given, Queries)
        logits_BPK, box_BP4 = queries.answers(given) if whole else (given.logits_BPK, given.box_BP4)
        found = answers.best(
            logits_BPK.sigmoid(),
            box_BP4,
            min_score=min_score,
            max_answers=self.config.max_answers,
            max_overlap=None if whole else self.config.max_overlap,
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
            predictions[picture]["boxes"].append({"label": self.classes[code], "score": score, "box": box})
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
            object_BM4=objects[..., PICTURE].double().numpy(),
            class_BM=_class({"objects": objects, "length": batch.truth["length"].cpu()}).numpy(),
            crowd_BM=(objects[..., FLAG] == CROWD).numpy(),
            ignored_BM=(objects[..., FLAG] == DIFFICULT).numpy(),
            area_BM=objects[..., AREA].double().numpy(),
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

    def draw(self, prediction: Prediction, record: Record, inputs: Mapping[str, Input]) -> Picture | None:
        picture = read_image(record[inputs[self.input].config.field])
        return boxes.draw(picture, prediction["boxes"], self.classes)

    @classmethod
    def draw_truth(cls, config: BoxesConfig, record: Record, inputs: Mapping[str, Config]) -> Picture | None:
        image: Any = next(each for name, each in inputs.items() if config.input in (None, name))
        picture = read_image(record[image.field])
        found = read_objects(
            record[config.field], config.field, (picture.height, picture.width), units=config.units, invalid="drop"
        )
        return boxes.draw(picture, [each.to_json() for each in found], sorted({each.label for each in found}))

    def draw_batch(self, batch: Batch) -> Picture | None:
        grid = batch.inputs[self.input]["grid"].cpu().clamp(0, 255).byte()
        objects, length = batch.truth["objects"].cpu(), batch.truth["length"].tolist()
        drawn = []
        for picture, rows, count in zip(grid, objects, length, strict=True):
            pixels = picture.expand(3, -1, -1).permute(1, 2, 0).numpy()
            found = [self._in_grid(row) for row in rows[:count].tolist()]
            drawn.append(boxes.draw(read_image(pixels), found, self.classes))
        return side_by_side(drawn)

    def _in_grid(self, row: list[float]) -> dict[str, Any]:
        name = self.classes[int(row[CLASS])]
        return {"label": name, "box": row[GRID], "difficult": row[FLAG] != PLAIN}

    def notes(self) -> list[str]:
        if self.config.head == "dense" or self.pictures >= MANY_PICTURES:
            return []
        return [
            f"warning: {self.pictures:,} pictures are few for target.head = 'queries', which overtakes 'dense' from "
            f"some {MANY_PICTURES:,} on"
        ]

    def warnings(self, columns: EvalColumns) -> list[str]:
        if columns["objects"].sum() and not sum(map(len, columns["score"])):
            return [f"no answer for the validation split scores {EVAL_SCORE:g} or more"]
        return []


def _class(truths: Tensors) -> Tensor:
    """The class of every object (B, M), -1 for padding."""
    codes = truths["objects"][..., CLASS].long()
    place = torch.arange(codes.shape[1], device=codes.device)
    return torch.where(place[None] < truths["length"][:, None].to(codes.device), codes, -1)


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
            f"inputs.{name}.augment: {' and '.join(moves)} with border = 'reflect' mirror objects at the borders, "
            "which have no boxes there",
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
            hint="turn the pixels of such pictures back and take the orientation away (exiftool -Orientation=), or "
            "draw the boxes anew",
        )
    raise RecordError(f"the boxes were drawn on {shown} pixels, and the picture has {found}", expected="the same size")
