"""The protocol between run.py and a peer: one JSON object a line, on standard input and output.

A peer is a function `start(job) -> go`; `go(steps)` trains so many further steps inside the framework's own loop and
gives (Spent, loss): the time of exactly `steps` whole steps in its steady state, and the loss on a sample after.
A process keeps every job that it has started, and sits idle between slices. Needs the standard library and numpy only.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
from workloads import WORKLOADS, Workload, arrays

# Steps that a framework makes before its clock starts, in every slice; and examples that the loss is computed on.
SKIP = 3
SAMPLE = 512


class Spent(NamedTuple):
    """Seconds on the clock on the wall, and of processor time: the second means more where other work runs beside."""

    wall: float
    processor: float

    @staticmethod
    def now() -> Spent:
        return Spent(time.perf_counter(), time.process_time())

    def since(self, before: Spent) -> Spent:
        return Spent(self.wall - before.wall, self.processor - before.processor)


Go = Callable[[int], tuple[Spent, float]]


@dataclass(frozen=True, kw_only=True)
class Job:
    workload: Workload
    setting: str
    folder: Path

    @property
    def scratch(self) -> Path:
        """Where the framework may write what it likes."""
        place = self.folder.parent / "scratch" / self.setting
        place.mkdir(parents=True, exist_ok=True)
        return place

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return arrays(self.workload, self.folder)


class Clock:
    """Times whole steps from inside someone else's loop: `tick` at the start of every forward pass."""

    def begin(self, steps: int) -> None:
        self.count = -SKIP
        self.steps = steps
        self.started: Spent | None = None
        self.spent: Spent | None = None

    @property
    def needed(self) -> int:
        """Steps that the loop has to be asked for, so that `steps` of them are timed."""
        return self.steps + SKIP + 1

    def tick(self) -> None:
        if self.count == 0:
            self.started = Spent.now()
        elif self.count == self.steps and self.started is not None:
            self.spent = Spent.now().since(self.started)
        self.count += 1

    @property
    def done(self) -> bool:
        return self.spent is not None

    def read(self) -> Spent:
        if self.spent is None:
            raise RuntimeError(f"the loop ended after {self.count + SKIP} steps of {self.needed}")
        return self.spent


def serve(start: Callable[[Job], Go], *packages: str) -> None:
    """Answer the driver until it closes the pipe. What the framework prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    jobs: dict[tuple[str, str], Go] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        key = (asked["workload"], asked["setting"])
        try:
            if "steps" in asked:
                spent, loss = jobs[key](asked["steps"])
                answer = {**spent._asdict(), "loss": loss}
            else:
                if key not in jobs:
                    job = Job(workload=WORKLOADS[key[0]], setting=key[1], folder=Path(asked["folder"]))
                    jobs[key] = start(job)
                answer = {"rate": _rate(jobs[key]), "versions": {name: metadata.version(name) for name in packages}}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]}
        print(json.dumps(answer), file=answers, flush=True)


def _rate(go: Go) -> float:
    """Steps a second, after the warm-up."""
    go(4)
    steps = 8
    while True:
        spent, _ = go(steps)
        if spent.wall > 0.3:
            return steps / spent.wall
        steps *= 3
