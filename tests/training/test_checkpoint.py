"""Checkpoints that are damaged, in whatever file: what was saved before is found, and saving goes on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sonde.base.errors import UserError
from sonde.loop import State
from sonde.training import checkpoint, optimizers


def state_at(step, best_step):
    """A state whose weights are its step everywhere."""
    network = nn.Linear(3, 2)
    with torch.no_grad():
        for one in network.parameters():
            one.fill_(step)
    state = State(network=network, optimizers=optimizers.build(optimizers.OptimizerConfig(kind="sgd"), network))
    state.step, state.best_step = step, best_step
    return state


def save(folder, step, best_step):
    state = state_at(step, best_step)
    if best_step == step:
        checkpoint.save_best(folder, state)
    checkpoint.save(folder, state, step * 10)


def restored(folder, said=None):
    state = state_at(0, 0)
    position = checkpoint.restore(folder, state, said.append if said is not None else lambda line: None)
    assert all(bool((one == state.step).all()) for one in state.network.parameters())
    return state, position


def flip(path, place=-1):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_the_newest_two_and_their_best_weights_stay(tmp_path):
    for step, best_step in ((1, 1), (2, 2), (3, 2), (4, 2)):
        save(tmp_path, step, best_step)
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["best-000000002-copy.safetensors", "best-000000002.safetensors"] + [
        f"step-00000000{step}.safetensors" for step in (3, 4)
    ]
    assert restored(tmp_path)[1] == 40


def test_a_damaged_checkpoint_is_told_and_renamed(tmp_path):
    save(tmp_path, 1, 1)
    save(tmp_path, 2, 1)
    flip(tmp_path / "step-000000002.safetensors")
    said = []
    state, position = restored(tmp_path, said)
    assert (state.step, position) == (1, 10)
    assert len(said) == 1
    assert "step-000000002.safetensors is damaged" in said[0]
    assert (tmp_path / "damaged-step-000000002.safetensors").exists()


@pytest.mark.parametrize("place", [0, 20, -1])
def test_damaged_ones_do_not_count_among_those_kept(tmp_path, place):
    """Step 2 is damaged and skipped; the run goes on, and a second damage finds another good one."""
    save(tmp_path, 1, 1)
    save(tmp_path, 2, 1)
    flip(tmp_path / "step-000000002.safetensors", place)
    assert restored(tmp_path)[0].step == 1
    save(tmp_path, 3, 1)
    flip(tmp_path / "step-000000003.safetensors", place)
    assert restored(tmp_path)[0].step == 1


def test_a_checkpoint_damaged_while_the_run_goes_on_does_not_stop_it(tmp_path):
    save(tmp_path, 1, 1)
    (tmp_path / "step-000000001.safetensors").write_bytes(b"")
    save(tmp_path, 2, 1)
    assert restored(tmp_path)[0].step == 2


@pytest.mark.parametrize("name", ["best-000000001.safetensors", "best-000000001-copy.safetensors"])
def test_best_weights_survive_the_damage_of_one_file(tmp_path, name):
    for step in (1, 2, 3):
        save(tmp_path, step, 1)
    flip(tmp_path / name)
    state, _ = restored(tmp_path)
    assert state.step == 3
    assert checkpoint.read_best(tmp_path, state)["weight"].tolist() == [[1.0] * 3] * 2
    flip(
        tmp_path
        / {"best-000000001.safetensors": "best-000000001-copy.safetensors"}.get(name, "best-000000001.safetensors")
    )
    with pytest.raises(UserError, match="is damaged"):
        checkpoint.read_best(tmp_path, state)


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw", "muon"])
def test_going_back_to_the_start_forgets_what_optimizers_have_seen(tmp_path, kind):
    """A checkpoint of step 0 has no momentum; a state that is brought back to it has none either."""

    def made():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
        config = optimizers.OptimizerConfig(kind=kind, lr=0.01)
        return State(network=network, optimizers=optimizers.build(config, network, torch.float32))

    def stepped(state, seed):
        drawn = torch.Generator().manual_seed(seed)
        for parameter in state.network.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=drawn)
        for optimizer in state.optimizers:
            optimizer.step()
        state.step += 1

    state, fresh = made(), made()
    checkpoint.save(tmp_path, state, 0)
    for seed in (1, 2, 3):
        stepped(state, seed)
    assert checkpoint.restore(tmp_path, state) == 0
    assert state.step == 0
    assert checkpoint.tensors_of(state).keys() == checkpoint.tensors_of(fresh).keys()
    for one in (state, fresh):
        stepped(one, 4)
    wanted = checkpoint.tensors_of(fresh)
    for name, value in checkpoint.tensors_of(state).items():
        assert torch.equal(value, wanted[name]), name
