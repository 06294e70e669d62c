"""Splits: shares, balance, groups and times that stay together, and what every error says."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

from sonde.base.errors import UserError
from sonde.contracts.records import Records
from sonde.data.split import Split, assign


def objects(values: list) -> np.ndarray:
    field = np.empty(len(values), dtype=object)
    field[:] = values
    return field


def records(**fields: np.ndarray) -> Records:
    count = len(next(iter(fields.values())))
    return Records(fields=fields, ids=[f"row {number}" for number in range(1, count + 1)])


def numbered(count: int) -> Records:
    return records(x=np.arange(count))


def test_random_shares_and_seed() -> None:
    split = Split(by="random", validation=0.1, test=0.2)
    parts = assign(numbered(1000), split, label=None, seed=3)
    assert Counter(parts.tolist()) == {"train": 700, "validation": 100, "test": 200}
    assert (parts == assign(numbered(1000), split, label=None, seed=3)).all()
    assert (parts != assign(numbered(1000), split, label=None, seed=4)).any()


def test_small_sets_fill_every_part() -> None:
    assert sorted(assign(numbered(3), Split(), label=None, seed=0)) == ["test", "train", "validation"]
    assert Counter(assign(numbered(12), Split(test=0), label=None, seed=0).tolist()) == {"train": 11, "validation": 1}
    assert set(assign(numbered(5), Split(validation=0, test=0), label=None, seed=0)) == {"train"}


def test_order_keeps_the_order() -> None:
    parts = assign(numbered(20), Split(by="order"), label=None, seed=7)
    assert parts.tolist() == ["train"] * 16 + ["validation"] * 2 + ["test"] * 2


@pytest.mark.parametrize("as_codes", [True, False])
def test_stratified_keeps_every_share(as_codes: bool) -> None:
    codes = np.repeat([0, 1, 2], [600, 90, 3])
    label = codes if as_codes else objects([["ant", "bee", "cat"][code] for code in codes])
    parts = assign(records(y=label), Split(by="stratified"), label=label, seed=0)
    for code, sizes in ((0, (480, 60, 60)), (1, (72, 9, 9)), (2, (1, 1, 1))):
        found = Counter(parts[codes == code].tolist())
        assert (found["train"], found["validation"], found["test"]) == sizes


def test_stratified_by_another_column_and_by_lists() -> None:
    where = objects(["north", "south"] * 20)
    parts = assign(records(where=where), Split(by="stratified", field="where"), label=np.arange(40), seed=0)
    assert Counter(where[parts == "test"]) == {"north": 2, "south": 2}
    label = objects([["a", "b"], ["a"]] * 10)
    assert Counter(assign(records(y=label), Split(by="stratified"), label=label, seed=0).tolist())["test"] == 2


def test_groups_never_straddle() -> None:
    rng = np.random.default_rng(0)
    group = objects([f"p{number}" for number in rng.integers(0, 60, 1000)])
    parts = assign(records(patient=group), Split(by="group", field="patient"), label=None, seed=1)
    members = [set(group[parts == part]) for part in ("train", "validation", "test")]
    assert sum(map(len, members)) == len(set(group))
    assert 60 <= (parts == "test").sum() <= 140
    assert 60 <= (parts == "validation").sum() <= 140


def test_a_large_group_trains_and_few_groups_are_enough() -> None:
    group = np.repeat([7, 1, 2, 3], [700, 100, 100, 100])
    for seed in range(5):
        parts = assign(records(who=group), Split(by="group", field="who"), label=None, seed=seed)
        assert set(parts[group == 7]) == {"train"}
        assert {"validation", "test"} <= set(parts)


def test_time_goes_forward_and_ties_stay_together() -> None:
    rng = np.random.default_rng(0)
    day = np.datetime64("2024-01-01", "us") + rng.integers(0, 50, 500).astype("timedelta64[D]")
    parts = assign(records(day=day), Split(by="time", field="day"), label=None, seed=0)
    assert day[parts == "train"].max() < day[parts == "validation"].min()
    assert day[parts == "validation"].max() < day[parts == "test"].min()
    years = np.repeat([2018, 2019, 2020], 100)
    parts = assign(records(year=years), Split(by="time", field="year"), label=None, seed=0)
    assert parts[[0, 100, 200]].tolist() == ["train", "validation", "test"]


def test_given_in_any_spelling() -> None:
    column = objects(["Training", "train", "DEV", "valid", "val", "validation", " test ", "testing", "none"])
    parts = assign(records(split=column), Split(by="given"), label=None, seed=0)
    assert parts.tolist() == ["train"] * 2 + ["validation"] * 4 + ["test"] * 2 + [""]


def test_given_without_validation_takes_it_from_training_by_class() -> None:
    column = objects(["train"] * 100 + ["test"] * 20)
    label = objects((["a"] * 80 + ["b"] * 20) + ["a"] * 20)
    parts = assign(records(split=column), Split(by="given", validation=0.1, test=0.5), label=label, seed=0)
    assert Counter(label[parts == "validation"]) == {"a": 8, "b": 2}
    assert (parts == "test").sum() == 20
    parts = assign(records(split=column), Split(by="given", validation=0), label=label, seed=0)
    assert Counter(parts.tolist()) == {"train": 100, "test": 20}
    # A label that is different everywhere cannot be balanced, and need not be.
    texts = objects([f"text {number}" for number in range(120)])
    parts = assign(records(split=column), Split(by="given"), label=texts, seed=0)
    assert (parts == "validation").sum() == 10


def fails(split: Split, data: Records, label: np.ndarray | None = None) -> str:
    with pytest.raises(UserError) as caught:
        assign(data, split, label=label, seed=0)
    return str(caught.value)


def test_a_class_with_one_example() -> None:
    label = objects(["rose"] * 10 + ["tulip"])
    assert fails(Split(by="stratified"), records(y=label), label) == (
        "the class 'tulip' has only one example. Expected at least 3 of every class: one each for train, validation "
        'and test. hint: add examples, remove the class, or keep it in training with split = { ..., rare = "train" }'
    )
    column = objects(["north"] * 8 + ["south"] * 2)
    assert "the class 'south' in column 'where' has only 2 examples." in fails(
        Split(by="stratified", field="where"), records(where=column)
    )


def test_errors_of_columns() -> None:
    data = records(when=np.array([1.0, np.nan, 3, 4]), patient=objects(["a", "b", None, "b"]))
    assert fails(Split(by="group", field="patiend"), data) == (
        "data.split: the column 'patiend' does not exist. Expected one of: patient, when. hint: did you mean 'patient'?"
    )
    assert fails(Split(by="time"), data) == (
        'a split by time needs a column, and data.split names none. Expected split = { by = "time", field = "..." }.'
    )
    assert fails(Split(by="time", field="when"), data) == (
        "row 2 has no time in column 'when'. hint: fill it in, or remove the record"
    )
    assert "row 3 has no group in column 'patient'." in fails(Split(by="group", field="patient"), data)
    assert fails(Split(by="stratified"), data, data.fields["patient"]).startswith(
        "row 3 has no class, and the split is stratified."
    )
    assert "a stratified split needs classes, and the target has no field." in fails(Split(by="stratified"), data)
    words = records(when=objects(["3rd of May"] * 4))
    assert fails(Split(by="time", field="when"), words) == (
        "the column 'when' has '3rd of May' at row 1, which is no time. "
        "Expected numbers, or dates like 2024-05-31 or 2024-05-31 14:00:00."
    )


def test_errors_of_given() -> None:
    assert fails(Split(by="given"), numbered(9)) == (
        "the data set gives no split: it has no train and test folders and no column 'split'. "
        'hint: use split = { by = "random" }, or name the column with data.split.field'
    )
    data = records(split=objects(["train", "tset", "test"]))
    assert fails(Split(by="given"), data) == (
        "the column 'split' has the value 'tset' at row 2, which is no part of a split. Expected train, validation, "
        "test, or none for a record that is not used. hint: did you mean 'test'?"
    )
    assert "has the value None at row 1" in fails(Split(by="given"), records(split=objects([None, "train"])))
    data = records(split=objects(["test", "val", "test"]))
    assert "no record is 'train' in the column 'split'." in fails(Split(by="given"), data)
    data = records(split=objects(["train", "test", "test"]))
    assert fails(Split(by="given"), data) == "one example to train on cannot be split into train and validation."


def test_errors_of_sizes() -> None:
    assert fails(Split(), numbered(2)) == (
        "2 records cannot be split into train, validation and test. Expected at least one record for each."
    )
    data = records(who=np.array([1, 1, 2, 2]))
    assert "the column 'who' has 2 groups, too few for train, validation and test." in fails(
        Split(by="group", field="who"), data
    )
    assert "the column 'who' has 2 different times, too few for" in fails(Split(by="time", field="who"), data)
    with pytest.raises(ValidationError, match=r"validation = 0\.5 and test = 0\.5 leave nothing to train on"):
        Split(validation=0.5, test=0.5)
    with pytest.raises(ValidationError, match="less than 1"):
        Split(validation=1.0)
