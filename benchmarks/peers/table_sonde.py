"""`sonde.fit` on the CSV file: an MLP of 128-64 on standardized numbers, Muon and one-cycle, batches of 512."""

from __future__ import annotations

import contextlib
import re
import tempfile

import torch._dynamo  # noqa: F401  (an optimizer imports it when made)
from race_common import Race, Reached

import sonde
from sonde import run  # noqa: F401  (imports do not count, for anyone)
from sonde.base.progress import NoProgress

BATCH = 512


class Watch(NoProgress):
    def __init__(self, race: Race) -> None:
        self.race = race

    def message(self, line: str) -> None:
        if found := re.search(r"validation roc_auc ([\d.]+)", line):
            self.race.note(float(found[1]))


def main() -> None:
    race = Race()
    recipe = sonde.Recipe.of(
        {
            "data": {
                "source": str(race.folder / "table.csv"),
                "kind": "table",
                "split": {"by": "given", "field": "split", "test": 0.0},
            },
            "inputs": {"table": {"kind": "table", "fields": [f"x{i}" for i in range(30)], "scale": "standard"}},
            "target": {"kind": "category", "field": "y"},
            "network": {
                "kind": "mlp",
                "hidden": [128, 64],
                "activation": "silu",
                "dropout": 0.0,
                "numeric_embedding": "none",
            },
            "training": {
                "epochs": race.epochs,
                "batch_size": BATCH,
                "optimizer": {"kind": "muon", "lr": 0.05, "lr_adamw": 0.01},
                "schedule": {"kind": "one-cycle"},
                "monitor": "roc_auc",
                "seed": race.seed,
            },
        }
    )
    race.start()
    with tempfile.TemporaryDirectory() as place, contextlib.suppress(Reached):
        sonde.fit(recipe, out=f"{place}/run", progress=Watch(race))
    race.tell()


if __name__ == "__main__":
    main()
