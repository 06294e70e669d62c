"""Sources of graphs: what they read, and what they tell of files that are wrong."""

import gzip
import json

import numpy as np
import pytest

from sonde.base.errors import UserError
from sonde.data.source import Source
from sonde.data.sources.json_graphs import JSONGraphs, JSONGraphsConfig
from sonde.data.sources.node_graph import NodeGraph, NodeGraphConfig
from sonde.data.sources.ogb_graphs import OGBGraphs, OGBGraphsConfig
from sonde.data.sources.table import Table
from sonde.data.sources.tu_graphs import TUGraphs, TUGraphsConfig


def write(folder, **files):
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return folder


def test_tu_edges_are_taken_once(tmp_path):
    path = TUGraphs.sample(tmp_path)
    records = TUGraphs.read(path, TUGraphsConfig())
    graph = records.fields["graph"][1]
    assert (graph.count, graph.edges.tolist(), graph.categories.tolist()) == (3, [[0, 1], [1, 2]], [["1"]] * 3)
    assert records.fields["label"].tolist() == [0, 1] * 6


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("TOY_A.txt", "1, 2\n2, 4\n", r"TOY_A.txt line 2 joins nodes of two graphs"),
        ("TOY_A.txt", "1, 2\n2, 99\n", r"line 2 names a node that is not there"),
        ("TOY_A.txt", "1, 2\none, 2\n", r"line 2: 'one, 2' holds no numbers"),
        ("TOY_A.txt", "1, 2\n1\n", r"line 2 has 1 numbers"),
        ("TOY_graph_labels.txt", "1\n", r"has 1 lines.*Expected 12, one a graph"),
        ("TOY_node_labels.txt", "1\n2\n", r"has 2 lines"),
        ("TOY_graph_labels.txt", "0.5\n" * 12, r"line 1 is no whole number"),
    ],
)
def test_tu_files_that_are_wrong(tmp_path, name, text, told):
    path = TUGraphs.sample(tmp_path)
    (path / name).write_text(text)
    with pytest.raises(UserError, match=told):
        TUGraphs.read(path, TUGraphsConfig())


def test_ogb_tables_packed_and_with_a_split(tmp_path):
    path = OGBGraphs.sample(tmp_path)
    for file in list((path / "raw").iterdir()):
        (path / "raw" / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    folder = path / "split" / "scaffold"
    folder.mkdir(parents=True)
    write(folder, train__csv="0\n1\n2\n3\n4\n5\n", valid__csv="6\n7\n", test__csv="8\n9\n10\n")
    records = OGBGraphs.read(path, OGBGraphsConfig())
    assert records.fields["split"].tolist() == ["train"] * 6 + ["validation"] * 2 + ["test"] * 3 + ["none"]
    assert records.fields["graph"][3].edges.tolist() == [[0, 1], [1, 2]]
    assert OGBGraphs.guess(path, None).data["split"] == {"by": "given"}


def test_ogb_tables_that_are_wrong(tmp_path):
    path = OGBGraphs.sample(tmp_path)
    (path / "raw" / "num-edge-list.csv").write_text("1\n" * 12)
    with pytest.raises(UserError, match="24 edges; num-edge-list says 12"):
        OGBGraphs.read(path, OGBGraphsConfig())
    (path / "raw" / "num-edge-list.csv").write_text("2\n" * 12)
    (path / "raw" / "edge.csv").write_text("0,1\n1,7\n" * 12)
    with pytest.raises(UserError, match="line 2 names a node that its graph of 3 nodes does not have"):
        OGBGraphs.read(path, OGBGraphsConfig())


def test_json_graphs_that_are_wrong_stay_to_be_told(tmp_path):
    rows = [
        {"graph": {"nodes": ["C", "O"], "edges": [[0, 1]]}, "y": 1.5},
        {"graph": {"nodes": ["C"], "edges": [[0, 9]]}, "y": 2},
    ]
    path = tmp_path / "graphs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert JSONGraphs.recognise(path)
    records = JSONGraphs.read(path, JSONGraphsConfig())
    assert records.fields["graph"][0].count == 2
    assert records.fields["graph"][1] == rows[1]["graph"]
    assert JSONGraphs.guess(path, None).target == {"kind": "number", "field": "y"}


def test_an_array_file_of_pytorch_geometric(tmp_path):
    path = tmp_path / "graph.npz"
    masks = {name: np.arange(6) % 3 == place for place, name in enumerate(("train_mask", "val_mask", "test_mask"))}
    edges = np.array([[0, 1, 1, 2], [1, 0, 2, 1]])
    np.savez(path, x=np.eye(6, dtype=np.float32), edge_index=edges, y=np.arange(6) % 2, **masks)
    assert NodeGraph.recognise(path)
    records = NodeGraph.read(path, NodeGraphConfig())
    assert records.fields["graph"][0].edges.tolist() == [[0, 1], [1, 2]]
    assert records.fields["split"].tolist() == ["train", "validation", "test"] * 2
    assert NodeGraph.guess(path, None).target == {"kind": "category", "field": "label"}


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"edges__csv": "src,dst\np0,p77\n"}, "row 1: dst is 'p77', and there is no such node"),
        ({"edges__csv": "src,dst,w\np0,p1,0.5\np1,p2,x\n"}, "row 2: w is no finite number"),
        ({"nodes__csv": "node,label\np0,a\np0,b\n", "edges__csv": "src,dst\np0,p0\n"}, "has the node 'p0' twice"),
    ],
)
def test_node_files_that_are_wrong(tmp_path, files, told):
    path = write(NodeGraph.sample(tmp_path), **files)
    with pytest.raises(UserError, match=told):
        NodeGraph.read(path, NodeGraphConfig())


def test_features_with_other_rows_and_pickles(tmp_path):
    path = NodeGraph.sample(tmp_path)
    np.savez(path / "features.npz", x=np.zeros((5, 2)))
    with pytest.raises(UserError, match="5 rows for 12 nodes"):
        NodeGraph.read(path, NodeGraphConfig())
    np.savez(path / "features.npz", x=np.array([{}], dtype=object))
    with pytest.raises(UserError, match=r"not a readable \.npz"):
        NodeGraph.read(path, NodeGraphConfig())


def test_cora(shared):
    guess = NodeGraph.guess(shared / "cora", None)
    assert guess.about == "one graph of 2,708 nodes and 5,278 edges, 1,433 numbers a node"
    assert guess.data["split"] == {"by": "given"}
    assert guess.target == {"kind": "category", "field": "label"}
    graph = NodeGraph.read(shared / "cora", NodeGraphConfig()).fields["graph"][0]
    assert int((graph.numbers > 0).sum()) == 49216


def test_esol_is_known_by_its_molecules(shared):
    guess = Table.guess(shared / "esol", None)
    assert dict(guess.inputs) == {"molecule": {"kind": "molecule", "field": "smiles"}}
    assert guess.target["field"] == "measured log solubility in mols per litre"


@pytest.mark.parametrize(
    ("texts", "kind"),
    [(["CO", "NC", "OH", "CA"], "table"), (["CCO", "c1ccccc1", "CC(=O)O", "C#N"], "molecule")],
)
def test_states_are_no_molecules(tmp_path, texts, kind):
    path = tmp_path / "rows.csv"
    rows = [f"{texts[row % 4]},{row / 7:.3f}" for row in range(40)]
    path.write_text("\n".join(["where,value", *rows]))
    assert [each["kind"] for each in Table.guess(path, None).inputs.values()] == [kind]


def test_what_differs_for_one_molecule_is_a_feature(tmp_path):
    path = tmp_path / "rows.csv"
    molecules = ["CCO", "c1ccccc1", "CC(=O)O", "C#N"]
    rows = [f"{molecules[row % 4]},{20 + row // 4},{len(molecules[row % 4])},{row / 7:.3f}" for row in range(40)]
    path.write_text("\n".join(["smiles,temperature,letters,value", *rows]))
    inputs = Table.guess(path, "value").inputs
    assert inputs["table"]["fields"] == ["temperature"]


def test_every_source_of_graphs_reads_what_is_to_be_answered(tmp_path):
    for number, (kind, config) in enumerate(
        ((TUGraphs, TUGraphsConfig()), (OGBGraphs, OGBGraphsConfig()), (JSONGraphs, JSONGraphsConfig()))
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert issubclass(kind, Source)
        records = kind.inputs(kind.sample(folder), config, ["graph"])
        assert records is not None
        assert len(records) == 12
