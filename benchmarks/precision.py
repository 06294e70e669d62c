"""What a number format does to scores: the same training in float32 and in another format, over many seeds.

    python benchmarks/precision.py [--recipe fashion_mnist] [--format bf16] [--seeds 30] [--set NAME=VALUE ...]

One seed cannot tell a tenth of a point: two seeds in the same format differ by more. Each seed trains once in each
format; told are the mean scores on the test split and the mean of the paired difference, with its 95 % bootstrap
interval over seeds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

import sonde
from sonde import evaluation, loop, stages
from sonde.base.progress import NoProgress
from sonde.data.store import encode

RECIPES = Path(__file__).parents[1] / "recipes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="fashion_mnist")
    parser.add_argument("--format", default="bf16", choices=["bf16", "bf16-math"])
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    recipe = sonde.Recipe.read(RECIPES / f"{arguments.recipe}.toml", changes=arguments.set)
    data = stages.load_data(recipe)
    task = stages.fit_task(recipe, data.splits["train"])
    sets = {split: encode(task, data.splits[split]) for split in ("train", "test")}
    found: dict[str, list[dict[str, float]]] = {"fp32": [], arguments.format: []}
    for seed in range(arguments.seeds):
        for kind in list(found) if seed % 2 else list(reversed(found)):
            settings = {"seed": seed, "precision": kind, "compile": False}
            one = recipe.model_copy(update={"training": recipe.training.model_copy(update=settings)})
            with tempfile.TemporaryDirectory() as place:
                network = stages.build_network(one, task)
                choice = Path(place) / "precision.json"
                state, plan, batches = stages.prepare(one, task, network, sets["train"], choice, NoProgress())
                for _ in loop.train(task, batches, state, plan):
                    pass
            columns = evaluation.eval_outputs(task, state.network, sets["test"].examples, precision=plan.precision)
            found[kind].append(evaluation.values(task, columns))
        print(
            f"seed {seed}", {kind: round(scores[-1]["accuracy"], 4) for kind, scores in found.items()}, file=sys.stderr
        )
    print(f"| score | fp32 | {arguments.format} | difference |\n|---|---|---|---|")
    for name in ("accuracy", "log_loss"):
        ours, other = (np.array([scores[name] for scores in each]) for each in found.values())
        rng = np.random.default_rng(0)
        means = (other - ours)[rng.integers(0, len(ours), (2000, len(ours)))].mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        spread = f"{(other - ours).mean():+.5f} [{low:+.5f}, {high:+.5f}]"
        print(f"| {name}, {len(ours)} seeds | {ours.mean():.5f} | {other.mean():.5f} | {spread} |")


if __name__ == "__main__":
    main()
