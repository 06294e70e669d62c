from __future__ import annotations

import pytest
import torch
from torch import nn

from sonde.training import optimizers
from sonde.training.muon import Muon
from sonde.training.optimizers import OptimizerConfig, build


def test_norms_and_biases_are_not_decayed_and_the_answer_is_not_orthogonalized():
    network = nn.ModuleDict(
        {
            "backbone": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
            "head": nn.ModuleDict({"answer": nn.Linear(4, 2), "mix": nn.Linear(5, 4)}),
            "words": nn.Embedding(9, 4),
        }
    )
    muon, adamw = build(OptimizerConfig(kind="muon", weight_decay=0.1), network)
    assert isinstance(muon, Muon)
    assert [tuple(each.shape) for group in muon.param_groups for each in group["params"]] == [(4, 3, 3, 3), (4, 5)]
    decays = {tuple(each.shape): group["weight_decay"] for group in adamw.param_groups for each in group["params"]}
    assert decays == {(2, 4): 0.1, (9, 4): 0.1, (4,): 0.0, (2,): 0.0}


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_adam_makes_torchs_updates_to_the_bit(kind: str):
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5)).to(memory_format=torch.channels_last)

    ours, theirs = network(), network()
    (one,) = build(OptimizerConfig(kind=kind, lr=0.01, weight_decay=0.1), ours)
    _, decayed, plain = optimizers.split_parameters(theirs, matrices=False)
    groups = [{"params": list(decayed.values())}, {"params": list(plain.values()), "weight_decay": 0.0}]
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    other = kinds[kind](groups, lr=0.01, weight_decay=0.1, fused=True)
    for step in range(6):
        for network_, optimizer in ((ours, one), (theirs, other)):
            optimizer.zero_grad()
            torch.manual_seed(step)
            network_(torch.randn(2, 3, 8, 8)).square().sum().backward()
            if step == 3:  # a layer that took no part
                network_[0].weight.grad = None
            optimizer.step()
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_muon_default_rate_is_not_adams():
    assert OptimizerConfig(kind="muon").lr == 0.02
    assert OptimizerConfig(kind="sgd").lr == 0.1
    assert OptimizerConfig(kind="sgd", lr=0.5).lr == 0.5
