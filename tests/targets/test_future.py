from __future__ import annotations

import numpy as np
import pytest
import torch

from sonde.base.errors import UserError
from sonde.base.rng import BatchRng
from sonde.contracts.columns import to_numpy
from sonde.contracts.records import Records
from sonde.contracts.task import Task
from sonde.data.batches import in_order
from sonde.data.store import encode
from sonde.inputs.series import Series, SeriesConfig
from sonde.networks import build
from sonde.networks.linear import LinearConfig
from sonde.networks.recurrent import RecurrentConfig
from sonde.networks.tide import TideConfig
from sonde.networks.transformer import TransformerConfig
from sonde.targets.future import Future, FutureConfig

LOOKBACK, HORIZON, SEASON = 24, 5, 6
LEVELS = (0.1, 0.5, 0.9)


def objects(values):
    field = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        field[place] = value
    return field


def whole_series(channels=2, missing=True):
    rng = np.random.default_rng(0)
    step = np.arange(160)[:, None]
    values = 10 + np.sin(2 * np.pi * step / SEASON) * 3 + rng.normal(size=(160, channels)).cumsum(0) * 0.3
    if missing:
        values[[50, 51, 90], 0] = np.nan
    return values


def windows(whole, starts, item="a"):
    return Records(
        fields={
            "series": objects([whole[start : start + LOOKBACK] for start in starts]),
            "future": objects([whole[start + LOOKBACK : start + LOOKBACK + HORIZON] for start in starts]),
            "item": objects([item] * len(starts)),
        },
        ids=[f"{item} {start}" for start in starts],
    )


def task_of(records, normalize="instance", **settings):
    inputs = {"series": Series.fit(SeriesConfig(normalize=normalize), records)}
    config = FutureConfig(season=SEASON, quantiles=LEVELS, **settings)
    return Task(inputs=inputs, target=Future.fit(config, records, inputs))


class Answers(torch.nn.Module):
    """A network that answers what it was told to."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, inputs, *extra):
        return self.answer


@pytest.fixture(scope="module")
def scored():
    """A task, its records, answers and their scores; and the truth and the answers in units, (N, C, H[, Q])."""
    whole = whole_series()
    train, held_out = windows(whole, range(80)), windows(whole, range(80, 110))
    task = task_of(train, normalize="none")
    examples = encode(task, held_out).examples
    batch = task.preprocess(in_order(task, examples, 64, 0))
    answer = torch.randn(30, 2, HORIZON, 3, generator=torch.Generator().manual_seed(1)).sort(-1).values
    columns = {n: to_numpy(c) for n, c in task.target.eval_outputs(Answers(answer), batch).items()}
    scale, centre = np.array(task.target.scale), np.array(task.target.centre)
    true = np.stack([value.T for value in held_out.fields["future"]])
    units = answer.double().numpy() * scale[:, None, None] + centre[:, None, None]
    found = {name: float(v[0]) for name, v in task.target.metrics(columns, np.ones((1, 30))).items()}
    return whole, task, examples, held_out, true, units, found, columns


def test_scores_equal_their_formulas(scored):
    whole, task, _, held_out, true, units, found, _ = scored
    scale = np.array(task.target.scale)[:, None]
    point = units[..., 1]
    there = np.isfinite(true)
    error = true - point
    assert found["mse"] == pytest.approx(np.nanmean((error / scale) ** 2), rel=1e-5)
    assert found["mae"] == pytest.approx(np.nanmean(np.abs(error / scale)), rel=1e-5)
    assert found["smape"] == pytest.approx(np.nanmean(200 * np.abs(error) / (np.abs(true) + np.abs(point))), rel=1e-5)
    # In-sample errors of the seasonal naive forecast, over the training part alone.
    past = whole[: 80 + LOOKBACK + HORIZON - 1]
    gaps = past[SEASON:] - past[:-SEASON]
    absolute, squared = np.nanmean(np.abs(gaps), 0), np.nanmean(gaps**2, 0)
    assert found["mase"] == pytest.approx(np.nanmean(np.nanmean(np.abs(error), 2) / absolute), rel=1e-5)
    assert found["rmsse"] == pytest.approx(np.nanmean(np.sqrt(np.nanmean(error**2, 2) / squared)), rel=1e-5)
    losses = []
    for place, level in enumerate(LEVELS):
        gap = true - units[..., place]
        losses.append(2 * np.where(gap >= 0, level * gap, (level - 1) * gap))
    assert found["wql"] == pytest.approx(
        np.mean([np.nansum(each) for each in losses]) / np.nansum(np.abs(true)), rel=1e-5
    )
    assert found["crps"] == pytest.approx(np.mean([np.nanmean(each / scale) for each in losses]), rel=1e-5)
    inside = (true >= units[..., 0]) & (true <= units[..., 2])
    assert found["coverage_80"] == pytest.approx(inside[there].mean())
    seasonal, last = (np.stack([_naive(one, m) for one in held_out.fields["series"]]) for m in (SEASON, 1))
    total = np.nansum(np.abs(error / scale))
    assert found["skill"] == pytest.approx(1 - total / np.nansum(np.abs(true - seasonal) / scale), abs=1e-5)
    assert found["skill_over_naive"] == pytest.approx(1 - total / np.nansum(np.abs(true - last) / scale), abs=1e-5)
    assert found["mae/channel 2"] == pytest.approx(np.abs(error[:, 1]).mean(), rel=1e-5)


def _naive(series, season):
    """By hand: the value a season before, and where that lacks the one before it."""
    rows = series[-season:].copy()
    for step in range(1, len(rows)):
        rows[step] = np.where(np.isnan(rows[step]), rows[step - 1], rows[step])
    return np.stack([rows[step % season] for step in range(HORIZON)], axis=1)


def test_the_baseline_is_the_seasonal_naive_forecast(scored):
    _, task, examples, held_out, true, _, _, _ = scored
    columns = task.target.baseline(examples.truth)
    assert columns is not None
    found = task.target.metrics({n: to_numpy(c) for n, c in columns.items()}, np.ones((1, 30)))
    naive = np.stack([_naive(one, SEASON) for one in held_out.fields["series"]])
    scale = np.array(task.target.scale)[:, None]
    assert found["mae"][0] == pytest.approx(np.nanmean(np.abs(true - naive) / scale), rel=1e-5)
    assert found["skill"][0] == pytest.approx(0, abs=2e-6)


def test_weights_count_records(scored):
    _, task, _, _, _, _, _, columns = scored
    weights = np.zeros((2, 30))
    weights[0, :7], weights[1, :7] = 1, 3
    found = task.target.metrics(columns, weights)
    some = task.target.metrics({name: column[:7] for name, column in columns.items()}, np.ones((1, 7)))
    for name, values in found.items():
        np.testing.assert_allclose(values, some[name][0], rtol=1e-9)


NETWORKS = {
    "linear": LinearConfig(trend=5),
    "tide": TideConfig(width=8, layers=1),
    "patches": TransformerConfig(width=16, heads=2, layers=1, patch=8),
    "channels": TransformerConfig(width=16, heads=2, layers=1, attend="channels"),
    "recurrent": RecurrentConfig(width=8, embedding=8),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_changing_the_future_changes_no_forecast(name):
    whole = whole_series()
    task = task_of(windows(whole, range(60)))
    network = build({"series": NETWORKS[name]}, task).eval()
    later = whole.copy()
    later[100 + LOOKBACK :] = 1e4
    found = []
    for one in (whole, later):
        batch = task.preprocess(in_order(task, encode(task, windows(one, [100])).examples, 4, 0))
        with torch.inference_mode():
            found.append(task.target.predict(network, batch))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["linear", "tide", "patches", "recurrent"])
def test_channels_that_are_forecast_alone_do_not_see_each_other(name):
    whole = whole_series(missing=False)
    task = task_of(windows(whole, range(60)))
    network = build({"series": NETWORKS[name]}, task).eval()
    other = whole.copy()
    other[:, 1] = other[::-1, 1]
    first, second = (
        task.target.predict(network, task.preprocess(in_order(task, encode(task, windows(one, [70])).examples, 4, 0)))
        for one in (whole, other)
    )
    assert first[0]["forecast"]["channel 1"] == pytest.approx(second[0]["forecast"]["channel 1"])
    assert first[0]["forecast"]["channel 2"] != pytest.approx(second[0]["forecast"]["channel 2"])


def test_a_larger_and_shifted_series_has_a_larger_and_shifted_forecast():
    """Reversible instance norm: what a window's mean and size are is undone."""
    whole = whole_series(missing=False)
    task = task_of(windows(whole, range(60)))
    network = build({"series": NETWORKS["patches"]}, task).eval()
    one, other = (
        task.target.predict(network, task.preprocess(in_order(task, encode(task, windows(each, [70])).examples, 4, 0)))
        for each in (whole, 1000 + 7 * whole)
    )
    wanted = 1000 + 7 * np.array(one[0]["forecast"]["channel 1"])
    np.testing.assert_allclose(other[0]["forecast"]["channel 1"], wanted, rtol=1e-3)


@pytest.mark.parametrize("loss", ["quantile", "mse", "mae", "huber"])
def test_what_is_missing_costs_nothing_and_parts_add_up(loss):
    records = windows(whole_series(), range(20, 40))
    task = task_of(records, loss=loss)
    network = build({"series": NETWORKS["linear"]}, task)
    examples = encode(task, records).examples
    total, count = {}, {}
    for rows in (range(20), range(7), range(7, 20)):
        chosen = torch.tensor(list(rows))
        batch = task.preprocess(task.collate(examples.take(chosen), chosen))
        rng = BatchRng(seed=0, epoch=0, records_B=chosen)
        total[rows], count[rows] = task.target.loss(network, batch, rng)[loss], task.target.counts(batch)[loss]
    whole, first, second = total
    torch.testing.assert_close(total[whole], total[first] + total[second])
    assert count[whole] == count[first] + count[second]
    there = np.isfinite(np.stack(list(records.fields["future"]))).sum()
    assert count[whole] == there * (3 if loss == "quantile" else 1)
    assert there < 20 * HORIZON * 2


def test_bad_truths_and_settings_say_what_is_wrong():
    records = windows(whole_series(), range(20))
    with pytest.raises(ValueError, match="not among the quantiles"):
        FutureConfig(quantiles=(0.1, 0.9))
    with pytest.raises(ValueError, match="rise"):
        FutureConfig(quantiles=(0.9, 0.5))
    with pytest.raises(UserError, match="names 3 channels"):
        task_of(records, channels=("a", "b", "c"))
    task = task_of(records)
    short = records.with_fields(future=objects([value[:3] for value in records.fields["future"]]))
    with pytest.raises(UserError, match=r"shape .3, 2."):
        encode(task, short)
