"""Lightning: an MLP of 256-256 on standardized numbers, AdamW and one-cycle, barebones, batches of 1,024 whole.

default: a DataLoader over a TensorDataset, batches of 64, AdamW at its own rate, the Trainer with all that it does.
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from typing import Any

import lightning
import networks
import torch
from lightning.pytorch import Trainer
from race_common import TRAIN, Race, Reached, auc, table
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

BATCH = 1024


class Module(lightning.LightningModule):
    def __init__(self, race: Race, steps: int) -> None:
        super().__init__()
        self.race, self.steps = race, steps
        self.net = nn.Sequential(
            nn.Linear(30, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1), nn.Flatten(0)
        )

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return functional.binary_cross_entropy_with_logits(self.net(batch[0]), batch[1])

    def on_validation_epoch_start(self) -> None:
        self.answers: list[tuple[Tensor, Tensor]] = []

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self.answers.append((self.net(batch[0]), batch[1]))

    def on_validation_epoch_end(self) -> None:
        scores, truth = (torch.cat(parts).float().numpy() for parts in zip(*self.answers, strict=True))
        self.race.note(auc(scores, truth))

    def configure_optimizers(self) -> Any:
        if self.race.setting == "default":
            return torch.optim.AdamW(self.parameters())
        optimizer = torch.optim.AdamW(self.parameters(), lr=4e-3, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main() -> None:
    warnings.filterwarnings("ignore")
    race = Race()
    torch.manual_seed(race.seed)
    race.start()
    x, y_N = table(race)
    x = (x - x[:TRAIN].mean(0)) / x[:TRAIN].std(0)
    x, y = torch.from_numpy(x), torch.from_numpy(y_N).float()
    loaders = [
        DataLoader(TensorDataset(x[part], y[part]), 64, shuffle=shuffle)
        if race.setting == "default"
        else DataLoader(networks.Sliced(x[part], y[part]), BATCH, shuffle=shuffle, collate_fn=networks.whole)
        for part, shuffle in ((slice(0, TRAIN), True), (slice(TRAIN, None), False))
    ]
    module = Module(race, race.epochs * len(loaders[0]))
    settings: dict[str, Any] = {"barebones": True}
    place = tempfile.TemporaryDirectory()
    if race.setting == "default":
        settings = {"default_root_dir": place.name, "enable_progress_bar": False, "num_sanity_val_steps": 0}
    with place, contextlib.suppress(Reached):
        Trainer(accelerator="cpu", max_epochs=race.epochs, **settings).fit(module, *loaders)
    race.tell()


if __name__ == "__main__":
    main()
