from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars
import pytest
import torch
from pydantic import ValidationError

from sonde.base.errors import RecordError, UserError
from sonde.contracts.records import Records, as_field
from sonde.contracts.specs import OutputSpec
from sonde.inputs.table import Table, TableConfig
from sonde.networks.mlp import MlpConfig
from sonde.training.settings import TrainingConfig


def records(**fields):
    columns = {name: values if isinstance(values, np.ndarray) else as_field(values) for name, values in fields.items()}
    count = len(next(iter(columns.values())))
    return Records(fields=columns, ids=[f"row {number}" for number in range(count)])


def read(path):
    frame = polars.read_csv(path)
    return records(
        **{
            name: as_field(frame[name].to_list()) if frame[name].dtype == polars.String else frame[name].to_numpy()
            for name in frame.columns
        }
    )


def table(fields=None, **settings):
    return lambda **columns: Table.fit(TableConfig(fields=fields or tuple(columns), **settings), records(**columns))


def restored(part):
    values, tensors = part.save()
    config = TableConfig.model_validate(json.loads(part.config.model_dump_json()))
    return Table.restore(config, json.loads(json.dumps(values)), tensors)


@pytest.fixture(scope="module")
def passengers(shared):
    return read(shared / "titanic" / "titanic.csv")


@pytest.fixture(scope="module")
def houses(shared):
    return read(shared / "california_housing" / "housing.csv").take(np.arange(0, 20_640, 20))


SHIP = ("Pclass", "Sex", "Age", "SibSp", "Parch", "Fare", "Embarked")


def test_passengers_alone_together_and_restored_are_the_same(passengers):
    part = Table.fit(TableConfig(fields=SHIP, categories=("Pclass",)), passengers)
    columns, errors = part.encode_many(passengers)
    again, _ = restored(part).encode_many(passengers)
    assert not errors
    assert restored(part) == part
    assert part.spec.channels == 5
    assert part.spec.categories == (4, 3, 5)
    for name, column in columns.items():
        assert torch.equal(column, again[name])
        for index in range(0, len(passengers), 9):
            assert torch.equal(part.encode(passengers[index])[name], column[index])
    age, absent = columns["numbers"][:, 0], columns["numbers"][:, 1]
    missing = torch.from_numpy(np.isnan(passengers.fields["Age"].astype(float)))
    assert torch.equal(absent.bool(), missing)
    assert (age[missing] == 0).all()
    assert columns["categories"][0].tolist() == [3, 2, 4]
    assert columns["categories"][61].tolist()[2] == 1


def test_numbers_become_normal_or_standard(houses):
    fields = ("longitude", "population", "total_bedrooms")
    normal = Table.fit(TableConfig(fields=fields), houses).encode_many(houses)[0]["numbers"]
    assert normal[:, :2].mean(0).abs().max() < 0.05
    assert (normal[:, :2].std(0) - 1).abs().max() < 0.05
    assert normal.abs().max() < 3.5
    standard = Table.fit(TableConfig(fields=fields, scale="standard"), houses).encode_many(houses)[0]["numbers"]
    population = houses.fields["population"]
    expected = (population - population.mean()) / population.std()
    np.testing.assert_allclose(standard[:, 1].numpy(), expected, rtol=1e-4, atol=1e-4)
    assert standard.shape == (len(houses), 4)


def test_robust_is_scikit_learns_scaling_bent_smoothly(houses):
    from sklearn.preprocessing import RobustScaler

    fields = ("population", "median_income")
    robust = Table.fit(TableConfig(fields=fields, scale="robust"), houses)
    ours = robust.encode_many(houses)[0]["numbers"].numpy()
    plain = np.stack([houses.fields[name].astype(float) for name in fields], axis=1)
    # As deviations of a normal distribution, whose quartiles are 1.349 apart.
    scaled = RobustScaler().fit_transform(plain) * 1.349
    np.testing.assert_allclose(ours, scaled / np.sqrt(1 + (scaled / 3) ** 2), rtol=1e-4, atol=1e-4)
    assert np.abs(ours).max() < 3
    assert restored(robust) == robust


def test_robust_scaling_of_what_is_mostly_or_always_one_number():
    mostly = table(scale="robust")(count=[0] * 99 + [50])
    assert mostly.encode({"count": 0})["numbers"].tolist() == [0]
    assert 1 < mostly.encode({"count": 50})["numbers"].item() < 3
    always = table(scale="robust")(count=[0.1] * 10)
    assert always.encode({"count": 0.1})["numbers"].abs() < 1e-6
    assert always.encode({"count": 1e300})["numbers"].item() == pytest.approx(3)


def test_the_quantile_transform_is_that_of_scikit_learn(houses):
    from sklearn.preprocessing import QuantileTransformer

    income = houses.fields["median_income"]
    part = Table.fit(TableConfig(fields=("median_income",)), houses)
    ours = part.encode_many(houses)[0]["numbers"][:, 0].numpy()
    transformer = QuantileTransformer(n_quantiles=1000, output_distribution="normal")
    theirs = transformer.fit_transform(income[:, None])[:, 0]
    inside = np.abs(theirs) < 2.5
    np.testing.assert_allclose(ours[inside], theirs[inside], atol=0.05)


def test_equal_numbers_are_one_place():
    part = table()(count=[0] * 70 + [1] * 20 + [5] * 10)
    numbers, _ = part.encode_many(records(count=[0, 1, 5, -3, 99]))
    low, one, five, below, above = numbers["numbers"][:, 0].tolist()
    assert low < one < five
    assert (below, above) == (low, five)
    assert table()(count=[7, 7]).encode({"count": 8})["numbers"].tolist() == [0]
    flat = table(scale="standard")(count=[0.1] * 10)
    assert flat.encode({"count": 0.1})["numbers"].abs() < 1e-6
    assert table(scale="standard")(count=[0, 1]).encode({"count": 1e300})["numbers"].tolist() == [100]


def test_what_stands_for_no_number_in_a_text_is_missing():
    part = table()(size=np.array([1.0, np.nan, 3.0]))
    told, none = (part.encode({"size": value}) for value in ("NA", None))
    assert all(torch.equal(told[name], none[name]) for name in none)


def test_numbers_may_come_as_texts_and_wrong_ones_are_named():
    part = table()(age=[1.0, 2.0, 3.0], rooms=[1, 2, 3])
    asked = records(age=["2", "two", "inf", 2, True], rooms=[2, 2, 2, "3 or 4", 1])
    columns, errors = part.encode_many(asked)
    assert sorted(errors) == [1, 2, 3]
    assert str(errors[1]) == "field 'age' is 'two'. Expected a number."
    assert str(errors[2]) == "field 'age' is infinite. Expected a finite number, or none."
    assert str(errors[3]) == "field 'rooms' is '3 or 4'. Expected a number."
    assert len(columns["numbers"]) == len(columns["categories"]) == 2
    assert columns["numbers"][0].tolist() == part.encode({"age": 2, "rooms": "2"})["numbers"].tolist()
    assert part.encode_many(records(age=["x"], rooms=[1]))[0] == {}


def test_categories_have_ids_and_unknown_ones_zero():
    part = table()(colour=["red", "blue", "red", "blue", "once"], new=[True, False, True, False, None])
    assert part.spec.categories == (3, 3)
    assert part.spec.channels == 0
    columns, _ = part.encode_many(records(colour=["blue", "red", "once", "never"], new=[False, "true", True, "maybe"]))
    assert columns["categories"].tolist() == [[1, 1], [2, 2], [0, 2], [0, 0]]
    assert columns["numbers"].shape == (4, 0)


def test_a_missing_category_is_one_of_its_own_where_training_had_it():
    part = table()(colour=["red", None, "red", None], size=["s", "s", "s", "s"])
    assert part.encode({"colour": None, "size": "s"})["categories"].tolist() == [1, 1]
    assert part.encode({"size": "s"})["categories"].tolist() == [1, 1]


def test_listed_numbers_are_categories_whatever_form_they_come_in():
    whole = table(categories=("zone",))(zone=np.array([1, 2, 3, 1, 2, 3]))
    holes = table(categories=("zone",))(zone=np.array([1.0, 2.0, np.nan, 1.0, 2.0, np.nan]))
    for value in (2, 2.0, "2", np.int64(2), np.float64(2)):
        assert whole.encode({"zone": value})["categories"].tolist() == [2]
        assert holes.encode({"zone": value})["categories"].tolist() == [3]
    assert holes.encode({"zone": float("nan")})["categories"].tolist() == [1]
    assert whole.encode({"zone": 2.5})["categories"].tolist() == [0]
    names = table(categories=("name",), min_count=1)(name=[f"name {number}" for number in range(50)])
    assert names.spec.categories == (51,)


def test_dates_are_years_and_places_on_circles():
    days = np.arange("2020-01-01", "2022-01-01", dtype="datetime64[D]")
    part = table()(day=days)
    assert part.spec.channels == 5
    numbers = part.encode_many(records(day=days))[0]["numbers"].numpy()
    assert abs(numbers[:, 0].mean()) < 1e-3
    assert abs(numbers[:, 0].std() - 1) < 1e-3
    # 2021-01-01 was a Friday, the fourth day after Monday; half a year is half a turn.
    friday = numbers[366]
    np.testing.assert_allclose(friday[1:3], [0, np.sin(2 * np.pi * 4 / 7)], atol=1e-5)
    np.testing.assert_allclose(friday[3:5], [1, np.cos(2 * np.pi * 4 / 7)], atol=1e-5)
    assert numbers[366 + 182][3] < -0.99


def test_a_moment_may_come_in_many_forms():
    hours = np.datetime64("2024-01-01T00:00") + np.arange(200) * np.timedelta64(5, "h")
    part = table()(moment=hours.astype("datetime64[us]"))
    assert part.spec.channels == 7
    expected = part.encode({"moment": np.datetime64("2024-01-03T12:30:00")})["numbers"]
    for value in (
        "2024-01-03T12:30:00",
        "2024-01-03 12:30",
        "2024-01-03T12:30:00Z",
        "2024-01-03T14:30:00+02:00",
        datetime(2024, 1, 3, 12, 30),
        datetime(2024, 1, 3, 12, 30, tzinfo=UTC),
        np.datetime64("2024-01-03T12:30", "ms"),
    ):
        assert torch.equal(part.encode({"moment": value})["numbers"], expected), value
    texts = table()(moment=["2024-01-03", "2024-02-04", "2024-03-05"])
    assert texts.columns[0]["kind"] == "date"
    assert torch.equal(
        texts.encode({"moment": date(2024, 2, 4)})["numbers"], texts.encode({"moment": "2024-02-04"})["numbers"]
    )
    with pytest.raises(RecordError, match=r"field 'moment' is 'soon'. Expected a date such as 2024-05-31"):
        part.encode({"moment": "soon"})
    with pytest.raises(RecordError, match=r"field 'moment' is 17\. Expected a date"):
        part.encode({"moment": 17})


def test_a_missing_date_is_said():
    part = table()(day=np.array(["2024-01-01", "NaT", "2024-01-05"], dtype="datetime64[D]"))
    assert part.spec.channels == 6
    assert part.encode({"day": None})["numbers"].tolist() == [0, 0, 0, 0, 0, 1]


def test_what_training_never_missed_must_be_there():
    columns = {"age": [1.0, 2.0], "colour": ["red", "red"], "day": np.array(["2024-01-01"] * 2, dtype="datetime64[D]")}
    part = table()(**columns)
    full = {"age": 1.0, "colour": "red", "day": "2024-01-01"}
    for field in full:
        for record in ({**full, field: None}, {name: value for name, value in full.items() if name != field}):
            with pytest.raises(RecordError) as error:
                part.encode(record)
            assert str(error.value) == (
                f"field {field!r} is missing. Expected a value, because every record of the training split has one. "
                "hint: allow_missing = true in the settings of the table takes the mean instead"
            )
    lenient = table(allow_missing=True)(**columns)
    tensors = lenient.encode({})
    assert tensors["numbers"].tolist() == [0] * 6
    assert tensors["categories"].tolist() == [0]


def test_the_columns_are_listed_and_keep_their_order():
    part = table(fields=("colour", "age"))(age=[1, 2], colour=["red", "red"])
    assert [column["field"] for column in part.columns] == ["colour", "age"]
    assert Table.fields(TableConfig(fields=("b", "a"))) == ["b", "a"]
    with pytest.raises(ValidationError, match="Field required"):
        TableConfig()


def test_what_does_not_belong_in_a_table(passengers):
    with pytest.raises(UserError) as error:
        Table.fit(TableConfig(fields=("Name",)), passengers)
    assert str(error.value) == (
        "field 'Name' has 891 different values in 891 records: it is a name or text, not a category. "
        "hint: leave it out of the table's fields, give it a text input, or add 'Name' to categories"
    )
    with pytest.raises(UserError, match=r"no field 'Agee'. Expected one of: PassengerId.*hint: did you mean 'Age'\?"):
        Table.fit(TableConfig(fields=("Agee",)), passengers)
    with pytest.raises(
        UserError, match=r"field 'photo' holds files. Expected numbers.*hint: give it an input of its own"
    ):
        table()(photo=[Path("a.png"), Path("b.png")])
    with pytest.raises(UserError, match="field 'pixels' holds arrays"):
        table()(pixels=np.zeros((3, 2, 2)))
    with pytest.raises(UserError, match="field 'tags' holds values of type list"):
        table()(tags=[["a"], ["b"]])
    with pytest.raises(UserError, match=r"field 'age' has no value in the training split. hint: leave 'age' out"):
        table()(age=[None, None])
    with pytest.raises(UserError, match="field 'age' has no number in the training split"):
        table()(age=np.array([np.nan, np.nan]))
    with pytest.raises(UserError, match="field 'day' has no date in the training split"):
        table()(day=np.array(["NaT"], dtype="datetime64[D]"))


def test_settings_are_checked():
    with pytest.raises(ValidationError, match="categories names 'b', which is not one of fields"):
        TableConfig(fields=("a",), categories=("b",))
    with pytest.raises(ValidationError, match="at least 1"):
        TableConfig(fields=())


@pytest.mark.parametrize("count", [1, 200, 2000])
def test_advice_is_made_of_settings(houses, count):
    some = houses.take(np.arange(count) % len(houses))
    advice = Table.recommend(TableConfig(fields=("population",)), OutputSpec(per=("example",)), some)
    MlpConfig.model_validate(dict(advice.network))
    TrainingConfig.model_validate(dict(advice.training))
    TableConfig.model_validate({"fields": ("population",), **advice.input})
    assert "allow_missing" not in advice.input


def test_where_values_are_missing_the_advice_is_to_bear_that():
    rows = records(size=np.arange(100.0), age=np.where(np.arange(100) == 7, np.nan, 1.0))
    asked = OutputSpec(per=("example",))
    advice = Table.recommend(TableConfig(fields=("size", "age")), asked, rows)
    assert advice.input["allow_missing"] is True
    # A training split that by chance does not miss any.
    part = Table.fit(TableConfig(fields=("size", "age"), **advice.input), rows.take(np.arange(50, 100)))
    assert not part.encode_many(rows)[1]
