"""From a folder of data to a deep network that can be trusted in production."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sonde.artifact import Model, load
    from sonde.base.errors import CheckFailed, Diverged, Interrupted, SondeError, UserError
    from sonde.recipe import Recipe
    from sonde.run import Run, fit

__version__ = "0.1.0"

# Where each public name lives. Nothing is imported before it is asked for: `import sonde` costs next to nothing.
_PLACES = {
    "CheckFailed": "sonde.base.errors",
    "Diverged": "sonde.base.errors",
    "Interrupted": "sonde.base.errors",
    "Model": "sonde.artifact",
    "Recipe": "sonde.recipe",
    "Run": "sonde.run",
    "SondeError": "sonde.base.errors",
    "UserError": "sonde.base.errors",
    "fit": "sonde.run",
    "load": "sonde.artifact",
}

__all__ = [
    "CheckFailed",
    "Diverged",
    "Interrupted",
    "Model",
    "Recipe",
    "Run",
    "SondeError",
    "UserError",
    "__version__",
    "fit",
    "load",
]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'sonde' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
