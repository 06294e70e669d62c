"""Boxes: truth that follows the picture, assignment and losses against torchvision, answers, and what errors say."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torchvision import ops

from sonde.base.boxes import fault
from sonde.base.errors import RecordError, UnseenError, UserError
from sonde.base.images import placement
from sonde.base.rng import BatchRng
from sonde.contracts.records import Records
from sonde.inputs.image import Image, ImageConfig
from sonde.targets.boxes import answers, geometry
from sonde.targets.boxes import objects as truth
from sonde.targets.boxes.assignment import assign
from sonde.targets.boxes.dense import Dense
from sonde.targets.boxes.target import Boxes, BoxesConfig

BRIGHT, DARK = (250, 250, 250), (10, 10, 10)


def scene(*boxes: tuple[int, ...], size: tuple[int, int] = (120, 80), exif: int | None = None) -> bytes:
    """A dark picture of size (width, height) with bright boxes."""
    image = Pillow.new("RGB", size, DARK)
    for box in boxes:
        image.paste(BRIGHT, box)
    file = io.BytesIO()
    about = Pillow.Exif()
    if exif:
        about[0x0112] = exif
    image.save(file, "PNG", exif=about)
    return file.getvalue()


def thing(*box: float, label: str = "car", **more: Any) -> dict[str, Any]:
    return {"label": label, "box": list(box), **more}


def records(*rows: tuple[bytes, Any], **fields: list) -> Records:
    columns = {"image": [row[0] for row in rows], "boxes": [row[1] for row in rows], **fields}
    arrays = {}
    for name, values in columns.items():
        arrays[name] = np.empty(len(rows), dtype=object)
        arrays[name][:] = values
    return Records(fields=arrays, ids=[f"picture {index}" for index in range(len(rows))])


def made(data: Records, image: dict[str, Any] | None = None, **settings: Any) -> tuple[Image, Boxes]:
    part = Image.fit(ImageConfig(size=(64, 64), channels=3, **(image or {})), data)
    return part, Boxes.fit(BoxesConfig(**settings), data, {"image": part})


def encoded(part: Image, target: Boxes, record: dict[str, Any]) -> torch.Tensor:
    return target.encode(record, {"image": part.encode(record)})["objects"]


def error(data: Records, **settings: Any) -> str:
    part, target = made(data, **settings)
    with pytest.raises(RecordError) as caught:
        encoded(part, target, data[len(data) - 1])
    return str(caught.value)


@pytest.mark.parametrize("mode", ["pad", "squash", "crop"])
@pytest.mark.parametrize("size", [(120, 80), (80, 121), (64, 64), (301, 200)])
def test_boxes_lie_where_the_pixels_are(mode: str, size: tuple[int, int]) -> None:
    width, height = size
    box = (int(width * 0.4), int(height * 0.35), int(width * 0.62), int(height * 0.66))
    data = records((scene(box, size=size), [thing(*box)]))
    part, target = made(data, {"resize_mode": mode})
    (row,) = encoded(part, target, data[0])
    bright = part.encode(data[0])["grid"][0].float() / 255
    bright = ((bright - 0.04) / 0.94).clamp(0, 1)
    x1, y1, x2, y2 = row[truth.GRID].tolist()
    # Resampling keeps the sums of rows and columns, and so the sides and the middle of the box.
    assert bright.sum() == pytest.approx((x2 - x1) * (y2 - y1), rel=0.03)
    places = torch.arange(64) + 0.5
    assert (bright.sum(0) * places).sum() / bright.sum() == pytest.approx((x1 + x2) / 2, abs=0.1)
    assert (bright.sum(1) * places).sum() / bright.sum() == pytest.approx((y1 + y2) / 2, abs=0.1)
    back = geometry.to_picture(row[truth.GRID], part.encode(data[0])["placement"])
    torch.testing.assert_close(back, torch.tensor(box).float(), rtol=0, atol=1e-4)


def test_placement_is_that_of_pillow() -> None:
    assert placement((100, 200), (64, 64), how="crop") == (0.64, 0.64, 0.0, -32.0, 100.0, 200.0)
    assert placement((100, 200), (50, 40), how="squash") == (0.5, 0.2, 0.0, 0.0, 100.0, 200.0)
    # A third of 100 is no whole number of pixels: the sides differ.
    assert placement((100, 301), (64, 64), how="pad") == (0.21, 64 / 301, 22.0, 0.0, 100.0, 301.0)


@pytest.mark.parametrize("augment", [{"flip": True}, {"shift": 0.3}, {"zoom": 0.8, "shift": 0.2, "flip": True}])
def test_boxes_follow_augmentation(augment: dict[str, Any]) -> None:
    boxes = ((10, 12, 40, 30), (70, 40, 110, 76))
    data = records(*[(scene(*boxes), [thing(*box) for box in boxes])] * 16)
    part, target = made(data, {"resize_mode": "squash", "augment": {**augment, "border": "fill"}})
    objects = target.collate({"objects": encoded(part, target, data[0])[None].repeat(16, 1, 1)})["objects"]
    tensors = part.collate(part.encode_many(data)[0])
    moved, params = part.augment(tensors, BatchRng(seed=1, epoch=0, records_B=torch.arange(16)))
    found = target.apply_augment({"objects": objects}, params)["objects"]
    assert not torch.equal(found[..., truth.GRID], objects[..., truth.GRID])
    torch.testing.assert_close(found[..., truth.PICTURE], objects[..., truth.PICTURE])
    rows, columns = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    for grid, mine in zip(moved["grid"], found, strict=True):
        bright = grid[0] > 128
        outside = torch.ones(64, 64, dtype=torch.bool)
        for x1, y1, x2, y2 in mine[:, truth.GRID].tolist():
            inner = (columns > x1 + 1) & (columns < x2 - 1) & (rows > y1 + 1) & (rows < y2 - 1)
            assert bright[inner].all()
            outside &= (columns < x1 - 1) | (columns > x2 + 1) | (rows < y1 - 1) | (rows > y2 + 1)
        assert not bright[outside].any()


def test_objects_that_augmentation_hides_need_not_be_found() -> None:
    data = records((scene((0, 0, 30, 80)), [thing(0, 0, 30, 80), thing(50, 0, 70, 80)]))
    part, target = made(data, {"augment": {"shift": 0.5, "border": "fill"}, "resize_mode": "squash"})
    objects = encoded(part, target, data[0])[None].repeat(32, 1, 1)
    tensors = part.collate(part.encode_many(data)[0])
    _, params = part.augment(
        {name: value.repeat(32, *[1] * (value.ndim - 1)) for name, value in tensors.items()},
        BatchRng(seed=0, epoch=0, records_B=torch.arange(32)),
    )
    found = target.apply_augment({"objects": objects}, params)["objects"]
    share = geometry.area(found[..., truth.GRID]) / geometry.area(objects[..., truth.GRID])
    hidden = found[..., truth.FLAG] == truth.DIFFICULT
    assert hidden.any()
    assert not hidden.all()
    assert share[hidden].max() < 0.31
    assert share[~hidden].min() > 0.29


def test_exif_turns_boxes_no_more_than_pictures() -> None:
    turned = scene((10, 10, 30, 20), size=(120, 80), exif=6)
    upright = [thing(60, 10, 70, 30)]
    data = records((turned, upright), size=[[80, 120]])
    part, target = made(data, size_field="size")
    (row,) = encoded(part, target, data[0])
    assert row[truth.PICTURE].tolist() == [60, 10, 70, 30]
    assert part.encode(data[0])["placement"][4:].tolist() == [120, 80]
    told = error(records((turned, upright), size=[[120, 80]]), size_field="size")
    assert told.startswith("the boxes were drawn on 120 x 80 pixels, and the picture is upright at 80 x 120")
    told = error(records((turned, upright), size=[[640, 480]]), size_field="size")
    assert told.startswith("the boxes were drawn on 640 x 480 pixels, and the picture has 80 x 120")
    assert encoded(
        *made(records((turned, upright), size=[[0, 0]]), size_field="size"), data[0] | {"size": [0, 0]}
    ).any()


def test_truth() -> None:
    picture = scene()
    data = records(
        (picture, [thing(0, 0, 10, 10), thing(5, 5, 9, 9, label="bus", difficult=True), thing(1, 1, 3, 3, crowd=True)]),
        (picture, []),
    )
    part, target = made(data)
    assert target.classes == ["bus", "car"]
    rows = encoded(part, target, data[0])
    assert rows[:, truth.CLASS].tolist() == [1, 0, 1]
    assert rows[:, truth.FLAG].tolist() == [truth.PLAIN, truth.DIFFICULT, truth.CROWD]
    assert rows[:, truth.AREA].tolist() == [100, 16, 4]
    assert encoded(part, target, data[1]).shape == (0, truth.WIDTH)
    (row,) = encoded(part, target, {"image": picture, "boxes": [thing(-1, 3, 121, 9, area=7)]})
    assert row[truth.PICTURE].tolist() == [0, 3, 120, 9]
    assert row[truth.AREA] == 7
    shares = records((picture, [thing(0.25, 0.5, 0.5, 1)]))
    assert encoded(*made(shares, units="shares"), shares[0])[0, truth.PICTURE].tolist() == [30, 40, 60, 80]
    with pytest.raises(UnseenError, match="the label 'van' in field 'boxes' is none of those in training"):
        encoded(part, target, {"image": picture, "boxes": [thing(1, 1, 5, 5, label="van")]})


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ((10, 5, 4, 9), "has its sides in the wrong order: [10, 5, 4, 9]; is it x, y, width, height?"),
        ((10, 5, 10, 9), "has no area: [10, 5, 10, 9]"),
        ((10, 5, 150, 9), "reaches beyond the picture of 120 x 80 pixels: [10, 5, 150, 9]"),
        ((-2, 5, 0, 9), "lies beyond the picture of 120 x 80 pixels: [-2, 5, 0, 9]"),
    ],
)
def test_boxes_that_are_none(box: tuple[float, ...], says: str) -> None:
    assert fault(box, (80, 120)) == says
    data = records((scene(), [thing(1, 1, 5, 5), thing(*box)]))
    told = error(data)
    assert told.startswith(f"box 2 of 2 ('car') in field 'boxes' {says}. Expected [x1, y1, x2, y2] with x1 < x2 <= 120")
    assert 'target.invalid_boxes = "drop" leaves such boxes out' in told
    assert len(encoded(*made(data, invalid_boxes="drop"), data[0])) == 1


def test_truth_that_is_none() -> None:
    good = (scene(), [thing(1, 1, 5, 5)])
    assert error(records(good, (scene(), None))).startswith("the record has no boxes in field 'boxes'")
    assert error(records(good, (scene(), "car"))).startswith("field 'boxes' holds 'car'. Expected objects such as")
    assert error(records(good, (scene(), [{"label": "car"}]))).startswith("field 'boxes' holds \"{'label': 'car'}\"")
    assert error(records(good, (scene(), [thing(1, 2, 3)]))).startswith("field 'boxes' holds")
    assert "is not four finite numbers" in error(records(good, (scene(), [thing(1, 2, 3, float("inf"))])))
    with pytest.raises(UserError, match="no training record has a box in field 'boxes'"):
        made(records((scene(), [])))


def test_augmentation_that_leaves_objects_without_boxes_is_refused() -> None:
    data = records((scene(), [thing(1, 1, 5, 5)]))
    with pytest.raises(
        UserError, match=r"shift and zoom with border = 'reflect' mirror objects at the borders"
    ) as caught:
        made(data, {"augment": {"shift": 0.1, "zoom": 0.1}})
    assert 'hint: set border = "fill" in augment' in str(caught.value)
    with pytest.raises(UserError, match="mixup mixes pictures"):
        made(data, {"augment": {"mixup": 0.2}})
    made(data, {"augment": {"flip": True, "brightness": 0.2}})


def boxes(count: int, seed: int) -> torch.Tensor:
    drawn = torch.rand(count, 4, generator=torch.Generator().manual_seed(seed)) * 50
    return torch.cat([drawn[:, :2], drawn[:, :2] + drawn[:, 2:] + 1], 1)


def test_overlaps_are_those_of_torchvision() -> None:
    one, other = boxes(20, 0), boxes(20, 1)
    torch.testing.assert_close(geometry.pairwise_iou(one, other), ops.box_iou(one, other))
    torch.testing.assert_close(geometry.iou(one, other), ops.box_iou(one, other).diagonal())
    torch.testing.assert_close(1 - geometry.generalized_iou(one, other), ops.generalized_box_iou_loss(one, other))
    torch.testing.assert_close(
        1 - geometry.complete_iou(one, other), ops.complete_box_iou_loss(one, other), rtol=1e-4, atol=1e-5
    )


def test_assignment() -> None:
    stride = 8.0
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    centre = (torch.stack([columns, rows], -1).reshape(-1, 2) + 0.5) * stride
    answer = torch.cat([centre - 12, centre + 12], 1)[None]
    objects = torch.tensor([[[8.0, 8, 40, 40], [50, 50, 53, 53], [0, 40, 24, 64]]])
    found = assign(
        torch.full((1, 64, 2), 0.1),
        answer,
        centre,
        torch.full((64,), stride),
        objects,
        torch.tensor([[0, 1, 0]]),
        torch.tensor([[False, False, True]]),
    )
    mine = centre[found.object_BP[0] == 0]
    assert len(mine) == 10
    assert ((mine > 8) & (mine < 40)).all()
    # Smaller than a step of the grid, it has its nearest place all the same.
    assert centre[found.object_BP[0] == 1].tolist() == [[52, 52]]
    quality = found.quality_BP[0][found.object_BP[0] == 0]
    overlaps = geometry.pairwise_iou(objects[0, :1], answer[0])[0][found.object_BP[0] == 0]
    assert quality.max() == pytest.approx(float(overlaps.max()))
    assert torch.equal(quality.argsort(stable=True), overlaps.argsort(stable=True))
    # What need not be found is neither an object nor background.
    assert not (found.object_BP == 2).any()
    assert found.ignored_BP[0].sum() == 9
    nothing = assign(
        torch.rand(1, 64, 2),
        answer,
        centre,
        torch.full((64,), stride),
        *[torch.zeros(1, 0, 4), torch.zeros(1, 0).long(), torch.zeros(1, 0).bool()],
    )
    assert (nothing.object_BP == -1).all()


def test_answers_are_those_of_torchvision_picture_by_picture() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(3, 60, 2, generator=generator)
    placed = torch.stack([boxes(60, seed) for seed in range(3)])
    found = answers.best(scores, placed, min_score=0.2, max_answers=15, max_overlap=0.5)
    for picture in range(3):
        flat = scores[picture].flatten()
        kept = torch.where(flat >= 0.2)[0]
        here = placed[picture][kept // 2]
        best = ops.batched_nms(here, flat[kept], kept % 2, 0.5)[:15]
        mine = found.picture_N == picture
        torch.testing.assert_close(found.score_N[mine], flat[kept][best], atol=1e-4, rtol=0)
        torch.testing.assert_close(found.box_N4[mine], here[best])
        assert found.class_N[mine].tolist() == (kept % 2)[best].tolist()
        assert found.rank_N[mine].tolist() == list(range(len(best)))
    everything = answers.best(scores, placed, min_score=0.2, max_answers=1000, max_overlap=None)
    assert len(everything.score_N) == int((scores >= 0.2 - 5e-5).sum())


class Told(torch.nn.Module):
    """Answers what it is told, whatever the picture."""

    def __init__(self, dense: Dense) -> None:
        super().__init__()
        self.dense = dense

    def forward(self, inputs: Any) -> Dense:
        return self.dense


def test_right_answers_score_one_and_cost_little() -> None:
    from sonde.contracts.task import Task
    from sonde.data.store import encode

    data = records(
        (scene(), [thing(10, 10, 40, 40), thing(60, 20, 100, 70, label="bus")]),
        (scene(size=(80, 120)), [thing(30, 30, 60, 90)]),
        (scene(), []),
    )
    part, target = made(data, {"resize_mode": "pad"})
    task = Task(inputs={"image": part}, target=target)
    batch = task.preprocess(task.collate(encode(task, data).examples, torch.arange(3)))
    objects = batch.truth["objects"][..., truth.GRID]
    centre = torch.tensor([[x + 0.5, y + 0.5] for y in range(64) for x in range(64)])
    inside = ((centre[None, None] > objects[:, :, None, :2]) & (centre[None, None] < objects[:, :, None, 2:])).all(-1)
    logits = torch.full((3, len(centre), 2), -12.0)
    box = torch.cat([centre - 1, centre + 1], 1)[None].repeat(3, 1, 1)
    for picture, number in ((0, 0), (0, 1), (1, 0)):
        code = int(batch.truth["objects"][picture, number, truth.CLASS])
        where = inside[picture, number]
        logits[picture, where, code] = 12.0
        box[picture, where] = objects[picture, number]
    network = Told(Dense(logits, box, centre, torch.ones(len(centre))))
    assert {name: float(value) for name, value in target.counts(batch).items()} == {"score": 6, "box": 6}
    rng = BatchRng(seed=0, epoch=0, records_B=torch.arange(3))
    lost = target.loss(network, batch, rng)
    assert float(lost["box"]) == pytest.approx(0, abs=1e-4)
    answered = target.predict(network, batch)
    assert [[one["label"] for one in each["boxes"]] for each in answered] == [["car", "bus"], ["car"], []]
    assert answered[1]["boxes"][0]["box"] == pytest.approx([30, 30, 60, 90], abs=0.01)
    columns = target.eval_outputs(network, batch)
    from sonde.contracts.columns import to_numpy

    scores = target.metrics({name: to_numpy(column) for name, column in columns.items()}, np.ones((1, 3)))
    assert scores["map"][0] == 1
    assert scores["ap50/bus"][0] == 1
    picture = target.draw(answered[0], data[0], {"image": part})
    assert picture is not None
    assert picture.size == (120, 80)
    assert picture.getpixel((40, 25)) == (0x56, 0xB4, 0xE9)
    sheet = target.draw_batch(task.collate(encode(task, data).examples, torch.arange(3)))
    assert sheet is not None
    assert sheet.size == (3 * 64 + 8, 64)
    truth_drawn = Boxes.draw_truth(BoxesConfig(), data[0], {"image": part.config})
    assert truth_drawn is not None
    assert truth_drawn.size == (120, 80)


def test_advice_shows_small_objects_large_enough() -> None:
    rows = [(scene(size=(640, 480)), [thing(0, 0, 200, 200, label="a"), thing(0, 0, 40, 40, label="b")])] * 4
    advice = Boxes.recommend(BoxesConfig(), {"image": ImageConfig()}, records(*rows))
    assert advice.input["size"] == [256, 320]
    assert advice.input["augment"]["border"] == "fill"
    tiny = [(scene(size=(640, 480)), [thing(0, 0, 4, 4)])] * 4
    assert Boxes.recommend(BoxesConfig(), {"image": ImageConfig()}, records(*tiny)).input["size"] == [480, 640]
