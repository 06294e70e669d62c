"""Parallel texts: files by language, TMX, directions, and what is wrong with them; tables with texts to write."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from sonde.base.errors import UserError
from sonde.data.sources.parallel_text import ParallelText, ParallelTextConfig
from sonde.data.sources.table import Table

TMX = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header/><body>
<tu><tuv xml:lang="en-US"><seg>A <bpt i="1">&lt;b&gt;</bpt>dog<ept i="1"/></seg></tuv>
<tuv xml:lang="de"><seg>Ein Hund</seg></tuv></tu>
<tu><tuv xml:lang="en-US"><seg>alone</seg></tuv></tu>
</body></tmx>
"""


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text, encoding="utf-8")
    return folder


def read(path: Path, **settings):
    return ParallelText.read(path, ParallelTextConfig(**settings))


def test_multi30k_is_read_whole(shared: Path) -> None:
    records = read(shared / "multi30k_en_de")
    counts = {split: (records.fields["split"] == split).sum() for split in ("train", "validation", "test")}
    assert counts == {"train": 29_000, "validation": 1014, "test": 1000}
    assert records.fields["en"][0] == "Two young, White males are outside near many bushes."
    assert (
        records.fields["de"][0]
        == "Zwei junge wei\u00dfe M\u00e4nner sind im Freien in der N\u00e4he vieler B\u00fcsche."
    )
    assert records.ids[0] == "train:1"
    guess = ParallelText.guess(shared / "multi30k_en_de", None)
    assert (guess.inputs["text"]["field"], guess.target["field"]) == ("en", "de")
    assert guess.warnings == ()
    guess = ParallelText.guess(shared / "multi30k_en_de", "en")
    assert (guess.inputs["text"]["field"], guess.target["field"]) == ("de", "en")


def test_other_names_and_empty_lines(tmp_path: Path) -> None:
    write(tmp_path, corpus_src="a\n\nc d", corpus_tgt="1\n2\n3\n")
    records = read(tmp_path)
    assert records.fields["src"].tolist() == ["a", None, "c d"]
    assert records.fields["tgt"].tolist() == ["1", "2", "3"]
    assert "split" not in records.fields
    guess = ParallelText.guess(tmp_path, None)
    assert (guess.inputs["text"]["field"], guess.target["field"]) == ("src", "tgt")
    assert guess.warnings[0].startswith("one line has no text in src or tgt")


def test_several_languages_can_be_chosen_from(tmp_path: Path) -> None:
    write(tmp_path, all_en="a\nb", all_de="c\nd", all_cs="e\nf")
    assert set(read(tmp_path).fields) == {"en", "de", "cs"}
    assert set(read(tmp_path, languages=("en", "cs")).fields) == {"en", "cs"}
    with pytest.raises(UserError, match=r"data\.languages: the language 'fr' does not exist"):
        read(tmp_path, languages=("fr",))


def test_a_translation_memory_is_read_without_its_markup(tmp_path: Path) -> None:
    (tmp_path / "memory.tmx").write_text(TMX)
    for path in (tmp_path, tmp_path / "memory.tmx"):
        assert ParallelText.recognise(path)
        records = read(path)
        assert records.fields["en"].tolist() == ["A dog"]
        assert records.fields["de"].tolist() == ["Ein Hund"]
    (tmp_path / "cut.tmx").write_text(TMX[:200])
    with pytest.raises(UserError, match=r"cut\.tmx:\d+ is not XML"):
        read(tmp_path / "cut.tmx")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train_en": "a\nb", "train_de": "a"}, r"train\.de has 1 lines and .*train\.en has 2. Expected as many"),
        ({"train_en": "a", "train_de": "a", "test_en": "b"}, r"test\.en has no counterpart in 'de'.*a file test\.de"),
        (
            {"train_en": "a", "train_de": "a", "more_en": "b", "more_de": "b"},
            r"the name of more\.de .* says no split",
        ),
        ({"train_en": " \n", "train_de": "a\n"}, r"train\.en is empty"),
    ],
)
def test_what_does_not_fit_together_is_told(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(write(tmp_path, **files))


def test_broken_files_are_told_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "train.en").write_bytes(b"one\ntwo \xff\n")
    (tmp_path / "train.de.gz").write_bytes(gzip.compress(b"eins\nzwei\n")[:-9])
    with pytest.raises(UserError, match=r"train\.de\.gz cannot be read"):
        read(tmp_path)
    (tmp_path / "train.de.gz").write_bytes(gzip.compress(b"eins\nzwei\n"))
    with pytest.raises(UserError, match=r"train\.en:2 is not UTF-8: byte 0xff"):
        read(tmp_path)


def test_other_folders_are_no_parallel_texts(tmp_path: Path) -> None:
    write(tmp_path, notes_md="a", script_py="b", code_rs="c")
    assert not ParallelText.recognise(tmp_path)
    write(tmp_path, notes_en="a", other_de="b")
    assert not ParallelText.recognise(tmp_path)


def test_a_table_of_sentences_has_no_header(tmp_path: Path) -> None:
    lines = [f"This is the sentence number {number}.\tDies ist der Satz Nummer {number}." for number in range(40)]
    (tmp_path / "t.tsv").write_text("\n".join(lines) + "\n")
    guess = Table.guess(tmp_path / "t.tsv", None)
    assert guess.count == 40
    assert guess.data["header"] is False
    assert guess.target == {"kind": "sequence", "field": "column_2"}


def rows(names: str, separator: str, count: int = 40) -> str:
    lines = [f"a text with number {number}{separator}ein Text mit Nummer {number}" for number in range(count)]
    return "\n".join([names, *lines]) + "\n"


@pytest.mark.parametrize(
    ("name", "text", "source", "target"),
    [
        ("t.tsv", rows("en\tde", "\t"), "en", "de"),
        ("t.csv", rows("article,summary", ","), "article", "summary"),
        ("t.csv", rows("source,target", ","), "source", "target"),
        ("t.csv", rows("first,second", ","), "first", "second"),
    ],
)
def test_tables_with_texts_to_write_are_recognised(
    tmp_path: Path, name: str, text: str, source: str, target: str
) -> None:
    (tmp_path / name).write_text(text)
    guess = Table.guess(tmp_path / name, None)
    assert guess.target == {"kind": "sequence", "field": target}
    assert guess.inputs == {"text": {"kind": "text", "field": source}}
    other = Table.guess(tmp_path / name, source)
    assert other.target == {"kind": "sequence", "field": source}
    assert other.inputs == {"text": {"kind": "text", "field": target}}
