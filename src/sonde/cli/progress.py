"""Progress on standard error: a bar where a terminal is watching, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sonde.base.progress import NoProgress, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Rich

# A stage that is over within a second shows nothing.
PATIENCE = 1.0
# A plain log gets a line after so many seconds, then ever more rarely: whenever this share of the time that a stage has
# taken so far is over again, but every five minutes at least. Five minutes make some ten lines.
LINE_FIRST, LINE_GROWTH, LINE_LAST = 5.0, 0.5, 300.0


@contextmanager
def terminal() -> Iterator[Progress]:
    """Progress for the time of a block; of the processes of a job the first one tells."""
    if os.environ.get("RANK", "0") != "0":
        yield NoProgress()
    elif sys.stderr.isatty():
        bar = Bar()
        try:
            yield bar
        finally:
            bar.end()
    else:
        yield Lines()


class Lines:
    """Plain lines, for logs and pipes."""

    def __init__(self) -> None:
        self.what, self.total, self.started, self.last = "", 0, 0.0, 0.0

    def begin(self, what: str, total: int) -> None:
        self.what, self.total = what, total
        self.started = self.last = time.monotonic()

    def at(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        if now - self.last >= min(LINE_LAST, max(LINE_FIRST, LINE_GROWTH * (self.last - self.started))):
            self.last = now
            left = (now - self.started) * (self.total - done) / max(1, done)
            self.message(f"{self.what} {done}/{self.total} {note}".rstrip() + f" ({_time(left)} left)")

    def message(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


class Bar:
    """A rich progress bar; rich is imported only once a stage has lasted a second."""

    def __init__(self) -> None:
        self.what, self.total, self.started = "", 0, 0.0
        self.shown: Rich | None = None

    def begin(self, what: str, total: int) -> None:
        self.end()
        self.what, self.total, self.started = what, total, time.monotonic()

    def at(self, done: int, note: str = "") -> None:
        if self.shown is None and time.monotonic() - self.started >= PATIENCE:
            self.shown = self._show()
        if self.shown is not None:
            self.shown.update(self.shown.task_ids[0], completed=done, note=note)

    def message(self, line: str) -> None:
        if self.shown is not None:
            self.shown.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def end(self) -> None:
        if self.shown is not None:
            self.shown.stop()
            self.shown = None

    def _show(self) -> Rich:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Rich

        columns = (
            TextColumn("{task.description:<18}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(compact=True),
        )
        shown = Rich(*columns, console=Console(stderr=True), transient=True)
        shown.start()
        shown.add_task(self.what, total=self.total, note="")
        return shown


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
