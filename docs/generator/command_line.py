"""Every command and option, from the functions that typer calls."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Union

from generator import text
from sonde.cli import app

WORDS = {Path: "PATH", str: "TEXT", int: "INTEGER", float: "NUMBER"}


class Parameter(NamedTuple):
    """An argument or an option: how it is written, what it is for, what it is if left out."""

    spelling: str
    help: str
    default: str
    is_option: bool


def commands() -> dict[str, Callable[..., Any]]:
    """Every command by its name, in the order of the help."""
    found = {}
    for each in app.registered_commands:
        assert each.callback is not None
        found[each.name or each.callback.__name__.replace("_", "-")] = each.callback
    return found


def parameters(command: Callable[..., Any]) -> list[Parameter]:
    hints = typing.get_type_hints(command, include_extras=True)
    found = []
    for name, parameter in inspect.signature(command).parameters.items():
        kind, options = _annotation(hints[name])
        many, is_flag = typing.get_origin(kind) is list, kind is bool
        if many:
            (kind,) = typing.get_args(kind)
        default, help_text = parameter.default, options.help or ""
        if type(options).__name__ == "ArgumentInfo":
            spelling = (options.metavar or name.upper()) + ("..." if many else "")
            found.append(Parameter(spelling, help_text, "", False))
            continue
        # Inside of Annotated, typer keeps the first spelling as a default.
        spellings = [options.default, *(options.param_decls or ())]
        flag = next((each for each in spellings if str(each).startswith("--")), f"--{name.replace('_', '-')}")
        spelling = flag if is_flag else f"{flag} {options.metavar or WORDS.get(kind, 'VALUE')}"
        shown = "" if default in (None, False, inspect.Parameter.empty) else f"`{default}`"
        found.append(Parameter(spelling, help_text + (" May be given several times." if many else ""), shown, True))
    return found


def _annotation(hint: Any) -> tuple[Any, Any]:
    """The type of an option without None, and typer's description of it."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        (hint,) = (each for each in typing.get_args(hint) if each is not type(None))
    kind, options = typing.get_args(hint)
    if typing.get_origin(kind) in (Union, types.UnionType):
        (kind,) = (each for each in typing.get_args(kind) if each is not type(None))
    return kind, options


def page() -> str:
    found = commands()
    parts = [
        "# Command line",
        "What each command ends with: [exit codes](errors.md). Settings that `--set` overrides: [recipe](recipe.md).",
        text.table(
            ["command", ""],
            [(f"[`sonde {name}`](#sonde-{name})", text.first(each.__doc__)) for name, each in found.items()],
        ),
    ]
    for name, command in found.items():
        ours = parameters(command)
        words = [each.spelling for each in ours if not each.is_option]
        words += ["[OPTIONS]"] if any(each.is_option for each in ours) else []
        parts += [f"## sonde {name}", text.doc(command), f"```text\n{' '.join(['sonde', name, *words])}\n```"]
        if ours:
            rows = [(f"`{each.spelling}`", each.help, each.default) for each in ours]
            parts.append(text.table(["", "", "default"], rows))
    parts.append("`sonde --version` prints the version, `sonde COMMAND --help` the help of a command.")
    return text.page(parts)
