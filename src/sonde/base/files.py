"""Files that are either whole or not there: written beside, flushed, then moved into place."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sonde.base.errors import RecordError, UserError


def read_bytes(value: object, record: object = None) -> bytes:
    """The bytes of a file field: a `Path` (read from disk) or bytes that are already at hand.

    A plain string is never opened: text that came over a network must not name a file of this machine.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, Path):
        try:
            return value.read_bytes()
        except OSError as error:
            raise RecordError(f"{value} cannot be read: {error.strerror or error}") from error
    raise RecordError(f"{value!r} is not a file", expected="a path, or the bytes of a file")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` with `content`, or leave it as it was."""
    beside = path.with_name(f".{path.name}.writing")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        _sync(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise cannot_write(path, error) from error


def check_writable(path: Path) -> None:
    """Fail before the work rather than after it.

    Raises:
        UserError: a file cannot be written there.
    """
    if path.is_dir():
        raise cannot_write(path, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
    beside = path.with_name(f".{path.name}.writing")
    try:
        beside.touch()
        beside.unlink()
    except OSError as error:
        raise cannot_write(path, error) from error


def write_json(path: Path, value: object) -> None:
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def cannot_write(path: Path, error: OSError) -> UserError:
    hints = {
        errno.ENOSPC: "free space on that disk, or choose another place with --out",
        errno.EDQUOT: "free space on that disk, or choose another place with --out",
        errno.EACCES: "ask for the right to write there, or choose another place with --out",
    }
    hint = hints.get(error.errno or 0, "choose another place with --out")
    return UserError(f"{path} cannot be written: {error.strerror or error}", hint=hint)


@contextlib.contextmanager
def folder(path: Path) -> Iterator[Path]:
    """A new folder that appears under its name only when the block ends well, replacing what was there.

    What was there steps aside for the moment between two renames: `current_folder` finds one or the other at any time.
    """
    beside = path.with_name(f".{path.name}.writing")
    try:
        _put_back(path)
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        yield beside
        for file in beside.rglob("*"):
            if file.is_file():
                _sync(file)
        _sync(beside)
        if path.exists():
            shutil.rmtree(_aside(path), ignore_errors=True)
            path.rename(_aside(path))
        beside.rename(path)
        _sync(path.parent)
        shutil.rmtree(_aside(path), ignore_errors=True)
    except BaseException as error:
        with contextlib.suppress(OSError):
            _put_back(path)
        shutil.rmtree(beside, ignore_errors=True)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise


def current_folder(path: Path) -> Path:
    """Where to read what `folder` wrote: `path`, or what it was replacing when it was killed between two renames."""
    return path if path.exists() or not _aside(path).exists() else _aside(path)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _put_back(path: Path) -> None:
    if current_folder(path) != path:
        _aside(path).rename(path)


def remove(path: Path) -> None:
    """Delete a file; one that is not there is no fault."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def make_folder(path: Path) -> None:
    """A folder and those above it, if they are not there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
