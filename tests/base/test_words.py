"""Texts cut into words: the rules by example, and what holds for every text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonde.base.words import split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ""),
        (" \n\t\u00a0\u200b", ""),
        ('He said: "Go!"', 'He said : " Go ! "'),
        ("Wait... what?!", "Wait . . . what ? !"),
        ("3.14 and 1,000,000.50, v2.0. 3. x", "3.14 and 1,000,000.50 , v2.0 . 3 . x"),
        ("a.b 1,a", "a . b 1 , a"),
        ("user_name @x #y", "user_name @ x # y"),
        ("New York-based e-mail", "New York - based e - mail"),
        ("O'Brien's at 5 o'clock", "O'Brien 's at 5 o'clock"),
        ("we're I'm they\u2019ve he'd she'll", "we 're I 'm they \u2019ve he 'd she 'll"),
        ("don't CAN'T isn\u2019t", "do n't CA N'T is n\u2019t"),
        ("J's dogs' 'tis 'quoted' 5'10", "J 's dogs ' ' tis ' quoted ' 5 ' 10"),
        ("l'Italie qu'il dell'arte un'altra d\u2019Artagnan", "l' Italie qu' il dell' arte un' altra d\u2019 Artagnan"),
        ("aujourd'hui \u043f'\u044f\u0442\u044c rock'n'roll", "aujourd'hui \u043f'\u044f\u0442\u044c rock'n'roll"),
        ("cafe\u0301 \u0939\u093f\u0928\u094d\u0926\u0940", "cafe\u0301 \u0939\u093f\u0928\u094d\u0926\u0940"),
        ("\u6771\u4eac\u3078ABC", "\u6771 \u4eac \u3078 ABC"),
    ],
)
def test_rules(text: str, words: str) -> None:
    assert " ".join(split_words(text)[0]) == words


@given(st.text(st.characters(exclude_categories=["Cs"])) | st.text("a1 .,'\u2019-nts\u0301\u4e00\u200b"))
def test_every_character_but_spaces_is_in_one_word(text: str) -> None:
    words, starts = split_words(text)
    assert all(text[start : start + len(word)] == word for word, start in zip(words, starts, strict=True))
    covered = [place for word, start in zip(words, starts, strict=True) for place in range(start, start + len(word))]
    assert covered == sorted(set(covered))
    outside = set(range(len(text))) - set(covered)
    assert all(text[place].isspace() or text[place] in "\u200b\ufeff" for place in outside)
    assert not any(character.isspace() for word in words for character in word)


def test_agrees_with_universal_dependencies(shared: Path) -> None:
    both = ours = theirs = 0
    content = (shared / "ud_english_partut" / "en_partut-ud-train.conllu").read_text(encoding="utf-8")
    for block in content.strip().split("\n\n"):
        lines = block.split("\n")
        text = next(line.removeprefix("# text = ") for line in lines if line.startswith("# text = "))
        truth, place = set(), 0
        for row in (line.split("\t") for line in lines if not line.startswith("#")):
            if row[0].isdigit() and (start := text.find(row[1], place)) >= 0:
                place = start + len(row[1])
                truth.add((start, place))
        found = {(start, start + len(word)) for word, start in zip(*split_words(text), strict=True)}
        both, ours, theirs = both + len(found & truth), ours + len(found), theirs + len(truth)
    assert both / ours > 0.99
    assert both / theirs > 0.99
