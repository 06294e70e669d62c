"""The ladder: the cheapest approach that meets the bar, with the evidence."""

from sonde.ladder.climb import climb
from sonde.ladder.result import Ladder, Tried

__all__ = ["Ladder", "Tried", "climb"]
