"""The run folder: who owns it, what lies where in it, and the log that a resume continues byte for byte."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from sonde.base import dist, files
from sonde.base.errors import UserError
from sonde.data.snapshot import Snapshot, changes
from sonde.loop import Step


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
        self.choice = path / "precision.json"
        self.scores = path / "scores.json"
        self.model = path / "model"

    @classmethod
    def open(cls, path: Path, *, resume: bool) -> RunFolder:
        """A folder for a new run, or with `resume` that of a run to go on with.

        Raises:
            UserError: it holds another run or other files, cannot be written, or has nothing to resume.
        """
        folder = cls(path)
        if resume:
            if not folder.recipe.is_file():
                raise UserError(f"{path} holds no run to resume", hint="leave out --resume to start one there")
            return folder
        if not dist.is_main():
            return folder
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                held = "another run" if folder.recipe.exists() else "other files"
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
        return folder

    def close(self, *, keep: bool) -> None:
        """Remove what only this process needed; unless `keep`, also a folder in which no run has begun."""
        shutil.rmtree(self.cache, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.cache.parent.rmdir()
        if dist.is_main() and not keep and self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()

    def begin(self, recipe: str, snapshot: Snapshot) -> None:
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
        before = Snapshot.from_json(files.read_json(self.snapshot))
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
        try:
            self._file = self.path.open("ab")
            if not dist.is_main():
                return
            self._file.truncate(position)
        except OSError as error:
            raise files.cannot_write(path, error) from error

    def write(self, line: Mapping[str, Any]) -> None:
        try:
            self._file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
            self._file.flush()
        except OSError as error:
            raise files.cannot_write(self.path, error) from error

    def step(self, step: Step) -> str:
        """Log a step; give the line that people see. Reading the loss waits for the device."""
        terms = {name: value.item() for name, value in step.terms.items()}
        total = sum(terms.values())
        line = {"step": step.number, "epoch": step.epoch, "loss": total, "norm": step.norm.item(), "rate": step.rate}
        self.write({**line, "terms": terms} if len(terms) > 1 else line)
        return f"loss {total:.4g}"

    def position(self) -> int:
        return self._file.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def default_folder(recipe: Path) -> Path:
    """runs/NAME-TIME beside where the command is run."""
    return Path("runs") / f"{recipe.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
