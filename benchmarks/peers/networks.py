"""The networks, in plain torch, that sonde and every torch peer train; and what those peers share.

B example, C channel, H row, W column, T position. Pictures come as (B, C, H, W), tokens as (B, T), numbers as (B, C).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset
from worker import SAMPLE, Clock, Job
from workloads import LENGTH, VOCABULARY, Workload

RATE = 1e-3


def build(workload: Workload, vocabulary: int = VOCABULARY) -> nn.Module:
    """The workload's network. with_keras.py writes the same layers."""
    torch.manual_seed(0)
    classes = workload.classes
    if workload.name == "mlp":
        return nn.Sequential(
            nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, classes)
        )
    if workload.form == "pictures":
        side, _, channels = workload.shape
        return nn.Sequential(
            *(nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Flatten()),
            nn.Linear(64 * (side // 4) ** 2, classes),
        )
    if workload.name == "transformer":
        return Encoder(vocabulary, classes)
    if workload.name == "lstm":
        return Recurrent(vocabulary, classes)
    return nn.Sequential(nn.Linear(30, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, classes))


class Encoder(nn.Module):
    """Two pre-norm layers of 4 heads, width 128; the mean over positions answers."""

    def __init__(self, vocabulary: int, classes: int, width: int = 128) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(torch.randn(LENGTH, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return self.head(self.layers(self.tokens(tokens_BT) + self.places).mean(1))


class Recurrent(nn.Module):
    """One LSTM of width 128 over embeddings of 64; the last state answers."""

    def __init__(self, vocabulary: int, classes: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, 64)
        self.lstm = nn.LSTM(64, 128, batch_first=True)
        self.head = nn.Linear(128, classes)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return self.head(self.lstm(self.tokens(tokens_BT))[0][:, -1])


def tensors(job: Job, *, fast: bool) -> tuple[Tensor, Tensor]:
    """All of x and y; fast: pictures in the memory order that convolutions like."""
    x, y_N = job.arrays()
    x = torch.from_numpy(x)
    if job.workload.form == "pictures":
        x = x.permute(0, 3, 1, 2)
        x = x if fast else x.contiguous()
    return x, torch.from_numpy(y_N)


def network(job: Job, *, fast: bool) -> nn.Module:
    net = build(job.workload)
    return net.to(memory_format=torch.channels_last) if fast and job.workload.form == "pictures" else net  # type: ignore[call-overload]


def loss(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """The loss on the first examples: shows that training took place."""
    with torch.no_grad():
        return functional.cross_entropy(net(x[:SAMPLE]).float(), y[:SAMPLE]).item()


class Timed(nn.Module):
    """A network that tells the clock of every forward pass."""

    def __init__(self, net: nn.Module, clock: Clock) -> None:
        super().__init__()
        self.net = net
        self.clock = clock

    def forward(self, x: Tensor) -> Tensor:
        self.clock.tick()
        return self.net(x)


class Sliced(Dataset):
    """Tensors that a DataLoader takes a batch at a time (`__getitems__`); use it with `collate_fn=whole`."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index], self.y[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        chosen = torch.tensor(indices)
        return self.x[chosen], self.y[chosen]


def whole(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch
