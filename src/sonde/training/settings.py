"""The `[training]` section of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from sonde.base.config import Config
from sonde.base.device import Format
from sonde.training.optimizers import OptimizerConfig
from sonde.training.schedules import ScheduleConfig


class RollbackConfig(Config):
    times: int = Field(default=3, ge=1, description="how often, at most")
    factor: float = Field(default=0.5, gt=0, lt=1, description="what the learning rate is multiplied by each time")
    spike: float | None = Field(
        default=None,
        gt=1,
        description="a loss so many times its moving average counts as diverged, too; NaN and infinity always do",
    )


class TrainingConfig(Config):
    epochs: float | None = Field(default=None, gt=0, description="passes over the training split; give this or steps")
    steps: int | None = Field(default=None, ge=1, description="optimizer steps; give this or epochs")
    batch_size: int = Field(
        default=64, ge=1, description="examples per optimizer step, over all micro-batches and machines"
    )
    micro_batch: int | None = Field(default=None, ge=1, description="examples at once, when a whole batch does not fit")
    optimizer: OptimizerConfig = Field(default=OptimizerConfig(), description="how weights follow the gradient")
    schedule: ScheduleConfig = Field(default=ScheduleConfig(), description="how the learning rate goes")
    max_grad_norm: float = Field(
        default=1.0, ge=0, description="largest norm of the gradient, longer ones are scaled down; 0 is off"
    )
    ema_decay: float = Field(
        default=0.0, ge=0, lt=1, description="decay of the exponential moving average (EMA) of the weights; 0 is off"
    )
    precision: Literal["auto"] | Format = Field(
        default="auto", description="number format of the heavy operations: fp32, bf16, bf16-math; auto measures"
    )
    seed: int = Field(default=0, ge=0, description="same seed, same machine: same bits")
    evaluate_every: int | None = Field(
        default=None,
        ge=1,
        description="steps between validations; an epoch if left out, or a hundredth of the run if that is longer",
    )
    log_every: int | None = Field(
        default=None, ge=1, description="steps between log lines; chosen to give some hundreds"
    )
    monitor: str | None = Field(
        default=None, description="the validation score that picks the weights; the target's if left out"
    )
    checkpoint: Literal["best", "last"] = Field(default="best", description="which weights become the artifact")
    patience: int | None = Field(
        default=None, ge=1, description="validations without improvement before training stops early"
    )
    compile: Literal["auto"] | bool = Field(
        default="auto", description="let torch compile the network; auto: in long runs, if it is measured to be quicker"
    )
    rollback: RollbackConfig | None = Field(
        default=None,
        description="when training diverges: back to the last checkpoint, and on with a smaller learning rate",
    )
    parallel: Literal["ddp", "fsdp"] = Field(
        default="ddp", description="under torchrun: whole weights in every process, or a share of them (fsdp)"
    )
    group_by_length: bool = Field(default=True, description="batch examples of like length together, to pad less")

    renamed: ClassVar[Mapping[str, str]] = {
        "clip": "max_grad_norm",
        "average": "ema_decay",
        "keep": "checkpoint",
    }

    @model_validator(mode="after")
    def _muon_needs_whole_matrices(self) -> TrainingConfig:
        if self.parallel == "fsdp" and self.optimizer.kind == "muon":
            raise ValueError("muon needs whole matrices, fsdp gives each process a share of them; use adamw, or ddp")
        return self
