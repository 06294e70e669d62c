"""fastai: tabular_learner with its own layers (200, 100), Normalize and fit_one_cycle, batches of 1,024, no bars.

default: its own batches of 64 and its own rate.
"""

from __future__ import annotations

import numpy as np
import pandas
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.data.block import CategoryBlock
from fastai.data.transforms import IndexSplitter
from fastai.tabular.all import Normalize, TabularPandas, range_of, tabular_learner
from race_common import TRAIN, Race, Reached, auc, table

BATCH = 1024


class Evaluate(Callback):
    """The AUC after every epoch's own validation."""

    def __init__(self, race: Race, truth: np.ndarray) -> None:
        self.race, self.truth = race, truth

    def before_validate(self) -> None:
        self.scores: list[torch.Tensor] = []

    def after_pred(self) -> None:
        if not self.training:
            self.scores.append(self.pred.softmax(1)[:, 1])

    def after_validate(self) -> None:
        try:
            self.race.note(auc(torch.cat(self.scores).numpy(), self.truth))
        except Reached:
            raise CancelFitException from None


def main() -> None:
    race = Race()
    torch.manual_seed(race.seed)
    race.start()
    x, y_N = table(race)
    names = [f"x{i}" for i in range(x.shape[1])]
    frame = pandas.DataFrame(x, columns=names).assign(y=y_N)
    prepared = TabularPandas(
        frame,
        procs=[Normalize],
        cont_names=names,
        y_names="y",
        y_block=CategoryBlock(),
        splits=IndexSplitter(list(range(TRAIN, len(frame))))(range_of(frame)),
    )
    default = race.setting == "default"
    loaders = prepared.dataloaders() if default else prepared.dataloaders(bs=BATCH)
    learner = tabular_learner(loaders, cbs=Evaluate(race, y_N[TRAIN:]))
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(race.epochs, None if default else 1e-2)
    race.tell()


if __name__ == "__main__":
    main()
