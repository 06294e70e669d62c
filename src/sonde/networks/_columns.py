"""The columns of a table as one vector: what networks for tables share.

B example, N number, W width, S segment.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sonde.contracts.backbone import BackboneConfig
from sonde.contracts.columns import Tensors
from sonde.contracts.specs import InputSpec


class ColumnsConfig(BackboneConfig):
    """How the numbers of a table become vectors."""

    numeric_embedding: Literal["none", "periodic", "piecewise"] = Field(
        "piecewise",
        description="how each number of a table becomes a vector: none, periodic or piecewise",
    )
    embedding: int = Field(16, ge=1, description="width of the vector of each number of a table")
    resolution: int = Field(
        48, ge=2, le=10_000, description="waves (periodic) or segments (piecewise) per number of a table"
    )
    scale: float = Field(0.3, gt=0, description="periodic: deviation of the first frequencies")


class ColumnsAsVector(nn.Module):
    """The columns of a table as one vector: numbers plain or embedded, then a learned vector for each category.

    A category of n values gets min(50, round(1.6 n^0.56)) numbers: the rule of fastai (Howard and Gugger 2020,
    "fastai: A Layered API for Deep Learning"), found by trial over many tables.
    """

    def __init__(self, config: ColumnsConfig, spec: InputSpec) -> None:
        super().__init__()
        self.numbers = _number_embedding(config, spec.channels)
        widths = [min(50, round(1.6 * count**0.56)) for count in spec.categories]
        self.categories = nn.ModuleList(map(_category, spec.categories, widths))
        plain = config.numeric_embedding == "none"
        self.width = sum(widths) + spec.channels * (1 if plain else config.embedding)

    def forward(self, tensors: Tensors) -> Tensor:
        parts = [self.numbers(tensors["numbers"])]
        if len(self.categories):
            columns = tensors["categories"].unbind(1)
            parts += [embedding(column_B) for embedding, column_B in zip(self.categories, columns, strict=True)]
        return torch.cat(parts, dim=1)


def _category(count: int, width: int) -> nn.Embedding:
    embedding = nn.Embedding(count, width)
    nn.init.normal_(embedding.weight, std=1 / math.sqrt(width))
    return embedding


def _number_embedding(config: ColumnsConfig, channels: int) -> nn.Module:
    if config.numeric_embedding == "none" or channels == 0:
        return nn.Identity()
    if config.numeric_embedding == "periodic":
        return Periodic(channels, config.resolution, config.embedding, config.scale)
    return Piecewise(channels, config.resolution, config.embedding)


class Periodic(nn.Module):
    """Each number (B, N) as sines and cosines of learned frequencies, then one linear layer and ReLU: (B, N * width).

    "PLR (lite)" of Gorishniy et al. 2022, "On Embeddings for Numerical Features in Tabular Deep Learning", and 2024,
    "TabR": the linear layer is shared by all columns.
    """

    def __init__(self, channels: int, frequencies: int, width: int, scale: float) -> None:
        super().__init__()
        # A vector, not a matrix: optimizers neither decay nor orthogonalize vectors, and no frequency should be.
        self.frequency = nn.Parameter(torch.randn(channels * frequencies) * scale)
        self.frequencies = frequencies
        self.linear = nn.Linear(2 * frequencies, width)

    def forward(self, numbers_BN: Tensor) -> Tensor:
        angle_BNF = 2 * math.pi * numbers_BN[:, :, None] * self.frequency.view(-1, self.frequencies)
        waves = torch.cat([angle_BNF.cos(), angle_BNF.sin()], dim=2)
        return self.linear(waves).relu().flatten(1)


class Piecewise(nn.Module):
    """Each number as how far it fills each segment of the line, and a linear map of that per column: (B, N * width).

    Piecewise-linear encoding of Gorishniy et al. 2022, in the form of their "TabM" (2024): it starts as a plain linear
    map and learns where to bend, which small tables need. The segments hold equal shares of a normal distribution.
    """

    start: Tensor
    span: Tensor
    least: Tensor
    most: Tensor

    def __init__(self, channels: int, segments: int, width: int) -> None:
        super().__init__()
        # Values, wherever the network is built: on the meta device there are none to be compared or inverted.
        shares = torch.linspace(0.005, 0.995, segments + 1, device="cpu")
        edges = math.sqrt(2) * torch.erfinv(2 * shares - 1)
        self.register_buffer("start", edges[:-1], persistent=False)
        self.register_buffer("span", edges[1:] - edges[:-1], persistent=False)
        # The first and the last segment go on for ever, so that no number is out of range.
        ends = torch.arange(segments, device="cpu")
        self.register_buffer("least", torch.where(ends == 0, -torch.inf, 0.0), persistent=False)
        self.register_buffer("most", torch.where(ends == segments - 1, torch.inf, 1.0), persistent=False)
        self.line = nn.Parameter(torch.randn(channels, width))
        self.bends = nn.Parameter(torch.zeros(channels, segments, width))
        self.bias = nn.Parameter(torch.zeros(channels * width))

    def forward(self, numbers_BN: Tensor) -> Tensor:
        filled_BNS = ((numbers_BN[:, :, None] - self.start) / self.span).clamp(self.least, self.most)
        bent_NBW = filled_BNS.transpose(0, 1) @ self.bends
        return (bent_NBW.transpose(0, 1) + numbers_BN[:, :, None] * self.line).flatten(1) + self.bias
