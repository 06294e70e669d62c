"""From the name of a kind to its class, by import: there is no registry.

`find("inputs", "image", Input)` imports `sonde.inputs.image`; a name with a dot is imported as it stands
(`their_pkg.depth`). Every kind's module defines exactly one class that fulfils its room's contract.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
from pathlib import Path
from typing import TypeVar

from sonde.base.errors import UserError, unknown

T = TypeVar("T")

ROOMS = {
    "inputs": "sonde.inputs",
    "targets": "sonde.targets",
    "networks": "sonde.networks",
    "sources": "sonde.data.sources",
}


def kinds(room: str) -> dict[str, str]:
    """Every kind of a room that is on disk, with the first line of its docstring; imports none of them."""
    folder = Path(__file__).parents[2].joinpath(*ROOMS[room].split("."))
    found = {}
    for path in sorted(folder.glob("*.py")):
        if not path.name.startswith("_"):
            doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            found[path.stem.replace("_", "-")] = doc.split("\n", 1)[0]
    return found


def find(room: str, kind: str, contract: type[T]) -> type[T]:
    """The class of a kind.

    Raises:
        UserError: no such kind, or the module does not define exactly one class of this contract.
    """
    if "." in kind:
        name = kind
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            raise UserError(
                f"the {room[:-1]} kind {kind!r} cannot be imported: {error}",
                expected="an importable module that defines one class",
                hint="is its package installed in this environment, and its folder on PYTHONPATH?",
            ) from error
    else:
        name = f"{ROOMS[room]}.{kind.replace('-', '_')}"
        if kind.startswith("_") or importlib.util.find_spec(name) is None:
            raise unknown(kind, kinds(room), what=f"the {room[:-1]} kind")
        module = importlib.import_module(name)
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, contract)
        and value.__module__ == module.__name__
        and not inspect.isabstract(value)
    ]
    if len(classes) != 1:
        raise UserError(
            f"the module {name} defines {len(classes)} classes of {contract.__name__}",
            expected=f"exactly one subclass of {contract.__module__}.{contract.__name__}",
        )
    return classes[0]
