"""How OpenMP's threads wait for each other: decided once, by what else runs, before torch is loaded.

Threads that spin are the fastest on a machine that is otherwise idle; beside another process that computes they hold
up each other, and sleeping ones take half the time of a step (docs/log.md, "How threads wait, once more").
"""

from __future__ import annotations

import os
import time
from pathlib import Path

# How threads wait, if the user has said so.
CHOSEN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# Looks at what runs, seconds between them, and the mean number of others that makes a machine busy.
LOOKS, PAUSE, BUSY = 10, 0.002, 0.5


def choose() -> None:
    """Set `OMP_WAIT_POLICY=passive` for this process where another one computes, unless the environment says how."""
    if not any(name in os.environ for name in CHOSEN) and others_running() >= BUSY:
        os.environ["OMP_WAIT_POLICY"] = "passive"


def others_running() -> float:
    """How many other threads compute at this moment; where the system does not say, its load of the last minute."""
    try:
        return sum(_running() - 1 for _ in range(LOOKS)) / LOOKS
    except (OSError, ValueError, IndexError):
        return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _running() -> int:
    time.sleep(PAUSE)
    return int(Path("/proc/loadavg").read_text().split()[3].split("/")[0])
