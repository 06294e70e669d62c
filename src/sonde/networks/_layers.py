"""Activations and norms by name, and the first weights that suit them: what several backbones share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

Activation = Literal["relu", "leaky-relu", "gelu", "silu", "tanh", "sigmoid"]
GridNorm = Literal["none", "batch", "layer", "group"]
# A list of layer widths, as a recipe holds it.
Widths = tuple[Annotated[int, Field(gt=0)], ...]

# Channels that share their statistics in a group norm (Wu and He 2018).
GROUP = 16


def activation(name: Activation) -> nn.Module:
    """The activation called `name`. The rectifiers work in place: no layer here needs what they overwrite."""
    if name == "relu":
        return nn.ReLU(inplace=True)
    if name == "leaky-relu":
        return nn.LeakyReLU(0.01, inplace=True)
    return {"gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}[name]()


def convolution(dimensions: int) -> type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]:
    """The convolution for grids of so many dimensions."""
    return (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]


def batch_norm(dimensions: int) -> type[nn.BatchNorm1d] | type[nn.BatchNorm2d] | type[nn.BatchNorm3d]:
    """The batch norm for grids of so many dimensions."""
    return (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dimensions - 1]


def grid_norm(name: GridNorm, channels: int, dimensions: int = 2) -> nn.Module:
    """The norm called `name` for grids (B, channels, *size) of so many axes; "layer" is over channels and places of one
    example."""
    if name == "batch":
        return batch_norm(dimensions)(channels)
    if name == "layer":
        return nn.GroupNorm(1, channels)
    if name == "group":
        groups = max(1, channels // GROUP)
        return nn.GroupNorm(groups if channels % groups == 0 else 1, channels)
    return nn.Identity()


def initialize(network: nn.Module, name: Activation = "relu") -> None:
    """First weights for layers that are followed by the activation called `name`; biases start at zero.

    He et al. 2015 for rectifiers and their smooth relatives, Glorot and Bengio 2010 for tanh and sigmoid.
    """
    for module in network.modules():
        if isinstance(module, Modulation):
            module.reset_parameters()
        elif isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.Conv3d, nn.ConvTranspose3d)):
            if name in ("tanh", "sigmoid"):
                nn.init.xavier_uniform_(module.weight)
            else:
                # Fan-out keeps gradients of convolutions alike over depth; a linear layer keeps its values alike.
                mode = "fan_in" if isinstance(module, nn.Linear) else "fan_out"
                nn.init.kaiming_normal_(module.weight, a=0.01, mode=mode, nonlinearity="leaky_relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class Steering(nn.Module):
    """What steers a backbone, (B, condition), as the vector (B, width) that its `Modulation`s read."""

    def __init__(self, condition: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(condition, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, condition: Tensor) -> Tensor:
        return self.layers(condition)


class Modulation(nn.Linear):
    """`parts` vectors of `channels` numbers each that a vector (B, width) calls for: scales, shifts and gates.

    FiLM (Perez et al. 2018), and what diffusion networks call adaptive norms. All are 0 at first, so that a network
    starts as if nothing steered it.
    """

    def __init__(self, width: int, channels: int, parts: int) -> None:
        self.parts = parts
        super().__init__(width, parts * channels)

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def vectors(self, steering: Tensor, dimensions: int) -> tuple[Tensor, ...]:
        """Each (B, channels, 1, ...) for grids of so many dimensions, (B, 1, channels) for 0: positions."""
        found = self(steering).chunk(self.parts, dim=1)
        if not dimensions:
            return tuple(each[:, None] for each in found)
        return tuple(each.reshape(*each.shape, *[1] * dimensions) for each in found)


def modulated(values: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Values scaled and moved; a scale of 0 and a shift of 0 leave them as they are."""
    return values * (1 + scale) + shift
