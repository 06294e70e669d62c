"""Curves of known kinds get the verdict that a person would give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sonde.checks.verdict import Curves, judge
from sonde.contracts.finding import Finding

STEPS = np.arange(1, 501)
FALLING = 2 * np.exp(-STEPS / 100) + 0.1
AT = np.arange(25, 501, 25)


def verdict(losses: np.ndarray, accuracy: np.ndarray, log_loss: np.ndarray | None = None, **more: Any) -> Finding:
    found = {int(step): {"accuracy": float(value)} for step, value in zip(AT, accuracy, strict=True)}
    if log_loss is not None:
        for step, value in zip(AT, log_loss, strict=True):
            found[int(step)]["log_loss"] = float(value)
    curves = Curves(steps=STEPS, losses=losses, validations=found)
    return judge(
        curves, monitor=("accuracy", "max"), proper=("log_loss", "min") if log_loss is not None else None, **more
    )


def test_a_curve_that_rises_and_stays_is_healthy() -> None:
    rng = np.random.default_rng(0)
    found = verdict(FALLING, 0.9 - 0.4 * np.exp(-AT / 60) + 0.004 * rng.normal(size=len(AT)))
    assert (found.verdict, found.text.split(":")[0]) == ("pass", "healthy")


def test_a_proper_score_that_turns_early_overfits() -> None:
    found = verdict(2 * np.exp(-STEPS / 80), 0.9 - 0.3 * np.exp(-AT / 40), 0.4 + 0.002 * (AT - 100.0).clip(0))
    assert found.text.startswith("overfits")
    assert found.numbers["best_step"] <= 125


def test_a_score_that_still_rises_is_too_short() -> None:
    found = verdict(2.0 - STEPS / 300, 0.3 + AT / 1000)
    assert found.text.startswith("too short")


def test_a_loss_that_does_not_move_underfits() -> None:
    rng = np.random.default_rng(0)
    found = verdict(2.3 + 0.01 * rng.normal(size=len(STEPS)), 0.1 + 0.01 * rng.random(len(AT)))
    assert found.text.startswith("underfits")


def test_a_loss_that_shoots_up_again_and_again() -> None:
    losses = FALLING.copy()
    losses[20::40] *= 10
    assert "shoots up" in verdict(losses, 0.9 - 0.4 * np.exp(-AT / 60)).text


@pytest.mark.parametrize(("low", "noise"), [(0.58, True), (0.7, False)])
def test_no_better_than_the_majority(low: float, noise: bool) -> None:
    found = verdict(FALLING, 0.9 - 0.4 * np.exp(-AT / 60), baseline=0.62, interval=(low, 0.8))
    assert found.text.startswith("no better") == noise


def test_curves_of_a_log_in_which_steps_were_made_again(tmp_path: Path) -> None:
    rows = [
        {"version": "0", "steps": 3},
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 9.0},
        {"step": 1, "rolled_back": 1},
        {"step": 2, "loss": 0.5},
        {"step": 2, "validation": {"accuracy": 0.5, "roc_auc": None}},
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    curves = Curves.read(tmp_path / "log.jsonl")
    assert curves.losses.tolist() == [1.0, 0.5]
    assert curves.validations == {2: {"accuracy": 0.5}}
