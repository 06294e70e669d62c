"""What a decoder looks at: the features of all inputs as one sequence of vectors.

B example, T position of the memory, W width of the decoder.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sonde.contracts.specs import Features, FeatureWidth


class Memory(nn.Module):
    """Features per position, per pixel (the coarsest grid) and per example (one position each), end to end."""

    def __init__(self, widths: Mapping[str, FeatureWidth], width: int) -> None:
        super().__init__()
        self.names = list(widths)
        numbers = [each[-1] if isinstance(each, tuple) else each for each in widths.values()]
        # Several inputs are brought to one size, so that none drowns the others; grids come from no norm.
        plain = len(numbers) == 1 and numbers[0] == width and isinstance(next(iter(widths.values())), int)
        self.projections: nn.ModuleDict | None = None
        if not plain:
            self.projections = nn.ModuleDict(
                {f"of_{name}": _projection(each, width) for name, each in zip(widths, numbers, strict=True)}
            )

    def forward(self, features: Mapping[str, Features]) -> tuple[Tensor, Tensor | None]:
        """The memory (B, T, W), and which of its positions are real, bool (B, T); None: all of them."""
        values, inside = [], []
        for name in self.names:
            value_BTW = _sequence(features[name])
            if self.projections is not None:
                value_BTW = self.projections[f"of_{name}"](value_BTW)
            values.append(value_BTW)
            inside.append(features[name].inside_BT)
        if all(each is None for each in inside):
            return _joined(values), None
        whole = [
            torch.ones(value.shape[:2], dtype=torch.bool, device=value.device) if each is None else each
            for value, each in zip(values, inside, strict=True)
        ]
        return _joined(values), _joined(whole)


def _projection(width: int, wanted: int) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, wanted))


def _sequence(features: Features) -> Tensor:
    values = features.values
    if isinstance(values, tuple):
        return values[-1].flatten(2).transpose(1, 2)
    return values[:, None] if values.ndim == 2 else values


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
