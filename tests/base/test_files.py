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


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_is_there_at_every_moment(tmp_path, monkeypatch, can_exchange):
    """Where two names cannot change places, one stopped between two renames is put back by the next to write."""
    with files.folder(tmp_path / "made") as new:
        (new / "file").write_text("one")
    if not can_exchange:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    rename, calls = Path.rename, []

    def stopped(self, target):
        calls.append(self.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rename(self, target)

    def fill(text):
        with files.folder(tmp_path / "made") as new:
            (new / "file").write_text(text)
            raise_if(text == "half")

    def raise_if(wanted):
        if wanted:
            raise ValueError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stopped)
        if can_exchange:
            fill("two")
            assert calls == []
        else:
            with pytest.raises(KeyboardInterrupt):
                fill("two")
            assert not (tmp_path / "made").exists()
    with pytest.raises(ValueError):  # noqa: PT011 (our own)
        fill("half")
    assert (tmp_path / "made" / "file").read_text() == ("two" if can_exchange else "one")
    fill("three")
    assert (tmp_path / "made" / "file").read_text() == "three"
    assert [each.name for each in tmp_path.iterdir()] == ["made"]


def test_the_old_folder_is_put_back_when_the_new_one_cannot_be_moved(tmp_path, monkeypatch):
    with files.folder(tmp_path / "made") as new:
        (new / "file").write_text("one")
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    rename = Path.rename

    def full(self, target):
        if self.name == ".made.writing":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with (
        pytest.raises(UserError, match="made cannot be written: No space left"),
        files.folder(tmp_path / "made") as new,
    ):
        (new / "file").write_text("two")
    assert (tmp_path / "made" / "file").read_text() == "one"


def test_the_same_tensors_give_the_same_bytes(tmp_path):
    held = {name: torch.ones(2) for name in "abc"}
    contents = set()
    for number in range(8):
        tensors.write(tmp_path / str(number), held, {"step": 3})
        contents.add((tmp_path / str(number)).read_bytes())
    assert len(contents) == 1
