"""Errors that a person can act on: what happened, what was expected, and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SondeError(Exception):
    """A fault with an exit code. `what` says what happened and where, `hint` the fix."""

    exit_code = 1

    def __init__(self, what: str, *, expected: str | None = None, hint: str | None = None) -> None:
        self.what = what
        self.expected = expected
        self.hint = hint
        super().__init__(str(self))

    def __str__(self) -> str:
        parts = [self.what.rstrip(".") + "."]
        if self.expected:
            parts.append(f"Expected {self.expected.rstrip('.')}.")
        if self.hint:
            parts.append(f"hint: {self.hint}")
        return " ".join(parts)


class UserError(SondeError):
    """The user's input (recipe, data, arguments) is wrong; nothing was written."""

    exit_code = 2


class RecordError(UserError):
    """One record cannot be read. Raised by `encode`; a data set may have a few of them, which are skipped."""


class UnseenError(RecordError):
    """The truth of one record holds what no training record has: it can neither be learned nor scored."""


class CheckFailed(SondeError):
    """A check or a bar was not met."""

    exit_code = 3


class Diverged(SondeError):
    """Training produced a NaN or an infinite number; the update was not made."""

    exit_code = 4


class Interrupted(SondeError):
    """The user stopped the run; its state is saved."""

    exit_code = 130


def near(word: str, options: Iterable[str]) -> str | None:
    """The option that was probably meant, or None."""
    found = difflib.get_close_matches(word, list(options), n=1, cutoff=0.6)
    return found[0] if found else None


def unknown(word: str, options: Iterable[str], *, what: str, listing: str | None = None) -> UserError:
    """The error for a name that is not one of `options`, with the near miss as its hint."""
    names = sorted(options)
    guess = near(word, names)
    return UserError(
        f"{what} {word!r} does not exist",
        expected="one of: " + ", ".join(names),
        hint=f"did you mean {guess!r}?" if guess else listing,
    )
