"""What settings are for, read from the source of their class: a module need not be imported, and torch with it."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

PACKAGES = Path(__file__).parents[2]


def of_kind(module: str) -> dict[str, str]:
    """The descriptions of the settings of a kind: of the class in its module, or in one of its folder's, that has the
    setting `kind`; also those that it inherits. Empty where the module is not one of sonde's files."""
    for each in (
        module,
        *(f"{module}.{file.stem}" for file in sorted(PACKAGES.joinpath(*module.split(".")).glob("*.py"))),
    ):
        tree = _tree(each)
        for node in tree.body if tree else []:
            if isinstance(node, ast.ClassDef) and any(name == "kind" for name, _ in _fields(node)):
                return of_class(each, node.name)
    return {}


def of_class(module: str, name: str) -> dict[str, str]:
    """The descriptions of the settings of a class, by the setting's name."""
    tree = _tree(module)
    found = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name] if tree else []
    if not tree or not found:
        return {}
    imported = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    described: dict[str, str] = {}
    for base in found[0].bases:
        if isinstance(base, ast.Name):
            described |= of_class(*imported.get(base.id, (module, base.id)))
    for setting, value in _fields(found[0]):
        text = _description(value)
        if text is not None:
            described[setting] = text
    return described


@cache
def _tree(module: str) -> ast.Module | None:
    path = PACKAGES.joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return ast.parse(file.read_text(encoding="utf-8"))
    return None


def _fields(node: ast.ClassDef) -> list[tuple[str, ast.expr | None]]:
    return [
        (each.target.id, each.value)
        for each in node.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    ]


def _description(value: ast.expr | None) -> str | None:
    """The text of `Field(description=...)`; None for one that is put together when the module runs."""
    for keyword in value.keywords if isinstance(value, ast.Call) else []:
        if keyword.arg == "description" and isinstance(keyword.value, ast.Constant):
            return str(keyword.value.value)
    return None
