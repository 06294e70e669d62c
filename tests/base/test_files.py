from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sonde.base import files, tensors
from sonde.base.errors import RecordError, UserError


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"x": 1})
    files.write_json(path, {"x": 2})
    assert files.read_json(path) == {"x": 2}
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_folder_leaves_nothing(tmp_path):
    def fill():
        with files.folder(tmp_path / "made") as new:
            (new / "half").write_text("x")
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 (our own)
        fill()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_replaces_the_one_before(tmp_path):
    for text in ("one", "two"):
        with files.folder(tmp_path / "made") as new:
            (new / "file").write_text(text)
    assert (tmp_path / "made" / "file").read_text() == "two"
    assert [each.name for each in tmp_path.iterdir()] == ["made"]


def test_a_full_disk_is_told_and_the_old_file_stays(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    files.write_bytes(path, b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"a\.bin cannot be written: No space left on device\. hint: free space"):
        files.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.bin"]


def test_a_text_never_opens_a_file(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")
    with pytest.raises(RecordError, match=r"is not a file"):
        files.read_bytes(str(secret))
    assert files.read_bytes(secret) == b"x"
    with pytest.raises(RecordError, match=r"cannot be read: No such file"):
        files.read_bytes(Path(tmp_path / "absent"))


def test_tensors_come_back_with_their_values(tmp_path):
    path = tmp_path / "state.safetensors"
    held = {"a": torch.arange(6).reshape(2, 3), "b": torch.randn(4).bfloat16(), "none": torch.empty(0)}
    tensors.write(path, held, {"step": 3, "rate": 0.1})
    again, values = tensors.read(path)
    assert values == {"step": 3, "rate": 0.1}
    assert all(torch.equal(again[name], value) for name, value in held.items())


def test_every_flipped_bit_and_every_missing_byte_is_noticed(tmp_path):
    path = tmp_path / "state.safetensors"
    tensors.write(path, {"a": torch.arange(20.0)}, {"step": 3})
    whole = path.read_bytes()
    missed = []
    for position in range(len(whole)):
        broken = bytearray(whole)
        broken[position] ^= 1 << (position % 8)
        path.write_bytes(broken)
        try:
            found, values = tensors.read(path)
        except UserError:
            continue
        # A flip may fall on bytes that mean nothing (the header's padding): then what is read must be what was written.
        if not torch.equal(found["a"], torch.arange(20.0)) or values != {"step": 3}:
            missed.append(position)
    assert not missed
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"is damaged"):
            tensors.read(path)


def fill(path, text):
    with files.folder(path) as new:
        (new / "file").write_text(text)


def test_a_folder_is_there_at_every_moment(tmp_path, monkeypatch):
    path, rename, found = tmp_path / "made", Path.rename, []

    def watched(self, target):
        rename(self, target)
        found.append((files.current_folder(path) / "file").read_text())

    fill(path, "one")
    monkeypatch.setattr(Path, "rename", watched)
    fill(path, "two")
    assert found == ["one", "two"]
    assert files.current_folder(path) == path
    assert [each.name for each in tmp_path.iterdir()] == ["made"]


def test_one_killed_between_the_renames_is_put_back_by_the_next_to_write(tmp_path):
    path = tmp_path / "made"
    fill(path, "one")
    # As a kill leaves it.
    path.rename(tmp_path / ".made.old")
    (tmp_path / ".made.writing").mkdir()
    assert (files.current_folder(path) / "file").read_text() == "one"
    with pytest.raises(ValueError), files.folder(path):  # noqa: PT011 (our own)
        raise ValueError
    assert (path / "file").read_text() == "one"
    fill(path, "two")
    assert (path / "file").read_text() == "two"
    assert [each.name for each in tmp_path.iterdir()] == ["made"]


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_the_old_folder_is_put_back_when_the_new_one_cannot_be_moved(tmp_path, monkeypatch, fault):
    path, rename = tmp_path / "made", Path.rename
    fill(path, "one")

    def stopped(self, target):
        if self.name == ".made.writing":
            raise fault
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stopped)
    with pytest.raises((UserError, KeyboardInterrupt)) as caught:
        fill(path, "two")
    assert "made cannot be written: No space left" in str(caught.value) or isinstance(fault, KeyboardInterrupt)
    assert (path / "file").read_text() == "one"
    assert [each.name for each in tmp_path.iterdir()] == ["made"]


def test_the_same_tensors_give_the_same_bytes(tmp_path):
    held = {name: torch.ones(2) for name in "abc"}
    contents = set()
    for number in range(8):
        tensors.write(tmp_path / str(number), held, {"step": 3})
        contents.add((tmp_path / str(number)).read_bytes())
    assert len(contents) == 1
