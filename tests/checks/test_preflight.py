"""Pipelines with a fault are told from sound ones before anything is trained, and the run itself is not touched."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from check_fakes import pictures, subject
from torch import Tensor, nn

from sonde.checks import preflight
from sonde.checks.preflight import Flight
from sonde.contracts.finding import Finding


class Small(nn.Module):
    """A network for pictures of 16 x 16, with a fault where a subclass puts one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(256, 32)
        self.answer = nn.Linear(32, 2)

    def forward(self, grid: Tensor) -> Tensor:
        return self.answer(torch.relu(self.first(grid.flatten(1))))


class Frozen(Small):
    def __init__(self) -> None:
        super().__init__()
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, grid: Tensor) -> Tensor:
        return super().forward(grid) * self.scale


class Detached(Small):
    def forward(self, grid: Tensor) -> Tensor:
        return self.answer(torch.relu(self.first(grid.flatten(1))).detach())


class Dead(Small):
    """Its units never answer."""

    def forward(self, grid: Tensor) -> Tensor:
        return self.answer(torch.relu(self.first(grid.flatten(1)) - 1e6))


class Mixed(Small):
    """It subtracts the mean of the batch, in evaluation too."""

    def forward(self, grid: Tensor) -> Tensor:
        values = self.first(grid.flatten(1))
        return self.answer(torch.relu(values - values.mean(0)))


class Loud(Small):
    """Its answers are far out before it has learned anything."""

    def forward(self, grid: Tensor) -> Tensor:
        return 300 * super().forward(grid)


class Squashed(Small):
    """A softmax too many, and a tiny one."""

    def forward(self, grid: Tensor) -> Tensor:
        return 0.01 * super().forward(grid).softmax(1)


@pytest.fixture(autouse=True)
def _no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps decide here, not the speed of the machine."""
    monkeypatch.setattr(preflight, "SECONDS", 1e9)


def verdict_of(check: Callable[[Flight], object], network: nn.Module | None, **training: object) -> Finding:
    flight = Flight(subject(pictures(200), pictures(40, seed=1), training=training), network)
    (found,) = check(flight)  # type: ignore[misc]
    return found


@pytest.mark.parametrize(
    "check",
    [preflight.loss_at_the_start, preflight.gradients, preflight.independence, preflight.learns_by_heart],
)
@pytest.mark.parametrize("network", [None, Small])
def test_a_sound_pipeline_passes(check: Callable[[Flight], object], network: type[nn.Module] | None) -> None:
    found = verdict_of(check, network and network())
    assert found.verdict == "pass", found.to_text()


@pytest.mark.parametrize(
    ("check", "network", "verdict"),
    [
        (preflight.gradients, Detached, "warn"),
        (preflight.gradients, Dead, "warn"),
        (preflight.independence, Mixed, "fail"),
        (preflight.loss_at_the_start, Loud, "warn"),
        (preflight.learns_by_heart, Frozen, "fail"),
        (preflight.learns_by_heart, Dead, "fail"),
        (preflight.learns_by_heart, Squashed, "fail"),
    ],
)
def test_a_fault_is_found(check: Callable[[Flight], object], network: type[nn.Module], verdict: str) -> None:
    torch.manual_seed(0)
    found = verdict_of(check, network())
    assert found.verdict in {verdict, "fail"}, found.to_text()


@pytest.mark.parametrize(("lr", "verdicts"), [(1e-3, {"pass"}), (1e3, {"fail", "warn"}), (1e-7, {"warn"})])
def test_a_rate_far_off_is_found(lr: float, verdicts: set[str]) -> None:
    found = verdict_of(preflight.learning_rate, None, optimizer={"kind": "adamw", "lr": lr})
    assert found.verdict in verdicts, found.to_text()


def test_the_caller_and_the_network_stay_as_they_were() -> None:
    network = Small()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for check in (preflight.gradients, preflight.learns_by_heart, preflight.forecast):
        verdict_of(check, network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
