from __future__ import annotations

from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from loop_fakes import Contrastive

from sonde.base.errors import UserError
from sonde.contracts.batch import Examples
from sonde.contracts.columns import Ragged
from sonde.contracts.task import Task
from sonde.data.batches import Batches, in_order


class Plain:
    """A task whose batch is just the numbers of its examples."""

    target = SimpleNamespace(padded=())
    inputs: ClassVar = {"x": SimpleNamespace(pads=True)}

    def collate(self, examples, records_B):
        return records_B


def batches(count, size, lengths=None, **settings):
    inputs = {"x": {"value": torch.arange(count)}}
    if lengths is not None:
        starts = lengths.cumsum(0) - lengths
        inputs = {"x": {"tokens": Ragged(values=torch.zeros(int(lengths.sum())), starts=starts, lengths=lengths)}}
    return Batches(Plain(), Examples(inputs=inputs, truth={}, count=count), size=size, seed=0, **settings)


def order(source, steps):
    return [source.at(step).batch.tolist() for step in range(steps)]


def test_an_epoch_is_a_permutation_and_epochs_differ():
    source = batches(100, 10)
    first, second = order(source, 10), [source.at(10 + step).batch.tolist() for step in range(10)]
    assert sorted(sum(first, [])) == sorted(sum(second, [])) == list(range(100))
    assert first != second
    assert [source.at(step).epoch for step in (0, 9, 10, 25)] == [0, 0, 1, 2]


def test_any_step_can_be_asked_for_alone():
    steps = order(batches(1000, 7), 300)
    fresh = batches(1000, 7)
    for step in (299, 3, 141, 142, 0):
        assert fresh.at(step).batch.tolist() == steps[step]


def test_processes_share_each_batch_of_one_process():
    alone = order(batches(100, 12), 16)
    parts = [order(batches(100, 12, rank=rank, world=4), 16) for rank in range(4)]
    assert [sum((part[step] for part in parts), []) for step in range(16)] == alone


def test_a_batch_larger_than_the_data_is_the_data():
    source = batches(5, 100)
    assert source.per_epoch == 1
    assert sorted(source.at(0).batch.tolist()) == [0, 1, 2, 3, 4]


def test_grouping_by_length_pads_little_and_still_visits_all():
    lengths = torch.from_numpy(np.random.default_rng(0).lognormal(3, 0.7, 4096).astype(np.int64) + 1)
    source = batches(4096, 32, lengths, group_by_length=True)
    rows = order(source, 128)
    assert sorted(sum(rows, [])) == list(range(4096))
    padded = sum(int(lengths[row].max()) * len(row) for row in map(torch.tensor, rows))
    plain = sum(int(lengths[row].max()) * len(row) for row in map(torch.tensor, order(batches(4096, 32), 128)))
    waste = 1 - int(lengths.sum()) / padded
    assert waste < 0.05, (
        f"{waste:.1%} of the grouped batches is padding, {1 - int(lengths.sum()) / plain:.1%} ungrouped"
    )
    assert order(batches(4096, 32, lengths, group_by_length=True), 128) == rows


SKEWED = np.random.default_rng(0).lognormal(3, 0.8, 6000).astype(np.int64).clip(1, 120)


@pytest.mark.parametrize("size", [8, 32, 128])
def test_grouping_keeps_padding_to_a_twentieth(size):
    lengths = torch.from_numpy(SKEWED)
    source = batches(6000, size, lengths, group_by_length=True)
    for epoch in range(2):
        rows = [source.at(epoch * source.per_epoch + step).batch.tolist() for step in range(source.per_epoch)]
        assert len(set(sum(rows, []))) == source.per_epoch * size
        padded = sum(int(lengths[row].max()) * size for row in rows)
        assert int(lengths[sum(rows, [])].sum()) >= 0.95 * padded


def test_grouping_asks_as_few_neighbours_as_it_can():
    mild, skewed = torch.from_numpy(SKEWED % 5 + 60), torch.from_numpy(SKEWED)
    assert batches(6000, 8, mild, group_by_length=True).block == 8
    assert 8 < batches(6000, 8, skewed, group_by_length=True).block <= 256


def test_grouped_examples_change_their_company():
    source = batches(6000, 20, torch.from_numpy(SKEWED), group_by_length=True)
    company = []
    for epoch in range(2):
        rows = [source.at(epoch * 300 + step).batch.tolist() for step in range(300)]
        company.append({example: set(row) - {example} for row in rows for example in row})
    again = [len(company[0][example] & company[1][example]) / 19 for example in range(6000)]
    assert np.mean(again) < 0.1


def test_grouped_batches_can_be_asked_for_alone_and_shared():
    lengths = torch.from_numpy(SKEWED)
    alone = order(batches(6000, 12, lengths, group_by_length=True), 700)
    fresh = batches(6000, 12, lengths, group_by_length=True)
    assert all(fresh.at(step).batch.tolist() == alone[step] for step in (699, 3, 411, 0))
    parts = [order(batches(6000, 12, lengths, group_by_length=True, rank=rank, world=3), 40) for rank in range(3)]
    assert [sum((part[step] for part in parts), []) for step in range(40)] == alone[:40]


def test_grouping_leaves_equal_lengths_as_they_are():
    same = torch.full((100,), 7)
    assert order(batches(100, 10, same, group_by_length=True), 20) == order(batches(100, 10, same), 20)


def test_what_is_not_padded_is_not_grouped():
    class Unpadded(Plain):
        inputs: ClassVar = {"x": SimpleNamespace(pads=False)}

    lengths = torch.arange(100) % 9 + 1
    columns = {
        "nodes": Ragged(values=torch.zeros(int(lengths.sum())), starts=lengths.cumsum(0) - lengths, lengths=lengths)
    }
    examples = Examples(inputs={"x": columns}, truth={}, count=100)
    found = Batches(Unpadded(), examples, size=10, seed=0, group_by_length=True)
    assert order(found, 20) == order(batches(100, 10), 20)


def test_in_order_visits_every_example_once():
    examples = Examples(inputs={"x": {"value": torch.arange(10)}}, truth={}, count=10)
    assert [row.tolist() for row in (in_order(Plain(), examples, 4, start) for start in (0, 4, 8))] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]


@pytest.mark.parametrize("count", [70_000])
def test_large_sets_are_permuted_block_by_block(count):
    source = batches(count, 100)
    assert sorted(sum(order(source, 700), [])) == list(range(count))


class Meeting(Contrastive):
    """Wants examples of one code to meet."""

    meets: ClassVar = 4

    def together(self, truth):
        return truth["code"], self.meets


def meeting(codes, size, *, meets=4, seed=0, **settings):
    target = type("Meeting", (Meeting,), {"meets": meets})()
    task = Task(inputs={}, target=target)
    examples = Examples(inputs={}, truth={"code": torch.as_tensor(codes)}, count=len(codes))
    return Batches(task, examples, size=size, seed=seed, **settings)


def rows_of(source, epoch=0):
    first = epoch * source.per_epoch
    return [source.at(first + step).batch.records_B.tolist() for step in range(source.per_epoch)]


# Of each code from 1 to 29 examples, in no order.
CODES = np.random.default_rng(0).permutation(np.repeat(np.arange(40), np.random.default_rng(1).integers(1, 30, 40)))


@pytest.mark.parametrize(("size", "meets"), [(16, 4), (24, 2), (12, 3), (32, 8)])
def test_so_many_of_a_code_meet_in_every_batch(size, meets):
    source = meeting(CODES, size, meets=meets)
    assert source.per_epoch > 5
    for epoch in range(3):
        for row in rows_of(source, epoch):
            assert len(row) == size
            groups = CODES[np.array(row)].reshape(-1, meets)
            assert (groups == groups[:, :1]).all()


@pytest.mark.parametrize("meets", [2, 4])
@pytest.mark.parametrize("groups", [4, 7, 12])
def test_codes_of_a_batch_are_distinct_while_possible(meets, groups):
    """As long as so many codes have the turn that its last group is of; and all have a turn before any has the next."""
    source = meeting(CODES, groups * meets, meets=meets)
    _, counts = np.unique(CODES, return_counts=True)
    turns = np.where(counts > 1, np.maximum(1, counts // meets), 0)
    had = np.zeros_like(turns)
    rows, checked, latest = rows_of(source), 0, 0
    for row in rows:
        codes = CODES[np.array(row)].reshape(-1, meets)[:, 0]
        for code in codes:
            assert had[code] >= latest
            latest = max(latest, int(had[code]))
            had[code] += 1
        if (turns > latest).sum() >= groups:
            assert len(set(codes.tolist())) == groups
            checked += 1
    assert (had <= turns).all()
    assert checked >= len(rows) / 2


def test_examples_of_a_code_take_turns_and_singles_are_left_out():
    source = meeting(CODES, 16)
    names, counts = np.unique(CODES, return_counts=True)
    assert (counts == 1).any()
    assert ((counts > 1) & (counts < 4)).any()
    seen = np.concatenate([np.concatenate(rows_of(source, epoch)) for epoch in range(12)])
    often = np.bincount(seen, minlength=len(CODES))
    single = np.isin(CODES, names[counts == 1])
    assert not often[single].any()
    # Over epochs everyone who has a partner is met, none many times as often as another of its code.
    assert (often[~single] > 0).all()
    # Within an epoch only those of a code with fewer than meet come twice.
    once = np.bincount(np.concatenate(rows_of(source)), minlength=len(CODES))
    assert once[np.isin(CODES, names[counts >= 4])].max() == 1


def test_meeting_is_a_function_of_seed_and_epoch():
    source = meeting(CODES, 16)
    straight = [rows_of(source, epoch) for epoch in range(3)]
    assert straight[0] != straight[1]
    assert rows_of(meeting(CODES, 16, seed=1)) != straight[0]
    flat = sum(straight, [])
    fresh = meeting(CODES, 16)
    for step in (2 * fresh.per_epoch + 3, 0, fresh.per_epoch - 1, fresh.per_epoch, 5):
        place = fresh.at(step)
        assert place.batch.records_B.tolist() == flat[step]
        assert place.epoch == step // fresh.per_epoch
        # A resume begins there with nothing held.
        assert meeting(CODES, 16).at(step).batch.records_B.tolist() == flat[step]


def test_meeting_is_shared_by_processes_and_decides_before_lengths():
    source = meeting(CODES, 16)
    parts = [meeting(CODES, 16, rank=rank, world=2, group_by_length=True) for rank in range(2)]
    for step in range(6):
        assert sum((part.at(step).batch.records_B.tolist() for part in parts), []) == rows_of(source)[step]


def test_fewer_pairs_than_a_batch_are_one_batch():
    codes = np.array([0, 0, 1, 1, 2])
    source = meeting(codes, 5, meets=2)
    assert source.per_epoch == 1
    assert sorted(source.at(0).batch.records_B.tolist()) == [0, 1, 2, 3]


def test_groups_that_cannot_be_made_are_told():
    with pytest.raises(UserError, match=r"a batch of 3 examples cannot be made of groups of 2.*batch_size = 2"):
        meeting(np.array([0, 0, 1, 1]), 3, meets=2)
    with pytest.raises(UserError, match="there are no pairs to learn from"):
        meeting(np.arange(6), 4, meets=2)
