"""Time to a score: whole trainings, from files on disk, each contestant by its own best recipe.

    python benchmarks/peers/race.py table|fashion|flowers [--only NAME ...] [--rounds 5] [--epochs NAME=EPOCHS ...]

table: 200,000 rows of 30 columns in a CSV file, to an AUC of 0.93 on 20,000 held out; "default" is the framework as it
comes. fashion: Fashion-MNIST, to 93 % of its test pictures. flowers: 1,500 photos at 64 x 64, to 70 % of the 500 test
photos. The scripts RACE_NAME.py say what each does; imports do not count, reading and encoding do, and for sonde all
that `sonde.fit` does: hashing the data, checkpoints, validation, scores with intervals, the artifact. Threads wait as
each of them sets it.

First the fewest epochs that reach the goal are looked for, each number with a schedule of its own (--epochs says them).
Then rounds in turns, every round with a seed of its own; told are the median time, the mean score over the rounds, and
the median of the ratio to sonde's time with its 95 % bootstrap interval.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from environments import HERE, PEERS, PLACE, ROOT, SONDE, Peer, python_of, set_up
from run import interval

SHARED = ROOT.parent / "shared" / "data"
TRAIN, HELD_OUT, COLUMNS = 200_000, 20_000, 30


@dataclass(frozen=True, kw_only=True)
class Course:
    """A race: its scripts' first name, its data, its goal, and the numbers of epochs that are tried."""

    scripts: str
    data: Path
    goal: float
    epochs: tuple[int, ...]
    # A second word is a setting of the script.
    contestants: tuple[str, ...] = ("sonde", "Lightning", "fastai")


COURSES = {
    "table": Course(
        scripts="table",
        data=PLACE / "data/auc",
        goal=0.93,
        epochs=(1, 2, 3, 5, 8),
        contestants=("sonde", "Lightning", "Lightning default", "fastai", "fastai default", "Ludwig"),
    ),
    "fashion": Course(scripts="pictures", data=SHARED / "fashion_mnist", goal=0.93, epochs=(2, 3, 4, 5, 6, 8, 10, 12)),
    "flowers": Course(scripts="pictures", data=SHARED / "flowers5", goal=0.70, epochs=(8, 12, 16, 20, 25, 30, 40, 60)),
}


def make_table(folder: Path) -> None:
    """Numbers of different scales; the truth is drawn from a random network of two layers."""
    if (folder / "table.csv").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(TRAIN + HELD_OUT, COLUMNS))
    hidden = np.tanh(x @ rng.normal(0, 1 / COLUMNS**0.5, (COLUMNS, 24)) * 2)
    logit = 6 * hidden @ rng.normal(0, 1 / 24**0.5, 24) + np.where(x[:, 0] * x[:, 1] > 0, 1.5, -1.5)
    y = (rng.random(len(x)) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    x = (x * np.exp(rng.normal(size=COLUMNS)) + rng.normal(size=COLUMNS)).astype(np.float32)
    import polars

    table = {f"x{i}": x[:, i] for i in range(COLUMNS)} | {"y": y}
    table["split"] = np.where(np.arange(len(x)) < TRAIN, "train", "validation")
    polars.DataFrame(table).write_csv(folder / "table.csv")


def once(race: str, name: str, epochs: float, seed: int, threads: int) -> dict[str, Any]:
    """One training of so many epochs: seconds on both clocks, the best score, whether it reached the goal."""
    course, (peer_name, _, setting) = COURSES[race], name.partition(" ")
    peer = _peer(name)
    environment = {**os.environ, "PYTHONPATH": ""}
    if peer is SONDE:
        environment["PYTHONPATH"] = str(ROOT / "src")
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    script = HERE / f"{course.scripts}_{peer_name.lower()}.py"
    command = [python_of(peer), script, race, course.data, epochs, course.goal, seed, setting]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr.strip().splitlines()[-1][:300]}")
    found = json.loads(done.stdout.strip().splitlines()[-1]) | {"epochs": epochs, "seed": seed}
    print(name, json.dumps(found), file=sys.stderr, flush=True)
    return found


def _peer(name: str) -> Peer:
    return SONDE if name == "sonde" else PEERS[name.partition(" ")[0]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("race", choices=list(COURSES))
    parser.add_argument("--only", nargs="+", default=None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", nargs="+", default=[], metavar="NAME=EPOCHS")
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    course = COURSES[arguments.race]
    names = arguments.only or course.contestants
    if arguments.race == "table":
        make_table(course.data)
    said = dict(one.split("=") for one in arguments.epochs)
    epochs: dict[str, float] = {}
    for name in names:
        if reason := set_up(_peer(name)):
            print(f"{name}: {reason}", file=sys.stderr)
            continue
        tried = [float(said[name])] if name in said else course.epochs
        fitting = (
            one for one in tried if name in said or once(arguments.race, name, one, 0, arguments.threads)["reached"]
        )
        if (fewest := next(fitting, None)) is not None:
            epochs[name] = fewest
        else:
            print(f"{name}: {course.goal} was not reached in {tried[-1]} epochs", file=sys.stderr)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in epochs}
    for turn in range(1, arguments.rounds + 1):
        for name in epochs if turn % 2 else reversed(epochs):
            found[name].append(once(arguments.race, name, epochs[name], turn, arguments.threads))
    print(
        f"| {arguments.race}, to {course.goal:g} | epochs | seconds | score | time / sonde's |\n|---|---|---|---|---|"
    )
    for name, runs in found.items():
        seconds = statistics.median(one["wall"] for one in runs)
        score = statistics.mean(one["score"] for one in runs)
        shown = "1"
        if name != "sonde" and "sonde" in found:
            ratios = [mine["wall"] / ours["wall"] for mine, ours in zip(runs, found["sonde"], strict=True)]
            shown = "{ratio:.2f} [{low:.2f}, {high:.2f}]".format(**interval(np.array(ratios)))
        print(f"| {name} | {epochs[name]:g} | {seconds:.1f} | {score:.4f} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
