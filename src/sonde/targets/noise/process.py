"""How data turn into noise, and what a network tells of it. B example.

At time t from 0 (data) to 1 (noise) there is `signal * data + noise * eps`, with eps normal:

- flow matching (Lipman et al. 2023; rectified flow, Liu et al. 2023): signal 1 - t, noise t;
- DDPM (Ho et al. 2020): 1,000 steps in which variance is kept, signal^2 + noise^2 = 1.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

ProcessName = Literal["flow", "ddpm"]
Predicts = Literal["velocity", "noise"]
ScheduleName = Literal["cosine", "linear"]
# Steps of DDPM.
STEPS = 1000


@dataclass(frozen=True, kw_only=True)
class Level:
    """How much data and how much noise there is, and the time that a network is told: (B,) or 0-d each."""

    signal: Tensor
    noise: Tensor
    time: Tensor

    def over(self, dimensions: int) -> tuple[Tensor, Tensor]:
        """Signal and noise (B, 1, ...) for grids of so many axes beside that of the examples."""
        shape = (-1, *[1] * dimensions)
        return self.signal.reshape(shape), self.noise.reshape(shape)


@dataclass(frozen=True, kw_only=True)
class Process:
    """A way from data to noise, and what the network predicts on it."""

    name: ProcessName
    predicts: Predicts
    schedule: ScheduleName = "cosine"

    def level(self, time: Tensor) -> Level:
        """What there is at times in [0, 1], (B,)."""
        if self.name == "flow":
            return Level(signal=1 - time, noise=time, time=time)
        step = (time * STEPS).long().clamp(0, STEPS - 1)
        kept = kept_signal(self.schedule).to(time.device)[step]
        return Level(signal=kept.sqrt().float(), noise=(1 - kept).sqrt().float(), time=step.float() / STEPS)

    def levels(self, steps: int) -> list[Level]:
        """The levels from noise to data in so many steps; the last one is data, without noise."""
        if self.name == "flow":
            return [self.level(time) for time in torch.linspace(1, 0, steps + 1)]
        # "Trailing" times (Lin et al. 2024): sampling starts from as much noise as training ended with.
        places = torch.round(torch.arange(STEPS, 0, -STEPS / steps, dtype=torch.float64)[:steps]) - 1
        done = Level(signal=torch.ones(()), noise=torch.zeros(()), time=torch.zeros(()))
        return [*(self.level(((place + 0.5) / STEPS).float()) for place in places), done]

    def mixed(self, data: Tensor, eps: Tensor, level: Level) -> Tensor:
        signal, noise = level.over(data.ndim - 1)
        return signal * data + noise * eps

    def truth(self, data: Tensor, eps: Tensor, level: Level) -> Tensor:
        """What the network is to predict: the noise, or the velocity: for flow matching d/dt of what there is, for DDPM
        v of Salimans and Ho 2022."""
        if self.predicts == "noise":
            return eps
        if self.name == "flow":
            return eps - data
        signal, noise = level.over(data.ndim - 1)
        return signal * eps - noise * data

    def parts(self, answer: Tensor, mixed: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """Data and noise as the network's answer has them."""
        signal, noise = level.over(mixed.ndim - 1)
        if self.name == "flow":
            return mixed - noise * answer, mixed + signal * answer
        if self.predicts == "noise":
            return (mixed - noise * answer) / signal, answer
        return signal * mixed - noise * answer, noise * mixed + signal * answer


@functools.cache
def kept_signal(schedule: ScheduleName) -> Tensor:
    """The share of the data's variance that is left after each step of DDPM, float64 (STEPS,).

    "linear": Ho et al. 2020; "cosine": Nichol and Dhariwal 2021.
    """
    if schedule == "linear":
        lost = torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64)
    else:
        place = torch.arange(STEPS + 1, dtype=torch.float64) / STEPS
        kept = torch.cos((place + 0.008) / 1.008 * math.pi / 2) ** 2
        lost = (1 - kept[1:] / kept[:-1]).clamp(max=0.999)
    return (1 - lost).cumprod(0)


def time_features(time: Tensor, width: int) -> Tensor:
    """Sines and cosines of 1,000 times the time at `width` / 2 wavelengths, (B, width) (Ho et al. 2020)."""
    half = width // 2
    rate = torch.exp(-math.log(10_000.0) * torch.arange(half, device=time.device) / half)
    angle = 1000 * time[:, None] * rate
    return torch.cat([angle.cos(), angle.sin()], dim=1)
