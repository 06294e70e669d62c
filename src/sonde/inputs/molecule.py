"""Molecules, from SMILES: atoms are nodes, bonds are edges; read by RDKit."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field

from sonde.base import molecules
from sonde.base.config import Config
from sonde.base.constants import constant
from sonde.base.errors import RecordError, UserError
from sonde.contracts.columns import Columns, Tensors
from sonde.contracts.finding import Finding, judged
from sonde.contracts.input import Input
from sonde.contracts.part import agree
from sonde.contracts.records import Record, Records
from sonde.contracts.specs import Advice, InputSpec, OutputSpec
from sonde.inputs._graphs import RAGGED, lay_out, one_hots

if TYPE_CHECKING:
    from sonde.contracts.classical import FeatureMap

# What is told of an atom beside its element, each a code from 0 up to its size.
ATOM_SIZES = (7, 8, 6, 3, 6, 2, 2)
# Of a bond: its type, stereochemistry, conjugation, whether it is in a ring.
BOND_SIZES = (5, 3, 2, 2)
# An answer names so many molecules of training; so far from all of them a molecule is unlike them.
NEAREST, FAR, FAR_WARN = 3, 0.7, 0.2
FEW = 5000
# A descriptor so many deviations out.
FARTHEST = 10.0
# Training molecules that are kept for distances.
MOST_KEPT = 50_000


class MoleculeConfig(Config):
    kind: Literal["molecule"] = "molecule"
    field: str = Field(default="smiles", description="the field that holds SMILES")
    max_atoms: int = Field(default=500, ge=1, description="a molecule with more atoms than this is unreadable")
    min_count: int = Field(
        default=2, ge=1, description="elements in fewer training molecules than this count as the same, other element"
    )
    descriptors: bool = Field(
        default=True, description="tell every atom of its whole molecule, too: logP, weight, polar surface and others"
    )


@dataclass(frozen=True, kw_only=True)
class Molecule(Input):
    """On the graph layout. Encoded: "nodes" uint8 (n, 8) and "edge_values" uint8 (e, 4) codes, "edges" int32 (e, 2) in
    both directions, "fingerprint" uint8 (256,): ECFP4, packed; "descriptors" float32 (14,) of the whole molecule, which
    `preprocess` gives to each of its atoms, standardized by `centre` and `spread`.

    Atoms stand in canonical order, so that one molecule is one example however it is written. `elements` are the atomic
    numbers that training showed, 0 in place of all others; `names` and `fingerprints` are the training molecules, for
    the distance in each answer.
    """

    Config = MoleculeConfig
    takes_file: ClassVar[bool] = True
    pads: ClassVar[bool] = False
    ragged: ClassVar = RAGGED

    config: MoleculeConfig
    elements: list[int]
    centre: list[float]
    spread: list[float]
    names: list[str]
    fingerprints: torch.Tensor

    @classmethod
    def fit(cls, config: MoleculeConfig, records: Records) -> Self:
        if config.field not in records.fields:
            raise UserError(f"there is no field {config.field!r}", expected="one of: " + ", ".join(records.fields))
        chem, _ = molecules.rdkit()
        counts: Counter[int] = Counter()
        found: dict[str, np.ndarray] = {}
        described: list[list[float]] = []
        first: RecordError | None = None
        for value in records.fields[config.field]:
            try:
                molecule = molecules.read(value, config.field)
            except RecordError as error:
                first = first or error
                continue
            if config.descriptors:
                described.append(molecules.descriptors(molecule))
            counts.update({atom.GetAtomicNum() for atom in molecule.GetAtoms()})
            name = chem.MolToSmiles(molecule)
            if len(found) < MOST_KEPT and name not in found:
                found[name] = molecules.fingerprint(molecule)
        if first is not None and not found:
            raise UserError(f"no record of the training split has a molecule: {first.what}", expected=first.expected)
        rows = np.array(described).reshape(len(described), -1)
        spread = rows.std(axis=0) if len(rows) else np.empty(0)
        return cls(
            config=config,
            centre=rows.mean(axis=0).tolist() if len(rows) else [],
            spread=np.where(spread > 0, spread, 1.0).tolist(),
            elements=[0, *sorted(number for number, count in counts.items() if number and count >= config.min_count)],
            names=list(found),
            fingerprints=torch.from_numpy(np.stack(list(found.values()))),
        )

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator) -> tuple[MoleculeConfig, Records]:
        some = ["CCO", "c1ccccc1O", "CC(=O)[O-].[Na+]", "C", "C/C=C/Cl", "N[C@@H](C)C(=O)O", "FC(F)(F)c1ccncc1"]
        some += ["CCN", "C1CC1", "O=S(=O)(O)O", "C#N", "CC(C)Br", "c1ccoc1"]
        field = np.empty(count, dtype=object)
        field[:] = [some[index % len(some)] for index in rng.permutation(count)]
        return MoleculeConfig(min_count=1), Records(
            fields={"smiles": field}, ids=[f"row {index}" for index in range(count)]
        )

    @staticmethod
    def recommend(config: MoleculeConfig, output: OutputSpec, records: Records) -> Advice:
        return Advice(
            network={"kind": "graph", "layer": "gin"},
            training={
                "epochs": 100 if len(records) < FEW else 30,
                "batch_size": 64,
                "optimizer": {"kind": "adamw", "lr": 0.001},
                "schedule": {"kind": "one-cycle"},
            },
        )

    def check_fitted(self, inputs: Any) -> None:
        rows = self.fingerprints
        agree(self.elements[:1] == [0] and sorted(set(self.elements)) == self.elements, "the elements are not in order")
        agree(
            rows.dtype == torch.uint8 and rows.shape == (len(self.names), molecules.BITS // 8),
            "not one fingerprint each",
        )
        wanted = len(molecules.DESCRIPTORS) if self.config.descriptors else 0
        agree(len(self.centre) == len(self.spread) == wanted, "centre and spread are not one a descriptor")
        agree(min(self.spread, default=1.0) > 0, "a spread is not above 0")
        agree(len(self.names) > 0, "there is no training molecule")

    @property
    def _sizes(self) -> tuple[int, ...]:
        return (len(self.elements), *ATOM_SIZES)

    @property
    def spec(self) -> InputSpec:
        return InputSpec(
            layout="graph",
            channels=sum(self._sizes) + len(self.centre),
            size=(self.config.max_atoms,),
            edge_channels=sum(BOND_SIZES),
        )

    def feature_map(self) -> FeatureMap:
        from sonde.inputs._fingerprints import Fingerprints

        return Fingerprints()

    def encode(self, record: Record) -> Tensors:
        molecule = molecules.read(record.get(self.config.field), self.config.field)
        count = molecule.GetNumAtoms()
        if count > self.config.max_atoms:
            raise RecordError(
                f"the molecule has {count} atoms",
                expected=f"at most {self.config.max_atoms}",
                hint="raise max_atoms of the input",
            )
        places = {number: place for place, number in enumerate(self.elements)}
        atoms = [(places.get(atom.GetAtomicNum(), 0), *_atom(atom)) for atom in molecule.GetAtoms()]
        bonds = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), *_bond(bond)) for bond in molecule.GetBonds()]
        rows = np.array(bonds, dtype=np.int32).reshape(len(bonds), 2 + len(BOND_SIZES))
        edges, values = rows[:, :2], rows[:, 2:]
        whole = {}
        if self.config.descriptors:
            whole["descriptors"] = torch.tensor(molecules.descriptors(molecule), dtype=torch.float32)
        return {
            **whole,
            "nodes": torch.tensor(atoms, dtype=torch.uint8),
            "edges": torch.from_numpy(np.concatenate([edges, edges[:, ::-1]])),
            "edge_values": torch.from_numpy(np.concatenate([values, values]).astype(np.uint8)),
            "fingerprint": torch.from_numpy(molecules.fingerprint(molecule)),
        }

    def collate(self, columns: Columns) -> Tensors:
        return lay_out(columns)

    def preprocess(self, tensors: Tensors) -> Tensors:
        nodes = one_hots(tensors["nodes"], 0, self._sizes)
        if self.centre:
            given = tensors["descriptors"]
            centre, spread = constant(self.centre, given.device), constant(self.spread, given.device)
            # What is far from all of training says no more than what is farther, and could overflow.
            whole = ((given - centre) / spread).clamp(-FARTHEST, FARTHEST)
            nodes = torch.cat([nodes, whole.repeat_interleave(tensors["length"], 0, output_size=len(nodes))], dim=1)
        return {
            **tensors,
            "nodes": nodes,
            "edge_values": one_hots(tensors["edge_values"], 0, BOND_SIZES),
        }

    def show(self, record: Record) -> dict[str, Any]:
        """The molecule as a picture (SVG)."""
        value = record.get(self.config.field)
        try:
            svg = molecules.drawn(molecules.read(value, self.config.field))
        except RecordError:
            return {"values": {self.config.field: str(value)}}
        return {"picture": "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()}

    def annotate(self, tensors: Tensors) -> list[dict[str, Any]]:
        """{"applicability": {"distance", "nearest"}}: 1 - Tanimoto similarity (ECFP4) to the nearest training molecule,
        from 0 to 1, and the nearest ones."""
        distance_BN = self._distances(tensors["fingerprint"])
        nearest_BK = np.argsort(distance_BN, axis=1, kind="stable")[:, :NEAREST]
        return [
            {
                "applicability": {
                    "distance": round(float(row[near[0]]), 4),
                    "nearest": [self.names[place] for place in near.tolist()],
                }
            }
            for row, near in zip(distance_BN, nearest_BK, strict=True)
        ]

    def _distances(self, fingerprint_BP: torch.Tensor) -> np.ndarray:
        return 1 - molecules.tanimoto(fingerprint_BP.cpu().numpy(), self.fingerprints.numpy())

    def named(self, columns: Columns) -> dict[str, np.ndarray]:
        """The distance of each to the nearest training molecule: slices show where it hurts."""
        fingerprints = columns["fingerprint"]
        assert isinstance(fingerprints, torch.Tensor)
        nearest = [self._distances(chunk).min(axis=1) for chunk in fingerprints.split(256)]
        return {f"distance of {self.config.field}": np.concatenate(nearest)}

    def audit(self, columns: Columns, ids: Sequence[str]) -> list[Finding]:
        """How far a split is from the training molecules; copies and contradictions are found by the checks of all
        inputs, as one molecule is one example."""
        (distance_N,) = self.named(columns).values()
        order: list[int] = np.argsort(-distance_N, kind="stable").tolist()
        far = float((distance_N > FAR).mean())
        return [
            Finding(
                check="applicability",
                verdict=judged(far, warn=FAR_WARN),
                text="the distance (1 - Tanimoto) to the nearest training molecule has median "
                f"{np.median(distance_N):.2f}; "
                f" {far:.1%} of {len(distance_N):,} are farther than {FAR:g}",
                fix="scores of such molecules say little of those near training: look at the answers' distance",
                records=[ids[place] for place in order[: int((distance_N > FAR).sum())]],
                numbers={"median": float(np.median(distance_N)), "share_far": far},
            )
        ]


def _atom(atom: Any) -> tuple[int, ...]:
    """Neighbours, charge (-3 to 3, else 7), hydrogens, stereochemistry (CIP), hybridisation, aromatic, in a ring."""
    charge = atom.GetFormalCharge()
    stereo = {"R": 1, "S": 2}.get(atom.GetProp("_CIPCode"), 0) if atom.HasProp("_CIPCode") else 0
    hybrid = {"SP": 1, "SP2": 2, "SP3": 3, "SP3D": 4, "SP3D2": 5}.get(str(atom.GetHybridization()), 0)
    return (
        min(atom.GetDegree(), 6),
        charge + 3 if -3 <= charge <= 3 else 7,
        min(atom.GetTotalNumHs(), 5),
        stereo,
        hybrid,
        int(atom.GetIsAromatic()),
        int(atom.IsInRing()),
    )


def _bond(bond: Any) -> tuple[int, ...]:
    order = {"SINGLE": 1, "DOUBLE": 2, "TRIPLE": 3, "AROMATIC": 4}.get(str(bond.GetBondType()), 0)
    stereo = {"STEREOE": 1, "STEREOZ": 2, "STEREOTRANS": 1, "STEREOCIS": 2}.get(str(bond.GetStereo()), 0)
    return order, stereo, int(bond.GetIsConjugated()), int(bond.IsInRing())
