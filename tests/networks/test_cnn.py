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
