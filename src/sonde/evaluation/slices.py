"""Where errors gather: every value of a field, and ranges that a small tree finds; corrected for many looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

# Fewer records say nothing of a slice; fields with more values than this are names or numbers.
FEWEST, VALUES = 20, 12
# Leaves of the tree, and slices that are told.
LEAVES, TOLD = 6, 12


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Some records of a split: their mean cost and its 95 % interval, and whether it is above that of the others by
    more than chance over all slices that were looked at. `share` is their share of the whole split's cost."""

    name: str
    count: int
    cost: float
    low: float
    high: float
    worse: bool
    share: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def slices(cost_N: np.ndarray, fields: Mapping[str, np.ndarray], *, seed: int = 0) -> list[Slice]:
    """The worst slices of a split by the cost of each record, the worst first.

    Slices of `fields` are their values; those of numbers are found by a small tree on half of the records and judged
    on the other half, so that what it found by chance is not told. Each is compared with the rest by Welch's t,
    at 5 % over all of them (Bonferroni).
    """
    looked: dict[str, np.ndarray] = {}
    numbers: dict[str, np.ndarray] = {}
    for name, values in fields.items():
        if values.dtype.kind == "f" and len(np.unique(values)) > VALUES:
            numbers[name] = np.nan_to_num(values.astype(np.float64))
            continue
        words = np.array([str(value) for value in values.tolist()])
        distinct, counts = np.unique(words, return_counts=True)
        if len(distinct) <= VALUES:
            looked |= {
                f"{name} = {word}": words == word
                for word, count in zip(distinct, counts, strict=True)
                if FEWEST <= count <= len(words) - FEWEST
            }
    judged = np.ones(len(cost_N), dtype=bool)
    if numbers and len(cost_N) >= 4 * FEWEST:
        judged = np.random.default_rng(seed).permutation(len(cost_N)) % 2 == 0
        looked_by_tree = _ranges(cost_N, numbers, ~judged)
    else:
        looked_by_tree = {}
    total = len(looked) + len(looked_by_tree)
    found = [_judged(name, cost_N, inside, total) for name, inside in looked.items()]
    found += [
        _judged(name, cost_N[judged], inside[judged], total)
        for name, inside in looked_by_tree.items()
        if FEWEST <= inside[judged].sum() <= judged.sum() - FEWEST
    ]
    return sorted(found, key=lambda one: (not one.worse, -one.cost))[:TOLD]


def _judged(name: str, cost_N: np.ndarray, inside_N: np.ndarray, looks: int) -> Slice:
    ours, others = cost_N[inside_N], cost_N[~inside_N]
    error = float(ours.std(ddof=1) / np.sqrt(len(ours)))
    apart = float(ours.mean() - others.mean())
    spread = float(np.sqrt(ours.var(ddof=1) / len(ours) + others.var(ddof=1) / len(others)))
    limit = NormalDist().inv_cdf(1 - 0.05 / max(1, looks))
    return Slice(
        name=name,
        count=int(inside_N.sum()),
        cost=float(ours.mean()),
        low=float(ours.mean()) - 1.96 * error,
        high=float(ours.mean()) + 1.96 * error,
        worse=spread > 0 and apart / spread > limit,
        share=float(ours.sum() / cost_N.sum()) if cost_N.sum() else 0.0,
    )


def _ranges(cost_N: np.ndarray, numbers: Mapping[str, np.ndarray], fitted: np.ndarray) -> dict[str, np.ndarray]:
    """The leaves of a small tree that predicts the cost, as conditions in words."""
    from sklearn.tree import DecisionTreeRegressor

    names = list(numbers)
    values_NF = np.stack([numbers[name] for name in names], axis=1)
    tree = DecisionTreeRegressor(max_leaf_nodes=LEAVES, min_samples_leaf=FEWEST, random_state=0)
    tree.fit(values_NF[fitted], cost_N[fitted])
    leaf_N = tree.apply(values_NF)
    conditions = _conditions(tree.tree_, names)
    return {conditions[leaf]: leaf_N == leaf for leaf in np.unique(leaf_N).tolist() if conditions[leaf]}


def _conditions(tree: Any, names: list[str]) -> dict[int, str]:
    """What holds in each leaf: the narrowest bounds on the way to it."""
    found: dict[int, str] = {}
    stack: list[tuple[int, dict[str, tuple[float, float]]]] = [(0, {})]
    while stack:
        node, bounds = stack.pop()
        left, right = int(tree.children_left[node]), int(tree.children_right[node])
        if left < 0:
            found[node] = " and ".join(_range(name, low, high) for name, (low, high) in bounds.items())
            continue
        name, at = names[int(tree.feature[node])], float(tree.threshold[node])
        low, high = bounds.get(name, (-np.inf, np.inf))
        stack.append((left, bounds | {name: (low, min(high, at))}))
        stack.append((right, bounds | {name: (max(low, at), high)}))
    return found


def _range(name: str, low: float, high: float) -> str:
    if np.isfinite(low) and np.isfinite(high):
        return f"{low:.4g} < {name} <= {high:.4g}"
    return f"{name} > {low:.4g}" if np.isfinite(low) else f"{name} <= {high:.4g}"
