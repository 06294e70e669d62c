"""Whether a record is like those of training: "I do not know this".

Three measures, each higher where a record is stranger: the distance to the k-th nearest training record in the
features that the head is given ("knn", Sun et al. 2022), one minus the largest probability ("max-softmax", Hendrycks
and Gimpel 2017), and the energy of the logits ("energy", Liu et al. 2020). What a value means is told by the validation
split: its share of records that are at least as strange is a p-value of the record being one of them (Bates et al.
2023, "Testing for outliers with conformal p-values").

N record, R reference, W width.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from sonde.contracts.target import Target
from sonde.evaluation.observe import Observed

# Training records that are kept, the numbers that they may take, and which neighbour the distance is to.
REFERENCES, NUMBERS, NEIGHBOUR = 2000, 1_000_000, 5
# Distances that are held at once.
CELLS = 20_000_000


def references(features: Tensor, seed: int) -> Tensor:
    """Features (R, W) of some training records, in half precision: they travel with the artifact."""
    most = min(len(features), REFERENCES, max(NEIGHBOUR, NUMBERS // max(1, features.shape[1])))
    chosen = np.sort(np.random.default_rng([seed, 31]).choice(len(features), most, replace=False))
    return features[torch.from_numpy(chosen)].half()


def measures(target: Target, seen: Observed, kept: Tensor) -> dict[str, np.ndarray]:
    """How strange each record is, float64 (N,), by every measure that there is."""
    found: dict[str, np.ndarray] = {}
    if seen.features is not None and len(kept):
        found["knn"] = distances(seen.features, kept)
    if seen.answers is not None:
        unsure: Mapping[str, Tensor] = target.unsureness(seen.answers)
        found |= {name: values.double().cpu().numpy() for name, values in unsure.items()}
    return found


def distances(features: Tensor, kept: Tensor) -> np.ndarray:
    """To the k-th nearest reference, float64 (N,)."""
    known = kept.float().to(features.device)
    rank = min(NEIGHBOUR, len(known))
    step = max(1, CELLS // max(1, len(known)))
    # Exact distances: those by a matrix product are off where records are close.
    parts = [
        torch.cdist(features[start : start + step].float(), known, compute_mode="donot_use_mm_for_euclid_dist")
        .kthvalue(rank, dim=1)
        .values
        for start in range(0, len(features), step)
    ]
    return torch.cat(parts).double().cpu().numpy()


def p_values(values_N: np.ndarray, sorted_V: np.ndarray) -> np.ndarray:
    """The share of validation records that are at least as strange, each record counted among them.

    >>> p_values(np.array([0.0, 2.5, 9.0]), np.array([1.0, 2.0, 3.0])).tolist()
    [1.0, 0.5, 0.25]
    """
    at_least_N = len(sorted_V) - np.searchsorted(sorted_V, values_N, side="left")
    return (1 + at_least_N) / (1 + len(sorted_V))
