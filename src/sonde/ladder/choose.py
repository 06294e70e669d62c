"""Which rung to ship: pure functions of scores and draws.

The validation split decides, the test split is only reported. A difference counts where the paired bootstrap's p is
below 0.05 divided by the number of looks (Bonferroni); all else is a tie, and a tie goes to the cheaper rung.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sonde.evaluation.paired import Difference, Drawn, difference
from sonde.ladder.bar import Bar

LEVEL = 0.05
# Networks in a row that are no better than the best before them, after which dearer ones are not tried.
PATIENCE = 2

Better = Literal["max", "min"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A rung beside the best one: how much better the best is (in the direction of the score), and whether that is a
    tie at the corrected level."""

    best: str
    difference: Difference
    level: float

    @property
    def tie(self) -> bool:
        return self.difference.p >= self.level or self.difference.value <= 0


def gain(one: Drawn, other: Drawn, better: Better, level: float) -> Difference:
    """How much better `one` is than `other`: above 0 whatever the direction of the score."""
    return difference(one, other, level=level) if better == "max" else difference(other, one, level=level)


def level_of(looks: int) -> float:
    """The level of each of so many looks, so that all together are wrong once in twenty."""
    return LEVEL / max(1, looks)


def best_of(drawn: Mapping[str, Drawn], better: Better) -> str:
    """The best by value; of equals the first, which is the cheapest."""
    sign = 1.0 if better == "max" else -1.0
    return max(drawn, key=lambda name: sign * drawn[name].value)


def compare(drawn: Mapping[str, Drawn], better: Better, looks: int) -> dict[str, Comparison]:
    """Every rung beside the best one."""
    best, level = best_of(drawn, better), level_of(looks)
    return {
        name: Comparison(best=best, difference=gain(drawn[best], each, better, level), level=level)
        for name, each in drawn.items()
    }


def ship(drawn: Mapping[str, Drawn], better: Better, looks: int, bar: Bar | None) -> str:
    """The rung to ship, of rungs in the order of their cost: the first that meets the bar; where there is none, or none
    does, the first that cannot be told from the best."""
    if bar is not None:
        for name, each in drawn.items():
            if bar.met(each.value):
                return name
    return next(name for name, each in compare(drawn, better, looks).items() if each.tie)


def improves(drawn: Mapping[str, Drawn], better: Better, looks: int) -> bool:
    """Whether the last rung is better than the best of those before it, past what chance explains."""
    *before, last = drawn
    if not before:
        return True
    best = best_of({name: drawn[name] for name in before}, better)
    found = gain(drawn[last], drawn[best], better, level_of(looks))
    return found.value > 0 and found.p < level_of(looks)
