"""Graphs as records and nodes of one graph: what is encoded, what is told, how batches are laid out."""

import numpy as np
import pytest
import torch

from sonde.base.errors import RecordError, UserError
from sonde.base.graphs import Graph as Value
from sonde.base.graphs import from_mapping
from sonde.contracts.records import Records
from sonde.inputs.graph import Graph, GraphConfig
from sonde.inputs.nodes import Nodes, NodesConfig


def objects(values):
    field = np.empty(len(values), dtype=object)
    field[:] = values
    return field


def records(graphs):
    return Records(fields={"graph": objects(graphs)}, ids=[f"row {n + 1}" for n in range(len(graphs))])


WATER = {"nodes": ["O", "H", "H"], "edges": [[0, 1], [0, 2]]}
PAIR = {"nodes": ["N", "N"], "edges": [[0, 1]]}


def test_graphs_are_laid_end_to_end():
    part = Graph.fit(GraphConfig(), records([WATER, PAIR]))
    columns, errors = part.encode_many(records([PAIR, WATER]))
    assert not errors
    tensors = part.preprocess(part.collate(columns))
    assert tensors["length"].tolist() == [2, 3]
    # 0 is what training never showed; then H, N, O.
    assert tensors["nodes"].argmax(1).tolist() == [2, 2, 3, 1, 1]
    assert sorted(map(tuple, tensors["edges"].T.tolist())) == [(0, 1), (1, 0), (2, 3), (2, 4), (3, 2), (4, 2)]


def test_directed_edges_lead_one_way():
    part = Graph.fit(GraphConfig(directed=True), records([WATER, PAIR]))
    tensors = part.collate(part.encode_many(records([WATER]))[0])
    assert tensors["edges"].tolist() == [[0, 0], [1, 2]]


def test_the_ways_to_write_a_graph():
    one = from_mapping({"nodes": [{"mass": 1.5, "name": "a"}, {"name": "b", "mass": 2}], "edges": [[0, 1, 0.5]]})
    assert one.numbers.tolist() == [[1.5], [2.0]]
    assert one.categories.tolist() == [["a"], ["b"]]
    assert one.edge_numbers.tolist() == [[0.5]]
    two = from_mapping(
        {"num_nodes": [2], "edge_index": [[0, 1], [1, 0]], "node_feat": [[1], [2]], "edge_attr": [[3], [4]]}
    )
    assert two.edges.tolist() == [[0, 1], [1, 0]]
    assert two.edge_numbers.tolist() == [[3.0], [4.0]]
    assert str(one) != str(two)
    assert str(one) == str(
        from_mapping({"nodes": [{"mass": 1.5, "name": "a"}, {"mass": 2, "name": "b"}], "edges": [[0, 1, 0.5]]})
    )


@pytest.mark.parametrize(
    ("graph", "told"),
    [
        ({"nodes": ["O"], "edges": [[0, 1]]}, "an edge leads from 0 to 1, and there are 1 nodes"),
        ({"nodes": ["O", "H"], "edges": [[0, 0.5]]}, "an edge leads from 0 to 0.5"),
        ({"nodes": ["O", 1], "edges": []}, "hold 'O' and 1, which are not all numbers"),
        ({"nodes": [[1, 2], [1]], "edges": []}, "have 1 to 2 values each"),
        ({"nodes": ["O"], "edges": ["ab"]}, "no number"),
        ({"nodes": ["O", "H"], "edges": [[0, 1]], "edge_values": []}, "0 values for 1 edges"),
        ({"nodes": [1.0], "edges": []}, "1 numbers and 0 texts for a node"),
        ({"nodes": [], "edges": []}, "has 0 nodes"),
        ("C", "is 'C'"),
        (None, "is missing"),
    ],
)
def test_what_is_no_graph_is_told(graph, told):
    part = Graph.fit(GraphConfig(), records([WATER, PAIR]))
    with pytest.raises(RecordError) as error:
        part.encode({"graph": graph})
    assert told in str(error.value)


def test_graphs_of_which_nothing_is_said_have_degrees():
    bare = [{"num_nodes": 3, "edges": [[0, 1], [0, 2]]}, {"num_nodes": 1, "edges": []}]
    part = Graph.fit(GraphConfig(), records(bare))
    tensors = part.preprocess(part.collate(part.encode_many(records(bare))[0]))
    torch.testing.assert_close(tensors["nodes"][:, 1].exp(), torch.tensor([3.0, 2.0, 2.0, 1.0]))


def test_graphs_that_differ_in_what_they_say():
    with pytest.raises(UserError, match="differ in what they say"):
        Graph.fit(GraphConfig(), records([WATER, {"nodes": [1.0, 2.0], "edges": [[0, 1]]}]))


def citations(**changes):
    values = {
        "count": 4,
        "edges": np.array([[0, 1], [1, 2]]),
        "numbers": np.array([[1, 0], [0, 2], [3, 1], [0, 0]], dtype=np.float32),
        "names": ["a", "b", "c", "d"],
    }
    return Value(**{**values, **changes})


def nodes_of(graph, names=("a", "b")):
    return Records(
        fields={"node": objects(list(names)), "graph": objects([graph] * len(names))}, ids=[f"node {n}" for n in names]
    )


def test_a_batch_of_nodes_holds_the_whole_graph():
    part = Nodes.fit(NodesConfig(), nodes_of(citations()))
    assert part.scale == "row"
    columns, errors = part.encode_many(nodes_of(citations(), ["c", "a", "zz"]))
    assert list(errors) == [2]
    tensors = part.preprocess(part.collate(columns))
    assert tensors["at"].tolist() == [2, 0]
    assert tensors["edges"].shape == (2, 4)
    torch.testing.assert_close(tensors["nodes"].sum(1), torch.tensor([1.0, 1.0, 1.0, 0.0]))


def test_other_numbers_are_standardized_by_the_training_nodes():
    graph = citations(numbers=np.array([[1.5], [2.5], [100.0], [-7.0]], dtype=np.float32))
    part = Nodes.fit(NodesConfig(), nodes_of(graph))
    given = part.preprocess({"at": torch.tensor([0])})["nodes"]
    torch.testing.assert_close(given[:2], torch.tensor([[-1.0], [1.0]]))


def test_an_unknown_node_and_several_graphs():
    part = Nodes.fit(NodesConfig(), nodes_of(citations()))
    with pytest.raises(RecordError, match="has no node 'zz'"):
        part.encode({"node": "zz"})
    two = Records(
        fields={"node": objects(["a", "b"]), "graph": objects([citations(), citations()])}, ids=["node a", "node b"]
    )
    with pytest.raises(UserError, match="does not hold one graph for all records"):
        Nodes.fit(NodesConfig(), two)


def test_propagated_features_are_those_of_sgc():
    part = Nodes.fit(NodesConfig(scale="none"), nodes_of(citations()))
    tensors = part.preprocess({"at": torch.tensor([0, 1, 2, 3])})
    adjacency = torch.eye(4)
    adjacency[tensors["edges"][1], tensors["edges"][0]] = 1
    root = adjacency.sum(1).rsqrt()
    step = root[:, None] * adjacency * root
    expected = step @ step @ tensors["nodes"]
    torch.testing.assert_close(part.feature_map()(tensors, "example").numbers, expected)
