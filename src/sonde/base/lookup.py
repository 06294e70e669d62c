"""From the name of a kind to its class, by import: there is no registry.

`find("inputs", "image", Input)` imports `sonde.inputs.image`; a name with a dot is imported as it stands
(`their_pkg.depth`). A kind is a file, or a folder whose modules share the work: in either exactly one class fulfils its
room's contract.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from sonde.base.errors import UserError, unknown

T = TypeVar("T")

ROOMS = {
    "inputs": "sonde.inputs",
    "targets": "sonde.targets",
    "networks": "sonde.networks",
    "estimators": "sonde.classical",
    "sources": "sonde.data.sources",
}


def kinds(room: str) -> dict[str, str]:
    """Every kind of a room that is on disk, with the first line of its docstring; imports none of them."""
    return kinds_in(Path(__file__).parents[2].joinpath(*ROOMS[room].split(".")))


def kinds_in(folder: Path) -> dict[str, str]:
    """Every kind in a folder: a file, or a folder with an `__init__.py`; names that begin with _ are private."""
    found = {}
    for path in sorted([*folder.glob("*.py"), *folder.glob("*/__init__.py")]):
        name = path.parent.name if path.name == "__init__.py" and path.parent != folder else path.stem
        if not name.startswith("_"):
            doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            found[name.replace("_", "-")] = doc.split("\n", 1)[0]
    return dict(sorted(found.items()))


def find(room: str, kind: str, contract: type[T]) -> type[T]:
    """The class of a kind.

    Raises:
        UserError: no such kind, or the module does not define exactly one class of this contract.
    """
    if "." in kind:
        module = _imported(room, kind)
    else:
        name = f"{ROOMS[room]}.{kind.replace('-', '_')}"
        if not _is_name(kind) or importlib.util.find_spec(name) is None:
            raise unknown(kind, kinds(room), what=f"the {room[:-1]} kind")
        module = importlib.import_module(name)
    classes = _classes(module, contract)
    if not classes:
        # A folder whose `__init__.py` says nothing: the class is in one of its modules.
        for found in pkgutil.iter_modules(getattr(module, "__path__", []), f"{module.__name__}."):
            classes |= _classes(importlib.import_module(found.name), contract)
    if len(classes) != 1:
        raise UserError(
            f"the module {module.__name__} defines {len(classes)} classes of {contract.__name__}",
            expected=f"exactly one subclass of {contract.__module__}.{contract.__name__}",
        )
    return classes.pop()


def _is_name(kind: str) -> bool:
    return kind.replace("-", "_").isidentifier() and not kind.startswith("_")


def _imported(room: str, kind: str) -> ModuleType:
    """The module of a kind that is not sonde's own."""
    if not all(part.isidentifier() for part in kind.split(".")):
        raise UserError(
            f"the {room[:-1]} kind {kind!r} is not the name of a module",
            expected="a kind of sonde, or PACKAGE.MODULE as Python imports it",
        )
    try:
        return importlib.import_module(kind)
    except ImportError as error:
        raise UserError(
            f"the {room[:-1]} kind {kind!r} cannot be imported: {error}",
            expected="an importable module that defines one class",
            hint="is its package installed in this environment, and its folder on PYTHONPATH?",
        ) from error


def _classes(module: ModuleType, contract: type[T]) -> set[type[T]]:
    """The classes of a contract that a module defines, or a package has from its own modules."""
    return {
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, contract)
        and f"{value.__module__}.".startswith(f"{module.__name__}.")
        and not inspect.isabstract(value)
    }
