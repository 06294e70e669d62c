"""Imports that cost nothing until something of the module is used."""

from __future__ import annotations

import importlib.util
import sys


def import_later(name: str) -> None:
    """Have `import name` wait until an attribute of the module is asked for (importlib's own LazyLoader).

    Importing torch takes longer than all that `sonde new` does. A module that is there already stays as it is, and so
    does one that is not installed.
    """
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        return
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
