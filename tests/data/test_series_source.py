from __future__ import annotations

import numpy as np
import pytest

from sonde.base import frequency
from sonde.base.errors import UserError
from sonde.data.load import load, source_of
from sonde.data.settings import DataConfig
from sonde.data.sources.labelled_series import LabelledSeries, LabelledSeriesConfig
from sonde.data.sources.series import Series, SeriesConfig


def hours(count, first="2024-01-01T00"):
    return (np.datetime64(first, "h") + np.arange(count)).astype("datetime64[m]")


def wide(path, count=200, columns=("load", "sun")):
    rows = [
        f"{time},{','.join(str(place + 1000 * n) for n in range(len(columns)))}"
        for place, time in enumerate(hours(count))
    ]
    path.write_text("\n".join([",".join(["time", *columns]), *rows]) + "\n")
    return path


def settings(**options):
    return SeriesConfig(**{"lookback": 12, "horizon": 4, "validation": 20, "test": 30, **options})


def test_no_window_straddles_a_split(tmp_path):
    records = Series.read(wide(tmp_path / "a.csv"), settings())
    split = records.fields["split"]
    begins = np.array([future[0, 0] for future in records.fields["future"]])
    ends = np.array([future[-1, 0] for future in records.fields["future"]])
    for name, low, high in (("train", 12, 150), ("validation", 150, 170), ("test", 170, 200)):
        mine = split == name
        assert begins[mine].min() == low
        assert ends[mine].max() == high - 1
        assert mine.sum() == high - low - 4 + 1
    for series, future in zip(records.fields["series"], records.fields["future"], strict=True):
        assert series[-1, 0] + 1 == future[0, 0]
        assert series.shape == (12, 2)


def test_ett_has_the_windows_of_the_standard_split(shared):
    config = SeriesConfig(lookback=336, horizon=96, train=8640, validation=2880, test=2880)
    records = Series.read(shared / "ett", config)
    counts = [int((records.fields["split"] == name).sum()) for name in ("train", "validation", "test")]
    assert counts == [8640 - 336 - 96 + 1, 2785, 2785]
    assert records.ids[-1].startswith("2018-02-1")


def test_another_split_is_refused(tmp_path):
    path = wide(tmp_path / "a.csv")
    with pytest.raises(UserError, match="overlap"):
        load(DataConfig(source=str(path), kind="series"), settings(), files=[], used=["series"], label=None, seed=0)


def test_rows_that_lack_are_put_in_without_values(tmp_path):
    path = wide(tmp_path / "a.csv", 60)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:20], *lines[23:]]) + "\n")
    records = Series.read(path, settings(validation=8, test=8))
    assert "3 time stamps lack" in records.notes[0]
    gaps = np.isnan(np.concatenate([future[:1] for future in records.fields["future"]]))[:, 0]
    assert gaps.sum() == 3


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("time,a\n2024-01-01,1\n2024-01-01,2\n2024-01-02,3\n", "same time"),
        ("time,a\n2024-01-01,1\n2024-01-02,x\n2024-01-03,3\n", "no number"),
        ("b,a\nu,1\nv,2\n", "no column holds time stamps"),
    ],
)
def test_bad_tables_say_what_is_wrong(tmp_path, text, match):
    (tmp_path / "a.csv").write_text(text)
    values = ("a",) if "x" in text else ()
    time = "time" if "x" in text else None
    with pytest.raises(UserError, match=match):
        Series.read(tmp_path / "a.csv", SeriesConfig(values=values, time=time))


def test_a_series_too_short_says_so(tmp_path):
    path = wide(tmp_path / "a.csv", 40)
    with pytest.raises(UserError, match="longest series has 40 steps"):
        Series.read(path, settings(horizon=50))


def test_long_tables_have_items_and_static_columns(tmp_path):
    rows = [
        f"{name},{time},{size},{place + offset}"
        for name, size, offset in (("b", 2, 100), ("a", 1, 0))
        for place, time in enumerate(hours(80))
    ]
    path = tmp_path / "long.csv"
    path.write_text("\n".join(["shop,when,size,sales", *rows]) + "\n")
    assert source_of(None, path)[0] == "series"
    guess = Series.guess(path, None)
    assert guess.data["item"] == "shop"
    assert guess.data["static"] == ["size"]
    assert guess.inputs["static"]["fields"] == ["size"]
    records = Series.read(
        path,
        SeriesConfig.model_validate(
            {name: value for name, value in guess.data.items() if name in SeriesConfig.model_fields}
        ),
    )
    assert set(records.fields["item"]) == {"a", "b"}
    # Each item has a training split of its own.
    for name in ("a", "b"):
        assert {"train", "validation", "test"} == set(records.fields["split"][records.fields["item"] == name])
    first = records.fields["series"][list(records.fields["item"]).index("b")]
    assert first[0, 0] == 100


def test_a_label_of_each_item_is_learned(tmp_path):
    rows = [
        f"{item},{step},{np.sin(step + item):.3f},{'odd' if item % 2 else 'even'}"
        for item in range(6)
        for step in range(40)
    ]
    path = tmp_path / "long.csv"
    path.write_text("\n".join(["item,t,value,label", *rows]) + "\n")
    guess = Series.guess(path, "label")
    assert guess.data["kind"] == "labelled-series"
    assert guess.target == {"kind": "category", "field": "label"}
    options = {name: value for name, value in guess.data.items() if name in LabelledSeriesConfig.model_fields}
    records = LabelledSeries.read(path, LabelledSeriesConfig.model_validate(options))
    assert records.fields["label"].tolist() == ["even", "odd"] * 3
    assert records.fields["series"][0].shape == (40, 1)


def test_tsf(tmp_path):
    head = "@relation x\n@attribute series_name string\n@attribute start_timestamp date\n"
    head += "@frequency monthly\n@horizon 3\n@data\n"
    values = ",".join(str(value) if value != 7 else "?" for value in range(40))
    (tmp_path / "x.tsf").write_text(f"{head}T1:1990-01-01 00-00-00:{values}\nT2:1991-01-01 00-00-00:{values}\n")
    records = Series.read(tmp_path, SeriesConfig())
    assert records.fields["future"][0].shape == (3, 1)
    assert "T2 1993-" in " ".join(records.ids)
    (tmp_path / "x.tsf").write_text(f"{head}T1:{values}\n")
    with pytest.raises(UserError, match="line 7 has 1 attributes"):
        Series.read(tmp_path, SeriesConfig())


def test_m4_rows_are_ragged_and_go_on_in_the_test_file(tmp_path):
    (tmp_path / "Monthly-train.csv").write_text(
        '"V1","V2","V3","V4"\n"M1",'
        + ",".join(map(str, range(50)))
        + '\n"M2",'
        + ",".join(map(str, range(40)))
        + ",,\n"
    )
    (tmp_path / "Monthly-test.csv").write_text('"V1","V2"\n"M1",50,51,52\n"M2",40,41,42\n')
    guess = Series.guess(tmp_path, None)
    assert (guess.data["horizon"], guess.data["test"]) == (3, 3)
    records = Series.read(tmp_path, SeriesConfig(horizon=3, validation=3, test=3))
    tests = records.take(np.flatnonzero(records.fields["split"] == "test"))
    assert [future[0, 0] for future in tests.fields["future"]] == [50.0, 40.0]


def test_series_to_go_on_with_need_no_future(tmp_path):
    path = wide(tmp_path / "a.csv", 30)
    records = Series.inputs(path, settings(), ["series", "time"])
    assert records is not None
    assert records.fields["series"][0][-1, 0] == 29
    assert len(records.fields["time"][0]) == 12


def test_tables_that_are_no_series_stay_tables(tmp_path):
    path = tmp_path / "people.csv"
    rows = [f"2024-01-{1 + place % 28:02},{'ab'[place % 2]},{place}" for place in range(60)]
    path.write_text("\n".join(["seen,group,age", *rows]) + "\n")
    assert source_of(None, path)[0] == "table"


def test_ucr_files(shared, tmp_path):
    records = LabelledSeries.read(shared / "ucr_small" / "ItalyPowerDemand", LabelledSeriesConfig())
    assert len(records) == 67 + 1029
    assert records.fields["split"].tolist().count("train") == 67
    assert records.fields["series"][0].shape == (24, 1)
    (tmp_path / "A_TRAIN.tsv").write_text("1\t" + "\t".join("0.5" for _ in range(9)) + "\tNaN\n")
    records = LabelledSeries.read(tmp_path, LabelledSeriesConfig())
    assert records.fields["series"][0].shape == (9, 1)
    (tmp_path / "A_TRAIN.ts").write_text("@timeStamps false\n@classLabel true a\n@data\n1,2,x:a\n")
    with pytest.raises(UserError, match="line 4"):
        LabelledSeries.read(tmp_path / "A_TRAIN.ts", LabelledSeriesConfig())


@pytest.mark.parametrize(
    ("first", "step", "found", "season"),
    [("2024-01-01T00", "h", "hourly", 24), ("2023-11-30", "D", "daily", 7), ("2020-01", "M", "monthly", 12)],
)
def test_frequencies(first, step, found, season):
    times = (np.datetime64(first, step) + np.arange(40)).astype("datetime64[s]")
    one = frequency.find(times[:30])
    assert one is not None
    assert (str(one), one.season) == (found, season)
    assert (one.after(times[29], 10) == times[30:]).all()
    irregular = times[0] + np.arange(12) ** 3 * np.timedelta64(7, "s")
    assert frequency.find(irregular) is None


def test_month_ends_stay_month_ends():
    ends = (np.datetime64("2020-02", "M") + np.arange(20)).astype("datetime64[D]") - 1
    found = frequency.find(ends)
    assert found is not None
    assert (found.after(ends[10].astype("datetime64[s]"), 9).astype("datetime64[D]") == ends[11:]).all()
