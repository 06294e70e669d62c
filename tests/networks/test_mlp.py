from __future__ import annotations

import numpy as np
import pytest
import torch
from network_fakes import SPECS, features
from scipy.stats import norm

from sonde.contracts.specs import InputSpec, OutputSpec
from sonde.networks._columns import Periodic, Piecewise
from sonde.networks.mlp import Mlp, MlpConfig

ASK = OutputSpec(per=("example",), width=1)


def test_categories_get_a_width_by_their_number():
    shape = InputSpec(layout="columns", channels=2, categories=(2, 10, 1000, 100_000))
    backbone = Mlp(MlpConfig(hidden=(), numeric_embedding="none"), shape, ASK)
    widths = [embedding.embedding_dim for embedding in backbone.columns.categories]
    assert widths == [2, 6, 50, 50]
    assert backbone.width == 2 + sum(widths)


@pytest.mark.parametrize("embedding", ["none", "periodic", "piecewise"])
@pytest.mark.parametrize(
    "shape", [InputSpec(layout="columns", channels=0, categories=(3,)), InputSpec(layout="columns", channels=2)]
)
def test_a_table_may_have_numbers_or_categories_alone(embedding, shape):
    backbone = Mlp(MlpConfig(numeric_embedding=embedding, hidden=(4,)), shape, ASK)
    assert backbone(features(shape)).shape == (4, 4)


def test_piecewise_starts_as_a_line_and_can_become_any_bend():
    torch.manual_seed(0)
    layer = Piecewise(channels=1, segments=4, width=1)
    numbers = torch.linspace(-6, 6, 101)[:, None]
    line = layer(numbers)
    torch.testing.assert_close(line.diff(dim=0), line.diff(dim=0)[:1].expand(100, 1), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        layer.line.zero_()
        layer.bends.copy_(torch.tensor([0.0, 2.0, -1.0, 0.5])[None, :, None])
        layer.bias.zero_()
    edges = norm.ppf(np.linspace(0.005, 0.995, 5))
    heights = np.concatenate([[0.0], np.cumsum([0.0, 2.0, -1.0, 0.5])])
    inside = torch.linspace(float(edges[0]), float(edges[-1]), 50)[:, None]
    torch.testing.assert_close(
        layer(inside)[:, 0], torch.from_numpy(np.interp(inside[:, 0].numpy(), edges, heights)).float()
    )
    # Beyond the last edge the last segment goes on.
    assert layer(torch.tensor([[5.0]])) > layer(torch.tensor([[4.0]]))


def test_periodic_is_the_formula_of_the_paper():
    torch.manual_seed(0)
    layer = Periodic(channels=2, frequencies=3, width=4, scale=0.5)
    numbers = torch.randn(5, 2)
    waves = 2 * torch.pi * numbers[:, 1, None] * layer.frequency[3:]
    expected = layer.linear(torch.cat([waves.cos(), waves.sin()], dim=1)).relu()
    torch.testing.assert_close(layer(numbers)[:, 4:], expected)


def test_a_picture_is_flattened_in_reading_order():
    backbone = Mlp(MlpConfig(hidden=()), SPECS["grid"], ASK)
    grid = features(SPECS["grid"])["grid"]
    ordered = grid.contiguous(memory_format=torch.channels_last)
    assert torch.equal(backbone({"grid": ordered}), grid.reshape(4, -1))
    assert backbone.width == grid[0].numel()
