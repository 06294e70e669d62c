"""From noise to data, step by step: Euler, Heun, DDIM. B example.

All follow the path on which a network's data and noise are the two ends; Euler's step on it is DDIM's without fresh
noise.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from sonde.targets.noise.process import Level, Process

Sampler = Literal["euler", "heun", "ddim"]
# What the network makes of a mixture at a level: data and noise.
Parts = Callable[[Tensor, Level], tuple[Tensor, Tensor]]


def sample(
    start: Tensor,
    process: Process,
    parts: Parts,
    *,
    sampler: Sampler,
    steps: int,
    eta: float = 0.0,
    fresh: Callable[[int], Tensor] | None = None,
) -> Tensor:
    """Data from noise `start` (B, ...) in so many steps.

    `eta` is how much fresh noise DDIM adds, `fresh(step)` gives it: 0 none, 1 as much as DDPM (Song et al. 2021). Heun
    (Karras et al. 2022) asks the network twice a step, but for the last one.
    """
    here = start
    for number, (now, then) in enumerate(pairwise(process.levels(steps))):
        data, noise = parts(here, now)
        if sampler == "ddim" and eta > 0 and fresh is not None:
            here = _with_fresh_noise(data, noise, now, then, eta, fresh(number))
            continue
        ahead = then.signal * data + then.noise * noise
        if sampler == "heun" and float(then.noise) > 0:
            ahead = _corrected(here, ahead, (data, noise), parts(ahead, then), process, now, then)
        here = ahead
    return here


def _corrected(
    here: Tensor,
    ahead: Tensor,
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
    process: Process,
    now: Level,
    then: Level,
) -> Tensor:
    """The step with the mean of the directions at both of its ends."""
    if process.name == "flow":
        direction = (first[1] - first[0] + second[1] - second[0]) / 2
        return here + (then.time - now.time) * direction
    # Signal and noise are cosine and sine of an angle, by which what there is changes at the rate of the velocity.
    angles = [torch.atan2(each.noise, each.signal) for each in (now, then)]
    velocities = [level.signal * noise - level.noise * data for level, (data, noise) in ((now, first), (then, second))]
    return here + (angles[1] - angles[0]) * (velocities[0] + velocities[1]) / 2


def _with_fresh_noise(data: Tensor, noise: Tensor, now: Level, then: Level, eta: float, fresh: Tensor) -> Tensor:
    """A step of DDIM (Song et al. 2021, equations 12 and 16)."""
    spread = eta * then.noise / now.noise * (1 - (now.signal / then.signal) ** 2).clamp_min(0).sqrt()
    left = (then.noise**2 - spread**2).clamp_min(0).sqrt()
    return then.signal * data + left * noise + spread * fresh
