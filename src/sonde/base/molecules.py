"""Molecules through RDKit: reading SMILES, canonical forms, scaffolds, fingerprints, drawings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sonde.base.errors import RecordError, UserError
from sonde.base.files import read_bytes

# The bits of a fingerprint, and how far around each atom it looks: ECFP4 has diameter 4.
BITS, RADIUS = 2048, 2
SCAFFOLD = "Bemis-Murcko scaffold (RDKit MurckoScaffoldSmiles)"
# By their names in RDKit: Crippen's logP and refractivity, weight, polar surface, counts, shares.
DESCRIPTORS = (
    *("MolLogP", "MolMR", "ExactMolWt", "TPSA", "LabuteASA", "NumHBD", "NumHBA", "NumRotatableBonds", "NumRings"),
    *("NumAromaticRings", "NumHeavyAtoms", "NumHeteroatoms", "FractionCSP3", "aromatic share"),
)
_SHOWN = 60


def rdkit() -> Any:
    """RDKit's `Chem`, its own messages silenced: what is wrong with a molecule is said here.

    Raises:
        UserError: RDKit is not installed.
    """
    try:
        from rdkit import Chem, rdBase
    except ImportError as error:
        raise UserError("molecules need RDKit, which is not installed", hint='pip install "sonde[graph]"') from error
    return Chem, rdBase


def read(value: object, field: str) -> Any:
    """The molecule of a SMILES, its atoms in canonical order: one molecule gives the same however it is written.

    `value` is a text, or the path of a file that holds one.

    Raises:
        RecordError: there is none, or it is not a molecule; says what RDKit found wrong with it.
    """
    text = _text(value, field)
    chem, base = rdkit()
    silence = base.BlockLogs()
    try:
        molecule = chem.MolFromSmiles(text)
        if molecule is None:
            short = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
            raise RecordError(
                f"the SMILES {short!r} in field {field!r} is not a molecule: {_reason(chem, text)}",
                expected="a SMILES that RDKit can read, such as CCO",
            )
        if not molecule.GetNumAtoms():
            raise RecordError(f"the SMILES in field {field!r} is empty", expected="at least one atom")
        again = chem.MolFromSmiles(chem.MolToSmiles(molecule))
        return molecule if again is None else again
    finally:
        del silence


def _text(value: object, field: str) -> str:
    if value is None or (isinstance(value, float) and value != value):
        raise RecordError(f"the molecule in field {field!r} is missing", expected="a SMILES")
    if isinstance(value, Path):
        lines = read_bytes(value).decode("utf-8", "replace").split("\n")
        lines = [line.strip() for line in lines if line.strip()]
        if len(lines) != 1:
            raise RecordError(
                f"{value} has {len(lines)} lines", expected="one SMILES", hint="several molecules go into a CSV file"
            )
        return lines[0].split()[0]
    if not isinstance(value, str):
        raise RecordError(f"the molecule in field {field!r} is {value!r}", expected="a SMILES: a text such as CCO")
    if not value.strip():
        raise RecordError(f"the molecule in field {field!r} is missing", expected="a SMILES")
    return value.strip()


def _reason(chem: Any, text: str) -> str:
    """What is wrong with a text that is no molecule: of its chemistry, if it can be read at all."""
    settings = chem.SmilesParserParams()
    settings.sanitize = False
    loose = chem.MolFromSmiles(text, settings)
    problems = [] if loose is None else chem.DetectChemistryProblems(loose)
    return (
        problems[0].Message() if problems else "a bracket, a ring or a bond is not closed, or an atom has no such name"
    )


def scaffold(value: object, field: str) -> str | None:
    """The Bemis-Murcko scaffold of a molecule, as canonical SMILES; "" for one without rings, None for an unreadable
    one (Bemis and Murcko 1996, "The Properties of Known Drugs")."""
    from rdkit.Chem.Scaffolds import MurckoScaffold

    try:
        return MurckoScaffold.MurckoScaffoldSmiles(mol=read(value, field), includeChirality=False)
    except RecordError:
        return None


def fingerprint(molecule: Any) -> np.ndarray:
    """ECFP4 (Rogers and Hahn 2010), packed: uint8 (BITS / 8,)."""
    return np.packbits(_generator().GetFingerprintAsNumPy(molecule))


def _generator() -> Any:
    from rdkit.Chem import rdFingerprintGenerator

    return rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=BITS)


def tanimoto(one_BP: np.ndarray, other_NP: np.ndarray) -> np.ndarray:
    """The Tanimoto similarity of packed fingerprints, float32 (B, N); two that are empty are alike."""
    one, other = (np.ascontiguousarray(each).view(np.uint64) for each in (one_BP, other_NP))
    shared = np.zeros((len(one), len(other)), dtype=np.int32)
    for word in range(one.shape[1]):
        shared += np.bitwise_count(one[:, None, word] & other[None, :, word])
    total = np.bitwise_count(one).sum(1, dtype=np.int32)[:, None] + np.bitwise_count(other).sum(1, dtype=np.int32)
    either = total - shared
    return np.where(either > 0, shared / np.maximum(either, 1), 1.0).astype(np.float32)


def descriptors(molecule: Any) -> list[float]:
    """What chemists compute of a molecule as a whole, in the order of `DESCRIPTORS`."""
    from rdkit.Chem import rdMolDescriptors

    calculated = [float(getattr(rdMolDescriptors, f"Calc{name}")(molecule)) for name in DESCRIPTORS[2:-1]]
    aromatic = sum(atom.GetIsAromatic() for atom in molecule.GetAtoms()) / molecule.GetNumAtoms()
    return [*rdMolDescriptors.CalcCrippenDescriptors(molecule), *calculated, aromatic]


def drawn(molecule: Any, size: tuple[int, int] = (260, 180)) -> str:
    """The molecule as SVG."""
    from rdkit.Chem.Draw import rdMolDraw2D

    picture = rdMolDraw2D.MolDraw2DSVG(*size)
    rdMolDraw2D.PrepareAndDrawMolecule(picture, molecule)
    picture.FinishDrawing()
    return str(picture.GetDrawingText())
