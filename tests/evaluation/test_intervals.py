"""Ends of intervals against scipy and known cases; every interval contains its point."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sonde.data import groups
from sonde.evaluation import intervals


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 24, 99, 5000])
def test_student_t(freedom: int) -> None:
    assert intervals.student_t(0.975, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-2)


@pytest.mark.parametrize("trials", [1, 7, 500])
def test_the_exact_end_of_a_share_without_exception(trials: int) -> None:
    exact = stats.binomtest(trials, trials).proportion_ci(0.95, method="exact")
    assert intervals.without_a_failure(trials) == pytest.approx(exact.low)


def test_a_mean_has_the_interval_of_students_t() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(3, 2, 20)
    drawn = values[rng.integers(20, size=(100_000, 20))].mean(axis=1)
    found = intervals.interval(values.mean(), drawn, np.empty(0), 20)
    np.testing.assert_allclose(found, stats.t.interval(0.95, 19, values.mean(), stats.sem(values)), atol=0.04)


def test_bca_is_scipys() -> None:
    rng = np.random.default_rng(1)
    values = rng.exponential(size=1500)
    left_out = (values.sum() - values) / (len(values) - 1)
    drawn = values[rng.integers(1500, size=(20_000, 1500))].mean(axis=1)
    theirs = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=20_000, rng=rng).confidence_interval
    found = intervals.interval(values.mean(), drawn, left_out, 1500)
    np.testing.assert_allclose(found, (theirs.low, theirs.high), atol=0.004)


def test_draws_that_are_all_on_one_side_are_moved() -> None:
    drawn = np.random.default_rng(0).normal(0.6, 0.02, 2000)
    low, high = intervals.interval(0.5, drawn, np.empty(0), 1000)
    assert low == pytest.approx(0.4 - 0.04, abs=0.005)
    assert high == 0.5
    # No end below zero where no draw is.
    assert intervals.interval(0.05, drawn, np.empty(0), 1000)[0] == 0.0


def test_no_interval() -> None:
    assert intervals.interval(1.0, np.array([np.nan, np.nan]), np.empty(0), 5) is None
    assert intervals.interval(1.0, np.array([1.0, 2.0]), np.empty(0), 1) is None


numbers = st.floats(-1e6, 1e6)


@settings(max_examples=300, deadline=None)
@given(
    numbers,
    st.lists(numbers | st.just(float("nan")), min_size=1, max_size=30),
    st.lists(numbers | st.just(float("nan")), max_size=10),
    st.integers(2, 50),
)
def test_an_interval_contains_its_point(value: float, drawn: list[float], left_out: list[float], units: int) -> None:
    found = intervals.interval(value, np.array(drawn), np.array(left_out), units)
    if found is not None:
        assert found[0] <= value <= found[1]
        assert np.isfinite(found).all()


def test_examples_in_the_docs_run() -> None:
    # The package gives the function of this name.
    scores = importlib.import_module("sonde.evaluation.scores")
    for module in (intervals, scores, groups):
        assert doctest.testmod(module).failed == 0
