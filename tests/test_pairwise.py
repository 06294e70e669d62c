"""Losses over pairs of examples: the gradient of one big batch, whatever the micro-batches and processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from loop_fakes import batches_of, gradients, network_for, pairs, plan_for, state_for
from torch import nn

from sonde import loop
from sonde.base import dist, tensors
from sonde.training import parallel


def batch_of(task, examples, count=64):
    chosen = torch.arange(count)
    return task.collate(examples.take(chosen), chosen)


def assert_close(one, other, tolerance=1e-5):
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("size", [16, 13, 1])
def test_micro_batches_give_the_gradient_of_the_batch(size):
    task, examples = pairs()
    net = network_for(task)
    batch = batch_of(task, examples)
    whole = gradients(task, batch, state_for(net), plan_for(1))
    parts = gradients(task, batch, state_for(net, micro_batch=size), plan_for(1))
    assert set(whole[0]) == {"contrast", "distance"}
    assert_close(parts[0], whole[0])
    assert_close(parts[1], whole[1])
    # What the parts are compared with is the whole: each by itself would give something else.
    alone = gradients(task, batch_of(task, examples, 16), state_for(net), plan_for(1))
    assert (alone[1]["head.towers.left.weight"] - whole[1]["head.towers.left.weight"]).abs().max() > 1e-2


def by_hand(task, batch, net, size, plan):
    """The same loss with all parts in one graph, each under the seed that the loop gives it."""
    for parameter in net.parameters():
        parameter.grad = None
    held = []
    for number, part in enumerate(task.split(batch, size)):
        loop._reseed(plan, 0, number)
        held.append(task.target.embed(net, task.preprocess(part), None))
    whole = {name: torch.cat([each[name] for each in held]) for name in held[0]}
    counts = task.target.counts(batch)
    terms = task.target.compare(whole)
    sum(terms[name] / counts[name] for name in terms).backward()
    return {name: one.grad.clone() for name, one in net.named_parameters()}


class Noted(nn.Dropout):
    """Notes where it lets numbers through."""

    def __init__(self, p: float) -> None:
        super().__init__(p)
        self.masks = []

    def forward(self, input):
        output = super().forward(input)
        self.masks.append(output != 0)
        return output


def test_both_passes_drop_the_same():
    task, examples = pairs()
    net = network_for(task, dropout=0.5)
    noted = {name: Noted(0.5) for name in ("left", "right")}
    for name, layer in noted.items():
        net.backbones[name].layers[2] = layer
    net.train()
    batch, plan = batch_of(task, examples), plan_for(1)
    _, found = gradients(task, batch, state_for(net, micro_batch=16), plan)
    for layer in noted.values():
        assert len(layer.masks) == 8
        for number in range(4):
            assert torch.equal(layer.masks[number], layer.masks[4 + number])
        # And no two parts alike.
        assert not torch.equal(layer.masks[0], layer.masks[1])
    assert_close(found, by_hand(task, batch, net, 16, plan))


def test_batch_norm_follows_each_part_once():
    task, examples = pairs()
    net, other = network_for(task, norm=True).train(), network_for(task, norm=True).train()
    batch, plan = batch_of(task, examples), plan_for(1)
    _, found = gradients(task, batch, state_for(net, micro_batch=16), plan)
    wanted = by_hand(task, batch, other, 16, plan)
    assert_close(found, wanted)
    buffers = dict(other.named_buffers())
    assert len(buffers) == 6
    for name, value in net.named_buffers():
        assert torch.equal(value, buffers[name]), name
        if name.endswith("num_batches_tracked"):
            assert int(value) == 4


def test_a_batch_in_one_piece_is_embedded_once():
    task, examples = pairs()
    net = network_for(task)
    calls = []
    net.register_forward_hook(lambda *_: calls.append(1))
    for size, count in ((64, 1), (32, 4)):
        calls.clear()
        gradients(task, batch_of(task, examples), state_for(net, micro_batch=size), plan_for(1))
        assert len(calls) == count


# Two processes.

STEPS, SIZE = 4, 32


def train(folder: Path, **settings) -> None:
    """Some steps, alone or as one of several processes; the main one writes weights and losses."""
    with dist.process_group():
        task, examples = pairs()
        net = network_for(task, **settings)
        batches = batches_of(task, examples, SIZE, rank=dist.rank(), world=dist.world_size())
        wrapped = parallel.parallelize(net, "ddp")
        state = state_for(net, "adamw", parallel_network=wrapped, micro_batch=SIZE // 4)
        losses = []
        for step in loop.train(task, batches, state, plan_for(STEPS)):
            losses.append({name: value.item() for name, value in step.terms.items()} | {"norm": step.norm.item()})
        if dist.is_main():
            tensors.write(folder / "weights.safetensors", dict(net.state_dict()), {"losses": losses})
        dist.barrier()


def test_two_processes_train_as_one(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    train(tmp_path / "one")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", __file__]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(
        [*command, str(tmp_path / "two")], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (one, said), (two, heard) = (tensors.read(tmp_path / each / "weights.safetensors") for each in ("one", "two"))
    assert_close(two, one)
    assert len(said["losses"]) == STEPS
    for mine, theirs in zip(said["losses"], heard["losses"], strict=True):
        assert theirs == pytest.approx(mine, rel=1e-5)
    assert json.dumps(said["losses"][0]) != json.dumps(said["losses"][-1])


if __name__ == "__main__":
    train(Path(sys.argv[1]))
