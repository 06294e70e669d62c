"""Lightning: the network of pictures.py, AdamW and one-cycle, label smoothing, barebones, batches taken whole; bf16
where it is quicker.

For flowers the batch is flipped, shifted, zoomed and coloured by torchvision's transforms (v2), in the data set.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import lightning
import torch
from lightning.pytorch import Trainer
from pictures import BATCH, RATE, SMOOTHING, Augmented, half, network, prepared
from race_common import Race, Reached
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader


class Module(lightning.LightningModule):
    def __init__(self, race: Race, channels: int, classes: int, steps: int) -> None:
        super().__init__()
        self.race, self.steps = race, steps
        self.net = network(race, channels, classes)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return functional.cross_entropy(self.net(batch[0]), batch[1], label_smoothing=SMOOTHING)

    def on_validation_epoch_start(self) -> None:
        self.right: list[Tensor] = []

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self.right.append(self.net(batch[0]).argmax(1) == batch[1])

    def on_validation_epoch_end(self) -> None:
        self.race.note(torch.cat(self.right).float().mean().item())

    def configure_optimizers(self) -> Any:
        rate = RATE[self.race.name]
        optimizer = torch.optim.AdamW(self.parameters(), lr=rate, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main() -> None:
    warnings.filterwarnings("ignore")
    race = Race()
    precision = "bf16-mixed" if half(race) else "32-true"
    torch.manual_seed(race.seed)
    race.start()
    x, y, x_test, y_test = prepared(race)
    train, test = Augmented(race, x, y), Augmented(race, x_test, y_test, training=False)
    size = BATCH[race.name]
    loaders = [
        DataLoader(train, size, shuffle=True, drop_last=True, collate_fn=lambda batch: batch),
        DataLoader(test, 1000, collate_fn=lambda batch: batch),
    ]
    module = Module(race, x.shape[1], int(y.max()) + 1, race.epochs * len(loaders[0]))
    with contextlib.suppress(Reached):
        Trainer(accelerator="cpu", max_epochs=race.epochs, barebones=True, precision=precision).fit(module, *loaders)
    race.tell()


if __name__ == "__main__":
    main()
