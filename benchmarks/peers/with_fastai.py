"""fastai's Learner.

default: DataLoaders.from_dsets, its own Adam with decoupled decay, Recorder and progress. fast: no Recorder and no
progress, torch's fused AdamW, bf16 autocast, channels-last pictures, batches taken whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

import networks
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.progress import ProgressCallback
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner, Recorder
from fastai.metrics import accuracy
from fastai.optimizer import OptimWrapper
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from worker import Clock, Go, Job, Spent, serve


class Whole(DataLoader):
    """Takes a batch with one index, as fastai's own loader of tables does."""

    def create_batches(self, samps: Iterator[int]) -> Iterator[tuple[Tensor, Tensor]]:
        for indices in self.get_idxs_batches(samps):
            yield self.dataset.__getitems__(indices)

    def get_idxs_batches(self, samps: Iterator[int]) -> Iterator[list[int]]:
        indices = list(samps)
        for start in range(0, len(indices) - self.bs + 1, self.bs):
            yield indices[start : start + self.bs]


class Autocast(Callback):
    """fastai's own MixedPrecision is for GPUs."""

    def before_batch(self) -> None:
        self.context = torch.autocast("cpu", torch.bfloat16)
        self.context.__enter__()

    def after_loss(self) -> None:
        self.leave()

    def after_cancel_fit(self) -> None:
        self.leave()

    def leave(self) -> None:
        if self.context is not None:
            self.context.__exit__(None, None, None)
            self.context = None


class Stop(Callback):
    """Ends the fit when the clock has what it wants."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def after_batch(self) -> None:
        if self.clock.done:
            raise CancelFitException


def start(job: Job) -> Go:
    fast = job.setting != "default"
    x, y = networks.tensors(job, fast=fast)
    net = networks.network(job, fast=fast)
    clock = Clock()
    size = job.workload.batch
    held_out = TensorDataset(x[:size], y[:size])
    if fast:
        data = DataLoaders(
            Whole(networks.Sliced(x, y), bs=size, shuffle=True, drop_last=True, num_workers=0, n=len(x)),
            DataLoader(held_out, bs=size, num_workers=0),
            device="cpu",
        )
        optimizer = partial(OptimWrapper, opt=torch.optim.AdamW, fused=True)
    else:
        data = DataLoaders.from_dsets(TensorDataset(x, y), held_out, bs=size, device="cpu")
    learner = Learner(
        data,
        networks.Timed(net, clock),
        loss_func=nn.CrossEntropyLoss(),
        lr=networks.RATE,
        cbs=[Stop(clock), *([Autocast()] if job.setting == "fast" else [])],
        path=job.scratch,
        **({"opt_func": optimizer} if fast else {"metrics": accuracy}),
    )
    if fast:
        learner.remove_cbs([ProgressCallback, Recorder])

    def go(steps: int) -> tuple[Spent, float]:
        clock.begin(steps)
        with learner.no_logging() if fast else contextlib.nullcontext():
            while not clock.done:
                learner.fit(1)
        net.eval()
        return clock.read(), networks.loss(net, x, y)

    return go


if __name__ == "__main__":
    serve(start, "fastai", "torch")
