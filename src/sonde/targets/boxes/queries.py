"""The head of queries (DETR, Carion et al. 2020): a set of queries, each of which becomes one object or none.

Made to converge on few pictures: queries begin as the best answers of the dense head (Zhu et al. 2021, Deformable DETR
in two stages), which learns beside them from many places an object (Zong et al. 2023, Co-DETR); a query looks at some
points around its box, and every layer corrects the box. Each object is matched with one query (Kuhn 1955, by scipy), so
that no overlapping answers have to be taken out.

B example, Q query, M object, K class, C channel, L layer, P place, G head, S sampled point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sonde.contracts.specs import Features, FeatureWidth
from sonde.targets.boxes import dense, geometry
from sonde.targets.boxes.dense import Dense, Towers
from sonde.targets.boxes.objects import FLAG, GRID, PLAIN
from sonde.targets.boxes.pyramid import Pyramid

# Weights of the terms in matching and in the loss (Zhao et al. 2024, RT-DETR).
SCORE, DISTANCE, OVERLAP = 2.0, 5.0, 2.0
# Heads of attention, and points that each looks at in each level.
HEADS, POINTS = 4, 4
# Queries this near to an object that need not be found are neither right nor wrong.
NEAR = 0.5
SMALLEST = 1e-3


class Queries(NamedTuple):
    """The answers of every layer: logits of classes and boxes [centre x, y, width, height] in shares of the grid's
    sides; those of the dense head that they began as; and the grid's width and height, twice."""

    logits_LBQK: Tensor
    box_LBQ4: Tensor
    dense: Dense
    size_4: Tensor


class QueriesHead(nn.Module):
    """A pyramid with its towers, and a decoder whose queries look into it."""

    def __init__(
        self,
        widths: Mapping[str, FeatureWidth],
        main: str,
        classes: int,
        *,
        levels: int,
        width: int,
        convolutions: int,
        queries: int,
        layers: int,
    ) -> None:
        super().__init__()
        self.main, self.queries = main, queries
        self.pyramid = Pyramid(widths, main, levels=levels, width=width)
        self.towers = Towers(width, classes, levels=levels, convolutions=convolutions)
        self.content = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))
        self.place = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width))
        self.layers = nn.ModuleList(Layer(width, levels) for _ in range(layers))
        scores = [nn.Linear(width, classes) for _ in range(layers)]
        boxes = [nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4)) for _ in range(layers)]
        for score, box in zip(scores, boxes, strict=True):
            dense.first_score(score)
            for value in box[2].parameters():
                nn.init.zeros_(value)
        self.answer = nn.ModuleDict({"score": nn.ModuleList(scores), "box": nn.ModuleList(boxes)})

    def forward(self, features: Mapping[str, Features]) -> Queries:
        size = features[self.main].size
        grids = self.pyramid(features)
        first = self.towers(grids, size)
        size_4 = first.box_BP4.new_tensor([size[1], size[0], size[1], size[0]])
        count = min(self.queries, first.logits_BPK.shape[1])
        best_BQ = first.logits_BPK.detach().amax(2).topk(count, dim=1).indices
        box_BQ4 = first.box_BP4.detach().gather(1, best_BQ[..., None].expand(-1, -1, 4))
        box_BQ4 = (_centred(box_BQ4) / size_4).clamp(SMALLEST, 1 - SMALLEST)
        memory_BPC = torch.cat([grid.flatten(2).transpose(1, 2) for grid in grids], 1)
        query_BQC = self.content(memory_BPC.gather(1, best_BQ[..., None].expand(-1, -1, memory_BPC.shape[2])))
        logits, boxes = [], []
        for number, layer in enumerate(self.layers):
            query_BQC = layer(query_BQC, self.place(box_BQ4), grids, box_BQ4)
            corrected_BQ4 = (box_BQ4.logit() + self._answer("box", number, query_BQC)).sigmoid()
            logits.append(self._answer("score", number, query_BQC))
            boxes.append(corrected_BQ4)
            box_BQ4 = corrected_BQ4.detach().clamp(SMALLEST, 1 - SMALLEST)
        return Queries(torch.stack(logits), torch.stack(boxes), first, size_4)

    def _answer(self, name: str, layer: int, query_BQC: Tensor) -> Tensor:
        layers = self.answer[name]
        assert isinstance(layers, nn.ModuleList)
        return layers[layer](query_BQC).float()


class Layer(nn.Module):
    """Queries look at each other, then at points of the grids, then each thinks for itself."""

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        self.each_other = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.around = PointAttention(width, levels)
        self.alone = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(self, query_BQC: Tensor, place_BQC: Tensor, grids: Sequence[Tensor], box_BQ4: Tensor) -> Tensor:
        placed = query_BQC + place_BQC
        query_BQC = self.norms[0](query_BQC + self.each_other(placed, placed, query_BQC, need_weights=False)[0])
        query_BQC = self.norms[1](query_BQC + self.around(query_BQC + place_BQC, grids, box_BQ4))
        return self.norms[2](query_BQC + self.alone(query_BQC))


class PointAttention(nn.Module):
    """Deformable attention (Zhu et al. 2021): a query sees a weighted mean of some points of every level, which lie
    around its box at places that it chooses."""

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.offsets = nn.Linear(width, HEADS * levels * POINTS * 2)
        self.weights = nn.Linear(width, HEADS * levels * POINTS)
        self.values = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        # At first every head looks into a direction of its own, its points further and further out.
        angle_G = torch.arange(HEADS) * (2 * torch.pi / HEADS)
        way_G2 = torch.stack([angle_G.cos(), angle_G.sin()], -1)
        far_S = (torch.arange(POINTS) + 1) / POINTS
        start = (way_G2[:, None, None] * far_S[None, None, :, None]).expand(HEADS, levels, POINTS, 2)
        with torch.no_grad():
            self.offsets.bias.copy_(start.reshape(-1))

    def forward(self, query_BQC: Tensor, grids: Sequence[Tensor], box_BQ4: Tensor) -> Tensor:
        batch, queries, width = query_BQC.shape
        offset = self.offsets(query_BQC).unflatten(2, (HEADS, self.levels, POINTS, 2))
        weight = self.weights(query_BQC).unflatten(2, (HEADS, self.levels * POINTS)).softmax(-1)
        # Half a box away is as far as 1 goes.
        at = box_BQ4[:, :, None, None, None, :2] + offset * 0.5 * box_BQ4[:, :, None, None, None, 2:]
        seen: list[Tensor] = []
        for level, grid in enumerate(grids):
            value = self.values(grid.flatten(2).transpose(1, 2)).transpose(1, 2)
            value = value.reshape(batch * HEADS, width // HEADS, *grid.shape[2:])
            points = at[:, :, :, level].transpose(1, 2).flatten(0, 1) * 2 - 1
            seen.append(
                functional.grid_sample(
                    value, points.to(value.dtype), mode="bilinear", padding_mode="zeros", align_corners=False
                )
            )
        # (B * G, C / G, Q, levels * S), weighed and summed over the points.
        weight = weight.transpose(1, 2).flatten(0, 1)[:, None]
        mixed = (torch.cat(seen, -1) * weight).sum(-1)
        return self.out(mixed.reshape(batch, width, queries).transpose(1, 2))


def costs(given: Queries, objects_BMx: Tensor, class_BM: Tensor) -> dict[str, Tensor]:
    """The loss terms of each picture, (B,): those of the dense head, and those of queries, all layers together."""
    terms = dense.costs(given.dense, objects_BMx, class_BM)
    object_BM4 = objects_BMx[..., GRID]
    wanted_BM = (class_BM >= 0) & (objects_BMx[..., FLAG] == PLAIN)
    free_BM = (class_BM >= 0) & ~wanted_BM
    query_LBM = _match(given, object_BM4, class_BM, wanted_BM)
    score_B, place_B = torch.zeros(len(class_BM), device=class_BM.device), 0.0
    for logits_BQK, box_BQ4, query_BM in zip(given.logits_LBQK, given.box_LBQ4, query_LBM, strict=True):
        corner_BQ4 = _cornered(box_BQ4) * given.size_4
        mine_BM4 = corner_BQ4.gather(1, query_BM.clamp_min(0)[..., None].expand(-1, -1, 4))
        told_BM4 = box_BQ4.gather(1, query_BM.clamp_min(0)[..., None].expand(-1, -1, 4))
        matched_BM = query_BM >= 0
        near_BM = 1 - geometry.generalized_iou(mine_BM4, object_BM4)
        apart_BM = (told_BM4 - _centred(object_BM4) / given.size_4).abs().sum(-1)
        place_B = place_B + ((OVERLAP * near_BM + DISTANCE * apart_BM) * matched_BM).sum(1)
        quality_BM = geometry.iou(mine_BM4.detach(), object_BM4) * matched_BM
        wanted_BQK = _wanted(logits_BQK, query_BM, class_BM, quality_BM)
        ignored_BQ = _near_free(corner_BQ4.detach(), object_BM4, free_BM) & (wanted_BQK.amax(2) == 0)
        score_B = score_B + SCORE * dense.varifocal(logits_BQK, wanted_BQK, ignored_BQ)
    return {**terms, "query_score": score_B, "query_box": place_B + given.box_LBQ4.sum((0, 2, 3)) * 0}


def answers(given: Queries) -> tuple[Tensor, Tensor]:
    """The last layer's logits (B, Q, K) and boxes [x1, y1, x2, y2] in pixels of the grid (B, Q, 4)."""
    return given.logits_LBQK[-1], _cornered(given.box_LBQ4[-1]) * given.size_4


@torch.no_grad()
def _match(given: Queries, object_BM4: Tensor, class_BM: Tensor, wanted_BM: Tensor) -> Tensor:
    """The query that answers for each object in each layer, int64 (L, B, M), -1 for none: the cheapest matching."""
    from scipy.optimize import linear_sum_assignment

    corner_LBQ4 = _cornered(given.box_LBQ4) * given.size_4
    overlap_LBQM = geometry.pairwise_generalized_iou(corner_LBQ4, object_BM4)
    told = _centred(object_BM4) / given.size_4
    apart_LBQM = (given.box_LBQ4[..., :, None, :] - told[:, None]).abs().sum(-1)
    score_LBQK = given.logits_LBQK.sigmoid()
    # What a right class would save in the focal loss (Zhu et al. 2021).
    gain_LBQK = (
        0.25 * (1 - score_LBQK) ** 2 * -(score_LBQK + 1e-8).log()
        - 0.75 * score_LBQK**2 * -(1 - score_LBQK + 1e-8).log()
    )
    index = class_BM.clamp_min(0)[None, :, None].expand(*gain_LBQK.shape[:3], -1)
    cost = SCORE * gain_LBQK.gather(3, index) + DISTANCE * apart_LBQM - OVERLAP * overlap_LBQM
    cost_LBQM, wanted = cost.nan_to_num(1e4).cpu().numpy(), wanted_BM.cpu().numpy()
    found = np.full((cost_LBQM.shape[0], *wanted.shape), -1, dtype=np.int64)
    for layer, picture in np.ndindex(*cost_LBQM.shape[:2]):
        columns = np.flatnonzero(wanted[picture])
        query, place = linear_sum_assignment(cost_LBQM[layer, picture][:, columns])
        found[layer, picture, columns[place]] = query
    return torch.from_numpy(found).to(class_BM.device)


def _wanted(logits_BQK: Tensor, query_BM: Tensor, class_BM: Tensor, quality_BM: Tensor) -> Tensor:
    """The scores that queries should give: of an object's query in its class how well it lies, else 0."""
    batch, queries, classes = logits_BQK.shape
    # One place more, for objects that no query answers for.
    flat = torch.where(query_BM >= 0, query_BM * classes + class_BM.clamp_min(0), queries * classes)
    wanted = quality_BM.new_zeros(batch, queries * classes + 1).scatter(1, flat, quality_BM)
    return wanted[:, :-1].unflatten(1, (queries, classes))


def _near_free(corner_BQ4: Tensor, object_BM4: Tensor, free_BM: Tensor) -> Tensor:
    """Queries that mean an object which need not be found (B, Q)."""
    if not object_BM4.shape[1]:
        return torch.zeros(corner_BQ4.shape[:2], dtype=torch.bool, device=corner_BQ4.device)
    overlap_BQM = geometry.pairwise_iou(corner_BQ4, object_BM4) * free_BM[:, None]
    return overlap_BQM.amax(2) >= NEAR


def _centred(box: Tensor) -> Tensor:
    """[x1, y1, x2, y2] as [centre x, y, width, height]."""
    return torch.cat([(box[..., :2] + box[..., 2:]) / 2, box[..., 2:] - box[..., :2]], -1)


def _cornered(box: Tensor) -> Tensor:
    return torch.cat([box[..., :2] - box[..., 2:] / 2, box[..., :2] + box[..., 2:] / 2], -1)
