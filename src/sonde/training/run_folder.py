"""The run folder: who owns it, what lies where in it, and the log that a resume continues byte for byte."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from sonde import __version__
from sonde.base import dist, files
from sonde.base.errors import UserError
from sonde.data.snapshot import Snapshot, changes
from sonde.data.store import Encoded
from sonde.loop import Plan, Step

# Seconds after which lines of the log are there for others to read.
FLUSH_EVERY = 0.5
# Held while a process owns the folder, and who that is.
LOCK, OWNER = ".lock", ".owner"


class RunFolder:
    """The places of one run. Opened first, so that one that cannot be used costs no time.

    Of the processes of a job all read it, and the main one writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.toml"
        self.snapshot = path / "snapshot.json"
        self.log = path / "log.jsonl"
        self.checkpoints = path / "checkpoints"
        self.cache = path / "cache" / str(dist.rank())
        self.precision_file = path / "precision.json"
        self.scores = path / "scores.json"
        self.findings = path / "check.json"
        self.model = path / "model"
        self.adapters = path / "adapter"
        # Not in the log: that is the same for two runs of one recipe.
        self.time = path / "time.json"

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path, *, resume: bool) -> Iterator[RunFolder]:
        """A folder for a new run, or with `resume` that of a run to go on with, for as long as the block lasts.

        With `resume` a run begins where there is none yet: a job that is started again and again can always pass it.

        Raises:
            UserError: it holds another run or other files, cannot be written, or another process uses it.
        """
        folder = cls(path)
        with contextlib.ExitStack() as held:
            if dist.is_main():
                held.enter_context(folder._owned())
                folder._check_usable(resume=resume)
            try:
                yield folder
            finally:
                shutil.rmtree(folder.cache, ignore_errors=True)
                with contextlib.suppress(OSError):
                    folder.cache.parent.rmdir()

    @contextlib.contextmanager
    def _owned(self) -> Iterator[None]:
        """While it lasts no other process can own the folder; one in which no run has begun is removed at the end."""
        there = self.path.is_dir()
        lock = FileLock(self.path / LOCK, timeout=0)
        owner = self.path / OWNER
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            files.write_bytes(owner, f"process {os.getpid()} on {platform.node()}".encode())
        except Timeout:
            who = owner.read_text(encoding="utf-8") if owner.is_file() else "another process"
            raise UserError(
                f"the run folder {self.path} is in use by {who}",
                expected="one process (or one torchrun job) for a run folder",
                hint="wait until it has ended, or choose another folder with --out",
            ) from None
        except OSError as error:
            raise files.cannot_write(self.path, error) from error
        try:
            yield
        finally:
            files.remove(owner)
            lock.release()
            if not there and {each.name for each in self.path.iterdir()} <= {LOCK}:
                shutil.rmtree(self.path, ignore_errors=True)

    def _check_usable(self, *, resume: bool) -> None:
        if (resume and self.recipe.is_file()) or self._is_fresh():
            return
        held = "another run" if self.recipe.exists() else "other files"
        raise UserError(
            f"the run folder {self.path} already holds {held}",
            expected="a new or an empty folder",
            hint="choose another with --out" + (", or go on with that run by --resume" if self.recipe.exists() else ""),
        )

    def _is_fresh(self) -> bool:
        """Whether nothing lies there but what a run leaves that was killed before it began: its recipe comes last."""
        known = {self.snapshot.name, f".{self.snapshot.name}.writing", f".{self.recipe.name}.writing"}
        known |= {LOCK, OWNER, f".{OWNER}.writing"}
        if all(each.is_dir() or each.suffix == ".bin" for each in self.cache.parent.rglob("*")):
            known.add(self.cache.parent.name)
        return {each.name for each in self.path.iterdir()} <= known

    def record_inputs(self, recipe: str, snapshot: Snapshot) -> None:
        """Write down what the run is made from; when resuming, check that it is still the same.

        Raises:
            UserError: recipe or data are not those that the run was started with.
        """
        if not dist.is_main():
            return
        if not self.recipe.exists():
            files.write_json(self.snapshot, snapshot.to_json())
            files.write_bytes(self.recipe, recipe.encode())
            return
        if self.recipe.read_text(encoding="utf-8") != recipe:
            raise UserError(
                f"the recipe differs from that of the run in {self.path}",
                expected="the recipe that the run was started with",
                hint=f"resume with {self.recipe}, or start a new run with another --out",
            )
        try:
            before = Snapshot.from_json(files.read_json(self.snapshot))
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UserError(f"{self.snapshot} is damaged: {error}", hint="restore it from a copy") from error
        if before.fingerprint != snapshot.fingerprint:
            what = "; ".join(changes(before, snapshot))
            raise UserError(
                f"the data has changed since the run in {self.path} was started: {what}",
                expected="the same records in the same splits",
                hint="put the data back, or start a new run with another --out",
            )


class Log:
    """`log.jsonl`: what happened, without times, so that two runs of one recipe have the same log."""

    def __init__(self, path: Path, position: int) -> None:
        """Go on at byte `position`; what was written after it belongs to steps that will be made again."""
        self.path = path if dist.is_main() else Path(os.devnull)
        self._flushed = time.monotonic()
        try:
            self._file = self.path.open("ab")
            if not dist.is_main():
                return
            size = self._file.tell()
            self._file.truncate(min(position, size))
        except OSError as error:
            raise files.cannot_write(path, error) from error
        if size < position:
            self._file.close()
            raise UserError(
                f"{path} is damaged: it has {size} bytes, and the checkpoint was made after {position}",
                hint="restore it from a copy, or start a new run with another --out",
            )

    def write(self, line: Mapping[str, Any]) -> None:
        try:
            self._file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
            # For whoever follows the file: a flush for every line would be most of what logging costs.
            if time.monotonic() - self._flushed > FLUSH_EVERY:
                self._flush()
        except OSError as error:
            raise files.cannot_write(self.path, error) from error

    def start(self, plan: Plan, sets: Mapping[str, Encoded]) -> None:
        """The first lines: what is about to happen, to how many examples."""
        self.write({"version": __version__, "steps": plan.steps, "precision": plan.precision.kind})
        self.splits(sets)

    def splits(self, sets: Mapping[str, Encoded]) -> None:
        """How many examples each split has, and which records were skipped."""
        for split, each in sets.items():
            self.write({"split": split, "examples": len(each.examples), "skipped": each.unreadable | each.unseen})

    def step(self, step: Step) -> str:
        """Log a step; give the line that people see. Reading the loss waits for the device."""
        terms = {name: value.item() for name, value in step.terms.items()}
        total = sum(terms.values())
        line = {"step": step.number, "epoch": step.epoch, "loss": total, "norm": step.norm.item(), "lr": step.lr}
        self.write({**line, "terms": terms} if len(terms) > 1 else line)
        return f"loss {total:.4g}"

    def sync(self) -> int:
        """Where the log stands, once everything before is safely on the disk: a checkpoint is about to count on it."""
        if not dist.is_main():
            return 0
        try:
            self._flush()
            os.fsync(self._file.fileno())
            return self._file.tell()
        except OSError as error:
            raise files.cannot_write(self.path, error) from error

    def _flush(self) -> None:
        self._file.flush()
        self._flushed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        try:
            self._flush()
        except OSError as fault:
            # Where something else went wrong already, that is what is told.
            if kind is None:
                raise files.cannot_write(self.path, fault) from fault
        finally:
            with contextlib.suppress(OSError):
                self._file.close()


def default_folder(recipe: Path) -> Path:
    """runs/NAME-TIME beside where the command is run."""
    return Path("runs") / f"{recipe.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
