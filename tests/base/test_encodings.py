"""Which encoding a text is in, and where that is not certain."""

from __future__ import annotations

import pytest

from sonde.base.encodings import decode, detect

WESTERN = [
    "Le garçon a mangé à la fête; l\u2019été est fini \u2013 déjà.",
    "Größe;Straße;Über\nzwölf;Bäume;schön",
    "El niño ¿cómo está? ¡Qué año! 25 ºC",
    "São Paulo não é a capital: coração, ações",
    "Smörgåsbord på Ångström, rødgrød med fløde",
    "Þetta er íslenska: það og hún, ýta",
    "price 5 £, 10 \u20ac, 45° N, µm",
]
OTHERS = {
    "cp1250": ["Příliš žluťoučký kůň úpěl ďábelské ódy", "Zażółć gęślą jaźń", "árvíztűrő tükörfúrógép"],
    "cp1251": ["Привет, мир", "Москва,Россия"],
    "cp1253": ["Καλημέρα κόσμε"],
    "cp1254": ["Ya\u015far \u00e7ok da\u011f g\u00fcne\u015fi", "b\u0131\u00e7ak da\u011f"],
    "mac_roman": ["Le garçon a mangé à la fête"],
    "gbk": ["中文数据,标签"],
    "shift_jis": ["日本語のデータ"],
}


@pytest.mark.parametrize("text", WESTERN)
def test_western_texts_are_certain(text: str) -> None:
    for encoding in ("cp1252", "latin-1"):
        try:
            content = text.encode(encoding)
        except UnicodeEncodeError:
            continue  # Latin-1 has no dash
        assert detect(content) == "cp1252", text
        assert decode(content) == text


@pytest.mark.parametrize(("encoding", "text"), [(name, text) for name, texts in OTHERS.items() for text in texts])
def test_other_code_pages_are_not_taken_for_western(encoding: str, text: str) -> None:
    assert detect(text.encode(encoding)) is None
    assert decode(text.encode(encoding), encoding) == text
    with pytest.raises(UnicodeDecodeError):
        decode(text.encode(encoding))


@pytest.mark.parametrize("text", [*WESTERN, *(text for texts in OTHERS.values() for text in texts), "plain"])
def test_unicode_by_its_mark(text: str) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        assert decode(text.encode(encoding)) == text
    assert detect(text.encode("utf-16")) == "utf-16"
    assert detect(text.encode()) == "utf-8"
