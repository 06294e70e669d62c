"""The `[ladder]` section: how rungs are compared, what an hour of the machine costs, and what stands beside `fit`."""

from __future__ import annotations

from pydantic import Field

from sonde.base.config import Config


class LadderConfig(Config):
    bar: str | None = Field(
        default=None, description='stop at the first rung that reaches it: "roc_auc >= 0.9", "rmse <= 3"'
    )
    budget: str | None = Field(default=None, description='the most time for all rungs together: "30m", "2h", "90s"')
    price: float = Field(default=0.0, ge=0, description="what an hour of this machine costs, in any currency")
    trials: int = Field(
        default=1, ge=1, le=3, description="settings that each rung tries; the best on validation stands for it"
    )
    rungs: tuple[str, ...] = Field(default=(), description="only these rungs (see `sonde ladder`); all if left out")
    reference: bool = Field(
        default=True, description="`sonde fit`: show what a quick classical model scores on the same records"
    )
