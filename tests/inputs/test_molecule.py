"""Molecules: one molecule is one example however it is written; what is none is told; distances; fingerprints."""

import numpy as np
import pytest
import torch

pytest.importorskip("rdkit")

from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

from sonde.base import molecules
from sonde.base.errors import RecordError, UserError
from sonde.contracts.records import Records, as_field
from sonde.data.split import Split, assign
from sonde.inputs.molecule import Molecule, MoleculeConfig

SOME = ["CCO", "c1ccccc1O", "CC(=O)[O-].[Na+]", "C/C=C/Cl", "N[C@@H](C)C(=O)O"]


def records(smiles):
    return Records(fields={"smiles": as_field(smiles)}, ids=[f"row {n + 1}" for n in range(len(smiles))])


@pytest.fixture(scope="module")
def part():
    return Molecule.fit(MoleculeConfig(min_count=1), records(SOME))


@pytest.mark.parametrize(
    ("one", "other"), [("OCC", "C(O)C"), ("Oc1ccccc1", "C1=CC=CC=C1O"), ("C(O)(=O)[C@H](C)N", SOME[4])]
)
def test_one_molecule_is_one_example(part, one, other):
    first, second = part.encode({"smiles": one}), part.encode({"smiles": other})
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_mirror_images_and_sides_of_a_double_bond_differ(part):
    for one, other in (("N[C@@H](C)C(=O)O", "N[C@H](C)C(=O)O"), ("C/C=C/Cl", "C/C=C\\Cl")):
        first, second = part.encode({"smiles": one}), part.encode({"smiles": other})
        assert any(not torch.equal(first[name], second[name]) for name in ("nodes", "edge_values"))


@pytest.mark.parametrize(
    ("smiles", "told"),
    [
        ("C(C)(C)(C)(C)C", "valence for atom # 0 C, 5"),
        ("c1ccc", "not closed"),
        ("water", "'water' in field 'smiles' is not a molecule"),
        (None, "is missing"),
        ("  ", "is missing"),
        (7, "is 7"),
    ],
)
def test_what_is_no_molecule_is_told(part, smiles, told, capfd):
    with pytest.raises(RecordError, match="Expected") as error:
        part.encode({"smiles": smiles})
    assert told in str(error.value)
    assert capfd.readouterr().err == ""


def test_bad_rows_are_named_and_the_others_read(part):
    columns, errors = part.encode_many(records(["CCO", "oops", "CC"]))
    assert list(errors) == [1]
    assert len(columns["nodes"]) == 2


def test_elements_that_training_did_not_show_are_others(part):
    shown = part.preprocess(part.collate(part.encode_many(records(["[Pt]", "[U]", "C"]))[0]))["nodes"]
    assert torch.equal(shown[0, : len(part.elements)], shown[1, : len(part.elements)])
    assert shown[0, 0] == 1
    assert shown[2, 0] == 0


def test_too_many_atoms():
    small = Molecule.fit(MoleculeConfig(min_count=1, max_atoms=5), records(SOME))
    with pytest.raises(RecordError, match="has 6 atoms"):
        small.encode({"smiles": "c1ccccc1"})


def test_no_molecule_at_all():
    with pytest.raises(UserError, match="no record of the training split has a molecule"):
        Molecule.fit(MoleculeConfig(), records(["red wine", "white wine"]))


def test_distances_are_those_of_rdkit(part):
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    prints = [generator.GetFingerprint(Chem.MolFromSmiles(one)) for one in SOME]
    asked = ["CCCO", "c1ccccc1N", "CCO"]
    tensors = part.preprocess(part.collate(part.encode_many(records(asked))[0]))
    for smiles, said in zip(asked, part.annotate(tensors), strict=True):
        mine = generator.GetFingerprint(Chem.MolFromSmiles(smiles))
        similar = DataStructs.BulkTanimotoSimilarity(mine, prints)
        assert said["applicability"]["distance"] == pytest.approx(1 - max(similar), abs=1e-4)
        best = Chem.MolToSmiles(Chem.MolFromSmiles(SOME[int(np.argmax(similar))]))
        assert said["applicability"]["nearest"][0] == best


def test_fingerprints_are_the_classical_features(part):
    tensors = part.preprocess(part.collate(part.encode_many(records(SOME))[0]))
    matrix = part.feature_map()(tensors, "example")
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    expected = np.stack([generator.GetFingerprintAsNumPy(Chem.MolFromSmiles(one)) for one in SOME])
    assert np.array_equal(matrix.numbers.numpy(), expected)


def test_a_report_shows_a_picture(part):
    import base64

    shown = part.show({"smiles": "CCO"})["picture"]
    assert shown.startswith("data:image/svg+xml;base64,")
    assert b"<svg" in base64.b64decode(shown.split(",")[1])
    assert part.show({"smiles": "oops"}) == {"values": {"smiles": "oops"}}


def test_scaffolds_stay_together_and_the_commonest_train(shared):
    from sonde.data.sources.table import Table, TableConfig

    esol = Table.read(shared / "esol" / "delaney-processed.csv", TableConfig()).part(0, 300)
    split = Split(by="scaffold", field="smiles")
    parts = assign(esol, split, label=None, seed=0)
    names = np.array([molecules.scaffold(one, "smiles") for one in esol.fields["smiles"]], dtype=object)
    held = [set(names[parts == part]) for part in ("train", "validation", "test")]
    assert not held[0] & held[1]
    assert not held[0] & held[2]
    assert not held[1] & held[2]
    assert (parts == assign(esol, split, label=None, seed=9)).all()
    assert "" in held[0]
    assert [int((parts == part).sum()) for part in ("train", "validation", "test")] == [240, 30, 30]
    assert "Bemis-Murcko" in split.function


def test_a_split_by_scaffold_of_no_molecules():
    with pytest.raises(UserError, match="needs molecules"):
        assign(records(["a wine", "b wine", "c wine"]), Split(by="scaffold", field="smiles"), label=None, seed=0)
