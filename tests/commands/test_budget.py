"""What `sonde new` makes of the advice for so many records."""

from __future__ import annotations

import csv
import tomllib

import numpy as np
import pytest

from sonde.commands import budget
from sonde.commands.new import write_recipe
from sonde.contracts.records import Records, as_field


def made(count, **fields):
    every = {"label": as_field(["a", "b"] * (count // 2)), **fields}
    return Records(fields=every, ids=[f"row {number}" for number in range(1, count + 1)])


@pytest.mark.parametrize(
    ("count", "batch", "epochs"), [(48, 8, 50), (77, 16, 75), (320, 64, 60), (800, 64, 25), (40_000, 64, 20)]
)
def test_small_data_get_a_floor_of_steps_and_smaller_batches(count, batch, epochs):
    training = budget.work({"epochs": 20, "batch_size": 64}, count, min_steps=300)
    assert (training["batch_size"], training["epochs"]) == (batch, epochs)
    assert training["epochs"] * max(1, count // batch) >= 300


def test_advice_in_steps_and_batches_that_mean_something_stay():
    assert budget.work({"steps": 2000, "batch_size": 12}, 50, min_steps=300) == {"steps": 2000, "batch_size": 12}
    kept = budget.work({"epochs": 5, "batch_size": 128}, 100, min_steps=300, keep_batch=True)
    assert kept == {"epochs": 300, "batch_size": 128}


def test_a_validation_split_too_small_to_choose_by_trains_instead():
    data, training, why = budget.checkpoint(made(96), {"split": {"by": "stratified", "validation": 0.1, "test": 0.1}})
    assert data == {"split": {"by": "stratified", "validation": 0.0, "test": 0.1}}
    assert training == {"checkpoint": "last"}
    assert why == (
        "a validation split of 10 records is too small to choose weights by: the last ones are kept, and those "
        "records train",
    )
    assert budget.checkpoint(made(600), {"split": {"by": "random", "validation": 0.1, "test": 0.1}}) == ({}, {}, ())
    given = as_field(["train"] * 80 + ["validation"] * 16)
    data, training, why = budget.checkpoint(made(96, split=given), {"split": {"by": "given"}})
    assert (data, training) == ({}, {"checkpoint": "last"})
    assert budget.count_training(made(96, split=given), {"by": "given"}) == 72


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["PassengerId", "x"], "PassengerId"), (["x", "row_id"], "row_id"), (["grid", "x"], None), (["paid", "x"], None)],
)
def test_the_column_that_names_records(tmp_path, names, expected):
    rng = np.random.default_rng(0)
    rows = [
        [*(f"n{index}" if name == expected else rng.integers(9) for name in names), "ab"[index % 2]]
        for index in range(60)
    ]
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([[*names, "label"], *rows])
    write_recipe(str(tmp_path / "t.csv"), tmp_path / "recipe.toml", target="label")
    assert tomllib.loads((tmp_path / "recipe.toml").read_text())["data"].get("id") == expected
