"""How long OpenMP threads spin while they wait for each other, chosen before torch is loaded: then it is read.

Threads that spin for long slow a machine that others use 3 to 6 times down; threads that sleep at once cost a quarter
of a small network's step on an idle one. A short spin costs neither: 1,000 to 3,000 turns measured alike.
"""

from __future__ import annotations

import os
import time
from collections.abc import MutableMapping
from pathlib import Path

SPIN = 2000
# The machine is looked at so many times, so long apart (s): what runs for a moment only does not make it busy.
LOOKS, APART = 4, 0.002


def settle(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set the environment for torch; what the user has set stays."""
    if any(name in environment for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")):
        return
    environment["OMP_WAIT_POLICY"] = "passive"
    if not _busy():
        environment["GOMP_SPINCOUNT"] = str(SPIN)


def _busy() -> bool:
    """Whether other work holds a quarter of the cores, or more; where the system does not tell, yes."""
    running = []
    for look in range(LOOKS):
        if look:
            time.sleep(APART)
        try:
            # "1.64 2.43 2.79 3/85 32018": 3 of 85 are running, this process among them.
            running.append(int(Path("/proc/loadavg").read_text(encoding="ascii").split()[3].partition("/")[0]) - 1)
        except (OSError, ValueError, IndexError):
            return True
    return min(running) >= max(1, (os.cpu_count() or 1) // 4)
