"""What looking at a training costs: the time of a look beside that of the steps between two looks.

    python benchmarks/vitals.py

Looks and steps take turns, so that a machine that is slower for a while slows both; the medians are compared.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from sonde import Recipe, loop, stages
from sonde.base.progress import NoProgress
from sonde.training.run_folder import RunFolder
from sonde.training.vitals import FEWEST, Vitals

DIGITS = {"data": {"source": "sklearn:digits"}, "target": {"kind": "category", "field": "label"}}
PICTURE = {"image": {"kind": "image", "field": "image"}}
CASES = {
    "small network, batch 32": {"network": {"kind": "mlp", "hidden": [64]}, "training": {"batch_size": 32}},
    "cnn, batch 64": {"network": {"kind": "cnn"}, "training": {"batch_size": 64}},
    "resnet, batch 128": {"network": {"kind": "resnet"}, "training": {"batch_size": 128}},
    "transformer, batch 64": {"network": {"kind": "transformer", "patch": 2}, "training": {"batch_size": 64}},
}


def main() -> None:
    print(f"{'case':<26} {'step':>9} {'look':>9}   of the training, a look in {FEWEST} steps")
    for name, changes in CASES.items():
        step, look = measured(changes)
        print(f"{name:<26} {1000 * step:>6.2f} ms {1000 * look:>6.2f} ms   {look / (FEWEST * step + look):.2%}")


def measured(changes: dict) -> tuple[float, float]:
    """Seconds of a step and of a look with the copy before it."""
    changes = {**changes, "training": {"steps": 10_000, "precision": "fp32", "compile": False, **changes["training"]}}
    recipe = Recipe.of({**DIGITS, "inputs": PICTURE, **changes})
    with tempfile.TemporaryDirectory() as place, RunFolder.open(Path(place) / "run", resume=False) as folder:
        data = stages.load_data(recipe)
        task = stages.fit_task(recipe, data.splits["train"])
        train = stages.encode_split(recipe, task, "train", data, folder, NoProgress())
        state, plan, batches = stages.prepare(
            recipe, task, stages.build_network(recipe, task), train, None, NoProgress()
        )
        vitals = Vitals(task=task, state=state, plan=plan, train=train, every=5)
        steps, looks = [], []
        started = time.perf_counter()
        for step in loop.train(task, batches, state, plan):
            steps.append(time.perf_counter() - started)
            started = time.perf_counter()
            if vitals.is_due(step.number):
                vitals.look()
                looks.append(time.perf_counter() - started)
            elif vitals.is_due(step.number + 1):
                vitals.before(step.number + 1)
                looks.append(time.perf_counter() - started)
            if step.number == 150:
                break
            started = time.perf_counter()
    copies, whole = looks[::2], looks[1::2]
    return statistics.median(steps), statistics.median(whole) + statistics.median(copies)


if __name__ == "__main__":
    main()
