"""Temperature scaling beside scipy's minimum, kept only where it pays, and never changing an order of answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import optimize, special

from sonde import metrics
from sonde.data.groups import Groups
from sonde.evaluation.calibration import calibrate
from sonde.targets import _temperature
from sonde.targets.category import Category, CategoryConfig
from sonde.targets.labels import Labels, LabelsConfig


def category(classes: int = 4) -> Category:
    names = [f"c{code}" for code in range(classes)]
    return Category(config=CategoryConfig(), classes=names, class_counts=[1] * classes, weights=None)


def drawn(count: int, sharpness: float | np.ndarray, classes: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """Classes drawn from known probabilities, and answers whose logits are `sharpness` times too large."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (count, classes))
    true = special.softmax(logits, axis=1)
    chosen = (true.cumsum(1) > rng.random((count, 1))).argmax(1)
    return {"probabilities": special.softmax(sharpness * logits, axis=1).astype(np.float32), "class": chosen}


def test_the_temperature_is_scipys_minimum() -> None:
    columns = drawn(400, 2.5)
    logits, true = np.log(columns["probabilities"].astype(np.float64)), columns["class"]
    share = 1 / 402
    wanted = (1 - share) * np.eye(4)[true] + share / 4

    def loss(scale: np.ndarray) -> float:
        return float(-(wanted * special.log_softmax(np.exp(scale[0]) * logits, axis=1)).sum())

    best = optimize.minimize(loss, [0.0], method="L-BFGS-B", tol=1e-12).x[0]
    (found,) = _temperature.fit_softmax(columns["probabilities"], true, "temperature")
    assert found == pytest.approx(np.exp(-best), rel=1e-4)
    assert found == pytest.approx(2.5, rel=0.25)


def test_the_temperature_of_labels_is_scipys_minimum() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (300, 3))
    there = (rng.random((300, 3)) < special.expit(logits)).astype(np.float64)
    smooth = np.where(there > 0.5, 1 - 1 / 302, 1 / 302)

    def loss(scale: np.ndarray) -> float:
        z = np.exp(scale[0]) * 3 * logits
        return float((np.logaddexp(0, z) - smooth * z).sum())

    best = optimize.minimize(loss, [0.0], method="L-BFGS-B", tol=1e-12).x[0]
    (found,) = _temperature.fit_sigmoid(special.expit(3 * logits).astype(np.float32), there, "temperature")
    assert found == pytest.approx(np.exp(-best), rel=1e-3)


def test_it_is_kept_where_it_pays_and_only_there() -> None:
    sure = calibrate(category(), drawn(600, 3.0), seed=0)
    assert sure.method == "temperature"
    assert sure.after < sure.before
    kept = [calibrate(category(), drawn(600, 1.0, seed=seed), seed=0).method for seed in range(12)]
    assert kept.count("") >= 10
    assert calibrate(category(), drawn(30, 3.0), seed=0).method == ""
    assert calibrate(category(), drawn(600, 1.0), seed=0, always=True).method


def test_one_temperature_a_class_where_that_pays() -> None:
    logits = np.random.default_rng(0).normal(0, 1.5, (4000, 4))
    columns = drawn(4000, np.where(logits.argmax(1) < 2, 4.0, 0.7)[:, None])
    found = calibrate(category(), columns, seed=0)
    assert found.method == "vector"
    assert isinstance(found.target, Category)
    assert found.target.temperatures[0] > 2 * found.target.temperatures[3]
    order = columns["probabilities"].argsort(1)
    assert (found.target.calibrated(columns)["probabilities"].argsort(1) == order).all()


def test_records_are_calibrated_without_themselves_and_with_their_group() -> None:
    columns = drawn(500, 3.0)
    found = calibrate(category(), columns, seed=0)
    whole = found.target.calibrated(columns)["probabilities"]
    assert np.abs(whole - found.columns["probabilities"]).max() > 1e-5
    # The same record 50 times over says no more than once: ten records are too few to tell.
    few = {name: np.repeat(column, 50, axis=0) for name, column in drawn(10, 1.3, seed=3).items()}
    groups = Groups(name="owner", codes=np.repeat(np.arange(10), 50))
    assert calibrate(category(), few, seed=0).method
    assert calibrate(category(), few, seed=0, groups=groups).method == ""


@pytest.mark.parametrize("method", ["temperature", "vector"])
def test_what_serving_computes_is_what_was_fitted(method: str) -> None:
    columns = drawn(300, 3.0)
    target = category().calibrate(columns, method)
    served = _temperature.softmax_at(target.temperatures, torch.from_numpy(columns["probabilities"]).log())
    fitted = target.calibrated(columns)
    np.testing.assert_allclose(served.numpy(), fitted["probabilities"], atol=1e-6)
    np.testing.assert_allclose(target.before_calibration(fitted)["probabilities"], columns["probabilities"], atol=1e-6)
    assert target.uncalibrated() == category()


def test_labels_have_a_temperature_each_where_that_pays() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (3000, 2))
    there = (rng.random((3000, 2)) < special.expit(logits)).astype(np.uint8)
    columns = {"probabilities": special.expit(logits * [4.0, 1.0]).astype(np.float32), "labels": there}
    target = Labels(config=LabelsConfig(), classes=["a", "b"], class_counts=[1, 1], num_records=2, weights=None)
    found = calibrate(target, columns, seed=0)
    assert found.method == "vector"
    assert isinstance(found.target, Labels)
    assert found.target.temperatures == pytest.approx([4.0, 1.0], rel=0.15)


def test_the_debiased_calibration_error_is_about_zero_of_calibrated_answers() -> None:
    plain, debiased, off = [], [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        confidence = rng.uniform(0.5, 1.0, 300)
        right = rng.random(300) < confidence
        wrong = rng.random(300) < confidence - 0.1
        ones = np.ones((1, 300))
        plain.append(metrics.calibration_error(confidence, right, ones)[0])
        debiased.append(metrics.debiased_calibration_error(confidence, right, ones)[0])
        off.append(metrics.debiased_calibration_error(confidence, wrong, ones)[0])
    assert np.mean(plain) > 0.05
    assert np.mean(debiased) < 0.4 * np.mean(plain)
    assert np.mean(off) == pytest.approx(0.1, abs=0.025)
