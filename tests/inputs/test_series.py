from __future__ import annotations

import numpy as np
import pytest
import torch

from sonde.base.errors import UserError
from sonde.base.stretches import locate
from sonde.contracts.columns import Ragged
from sonde.contracts.records import Records, as_field
from sonde.inputs.series import Series, SeriesConfig


def objects(values):
    field = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        field[place] = value
    return field


def windows(whole, length, horizon, starts):
    return Records(
        fields={
            "series": objects([whole[start : start + length] for start in starts]),
            "future": objects([whole[start + length : start + length + horizon] for start in starts]),
        },
        ids=[f"window {start}" for start in starts],
    )


def prepared(part, records):
    columns, errors = part.encode_many(records)
    assert not errors
    return part.preprocess(part.collate(columns))


def test_scaling_counts_every_step_of_training_once():
    whole = np.random.default_rng(0).normal(3, 2, (50, 2)).cumsum(0)
    part = Series.fit(SeriesConfig(), windows(whole, 10, 4, range(20)))
    np.testing.assert_allclose(part.centre, whole[:33].mean(0))
    np.testing.assert_allclose(part.scale, whole[:33].std(0))


def test_windows_are_views_until_they_are_collated():
    whole = np.random.default_rng(0).normal(size=(1000, 3))
    part = Series.fit(SeriesConfig(), windows(whole, 100, 4, range(800)))
    columns, _ = part.encode_many(windows(whole, 100, 4, range(800)))
    frames = columns["frames"]
    assert isinstance(frames, Ragged)
    assert len(frames.values) == 899
    expected = (whole[5:105] - part.centre) / part.scale
    np.testing.assert_allclose(frames[5].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_what_is_missing_is_the_value_before_and_never_one_after_the_window():
    whole = np.arange(20.0)[:, None].repeat(2, 1)
    whole[[0, 1, 5, 6], 0] = np.nan
    whole[:12, 1] = np.nan
    part = Series.fit(SeriesConfig(), windows(whole, 8, 4, range(6)))
    frames = prepared(part, windows(whole, 8, 4, [0]))["frames"][0].numpy() * part.scale + part.centre
    np.testing.assert_allclose(frames[:, 0], [2, 2, 2, 3, 4, 4, 4, 7], rtol=1e-6)
    # A channel that has no value yet is at the mean of training, whatever comes later.
    np.testing.assert_allclose(frames[:, 1], part.centre[1])


@pytest.mark.parametrize("normalize", ["instance", "last", "none"])
def test_normalizing_can_be_undone(normalize):
    whole = np.random.default_rng(1).normal(size=(60, 2)).cumsum(0)
    part = Series.fit(SeriesConfig(normalize=normalize), windows(whole, 16, 4, range(30)))
    found = prepared(part, windows(whole, 16, 4, [3]))
    values = found["frames"] * found["window_scale"][:, None] + found["window_centre"][:, None]
    np.testing.assert_allclose(values[0].numpy() * part.scale + part.centre, whole[3:19], rtol=1e-4, atol=1e-4)
    if normalize == "instance":
        torch.testing.assert_close(found["frames"].mean(1), torch.zeros(1, 2), atol=1e-5, rtol=0)
    if normalize == "last":
        assert not found["frames"][:, -1].any()


def test_calendar_knows_cycles_that_training_shows_twice():
    times = np.datetime64("2024-01-01T00:00:00") + np.arange(24 * 30) * np.timedelta64(3600, "s")
    whole = np.random.default_rng(0).normal(size=(len(times), 1))
    records = windows(whole, 24, 6, range(600)).with_fields(time=objects([times[n : n + 30] for n in range(600)]))
    part = Series.fit(SeriesConfig(time="time"), records)
    assert part.cycles == ["day", "week"]
    assert part.ahead == 6
    alone = part.encode({"series": whole[7:31].tolist(), "time": np.datetime_as_string(times[7:31]).tolist()})
    columns, _ = part.encode_many(records)
    # Time stamps that are not given follow from the last one.
    torch.testing.assert_close(alone["ahead"], columns["ahead"][7])
    same_hour = columns["ahead"][0][:, [0, 2]], columns["ahead"][24][:, [0, 2]]
    torch.testing.assert_close(*same_hour)


def test_bad_series_say_what_is_wrong():
    part = Series.fit(SeriesConfig(), windows(np.random.default_rng(0).normal(size=(40, 2)), 8, 4, range(20)))
    bad = [None, [[1.0], [2.0]], [["a", "b"]], [[np.nan, np.nan]], [[np.inf, 1.0]], []]
    _, errors = part.encode_many(Records(fields={"series": objects(bad)}, ids=[str(n) for n in range(6)]))
    for number, word in enumerate(("no series", "1 channels", "no array of numbers", "no value", "infinite", "shape")):
        assert word in str(errors[number])
    with pytest.raises(UserError, match="does not exist"):
        Series.fit(SeriesConfig(field="serie"), windows(np.zeros((20, 1)), 4, 2, range(3)))
    with pytest.raises(UserError, match="none of the 1 training records"):
        Series.fit(SeriesConfig(), Records(fields={"series": as_field(["a"])}, ids=["1"]))


def test_stretches_find_windows_of_several_arrays():
    one, other = np.arange(20.0).reshape(10, 2), np.arange(100.0, 108.0).reshape(4, 2)
    found = locate([one[2:5], other[1:3], one[4:9], np.ones((2, 2))])
    whole = np.concatenate(found.parts)
    for window, start, length in zip(
        (one[2:5], other[1:3], one[4:9], np.ones((2, 2))), found.starts, found.lengths, strict=True
    ):
        np.testing.assert_array_equal(whole[start : start + length], window)
    assert len(whole) == 7 + 2 + 2
