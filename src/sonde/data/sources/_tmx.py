"""TMX, translation memories: XML with a <tu> for each text, and in it a <tuv xml:lang="..."><seg> for each language."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO, cast
from xml.etree import ElementTree

from sonde.base.errors import UserError

_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
# What stands within a segment and is no text of it: markup of the program that it comes from.
_MARKUP = frozenset({"bpt", "ept", "it", "ph", "ut"})


def is_tmx(file: Path) -> bool:
    name = file.name.lower()
    return name.endswith((".tmx", ".tmx.gz"))


def read_tmx(file: Path) -> list[dict[str, str]]:
    """The texts of each unit by language ("en" for "en-US"), those in two languages or more.

    Raises:
        UserError: it is no TMX, or is cut short; tells the line.
    """
    units: list[dict[str, str]] = []
    try:
        with _open(file) as stream:
            for _, element in ElementTree.iterparse(stream):
                if _name(element) == "tu":
                    texts = _texts(element)
                    units += [texts] if len(texts) > 1 else []
                    element.clear()
    except ElementTree.ParseError as error:
        raise UserError(f"{file}:{error.position[0]} is not XML: {error}", expected="a whole TMX file") from error
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not units:
        raise UserError(f"{file} has no texts in two languages", expected="<tu> with a <tuv> for each language")
    return units


def _open(file: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(file)) if file.suffix.lower() == ".gz" else file.open("rb")


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _texts(unit: ElementTree.Element) -> dict[str, str]:
    found: dict[str, str] = {}
    for variant in unit:
        language = variant.get(_LANG) or variant.get("lang")
        segment = next((each for each in variant if _name(each) == "seg"), None)
        if _name(variant) == "tuv" and language and segment is not None:
            text = " ".join(_text(segment).split())
            if text:
                found.setdefault(language.lower().partition("-")[0].partition("_")[0], text)
    return found


def _text(element: ElementTree.Element) -> str:
    parts = [element.text or ""]
    for child in element:
        parts += ["" if _name(child) in _MARKUP else _text(child), child.tail or ""]
    return "".join(parts)
