"""How long OpenMP threads spin while they wait for each other, chosen before torch is loaded: then it is read.

Threads that spin for long slow a machine that others use 3 to 6 times down; threads that sleep at once cost a quarter
of a small network's step on an idle one. A short spin costs little of either: docs/log.md has the figures.
"""

from __future__ import annotations

import os
import time
from collections.abc import MutableMapping
from pathlib import Path

SPIN = 2000
# So long other work is watched (s); the system counts in hundredths of a second.
WATCHED = 0.06


def settle(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set the environment for torch; what the user has set stays."""
    if any(name in environment for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")):
        return
    environment["OMP_WAIT_POLICY"] = "passive"
    # What ends just now is no company: only what runs on.
    if not (_busy() and _busy()):
        environment["GOMP_SPINCOUNT"] = str(SPIN)


def _busy() -> bool:
    """Whether other work holds half of a core, or an eighth of many; where the system does not tell, yes.

    This process sleeps while it looks.
    """
    try:
        before, cores = _spent()
        time.sleep(WATCHED)
        after, _ = _spent()
    except (OSError, ValueError, IndexError):
        return True
    idle, everything = (late - early for late, early in zip(after, before, strict=True))
    return everything <= 0 or (1 - idle / everything) * cores >= max(0.5, cores / 8)


def _spent() -> tuple[tuple[int, int], int]:
    """Hundredths of a second since the start, idle and in all, over all cores; and how many cores there are."""
    lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    # "cpu" user nice system idle iowait irq softirq steal; guests are counted in user. Then a line for each core.
    times = [int(word) for word in lines[0].split()[1:9]]
    return (times[3] + times[4], sum(times)), sum(line.startswith("cpu") for line in lines) - 1
