from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from sonde.base.errors import UserError
from sonde.contracts.specs import InputSpec, OutputSpec
from sonde.networks.cnn import Cnn, CnnConfig

CONFIG = CnnConfig(widths=(4, 6, 8), convolutions=1)
GRID = InputSpec(layout="grid", channels=2, size=(9, 6))


def test_each_stage_halves_the_size_and_no_picture_is_too_small():
    backbone = Cnn(CONFIG, InputSpec(layout="grid", channels=1, size=(5, 1)), OutputSpec(per=("pixel",), width=2))
    grids = backbone({"grid": torch.randn(2, 1, 5, 1)})
    assert [tuple(grid.shape[1:]) for grid in grids] == [(4, 5, 1), (6, 3, 1), (8, 2, 1)]
    assert backbone.width == (4, 6, 8)


def test_frames_are_a_picture_with_time_across():
    torch.manual_seed(0)
    frames = torch.randn(2, 7, 5)
    as_frames = Cnn(
        CONFIG, InputSpec(layout="frames", channels=5, size=(7,)), OutputSpec(per=("example",), width=2)
    ).eval()
    as_grid = Cnn(
        CONFIG, InputSpec(layout="grid", channels=1, size=(5, 7)), OutputSpec(per=("example",), width=2)
    ).eval()
    as_grid.load_state_dict(as_frames.state_dict())
    expected = as_grid({"grid": frames.transpose(1, 2)[:, None]})
    torch.testing.assert_close(as_frames({"frames": frames, "length": torch.tensor([7, 7])}), expected)


def test_a_grid_of_four_axes_is_refused():
    with pytest.raises(UserError) as caught:
        Cnn(CONFIG, InputSpec(layout="grid", channels=1, size=(8, 8, 8, 8)), OutputSpec(per=("example",), width=2))
    assert str(caught.value) == (
        "network 'cnn' takes pictures; the input's grid has 4 dimensions. Expected a grid of height and width."
    )


def test_a_number_of_convolutions_for_each_stage():
    net = Cnn(CnnConfig(widths=(4, 8, 16), convolutions=(1, 2, 3)), GRID, OutputSpec(per=("example",), width=3))
    assert [len(stage.layers) for stage in net.stages] == [1, 2, 3]
    with pytest.raises(ValidationError, match="convolutions has 2 numbers and widths 3"):
        CnnConfig(widths=(4, 8, 16), convolutions=(1, 2))


def test_pooling_before_the_norm_is_pooling_after_it():
    """With scales above zero no maximum changes, in evaluation, where the norm's statistics are fixed."""
    torch.manual_seed(0)
    config = CnnConfig(widths=(4, 8), dropout=0.0)
    example, pixel = (Cnn(config, GRID, OutputSpec(per=(per,), width=3)).eval() for per in ("example", "pixel"))
    for name, buffer in example.named_buffers():
        if name.endswith(("mean", "var")):
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    for parameter in example.parameters():
        if parameter.ndim == 1:
            parameter.data.copy_(torch.rand_like(parameter) + 0.1)
    pixel.load_state_dict(example.state_dict())
    grid = {"grid": torch.randn(2, GRID.channels, *GRID.size)}
    torch.testing.assert_close(example(grid), pixel(grid)[-1].mean((2, 3)), rtol=1e-5, atol=1e-5)
