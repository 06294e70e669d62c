"""The head of queries: matching against brute force, attention against a mean, losses, and answers without doubles."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from sonde.contracts.input import Input
from sonde.contracts.specs import Features
from sonde.inputs.image import Image
from sonde.targets.boxes import geometry, queries
from sonde.targets.boxes import objects as columns
from sonde.targets.boxes.dense import Dense
from sonde.targets.boxes.queries import PointAttention, Queries, QueriesHead, _cornered, _match
from sonde.targets.boxes.target import MANY_PICTURES, Boxes, BoxesConfig
from sonde.testing import check_target


def given(logits: torch.Tensor, boxes: torch.Tensor) -> Queries:
    batch, classes = logits.shape[1], logits.shape[3]
    nothing = Dense(torch.full((batch, 1, classes), -9.0), torch.zeros(batch, 1, 4), torch.zeros(1, 2), torch.ones(1))
    return Queries(logits, boxes, nothing, torch.tensor([100.0, 80, 100, 80]))


def truths(*boxes: tuple[float, ...], flags: tuple[int, ...] = ()) -> torch.Tensor:
    rows = torch.zeros(1, len(boxes), columns.WIDTH)
    rows[0, :, columns.GRID] = torch.tensor(boxes)
    rows[0, :, columns.FLAG] = torch.tensor(flags or (0,) * len(boxes)).float()
    return rows


def test_matching_is_the_cheapest_there_is() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, boxes = torch.randn(1, 1, 5, 2, generator=generator), torch.rand(1, 1, 5, 4, generator=generator)
    found = given(logits, boxes)
    objects = truths((10, 10, 40, 40), (50, 10, 90, 70), (0, 0, 20, 60))
    classes = torch.tensor([[0, 1, 1]])
    chosen = _match(found, objects[..., columns.GRID], classes, classes >= 0)[0, 0].tolist()
    score = logits.sigmoid()[0, 0]
    told = torch.cat([objects[0, :, :2] + objects[0, :, 2:4], 2 * (objects[0, :, 2:4] - objects[0, :, :2])], 1) / 2
    corners = _cornered(boxes[0, 0]) * found.size_4

    def cost(query: int, number: int) -> float:
        chance = score[query, classes[0, number]]
        focal = 0.25 * (1 - chance) ** 2 * -chance.log() - 0.75 * chance**2 * -(1 - chance).log()
        apart = (boxes[0, 0, query] - told[number] / found.size_4).abs().sum()
        near = geometry.generalized_iou(corners[query], objects[0, number, columns.GRID])
        return float(2 * focal + 5 * apart - 2 * near)

    best = min(permutations(range(5), 3), key=lambda way: sum(cost(query, place) for place, query in enumerate(way)))
    assert chosen == list(best)
    padded = _match(found, objects[..., columns.GRID], torch.tensor([[0, -1, 1]]), torch.tensor([[True, False, True]]))
    assert padded[0, 0, 1] == -1
    assert (padded[0, 0, [0, 2]] >= 0).all()


def test_right_queries_cost_nothing_and_doubles_do() -> None:
    objects, classes = truths((10, 10, 40, 40), (50, 10, 90, 70)), torch.tensor([[0, 1]])
    size = torch.tensor([100.0, 80, 100, 80])
    right = queries._centred(objects[..., columns.GRID]) / size
    boxes = torch.cat([right, right], 1)[None]
    logits = torch.full((1, 1, 4, 2), -12.0)
    logits[0, 0, 0, 0] = logits[0, 0, 1, 1] = 12.0
    terms = queries.costs(given(logits, boxes), objects, classes)
    assert float(terms["query_box"].sum()) == pytest.approx(0, abs=1e-4)
    assert float(terms["query_score"].sum()) == pytest.approx(0, abs=1e-3)
    logits[0, 0, 2, 0] = 12.0
    assert float(queries.costs(given(logits, boxes), objects, classes)["query_score"].sum()) > 10
    # Unless the object need not be found: then a query there is neither right nor wrong.
    free = truths((10, 10, 40, 40), (50, 10, 90, 70), flags=(columns.CROWD, 0))
    assert float(queries.costs(given(logits, boxes), free, classes)["query_score"].sum()) < 0.01
    nothing = queries.costs(given(logits, boxes), torch.zeros(1, 0, columns.WIDTH), torch.zeros(1, 0).long())
    assert float(nothing["query_box"].sum()) == 0


def test_attention_sees_what_lies_around_its_box() -> None:
    torch.manual_seed(0)
    attention = PointAttention(8, 2)
    with torch.no_grad():
        for layer in (attention.values, attention.out):
            layer.weight.copy_(torch.eye(8))
            layer.bias.zero_()
    # The column of each place as its value: a mean of points around a centre is the centre's column.
    grids = [(torch.arange(side) + 0.5).div(side).expand(2, 8, side, side) for side in (16, 8)]
    boxes = torch.tensor([[[0.5, 0.5, 0.4, 0.4], [0.4, 0.6, 0.1, 0.1]]]).expand(2, -1, -1)
    seen = attention(torch.randn(2, 2, 8), grids, boxes)
    assert seen.shape == (2, 2, 8)
    assert seen.mean(-1)[0].tolist() == pytest.approx([0.5, 0.4], abs=1e-4)


def test_queries_start_at_the_best_places() -> None:
    torch.manual_seed(0)
    head = QueriesHead({"image": (8, 16)}, "image", 3, levels=3, width=8, convolutions=1, queries=7, layers=2).eval()
    grids = (torch.randn(2, 8, 16, 16), torch.randn(2, 16, 8, 8))
    found = head({"image": Features(values=grids, size=(64, 64))})
    assert found.logits_LBQK.shape == (2, 2, 7, 3)
    # Nothing is corrected at first.
    best = found.dense.logits_BPK.amax(2).topk(7).indices
    start = found.dense.box_BP4.gather(1, best[..., None].expand(-1, -1, 4))
    logits, boxes = queries.answers(found)
    inside = ((queries._centred(start) / 64 > 1e-3) & (queries._centred(start) / 64 < 1 - 1e-3)).all(-1)
    torch.testing.assert_close(boxes[inside], start[inside], rtol=1e-3, atol=1e-2)
    assert logits.shape == (2, 7, 3)


class WithQueries(Boxes):
    """The target with the other head, for the conformance kit."""

    @classmethod
    def sample(cls, count, rng, given):
        config, records = super().sample(count, rng, given)
        return config.model_copy(update={"head": "queries", "queries": 6, "layers": 2}), records


@pytest.fixture(autouse=True)
def _only_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kit tries every input; the other head is tried with pictures only."""
    monkeypatch.setattr(
        "sonde.testing.lookup.kinds", lambda room: {"image": ""} if room == "inputs" else {"cnn": "", "mlp": ""}
    )


def test_the_conformance_kit_holds_for_queries() -> None:
    check_target(WithQueries)


def test_few_pictures_are_told() -> None:
    import numpy as np

    config, records = Image.sample(3, np.random.default_rng(0))
    inputs: dict[str, Input] = {"given": Image.fit(config, records)}
    settings, truth = Boxes.sample(3, np.random.default_rng(0), records)
    for head, notes in (("dense", 0), ("queries", 1)):
        target = Boxes.fit(BoxesConfig(head=head), records.with_fields(**truth.fields), inputs)  # type: ignore[arg-type]
        assert len(target.notes()) == notes
    assert target.notes()[0].startswith("warning: 3 pictures are few for target.head = 'queries'")
    assert MANY_PICTURES > 3
    assert settings.head == "dense"
