"""Ludwig: its own defaults for numbers and a binary answer, batches of 1,024, no saving of models and logs."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from typing import Any

import numpy as np
import pandas
from ludwig.api import LudwigModel
from ludwig.callbacks import Callback
from race_common import TRAIN, Race, Reached

BATCH = 1024


class Watch(Callback):
    def __init__(self, race: Race) -> None:
        self.race = race

    def on_eval_end(self, trainer: Any, progress_tracker: Any, save_path: str | None) -> None:
        found = progress_tracker.validation_metrics["y"]["roc_auc"]
        if found:
            value = found[-1]
            self.race.note(float(value[-1] if isinstance(value, tuple) else value))


def main() -> None:
    race = Race()
    race.start()
    frame = pandas.read_csv(race.folder / "table.csv")
    frame["y"] = frame["y"].astype(bool)
    frame["split"] = np.where(np.arange(len(frame)) < TRAIN, 0, 1)
    config = {
        "input_features": [{"name": name, "type": "number"} for name in frame.columns if name.startswith("x")],
        "output_features": [{"name": "y", "type": "binary"}],
        "preprocessing": {"split": {"type": "fixed", "column": "split"}},
        "trainer": {"epochs": race.epochs, "batch_size": BATCH, "early_stop": 0},
        "backend": {"type": "local"},
    }
    model = LudwigModel(config, logging_level=logging.ERROR, callbacks=[Watch(race)])
    with tempfile.TemporaryDirectory() as place, contextlib.suppress(Reached):
        model.train(
            dataset=frame,
            output_directory=place,
            skip_save_processed_input=True,
            skip_save_model=True,
            skip_save_progress=True,
            skip_save_log=True,
        )
    race.tell()


if __name__ == "__main__":
    main()
