"""Columns that hold molecules as SMILES, known by how they are written: no chemistry is needed to see that."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

# An atom in brackets, or of the organic subset, aromatic or not; bonds, branches, rings, dots.
_SMILES = re.compile(r"(\[[^\[\]\s]+\]|Br|Cl|[BCNOPSFIbcnops*]|[-=#$:/\\.()]|%\d\d|\d)+")
# What no word and no code has: bonds, brackets, branches and rings among atoms.
_TELLING = re.compile(r"[=#\[(]|[A-Za-z]\d.*[A-Za-z]")
_BRACKET, _RING = re.compile(r"\[[^\[\]]*\]"), re.compile(r"%\d\d|\d")
_NAMED = re.compile(r"(?i)(.*[_\W])?(smiles?|mols?|molecules?)([_\W].*)?")
_SAMPLE, _MOSTLY, _TELL = 500, 0.9, 0.3


def is_smiles(name: str, texts: Sequence[str]) -> bool:
    """Whether a column of texts holds molecules: nearly all are written as such, and its name or a good share of them
    says so, too. Those that are none are told when they are read.

    >>> is_smiles("drug", ["CCO", "c1ccccc1O", "CC(=O)O"])
    True
    >>> is_smiles("state", ["CO", "NC", "OH"])
    False
    """
    some = [text.strip() for text in texts[:: 1 + len(texts) // _SAMPLE] if text.strip()]
    if not some or sum(map(_is_written_so, some)) < _MOSTLY * len(some):
        return False
    return bool(_NAMED.fullmatch(name)) or sum(_TELLING.search(text) is not None for text in some) > _TELL * len(some)


def _is_written_so(text: str) -> bool:
    """Atoms, bonds and branches that close, rings that do, too: each number of a ring is there twice."""
    if _SMILES.fullmatch(text) is None or text.count("(") != text.count(")"):
        return False
    rings = Counter(_RING.findall(_BRACKET.sub("", text)))
    return all(count % 2 == 0 for count in rings.values())


def varies(molecules: np.ndarray, values: np.ndarray) -> bool:
    """Whether a column differs between records of one molecule: then it says something that the molecule does not."""
    first: dict[object, object] = {}
    for molecule, value in zip(molecules.tolist(), values.tolist(), strict=True):
        known = first.setdefault(molecule, value)
        if known != value and known == known and value == value:
            return True
    return False
