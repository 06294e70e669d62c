"""How OpenMP's threads wait for each other: awake while they have the cores to themselves, asleep while they do not.

Threads that spin are quickest on an idle machine, and hold each other up for 3 to 18 times as long where other work
wants the cores; threads that sleep at once are up to 4 times slower on an idle one (docs/log.md has the figures).
libgomp reads how to wait only once, when torch is loaded; but it also stops spinning while a process has more threads
than cores. So while threads of this process queue for a core, others are kept that have a team of their own and do
nothing. The number of threads that compute stays the same, and with it every bit of the results.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

# How often to look (s); the share of a core's time spent queueing that counts; so many quiet looks end it.
LOOK = 0.25
QUEUED = 0.1
QUIET = 4
# What the user may have set.
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# One watcher is enough.
_watching = threading.Lock()


@contextlib.contextmanager
def considerate() -> Iterator[None]:
    """While it lasts, this process's threads spin or sleep as the machine's other work suggests.

    Nothing happens where the system does not tell how long threads queue, or where the user has set how they wait.
    """
    if any(name in os.environ for name in SETTINGS) or queued() is None or not _watching.acquire(blocking=False):
        yield
        return
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(over,), name="sonde openmp", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        _watching.release()


def queued() -> float | None:
    """For how long (s, all together) the threads of this process have been ready to run and had no core to run on."""
    total = 0
    try:
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                # Nanoseconds on a core, nanoseconds in a queue, and turns.
                total += int((task / "schedstat").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return total / 1e9


def _watch(over: threading.Event) -> None:
    crowd: threading.Event | None = None
    quiet = 0
    before, looked, cost = queued() or 0.0, time.monotonic(), 0.0
    # However many threads there are, looking at them takes less than a hundredth of the time.
    while not over.wait(max(LOOK, 100 * cost)):
        at = time.monotonic()
        now = queued() or 0.0
        cost = time.monotonic() - at
        wanted = now - before > QUEUED * (at - looked)
        before, looked = now, at
        quiet = 0 if wanted else quiet + 1
        # Before torch is there nothing waits.
        if wanted and crowd is None and "torch" in sys.modules:
            crowd = _gather()
        elif crowd is not None and quiet == QUIET:
            crowd.set()
            crowd = None
    if crowd is not None:
        crowd.set()


def _gather() -> threading.Event:
    """Have so many threads with teams of their own that there are more than cores; the event lets them go."""
    import torch  # waits until it is there as a whole

    leave = threading.Event()
    helpers = torch.get_num_threads() - 1
    if helpers < 1:
        return leave

    def stand() -> None:
        # Large enough for torch to share it out: that makes the team, which lasts as long as this thread.
        torch.zeros(1 << 18).add_(1)
        leave.wait()

    for _ in range(-(-len(os.sched_getaffinity(0)) // helpers)):
        threading.Thread(target=stand, name="sonde crowd", daemon=True).start()
    return leave
