from __future__ import annotations

import numpy as np
import pytest
import torch

from sonde.base.errors import UserError
from sonde.contracts.columns import Ragged
from sonde.contracts.records import Records, as_field
from sonde.contracts.task import Task
from sonde.data import store
from sonde.inputs.image import Image, ImageConfig
from sonde.inputs.text import Text, TextConfig
from sonde.targets.category import Category, CategoryConfig


def texts(count=30):
    words = np.random.default_rng(0).choice(["deep", "sea", "line", "sonde"], (count, 6))
    rows = [" ".join(row[: 1 + index % 6]) for index, row in enumerate(words)]
    fields = {"text": as_field(rows), "label": as_field([str(index % 2) for index in range(count)])}
    return Records(fields=fields, ids=[f"row {index}" for index in range(count)])


def task_of(records, **settings):
    part = Text.fit(TextConfig(min_count=1, **settings), records)
    return Task(inputs={"text": part}, target=Category.fit(CategoryConfig(), records, {"text": part}))


@pytest.mark.parametrize("memory", [float("inf"), 1])
def test_chunks_in_memory_and_in_mapped_files_hold_the_same(tmp_path, monkeypatch, memory):
    records = texts()
    task = task_of(records)
    whole = store.encode(task, records).examples
    monkeypatch.setattr(store, "CHUNK", 7)
    seen = []
    parts = store.encode(task, records, memory=memory, cache=tmp_path / "cache", on_progress=seen.append).examples
    assert seen[-1] == 30
    assert (tmp_path / "cache").exists() == (memory == 1)
    one, other = whole.inputs["text"]["tokens"], parts.inputs["text"]["tokens"]
    assert isinstance(one, Ragged)
    assert isinstance(other, Ragged)
    assert all(torch.equal(one[index], other[index]) for index in range(30))
    assert torch.equal(whole.truth["class"], parts.truth["class"])


def test_unreadable_records_leave_the_others_in_place():
    pictures = np.empty(6, dtype=object)
    pictures[:] = [np.full((8, 8), 40 * index, dtype=np.uint8) for index in range(6)]
    labels = as_field(list("ababab"))
    good = Records(fields={"image": pictures, "label": labels}, ids=[f"p{index}" for index in range(6)])
    part = Image.fit(ImageConfig(size=8), good)
    task = Task(inputs={"image": part}, target=Category.fit(CategoryConfig(), good, {"image": part}))
    broken = pictures.copy()
    broken[2] = b"not a picture"
    records = Records(fields={"image": broken, "label": labels}, ids=good.ids)
    found = store.encode(task, records)
    assert list(found.ids) == ["p0", "p1", "p3", "p4", "p5"]
    assert list(found.unreadable) == ["p2"]
    assert found.examples.inputs["image"]["grid"][:, 0, 0, 0].tolist() == [0, 40, 120, 160, 200]
    assert found.examples.truth["class"].tolist() == [0, 1, 1, 0, 1]
    whole = store.encode(task, good)
    said = r"1 of 12 records cannot be read \(0 of 6 in train, 1 of 6 in test\): p2: the picture is not a readable"
    with pytest.raises(UserError, match=said):
        store.check_unreadable({"train": whole, "test": found}, 0.05)
    # The share is that of the data set: one of a small split alone stops nothing.
    store.check_unreadable({"train": whole, "test": found}, 0.1)


def test_a_wrong_truth_is_never_skipped():
    records = texts()
    task = task_of(records)
    labels = records.fields["label"].copy()
    labels[4] = "other"
    with pytest.raises(UserError, match=r"row 4: the label 'other' in field 'label' was never seen in training"):
        store.encode(task, records.with_fields(label=labels))


def test_windows_need_a_truth_of_their_own():
    records = texts()
    with pytest.raises(UserError, match=r"arrange 30 records as \d+ windows, and the target has a truth per record"):
        store.encode(task_of(records, window=4), records)
