"""Ludwig's LudwigModel. It builds networks from a configuration; these are the layers of networks.py.

default: as it comes, but for batch size, rate and optimizer. fast: no evaluation, and no saving
of models, progress and logs. It has no bf16 on processors.
"""

from __future__ import annotations

import logging
from typing import Any

import networks
import numpy as np
import pandas
from ludwig.api import LudwigModel
from ludwig.callbacks import Callback
from worker import SAMPLE, Clock, Go, Job, Spent, serve

ROWS = 10_000
DENSE = {"type": "dense", "num_layers": 2, "activation": "relu"}


class Ticks(Callback):
    """Tells the clock of every batch."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_batch_start(self, trainer: Any, progress_tracker: Any, save_path: str | None) -> None:
        self.clock.tick()


def start(job: Job) -> Go:
    fast = job.setting == "fast"
    x, y_N = job.arrays()
    clock = Clock()
    if job.workload.form == "pictures":
        # A vector is a text for Ludwig; fewer of them are enough.
        texts = [" ".join(f"{value:.4f}" for value in row) for row in x[:ROWS].reshape(ROWS, -1).tolist()]
        frame = pandas.DataFrame({"x": texts, "y": y_N[:ROWS].astype(str)})
        inputs = [{"name": "x", "type": "vector", "encoder": {**DENSE, "output_size": 512}}]
        combiner: dict[str, Any] = {"type": "concat", "num_fc_layers": 0}
    else:
        frame = pandas.DataFrame({**{f"x{i}": x[:, i] for i in range(x.shape[1])}, "y": y_N.astype(str)})
        inputs = [{"name": f"x{i}", "type": "number"} for i in range(x.shape[1])]
        combiner = {"type": "concat", "num_fc_layers": 2, "output_size": 256, "activation": "relu"}
    config = {
        "input_features": inputs,
        "combiner": combiner,
        "output_features": [{"name": "y", "type": "category"}],
        "preprocessing": {"split": {"type": "random", "probabilities": [0.98, 0.01, 0.01]}},
        "backend": {"type": "local"},
    }
    trainer = {"batch_size": job.workload.batch, "learning_rate": networks.RATE, "optimizer": {"type": "adamw"}}
    data: Any = None

    def go(steps: int) -> tuple[Spent, float]:
        nonlocal data
        clock.begin(steps)
        setting = {**trainer, "train_steps": clock.needed + 1, "steps_per_checkpoint": 0, "epochs": 1000}
        if fast:
            setting |= {"skip_all_evaluation": True}
        model = LudwigModel({**config, "trainer": setting}, logging_level=logging.ERROR, callbacks=[Ticks(clock)])
        if data is None:
            data = model.preprocess(dataset=frame, skip_save_processed_input=True)
        quiet = dict.fromkeys(("skip_save_model", "skip_save_progress", "skip_save_log"), fast)
        model.train(
            training_set=data.training_set,
            validation_set=data.validation_set,
            test_set=data.test_set,
            training_set_metadata=data.training_set_metadata,
            output_directory=str(job.scratch),
            skip_save_processed_input=True,
            **quiet,
        )
        return clock.read(), _loss(model, frame[:SAMPLE])

    return go


def _loss(model: LudwigModel, frame: pandas.DataFrame) -> float:
    predictions, _ = model.predict(dataset=frame, skip_save_predictions=True)
    given = [predictions[f"y_probabilities_{label}"].iloc[row] for row, label in enumerate(frame["y"])]
    return float(-np.log(np.maximum(given, 1e-12)).mean())


if __name__ == "__main__":
    serve(start, "ludwig", "torch")
