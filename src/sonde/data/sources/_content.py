"""What data files hold: unpacked (.gz, .bz2, .xz, .zip), and texts as UTF-8 whatever they were in."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zipfile
import zlib
from pathlib import Path

from sonde.base import encodings
from sonde.base.errors import UserError

PACKED = frozenset({".gz", ".bz2", ".xz", ".zip"})
_FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".xlsx": "excel",
    ".xlsm": "excel",
    ".xlsb": "excel",
    ".xls": "excel",
    ".ods": "excel",
}
# The formats whose files are texts.
TEXTS = frozenset({"csv", "tsv", "jsonl", "json"})


def table_format(path: Path) -> str | None:
    """The format of a table by its file's name ("data.csv.gz" is CSV); None where it is none.

    A .zip that does not say what it holds is asked.
    """
    suffix = path.suffix.lower()
    if suffix not in PACKED:
        return _FORMATS.get(suffix)
    inner = _FORMATS.get(Path(path.stem).suffix.lower())
    if inner is None and suffix == ".zip":
        inner = next((_FORMATS.get(Path(name).suffix.lower()) for name in _in_zip(path)), None)
    return inner


def table_stem(path: Path) -> str:
    """The name of a table without its endings."""
    return Path(path.stem).stem if path.suffix.lower() in PACKED else path.stem


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, unpacked.

    Raises:
        UserError: it cannot be read or unpacked, or is an archive of several tables.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    suffix = path.suffix.lower()
    try:
        if suffix == ".gz":
            return gzip.decompress(content)
        if suffix == ".bz2":
            return bz2.decompress(content)
        if suffix == ".xz":
            return lzma.decompress(content)
        return _unzipped(path, content) if suffix == ".zip" else content
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError, ValueError) as error:
        raise UserError(f"{path} cannot be unpacked: {error}", expected=f"a whole {suffix} file") from error


def _unzipped(path: Path, content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = _tables(archive)
        if len(names) != 1:
            shown = ": " + ", ".join(names[:5]) if names else ""
            raise UserError(
                f"the archive {path} holds {len(names)} tables{shown}",
                expected="one table",
                hint="unzip it, and name one of them",
            )
        return archive.read(names[0])


def _in_zip(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return _tables(archive)
    except (OSError, zipfile.BadZipFile):
        return []


def _tables(archive: zipfile.ZipFile) -> list[str]:
    names = [name for name in archive.namelist() if not name.startswith("__MACOSX") and not name.endswith("/")]
    return [name for name in names if _FORMATS.get(Path(name).suffix.lower())]


def read_text(path: Path, encoding: str | None = None) -> tuple[bytes, str]:
    """The text of a file as UTF-8 bytes without a byte-order mark, and the encoding that it was in.

    Raises:
        UserError: it cannot be read, is empty, or its encoding is wrong or not certain; names the line.
    """
    content = read_bytes(path)
    if encoding is None and content.isascii():
        known = "utf-8"
    elif encoding is not None and not encodings.exists(encoding):
        raise UserError(f"data.encoding: there is no encoding {encoding!r}", expected="utf-8, utf-16, cp1252, ...")
    else:
        known = encoding or encodings.detect(content) or "utf-8"
        try:
            text = content.decode(known)
        except UnicodeDecodeError as error:
            raise _undecodable(path, content, error, known) from error
        content = (content if known == "utf-8" else text.encode()).removeprefix(b"\xef\xbb\xbf")
    if not re.search(rb"\S", content):
        raise UserError(f"{path} is empty", expected="a header and rows")
    return content, known


def _undecodable(path: Path, content: bytes, error: UnicodeDecodeError, encoding: str) -> UserError:
    line = content.count(b"\n", 0, error.start) + 1
    return UserError(
        f"{path} line {line} is not {encoding.upper()}: byte {content[error.start]:#04x} at offset {error.start}",
        expected="text in UTF-8, or one that is certainly Western European",
        hint='data.encoding says what it is: "cp1252" (Western Europe), "cp1250" (Central Europe), "cp1251" '
        '(Cyrillic), "gb18030", "shift_jis", ...',
    )
