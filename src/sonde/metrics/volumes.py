"""Scores of labels in volumes, case by case: Dice, distances between surfaces in mm, volumes. K label, Q place.

As Maier-Hein et al. 2024 ("Metrics reloaded") recommend: Dice and the normalized surface distance (Nikolov et al.
2021), beside the 95th percentile of the Hausdorff distance. Surfaces and distances are MONAI's: border voxels by
erosion with the neighbours along the axes, distances from centre to centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np


class Case(TypedDict):
    """Scores of one case, one number a label; NaN where the label is neither there nor predicted."""

    dice: np.ndarray
    hd95: np.ndarray
    nsd: np.ndarray
    volume_error: np.ndarray
    predicted_ml: np.ndarray
    true_ml: np.ndarray


def case_scores(
    predicted: np.ndarray, true: np.ndarray, labels: Sequence[int], spacing: Sequence[float], tolerance: float
) -> Case:
    """Scores of predicted codes against true ones, whole numbers (X, Y, Z), with `spacing` in mm.

    `tolerance` is how far apart surfaces may lie to count as one, in mm. A label that is there but not predicted, or
    the other way round, has Dice and surface Dice 0 and as its distance the diagonal of the volume: the worst there is.
    `volume_error` is (predicted - true) / true; NaN where the label is not there.
    """
    millilitres = float(np.prod(spacing)) / 1000
    worst = float(np.linalg.norm(np.array(true.shape) * np.array(spacing)))
    rows = []
    for label in labels:
        one, other = predicted == label, true == label
        sizes = int(one.sum()), int(other.sum())
        dice = hd95 = nsd = float("nan")
        if min(sizes):
            dice = 2 * int((one & other).sum()) / sum(sizes)
            there, back = surface_distances(one, other, spacing)
            hd95 = max(float(np.percentile(there, 95)), float(np.percentile(back, 95)))
            near = int((there <= tolerance).sum()) + int((back <= tolerance).sum())
            nsd = near / (len(there) + len(back))
        elif max(sizes):
            dice, hd95, nsd = 0.0, worst, 0.0
        error = (sizes[0] - sizes[1]) / sizes[1] if sizes[1] else float("nan")
        rows.append((dice, hd95, nsd, error, sizes[0] * millilitres, sizes[1] * millilitres))
    columns = np.array(rows, dtype=np.float64).reshape(-1, 6).T
    return Case(
        dice=columns[0],
        hd95=columns[1],
        nsd=columns[2],
        volume_error=columns[3],
        predicted_ml=columns[4],
        true_ml=columns[5],
    )


def surface_distances(one: np.ndarray, other: np.ndarray, spacing: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """From every voxel on the surface of one mask to the nearest one on that of the other, and back, in mm: (Q,) each.

    Both are bool (X, Y, Z), and neither is empty.
    """
    from scipy import ndimage

    # Only the box around both matters.
    box = ndimage.find_objects((one | other).astype(np.uint8))[0]
    one, other = (np.pad(each[box], 1) for each in (one, other))
    edges = [each & ~np.asarray(ndimage.binary_erosion(each), bool) for each in (one, other)]
    to_other, to_one = (np.asarray(ndimage.distance_transform_edt(~edge, sampling=spacing)) for edge in reversed(edges))
    return to_other[edges[0]], to_one[edges[1]]
