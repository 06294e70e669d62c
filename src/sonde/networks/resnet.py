"""Residual network (He et al. 2016): depths 10, 18, 34, 50, and the narrow 20, 32, 44, 56 made for 32 x 32 pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from sonde.contracts.backbone import Backbone, BackboneConfig
from sonde.contracts.columns import Tensors
from sonde.contracts.specs import InputSpec, LayoutName, OutputSpec, Per
from sonde.networks._grids import grid_shape, halved, layers_in_order, max_pool, mean, picture, strided, zero_padding
from sonde.networks._layers import batch_norm, convolution, initialize

# Blocks in each stage.
STAGES = {
    10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3),
    20: (3, 3, 3), 32: (5, 5, 5), 44: (7, 7, 7), 56: (9, 9, 9),
}  # fmt: skip
# Pictures of fewer pixels a side keep their full size through the stem.
SMALL = 100


class ResNetConfig(BackboneConfig):
    kind: Literal["resnet"] = "resnet"
    depth: Literal[10, 18, 34, 50, 20, 32, 44, 56] = Field(18, description="10, 18, 34, 50; 20, 32, 44, 56 are narrow")
    stem: Literal["auto", "small", "imagenet"] = Field(
        "auto", description="small: 3x3, full size; imagenet: 7x7, a quarter of the size; auto: by the picture's size"
    )
    width: float = Field(1.0, gt=0, description="multiplier of all channels: 0.5 is about 4 times quicker")
    zero_init: bool = Field(False, description="start every residual branch at zero (its last norm)")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the final features dropped in training")


class ResNet(Backbone):
    """(B, C, H, W), (B, C, D, H, W) or (B, T, C) to (B, width), or to the grids of all stages.

    Layers are named as in torchvision, whose weights of the same depth fit (stem "imagenet", width 1). Depth 50 has
    its stride in the 3x3 convolution, as torchvision's. The narrow depths have shortcuts without weights (option A).
    """

    Config = ResNetConfig
    accepts: ClassVar[tuple[LayoutName, ...]] = ("grid", "frames")
    gives: ClassVar[tuple[Per, ...]] = ("example", "pixel")
    any_size: ClassVar[bool] = True
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    tiny: ClassVar[Mapping[str, Any]] = {"depth": 10, "width": 0.125}

    def __init__(self, config: ResNetConfig, spec: InputSpec, output: OutputSpec) -> None:
        super().__init__(config, spec, output)
        channels, size = grid_shape(spec, config.kind)
        dimensions = len(size)
        narrow = len(STAGES[config.depth]) == 3
        first = max(1, round((16 if narrow else 64) * config.width))
        self.small = config.stem == "small" or (config.stem == "auto" and math.prod(size) ** (1 / dimensions) < SMALL)
        kernel, stride = (3, 1) if self.small else (7, 2)
        self.conv1 = convolution(dimensions)(channels, first, kernel, stride, kernel // 2, bias=False)
        self.bn1 = batch_norm(dimensions)(first)
        widths, before = [], first
        for number, blocks in enumerate(STAGES[config.depth]):
            inner = first * 2**number
            stage = Stage(
                blocks,
                before,
                inner,
                stride=2 if number else 1,
                bottleneck=config.depth == 50,
                bare=narrow,
                dimensions=dimensions,
            )
            self.add_module(f"layer{number + 1}", stage)
            before = stage.width
            widths.append(before)
        self.dropout = nn.Dropout(config.dropout)
        self.per = output.chosen
        self.width = tuple(widths) if output.chosen == "pixel" else widths[-1]
        initialize(self)
        if config.zero_init:
            for block in self.modules():
                if isinstance(block, Block):
                    nn.init.zeros_(block.norms()[-1].weight)
        layers_in_order(self, dimensions)

    @classmethod
    def smaller(cls, config: ResNetConfig) -> ResNetConfig:
        return config.model_copy(update={"width": config.width / 2})

    def forward(self, tensors: Tensors) -> Tensor | tuple[Tensor, ...]:
        grid, inside = picture(tensors)
        grid = functional.relu(self.bn1(self.conv1(grid)), inplace=True)
        if not self.small:
            inside = halved(inside)
            grid = max_pool(zero_padding(grid, inside), 3, 2, padding=1)
            inside = halved(inside)
        grids = []
        for stage in self.stages():
            grid, inside = stage(zero_padding(grid, inside), inside)
            grids.append(grid)
        return tuple(grids) if self.per == "pixel" else self.dropout(mean(grid, inside))

    def stages(self) -> list[nn.Module]:
        return [stage for stage in self.children() if isinstance(stage, Stage)]


class Stage(nn.ModuleList):
    """Residual blocks; the first one changes the size and the width."""

    def __init__(
        self, blocks: int, before: int, inner: int, *, stride: int, bottleneck: bool, bare: bool, dimensions: int
    ) -> None:
        self.width = inner * (4 if bottleneck else 1)
        first = Block(before, inner, self.width, stride=stride, bare=bare, dimensions=dimensions)
        others = (
            Block(self.width, inner, self.width, stride=1, bare=bare, dimensions=dimensions) for _ in range(blocks - 1)
        )
        super().__init__([first, *others])

    def forward(self, grid: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor | None]:
        for block in self:
            grid, inside = block(grid, inside)
        return grid, inside


class Block(nn.Module):
    """x + f(x), f two 3x3 convolutions, or 1x1, 3x3, 1x1 where `width` is wider than `inner`."""

    def __init__(self, before: int, inner: int, width: int, *, stride: int, bare: bool, dimensions: int) -> None:
        super().__init__()
        layer, norm = convolution(dimensions), batch_norm(dimensions)
        self.stride, self.bare = stride, bare or (stride == 1 and before == width)
        if width == inner:
            self.conv1 = layer(before, inner, 3, stride, 1, bias=False)
            self.conv2 = layer(inner, width, 3, 1, 1, bias=False)
        else:
            self.conv1 = layer(before, inner, 1, bias=False)
            self.conv2 = layer(inner, inner, 3, stride, 1, bias=False)
            self.conv3 = layer(inner, width, 1, bias=False)
            self.bn3 = norm(width)
        self.bn1, self.bn2 = norm(inner), norm(inner)
        if not self.bare:
            # It gets every `stride`-th place: the same as a convolution with that stride, which crashes in oneDNN's
            # backward pass for few channels (8 to 16 on AVX-512 processors, torch 2.15).
            project = layer(before, width, 1, bias=False)
            self.downsample = nn.Sequential(project, norm(width))
        else:
            # Nothing to learn: places are skipped, and new channels are zero (option A).
            self.downsample = Skip(stride, width - before)
        self.bottleneck = width != inner

    def norms(self) -> list[Any]:
        return [self.bn1, self.bn2, self.bn3] if self.bottleneck else [self.bn1, self.bn2]

    def forward(self, grid: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor | None]:
        after = halved(inside) if self.stride > 1 else inside
        y = functional.relu(self.bn1(self.conv1(grid)), inplace=True)
        y = self.bn2(self.conv2(zero_padding(y, inside if self.bottleneck else after)))
        if self.bottleneck:
            y = self.bn3(self.conv3(functional.relu(y, inplace=True)))
        y += self.downsample(grid if self.bare else strided(grid, self.stride))
        return zero_padding(functional.relu(y, inplace=True), after), after


class Skip(nn.Module):
    """Every `stride`-th place, and `more` channels of zeros."""

    def __init__(self, stride: int, more: int) -> None:
        super().__init__()
        self.stride, self.more = stride, more

    def forward(self, grid: Tensor) -> Tensor:
        if self.stride > 1:
            grid = strided(grid, self.stride)
        return functional.pad(grid, (*[0, 0] * (grid.ndim - 2), 0, self.more)) if self.more else grid
