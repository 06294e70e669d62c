"""From features to answers: the standard head, for every kind of answer and for several inputs.

B example, T position, N chosen position, W width, H row, W column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from sonde.contracts.backbone import Backbone
from sonde.contracts.specs import Features, InputSpec, OutputSpec
from sonde.networks._layers import batch_norm, convolution, initialize

# Common width of the levels of a feature pyramid.
PYRAMID = 128


class StandardHead(nn.Module):
    """Features of one or several inputs to `width` answers: per example, position or node a linear layer, per pixel
    1x1 convolutions.

    Inputs that are all answered for per example are fused; where one has positions, pixels or nodes, the features of
    the others are added to each of them. A backbone that lends the weight of its embedding answers with that.
    """

    def __init__(
        self, specs: Mapping[str, InputSpec], outputs: Mapping[str, OutputSpec], backbones: Mapping[str, Backbone]
    ) -> None:
        super().__init__()
        parts = [name for name, output in outputs.items() if output.chosen != "example"]
        # Those that steer another backbone are in its features already.
        steered = any(output.condition for output in outputs.values())
        self.main = parts[0] if parts else next(iter(outputs))
        self.others = [] if steered else [name for name in outputs if name != self.main]
        width = backbones[self.main].width
        self.fusion: nn.Module | None = None
        self.broadcast: nn.Module | None = None
        if self.others and not parts:
            self.fusion = Fusion([_number(backbones[name].width) for name in outputs])
            self.others = list(outputs)
            width = self.fusion.width
        elif self.others:
            self.broadcast = Broadcast([_number(backbones[name].width) for name in self.others], width)
        # Not registered a second time: a network answers with the weights that its embedding has.
        self.tied: tuple[Backbone, ...] = ()
        if backbones[self.main].embedding_weight is not None:
            self.tied = (backbones[self.main],)
        self.answer: nn.Module | None = None
        if not self.tied:
            answers = outputs[self.main].width
            dimensions = len(specs[self.main].size)
            self.answer = pixelwise(width, answers, dimensions) if isinstance(width, tuple) else linear(width, answers)

    def forward(self, features: Mapping[str, Features], at_N: Tensor | None = None) -> Tensor:
        """(B, width), (B, T, width), (M, width) or (B, width, *size).

        Per position `at_N` int64 counts chosen positions through the whole batch (example * T + position): then the
        answers are (N, width), so that padding costs no answer over a large vocabulary.
        """
        main = features[self.main]
        values = main.values
        if self.fusion is not None:
            values = self.fusion([features[name].values for name in self.others])
        elif self.broadcast is not None:
            values = self.broadcast(values, [features[name].values for name in self.others], main.length_B)
        if at_N is not None:
            assert isinstance(values, Tensor)
            values = values.flatten(0, 1).index_select(0, at_N)
        if self.answer is None:
            weight = self.tied[0].embedding_weight
            assert weight is not None
            assert isinstance(values, Tensor)
            return functional.linear(values, weight)
        answer = self.answer(values)
        return resize(answer, main.size) if main.size else answer


def _number(width: int | tuple[int, ...]) -> int:
    assert isinstance(width, int)
    return width


def linear(width: int, answers: int) -> nn.Linear:
    """The head per example and per position. It starts out small: first answers are close to "don't know"."""
    head = nn.Linear(width, answers)
    nn.init.normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    return head


def pixelwise(widths: tuple[int, ...], answers: int, dimensions: int) -> nn.Module:
    """The head per pixel: one grid needs a 1x1 convolution only, several are brought together first."""
    if len(widths) == 1:
        return Single(widths[0], answers, dimensions)
    return Pyramid(widths, answers, dimensions)


class Single(nn.Module):
    """One grid (B, width, *size) to (B, answers, *size)."""

    def __init__(self, width: int, answers: int, dimensions: int) -> None:
        super().__init__()
        # PyTorch's own first weights. From small ones (deviation 0.02) one of two labels of a volume was not learned in
        # 150 steps, and found in 25 from these: rare classes get too little gradient to be told apart.
        self.answer = convolution(dimensions)(width, answers, 1)

    def forward(self, grids: tuple[Tensor, ...]) -> Tensor:
        return self.answer(grids[0])


class Pyramid(nn.Module):
    """Grids of several sizes, finest first: each brought to a common width, upsampled to the finest and summed.

    The light half of "Panoptic Feature Pyramid Networks" (Kirillov et al. 2019).
    """

    def __init__(self, widths: tuple[int, ...], answers: int, dimensions: int) -> None:
        super().__init__()
        layer = convolution(dimensions)
        common = min(PYRAMID, max(widths))
        self.lateral = nn.ModuleList(layer(width, common, 1) for width in widths)
        self.smooth = nn.Sequential(
            layer(common, common, 3, padding=1, bias=False), batch_norm(dimensions)(common), nn.ReLU(inplace=True)
        )
        self.answer = layer(common, answers, 1)
        initialize(self)
        _start_small(self.answer)

    def forward(self, grids: tuple[Tensor, ...]) -> Tensor:
        total = self.lateral[0](grids[0])
        for lateral, grid in zip(list(self.lateral)[1:], grids[1:], strict=True):
            total = total + resize(lateral(grid), total.shape[2:])
        return self.answer(self.smooth(total))


def resize(grid: Tensor, size: Sequence[int]) -> Tensor:
    """The grid at `size`, bilinear or trilinear."""
    if grid.shape[2:] == torch.Size(size):
        return grid
    mode = "trilinear" if len(size) == 3 else "bilinear"
    return functional.interpolate(grid, size=tuple(size), mode=mode, align_corners=False)


class Fusion(nn.Module):
    """Several inputs' features (B, widths[i]) as one (B, width): each normalized, so that none drowns the others."""

    def __init__(self, widths: Sequence[int], dropout: float = 0.1) -> None:
        super().__init__()
        self.width = max(widths)
        self.norms = nn.ModuleList(map(nn.LayerNorm, widths))
        self.mix = nn.Linear(sum(widths), self.width)
        initialize(self, "gelu")
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        normalized = [norm(each) for norm, each in zip(self.norms, features, strict=True)]
        return self.dropout(functional.gelu(self.mix(torch.cat(normalized, dim=1))))


class Broadcast(nn.Module):
    """Examples' features (B, widths[i]) of some inputs added to every position, node or pixel of another."""

    def __init__(self, widths: Sequence[int], width: int | tuple[int, ...]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(map(nn.LayerNorm, widths))
        targets = width if isinstance(width, tuple) else (width,)
        self.mix = nn.ModuleList(nn.Linear(sum(widths), each) for each in targets)
        initialize(self)

    def forward(
        self, values: Tensor | tuple[Tensor, ...], others: Sequence[Tensor], length_B: Tensor | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """`values` (B, T, W), nodes (M, W) of which each example has `length_B`, or grids (B, W_i, *size_i): the same
        with the others added."""
        normalized = torch.cat([norm(each) for norm, each in zip(self.norms, others, strict=True)], dim=1)
        if isinstance(values, Tensor) and length_B is not None:
            return values + self.mix[0](normalized).repeat_interleave(length_B, dim=0, output_size=len(values))
        if isinstance(values, Tensor):
            return values + self.mix[0](normalized)[:, None]
        mixed = [layer(normalized) for layer in self.mix]
        return tuple(
            grid + added.reshape(*added.shape, *[1] * (grid.ndim - 2))
            for grid, added in zip(values, mixed, strict=True)
        )


def _start_small(layer: nn.Module) -> None:
    for name, parameter in layer.named_parameters():
        if name == "weight":
            nn.init.normal_(parameter, std=0.02)
        else:
            nn.init.zeros_(parameter)
