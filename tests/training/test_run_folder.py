"""The run folder after whatever happened to it."""

from __future__ import annotations

import resource

import pytest

from sonde.base.errors import UserError
from sonde.data.snapshot import Snapshot
from sonde.training.run_folder import Log, RunFolder

SNAPSHOT = Snapshot(fields=["a"], ids=["row 0"], hashes=["0" * 16], splits=["train"], fingerprint="f")


@pytest.mark.parametrize("resume", [True, False])
def test_a_run_killed_before_it_began_can_be_begun(tmp_path, resume):
    (tmp_path / "snapshot.json").write_text("{}")
    (tmp_path / ".recipe.toml.writing").write_text("[da")
    (tmp_path / "cache" / "train").mkdir(parents=True)
    (tmp_path / "cache" / "train" / "inputs.image.grid.bin").write_bytes(b"half")
    with RunFolder.open(tmp_path, resume=resume) as folder:
        folder.record_inputs("[data]", SNAPSHOT)
        assert folder.recipe.read_text() == "[data]"
    # What only the process needed is gone, the run is not.
    assert folder.recipe.read_text() == "[data]"


@pytest.mark.parametrize("name", ["notes.txt", "cache/results.csv", "recipe.toml"])
def test_anything_else_is_somebody_elses(tmp_path, name):
    (tmp_path / "cache").mkdir()
    (tmp_path / name).write_text("x")
    with pytest.raises(UserError, match="already holds"), RunFolder.open(tmp_path, resume=False):
        pass
    if name != "recipe.toml":
        with pytest.raises(UserError, match="already holds other files"), RunFolder.open(tmp_path, resume=True):
            pass
    assert (tmp_path / name).read_text() == "x"


def test_a_new_folder_in_which_no_run_begins_goes_again(tmp_path):
    with RunFolder.open(tmp_path / "run", resume=False) as folder:
        (folder.cache / "train").mkdir(parents=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [None, b"", b'{"fields": ["a"]', b'{"fields": ["a"]}', b"\xff"])
def test_a_damaged_snapshot_is_told(tmp_path, content):
    with RunFolder.open(tmp_path / "run", resume=False) as folder:
        folder.record_inputs("[data]", SNAPSHOT)
        folder.record_inputs("[data]", SNAPSHOT)
        folder.snapshot.unlink()
        if content is not None:
            folder.snapshot.write_bytes(content)
        with pytest.raises(UserError, match=r"snapshot.json is damaged"):
            folder.record_inputs("[data]", SNAPSHOT)


def test_a_log_that_lost_lines_is_told(tmp_path):
    path = tmp_path / "log.jsonl"
    with Log(path, 0) as log:
        log.write({"step": 1})
        position = log.sync()
    path.write_bytes(path.read_bytes()[:5])
    with pytest.raises(UserError, match=rf"log.jsonl is damaged: it has 5 bytes, .* after {position}"):
        Log(path, position)
    assert path.stat().st_size == 5


def test_a_disk_that_fills_up_under_the_log_is_told(tmp_path):
    """The kernel refuses bytes past a limit, after it took those before."""
    path = tmp_path / "log.jsonl"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Log(path, 0) as log:
        log.write({"step": 1})
        position = log.sync()

    def fill():
        with Log(path, position) as log:
            log.write({"step": 2})

    resource.setrlimit(resource.RLIMIT_FSIZE, (position + 3, before[1]))
    try:
        with pytest.raises(UserError, match=r"log.jsonl cannot be written"):
            fill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with Log(path, position) as log:
        log.write({"step": 2})
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
