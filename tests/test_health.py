"""Steps whose health the host reads now and then only, as on an accelerator: the same weights, nothing lost."""

from __future__ import annotations

import copy

import pytest
import torch
from loop_fakes import batches_of, network_for, plan_for, state_for, two_terms
from torch.utils._python_dispatch import TorchDispatchMode

from sonde import loop
from sonde.training import checkpoint
from sonde.training.ema import EMA

KINDS = ["sgd", "adam", "adamw", "muon"]
STEPS, SIZE = 8, 16


def setup(kind, *, read, bad=None, count=STEPS * SIZE, **settings):
    """A run of one epoch; the records of `bad` have a NaN in their input."""
    task, examples = two_terms(count)
    for record in bad or ():
        examples.inputs["x"]["vector"][record, 2] = float("nan")
    plan = plan_for(STEPS, read_every_step=read, max_grad_norm=0.5, **settings)
    return task, batches_of(task, examples, SIZE), state_for(network_for(task, dropout=0.2), kind), plan


def run(task, batches, state, plan, until=STEPS):
    steps = []
    if state.step < until:
        for step in loop.train(task, batches, state, plan):
            steps.append(step)
            if step.number == until:
                break
    return steps


def content(state):
    return {name: value.clone() for name, value in checkpoint.tensors_of(state).items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spike", [None, 1e6])
def test_not_looking_changes_no_bit(kind, spike):
    looking, blind = setup(kind, read=True, spike=spike), setup(kind, read=False, spike=spike)
    seen, unseen = run(*looking), run(*blind)
    assert_same(content(looking[2]), content(blind[2]))
    for one, other in zip(seen, unseen, strict=True):
        assert torch.equal(one.norm, other.norm)
        assert all(torch.equal(value, other.terms[name]) for name, value in one.terms.items())
    # Clipping took part.
    assert any(float(step.norm) > 0.5 for step in seen)
    loop.check(blind[0], blind[1], blind[2], blind[3])
    assert blind[2].step == STEPS
    assert (blind[2].loss_ema is None) == (spike is None)


def bad_at(step, rows=(3, 9)):
    """Records of a step's batch, by their rows."""
    _, batches, _, _ = setup("sgd", read=False)
    return [int(batches.at(step).batch.records_B[row]) for row in rows]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [0, 4])
def test_a_bad_batch_in_the_middle_leaves_the_weights_before_it(kind, step):
    bad = bad_at(step)
    task, batches, state, plan = setup(kind, read=False, bad=bad)
    before = setup(kind, read=False)
    run(*before, until=step)
    # Nobody looks until the end: three more steps are gone through.
    assert len(run(task, batches, state, plan)) == STEPS
    with pytest.raises(loop.DivergedAtStep, match=rf"became NaN or infinite at step {step + 1}; ") as caught:
        loop.check(task, batches, state, plan)
    assert sorted(caught.value.records) == sorted(bad)
    assert caught.value.step == step + 1
    assert "the loss term 'squared'" in str(caught.value)
    assert state.step == step
    weights = {name: value for name, value in content(state).items() if name.startswith("network.")}
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert_same(weights, {name: value for name, value in content(before[2]).items() if name.startswith("network.")})
    if step:
        # So are the optimizers: whoever leaves those records out goes on as if they had never been there.
        assert_same(content(state), content(before[2]))
    named = caught.value.named([f"row {number}" for number in range(STEPS * SIZE)])
    assert f"row {bad[0]}" in str(named)


@pytest.mark.parametrize("kind", KINDS)
def test_looking_at_every_step_tells_it_at_once(kind):
    bad = bad_at(4)
    task, batches, state, plan = setup(kind, read=True, bad=bad)
    before = setup(kind, read=True)
    run(*before, until=4)
    with pytest.raises(loop.DivergedAtStep, match="at step 5") as caught:
        run(task, batches, state, plan)
    assert sorted(caught.value.records) == sorted(bad)
    assert_same(content(state), content(before[2]))


@pytest.mark.parametrize("read", [True, False])
def test_a_loss_that_shoots_up_is_told_with_its_batch(read, monkeypatch):
    monkeypatch.setattr(loop, "MIN_STEPS", 3)
    task, batches, state, plan = setup("sgd", read=read, spike=4.0)
    batches.examples.truth["value"][batches.at(5).batch.records_B] += 50
    after = None

    def go():
        nonlocal after
        for step in loop.train(task, batches, state, plan):
            if step.number == 5:
                after = content(state)
        loop.check(task, batches, state, plan)

    with pytest.raises(
        loop.DivergedAtStep, match=r"the loss shot up to .* more than 4 times its moving average"
    ) as caught:
        go()
    assert caught.value.step == 6
    assert sorted(caught.value.records) == sorted(batches.at(5).batch.records_B.tolist())
    assert_same(content(state), after)


class Reads(TorchDispatchMode):
    """Counts how often a number is read from a tensor, which on an accelerator waits for the device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.item.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", KINDS)
def test_between_two_checks_nothing_is_read(kind):
    task, batches, state, plan = setup(kind, read=False, spike=1e6)
    state.ema = EMA(state.network, 0.9)
    ready = [batches.at(step) for step in range(STEPS)]
    batches.at = ready.__getitem__  # type: ignore[method-assign]
    with Reads() as reads:
        assert len(run(task, batches, state, plan)) == STEPS
    assert reads.count == 0
    with reads:
        loop.check(task, batches, state, plan)
    assert 1 <= reads.count <= 3
    # The counter counts.
    looking = setup(kind, read=True)
    with Reads() as reads:
        run(*looking)
    assert reads.count >= STEPS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", [0.01, 3.0])
def test_clipping_scales_the_gradient_to_its_largest_norm(kind, norm):
    """As if it had been that small from the start, and not at all where it is shorter."""
    state, plan = setup(kind, read=True)[2], plan_for(1, max_grad_norm=norm)
    other = state_for(copy.deepcopy(state.network), kind)
    for one in (state, other):
        drawn = torch.Generator().manual_seed(0)
        for parameter in one.network.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=drawn)
        total = torch.nn.utils.get_total_norm([each.grad for each in one.network.parameters()])
        scale = 2.0 / total
        for parameter in one.network.parameters():
            parameter.grad *= scale
    for parameter in other.network.parameters():
        parameter.grad *= min(1.0, norm / 2.0)
    loop._update(state, plan, torch.tensor(2.0), 1.0)
    loop._update(other, plan_for(1), torch.tensor(2.0), 1.0)
    for one, two in zip(state.network.parameters(), other.network.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
