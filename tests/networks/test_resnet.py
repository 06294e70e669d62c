from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from sonde.contracts.specs import InputSpec, OutputSpec
from sonde.networks.resnet import Block, ResNet, ResNetConfig

EXAMPLE = OutputSpec(per=("example",), width=10)
PHOTO = InputSpec(layout="grid", channels=3, size=(224, 224))
SMALL = InputSpec(layout="grid", channels=3, size=(32, 32))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_it_is_torchvisions_network(depth):
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, f"resnet{depth}")(weights=None).eval()
    ours = ResNet(ResNetConfig(depth=depth), PHOTO, EXAMPLE).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    weights = theirs.state_dict()
    width = weights.pop("fc.weight").shape[1]
    weights.pop("fc.bias")
    ours.load_state_dict(weights)
    theirs.fc = nn.Identity()
    grid = torch.randn(2, 3, 70, 91)
    with torch.inference_mode():
        torch.testing.assert_close(ours({"grid": grid}), theirs(grid), rtol=1e-4, atol=1e-5)
    assert ours.width == width
    assert count(ours) == count(theirs)


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)])
def test_the_narrow_depths_have_the_size_of_the_paper(depth, millions):
    backbone = ResNet(ResNetConfig(depth=depth), SMALL, EXAMPLE)
    assert round((count(backbone) + 64 * 10 + 10) / 1e6, 2) == millions


def test_published_weights_of_depth_20_fit(shared: Path):
    path = shared / "weights_resnet20_cifar10" / "resnet20-12fca82f.th"
    if not path.is_file():
        pytest.skip(f"no weights at {path}")
    # The legacy format of torch.save, from a DataParallel module.
    held = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    backbone = ResNet(ResNetConfig(depth=20), SMALL, EXAMPLE)
    names = OrderedDict((name.removeprefix("module."), weight) for name, weight in held.items())
    names = {name: weight for name, weight in names.items() if not name.startswith("linear.")}
    backbone.load_state_dict(names)


@pytest.mark.parametrize(
    ("size", "finest"), [((28, 28), (28, 28)), ((99, 99), (99, 99)), ((100, 100), (25, 25)), ((64, 200), (16, 50))]
)
def test_the_stem_follows_the_size(size, finest):
    shape = InputSpec(layout="grid", channels=1, size=size)
    backbone = ResNet(ResNetConfig(depth=10, width=0.125), shape, OutputSpec(per=("pixel",), width=2))
    grids = backbone({"grid": torch.zeros(2, 1, *size)})
    assert grids[0].shape[2:] == finest
    assert [grid.shape[1] for grid in grids] == list(backbone.width) == [8, 16, 32, 64]


def test_zero_init_starts_as_the_shortcuts_alone():
    torch.manual_seed(0)
    backbone = ResNet(ResNetConfig(depth=20, width=0.5, zero_init=True), SMALL, EXAMPLE)
    block = next(module for module in backbone.modules() if isinstance(module, Block))
    grid = torch.rand(2, 8, 4, 4)
    torch.testing.assert_close(block(grid, None)[0], grid)


def test_convolutions_run_in_the_fast_memory_order():
    backbone = ResNet(ResNetConfig(depth=10, width=0.125), SMALL, OutputSpec(per=("pixel",), width=2))
    assert all(
        grid.is_contiguous(memory_format=torch.channels_last) for grid in backbone({"grid": torch.zeros(2, 3, 32, 32)})
    )
    assert backbone.conv1.weight.is_contiguous(memory_format=torch.channels_last)
