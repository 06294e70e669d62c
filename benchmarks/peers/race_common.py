"""What the contestants of race.py share: the clock, the AUC, and how those that read no files get the data."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from worker import Spent

TRAIN = 200_000


class Reached(Exception):
    """The goal is reached: the rest of the training does not count."""


class Race:
    """Reads the arguments of a contestant, and keeps its time and its scores."""

    def __init__(self) -> None:
        self.name, self.folder = sys.argv[1], Path(sys.argv[2])
        epochs, self.goal, self.seed = float(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])
        # "default": the framework as it comes, where the script knows such a way.
        self.setting = sys.argv[6]
        # sonde takes parts of epochs too.
        self.epochs: Any = int(epochs) if epochs.is_integer() else epochs
        self.best = 0.0
        self.spent: Spent | None = None

    def start(self) -> None:
        self.started = Spent.now()

    def note(self, score: float, *, stop: bool = True) -> None:
        """After an evaluation.

        Raises:
            Reached: the goal is reached, and `stop` was asked for.
        """
        if self.best < self.goal:
            self.spent = Spent.now().since(self.started)
        self.best = max(self.best, score)
        if stop and self.best >= self.goal:
            raise Reached

    def tell(self) -> None:
        assert self.spent is not None
        print(json.dumps({**self.spent._asdict(), "score": self.best, "reached": self.best >= self.goal}))


def auc(scores_N: np.ndarray, truth_N: np.ndarray) -> float:
    """The share of pairs in the right order (ties are rare and not shared out)."""
    ranks = np.empty(len(scores_N))
    ranks[np.argsort(scores_N)] = np.arange(1, len(scores_N) + 1)
    positive = truth_N == 1
    count = positive.sum()
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(scores_N) - count)))


def table(race: Race) -> tuple[np.ndarray, np.ndarray]:
    """float32 (N, C) and int64 (N,), the rows to train first."""
    import pandas

    frame = pandas.read_csv(race.folder / "table.csv")
    return frame.filter(like="x").to_numpy(np.float32), frame["y"].to_numpy(np.int64)


def pictures(race: Race) -> list[np.ndarray]:
    """uint8 (N, C, H, W) and int64 (N,) to train, then the same to test."""
    if race.name == "fashion":
        return [
            _idx(race.folder / f"{part}-{kind}.gz")
            for part in ("train", "t10k")
            for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
        ]
    from PIL import Image

    def square(path: Path) -> np.ndarray:
        """The middle of a picture, 64 x 64."""
        picture = Image.open(path).convert("RGB")
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        picture = picture.crop((left, top, left + side, top + side)).resize((64, 64), Image.Resampling.BILINEAR)
        return np.asarray(picture).transpose(2, 0, 1)

    parts: list[np.ndarray] = []
    for part in ("train", "test"):
        classes = sorted(one for one in (race.folder / part).iterdir() if one.is_dir())
        paths = [(path, label) for label, folder in enumerate(classes) for path in sorted(folder.iterdir())]
        parts += [np.stack([square(path) for path, _ in paths]), np.array([label for _, label in paths])]
    return parts


def _idx(path: Path) -> np.ndarray:
    content = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(content, ">i4", content[3], 4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)
    return values[:, None] if values.ndim == 3 else values.astype(np.int64)
