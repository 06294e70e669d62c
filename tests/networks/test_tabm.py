from __future__ import annotations

import torch
from network_fakes import features

from sonde.contracts.specs import InputSpec, OutputSpec
from sonde.networks.tabm import Tabm, TabmConfig
from sonde.training.optimizers import split_parameters

SHAPE = InputSpec(layout="columns", channels=3, categories=(4,))
ASK = OutputSpec(per=("example",), width=1)


def backbone(**settings):
    torch.manual_seed(0)
    return Tabm(TabmConfig(members=3, hidden=(16,), dropout=0.0, **settings), SHAPE, ASK)


def test_every_member_is_the_shared_network_of_what_it_scales():
    network, tensors = backbone(), features(SHAPE)
    found = network(tensors).unflatten(0, (-1, 3))
    values = network.columns(tensors)
    for member in range(3):
        scale_in, scale_out = network.scale_in.view(3, -1)[member], network.scale_out.view(3, -1)[member]
        torch.testing.assert_close(found[:, member], network.layers(values * scale_in) * scale_out)
    # Random signs (Gorishniy et al. 2025, after Wen et al. 2020).
    assert set(network.scale_in.tolist()) == {-1.0, 1.0}


def test_scales_are_neither_decayed_nor_orthogonalized():
    matrices, decayed, plain = split_parameters(backbone(), matrices=True)
    assert {"scale_in", "scale_out"} <= set(plain)
    assert not {"scale_in", "scale_out"} & (set(matrices) | set(decayed))
