from __future__ import annotations

import pytest
import torch
from torch import nn

from sonde.training import optimizers
from sonde.training.optimizers import EMA, Muon, OptimizerConfig, Plateau, ScheduleConfig, build, orthogonalize, rate


def test_schedules_start_rise_and_end_where_they_should():
    cosine = ScheduleConfig(kind="warmup-cosine", warmup=0.1)
    rates = [rate(cosine, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 11)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] < 0.001
    one = [rate(ScheduleConfig(kind="one-cycle"), step, 100) for step in range(100)]
    assert one.index(max(one)) == 30
    step = ScheduleConfig(kind="step", warmup=0, at=(0.5, 0.75))
    assert [round(rate(step, at, 100), 6) for at in (0, 49, 50, 75)] == [1, 1, 0.1, 0.01]
    assert rate(ScheduleConfig(kind="constant", warmup=0), 99, 100) == 1


def test_cosine_equals_torch():
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
    for step in range(50):
        assert rate(ScheduleConfig(warmup=0), step, 50) == pytest.approx(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()


def test_plateau_lowers_the_rate_after_patience():
    plateau = Plateau(ScheduleConfig(kind="plateau", patience=2, gamma=0.5))
    for score in (1.0, 0.9, 0.9, 0.9):
        plateau.observe(score, "max")
    assert plateau.factor == 0.5


def test_norms_and_biases_are_not_decayed_and_the_head_is_not_orthogonalized():
    network = nn.ModuleDict(
        {
            "backbone": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
            "head": nn.Linear(4, 2),
            "words": nn.Embedding(9, 4),
        }
    )
    muon, adamw = build(OptimizerConfig(kind="muon", weight_decay=0.1), network)
    assert isinstance(muon, Muon)
    assert [tuple(each.shape) for group in muon.param_groups for each in group["params"]] == [(4, 3, 3, 3)]
    decays = {tuple(each.shape): group["weight_decay"] for group in adamw.param_groups for each in group["params"]}
    assert decays == {(2, 4): 0.1, (9, 4): 0.1, (4,): 0.0, (2,): 0.0}


def test_muon_equals_torch_on_a_matrix():
    torch.manual_seed(0)
    ours, theirs = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.empty(6, 4))
    theirs.data.copy_(ours.data)
    one = Muon([ours], lr=0.02, momentum=0.95, nesterov=True, decay=0.1)
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


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw", "muon"])
def test_shrinking_in_an_update_is_shrinking_the_gradients_before_it(kind: str):
    def trained(shrink: float, before: float) -> list[torch.Tensor]:
        torch.manual_seed(0)
        network = nn.ModuleDict({"backbone": nn.Linear(6, 4), "head": nn.Linear(4, 2)})
        optimizers = build(OptimizerConfig(kind=kind, lr=0.01), network)
        for _ in range(4):
            for parameter in network.parameters():
                parameter.grad = torch.randn_like(parameter) * before
            optimizers.scale_gradients(optimizers, shrink)
            for optimizer in optimizers:
                optimizer.step()
        return [one.detach() for one in network.parameters()]

    torch.testing.assert_close(trained(0.03, 1.0), trained(1.0, 0.03), rtol=1e-4, atol=1e-6)


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


def test_muon_default_rate_is_not_adams():
    assert OptimizerConfig(kind="muon").lr == 0.02
    assert OptimizerConfig(kind="sgd").lr == 0.1
    assert OptimizerConfig(kind="sgd", lr=0.5).lr == 0.5
