"""What torch peers share in the races of pictures: the network, which is sonde's CNN layer by layer, and the data."""

from __future__ import annotations

import time

import torch
from race_common import Race, pictures
from torch import Tensor, nn
from torch.utils.data import Dataset

# Fashion-MNIST: the better of two that were tried. Flowers: not tuned.
RATE = {"fashion": 0.01, "flowers": 0.005}
BATCH = {"fashion": 256, "flowers": 64}
SMOOTHING = 0.1
WIDTHS = {"fashion": ((32,), (64, 64), (128, 128), (256,)), "flowers": ((32,), (64, 64), (128, 128), (256, 256))}


def network(race: Race, channels: int, classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    stages = WIDTHS[race.name]
    for number, stage in enumerate(stages, start=1):
        for place, width in enumerate(stage, start=1):
            layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=False))
            if place == len(stage) and number < len(stages):
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(channels, classes))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def half(race: Race) -> bool:
    """Whether bf16 autocast makes a step quicker on this machine: tried before the clock starts."""
    size, channels, side = BATCH[race.name], *((1, 28) if race.name == "fashion" else (3, 64))
    net = network(race, channels, 10)
    x = torch.randn(size, channels, side, side).contiguous(memory_format=torch.channels_last)
    best = {False: float("inf"), True: float("inf")}
    for turn in range(5):
        for enabled in best:
            started = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                value = net(x).float().square().mean()
            value.backward()
            if turn:
                best[enabled] = min(best[enabled], time.perf_counter() - started)
    return best[True] < best[False]


def prepared(race: Race) -> list[Tensor]:
    """To train: standardized float32 (N, C, H, W), for flowers uint8, and int64 (N,); then the same to test."""
    x, y, x_test, y_test = map(torch.from_numpy, pictures(race))
    if race.name == "fashion":
        x, x_test = (standardized(part, x) for part in (x, x_test))
    return [x, y, x_test, y_test]


def standardized(x: Tensor, train: Tensor) -> Tensor:
    sample = train[:1000].float()
    mean, deviation = sample.mean((0, 2, 3), keepdim=True)[0], sample.std((0, 2, 3), keepdim=True)[0]
    return x.float().sub_(mean).div_(deviation).contiguous(memory_format=torch.channels_last)


class Augmented(Dataset):
    """Batches taken whole (`__getitems__`); photos are augmented one by one, as torchvision's transforms do it."""

    def __init__(self, race: Race, x: Tensor, y: Tensor, *, training: bool = True) -> None:
        self.x, self.y, self.change = x, y, None
        if race.name == "flowers":
            from torchvision.transforms import v2

            self.train = x
            if training:
                self.change = v2.Compose(
                    [
                        v2.RandomResizedCrop(64, scale=(0.5, 1.0), ratio=(0.85, 1.18), antialias=True),
                        v2.RandomHorizontalFlip(),
                        v2.ColorJitter(0.2, 0.2, 0.2),
                        v2.RandomErasing(value=128),
                    ]
                )

    def __len__(self) -> int:
        return len(self.x)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        chosen = torch.tensor(indices)
        x_B = self.x[chosen]
        if self.change is not None:
            x_B = torch.stack([self.change(one) for one in x_B])
        if x_B.dtype == torch.uint8:
            x_B = x_B.float().sub_(110).div_(70).contiguous(memory_format=torch.channels_last)
        return x_B, self.y[chosen]
