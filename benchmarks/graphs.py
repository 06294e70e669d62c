"""Graphs by their recipes over several seeds: ESOL (random splits) beside a forest on ECFP4, and Cora (given split).

python benchmarks/graphs.py esol --seeds 5
python benchmarks/graphs.py esol --seeds 5 --scaffold
python benchmarks/graphs.py cora --seeds 10
python benchmarks/graphs.py cora --seeds 10 --set network.layer=gatv2 --set network.heads=8
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

import sonde

RECIPES = Path(__file__).parents[1] / "recipes"
SCORE = {"esol": "rmse", "cora": "accuracy"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=SCORE)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--scaffold", action="store_true", help="ESOL by Bemis-Murcko scaffold")
    parser.add_argument("--set", action="append", default=[], dest="changes")
    given = parser.parse_args()
    changes = list(given.changes)
    if given.scaffold:
        changes.append('data.split={ by = "scaffold", field = "smiles" }')
    score = SCORE[given.name]
    found: dict[str, list[float]] = {"validation": [], "test": [], "reference": []}
    for seed in range(given.seeds):
        recipe = sonde.Recipe.read(RECIPES / f"{given.name}.toml", changes=[*changes, f"training.seed={seed}"])
        with tempfile.TemporaryDirectory() as folder:
            run = sonde.fit(recipe, out=Path(folder) / "run", audited=True)
        for split in ("validation", "test"):
            found[split].append(run.scores[split][score].value)
        found["reference"].append(run.scores["test"][score].reference or float("nan"))
        line = {
            "seed": seed,
            "seconds": round(run.seconds),
            **{name: round(each[-1], 4) for name, each in found.items()},
        }
        print(json.dumps(line), flush=True)
    name = run.scores["test"][score].reference_name
    for split, values in found.items():
        print(f"{score} {name if split == 'reference' else split}: {np.mean(values):.4f} +- {np.std(values):.4f}")


if __name__ == "__main__":
    main()
