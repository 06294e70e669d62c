"""Lightning's Trainer.

default: logger, checkpoints and progress bar as they come, the loss logged, a TensorDataset. fast: `barebones`,
bf16-mixed, fused AdamW, channels-last pictures, batches taken whole.
"""

from __future__ import annotations

import warnings

import lightning
import networks
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from worker import Clock, Go, Job, Spent, serve


class Module(lightning.LightningModule):
    def __init__(self, net: torch.nn.Module, clock: Clock, fast: bool) -> None:
        super().__init__()
        self.net, self.clock, self.fast = net, clock, fast

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.clock.tick()
        x_B, y_B = batch
        loss = functional.cross_entropy(self.net(x_B), y_B)
        if not self.fast:
            self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=networks.RATE, fused=self.fast or None)


def start(job: Job) -> Go:
    warnings.filterwarnings("ignore")
    fast = job.setting != "default"
    precision = "bf16-mixed" if job.setting == "fast" else "32-true"
    x, y = networks.tensors(job, fast=fast)
    net = networks.network(job, fast=fast)
    clock = Clock()
    module = Module(net, clock, fast)
    size = job.workload.batch
    if fast:
        loader = DataLoader(networks.Sliced(x, y), size, shuffle=True, drop_last=True, collate_fn=networks.whole)
    else:
        loader = DataLoader(TensorDataset(x, y), size, shuffle=True, drop_last=True)

    def go(steps: int) -> tuple[Spent, float]:
        clock.begin(steps)
        if fast:
            trainer = Trainer(accelerator="cpu", max_steps=clock.needed, barebones=True, precision=precision)
        else:
            trainer = Trainer(accelerator="cpu", max_steps=clock.needed, default_root_dir=job.scratch)
        trainer.fit(module, loader)
        net.eval()
        return clock.read(), networks.loss(net, x, y)

    return go


if __name__ == "__main__":
    serve(start, "lightning", "torch")
