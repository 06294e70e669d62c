"""The run folder: who owns it, what lies where in it, and the log that a resume continues byte for byte."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from sonde import __version__
from sonde.base import dist, files
from sonde.base.errors import UserError
from sonde.data.snapshot import Snapshot, changes
from sonde.data.store import Encoded
from sonde.loop import Plan, Step

# Seconds after which lines of the log are there for others to read.
FLUSH_EVERY = 0.5


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
        self.model = path / "model"

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path, *, resume: bool) -> Iterator[RunFolder]:
        """A folder for a new run, or with `resume` that of a run to go on with, for as long as the block lasts.

        Raises:
            UserError: it holds another run or other files, cannot be written, or has nothing to resume.
        """
        folder = cls(path)
        if dist.is_main() and not (resume and folder.recipe.is_file()):
            folder._claim(resume=resume)
        try:
            yield folder
        finally:
            folder._close(keep=resume)

    def _claim(self, *, resume: bool) -> None:
        path = self.path
        if resume and not (path.is_dir() and self._is_fresh()):
            raise UserError(f"{path} holds no run to resume", hint="leave out --resume to start one there")
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not self._is_fresh():
                held = "another run" if self.recipe.exists() else "other files"
                raise UserError(
                    f"the run folder {path} already holds {held}",
                    expected="a new or an empty folder",
                    hint="choose another with --out, or go on with that run by --resume",
                )
            probe = path / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise files.cannot_write(path, error) from error

    def _is_fresh(self) -> bool:
        """Whether nothing lies there but what a run leaves that was killed before it began: its recipe comes last."""
        known = {self.snapshot.name, f".{self.snapshot.name}.writing", f".{self.recipe.name}.writing", ".writable"}
        if all(each.is_dir() or each.suffix == ".bin" for each in self.cache.parent.rglob("*")):
            known.add(self.cache.parent.name)
        return {each.name for each in self.path.iterdir()} <= known

    def _close(self, *, keep: bool) -> None:
        """Remove what only this process needed; unless `keep`, also a folder in which no run has begun."""
        shutil.rmtree(self.cache, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.cache.parent.rmdir()
        if dist.is_main() and not keep and self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()

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
        for split, each in sets.items():
            self.write({"split": split, "examples": len(each.examples), "skipped": each.unreadable})

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
