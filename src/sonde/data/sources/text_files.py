"""Plain text files, to learn the language in them: one file or a folder of .txt and .md files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from sonde.base import encodings
from sonde.base.config import Config
from sonde.base.errors import UserError
from sonde.contracts.records import Records
from sonde.data.source import Guess, Source
from sonde.data.sources import _folders, _tagged

# Files about a data set, not in it; in a folder they are ignored.
_ABOUT = re.compile(
    r"(read\W?me|licen[cs]e|copying|notice|changelog|citation|authors|requirements|class(es|_names))\b", re.I
)
# Fewer pieces than this cannot be split by a twentieth; fewer characters teach nothing.
_PIECES, _FEW = 100, 10_000


class TextFilesConfig(Config):
    kind: Literal["text-files"] = "text-files"
    piece_characters: int = Field(
        default=8192,
        ge=1,
        description="a file is cut into records of at most so many characters, at a line end if there is one",
    )


class TextFiles(Source):
    """Field "text", and "split" where folders or files are named train, val, test. The pieces of a file, one after
    another, are exactly its text."""

    Config: ClassVar = TextFilesConfig

    @staticmethod
    def recognise(path: Path) -> bool:
        if path.is_file():
            return path.suffix.lower() in _folders.TEXTS and not _tagged.is_tagged(path)
        return path.is_dir() and bool(_text_files(path)) and not _tagged.files_in(path)

    @staticmethod
    def guess(path: Path, target: str | None) -> Guess:
        if target is not None:
            raise UserError(
                f"plain text has no field {target!r} to learn",
                expected="no --target: the next token is learned",
                hint="to classify texts, put them into a folder for each class, or with a label into a CSV file",
            )
        records = TextFiles.read(path, TextFilesConfig())
        characters = sum(map(len, records.fields["text"]))
        count = len({name.rpartition(" ")[0] for name in records.ids})
        # In order, so that no page stands between two that were learned; little for scores, much to learn from.
        split: dict[str, object] = {"by": "order", "validation": 0.05, "test": 0.05}
        warnings: tuple[str, ...] = ()
        if "split" in records.fields:
            split, warning = _folders.given_split(set(records.fields["split"]))
            warnings = (warning,) if warning else ()
        pieces: dict[str, int] = {}
        if "split" not in records.fields and len(records) < _PIECES and characters >= _FEW:
            # A short text is cut finer: the shares of the split are those of its pieces.
            pieces["piece_characters"] = characters // _PIECES
        if characters < _FEW:
            warnings = (*warnings, f"so few characters ({characters}) teach no language")
        return Guess(
            about=f"{characters:,} character{'s' if characters > 1 else ''} of text in "
            f"{count} file{'s' if count > 1 else ''}",
            count=len(records),
            data={"source": str(path), "kind": "text-files", "split": split, **pieces},
            inputs={"text": {"kind": "text", "field": "text"}},
            target={"kind": "next-token"},
            warnings=warnings,
        )

    @staticmethod
    def read(path: Path, config: TextFilesConfig) -> Records:
        if not path.exists():
            raise UserError(f"the text file {path} does not exist")
        files = _text_files(path) if path.is_dir() else [(None, path)]
        if not files:
            raise UserError(f"the folder {path} is not a folder of text files", expected="files ending in .txt or .md")
        root = path if path.is_dir() else path.parent
        ids: list[str] = []
        texts: list[str] = []
        splits: list[str | None] = []
        for split, file in files:
            pieces = _pieces(_read(file), config.piece_characters)
            name = file.relative_to(root).as_posix()
            texts += pieces
            ids += [f"{name} {number}" for number in range(1, len(pieces) + 1)]
            splits += [split] * len(pieces)
        fields = {"text": _folders.objects(texts)}
        if files[0][0] is not None:
            fields["split"] = _folders.objects(splits)
        return Records(fields=fields, ids=ids)

    @staticmethod
    def sample(folder: Path) -> Path:
        line = "The sonde goes down into the deep, and the line goes with it.\n"
        (folder / "deep.txt").write_text(line * 400, encoding="utf-8")
        return folder


def _text_files(root: Path) -> list[tuple[str | None, Path]]:
    """The text files of a folder with their splits; nothing when it holds other data too."""
    parts = _folders.split_folders(root)
    if parts and {folder for _, folder in parts} != set(_folders.folders(root)):
        return []
    found: list[tuple[str | None, Path]] = []
    for split, folder in parts or [(None, root)]:
        files = [path for path in _folders.entries(folder) if path.is_file() and not _ABOUT.match(path.name)]
        if any(path.suffix.lower() not in _folders.TEXTS for path in files) or (parts and _folders.folders(folder)):
            return []
        found += [(split, path) for path in files]
    if parts:
        return found
    named = [(split, path) for _, path in found if (split := _folders.split_in(path.stem))]
    return [*_folders.in_order(named)] if len(named) == len(found) > 1 else found


def _read(file: Path) -> str:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"the text file {file} cannot be read: {error.strerror or error}") from error
    if not content.strip():
        raise UserError(f"the text file {file} is empty")
    try:
        return encodings.decode(content)
    except UnicodeDecodeError as error:
        raise UserError(
            f"the text file {file} is not UTF-8: byte {content[error.start]:#04x} at offset {error.start} "
            f"(line {content.count(10, 0, error.start) + 1})",
            expected="text in UTF-8, or one that is certainly Western European",
            hint=f"iconv -f cp1250 -t UTF-8 {file.name} > converted.txt, if it is Central European, or the like",
        ) from error


def _pieces(text: str, most: int) -> list[str]:
    pieces = []
    start = 0
    while start < len(text):
        end = min(start + most, len(text))
        if end < len(text):
            line_end = text.rfind("\n", start, end)
            end = line_end + 1 if line_end >= 0 else end
        pieces.append(text[start:end])
        start = end
    return pieces
