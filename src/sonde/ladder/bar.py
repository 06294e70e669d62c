"""What the user asks of a ladder, read from text: the bar ("roc_auc >= 0.9") and the budget ("30m")."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from sonde.base.errors import UserError

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BAR = re.compile(r"\s*(\S.*?)\s*(>=|<=|>|<)\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*$")
_BUDGET = re.compile(r"\s*([\d.]+)\s*([smhd]?)\s*$")


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A score and the value that it has to reach."""

    metric: str
    better: Literal["max", "min"]
    value: float

    def __str__(self) -> str:
        return f"{self.metric} {'>=' if self.better == 'max' else '<='} {self.value:g}"

    def met(self, score: float | None) -> bool:
        return score is not None and (score >= self.value if self.better == "max" else score <= self.value)


def read_bar(text: str) -> Bar:
    """A bar such as "accuracy >= 0.9" or "rmse <= 3".

    Raises:
        UserError: it is none.
    """
    found = _BAR.match(text)
    try:
        value = float(found[3]) if found else None
    except ValueError:
        value = None
    if found is None or value is None:
        raise UserError(
            f"the bar {text!r} cannot be read",
            expected="SCORE >= VALUE or SCORE <= VALUE",
            hint='--bar "roc_auc >= 0.9"',
        )
    return Bar(metric=found[1], better="max" if found[2].startswith(">") else "min", value=value)


def read_budget(text: str) -> float:
    """Seconds of a budget such as "90s", "30m", "2h"; a number alone is minutes.

    Raises:
        UserError: it is none.
    """
    found = _BUDGET.match(text)
    try:
        amount = float(found[1]) if found else 0.0
    except ValueError:
        amount = 0.0
    if found is None or amount <= 0:
        raise UserError(f"the budget {text!r} is no time", expected="a number with s, m or h", hint="--budget 30m")
    return amount * SECONDS[found[2] or "m"]
