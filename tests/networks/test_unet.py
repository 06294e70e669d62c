from __future__ import annotations

import pytest
import torch

from sonde.contracts.specs import InputSpec, OutputSpec
from sonde.networks.unet import PatchExpand, UNet, UNetConfig


@pytest.mark.parametrize("size", [(16, 16), (17, 23), (1, 5)])
@pytest.mark.parametrize("settings", [{}, {"residual": True}, {"patch": 2}, {"patch": 3}])
def test_any_size_is_answered_at_full_size(size, settings):
    config = UNetConfig(widths=(4, 6, 8), **settings)
    backbone = UNet(config, InputSpec(layout="grid", channels=3, size=size), OutputSpec(per=("pixel",), width=2))
    (grid,) = backbone({"grid": torch.randn(2, 3, *size)})
    assert grid.shape == (2, *backbone.width, *size)
    grid.square().sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


def test_the_network_of_the_paper_has_31_million_weights():
    config = UNetConfig(widths=(64, 128, 256, 512, 1024), norm="none")
    backbone = UNet(config, InputSpec(layout="grid", channels=1, size=(32, 32)), OutputSpec(per=("pixel",), width=2))
    assert sum(parameter.numel() for parameter in backbone.parameters()) + 64 * 2 + 2 == 31_030_658


@pytest.mark.parametrize("side", [1, 2, 3])
def test_expanding_a_patch_is_a_transposed_convolution(side):
    torch.manual_seed(0)
    reference = torch.nn.ConvTranspose2d(6, 4, side, stride=side)
    expand = PatchExpand(6, 4, side, stride=side)
    expand.load_state_dict(reference.state_dict())
    grid = torch.randn(2, 6, 5, 7)
    torch.testing.assert_close(expand(grid), reference(grid))
    assert expand(grid).is_contiguous(memory_format=torch.channels_last)


def test_with_a_patch_neighbouring_pixels_have_answers_of_their_own():
    torch.manual_seed(0)
    config = UNetConfig(widths=(4, 8), patch=2, activation="tanh")
    backbone = UNet(config, InputSpec(layout="grid", channels=1, size=(8, 8)), OutputSpec(per=("pixel",), width=2))
    (grid,) = backbone({"grid": torch.randn(1, 1, 8, 8)})
    squares = grid.reshape(1, 4, 4, 2, 4, 2).permute(0, 1, 2, 4, 3, 5).reshape(-1, 4)
    assert (squares.std(dim=1) > 1e-6).all()
