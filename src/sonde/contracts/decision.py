"""The `[decision]` section of a recipe: how answers become decisions, and how far they may be trusted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from sonde.base.config import Config

# Ways to tell that a record is unlike those of training (see `sonde.evaluation.familiar`).
Familiar = Literal["knn", "max-softmax", "energy", "off"]


def _named(value: object) -> object:
    """Classes that are numbers, or true and false, are called by texts."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else value


class RecallWish(Config):
    """A share of a class that is to be found."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True, serialize_by_alias=True
    )

    name: Annotated[str, BeforeValidator(_named)] = Field(alias="class", description="the class that is to be found")
    at_least: float = Field(gt=0, lt=1, description="the share of it that is to be found, at least")


class DecisionConfig(Config):
    calibrate: Literal["auto"] | bool = Field(
        default="auto",
        description="temperature scaling on validation: auto keeps it where it lowers the log loss beyond noise",
    )
    costs: dict[str, dict[str, Annotated[float, Field(ge=0)]]] = Field(
        default={}, description="what each mistake costs: costs.fraud = { ok = 100 } is a fraud answered as ok"
    )
    recall: RecallWish | None = Field(
        default=None, description='a wish in place of costs: { class = "fraud", at_least = 0.99 }'
    )
    coverage: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="`predict` adds sets of classes (intervals of numbers) that hold the truth this often",
    )
    coverage_by: str | None = Field(
        default=None, description="a field: the coverage holds for the records of each of its values"
    )
    familiar: Familiar = Field(
        default="knn", description="how `predict --familiar` tells records unlike those of training; off keeps none"
    )
    familiar_share: float = Field(
        default=0.95, gt=0, lt=1, description="the share of validation records that is called familiar"
    )

    @model_validator(mode="after")
    def _one_rule(self) -> DecisionConfig:
        if self.costs and self.recall is not None:
            raise ValueError("costs and recall are two rules for one decision; give one of them")
        for true, answers in self.costs.items():
            if answers.get(true, 0.0) > 0:
                raise ValueError(f"the right answer {true!r} costs something")
        return self

    @property
    def decides(self) -> bool:
        """Whether answers are chosen by costs or a wish."""
        return bool(self.costs) or self.recall is not None
