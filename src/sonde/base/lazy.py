"""Imports that cost nothing until something of the module is used."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    """Stands for a module in `sys.modules` until an attribute is asked for; then it steps aside for the module itself.

    importlib's LazyLoader would do, but before Python 3.12 a second `import` of the module loads it.
    """

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def import_later(name: str) -> None:
    """Have `import name` wait until something of the module is used: for a command that may need nothing of it.

    Importing torch takes longer than all that `sonde new` does. A module that is there already stays as it is.
    """
    if name not in sys.modules:
        placeholder = _Later(name)
        placeholder.__spec__ = ModuleSpec(name, None)
        sys.modules[name] = placeholder
