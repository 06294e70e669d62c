from __future__ import annotations

import torch
from torch import nn

from sonde.training.muon import Muon, orthogonalize


def test_muon_equals_torch_on_a_matrix():
    torch.manual_seed(0)
    ours, theirs = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.empty(6, 4))
    theirs.data.copy_(ours.data)
    one = Muon([ours], lr=0.02, momentum=0.95, nesterov=True, weight_decay=0.1)
    other = torch.optim.Muon([theirs], lr=0.02, momentum=0.95, nesterov=True, weight_decay=0.1)
    for _ in range(3):
        gradient = torch.randn(6, 4)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        one.step()
        other.step()
    torch.testing.assert_close(ours, theirs, rtol=0.02, atol=2e-3)


def test_orthogonalized_matrices_have_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((3, 8, 8), (2, 30, 5), (2, 5, 30)):
        values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)).float())
        assert values.min() > 0.5
        assert values.max() < 1.3


def test_in_float32_the_small_way_is_as_good_as_the_long_one():
    torch.manual_seed(0)
    for shape in ((1, 16, 90), (3, 90, 16), (2, 16, 20)):
        # Singular values from 1 down to a millionth.
        parts = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
        matrices = (parts.U * torch.logspace(0, -6, 16, dtype=torch.float64)) @ parts.Vh
        exact = orthogonalize(matrices, torch.float64)
        assert (orthogonalize(matrices.float(), torch.float32) - exact).norm() < 2e-3 * exact.norm()
