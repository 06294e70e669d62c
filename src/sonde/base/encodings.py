"""Bytes of texts as texts: UTF-8, UTF-16 and UTF-32 by their byte-order mark, Western European where certain."""

from __future__ import annotations

import codecs
import re

# What the bytes 0x80 to 0xff of Western European text usually are in Windows-1252: letters, and signs around words.
WESTERN = "cp1252"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LETTERS = "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u00ff\u0152\u0153\u0160\u0161\u0178\u017d\u017e"
# Signs that stand inside words only where the bytes are letters of another encoding (the Polish l, the Czech t).
_SIGN_IN_WORD = re.compile(rf"[A-Za-z][^\x00-\x7f{_LETTERS}\u2019\u00b7\u00ad\u00b4\u00a0\u2013\u2014]+[A-Za-z]")
# So many accented letters in a row are no Western word, but the words of another alphabet.
_FOREIGN_WORD = re.compile("[\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u00ff]{4}")
# A capital after a small letter: Mac OS Roman has its accented letters where Windows has these.
_CAPITAL_IN_WORD = re.compile("[a-z\u00df-\u00ff][\u00c0-\u00d6\u00d8-\u00de\u0152\u0160\u0178\u017d]")
# Letters that meet in one text only where the bytes mean others: in Czech, Hungarian, Romanian and Turkish.
_FOREIGN_SETS = tuple(
    map(
        set,
        (
            "\u00ec\u00f8",
            "\u00f5\u00fb",
            "\u00e3\u00fe",
            "\u00f0\u00e7",
            "\u00fe\u00e7",
            "\u00fd\u00e7",
            "\u00fd\u00fc",
            "\u00f0\u00fc",
        ),
    )
)
# Accented letters are rarer than this among the letters of any Western European language.
_MOST_ACCENTED = 0.25
_SIGNS = "\u00aa\u00ba\u00b5"


def marked(content: bytes) -> str | None:
    """The encoding that a byte-order mark names."""
    return next((name for mark, name in _MARKS if content.startswith(mark)), None)


def detect(content: bytes) -> str | None:
    """The encoding of a text: "utf-8", "utf-16", "utf-32" or "cp1252" (Latin-1 with Windows' signs); None if unsure.

    Bytes that are UTF-8 are taken for it: other text is so only by a rare chance. Windows-1252 is certain where its
    letters form words as Western European languages do.
    """
    found = marked(content)
    if found in ("utf-16", "utf-32"):
        return found if _decodes(content, found) else None
    if _decodes(content, "utf-8"):
        return "utf-8"
    # Latin-1 is Windows-1252 but for control characters, which no text has.
    if found is None and _decodes(content, WESTERN) and _is_western(content.decode(WESTERN)):
        return WESTERN
    return None


def decode(content: bytes, encoding: str | None = None) -> str:
    """The text that bytes hold, without a byte-order mark; `encoding` where it is known.

    Raises:
        UnicodeDecodeError: not in this encoding; or none is given, and the bytes are neither UTF-8 nor certain.
    """
    known = encoding or ("utf-8" if content.isascii() else detect(content)) or "utf-8"
    return content.decode(known).removeprefix("\ufeff")


def exists(encoding: str) -> bool:
    try:
        codecs.lookup(encoding)
    except (LookupError, ValueError):
        return False
    return True


def _decodes(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _is_western(text: str) -> bool:
    if "\0" in text or any(each.search(text) for each in (_SIGN_IN_WORD, _FOREIGN_WORD, _CAPITAL_IN_WORD)):
        return False
    accented = [letter for letter in text if letter.isalpha() and not letter.isascii() and letter not in _SIGNS]
    lower = {letter.lower() for letter in accented}
    if any(letters <= lower for letters in _FOREIGN_SETS):
        return False
    return len(accented) <= _MOST_ACCENTED * sum(letter.isalpha() for letter in text)
