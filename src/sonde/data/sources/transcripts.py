"""Recordings with what is said in them: a text file beside each sound, or LibriSpeech's list of them in each folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from sonde.base.config import Config
from sonde.base.errors import UserError
from sonde.contracts.records import Records
from sonde.data.source import Guess, Source
from sonde.data.sources import _folders
from sonde.data.sources._folders import SOUNDS

_TEXT, _LIST = ".txt", ".trans.txt"


class TranscriptsConfig(Config):
    kind: Literal["transcripts"] = "transcripts"


class Transcripts(Source):
    """Fields "audio" (Path), "text" (None where nobody wrote it down), and "split" where the top folders give it.

    one.wav belongs to one.txt; or to the line "one HE SAID SO" of a file that ends in .trans.txt in its folder.
    """

    Config: ClassVar = TranscriptsConfig

    @staticmethod
    def recognise(path: Path) -> bool:
        return path.is_dir() and _folders.has_transcripts(path)

    @staticmethod
    def guess(path: Path, target: str | None) -> Guess:
        if target not in (None, "text"):
            raise UserError(f"recordings with transcripts have no field {target!r} to learn", expected="text")
        records = Transcripts.read(path, TranscriptsConfig())
        split: dict[str, object] = {"by": "random", "validation": 0.1, "test": 0.1}
        warnings = []
        if "split" in records.fields:
            split, warning = _folders.given_split(set(records.fields["split"]))
            warnings += [warning] if warning else []
        missing = sum(text is None for text in records.fields["text"])
        if missing:
            first = records.ids[records.fields["text"].tolist().index(None)]
            warnings.append(
                f"{missing:,} recordings have no transcript, such as {first}; fit stops there unless "
                "data.drop_unlabelled = true"
            )
        return Guess(
            about=f"{len(records):,} recordings with transcripts",
            count=len(records),
            data={"source": str(path), "kind": "transcripts", "split": split},
            inputs={"audio": {"kind": "audio", "field": "audio"}},
            target={"kind": "ctc", "field": "text"},
            notes={"target.kind": "a text along a recording; sequence writes one freely (attention)"},
            warnings=tuple(warnings),
        )

    @staticmethod
    def read(path: Path, config: TranscriptsConfig) -> Records:
        if not path.is_dir():
            raise _folders.no_folder(path)
        splits = _folders.split_folders(path)
        found = [(split, *each) for split, folder in splits or [(None, path)] for each in _pairs(folder)]
        if not any(text is not None for _, _, text in found):
            raise UserError(
                f"no recording in {path} has a transcript", expected=f"one{_TEXT} beside one.wav, or a file *{_LIST}"
            )
        fields = {
            "audio": _folders.objects([file for _, file, _ in found]),
            "text": _folders.objects([text for _, _, text in found]),
        }
        if splits:
            fields["split"] = _folders.objects([split for split, _, _ in found])
        return Records(fields=fields, ids=_folders.relative([file for _, file, _ in found], path))

    @staticmethod
    def sample(folder: Path) -> Path:
        # The sounds are not opened: their names are enough to know them.
        for number in range(12):
            (folder / f"{number:02}.wav").write_bytes(b"RIFF")
            (folder / f"{number:02}.txt").write_text(f"number {number}\n", encoding="utf-8")
        return folder


def _pairs(folder: Path) -> Iterator[tuple[Path, str | None]]:
    lists: dict[Path, dict[str, str]] = {}
    for sound in _folders.files_below(folder, SOUNDS):
        if sound.parent not in lists:
            lists[sound.parent] = _listed(sound.parent)
        beside = sound.with_suffix(_TEXT)
        text = _read(beside) if beside.is_file() else lists[sound.parent].get(sound.stem)
        yield sound, " ".join(text.split()) or None if text is not None else None


def _listed(folder: Path) -> dict[str, str]:
    """The transcripts that lists in a folder give, by the name of the sound."""
    found: dict[str, str] = {}
    for file in _folders.entries(folder):
        if file.name.endswith(_LIST):
            for line in _read(file).split("\n"):
                name, _, text = line.strip().partition(" ")
                if name:
                    found[name] = text
    return found


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file} is not UTF-8: byte {error.object[error.start]:#04x} at offset {error.start}",
            expected="text in UTF-8",
            hint=f"iconv -f LATIN1 -t UTF-8 {file.name}, if it is Latin-1",
        ) from error
