from __future__ import annotations

import csv

import numpy as np
import pytest
import sklearn.metrics as oracle
import torch
from target_fakes import (
    Fake,
    Fixed,
    as_json,
    check_repeats,
    check_sums,
    mean_loss,
    measured,
    question,
    restored,
    vector_batch,
)
from torch.nn import functional

from sonde.base.errors import RecordError, UserError
from sonde.contracts.augment import AugmentParams
from sonde.contracts.records import Records, as_field
from sonde.targets.number import Number, NumberConfig

VALUES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0)


def records(*values, **fields):
    fields = fields or {"value": values}
    columns = {name: as_field(list(each)) for name, each in fields.items()}
    return Records(fields=columns, ids=[f"row {index}" for index in range(len(next(iter(columns.values()))))])


def number(*values, **settings):
    return Number.fit(NumberConfig(**settings), records(*(values or VALUES)), {})


def truth(target, *values):
    return target.collate(target.encode_many(records(*values), {})[0])


def test_house_prices(shared):
    with (shared / "california_housing" / "housing.csv").open(encoding="utf-8") as file:
        values = np.array([float(row["median_house_value"]) for row in csv.DictReader(file)])
    every = Records(fields={"value": values}, ids=[str(index) for index in range(len(values))])
    target = Number.fit(NumberConfig(), every, {})
    columns, errors = target.encode_many(every, {})
    assert not errors
    standard = columns["value"]
    assert standard.dtype == torch.float32
    assert float(standard.mean()) == pytest.approx(0, abs=1e-5)
    assert float(standard.std()) == pytest.approx(1, abs=1e-3)
    answers = target.predict(Fixed(standard), question(len(standard)))
    np.testing.assert_allclose([answer["value"] for answer in answers], values, rtol=1e-6)


def test_learns_the_place_of_the_training_split():
    target = number()
    assert target.centre == [pytest.approx(np.mean(VALUES))]
    assert target.scale == [pytest.approx(np.std(VALUES))]
    assert target.width == 1
    assert restored(target).encode({"value": 2}, {})["value"].shape == (1,)


def test_robust_scale_and_logarithm():
    target = number(1.0, 2.0, 3.0, 4.0, 5.0, 1e9, scale="robust")
    assert target.centre == [3.5]
    assert target.scale == [pytest.approx(2.5 / 1.349)]
    # Where half of the values are the same, quartiles say nothing.
    assert number(0.0, 0.0, 0.0, 0.0, 0.0, 6.0, scale="robust").scale == [pytest.approx(np.std([0, 0, 0, 0, 0, 6]))]
    target = number(1.0, np.e**2, transform="log")
    assert target.centre == [pytest.approx(1)]
    assert target.scale == [pytest.approx(1)]


@pytest.mark.parametrize("settings", [{}, {"transform": "log"}, {"scale": "robust"}])
def test_predictions_are_in_the_units_of_the_data(settings):
    target = number(**settings)
    answers = target.predict(Fixed(truth(target, *VALUES)["value"]), question())
    assert [answer["value"] for answer in answers] == pytest.approx(VALUES)
    assert as_json(answers) == answers


def test_a_wild_logarithm_stays_a_json_number():
    answers = number(transform="log").predict(Fixed(torch.full((1, 1), 1e30)), question())
    assert as_json(answers) == answers


def test_several_fields():
    every = records(width=[1, 2, 3], height=[10.0, 30.0, 20.0])
    target = Number.fit(NumberConfig(fields=["width", "height"]), every, {})
    assert target.names == ["width", "height"]
    assert target.width == 2
    assert Number.fields(target.config) == ["width", "height"]
    columns, errors = target.encode_many(every, {})
    assert not errors
    answers = target.predict(Fixed(columns["value"]), question())
    assert answers[1] == {"values": {"width": pytest.approx(2), "height": pytest.approx(30)}}
    found = target.metrics({"value": columns["value"].numpy(), "answer": columns["value"].numpy() * 0}, np.ones((1, 3)))
    assert found["rmse/width"][0] == pytest.approx(np.std([1, 2, 3]))
    assert found["rmse"][0] == pytest.approx((np.std([1, 2, 3]) + np.std([10, 20, 30])) / 2)
    assert found["r2/height"][0] == pytest.approx(0)


def test_whole_columns_equal_one_by_one():
    target = number()
    mixed = records(1, None, "2.5", "n/a", float("inf"), True, [1])
    columns, errors = target.encode_many(mixed, {})
    assert sorted(errors) == [1, 3, 4, 6]
    assert torch.equal(columns["value"], torch.stack([target.encode(mixed[index], {})["value"] for index in (0, 2, 5)]))
    for index, error in errors.items():
        with pytest.raises(RecordError) as caught:
            target.encode(mixed[index], {})
        assert str(caught.value) == str(error)


def test_bad_numbers_say_what_and_what_to_do():
    _, errors = number().encode_many(records(None, "12 euro", float("inf")), {})
    assert str(errors[0]) == "the value in field 'value' is missing or NaN. Expected a finite number."
    assert str(errors[1]) == "the value '12 euro' in field 'value' is not a finite number. Expected a finite number."
    assert str(errors[2]) == "the value inf in field 'value' is not a finite number. Expected a finite number."
    _, errors = number().encode_many(records(1.0, float("nan")), {})
    assert "is missing or NaN" in str(errors[1])
    _, errors = number(transform="log").encode_many(records(3, 0), {})
    assert str(errors[1]) == (
        "the value 0 in field 'value' has no logarithm. Expected a number above zero. "
        "hint: set target.transform to none"
    )


def test_nothing_to_learn():
    with pytest.raises(UserError) as caught:
        number(7.0, 7.0, None)
    assert str(caught.value) == (
        "all 2 values in field 'value' of the training split are 7. Expected numbers that differ. "
        "hint: look at data.split, or choose another target.field"
    )
    with pytest.raises(UserError, match=r"has no usable number.*it holds 'red'.*target kind \"category\""):
        number("red", "blue")
    with pytest.raises(UserError, match="the field 'price' does not exist"):
        number(field="price")


@pytest.mark.parametrize(
    ("loss", "oracle_loss"),
    [
        ("mse", functional.mse_loss),
        ("mae", functional.l1_loss),
        ("huber", lambda answer, value: functional.huber_loss(answer, value, delta=0.5)),
    ],
)
def test_loss_is_that_of_torch(loss, oracle_loss):
    target = number(loss=loss, delta=0.5)
    batch, network = vector_batch(truth(target, *VALUES)), Fake(1)
    torch.testing.assert_close(
        mean_loss(target, network, batch), oracle_loss(network(batch.inputs), batch.truth["value"])
    )


def test_several_fields_are_averaged():
    value = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    target = Number.fit(NumberConfig(fields=["a", "b"]), records(a=[1, 2], b=[1, 2]), {})
    batch, network = vector_batch({"value": value}), Fake(2)
    torch.testing.assert_close(mean_loss(target, network, batch), functional.mse_loss(network(batch.inputs), value))


def test_mixed_numbers():
    target = number()
    plain = truth(target, 1, 2, 3)
    mixed = target.apply_augment(plain, AugmentParams(mix_weight_B=torch.tensor([0.25, 1.0, 0.5])))
    torch.testing.assert_close(mixed["value"], truth(target, 1.75, 2, 3)["value"])
    assert target.apply_augment(plain, AugmentParams()) is plain


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_losses_are_sums(loss, weights):
    target = number(loss=loss)
    plain = truth(target, *VALUES)
    check_sums(target, Fake(1), vector_batch(plain, weights=weights))
    check_repeats(target, Fake(1), vector_batch(plain))


@pytest.mark.parametrize("offset", [0, 1_600_000_000])
def test_metrics(offset):
    values = [offset + value for value in VALUES]
    target = number(*values)
    batch, network = vector_batch(truth(target, *values)), Fake(1)
    found = target.metrics(measured(target, network, batch), np.ones((2, 8)))
    answers = [answer["value"] for answer in target.predict(network, batch)]
    assert list(found) == ["rmse", "mae", "r2"]
    assert found["rmse"].tolist() == [pytest.approx(oracle.root_mean_squared_error(values, answers), rel=1e-5)] * 2
    assert found["mae"][0] == pytest.approx(oracle.mean_absolute_error(values, answers), rel=1e-5)
    assert found["r2"][0] == pytest.approx(oracle.r2_score(values, answers), rel=1e-5)
