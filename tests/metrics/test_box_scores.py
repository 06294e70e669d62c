"""Boxes: all twelve numbers of pycocotools, with crowds, ties, odd sizes; weights are copies; errors add up."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from sonde import metrics

pytest.importorskip("pycocotools")
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NAMES = ("map", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
NAMES += ("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large")
CLASSES = 3


def scene(pictures: int, seed: int) -> tuple[list, list]:
    """Objects [class, box, crowd] and answers [class, box, score] of each picture: near misses, copies, inventions."""
    rng = np.random.default_rng(seed)
    objects, answers = [], []
    for _ in range(pictures):
        here, said = [], []
        for _ in range(rng.integers(0, 9)):
            corner, side = rng.uniform(0, 300, 2), rng.choice([12, 40, 70, 130]) * rng.uniform(0.8, 1.2, 2)
            box = np.concatenate([corner, corner + side])
            code = int(rng.integers(CLASSES))
            here.append((code, box, bool(rng.random() < 0.15)))
            for _ in range(rng.integers(0, 4)):
                moved = box + rng.normal(0, 0.12, 4) * np.tile(side, 2) * rng.choice([0.2, 1, 2])
                moved[2:] = np.maximum(moved[2:], moved[:2] + 1)
                said.append((code if rng.random() < 0.8 else int(rng.integers(CLASSES)), moved))
        for _ in range(rng.integers(0, 6)):
            corner = rng.uniform(0, 300, 2)
            said.append((int(rng.integers(CLASSES)), np.concatenate([corner, corner + rng.uniform(5, 120, 2)])))
        # One digit: many scores are equal.
        scores = np.round(rng.random(len(said)), 1)
        order = np.argsort(-scores, kind="stable")
        objects.append(here)
        answers.append([(*said[place], scores[place]) for place in order])
    return objects, answers


def matched(objects: list, answers: list) -> dict[str, np.ndarray]:
    most = max(map(len, objects))
    box, code = np.zeros((len(objects), most, 4)), np.full((len(objects), most), -1)
    crowd = np.zeros((len(objects), most), dtype=bool)
    for picture, here in enumerate(objects):
        for place, each in enumerate(here):
            code[picture, place], box[picture, place], crowd[picture, place] = each
    flat = [(picture, *each) for picture, said in enumerate(answers) for each in said]
    found = metrics.match_boxes(
        picture_N=np.array([each[0] for each in flat], dtype=np.int64),
        class_N=np.array([each[1] for each in flat], dtype=np.int64),
        box_N4=np.array([each[2] for each in flat], dtype=np.float64).reshape(-1, 4),
        score_N=np.array([each[3] for each in flat], dtype=np.float64),
        object_BM4=box,
        class_BM=code,
        crowd_BM=crowd,
        ignored_BM=np.zeros_like(crowd),
        area_BM=(box[..., 2:] - box[..., :2]).prod(-1),
        num_classes=CLASSES,
    )
    ends = np.cumsum([len(said) for said in answers])
    columns = {}
    for name, values in found.items():
        if name in metrics.BOX_ANSWERS:
            columns[name] = np.empty(len(answers), dtype=object)
            columns[name][:] = np.split(values, ends[:-1])
        else:
            columns[name] = values
    return columns


def scores(objects: list, answers: list, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    rows = np.ones((1, len(objects))) if weights is None else weights
    return metrics.box_scores(matched(objects, answers), rows, ["a", "b", "c"])


def by_pycocotools(objects: list, answers: list) -> np.ndarray:
    notes, results = [], []
    for picture, here in enumerate(objects):
        for code, box, crowd in here:
            x, y, width, height = box[0], box[1], box[2] - box[0], box[3] - box[1]
            notes.append(
                {
                    "id": len(notes) + 1,
                    "image_id": picture,
                    "category_id": code,
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": int(crowd),
                }
            )
        for code, box, score in answers[picture]:
            sides = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            results.append({"image_id": picture, "category_id": code, "bbox": sides, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": picture} for picture in range(len(objects))],
            "categories": [{"id": code, "name": str(code)} for code in range(CLASSES)],
            "annotations": notes,
            "info": {},
        }
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats


@pytest.mark.parametrize("seed", range(6))
def test_equal_to_pycocotools(seed: int) -> None:
    objects, answers = scene(25, seed)
    found = scores(objects, answers)
    np.testing.assert_allclose([found[name][0] for name in NAMES], by_pycocotools(objects, answers), atol=1e-9)


def test_pictures_without_objects_or_answers() -> None:
    objects, answers = scene(6, 1)
    objects[0], answers[1], objects[2], answers[2] = [], [], [], []
    found = scores(objects, answers)
    np.testing.assert_allclose([found[name][0] for name in NAMES], by_pycocotools(objects, answers), atol=1e-9)
    nothing = scores([[], objects[1]], [[], []])
    assert nothing["map"][0] == 0
    assert nothing["error/missed"][0] == 0


def test_a_weight_is_that_many_copies() -> None:
    objects, answers = scene(8, 3)
    weights = np.array([[2, 0, 1, 3, 1, 0, 1, 2]], dtype=np.float64)
    # No score twice: of equals those of the earlier picture come first, and copies are other pictures.
    numbers = iter(range(1000))
    answers = [[(*each[:2], each[2] - 1e-5 * next(numbers)) for each in said] for said in answers]
    copies = np.repeat(np.arange(8), weights[0].astype(int))
    once = scores([objects[place] for place in copies], [answers[place] for place in copies])
    weighed = scores(objects, answers, np.concatenate([np.ones((1, 8)), weights]))
    for name, value in once.items():
        np.testing.assert_allclose(weighed[name][1], value[0], atol=1e-12, err_msg=name)


def test_rows_beyond_memory_are_taken_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    objects, answers = scene(8, 4)
    rows = np.random.default_rng(0).integers(0, 3, (7, 8)).astype(np.float64)
    whole = scores(objects, answers, rows)
    monkeypatch.setattr("sonde.metrics.boxes.CELLS", 100)
    for name, value in scores(objects, answers, rows).items():
        np.testing.assert_array_equal(value, whole[name], err_msg=name)


def test_errors_are_told_apart() -> None:
    box = np.array([10.0, 10, 50, 50])
    far = box + 200
    objects = [[(0, box, False), (1, far, False), (2, box + 400, False)]]
    answers = [
        [
            (0, box, 0.9),  # right
            (0, box + 2, 0.8),  # a duplicate
            (0, far, 0.7),  # the wrong class
            (0, box + 120, 0.6),  # background
            (2, box + 400 + [0, 0, 0, 60], 0.5),  # in the wrong place: IoU 0.4
        ]
    ]
    found = matched(objects, answers)
    assert found["error"][0].tolist() == [0, 3, 2, 4, 1]
    assert found["mended"][0].tolist() == [-1, -1, 1, -1, 2]
    assert found["missed"].tolist() == [[0, 0, 0]]
    gains = scores(objects, answers)
    assert gains["ap50"][0] == pytest.approx(1 / 3)
    assert gains["error/class"][0] == pytest.approx(1 / 3)
    assert gains["error/place"][0] == pytest.approx(1 / 3)
    missing = scores(objects, [answers[0][:1]])
    assert missing["error/missed"][0] == 0  # classes b and c have no answer that could be right
    half = scores([[*objects[0][:1], (0, far, False)]], [answers[0][:1]])
    assert half["ap50"][0] == pytest.approx(51 / 101)
    assert half["error/missed"][0] == pytest.approx(50 / 101)


def test_what_need_not_be_found() -> None:
    box = np.array([[[10.0, 10, 50, 50], [100, 100, 140, 140]]])
    found = metrics.match_boxes(
        picture_N=np.array([0, 0]),
        score_N=np.array([0.9, 0.8]),
        class_N=np.array([0, 0]),
        box_N4=box[0],
        object_BM4=box,
        class_BM=np.array([[0, 0]]),
        crowd_BM=np.zeros((1, 2), dtype=bool),
        ignored_BM=np.array([[True, False]]),
        area_BM=np.full((1, 2), 1600.0),
        num_classes=1,
    )
    assert found["hit"][:, 0].tolist() == [2, 1]
    assert found["objects"][0, 0].tolist() == [1]
