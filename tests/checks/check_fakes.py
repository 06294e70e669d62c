"""Small data sets in which one thing tells the class, as subjects of the checks."""

from __future__ import annotations

from typing import Any

import numpy as np

from sonde import stages
from sonde.checks.subject import Subject
from sonde.contracts.records import Records
from sonde.data.load import Dataset
from sonde.data.snapshot import snapshot
from sonde.data.store import encode
from sonde.recipe import Recipe

NUMBERS = {"kind": "table", "fields": ["a", "b", "c"]}


def table(count: int, seed: int = 0) -> Records:
    """Three numbers of which two tell the class, and the class."""
    rng = np.random.default_rng(seed)
    a, b, c = rng.normal(size=(3, count))
    labels = np.where(a + b + 0.5 * rng.normal(size=count) > 0, "yes", "no").astype(object)
    return Records(fields={"a": a, "b": b, "c": c, "label": labels}, ids=[f"{seed}-{row}" for row in range(count)])


def pictures(count: int, seed: int = 0) -> Records:
    """Noise with a bright half: left or right."""
    rng = np.random.default_rng(seed)
    side = rng.integers(2, size=count)
    grid = rng.integers(0, 128, (count, 16, 16), dtype=np.uint8)
    for row, left in zip(grid, side, strict=True):
        row[:, 8 * left : 8 * left + 8] += 90
    return Records(
        fields={"image": grid, "label": np.array(["left", "right"], dtype=object)[side]},
        ids=[f"{seed}-{row}" for row in range(count)],
    )


def subject(train: Records, test: Records, training: dict[str, Any] | None = None, **data: Any) -> Subject:
    kind = {"kind": "image", "field": "image"} if "image" in train.fields else NUMBERS
    recipe = Recipe.of(
        {
            "data": {"source": "sklearn:digits", **data},  # not read
            "inputs": {"it": kind},
            "target": {"kind": "category", "field": "label"},
            "network": {"kind": "cnn", "widths": [8]} if kind["kind"] == "image" else {"kind": "mlp", "hidden": [16]},
            "training": {"steps": 200, "batch_size": 32} | (training or {}),
        }
    )
    task = stages.fit_task(recipe, train)
    splits = {"train": train, "test": test}
    both = Records(
        fields={name: np.concatenate([values, test.fields[name]]) for name, values in train.fields.items()},
        ids=[*train.ids, *test.ids],
    )
    where = np.array(["train"] * len(train) + ["test"] * len(test))
    dataset = Dataset(splits=splits, snapshot=snapshot(both, where, used=set(both.fields)))
    return Subject(recipe, dataset, task, {name: encode(task, each) for name, each in splits.items()})
