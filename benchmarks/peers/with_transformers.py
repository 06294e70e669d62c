"""Hugging Face's Trainer.

default: a data set of dicts, default_data_collator, logging and saving every 500 steps. fast: bf16, fused AdamW, no
clipping, saving, logging or progress bar, channels-last pictures, batches taken whole.
"""

from __future__ import annotations

import networks
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments
from worker import Clock, Go, Job, Spent, serve


class Dicts(Dataset):
    """Examples in the form that the Trainer's documentation has them."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "labels": self.y[index]}


class WholeDicts(Dicts):
    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        return self[torch.tensor(indices)]  # type: ignore[index]


def whole(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return batch


class Model(nn.Module):
    """The Trainer wants the loss from the model."""

    def __init__(self, net: nn.Module, clock: Clock) -> None:
        super().__init__()
        self.net, self.clock = net, clock

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        self.clock.tick()
        logits = self.net(x)
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


def start(job: Job) -> Go:
    fast = job.setting != "default"
    x, y = networks.tensors(job, fast=fast)
    net = networks.network(job, fast=fast)
    clock = Clock()
    model = Model(net, clock)
    if fast:
        quiet = {
            "bf16": job.setting == "fast",
            "optim": "adamw_torch_fused",
            "save_strategy": "no",
            "logging_strategy": "no",
            "disable_tqdm": True,
            "max_grad_norm": 0.0,
            "remove_unused_columns": False,
        }
    else:
        quiet = {}

    def go(steps: int) -> tuple[Spent, float]:
        clock.begin(steps)
        arguments = TrainingArguments(
            output_dir=str(job.scratch),
            use_cpu=True,
            report_to="none",
            learning_rate=networks.RATE,
            lr_scheduler_type="constant",
            per_device_train_batch_size=job.workload.batch,
            dataloader_drop_last=True,
            max_steps=clock.needed,
            **quiet,
        )
        dataset = WholeDicts(x, y) if fast else Dicts(x, y)
        trainer = Trainer(model=model, args=arguments, train_dataset=dataset, data_collator=whole if fast else None)
        trainer.train()
        net.eval()
        return clock.read(), networks.loss(net, x, y)

    return go


if __name__ == "__main__":
    serve(start, "transformers", "accelerate", "torch")
