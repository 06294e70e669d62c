"""sonde's own loop, on examples that its own inputs encoded, with the network that the others get.

Everything that `sonde fit` does in a step is in it: standardizing bytes, the finite check, the norm of the gradient
and its clipping, the schedule, exact order and randomness. Precision is "auto".
"""

from __future__ import annotations

from typing import Any

import networks
import numpy as np
import torch
from worker import SAMPLE, SKIP, Go, Job, Spent, serve

from sonde import loop, stages
from sonde.base.progress import NoProgress
from sonde.contracts.records import Records
from sonde.data.store import encode
from sonde.recipe import Recipe

INPUTS: dict[str, dict[str, Any]] = {
    "pictures": {"kind": "image", "field": "x"},
    "tokens": {"kind": "text", "field": "x", "min_count": 1},
    "numbers": {"kind": "table", "scale": "standard"},
}


def start(job: Job) -> Go:
    records, names = read(job)
    settings = dict(INPUTS[job.workload.form])
    if job.workload.form == "pictures":
        settings["size"] = list(job.workload.shape[:2])
    if job.workload.form == "numbers":
        settings["fields"] = names
    recipe = Recipe.of(
        {
            "data": {"source": str(job.folder), "kind": "idx"},
            "inputs": {"x": settings},
            "target": {"kind": "category", "field": "y"},
            "network": {"kind": "mlp"},
            "training": {
                "steps": 10**9,
                "compile": False,
                "batch_size": job.workload.batch,
                "optimizer": {"kind": "adamw", "lr": networks.RATE},
                "schedule": {"kind": "constant", "warmup": 0.0},
            },
        }
    )
    task = stages.fit_task(recipe, records)
    own = networks.build(job.workload, vocabulary=task.inputs["x"].spec.vocabulary)
    net = stages.build_network(recipe, task, own)
    state, plan, batches = stages.prepare(recipe, task, net, encode(task, records), None, NoProgress())
    steps_made = loop.train(task, batches, state, plan)
    sample = task.preprocess(task.collate(batches.examples.take(torch.arange(SAMPLE)), torch.arange(SAMPLE)))

    def go(steps: int) -> tuple[Spent, float]:
        for _ in range(SKIP):
            next(steps_made)
        started = Spent.now()
        for _ in range(steps):
            next(steps_made)
        spent = Spent.now().since(started)
        with torch.no_grad():
            answer = net(sample.inputs)
            return spent, torch.nn.functional.cross_entropy(answer, next(iter(sample.truth.values()))).item()

    return go


def read(job: Job) -> tuple[Records, list[str]]:
    """The arrays as records (pictures as they are, tokens as texts of words, numbers as columns), and their fields."""
    x, y_N = np.load(job.folder / "x.npy"), np.load(job.folder / "y.npy")
    fields: dict[str, np.ndarray]
    if job.workload.form == "pictures":
        fields = {"x": x[..., 0] if x.shape[-1] == 1 else x}
    elif job.workload.form == "tokens":
        fields = {"x": np.array([" ".join(f"w{token}" for token in row) for row in x.tolist()], dtype=object)}
    else:
        fields = {f"x{column}": x[:, column].astype(np.float64) for column in range(x.shape[1])}
    names = list(fields)
    return Records(fields={**fields, "y": y_N}, ids=[f"row {row}" for row in range(len(y_N))]), names


if __name__ == "__main__":
    serve(start, "torch")
