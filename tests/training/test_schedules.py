from __future__ import annotations

import pytest
import torch
from torch import nn

from sonde.training.schedules import Schedule, ScheduleConfig, lr_factor


def test_schedules_start_rise_and_end_where_they_should():
    cosine = ScheduleConfig(kind="warmup-cosine", warmup=0.1)
    rates = [lr_factor(cosine, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 11)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] < 0.001
    one = [lr_factor(ScheduleConfig(kind="one-cycle"), step, 100) for step in range(100)]
    assert one.index(max(one)) == 30
    step = ScheduleConfig(kind="step", warmup=0, milestones=(0.5, 0.75))
    assert [round(lr_factor(step, at, 100), 6) for at in (0, 49, 50, 75)] == [1, 1, 0.1, 0.01]
    assert lr_factor(ScheduleConfig(kind="constant", warmup=0), 99, 100) == 1


def test_cosine_equals_torch():
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
    for step in range(50):
        assert lr_factor(ScheduleConfig(warmup=0), step, 50) == pytest.approx(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()


def test_plateau_lowers_the_rate_after_patience():
    plateau = Schedule(ScheduleConfig(kind="plateau", warmup=0, patience=2, gamma=0.5), steps=10)
    for score in (1.0, 0.9, 0.9, 0.9):
        plateau.observe(score, "max")
    assert plateau.factor == 0.5
    assert plateau(3) == 0.5
    steady = Schedule(ScheduleConfig(kind="constant", warmup=0), steps=10)
    for score in (1.0, 0.9, 0.9, 0.9):
        steady.observe(score, "max")
    assert steady(3) == 1.0
