"""Columns that hold molecules as SMILES, known by how they are written: no chemistry is needed to see that."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

# An atom in brackets, or of the organic subset, aromatic or not; bonds, branches, rings, dots.
_SMILES = re.compile(r"(\[[^\[\]\s]+\]|Br|Cl|[BCNOPSFIbcnops*]|[-=#$:/\\.()]|%\d\d|\d)+")
# What no word and no code has: rings, brackets, bonds, branches among atoms.
_TELLING = re.compile(r"[=#\[(]|[cnos]1|[A-Z]\d")
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
    if not some or sum(_SMILES.fullmatch(text) is not None for text in some) < _MOSTLY * len(some):
        return False
    return bool(_NAMED.fullmatch(name)) or sum(_TELLING.search(text) is not None for text in some) > _TELL * len(some)


def varies(molecules: np.ndarray, values: np.ndarray) -> bool:
    """Whether a column differs between records of one molecule: then it says something that the molecule does not."""
    first: dict[object, object] = {}
    for molecule, value in zip(molecules.tolist(), values.tolist(), strict=True):
        known = first.setdefault(molecule, value)
        if known != value and known == known and value == value:
            return True
    return False
