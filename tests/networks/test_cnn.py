from __future__ import annotations

import pytest
import torch

from sonde.base.errors import UserError
from sonde.networks.cnn import Cnn, CnnConfig
from sonde.task import Ask, Shape

CONFIG = CnnConfig(widths=(4, 6, 8), convolutions=1)


def test_each_stage_halves_the_size_and_no_picture_is_too_small():
    body = Cnn(CONFIG, Shape(form="grid", channels=1, size=(5, 1)), Ask(per="pixel", width=2))
    grids = body({"grid": torch.randn(2, 1, 5, 1)})
    assert [tuple(grid.shape[1:]) for grid in grids] == [(4, 5, 1), (6, 3, 1), (8, 2, 1)]
    assert body.width == (4, 6, 8)


def test_a_patch_is_a_convolution_of_its_size_and_stride():
    torch.manual_seed(0)
    config = CONFIG.model_copy(update={"patch": 2})
    body = Cnn(config, Shape(form="grid", channels=3, size=(5, 8)), Ask(per="pixel", width=2)).eval()
    grid = torch.randn(2, 3, 5, 8)
    assert [tuple(each.shape[1:]) for each in body({"grid": grid})] == [(4, 3, 4), (6, 2, 2), (8, 1, 1)]
    # The first stage alone, as a 6x6 convolution with stride 2 over the pixels.
    first = body.stages[0].layers[0]
    kernel = first[0].weight.reshape(4, 3, 2, 2, 3, 3).permute(0, 1, 4, 2, 5, 3).reshape(4, 3, 6, 6)
    padded = torch.nn.functional.pad(grid, (0, 0, 0, 1))
    expected = first[2](first[1](torch.nn.functional.conv2d(padded, kernel, stride=2, padding=2)))
    torch.testing.assert_close(body({"grid": grid})[0], expected, rtol=1e-4, atol=1e-5)


def test_frames_are_a_picture_with_time_across():
    torch.manual_seed(0)
    frames = torch.randn(2, 7, 5)
    as_frames = Cnn(CONFIG, Shape(form="frames", channels=5, size=(7,)), Ask(per="example", width=2)).eval()
    as_grid = Cnn(CONFIG, Shape(form="grid", channels=1, size=(5, 7)), Ask(per="example", width=2)).eval()
    as_grid.load_state_dict(as_frames.state_dict())
    expected = as_grid({"grid": frames.transpose(1, 2)[:, None]})
    torch.testing.assert_close(as_frames({"frames": frames, "length": torch.tensor([7, 7])}), expected)


def test_a_volume_is_refused():
    with pytest.raises(UserError) as caught:
        Cnn(CONFIG, Shape(form="grid", channels=1, size=(8, 8, 8)), Ask(per="example", width=2))
    assert str(caught.value) == (
        "network 'cnn' takes pictures; the input's grid has 3 dimensions. Expected a grid of height and width."
    )
