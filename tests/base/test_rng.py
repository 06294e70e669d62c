from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sonde.base import rng
from sonde.base.hashing import splitmix64
from sonde.base.rng import BatchRng, shuffled


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 1797, 65_536, 65_537, 200_003])
def test_shuffled_is_a_permutation(count):
    assert sorted(shuffled(count, 0)) == list(range(count))


def test_a_seed_stays_with_its_order():
    # Runs that were made with an earlier version are resumed and repeated in the order that they had.
    assert shuffled(7, 0).tolist() == [0, 6, 4, 5, 1, 3, 2]
    assert shuffled(65_536, 1)[:5].tolist() == [21500, 31150, 22651, 2758, 54648]


@given(st.lists(st.integers(0, (1 << 64) - 1), min_size=1))
@settings(max_examples=50, deadline=None)
def test_the_device_hashes_as_numpy_does(states):
    states = np.array(states, dtype=np.uint64)
    on_device = rng._mix(torch.from_numpy(states.view(np.int64)))
    np.testing.assert_array_equal(on_device.numpy().view(np.uint64), splitmix64(states))


def test_every_place_is_as_likely_as_another():
    # 6 items, 6,000 seeds: each cell of the item-by-place table expects 1,000; 5 sigma is about 145.
    table = np.zeros((6, 6), dtype=int)
    for seed in range(6000):
        table[np.arange(6), shuffled(6, seed)] += 1
    assert abs(table - 1000).max() < 145


def test_draws_are_uniform_and_independent():
    draws = BatchRng(seed=3, epoch=1, records_B=torch.arange(50_000))
    values = draws.uniform("a", 2).double()
    assert values.min() >= 0
    assert values.max() < 1
    assert values.mean().item() == pytest.approx(0.5, abs=0.005)
    assert values.var().item() == pytest.approx(1 / 12, abs=0.002)
    columns = torch.stack([values[:, 0], values[:, 1], draws.uniform("b").double()])
    off_diagonal = torch.corrcoef(columns) - torch.eye(3)
    assert off_diagonal.abs().max() < 0.02


def test_a_record_draws_the_same_in_any_batch():
    whole = BatchRng(seed=0, epoch=5, records_B=torch.arange(10)).uniform("x", 4)
    part = BatchRng(seed=0, epoch=5, records_B=torch.tensor([7, 2])).uniform("x", 4)
    assert torch.equal(part, whole[[7, 2]])
    assert not torch.equal(whole, BatchRng(seed=0, epoch=6, records_B=torch.arange(10)).uniform("x", 4))
    assert not torch.equal(whole, BatchRng(seed=1, epoch=5, records_B=torch.arange(10)).uniform("x", 4))


def test_a_large_shuffle_has_no_visible_order():
    order = shuffled(1_000_003, 1)[:100_000].astype(float)
    assert abs(np.corrcoef(order, np.arange(100_000))[0, 1]) < 0.02
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.02
    assert order.mean() == pytest.approx(500_001, rel=0.01)
