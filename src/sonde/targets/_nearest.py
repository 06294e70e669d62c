"""The remembered embeddings nearest to others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sonde.metrics.ranking import Similarity

if TYPE_CHECKING:
    from torch import Tensor

# Similarities are told to this: records of which network and batch have changed the last digits only keep their order.
GRAIN = 1e-6


def nearest(embedding_BW: Tensor, known_NW: Tensor, most: int, similarity: Similarity) -> list[list[tuple[int, float]]]:
    """For each embedding the places of the `most` nearest known ones and how near these are (cosine, or minus the
    Euclidean distance), the nearest first, the earlier of two that tie first."""
    if not len(known_NW):
        return [[] for _ in embedding_BW]
    ours_BW, known_NW = embedding_BW.double(), known_NW.double()
    closeness_BN = ours_BW @ known_NW.T if similarity == "cosine" else -torch.cdist(ours_BW, known_NW)
    closeness_BN = (closeness_BN / GRAIN).round_()
    depth = min(most, len(known_NW))
    least_B = closeness_BN.topk(depth, dim=1).values[:, -1]
    rows = []
    for closeness_N, least in zip(closeness_BN, least_B, strict=True):
        chosen = (closeness_N >= least).nonzero()[:, 0]
        order = closeness_N[chosen].argsort(descending=True, stable=True)[:depth]
        rows.append([(int(place), float(closeness_N[place]) * GRAIN) for place in chosen[order]])
    return rows
