"""The loop by itself: what happens when memory runs out."""

from __future__ import annotations

import pytest
import torch
from loop_fakes import plan_for
from torch import nn

from sonde import loop, stages
from sonde.base.progress import NoProgress
from sonde.data.store import encode
from sonde.recipe import Recipe


class Scarce(nn.Module):
    """Runs out of memory, as an accelerator does, at more than `most` examples at once or at the call `at`."""

    def __init__(self, most: int = 1 << 30, at: int = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.GELU(), nn.Linear(16, 10))
        self.most, self.at = most, at
        self.sizes: list[int] = []

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.sizes.append(len(grid))
            if len(grid) > self.most or len(self.sizes) == self.at:
                raise torch.OutOfMemoryError("out of memory")
        return self.layers(grid)


@pytest.fixture(scope="module")
def digits():
    recipe = Recipe.of(
        {
            "data": {"source": "sklearn:digits"},
            "inputs": {"image": {"kind": "image", "augment": {"shift": 0.1}}},
            "target": {"kind": "category", "class_weights": "balanced"},
            "network": {"kind": "mlp"},
            "training": {"steps": 3, "batch_size": 96, "precision": "fp32", "optimizer": {"kind": "sgd", "lr": 0.1}},
        }
    )
    train = stages.load_data(recipe).splits["train"]
    task = stages.fit_task(recipe, train)
    return recipe, task, encode(task, train)


def trained(digits, module):
    """The state after three steps, and the gradients of each."""
    recipe, task, train = digits
    network = stages.build_network(recipe, task, module)
    state, plan, batches = stages.prepare(recipe, task, network, train, None, NoProgress())
    gradients = []
    for _ in loop.train(task, batches, state, plan):
        gradients.append([one.grad.clone() for one in state.parameters])
    return state, gradients


# A whole batch of 96, then 48, which is still too much, then 24. Or: the second step fails, once.
@pytest.mark.parametrize(
    ("settings", "sizes", "left"), [({"most": 30}, [96, 48, 24], 24), ({"at": 2}, [96, 96, 48], 48)]
)
def test_the_micro_batch_is_halved_and_the_gradient_stays(digits, settings, sizes, left):
    _, wanted = trained(digits, Scarce())
    scarce = Scarce(**settings)
    state, found = trained(digits, scarce)
    assert scarce.sizes[:3] == sizes
    assert state.micro_batch == left
    assert state.step == 3
    for one, other in zip(found, wanted, strict=True):
        for gradient, whole in zip(one, other, strict=True):
            torch.testing.assert_close(gradient, whole, rtol=0, atol=1e-6)


def test_a_failure_half_way_through_a_batch_leaves_nothing_behind(digits):
    recipe, *rest = digits
    micro = recipe.model_copy(update={"training": recipe.training.model_copy(update={"micro_batch": 40})})
    _, wanted = trained(digits, Scarce())
    scarce = Scarce(at=2)
    state, found = trained((micro, *rest), scarce)
    assert scarce.sizes[:4] == [40, 40, 20, 20]
    assert state.micro_batch == 20
    for one, other in zip(found, wanted, strict=True):
        for gradient, whole in zip(one, other, strict=True):
            torch.testing.assert_close(gradient, whole, rtol=0, atol=1e-6)


def test_a_single_example_that_does_not_fit_is_the_end(digits):
    with pytest.raises(torch.OutOfMemoryError):
        trained(digits, Scarce(most=0))


def test_every_step_and_micro_batch_has_seeds_of_its_own():
    """By what a layer draws: the CPU's generator looks at 32 bits of a seed only."""
    plan = plan_for(1)
    drawn = set()
    for step in range(40):
        for part in range(40):
            loop._reseed(plan, step, part)
            drawn.add(tuple(torch.rand(4).tolist()))
    assert len(drawn) == 1600
