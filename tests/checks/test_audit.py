"""Faults put into clean data are found by the check that is for them; clean data passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from check_fakes import pictures, subject, table

from sonde import checks
from sonde.base.errors import CheckFailed, UserError
from sonde.checks import columns, duplicates, labels, shift
from sonde.contracts import fingerprints
from sonde.contracts.columns import Ragged
from sonde.contracts.finding import Finding
from sonde.contracts.records import Records


def only(found: list[Finding]) -> Finding:
    (one,) = found
    return one


@pytest.mark.parametrize("make", [table, pictures])
def test_clean_data_passes(make: Any) -> None:
    found = checks.audit(subject(make(400), make(120, seed=1)))
    assert [one.to_text() for one in found if one.verdict != "pass"] == []
    assert {one.check for one in found} >= {"duplicates across splits", "signal", "labels", "splits differ"}


@pytest.mark.parametrize(("share", "verdict"), [(0.1, "warn"), (0.5, "fail")])
def test_test_records_that_training_has_seen(share: float, verdict: str) -> None:
    train, test = pictures(300), pictures(100, seed=1)
    seen = int(share * 100)
    grid = test.fields["image"].copy()
    grid[:seen] = train.fields["image"][:seen]
    found = only(list(duplicates.across_splits(subject(train, test.with_fields(image=grid)))))
    assert (found.verdict, found.numbers["share"]) == (verdict, share)
    assert list(found.records) == test.ids[:seen]


def test_copies_of_a_whole_table_are_no_chance() -> None:
    train, test = table(300), table(100, seed=1)
    copied = Records(fields={name: values[:100] for name, values in train.fields.items()}, ids=test.ids)
    assert only(list(duplicates.across_splits(subject(train, copied)))).verdict == "fail"
    coarse = [each.with_fields(**{name: np.sign(each.fields[name]) for name in "abc"}) for each in (train, test)]
    assert only(list(duplicates.across_splits(subject(coarse[0], coarse[1])))).verdict == "warn"


def test_one_record_with_two_labels() -> None:
    train = pictures(200)
    grid, label = train.fields["image"].copy(), train.fields["label"].copy()
    grid[100:110], label[:10], label[100:110] = grid[:10], "left", "right"
    found = only(
        list(duplicates.conflicting_labels(subject(train.with_fields(image=grid, label=label), pictures(50, 1))))
    )
    assert found.verdict == "warn"
    assert set(found.records) == {train.ids[row] for row in [*range(10), *range(100, 110)]}


def test_a_column_that_gives_the_target_away() -> None:
    train, test = table(300), table(100, seed=1)
    leaky = [each.with_fields(b=(each.fields["label"] == "yes").astype(float)) for each in (train, test)]
    found = only(list(columns.leaks(subject(leaky[0], leaky[1]))))
    assert found.verdict == "fail"
    assert "'b'" in found.text
    assert only(list(columns.leaks(subject(train, test)))).verdict == "pass"


def test_the_same_patient_on_both_sides() -> None:
    def with_patients(each: Records, seed: int) -> Records:
        names = np.array([f"p{number}" for number in range(20)], dtype=object)
        return each.with_fields(patient_id=names[np.random.default_rng(seed).integers(20, size=len(each))])

    train, test = with_patients(table(200), 0), with_patients(table(80, seed=1), 1)
    assert only(list(columns.owners(subject(train, test)))).verdict == "warn"
    assert list(columns.owners(subject(train, test, group="patient_id"))) == []


def test_flipped_labels_are_found() -> None:
    train = pictures(600)
    label = train.fields["label"].copy()
    wrong = np.random.default_rng(3).choice(600, 60, replace=False)
    label[wrong] = np.where(label[wrong] == "left", "right", "left")
    found = list(labels.suspicious_labels(subject(train.with_fields(label=label), pictures(80, seed=1))))
    (issues,) = [one for one in found if one.check == "labels"]
    named = {row["record"] for row in issues.numbers["issues"]}
    truly = {train.ids[row] for row in wrong}
    assert issues.verdict == "warn"
    assert len(named & truly) / len(named) > 0.9
    assert len(named & truly) / len(truly) > 0.9


def test_shuffled_labels_have_no_signal() -> None:
    train = pictures(400)
    label = np.random.default_rng(3).permutation(train.fields["label"])
    found = list(labels.suspicious_labels(subject(train.with_fields(label=label), pictures(80, seed=1))))
    assert next(one for one in found if one.check == "signal").verdict == "warn"


def test_a_split_of_another_kind() -> None:
    train, test = table(300), table(200, seed=1)
    shifted = test.with_fields(c=test.fields["c"] + 2)
    assert only(list(shift.splits_differ(subject(train, shifted)))).verdict != "pass"


def test_rare_classes_and_odd_records() -> None:
    train, test = pictures(200), pictures(60, seed=1)
    label, grid = train.fields["label"].copy(), train.fields["image"].copy()
    label[:3], grid[10:14] = "middle", 7
    found = {one.check: one for one in checks.audit(subject(train.with_fields(label=label, image=grid), test))}
    assert found["classes to learn"].verdict == "warn"
    assert "middle" in found["classes to learn"].text
    assert "middle" in found["classes to score"].text
    blank = next(
        one for one in checks.audit(subject(train.with_fields(image=grid), test)) if one.check == "blank pictures"
    )
    assert list(blank.records) == train.ids[10:14]


def test_a_constant_column() -> None:
    train, test = (each.with_fields(c=np.ones(len(each))) for each in (table(200), table(60, seed=1)))
    found = next(one for one in checks.audit(subject(train, test)) if one.check == "constant columns")
    assert found.numbers["columns"] == ["c"]


def test_a_failed_check_stops_unless_named() -> None:
    failed = Finding(check="leaks", verdict="fail", text="one column alone", fix="take it out")
    with pytest.raises(CheckFailed, match="leaks: one column alone") as error:
        checks.require([failed])
    assert error.value.exit_code == 3
    checks.require([failed], ["leaks"])
    with pytest.raises(UserError, match="did you mean 'leaks'"):
        checks.require([failed], ["leak"])


def test_rows_are_equal_exactly_where_their_tensors_are() -> None:
    import torch

    values = torch.tensor([[1, 2, 3], [1, 2, 3], [1, 3, 2], [0, 0, 0]], dtype=torch.uint8)
    one, same, other, zero = fingerprints.fingerprints({"it": {"grid": values}}).tolist()
    assert one == same
    assert len({one, other, zero}) == 3
    # Overlapping windows of a stream: equal contents at different places, and a prefix that is none.
    stream = torch.tensor([5, 6, 7, 5, 6, 7, 5])
    ragged = Ragged(values=stream, starts=torch.tensor([0, 3, 1, 0]), lengths=torch.tensor([3, 3, 3, 2]))
    first, again, shifted, shorter = fingerprints.fingerprints({"it": {"tokens": ragged}}).tolist()
    assert first == again
    assert len({first, shifted, shorter}) == 3
