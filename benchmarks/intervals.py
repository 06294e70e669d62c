"""How often the 95 % intervals of scores contain the truth: data sets drawn from known distributions.

    OMP_NUM_THREADS=1 python benchmarks/intervals.py [--sets 100] [--only NAME] [--quick]

Each line draws many data sets of one size, asks `sonde.evaluation.scores` for intervals as a run does, and counts those
that contain the score of a huge sample (or 0, where the model is calibrated by construction). In brackets: what chance
alone would leave uncertain about the share (Wilson 1927). "None": data sets whose score has no interval (an AUC of 1).
Slow simulations draw fewer sets, quick ones more. One core needs some minutes for --sets 100, and half an hour for the
500 of docs/intervals.md.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from sonde import evaluation
from sonde.base.number_formats import PLAIN
from sonde.contracts.task import Task
from sonde.data.groups import Groups, blocks
from sonde.targets.category import Category, CategoryConfig
from sonde.targets.labels import Labels, LabelsConfig
from sonde.targets.mask import Mask, MaskConfig
from sonde.targets.number import Number, NumberConfig

Columns = dict[str, np.ndarray]
Drawn = tuple[Columns, Groups | None]

CLIPS = 20  # records of a group


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A distribution of data sets, and the scores whose intervals are tried. `share` of --sets are drawn."""

    name: str
    target: Category | Labels | Mask | Number
    draw: Callable[[np.random.Generator, int], Drawn]
    scores: tuple[str, ...]
    sizes: tuple[int, ...] = (50, 200, 1000)
    known: Mapping[str, float] = field(default_factory=dict)
    share: float = 1.0
    huge: int = 300_000

    @property
    def task(self) -> Task:
        return Task(inputs={}, target=self.target)

    def truth(self) -> dict[str, float]:
        columns, _ = self.draw(np.random.default_rng(2**32), self.huge)
        return {**evaluation.values(self.task, columns), **self.known}

    def covered(self, size: int, sets: int, resamples: int) -> dict[str, list[bool | None]]:
        """For each score, whether each data set's interval holds the truth; None where there is no interval."""
        truth = self.truth()
        found: dict[str, list[bool | None]] = {name: [] for name in self.scores}
        for number in range(sets):
            columns, groups = self.draw(np.random.default_rng([size, number]), size)
            scores = evaluation.scores(self.task, columns, seed=number, groups=groups, resamples=resamples)
            for name in self.scores:
                score = scores[name]
                if score.value is None or score.low is None or score.high is None:
                    found[name].append(None)
                    continue
                assert score.low <= score.value <= score.high, f"{name} is outside of its own interval"
                found[name].append(score.low <= truth[name] <= score.high)
        return found


def sigmoid(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))


def classes(sharpness: float, spread: float = 1.8) -> Callable[[np.random.Generator, int], Drawn]:
    """Two classes; sharpness 1: the stated probabilities are the true ones; 2: the logits are twice too large."""

    def draw(rng: np.random.Generator, size: int) -> Drawn:
        logit = rng.normal(0, spread, size)
        stated = sigmoid(sharpness * logit)
        true = (rng.random(size) < sigmoid(logit)).astype(np.int64)
        return {"probabilities": np.stack([1 - stated, stated], axis=1), "class": true}, None

    return draw


def speakers(whole: bool) -> Callable[[np.random.Generator, int], Drawn]:
    """Clips of speakers, some of whom are hard to understand: their clips are right or wrong together."""

    def draw(rng: np.random.Generator, size: int) -> Drawn:
        chance = np.repeat(rng.beta(4, 1, size), CLIPS)
        right = rng.random(len(chance)) < chance
        stated = np.where(right, 0.9, 0.1)
        groups = Groups(name="speaker", codes=np.repeat(np.arange(size), CLIPS))
        columns = {"probabilities": np.stack([1 - stated, stated], axis=1), "class": np.ones(len(right), np.int64)}
        return columns, groups if whole else None

    return draw


def numbers(freedom: float) -> Callable[[np.random.Generator, int], Drawn]:
    def draw(rng: np.random.Generator, size: int) -> Drawn:
        value = rng.normal(size=size)
        error = rng.normal(size=size) if math.isinf(freedom) else rng.standard_t(freedom, size)
        return {"value": value[:, None], "answer": (value + error / 2)[:, None]}, None

    return draw


def windows(rng: np.random.Generator, size: int) -> Drawn:
    """Errors of neighbours in a stream are alike: an autoregressive series with coefficient 0.5."""
    noise, error = rng.normal(size=size), np.empty(size)
    error[0] = noise[0] / math.sqrt(0.75)
    for place in range(1, size):
        error[place] = error[place - 1] / 2 + noise[place]
    return {"value": np.zeros((size, 1)), "answer": error[:, None]}, blocks(size)


def pictures(rng: np.random.Generator, size: int) -> Drawn:
    """Confusion matrices of pictures of 400 pixels: few of five classes each, some pictures hard."""
    share, chance = rng.dirichlet(np.full(5, 0.3), size), rng.beta(6, 2, size)
    pixels = rng.multinomial(400, share)
    right = rng.binomial(pixels, chance[:, None])
    confusion = np.zeros((size, 5, 5), np.int64)
    for code in range(5):
        confusion[:, code, code] = right[:, code]
        confusion[:, code, (code + 1) % 5] += pixels[:, code] - right[:, code]
    return {"confusion": confusion}, None


def tags(least: float) -> Callable[[np.random.Generator, int], Drawn]:
    """Ten labels, the rarest in a share `least` of the records, the commonest in 0.3."""

    def draw(rng: np.random.Generator, size: int) -> Drawn:
        present = rng.random((size, 10)) < np.linspace(least, 0.3, 10)
        return {"probabilities": sigmoid(rng.normal(1.2 * present - 1.0)), "labels": present.astype(np.uint8)}, None

    return draw


def simulations() -> list[Simulation]:
    two = Category(config=CategoryConfig(), classes=["no", "yes"], class_counts=[1, 1], weights=None)
    number = Number(config=NumberConfig(), names=["value"], centre=[0.0], scale=[1.0], formats=[PLAIN])
    mask = Mask(
        config=MaskConfig(),
        input="image",
        size=[20, 20],
        how="squash",
        ids=list(range(5)),
        classes=list("abcde"),
        pixels=[1] * 5,
        weights=None,
    )
    ten = Labels(config=LabelsConfig(), classes=list("abcdefghij"), class_counts=[1] * 10, num_records=10, weights=None)
    ece = "rms_calibration_error"
    plain = ("accuracy", "macro_f1", "roc_auc", "log_loss", ece)
    return [
        Simulation(name="calibrated", target=two, draw=classes(1), scores=plain, known={ece: 0.0}),
        Simulation(name="overconfident", target=two, draw=classes(2), scores=("log_loss", ece)),
        Simulation(name="nearly all right", target=two, draw=classes(1, spread=8), scores=("accuracy", "roc_auc")),
        Simulation(
            name="normal errors", target=number, draw=numbers(math.inf), scores=("rmse", "mae", "r2"), share=4.0
        ),
        Simulation(name="heavy tails (t, 5)", target=number, draw=numbers(5), scores=("rmse", "mae")),
        Simulation(name="masks", target=mask, draw=pictures, scores=("miou", "iou/a"), share=4.0, huge=60_000),
        Simulation(
            name="10 labels, 15 % and more",
            target=ten,
            draw=tags(0.15),
            scores=("roc_auc", "mean_average_precision"),
            sizes=(50, 200),
            share=0.4,
        ),
        Simulation(
            name="10 labels, 4 % and more",
            target=ten,
            draw=tags(0.04),
            scores=("roc_auc", "mean_average_precision"),
            sizes=(50, 200),
            share=0.4,
        ),
        Simulation(
            name="groups of 20", target=two, draw=speakers(True), scores=("accuracy",), sizes=(10, 25, 100), huge=50_000
        ),
        Simulation(
            name="the same, one by one",
            target=two,
            draw=speakers(False),
            scores=("accuracy",),
            sizes=(10, 25, 100),
            share=0.4,
            huge=50_000,
        ),
        Simulation(
            name="stream, in blocks", target=number, draw=windows, scores=("rmse", "mae"), known={"rmse": 0.75**-0.5}
        ),
    ]


def wilson(hits: int, count: int) -> tuple[float, float]:
    if not count:
        return 0.0, 1.0
    share, z = hits / count, 1.96
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return middle - half, middle + half


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=100, help="data sets of every line")
    parser.add_argument("--only", default="", help="simulations whose name has this in it")
    parser.add_argument("--quick", action="store_true", help="a smoke test: a few small data sets")
    arguments = parser.parse_args()
    sets, resamples = (5, 200) if arguments.quick else (arguments.sets, evaluation.RESAMPLES)
    print("| data | score | size | data sets | none | coverage, % | |\n|---|---|---|---|---|---|---|", flush=True)
    for simulation in simulations():
        if arguments.only not in simulation.name:
            continue
        for size in simulation.sizes[: 1 if arguments.quick else None]:
            started = time.perf_counter()
            found = simulation.covered(size, max(5, int(sets * simulation.share)), resamples)
            seconds = time.perf_counter() - started
            for name, every in found.items():
                hits = [hit for hit in every if hit is not None]
                low, high = wilson(sum(hits), len(hits))
                share = f"{100 * np.mean(hits):.1f} | [{100 * low:.1f}, {100 * high:.1f}]"
                counts = f"{len(every)} | {len(every) - len(hits)}"
                print(f"| {simulation.name} | {name} | {size:,} | {counts} | {share} |", flush=True)
            print(f"<!-- {seconds:.0f} s -->", flush=True)


if __name__ == "__main__":
    main()
