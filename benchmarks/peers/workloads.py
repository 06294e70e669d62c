"""What is trained: made once from a seed, kept as .npy files, read alike in every environment (numpy only).

The classes can be learnt, so that a loss that falls shows that a peer does train. Shapes: N example, H row, W column,
C channel, T position.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

VOCABULARY = 2000
LENGTH = 32
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A network (see networks.py), the form of its input and the size of a batch.

    `x.npy` holds uint8 (N, H, W, C) pictures, int64 (N, T) tokens or float32 (N, C) numbers; `y.npy` int64 (N,).
    """

    name: str
    form: Literal["pictures", "tokens", "numbers"]
    shape: tuple[int, ...]
    classes: int
    batch: int
    count: int

    def make(self, folder: Path) -> None:
        """Write x.npy and y.npy into `folder`, unless they are there."""
        if (folder / "y.npy").exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(SEED)
        y_N = rng.integers(0, self.classes, self.count)
        if self.form == "pictures":
            centre = rng.uniform(120, 136, (self.classes, *self.shape))
            x = rng.normal(centre[y_N], 60).clip(0, 255).astype(np.uint8)
        elif self.form == "tokens":
            # Each class likes its own part of the vocabulary in one of four places.
            x = rng.integers(0, VOCABULARY, (self.count, *self.shape))
            own = rng.integers(0, VOCABULARY // self.classes, x.shape) + (y_N * (VOCABULARY // self.classes))[:, None]
            x = np.where(rng.random(x.shape) < 0.25, own, x)
        else:
            x = rng.normal(size=(self.count, *self.shape)).astype(np.float32)
            y_N = (np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + rng.normal(0, 0.3, self.count) > 0).astype(np.int64)
        np.save(folder / "x.npy", x)
        np.save(folder / "y.npy", y_N)


WORKLOADS = {
    one.name: one
    for one in (
        Workload(name="mlp", form="pictures", shape=(28, 28, 1), classes=10, batch=128, count=60_000),
        Workload(name="cnn-28", form="pictures", shape=(28, 28, 1), classes=10, batch=128, count=20_000),
        Workload(name="cnn-32", form="pictures", shape=(32, 32, 3), classes=10, batch=128, count=20_000),
        Workload(name="transformer", form="tokens", shape=(LENGTH,), classes=4, batch=32, count=20_000),
        Workload(name="lstm", form="tokens", shape=(LENGTH,), classes=4, batch=32, count=20_000),
        Workload(name="tabular", form="numbers", shape=(30,), classes=2, batch=256, count=200_000),
    )
}


def arrays(workload: Workload, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) as a network takes them: pictures as float32 (N, H, W, C) of mean 0 and deviation 1."""
    x, y_N = np.load(folder / "x.npy"), np.load(folder / "y.npy")
    if workload.form == "pictures":
        x = x.astype(np.float32)
        x = (x - x.mean()) / x.std()
    return x, y_N
