"""Columns of examples that differ in length."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sonde.contracts.columns import Ragged, take, to_numpy

lengths = st.lists(st.integers(0, 5), min_size=1, max_size=6)


def ragged(sizes, width=None):
    drawn = torch.Generator().manual_seed(sum(sizes))
    shape = () if width is None else (width,)
    return [torch.randn(size, *shape, generator=drawn) for size in sizes]


@settings(max_examples=60, deadline=None)
@given(lengths, st.sampled_from([None, 2]), st.data())
def test_taken_padded_and_indexed_alike(sizes, width, data):
    parts = ragged(sizes, width)
    column = Ragged.of(parts)
    chosen = data.draw(st.lists(st.integers(0, len(sizes) - 1), min_size=1, max_size=5))
    some = take({"x": column}, torch.tensor(chosen))["x"]
    assert isinstance(some, Ragged)
    assert some.values is column.values
    padded = some.padded(-7.0)
    assert padded.shape[:2] == (len(chosen), max(sizes[index] for index in chosen))
    for row, index in enumerate(chosen):
        assert torch.equal(some[row], parts[index])
        assert torch.equal(padded[row, : sizes[index]], parts[index])
        assert (padded[row, sizes[index] :] == -7).all()


@settings(max_examples=60, deadline=None)
@given(lengths, st.sampled_from([None, 2]))
def test_as_metrics_take_them(sizes, width):
    """One array an example, also where all are of one length."""
    parts = ragged(sizes, width)
    found = to_numpy(Ragged.of(parts))
    assert found.dtype == object
    assert found.shape == (len(sizes),)
    for one, part in zip(found, parts, strict=True):
        np.testing.assert_array_equal(one, part.numpy())


@pytest.mark.parametrize("sizes", [[2, 2, 2], [1], [0, 0]])
def test_sets_of_one_size_stay_sets(sizes):
    found = to_numpy(Ragged.of(ragged(sizes)))
    assert found.shape == (len(sizes),)
    assert [len(one) for one in found] == sizes


def test_small_floats_become_float32():
    assert to_numpy(torch.ones(2, dtype=torch.bfloat16)).dtype == np.float32
    assert to_numpy(Ragged.of([torch.ones(2, dtype=torch.float16)]))[0].dtype == np.float32
    assert to_numpy(torch.ones(2, dtype=torch.int64)).dtype == np.int64
