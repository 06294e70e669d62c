"""What a rung has cost so far, over all attempts, kept on disk; and the end of the budget in the middle of a run."""

from __future__ import annotations

import time
from pathlib import Path

from sonde.base import files
from sonde.base.errors import SondeError
from sonde.base.progress import Progress

# Seconds after which the time that was spent is written again.
WRITE_EVERY = 1.0


class BudgetSpent(SondeError):
    """The ladder's budget is spent; the run that was going on can be resumed."""


class Clock:
    """A `Progress` that passes everything on, counts the time into a file, and stops the run when the budget is spent.

    A killed run loses a second of its account at most, as long as its work reports progress.
    """

    def __init__(self, progress: Progress, file: Path, name: str, budget: float | None) -> None:
        self._progress, self._file, self._name = progress, file, name
        self._before = read_seconds(file)
        # What was spent on earlier attempts is spent.
        self._budget = None if budget is None else budget - self._before
        self._started = self._written = time.perf_counter()

    @property
    def seconds(self) -> float:
        return self._before + time.perf_counter() - self._started

    def begin(self, what: str, total: int) -> None:
        self._progress.begin(f"{self._name}: {what}", total)
        self._tick()

    def at(self, done: int, note: str = "") -> None:
        self._progress.at(done, note)
        self._tick()

    def message(self, line: str) -> None:
        self._progress.message(f"{self._name}: {line}")

    def save(self) -> None:
        files.write_json(self._file, {"seconds": self.seconds})

    def _tick(self) -> None:
        now = time.perf_counter()
        if now - self._written >= WRITE_EVERY:
            self._written = now
            self.save()
        if self._budget is not None and now - self._started > self._budget:
            self.save()
            raise BudgetSpent("the budget is spent", hint="a larger --budget with --resume goes on")


def read_seconds(file: Path) -> float:
    """What was spent so far; 0 where nothing is known."""
    try:
        return float(files.read_json(file)["seconds"])
    except (OSError, ValueError, LookupError, TypeError):
        return 0.0
