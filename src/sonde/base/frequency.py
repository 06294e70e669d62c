"""How far apart the steps of a series are: found from its time stamps, and what the field takes for its seasons.

A step is a number of months or of seconds, never both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Seconds of a minute, an hour, a day, a week.
MINUTE, HOUR, DAY, WEEK = 60, 3600, 86400, 604800
# Names of frequencies as data sets write them.
NAMES = {
    "secondly": (0, 1),
    "minutely": (0, MINUTE),
    "hourly": (0, HOUR),
    "daily": (0, DAY),
    "weekly": (0, WEEK),
    "monthly": (1, 0),
    "quarterly": (3, 0),
    "yearly": (12, 0),
}
# Seasons of frequencies that have one (as M4's, but a week of days and a year of weeks), and M4's horizons.
_SEASONS = {(0, HOUR): 24, (0, DAY): 7, (0, WEEK): 52, (1, 0): 12, (3, 0): 4, (0, MINUTE): 60}
_HORIZONS = {(0, HOUR): 48, (0, DAY): 14, (0, WEEK): 13, (1, 0): 18, (3, 0): 8, (12, 0): 6}


@dataclass(frozen=True, kw_only=True)
class Frequency:
    """A step of `months` or `seconds`; both 0 where steps are only counted."""

    months: int = 0
    seconds: int = 0

    @property
    def season(self) -> int:
        """Steps after which a series begins to repeat itself: a day of hours, a week of days, a year of months."""
        if 0 < self.seconds < HOUR and DAY % self.seconds == 0 and self.seconds != MINUTE:
            return DAY // self.seconds
        return _SEASONS.get((self.months, self.seconds), 1)

    @property
    def horizon(self) -> int:
        """How far ahead the field usually looks (M4's horizons); else a season."""
        return _HORIZONS.get((self.months, self.seconds), max(8, self.season))

    def __str__(self) -> str:
        for name, step in NAMES.items():
            if step == (self.months, self.seconds):
                return name
        if self.months:
            return f"every {self.months} months"
        for size, word in ((DAY, "days"), (HOUR, "hours"), (MINUTE, "minutes")):
            if self.seconds and self.seconds % size == 0:
                return f"every {self.seconds // size} {word}"
        return f"every {self.seconds} seconds" if self.seconds else "steps without a time"

    def after(self, time: np.datetime64, count: int) -> np.ndarray:
        """The `count` time stamps that follow one, datetime64[s]."""
        steps = np.arange(1, count + 1)
        start = time.astype("datetime64[s]")
        if not self.months:
            return start + steps * np.timedelta64(self.seconds, "s")
        month = start.astype("datetime64[M]")
        within = start - month.astype("datetime64[s]")
        later = month + steps * self.months
        # The last day of a month stays the last: 31 January is followed by 28 February.
        last = (later + 1).astype("datetime64[s]") - np.timedelta64(1, "s")
        end = (month + 1).astype("datetime64[s]")
        if end - start <= np.timedelta64(DAY, "s"):
            return (later + 1).astype("datetime64[s]") - (end - start)
        return np.minimum(later.astype("datetime64[s]") + within, last)

    def places(self, times: np.ndarray) -> np.ndarray | None:
        """Each time stamp's number of steps after the first, int64; None where some lie between steps."""
        times = times.astype("datetime64[s]")
        if self.months:
            month = times.astype("datetime64[M]").astype(np.int64)
            steps, rest = np.divmod(month - month[0], self.months)
            return None if rest.any() else steps
        if not self.seconds:
            return None
        steps, rest = np.divmod((times - times[0]).astype(np.int64), self.seconds)
        return None if rest.any() else steps


def find(times: np.ndarray) -> Frequency | None:
    """The frequency of time stamps that rise: the commonest difference, by months where that fits. None where a third
    or more of the differences are no multiple of it.

    >>> str(find(np.array(["2024-01-31", "2024-02-29", "2024-03-31"], "datetime64[D]")))
    'monthly'
    """
    times = times.astype("datetime64[s]")
    if len(times) < 3:
        return None
    seconds = np.diff(times).astype(np.int64)
    if seconds.min() >= 28 * DAY:
        months = np.diff(times.astype("datetime64[M]").astype(np.int64))
        usual = _commonest(months)
        if usual and (months % usual == 0).all() and (months == usual).mean() >= 2 / 3:
            return Frequency(months=usual)
    usual = _commonest(seconds)
    regular = usual > 0 and (seconds % usual == 0).mean() > 2 / 3 and (seconds == usual).mean() >= 0.5
    return Frequency(seconds=usual) if regular else None


def named(text: str) -> Frequency | None:
    """The frequency that a word means: "hourly", "10_minutes", "half_hourly", "4_seconds"."""
    word = text.strip().lower().replace("-", "_").replace(" ", "_")
    if word in NAMES:
        months, seconds = NAMES[word]
        return Frequency(months=months, seconds=seconds)
    if word == "half_hourly":
        return Frequency(seconds=HOUR // 2)
    count, _, unit = word.partition("_")
    sizes = {"second": 1, "minute": MINUTE, "hour": HOUR, "day": DAY, "week": WEEK}
    size = sizes.get(unit.removesuffix("s"))
    return Frequency(seconds=int(count) * size) if count.isdigit() and size else None


def _commonest(values: np.ndarray) -> int:
    found, counts = np.unique(values, return_counts=True)
    return int(found[counts.argmax()])
