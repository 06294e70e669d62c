"""What the contestants of auc.py share: the table, the AUC, and the stop at the goal (numpy only)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from worker import Spent

TRAIN = 200_000


class Reached(Exception):
    """The goal is reached: the rest of the training does not count."""


class Race:
    """Reads the arguments of a contestant, and keeps its time and its AUCs."""

    def __init__(self) -> None:
        self.folder = Path(sys.argv[1])
        self.epochs, self.goal = int(sys.argv[2]), float(sys.argv[3])
        self.best = 0.0
        self.spent: Spent | None = None

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return np.load(self.folder / "x.npy"), np.load(self.folder / "y.npy")

    def start(self) -> None:
        self.started = Spent.now()

    def note(self, auc: float, *, stop: bool = True) -> None:
        """After an evaluation.

        Raises:
            Reached: the goal is reached, and `stop` was asked for.
        """
        if self.best < self.goal:
            self.spent = Spent.now().since(self.started)
        self.best = max(self.best, auc)
        if stop and self.best >= self.goal:
            raise Reached

    def tell(self) -> None:
        assert self.spent is not None
        print(json.dumps({**self.spent._asdict(), "auc": self.best, "reached": self.best >= self.goal}))


def auc(scores_N: np.ndarray, truth_N: np.ndarray) -> float:
    """The share of pairs in the right order (ties are rare and not shared out)."""
    ranks = np.empty(len(scores_N))
    ranks[np.argsort(scores_N)] = np.arange(1, len(scores_N) + 1)
    positive = truth_N == 1
    count = positive.sum()
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(scores_N) - count)))
