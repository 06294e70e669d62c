"""Texts in several languages, line by line: train.en and train.de (also .gz), or TMX translation memories."""

from __future__ import annotations

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from sonde.base.config import Config
from sonde.base.errors import UserError, unknown
from sonde.contracts.records import Records
from sonde.data.source import Guess, Source
from sonde.data.sources import _folders
from sonde.data.sources._tmx import is_tmx, read_tmx

# How languages are written at the end of a file's name, and pairs that are no languages: in the order of translation.
_LANGUAGE = re.compile(r"[a-z]{2}([-_][A-Za-z]{2,4})?")
_ROLES = {"src": "tgt", "source": "target"}
# Two letters at the end of a name that mean something else.
_OTHERS = frozenset({"md", "py", "sh", "js", "ts", "gz", "xz", "bz", "7z", "db", "h5", "pt", "id", "rs", "go", "cc"})
# The language that is translated from where nobody says which.
_FIRST = "en"


class ParallelTextConfig(Config):
    kind: Literal["parallel-text"] = "parallel-text"
    languages: tuple[str, ...] = Field(default=(), description="the languages to read; all that there are if left out")


class ParallelText(Source):
    """A field for each language, called as the files are ("en", "de"), and "split" where the names give it. A line
    without text has none (None). Records are "train:12": the file without its language, and the line."""

    Config: ClassVar = ParallelTextConfig

    @staticmethod
    def recognise(path: Path) -> bool:
        if path.is_file():
            return is_tmx(path)
        return path.is_dir() and bool(_tmx_files(path) or _groups(path))

    @staticmethod
    def guess(path: Path, target: str | None) -> Guess:
        records = ParallelText.read(path, ParallelTextConfig())
        languages = [name for name in records.fields if name != "split"]
        if target is not None and target not in languages:
            raise unknown(target, languages, what="--target: the language")
        source, learned = _direction(languages, target)
        split: dict[str, object] = {"by": "random", "validation": 0.1, "test": 0.1}
        warnings: list[str] = []
        if "split" in records.fields:
            split, warning = _folders.given_split(set(records.fields["split"]))
            warnings += [warning] if warning else []
        warnings += _doubts(records, source, learned)
        return Guess(
            about=f"{len(records):,} lines in {' and '.join(languages)}",
            count=len(records),
            data={"source": str(path), "kind": "parallel-text", "split": split},
            inputs={"text": {"kind": "text", "field": source}},
            target={"kind": "sequence", "field": learned},
            notes={"target.field": f"from {source}; --target chooses another language"},
            warnings=tuple(warnings),
        )

    @staticmethod
    def read(path: Path, config: ParallelTextConfig) -> Records:
        if not path.exists():
            raise UserError(f"the data set {path} does not exist")
        tmx = [path] if path.is_file() else [file for _, file in _tmx_files(path)]
        found = _from_tmx(tmx) if tmx else _from_lines(path)
        languages = [name for name in found if name not in ("split", "ids")]
        for name in config.languages:
            if name not in languages:
                raise unknown(name, languages, what="data.languages: the language")
        kept = config.languages or languages
        fields = {name: _folders.objects(found[name]) for name in kept}
        if found["split"] and found["split"][0] is not None:
            fields["split"] = _folders.objects(found["split"])
        return Records(fields=fields, ids=found["ids"])

    @staticmethod
    def inputs(path: Path, config: ParallelTextConfig, fields: Sequence[str]) -> Records | None:
        """A text file with one line for each record."""
        if len(fields) != 1 or not path.is_file() or is_tmx(path):
            return None
        lines = [line or None for line in _lines(path)]
        return Records(
            fields={fields[0]: _folders.objects(lines)}, ids=[f"{path.name}:{at}" for at in range(1, len(lines) + 1)]
        )

    @staticmethod
    def sample(folder: Path) -> Path:
        for split, count in (("train", 24), ("val", 6), ("test", 6)):
            numbers = range(count)
            for language, words in (("en", ("sea", "deep")), ("de", ("See", "tief"))):
                lines = "".join(f"{words[number % 2]} {number}\n" for number in numbers)
                (folder / f"{split}.{language}").write_text(lines, encoding="utf-8")
        return folder


def _tmx_files(root: Path) -> list[tuple[str | None, Path]]:
    found = [file for file in _folders.entries(root) if file.is_file() and is_tmx(file)]
    named = [(split, file) for file in found if (split := _folders.split_in(_plain(file).stem))]
    return [*_folders.in_order(named)] if len(named) == len(found) > 1 else [(None, file) for file in found]


def _plain(file: Path) -> Path:
    """The file's name without .gz."""
    return file.with_suffix("") if file.suffix.lower() == ".gz" else file


def _groups(root: Path) -> dict[str, dict[str, Path]]:
    """Files by the beginning of their names and by language; nothing where they are not clearly parallel texts."""
    found: dict[str, dict[str, Path]] = {}
    for file in _folders.entries(root):
        stem, _, language = _plain(file).name.rpartition(".")
        known = _LANGUAGE.fullmatch(language) or language in {*_ROLES, *_ROLES.values()}
        if file.is_file() and stem and known and language not in _OTHERS:
            found.setdefault(stem, {})[language] = file
    languages = Counter(language for group in found.values() for language in group)
    return found if len(languages) > 1 and any(len(group) > 1 for group in found.values()) else {}


def _from_lines(root: Path) -> dict[str, Any]:
    groups = _groups(root)
    if not groups:
        raise UserError(
            f"the folder {root} has no parallel texts",
            expected="files that differ in the language at the end of their names, such as train.en and train.de",
        )
    languages = sorted({language for group in groups.values() for language in group})
    named = [(_folders.split_in(stem), stem) for stem in sorted(groups)]
    if len(groups) > 1:
        nameless = [stem for split, stem in named if split is None]
        if nameless:
            raise UserError(
                f"the name of {nameless[0]}.{languages[0]} in {root} says no split",
                expected="train, val and test in the names of several texts",
                hint="rename it, or move it away",
            )
        named = sorted(named, key=lambda each: (_folders.ORDER.index(str(each[0])), each[1]))
    else:
        named = [(None, named[0][1])]
    columns: dict[str, Any] = {name: [] for name in languages}
    columns |= {"split": [], "ids": []}
    for split, stem in named:
        group = groups[stem]
        lacking = [language for language in languages if language not in group]
        if lacking:
            raise UserError(
                f"{next(iter(group.values()))} has no counterpart in {lacking[0]!r}",
                expected=f"a file {stem}.{lacking[0]} beside it, with as many lines",
            )
        texts = {language: _lines(file) for language, file in group.items()}
        counts = {language: len(lines) for language, lines in texts.items()}
        if len(set(counts.values())) > 1:
            (one, few), (other, many) = min(counts.items(), key=_second), max(counts.items(), key=_second)
            raise UserError(
                f"{group[one]} has {few:,} lines and {group[other]} has {many:,}",
                expected="as many: line n of the one is line n of the other",
            )
        count = next(iter(counts.values()))
        for language, lines in texts.items():
            columns[language] += [line or None for line in lines]
        columns["split"] += [split] * count
        columns["ids"] += [f"{stem}:{number}" for number in range(1, count + 1)]
    return columns


def _second(each: tuple[str, int]) -> int:
    return each[1]


def _from_tmx(files: list[Path]) -> dict[str, Any]:
    rows: list[dict[str, str]] = []
    splits: list[str | None] = []
    ids: list[str] = []
    for file in files:
        split = _folders.split_in(_plain(file).stem) if len(files) > 1 else None
        found = read_tmx(file)
        rows += found
        splits += [split] * len(found)
        ids += [f"{file.name}:{number}" for number in range(1, len(found) + 1)]
    languages = [name for name, count in Counter(name for row in rows for name in row).items() if count]
    if len(languages) < 2:
        raise UserError(f"{files[0]} has texts in {languages[0] if languages else 'no language'} only")
    if None in splits:
        splits = [None] * len(rows)
    columns: dict[str, Any] = {name: [row.get(name) or None for row in rows] for name in sorted(languages)}
    return {**columns, "split": splits, "ids": ids}


def _lines(file: Path) -> list[str]:
    """The lines of a UTF-8 file, without white space around them."""
    try:
        content = file.read_bytes()
        if file.suffix.lower() == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file}:{content.count(10, 0, error.start) + 1} is not UTF-8: byte {content[error.start]:#04x}",
            expected="text in UTF-8",
            hint=f"iconv -f LATIN1 -t UTF-8 {file.name}, if it is Latin-1",
        ) from error
    if not text.strip():
        raise UserError(f"{file} is empty")
    # Not splitlines: a text may hold other characters that Python takes for line ends.
    return [line.strip() for line in text.removesuffix("\n").split("\n")]


def _direction(languages: list[str], target: str | None) -> tuple[str, str]:
    """The language that is translated from, and the one to."""
    for first, second in _ROLES.items():
        if target is None and first in languages and second in languages:
            return first, second
    if target is None:
        first = _FIRST if _FIRST in languages else languages[0]
        return first, next(name for name in languages if name != first)
    others = [name for name in languages if name != target]
    return (_FIRST if _FIRST in others else others[0]), target


def _doubts(records: Records, source: str, learned: str) -> list[str]:
    """What looks wrong with pairs of lines."""
    ours, theirs = records.fields[source].tolist(), records.fields[learned].tolist()
    pairs = [(one, two) for one, two in zip(ours, theirs, strict=True) if one is not None and two is not None]
    found = []
    empty = len(records) - len(pairs)
    if empty:
        have = "one line has" if empty == 1 else f"{empty:,} lines have"
        found.append(f"{have} no text in {source} or {learned}; data.drop_unlabelled = true leaves such lines out")
    same = sum(one == two for one, two in pairs)
    if same > 0.02 * len(pairs):
        found.append(f"{same:,} of {len(pairs):,} lines are the same in {source} and {learned}: are they translated?")
    apart = sum(max(len(one), len(two)) > 5 * min(len(one), len(two)) + 20 for one, two in pairs)
    if apart > 0.01 * len(pairs):
        found.append(f"{apart:,} lines are five times as long in one language as in the other: are they aligned?")
    return found
