"""Principal components of the training grids: what as many numbers tell by straight lines. N example, D number."""

from __future__ import annotations

import torch
from torch import Tensor

from sonde.base.errors import RecordError
from sonde.base.rng import generator
from sonde.contracts.input import Input
from sonde.contracts.records import Records

# Records that components are fitted to, at most, and at once; the most numbers whose covariance is computed as it is.
MOST, CHUNK, EXACT = 10_000, 1000, 2048
# Records for the components of larger grids.
FEW = 2000


def fit(part: Input, records: Records, count: int) -> tuple[Tensor, Tensor]:
    """The mean (D,) and the first components (at most `count`, D) of grids as the network gets them, flattened.

    Raises:
        RecordError: no record can be read.
    """
    first = _grids(part, records.part(0, min(8, len(records)))) if len(records) else None
    wide = first is not None and first.shape[1] > EXACT
    grids = list(_chunks(part, records, FEW if wide else MOST))
    if not grids:
        raise RecordError("no training record can be read")
    total = sum(len(each) for each in grids)
    mean = torch.stack([each.double().sum(0) for each in grids]).sum(0) / total
    count = min(count, total, len(mean))
    if wide:
        centred = torch.cat(grids).double() - mean
        components = _subspace(centred, count)
    else:
        covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
        for each in grids:
            centred = each.double() - mean
            covariance += centred.T @ centred
        components = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :count].T
    return mean.float(), components.float().contiguous()


def error(grid: Tensor, mean: Tensor, components: Tensor) -> Tensor:
    """The mean squared error of each grid's numbers when it is told by its components, (B,)."""
    centred = grid.flatten(1).float() - mean
    # What the components tell is taken away; the rest is their error.
    rest = centred.square().sum(1) - (centred @ components.T).square().sum(1)
    return rest.clamp_min(0) / len(mean)


def _subspace(centred: Tensor, count: int) -> Tensor:
    """The first right singular vectors by iteration (Halko et al. 2011), from keyed numbers."""
    start = torch.randn(centred.shape[1], count + 10, generator=generator("pca"), dtype=centred.dtype)
    basis = torch.linalg.qr(centred.T @ (centred @ start)).Q
    for _ in range(4):
        basis = torch.linalg.qr(centred.T @ (centred @ basis)).Q
    _, _, turned = torch.linalg.svd(centred @ basis, full_matrices=False)
    return (turned[:count] @ basis.T).contiguous()


def _chunks(part: Input, records: Records, most: int) -> list[Tensor]:
    import numpy as np

    chosen = np.unique(np.linspace(0, len(records) - 1, min(most, len(records))).astype(int))
    parts = (_grids(part, records.take(chosen[start : start + CHUNK])) for start in range(0, len(chosen), CHUNK))
    return [each for each in parts if each is not None]


def _grids(part: Input, records: Records) -> Tensor | None:
    """The grids of the records that can be read, (N, D); None where none can."""
    columns, _ = part.encode_many(records)
    if not columns:
        return None
    return part.preprocess(part.collate(part.make_windows(columns)))["grid"].flatten(1)
