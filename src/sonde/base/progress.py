"""How long work tells people where it stands. The rooms call it; the command line draws it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    def begin(self, what: str, total: int) -> None:
        """A stage of `total` units starts; the one before is over."""

    def at(self, done: int, note: str = "") -> None:
        """So many units are done."""

    def message(self, line: str) -> None:
        """Something that people should read."""


class NoProgress:
    """Tells nothing: the default in Python."""

    def begin(self, what: str, total: int) -> None:
        pass

    def at(self, done: int, note: str = "") -> None:
        pass

    def message(self, line: str) -> None:
        pass
