"""sonde's defaults on many real data sets of 60 to 50,000 records, beside the best of scikit-learn's usual models.

    python benchmarks/defaults.py [--only NAME,...] [--splits 5] [--folder FOLDER] [--packages FOLDER ...]

Each set is learned with the recipe that `sonde new` writes, unedited; the seed draws the split and the first weights.
The classical models get the training and the validation split, and are tested on the same records; the best of them is
chosen by its mean TEST score, which is more than anyone could choose beforehand. Finished cells are kept in FOLDER, so
that a run goes on where it was stopped; --print prints the table of what is there.

The columns of the table are means over the splits; `interval` is sonde's 95 % interval as one run prints it, the
bounds averaged over the splits. "in": whether the best classical score is inside it or worse than sonde's; "5 splits":
whether it is within 1.96 standard errors of the mean of all splits (records of a set are in several test splits, so
this is the stricter).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import defaults_cells as cells
import numpy as np
from defaults_sets import FINAL, DataSet, use_packages

BOOSTING = ("gradient boosting", "gradient boosting, slow")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="some sets, by name, with commas")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--print", dest="only_print", action="store_true", help="run nothing")
    parser.add_argument("--part", choices=("sonde", "classical"), default="", help="run only these")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "sonde-defaults")
    parser.add_argument("--packages", type=Path, action="append", default=[], help="a folder that data sets are in")
    arguments = parser.parse_args()
    use_packages(arguments.packages)
    chosen = [one for one in FINAL if not arguments.only or one.name in arguments.only.split(",")]
    mine = cells.Cells(arguments.folder / "sonde.jsonl")
    classical = cells.Cells(arguments.folder / "classical.jsonl")
    if not arguments.only_print:
        run(chosen, arguments.splits, arguments.folder, mine, classical, arguments.part)
    rows = [found for one in chosen if (found := row(one, arguments.splits, mine, classical)) is not None]
    print(table(rows))


def run(
    chosen: Sequence[DataSet], splits: int, folder: Path, mine: cells.Cells, classical: cells.Cells, part: str
) -> None:
    """All cells that are not there yet, split by split: so that every set has some as early as can be."""
    for seed in range(splits):
        for one in chosen:
            key = f"{one.name}/{seed}"
            if key not in mine.found and part != "classical":
                mine.add(key, cells.of_sonde(one, seed, folder))
            if key not in classical.found and part != "sonde":
                classical.add(key, cells.of_classical(one, seed, folder))


@dataclass(frozen=True, kw_only=True)
class Row:
    """A data set in the table: means over its splits."""

    one: DataSet
    shape: tuple[int, int]
    metric: str
    splits: int
    score: float
    low: float
    high: float
    # Of the mean of all splits.
    error: float
    baseline: float
    best: float
    best_model: str
    boosting: float | None
    seconds: float

    def _loss(self, score: float, other: float) -> float:
        """How much worse `score` is than `other`."""
        return other - score if self.metric == "accuracy" else score - other

    @property
    def within(self) -> bool:
        return self.low <= self.best <= self.high or self._loss(self.score, self.best) <= 0

    @property
    def within_all(self) -> bool:
        return self._loss(self.score, self.best) <= 1.96 * self.error

    @property
    def outcome(self) -> str:
        """A win, a tie or a loss, by the stricter interval."""
        if abs(self.score - self.best) <= 1.96 * self.error:
            return "tie"
        return "win" if self._loss(self.score, self.best) < 0 else "loss"

    @property
    def above_baseline(self) -> bool:
        return self._loss(self.score, self.baseline) <= 0

    def normalized(self, score: float) -> float:
        """0: the majority class or the mean; 1: the best of all models, sonde's too."""
        best = self.score if self._loss(self.score, self.best) <= 0 else self.best
        return cells.normalized(score, self.baseline, best, self.metric)


def row(one: DataSet, splits: int, mine: cells.Cells, classical: cells.Cells) -> Row | None:
    keys = [key for seed in range(splits) if (key := f"{one.name}/{seed}") in mine.found and key in classical.found]
    if not keys:
        return None
    found = [mine.found[key] for key in keys]
    models = [classical.found[key]["models"] for key in keys]
    metric = found[0]["metric"]
    means = {name: float(np.mean([each[name]["score"] for each in models])) for name in models[0]}
    best_of = max if metric == "accuracy" else min
    best_model = best_of(means, key=lambda name: means[name])
    boosted = [means[name] for name in BOOSTING if name in means]
    errors = [(cell["high"] - cell["low"]) / 2 / 1.96 for cell in found if cell["low"] is not None]

    def mean(name: str) -> float:
        return float(np.mean([cell[name] for cell in found if cell[name] is not None]))

    return Row(
        one=one,
        shape=(found[0]["shape"][0], found[0]["shape"][1]),
        metric=metric,
        splits=len(keys),
        score=mean("score"),
        low=mean("low"),
        high=mean("high"),
        error=float(np.sqrt(np.mean(np.square(errors)) / len(keys))),
        baseline=mean("baseline"),
        best=means[best_model],
        best_model=best_model,
        boosting=best_of(boosted) if boosted else None,
        seconds=mean("seconds"),
    )


def table(rows: Sequence[Row]) -> str:
    lines = [
        "| set | records x columns | metric | sonde [interval] | best classical | in | 5 splits | above baseline | s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        shown = f"{one.score:.4g} [{one.low:.4g}, {one.high:.4g}]"
        marks = " | ".join("yes" if mark else "**no**" for mark in (one.within, one.within_all, one.above_baseline))
        shape = f"{one.shape[0]:,} x {one.shape[1]:,}" if one.one.tabular else f"{one.shape[0]:,}"
        lines.append(
            f"| {one.one.name} | {shape} | {one.metric} | {shown} | {one.best:.4g} ({one.best_model}) | {marks} | "
            f"{one.seconds:.0f} |"
        )
    return "\n".join([*lines, "", *summary(rows)])


def summary(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return ["nothing is finished"]
    count = len(rows)
    outcomes = [one.outcome for one in rows]
    lines = [
        f"{count} sets, {min(one.splits for one in rows)} to {max(one.splits for one in rows)} splits each.",
        f"Best classical model inside the interval of one run, or worse: {sum(one.within for one in rows)} of {count}.",
        f"By the interval of the mean over all splits: {sum(one.within_all for one in rows)} of {count}: "
        f"{outcomes.count('win')} wins, {outcomes.count('tie')} ties, {outcomes.count('loss')} losses.",
        f"At or above the majority class (the mean): {sum(one.above_baseline for one in rows)} of {count}.",
    ]
    tabular = [one for one in rows if one.boosting is not None]
    scores = [(one.normalized(one.score), one.normalized(one.boosting or 0.0)) for one in tabular]
    scores = [each for each in scores if not np.isnan(each).any()]
    if scores:
        sonde, boosting = np.mean(scores, axis=0)
        lines.append(
            f"Mean normalized score over the {len(scores)} tables where any model beats the majority class or the mean "
            f"(0: that, 1: the best of all models): sonde {sonde:.3f}, gradient boosting {boosting:.3f}."
        )
    return lines


if __name__ == "__main__":
    main()
