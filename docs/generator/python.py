"""The Python interface: what `import sonde` gives, and the contracts of kinds."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

import sonde
from generator import text
from sonde import testing
from sonde.contracts import layouts, specs
from sonde.contracts.backbone import Backbone
from sonde.contracts.input import Input
from sonde.contracts.part import Part
from sonde.contracts.target import PairwiseTarget, Target
from sonde.data.source import Source

# Characters of a signature that fit on a line.
WIDE = 84


def public() -> str:
    names = [name for name in sonde.__all__ if not name.startswith("__")]
    errors = [name for name in names if _is_error(getattr(sonde, name))]
    parts = [
        "# Python",
        "What `import sonde` gives. Importing it loads no torch before a name is used. All else is internal, but for "
        "the [contracts](contracts.md) of kinds.",
    ]
    others = [name for name in names if name not in errors]
    for name in sorted(others, key=lambda each: inspect.isclass(getattr(sonde, each))):
        parts += described(f"sonde.{name}", getattr(sonde, name))
    listed = ", ".join(f"`sonde.{name}`" for name in errors)
    return text.page([*parts, "## Errors", f"{listed}: see [errors and exit codes](errors.md)."])


def contracts() -> str:
    parts = [
        "# Contracts",
        "What a kind of your own fulfils; [how to write one](../howto/own-kinds.md) has examples that run.",
        "## Layouts",
        text.doc(layouts),
        "## Specs",
        text.doc(specs),
    ]
    for one in _own_classes(specs):
        parts += described(f"sonde.contracts.specs.{one.__name__}", one, depth=3)
    for one in (Part, Input, Target, PairwiseTarget, Backbone, Source):
        parts += described(f"{one.__module__}.{one.__name__}", one)
    parts += ["## sonde.testing", text.doc(testing)]
    for name, one in vars(testing).items():
        if inspect.isfunction(one) and one.__module__ == testing.__name__ and name.startswith("check_"):
            parts += described(f"sonde.testing.{name}", one, depth=3)
    return text.page(parts)


def _own_classes(module: Any) -> list[type]:
    return [each for each in vars(module).values() if inspect.isclass(each) and each.__module__ == module.__name__]


def _is_error(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, BaseException)


def described(name: str, value: Any, depth: int = 2) -> list[str]:
    """A function: heading, signature, docstring. A class: its docstring, attributes, properties and methods."""
    parts = ["#" * depth + f" {name}"]
    if not inspect.isclass(value):
        return [*parts, signature(name.rpartition(".")[2], value), text.doc(value)]
    if vars(value).get("__doc__"):
        parts.append(text.doc(value))
    held = attributes(value)
    if held:
        parts.append(text.table(["attribute", ""], held))
    for each, member in vars(value).items():
        member = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        method = inspect.isfunction(member)
        if each.startswith("_") or not (method or isinstance(member, property)) or not inspect.getdoc(member):
            continue
        parts += [
            f"{'#' * (depth + 1)} {value.__name__}.{each}",
            signature(each, member) if method else "",
            text.doc(member),
        ]
    return parts


def attributes(kind: type) -> list[tuple[str, str]]:
    """Annotated attributes with the comment that stands above them in the code, if any."""
    if issubclass(kind, BaseModel):
        return []
    source = inspect.getsource(kind)
    rows = []
    for name, annotation in vars(kind).get("__annotations__", {}).items():
        found = re.search(rf"((?:^ +# .*\n)+)^ +{name}\b", source, flags=re.MULTILINE)
        comment = " ".join(line.strip().removeprefix("# ") for line in found[1].splitlines()) if found else ""
        if not name.startswith("_"):
            rows.append((f"`{name}`", f"`{annotation}`" + (f" {comment}" if comment else "")))
    return rows


def signature(name: str, function: Any) -> str:
    whole = inspect.signature(function)
    kept = [each for key, each in whole.parameters.items() if key not in ("self", "cls")]
    words = name + str(whole.replace(parameters=kept)).replace("'", "")
    if len(words) > WIDE:
        # One parameter a line, as ruff format would write it.
        answer = "" if whole.return_annotation is whole.empty else f" -> {whole.return_annotation}"
        lines = "".join(f"    {each},\n" for each in _parameters(kept))
        words = f"{name}(\n{lines}){answer}".replace("'", "")
    return f"```text\n{words}\n```"


def _parameters(parameters: list[inspect.Parameter]) -> Iterator[str]:
    before = None
    for each in parameters:
        if each.kind is each.KEYWORD_ONLY and before is not each.KEYWORD_ONLY:
            yield "*"
        before = each.kind
        yield str(each)
