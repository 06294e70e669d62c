"""Where what is worth keeping between runs lies on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def folder() -> Path:
    """`~/.cache/sonde`, or where SONDE_CACHE says."""
    return Path(os.environ.get("SONDE_CACHE") or Path.home() / ".cache" / "sonde")
