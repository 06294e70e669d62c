"""The graph network: layers equal to their formulas, order of nodes and edges, batches, determinism."""

import pytest
import torch
from torch import nn

from sonde.base.errors import UserError
from sonde.contracts.layouts import LAYOUTS
from sonde.contracts.specs import InputSpec, OutputSpec
from sonde.networks.graph.layers import GCN, GIN, Attention, GATv2, random_walks
from sonde.networks.graph.network import Graph, GraphConfig
from sonde.networks.graph.segments import Edges, Segments, _Pick, _Spread

SPEC = InputSpec(layout="graph", channels=5, size=(8,), edge_channels=3)
LAYERS = ("gcn", "gin", "gatv2", "transformer")


def tensors(count: int = 4, seed: int = 0, spec: InputSpec = SPEC):
    return LAYOUTS["graph"].random(spec, count, torch.Generator().manual_seed(seed))


def network(layer: str, spec: InputSpec = SPEC, per: str = "example", **settings) -> Graph:
    torch.manual_seed(0)
    config = GraphConfig.model_validate({"layer": layer, "width": 8, "layers": 3, "heads": 2, **settings})
    return Graph(config, spec, OutputSpec(per=(per,), width=2))


def edges_of(given, *, values: bool) -> Edges:
    return Edges.of(given["edges"], given["edge_values"] if values else None, len(given["nodes"]))


def adjacency_of(given) -> torch.Tensor:
    """Row: the node that an edge leads to."""
    count = len(given["nodes"])
    ones = torch.ones(given["edges"].shape[1])
    return torch.zeros(count, count).index_put_((given["edges"][1], given["edges"][0]), ones, accumulate=True)


def test_gcn_is_the_formula_of_its_paper():
    """D^-1/2 (A + I) D^-1/2 X W + b. (PyTorch Geometric's layers gave the same, see docs/log.md.)"""
    given = tensors()
    mine = GCN(5, 8, 0)
    mine.bias.data.normal_()
    looped = adjacency_of(given) + torch.eye(len(given["nodes"]))
    root = looped.sum(1).rsqrt()
    expected = (root[:, None] * looped * root) @ mine.linear(given["nodes"]) + mine.bias
    torch.testing.assert_close(mine(given["nodes"], edges_of(given, values=False)), expected)


@pytest.mark.parametrize("values", [False, True])
def test_gin_is_the_formula_of_its_paper(values):
    """MLP((1 + eps) x + sum of neighbours), and with values of edges of relu(x + e)."""
    given = tensors()
    mine = GIN(5, 8, 3 if values else 0, batch_norm=True)
    mine.epsilon.data.fill_(0.3)
    if values:
        messages = torch.relu(given["nodes"][given["edges"][0]] + mine.edge(given["edge_values"]))
        rows = [messages[given["edges"][1] == node].sum(0) for node in range(len(given["nodes"]))]
        summed = torch.stack(rows)
    else:
        summed = adjacency_of(given) @ given["nodes"]
    expected = mine.mlp(1.3 * given["nodes"] + summed)
    torch.testing.assert_close(mine(given["nodes"], edges_of(given, values=values)), expected)


@pytest.mark.parametrize("values", [False, True])
def test_gatv2_is_the_formula_of_its_paper(values):
    """Node by node: softmax of a . leaky_relu(W_s x_j + W_t x_i (+ W_e e)) over neighbours and itself."""
    given = tensors()
    mine = GATv2(5, 8, 3 if values else 0, heads=2, dropout=0.0)
    mine.bias.data.normal_()
    nodes, (sources, targets) = given["nodes"], given["edges"]
    rows = []
    for node in range(len(nodes)):
        into = targets == node
        near = torch.cat([sources[into], torch.tensor([node])])
        raised = mine.source(nodes[near]) + mine.target(nodes[node])
        if values:
            own = given["edge_values"][into]
            raised = raised + mine.edge(torch.cat([own, own.mean(0, keepdim=True)]))
        scores = (torch.nn.functional.leaky_relu(raised, 0.2).view(-1, 2, 4) * mine.score).sum(2).softmax(0)
        rows.append((mine.source(nodes[near]).view(-1, 2, 4) * scores[:, :, None]).sum(0).flatten() + mine.bias)
    found = mine(nodes, edges_of(given, values=values).with_loops())
    torch.testing.assert_close(found, torch.stack(rows), rtol=1e-4, atol=1e-5)


def test_attention_is_that_of_torch():
    given = tensors(3)
    mine = Attention(8, heads=2, dropout=0.0)
    other = nn.MultiheadAttention(8, 2, batch_first=True)
    other.in_proj_weight.data, other.in_proj_bias.data = mine.qkv.weight.data, mine.qkv.bias.data
    other.out_proj.weight.data, other.out_proj.bias.data = mine.out.weight.data, mine.out.bias.data
    values = torch.randn(len(given["nodes"]), 8)
    found = mine(values, Segments.of(given["length"], len(values)))
    expected = [other(part[None], part[None], part[None])[0][0] for part in values.split(given["length"].tolist())]
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-4, atol=1e-5)


def test_random_walks_are_powers_of_the_walk_matrix():
    given = tensors(3)
    found = random_walks(
        edges_of(given, values=False), Segments.of(given["length"], len(given["nodes"])), 4, torch.float32
    )
    adjacency = adjacency_of(given)
    step = adjacency / adjacency.sum(1, keepdim=True)
    expected = [torch.linalg.matrix_power(step, power).diagonal() for power in range(1, 5)]
    torch.testing.assert_close(found, torch.stack(expected, 1))


@pytest.mark.parametrize("layer", LAYERS)
def test_the_order_of_nodes_and_edges_says_nothing(layer):
    given = tensors(1, seed=3)
    nodes, edges = len(given["nodes"]), given["edges"].shape[1]
    place, order = torch.randperm(nodes), torch.randperm(edges)
    inverse = place.argsort()
    moved = {
        "nodes": given["nodes"][place],
        "edges": inverse[given["edges"]][:, order],
        "edge_values": given["edge_values"][order],
        "length": given["length"],
    }
    for per in ("example", "node"):
        model = network(layer, per=per, virtual_node=True, positions=3, pool="all").eval()
        expected = model(given) if per == "example" else model(given)[place]
        torch.testing.assert_close(model(moved), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_graph_alone_is_that_graph_in_a_batch_and_twice_is_the_same_bits(layer):
    given = tensors(4)
    model = network(layer, virtual_node=True, positions=3).eval()
    together = model(given)
    for index in range(4):
        alone = model(LAYOUTS["graph"].alone(given, index))
        torch.testing.assert_close(alone[0], together[index], rtol=1e-4, atol=1e-5)
    grads = []
    for _ in range(2):
        model.zero_grad()
        model(given).square().sum().backward()
        grads.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))


@pytest.mark.parametrize("layer", LAYERS)
def test_single_atoms_and_graphs_without_edges(layer):
    given = {
        "nodes": torch.randn(3, 5),
        "edges": torch.empty(2, 0, dtype=torch.int64),
        "edge_values": torch.empty(0, 3),
        "length": torch.tensor([1, 2]),
    }
    model = network(layer, positions=2).eval()
    assert torch.isfinite(model(given)).all()
    model(given).sum().backward()


def test_nodes_of_one_graph_are_picked():
    spec = InputSpec(layout="graph", channels=5, size=(8,), node_examples=True)
    given = tensors(1, spec=InputSpec(layout="graph", channels=5, size=(8,)))
    model = network("gcn", spec).eval()
    found = model({**given, "at": torch.tensor([2, 0, 2])})
    assert torch.equal(found[0], found[2])
    every = network("gcn", spec, per="node").eval()(given)
    torch.testing.assert_close(found, every[torch.tensor([2, 0, 2])])


def test_sums_of_an_accelerator_have_the_same_gradient():
    """The paths that a CPU does not take: sorted segment reductions, forward and backward."""
    owner, count = torch.tensor([0, 0, 2, 2, 2]), torch.tensor([2, 0, 3])
    values = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda each: _Spread.apply(each, owner, count), values)
    chosen = torch.tensor([2, 0, 0, 1, 2])
    order = chosen.argsort(stable=True)
    assert torch.autograd.gradcheck(lambda each: _Pick.apply(each, chosen, order, torch.bincount(chosen)), values)
    rows = torch.randn(5, 4)
    reduced = torch.segment_reduce(rows, "sum", lengths=count, axis=0, unsafe=True, initial=0)
    torch.testing.assert_close(Segments(owner=owner, count=count).sum(rows), reduced)


def test_what_cannot_be():
    with pytest.raises(ValueError, match="no multiple of heads"):
        GraphConfig(layer="gatv2", width=10, heads=4)
    with pytest.raises(UserError, match=r"square of a graph.*5,000 nodes"):
        network("transformer", InputSpec(layout="graph", channels=5, size=(5000,)))


@pytest.mark.parametrize("settings", [{"project": False, "residual": False}, {}])
@pytest.mark.parametrize("layer", ["gcn", "gatv2"])
def test_sparse_nodes_are_the_same_as_dense_ones(layer, settings):
    given = tensors()
    given["nodes"] = given["nodes"].relu()
    entries = given["nodes"].nonzero()
    sparse = {**given, "entries": entries.T, "entry_values": given["nodes"][entries[:, 0], entries[:, 1]]}
    model = network(layer, **settings).eval()
    torch.testing.assert_close(model(sparse), model(given))
    dropped = network(layer, input_dropout=0.5, **settings).train()
    dropped(sparse).square().sum().backward()
    assert all(parameter.grad is not None for parameter in dropped.parameters())
