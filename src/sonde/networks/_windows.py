"""Grids that are larger than what a network sees at once: answers from windows that overlap.

B example, N window, K answer, D axis.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from sonde.contracts.columns import Tensors
from sonde.contracts.specs import OutputSpec

# Windows lie half over each other; each answers best in its middle: a bell whose deviation is this share of its side
# (both as in nnU-Net, Isensee et al. 2021). At its corners it still counts a little.
OVERLAP, DEVIATION, LEAST = 0.5, 1 / 8, 1e-3
# Windows that are answered for at once.
AT_ONCE = 4


def whole_grid(inputs: Mapping[str, Tensors], outputs: Mapping[str, OutputSpec]) -> str | None:
    """The input whose pixels are answered for, where it gives whole grids with their "shape"."""
    for name, output in outputs.items():
        if output.chosen == "pixel" and output.width and "shape" in inputs[name]:
            return name
    return None


def slide(
    answer: Callable[[Mapping[str, Tensors]], Tensor], inputs: Mapping[str, Tensors], name: str, size: tuple[int, ...]
) -> Tensor:
    """The answers (B, K, *largest) for whole grids, from windows of `size`; beyond the shape of an example they are 0.

    Where windows lie is a matter of an example's own shape, so that no example sees its batch. A grid smaller than a
    window lies in the middle of one, zeros around it.
    """
    grid, shapes = inputs[name]["grid"], inputs[name]["shape"].tolist()
    whole = [grid[(slice(index, index + 1), slice(None), *map(slice, shape))] for index, shape in enumerate(shapes)]
    padded = [_padded(each, size) for each in whole]
    places = [(index, start) for index, each in enumerate(padded) for start in starts(tuple(each.shape[2:]), size)]
    bell = _bell(size, grid.device)
    totals: list[Tensor] = []
    weights = [torch.zeros(each.shape[2:], device=grid.device) for each in padded]
    for first in range(0, len(places), AT_ONCE):
        some = places[first : first + AT_ONCE]
        windows = torch.cat([padded[index][_box(start, size)] for index, start in some])
        found = answer(_beside(inputs, name, windows, [index for index, _ in some])).float()
        if not totals:
            totals = [found.new_zeros(1, found.shape[1], *each.shape[2:]) for each in padded]
        for (index, start), each in zip(some, found, strict=True):
            totals[index] = _added(totals[index], each * bell, start)
            weights[index][_box(start, size)[2:]] += bell
    answers = grid.new_zeros(len(grid), totals[0].shape[1], *grid.shape[2:], dtype=torch.float32)
    for index, shape in enumerate(shapes):
        inner = _middle(totals[index] / weights[index], shape)
        answers[(slice(index, index + 1), slice(None), *map(slice, shape))] = inner
    return answers


def starts(shape: tuple[int, ...], size: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Where windows of `size` begin: evenly along each axis, from border to border, at most half a window apart."""
    along = []
    for length, side in zip(shape, size, strict=True):
        count = 1 + math.ceil((length - side) / (side * (1 - OVERLAP)))
        step = (length - side) / max(1, count - 1)
        along.append([round(number * step) for number in range(count)])
    return list(itertools.product(*along))


def _box(start: tuple[int, ...], size: tuple[int, ...]) -> tuple[slice, ...]:
    return (slice(None), slice(None), *(slice(at, at + side) for at, side in zip(start, size, strict=True)))


def _padded(grid: Tensor, size: tuple[int, ...]) -> Tensor:
    lacks = [max(0, side - length) for length, side in zip(grid.shape[2:], size, strict=True)]
    if not any(lacks):
        return grid
    return functional.pad(grid, [pad for lack in reversed(lacks) for pad in (lack // 2, lack - lack // 2)])


def _middle(grid: Tensor, shape: list[int]) -> Tensor:
    """What `_padded` had of its own."""
    before = [(length - side) // 2 for length, side in zip(grid.shape[2:], shape, strict=True)]
    return grid[(slice(None), slice(None), *(slice(at, at + side) for at, side in zip(before, shape, strict=True)))]


def _added(total: Tensor, part: Tensor, start: tuple[int, ...]) -> Tensor:
    """A part added to its place; in place where no gradient is asked for."""
    box = _box(start, tuple(part.shape[1:]))
    if not part.requires_grad:
        total[box] += part
        return total
    wide = torch.zeros_like(total)
    wide[box] = part
    return total + wide


def _bell(size: tuple[int, ...], device: torch.device) -> Tensor:
    bell = torch.ones((), device=device)
    for side in size:
        place = (torch.arange(side, device=device) + 0.5) / side - 0.5
        bell = bell[..., None] * (-0.5 * (place / DEVIATION) ** 2).exp()
    return (bell / bell.amax()).clamp_min(LEAST)


def _beside(inputs: Mapping[str, Tensors], name: str, windows: Tensor, examples: list[int]) -> dict[str, Tensors]:
    """The windows, and of every other input the example that each window is of."""
    index = torch.tensor(examples, device=windows.device)
    others = {
        each: {key: value.index_select(0, index) for key, value in tensors.items()}
        for each, tensors in inputs.items()
        if each != name
    }
    return {**others, name: {"grid": windows}}
