"""Learning rates over a run: a pure function of the step, except for the plateau's memory of scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from sonde.base.config import Config


class ScheduleConfig(Config):
    kind: Literal["constant", "warmup-cosine", "one-cycle", "step", "plateau"] = Field(
        default="warmup-cosine", description="constant, warmup-cosine, one-cycle, step or plateau"
    )
    warmup: float = Field(
        default=0.05, ge=0, le=1, description="share of the steps over which the rate rises; one-cycle: 0.3 by default"
    )
    min_lr_ratio: float = Field(default=0.0, ge=0, le=1, description="learning rate at the end, as a share of lr")
    gamma: float = Field(default=0.1, gt=0, lt=1, description="step and plateau: factor of each decrease")
    milestones: tuple[float, ...] = Field(
        default=(0.5, 0.75), description="step: where the rate falls, as shares of the steps"
    )
    patience: int = Field(default=5, ge=1, description="plateau: evaluations without improvement before the rate falls")

    renamed: ClassVar[Mapping[str, str]] = {"final": "min_lr_ratio", "at": "milestones"}

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_a_kind(cls, values: dict[str, object]) -> dict[str, object]:
        # One-cycle rises over 30 % of the steps (Smith and Topin 2018).
        if values.get("kind") == "one-cycle" and "warmup" not in values:
            return {**values, "warmup": 0.3}
        return values


class Schedule:
    """The factor on the learning rate of each step of a run; with "plateau" it depends on validation scores too.

    `factor`, `best` and `evals_since_best` are all that has to be saved of it.
    """

    def __init__(self, config: ScheduleConfig, steps: int) -> None:
        self.config = config
        self.steps = steps
        self.factor = 1.0
        self.best: float | None = None
        self.evals_since_best = 0

    def __call__(self, step: int) -> float:
        return lr_factor(self.config, step, self.steps) * self.factor

    def observe(self, score: float, better: Literal["max", "min"]) -> None:
        """Note a validation score: "plateau" lowers the rate when it has stopped improving."""
        if self.config.kind != "plateau":
            return
        value = score if better == "max" else -score
        if self.best is None or value > self.best:
            self.best, self.evals_since_best = value, 0
        else:
            self.evals_since_best += 1
        if self.evals_since_best > self.config.patience:
            self.factor, self.evals_since_best = self.factor * self.config.gamma, 0


def lr_factor(schedule: ScheduleConfig, step: int, steps: int) -> float:
    """The factor on the learning rate for step 0 ... steps - 1. Plateau's decreases come from `Schedule`."""
    rising = schedule.warmup * steps
    if step < rising:
        return (step + 1) / (rising + 1)
    progress = (step - rising) / max(1.0, steps - rising)
    if schedule.kind == "warmup-cosine":
        return schedule.min_lr_ratio + (1 - schedule.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * progress))
    if schedule.kind == "one-cycle":
        return schedule.min_lr_ratio + (1 - schedule.min_lr_ratio) * (1 - progress)
    if schedule.kind == "step":
        return schedule.gamma ** sum(step >= share * steps for share in schedule.milestones)
    return 1.0
