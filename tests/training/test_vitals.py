"""Looks at a training: the numbers are right, nothing is changed by them, and the device is read at looks only."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch
from loop_fakes import WIDTH, batches_of, plan_for, state_for, two_terms
from test_health import Reads
from torch import nn
from torch.nn import functional

from sonde import loop, networks
from sonde.checks import vitals as told
from sonde.data.store import Encoded
from sonde.training import checkpoint
from sonde.training._units import Units
from sonde.training.vitals import Vitals, looks_every

STEPS = 12


class Odd(nn.Module):
    """Of eight relu units three never fire; tanh stands at its limits."""

    def __init__(self):
        super().__init__()
        self.one, self.drop, self.two = nn.Linear(WIDTH, 8), nn.Dropout(0.5), nn.Linear(8, 2)
        self.norm = nn.BatchNorm1d(8)
        with torch.no_grad():
            self.one.bias[:3] = -1e4

    def forward(self, x):
        return self.two(self.drop(self.norm(torch.tanh(50 * functional.relu(self.one(x))))))


def setup(every, **plan):
    task, examples = two_terms(STEPS * 8)
    torch.manual_seed(0)
    state = state_for(networks.wrap(Odd(), task), "adamw")
    plan = plan_for(STEPS, **plan)
    train = Encoded(examples=examples, ids=[str(n) for n in range(len(examples))], unreadable={}, unseen={}, count=0)
    return (
        task,
        batches_of(task, examples, 8),
        state,
        plan,
        Vitals(task=task, state=state, plan=plan, train=train, every=every),
    )


def run(task, batches, state, plan, vitals):
    found = []
    vitals.before(1)
    for step in loop.train(task, batches, state, plan):
        if vitals.is_due(step.number):
            found.append(vitals.look())
        vitals.before(step.number + 1)
    return found


def test_looks_change_no_bit_and_read_once_each():
    parts = setup(4, read_every_step=False)
    ready = [parts[1].at(step) for step in range(STEPS)]
    parts[1].at = ready.__getitem__
    # The batch that is looked at is made once.
    parts[4]._some()
    with Reads() as reads:
        looks = run(*parts)
    assert len(looks) == 3
    # One list of numbers is read at a look; between two looks nothing.
    numbers = sum(len(values) for name, values in looks[0]["vitals"].items() if name != "layers")
    assert reads.count <= 3 * numbers
    other = setup(4, read_every_step=False)
    for _ in loop.train(*other[:4]):
        pass
    ours, theirs = checkpoint.tensors_of(parts[2]), checkpoint.tensors_of(other[2])
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_between_looks_nothing_is_read():
    parts = setup(10**6, read_every_step=False)
    ready = [parts[1].at(step) for step in range(STEPS)]
    parts[1].at = ready.__getitem__
    parts[4].is_due = lambda step: False
    with Reads() as reads:
        assert run(*parts) == []
    assert reads.count == 0


def test_the_numbers_are_those_of_the_step():
    task, batches, state, _, vitals = setup(1)
    before = copy.deepcopy(state.network)
    look = run(task, batches, state, plan_for(1), vitals)[0]["vitals"]
    weights = dict(state.network.named_parameters())
    assert look["layers"] == [name for name, one in weights.items() if one.ndim > 1]
    for name, gradient, update in zip(look["layers"], look["gradient"], look["update"], strict=True):
        old, new = dict(before.named_parameters())[name], weights[name]
        assert gradient == pytest.approx(float(new.grad.square().mean().sqrt()), rel=1e-3)
        assert update == pytest.approx(float(((new - old).norm() / old.norm()).detach()), rel=1e-3)
    assert list(look["dead"].values()) == [pytest.approx(3 / 8, abs=0.01)]
    (place,) = look["dead"]
    assert place.endswith("module")
    assert 0 < next(iter(look["saturated"].values())) < 1


def test_units_lie_in_the_second_dimension_of_a_convolution_and_the_last_of_a_product():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4, 5), nn.GELU())
    with torch.no_grad():
        network[0].bias[1] = -1e3
        network[3].bias[:2] = -1e3
    units = Units()
    with torch.no_grad(), units.places(network), units:
        network(torch.rand(6, 1, 4, 4))
    assert {name: round(float(value), 3) for name, value in units.dead.items()}["4"] == 0.4
    assert float(units.dead["1"]) >= 0.25
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_looks_are_few_and_at_log_points():
    assert looks_every(100, 1) == 50
    assert looks_every(100_000, 200) == 2600
    assert all(looks_every(steps, every) % every == 0 for steps in (10, 777, 9999) for every in (1, 7, 300))


def written(tmp_path, **changes):
    one = {"layers": ["a.weight", "b.weight"], "gradient": [1e-3, 2e-3], "update": [1e-3, 2e-3]}
    one |= {"dead": {"a": 0.1}, "saturated": {"b": 0.2}} | changes
    (tmp_path / "log.jsonl").write_text("\n".join(json.dumps({"step": n, "vitals": one}) for n in (50, 100)))
    looks = told.Looks.read(tmp_path / "log.jsonl")
    return looks, {found.check: found for found in told.findings(looks)}


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"dead": {"a": 0.95}}, "dead units"),
        ({"saturated": {"b": 0.9}}, "saturated units"),
        ({"gradient": [0.0, 1e-3]}, "gradients by depth"),
        ({"gradient": [1e-12, 1e-3]}, "gradients by depth"),
        ({"update": [0.3, 0.5]}, "update to weight"),
        ({"update": [1e-7, 1e-7]}, "update to weight"),
        ({}, None),
    ],
)
def test_what_is_odd_is_named_with_a_fix(tmp_path, changes, check):
    looks, found = written(tmp_path, **changes)
    assert [name for name, one in found.items() if one.verdict != "pass"] == ([check] if check else [])
    assert all(one.fix for one in found.values())
    assert told.first_thing([*found.values()]).startswith(f"first: {found[check].fix}" if check else "")
    assert json.loads(json.dumps(told.panels(looks)))


def test_a_spike_names_the_records_of_its_batch():
    steps = np.arange(1, 201)
    losses = np.exp(-steps / 50)
    losses[120] = 4.0
    (found,) = told.spikes(steps, losses, lambda step: [f"of step {step}"])
    assert (found.verdict, found.records) == ("warn", ["of step 121"])
    (found,) = told.spikes(steps, np.exp(-steps / 50), lambda step: [])
    assert found.verdict == "pass"
    assert math.isfinite(losses.sum())
