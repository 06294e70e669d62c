"""skorch's NeuralNetClassifier.

default: arrays, its own split for validation and its log of epochs. fast: no split, no callbacks, fused AdamW, bf16
autocast, channels-last pictures, batches taken whole.
"""

from __future__ import annotations

from typing import Any

import networks
import torch
from skorch import NeuralNetClassifier
from torch import Tensor, nn
from torch.utils.data import DataLoader
from worker import Clock, Go, Job, Spent, serve


class Half(NeuralNetClassifier):
    def infer(self, x: Tensor, **parameters: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return super().infer(x, **parameters)

    def get_loss(self, y_pred: Tensor, y_true: Tensor, *rest: Any, **named: Any) -> Tensor:
        return super().get_loss(y_pred.float(), y_true, *rest, **named)


class Stopping(networks.Timed):
    """skorch takes an interrupt as the wish to end this fit, and keeps what was learnt."""

    def forward(self, x: Tensor) -> Tensor:
        if self.clock.done:
            raise KeyboardInterrupt
        return super().forward(x)


def start(job: Job) -> Go:
    fast = job.setting != "default"
    x, y = networks.tensors(job, fast=fast)
    net = networks.network(job, fast=fast)
    clock = Clock()
    common = {
        "module": Stopping(net, clock),
        "criterion": nn.CrossEntropyLoss,
        "optimizer": torch.optim.AdamW,
        "lr": networks.RATE,
        "batch_size": job.workload.batch,
        "max_epochs": 10**6,
        "iterator_train__shuffle": True,
        "iterator_train__drop_last": True,
        "classes": list(range(job.workload.classes)),
    }
    if fast:
        model = (Half if job.setting == "fast" else NeuralNetClassifier)(
            **common,
            train_split=None,
            callbacks="disable",
            optimizer__fused=True,
            dataset=networks.Sliced,
            iterator_train=DataLoader,
            iterator_train__collate_fn=networks.whole,
        )
        given: tuple[Any, Any] = (x, y)
    else:
        model = NeuralNetClassifier(**common)
        given = (x.numpy(), y.numpy())
    model.initialize()

    def go(steps: int) -> tuple[Spent, float]:
        clock.begin(steps)
        model.partial_fit(*given)
        net.eval()
        return clock.read(), networks.loss(net, x, y)

    return go


if __name__ == "__main__":
    serve(start, "skorch", "torch")
