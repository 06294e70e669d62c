from __future__ import annotations

import torch
from torch import nn

from sonde.training.ema import EMA


def test_average_follows_and_swaps_back():
    network = nn.Linear(2, 2)
    first = network.weight.detach().clone()
    average = EMA(network, decay=0.5)
    with torch.no_grad():
        network.weight.add_(1.0)
    average.update(network, step=100)
    average.swap(network)
    torch.testing.assert_close(network.weight.detach(), first + 0.5)
    average.swap(network)
    torch.testing.assert_close(network.weight.detach(), first + 1.0)
