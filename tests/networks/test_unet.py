from __future__ import annotations

import pytest
import torch

from sonde.networks.unet import UNet, UNetConfig
from sonde.task import Ask, Shape


@pytest.mark.parametrize("size", [(16, 16), (17, 23), (1, 5)])
@pytest.mark.parametrize("residual", [False, True])
def test_any_size_is_answered_at_full_size(size, residual):
    config = UNetConfig(widths=(4, 6, 8), residual=residual)
    body = UNet(config, Shape(form="grid", channels=3, size=size), Ask(per="pixel", width=2))
    (grid,) = body({"grid": torch.randn(2, 3, *size)})
    assert grid.shape == (2, *body.width, *size)
    grid.square().sum().backward()
    assert all(parameter.grad is not None for parameter in body.parameters())


def test_the_network_of_the_paper_has_31_million_weights():
    config = UNetConfig(widths=(64, 128, 256, 512, 1024), norm="none")
    body = UNet(config, Shape(form="grid", channels=1, size=(32, 32)), Ask(per="pixel", width=2))
    assert sum(parameter.numel() for parameter in body.parameters()) + 64 * 2 + 2 == 31_030_658
