"""Errors and exit codes, from the classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from generator import text
from sonde.base import errors


def page() -> str:
    kinds = sorted(_below(errors.SondeError), key=lambda each: (each.exit_code, each.__name__))
    codes = {
        0: "Done.",
        errors.SondeError.exit_code: "A fault of sonde: an exception that is none of these, with its traceback.",
    }
    codes |= {each.exit_code: text.whole(each.__doc__) for each in kinds if errors.SondeError in each.__bases__}
    return text.page(
        [
            "# Errors and exit codes",
            "Every error says what happened and where, what was expected, and as a `hint:` what to do. "
            "In Python its parts are `error.what`, `error.expected` and `error.hint`.",
            "## Exit codes",
            text.table(["code", ""], [(f"`{code}`", words) for code, words in sorted(codes.items())]),
            "## Exceptions",
            "All are a `sonde.SondeError`.",
            text.table(
                ["exception", "exit code", ""],
                [(f"`{_name(each)}`", f"`{each.exit_code}`", text.whole(each.__doc__)) for each in kinds],
            ),
        ]
    )


def _name(kind: type) -> str:
    import sonde

    return f"sonde.{kind.__name__}" if kind.__name__ in sonde.__all__ else f"sonde.base.errors.{kind.__name__}"


def _below(kind: type[Any]) -> Iterator[type[Any]]:
    for each in kind.__subclasses__():
        if each.__module__ == kind.__module__:
            yield each
            yield from _below(each)
