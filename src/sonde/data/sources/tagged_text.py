"""Sentences with a tag for each word: CoNLL and CoNLL-U files, or JSONL with lists of tags or with spans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from sonde.base.config import Config
from sonde.base.errors import UserError
from sonde.contracts.records import Records
from sonde.data.source import Guess, Source
from sonde.data.sources import _folders, _tagged
from sonde.data.sources._tagged import Sentence
from sonde.data.sources._tagged_columns import CONLLU_TAGS, NO_VALUE, counts_words, is_conllu, read_conll, read_conllu
from sonde.data.sources._tagged_json import read_json

# A tag with fewer words than this is hardly learned, and its score says little.
_FEW = 5
# How many tags a note or a warning names, and the line that says what was found.
_SHOWN, _LISTED = 6, 20


class TaggedTextConfig(Config):
    kind: Literal["tagged-text"] = "tagged-text"
    tag: str | None = Field(
        default=None,
        description="CoNLL-U: upos (if left out), xpos, feats or deprel; JSONL: the key of the tags or spans",
    )
    word_column: int | None = Field(
        default=None, description="CoNLL: the column of the words, from 0 or (negative) from the end; 0 if left out"
    )
    tag_column: int | None = Field(
        default=None, description="CoNLL: the column of the tags, from 0 or (negative) from the end; -1 if left out"
    )


class TaggedText(Source):
    """Fields "words" and "tags" (lists of texts, equally long in a record), and "split" where file names give it.

    Records are named by their sent_id where it is unique, others "FILE:LINE".
    """

    Config: ClassVar = TaggedTextConfig

    @staticmethod
    def recognise(path: Path) -> bool:
        if path.is_file():
            return _tagged.is_tagged(path)
        return path.is_dir() and bool(_tagged.files_in(path))

    @staticmethod
    def guess(path: Path, target: str | None) -> Guess:
        options, notes = _options(path, target)
        records = TaggedText.read(path, TaggedTextConfig(**options))
        tags: list[list[str]] = records.fields["tags"].tolist()
        counts = Counter(tag for each in tags for tag in each)
        scheme, warnings = _scheme(tags, counts)
        notes["target.field"] = _named(counts, scheme, _SHOWN)
        split: dict[str, object] = {"by": "random", "validation": 0.1, "test": 0.1}
        if "split" in records.fields:
            split, warning = _folders.given_split(set(records.fields["split"]))
            warnings += [warning] if warning else []
        warnings += _rare(counts)
        if options.get("tag") == "xpos" and NO_VALUE in counts:
            warnings.append(f"words without an xpos ({counts[NO_VALUE]:,}) have the tag {NO_VALUE!r}")
        listed = _named(counts, scheme, _LISTED)
        return Guess(
            about=f"{len(records):,} sentences of {sum(counts.values()):,} words with {listed}",
            count=len(records),
            data={"source": str(path), "kind": "tagged-text", "split": split, **options},
            inputs={"text": {"kind": "text", "field": "words"}},
            target={"kind": "tags", "field": "tags"},
            notes=notes,
            warnings=tuple(warnings),
        )

    @staticmethod
    def read(path: Path, config: TaggedTextConfig) -> Records:
        found: list[tuple[str | None, str, Sentence]] = []
        for split, file in _files(path):
            sentences = [(split, file.name, sentence) for sentence in _sentences(file, config)]
            if not sentences:
                raise UserError(f"{file} has no sentences", expected="words with a tag each")
            found += sentences
        fields = {
            "words": _folders.objects([sentence.words for _, _, sentence in found]),
            "tags": _folders.objects([sentence.tags for _, _, sentence in found]),
        }
        if found[0][0] is not None:
            fields["split"] = _folders.objects([split for split, _, _ in found])
        return Records(fields=fields, ids=_ids([(name, sentence) for _, name, sentence in found]))

    @staticmethod
    def inputs(path: Path, config: TaggedTextConfig, fields: Sequence[str]) -> Records | None:
        """Tagged words: the tags are not looked at."""
        return TaggedText.read(path, config) if path.is_file() and TaggedText.recognise(path) else None

    @staticmethod
    def sample(folder: Path) -> Path:
        sentences = []
        for number in range(12):
            place = ("Oslo", "Rome", "New York")[number % 3].split()
            words = ["The", "sonde", "left", *place, "."]
            tags = ["O", "O", "O", "B-place", *["I-place"] * (len(place) - 1), "O"]
            sentences.append("".join(f"{word}\t{tag}\n" for word, tag in zip(words, tags, strict=True)))
        path = folder / "places.conll"
        path.write_text("\n".join(sentences), encoding="utf-8")
        return path


def _files(path: Path) -> list[tuple[str | None, Path]]:
    if path.is_file():
        return [(None, path)]
    if not path.exists():
        raise UserError(f"the data set {path} does not exist")
    files = _tagged.files_in(path)
    if not files:
        raise UserError(
            f"the folder {path} has no files of tagged words",
            expected="CoNLL, CoNLL-U or JSONL files, named after train, validation and test if there are several",
            hint="data.source may also be a single file",
        )
    without, named = ([file for split, file in files if (split is None) is none] for none in (True, False))
    if without and named:
        raise UserError(
            f"the name of {without[0]} says no split, where {named[0].name} does",
            expected="a name with train, dev or test in it",
            hint="rename it, or move it away",
        )
    return files


def _sentences(file: Path, config: TaggedTextConfig) -> Iterator[Sentence]:
    lines = _tagged.read_lines(file)
    columns = {name: value for name in ("word_column", "tag_column") if (value := getattr(config, name)) is not None}
    if file.suffix.lower() in _tagged.JSONL:
        _refuse(columns, file, "is JSONL", 'data.tag = "..." names the key of the tags')
        return read_json(file, lines, config.tag)
    if is_conllu(file, lines):
        _refuse(columns, file, "is CoNLL-U", 'data.tag = "xpos" chooses a column by name')
        return read_conllu(file, lines, config.tag or "upos")
    _refuse(
        {} if config.tag is None else {"tag": config.tag}, file, "is CoNLL", "data.tag_column = 1 chooses by number"
    )
    return read_conll(file, lines, config.word_column, config.tag_column)


def _refuse(settings: dict[str, Any], file: Path, why: str, hint: str) -> None:
    for name, value in settings.items():
        raise UserError(f"data.{name} = {value!r} means nothing here: {file} {why}", hint=hint)


def _ids(found: Sequence[tuple[str, Sentence]]) -> list[str]:
    counts = Counter(sentence.name for _, sentence in found)
    places = [f"{file}:{sentence.line}" for file, sentence in found]
    ids = [
        sentence.name if sentence.name and counts[sentence.name] == 1 else place
        for place, (_, sentence) in zip(places, found, strict=True)
    ]
    # Somebody may have named a sentence as we name others.
    return ids if len(set(ids)) == len(ids) else places


def _options(path: Path, target: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings that the first file needs over the defaults, with notes on them; `target` may name the tags."""
    file = _files(path)[0][1]
    lines = _tagged.read_lines(file)
    if file.suffix.lower() in _tagged.JSONL:
        return ({} if target in (None, "tags") else {"tag": target}), {}
    if is_conllu(file, lines):
        tag = "upos" if target in (None, "tags") else str(target)
        others = ", ".join(name for name in CONLLU_TAGS if name != tag)
        return {"tag": tag}, {"data.tag": f"a column of CoNLL-U; others: {others}"}
    if target not in (None, "tags"):
        raise UserError(
            f"CoNLL columns have no names: there is no {target!r} to learn",
            expected="tags, which are in the last column",
            hint="data.tag_column in the recipe chooses another column by number",
        )
    if counts_words(file, lines):
        return {"word_column": 1}, {"data.word_column": "the first column numbers the words"}
    return {}, {}


def _scheme(tags: list[list[str]], counts: Counter[str]) -> tuple[str | None, list[str]]:
    """BIO, IOB1, BIOES or BILOU, or None for plain tags; and a warning where spans begin in two ways."""
    marks = {tag[0] for tag in counts if tag != "O" and tag[1:2] == "-" and len(tag) > 2}
    if not marks or any(tag != "O" and tag[1:2] != "-" for tag in counts) or not marks <= set("BIESLU"):
        return None, []
    if marks & set("ESLU"):
        return "BILOU" if marks & set("LU") else "BIOES", []
    usual = late = 0
    for each in tags:
        for before, tag in zip(["O", *each], each, strict=False):
            # A span after none, or after one of another label.
            if tag != "O" and before[2:] != tag[2:]:
                usual += tag[0] == "B"
                late += tag[0] == "I"
    if late and not usual:
        return "IOB1", []
    return "BIO", [f"{late} of {usual + late} spans begin with I-, where BIO has B-"] if late else []


def _named(counts: Counter[str], scheme: str | None, shown: int) -> str:
    names = sorted(counts if scheme is None else {tag[2:] for tag in counts if tag != "O"})
    listing = ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")
    if scheme is None:
        return f"{len(counts)} tags: {listing}"
    return f"{len(counts)} tags in the {scheme} scheme, of {len(names)} label{'s' if len(names) > 1 else ''}: {listing}"


def _rare(counts: Counter[str]) -> list[str]:
    if len(counts) == 1:
        return [f"all words have the tag {next(iter(counts))!r}: there is nothing to learn"]
    rare = sorted((count, tag) for tag, count in counts.items() if count < _FEW)
    if not rare:
        return []
    shown = ", ".join(f"{tag} ({count})" for count, tag in rare[:_SHOWN]) + (", ..." if len(rare) > _SHOWN else "")
    return [f"{'one tag has' if len(rare) == 1 else f'{len(rare)} tags have'} fewer than {_FEW} words: {shown}"]
