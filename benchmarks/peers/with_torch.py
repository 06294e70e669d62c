"""A loop written by hand.

default: DataLoader over a TensorDataset, AdamW, float32. fast: a permutation and slices, fused AdamW, bf16 autocast,
channels-last pictures. fast-fp32: the same without autocast. clipped: fast-fp32, and the norm of the gradient is taken
and clipped, as sonde does it. compiled: fast and torch.compile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import networks
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from worker import Clock, Go, Job, Spent, serve


def start(job: Job) -> Go:
    fast = job.setting != "default"
    x, y = networks.tensors(job, fast=fast)
    net = networks.network(job, fast=fast)
    model = torch.compile(net) if job.setting == "compiled" else net
    optimizer = torch.optim.AdamW(net.parameters(), lr=networks.RATE, fused=fast or None)
    half = job.setting in ("fast", "compiled")
    clock = Clock()
    size = job.workload.batch
    loader = DataLoader(TensorDataset(x, y), batch_size=size, shuffle=True, drop_last=True)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            if fast:
                for chosen in torch.randperm(len(x))[: len(x) // size * size].split(size):
                    yield x[chosen], y[chosen]
            else:
                yield from loader

    endless = batches()

    def go(steps: int) -> tuple[Spent, float]:
        clock.begin(steps)
        for x_B, y_B in endless:
            clock.tick()
            if clock.done:
                break
            with torch.autocast("cpu", torch.bfloat16) if half else contextlib.nullcontext():
                value = functional.cross_entropy(model(x_B), y_B)
            optimizer.zero_grad()
            value.backward()
            if job.setting == "clipped":
                nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
        return clock.read(), networks.loss(net, x, y)

    return go


if __name__ == "__main__":
    serve(start, "torch")
