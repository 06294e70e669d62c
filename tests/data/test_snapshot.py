"""The fingerprint: what changes it, what does not, and how changes are told."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path

import numpy as np
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonde.contracts.records import Records, as_field
from sonde.data.snapshot import Snapshot, changes, snapshot
from sonde.data.sources.table import Table


def of(splits: str = "train", **fields: np.ndarray) -> Snapshot:
    count = len(next(iter(fields.values())))
    records = Records(fields=fields, ids=[f"row {number}" for number in range(1, count + 1)])
    return snapshot(records, np.full(count, splits), used=set(fields))


def objects(*values: object) -> np.ndarray:
    field = np.empty(len(values), dtype=object)
    field[:] = values
    return field


def files(folder: Path, contents: list[bytes]) -> np.ndarray:
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return objects(*paths)


def test_files_count_by_content_and_not_by_place_or_time(tmp_path: Path) -> None:
    here, there = files(tmp_path / "a", [b"one", b"two"]), files(tmp_path / "b", [b"one", b"two"])
    os.utime(there[0], (1, 1))
    before = of(file=here)
    assert before.fingerprint == of(file=there).fingerprint
    there[1].write_bytes(b"twO")
    after = of(file=there)
    assert before.hashes[0] == after.hashes[0]
    assert before.hashes[1] != after.hashes[1]
    there[1].unlink()  # for others to judge: it has a fingerprint still
    assert of(file=there).fingerprint not in (before.fingerprint, after.fingerprint)
    # A picture that came as bytes is the same picture.
    assert of(file=objects(b"one", b"two")).fingerprint == before.fingerprint


def test_only_what_is_used_counts() -> None:
    records = Records(fields={"a": np.arange(3), "b": np.arange(3)}, ids=["x", "y", "z"])
    splits = np.array(["train", "test", ""])
    one = snapshot(records, splits, used={"a"})
    assert one.fingerprint == snapshot(records.with_fields(b=np.zeros(3)), splits, used={"a"}).fingerprint
    assert one.fingerprint != snapshot(records, splits, used={"a", "b"}).fingerprint
    assert one.fingerprint != snapshot(records, splits[::-1], used={"a"}).fingerprint
    assert one.fingerprint != snapshot(records.take(np.array([1, 0, 2])), splits, used={"a"}).fingerprint


def test_numbers_count_by_value_and_not_by_storage() -> None:
    assert of(x=np.array([1, 2])).hashes == of(x=np.array([1.0, 2.0], dtype=np.float32)).hashes
    assert of(x=np.array([1, 2])).hashes == of(x=objects(1, 2.0)).hashes
    assert of(x=np.array([0.0])).hashes == of(x=np.array([-0.0])).hashes
    assert of(x=np.array([np.nan])).hashes == of(x=objects(None)).hashes == of(x=objects(float("nan"))).hashes
    large = np.array([2**60, 2**60 + 1])
    assert len(set(of(x=large).hashes)) == 2
    assert of(x=objects(True, False)).hashes == of(x=np.array([True, False])).hashes
    day = np.array(["2024-05-31"], dtype="datetime64[D]")
    assert of(x=day).hashes == of(x=objects(datetime.datetime(2024, 5, 31))).hashes != of(x=day.astype(int)).hashes
    assert of(x=objects("1")).hashes != of(x=objects(1)).hashes


def test_values_of_every_sort_differ() -> None:
    values = objects("a", b"a", "", None, 0, 1.5, ["a"], {"a": 1}, {"a": 2}, np.zeros(2), np.zeros((2, 1)), 2**70)
    hashes = of(x=values).hashes
    assert len(set(hashes)) == len(values)
    assert hashes == of(x=values).hashes
    pictures = np.zeros((3, 4, 4), dtype=np.uint8)
    pictures[2, 1, 1] = 1
    first, second, third = of(x=pictures).hashes
    assert first == second != third
    # The same value in another column is another record.
    assert of(x=np.arange(3), y=np.ones(3)).hashes != of(y=np.arange(3), x=np.ones(3)).hashes


@given(st.lists(st.one_of(st.none(), st.text(max_size=3), st.integers(-3, 3)), min_size=1, max_size=20))
def test_equal_values_have_equal_hashes(values: list) -> None:
    hashes = of(x=as_field(values)).hashes
    for one, ours in zip(values, hashes, strict=True):
        for other, theirs in zip(values, hashes, strict=True):
            assert (one == other) == (ours == theirs)


def test_csv_parquet_and_jsonl_of_the_same_rows(tmp_path: Path) -> None:
    frame = polars.DataFrame(
        {
            "x": [0.1, None, 1e-300],
            "n": [1, 2, 3],
            "word": ["a", None, "c, d"],
            "day": [datetime.date(2024, 1, 1), None, datetime.date(2024, 1, 3)],
            "yes": [True, None, False],
        }
    )
    frame.write_csv(tmp_path / "a.csv")
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_ndjson(tmp_path / "a.jsonl")
    prints = set()
    for name in ("a.csv", "a.parquet", "a.jsonl"):
        records = Table.read(tmp_path / name, Table.Config())
        prints.add(snapshot(records, np.full(3, "train"), used=set(records.fields)).fingerprint)
    assert len(prints) == 1


def test_json_and_back() -> None:
    records = Records(fields={"a": np.arange(4)}, ids=["a/1.png", "b", "c", "d"])
    one = snapshot(records, np.array(["train", "validation", "test", ""]), used={"a"})
    written = json.loads(json.dumps(one.to_json()))
    assert written["splits"] == "1230"
    assert len(written["hashes"]) == 4 * 16
    assert Snapshot.from_json(written) == one
    assert changes(one, Snapshot.from_json(written)) == []


def test_changes_in_words() -> None:
    def made(ids: list[str], values: list[int], splits: list[str], name: str = "a") -> Snapshot:
        records = Records(fields={name: np.array(values)}, ids=ids)
        return snapshot(records, np.array(splits), used={name})

    old = made(["a", "b", "c"], [1, 2, 3], ["train", "train", "test"])
    assert changes(old, made(["a", "c", "d"], [1, 4, 5], ["train", "train", ""])) == [
        "1 record added: d",
        "1 record removed: b",
        "1 record changed: c",
        "1 record moved to another split: c (test -> train)",
    ]
    assert changes(old, made(["b", "a", "c"], [2, 1, 3], ["train", "train", "test"])) == [
        "the records are in another order"
    ]
    assert changes(old, made(["a", "b", "c"], [1, 2, 3], ["train", "train", "test"], "z")) == [
        "the fields in use were a and are z"
    ]
    many = made([f"n{number}" for number in range(9)], list(range(9)), ["train"] * 9)
    assert changes(old, many)[0] == "9 records added: n0, n1, n2, n3, n4, ..."


def test_real_pictures(shared: Path) -> None:
    from sonde.data.sources.class_folders import ClassFolders

    records = ClassFolders.read(shared / "flowers5", ClassFolders.Config())
    one = snapshot(records, records.fields["split"], used={"file", "label"})
    assert one.fingerprint == snapshot(records, records.fields["split"], used={"label", "file"}).fingerprint
    assert len(one.hashes) == len(records)


@pytest.mark.parametrize("count", [0, 1])
def test_few_records(count: int) -> None:
    assert len(of(x=np.arange(count)).hashes) == count
