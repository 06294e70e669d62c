from __future__ import annotations

import pytest
import torch

from sonde.contracts.specs import InputSpec, OutputSpec
from sonde.networks.ngrams import Ngrams, NgramsConfig

SPEC = InputSpec(layout="tokens", vocabulary=20, size=(8,))
ASKED = OutputSpec(per=("example",), width=3)


def made(spec=SPEC, **settings):
    torch.manual_seed(0)
    return Ngrams(NgramsConfig(width=6, buckets=32, **settings), spec, ASKED).eval()


def batch(*rows):
    most = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (most - len(row)) for row in rows])
    return {"tokens": tokens, "length": torch.tensor([len(row) for row in rows])}


def test_it_is_tf_idf_times_a_matrix():
    network = made(longest=1)
    counts = torch.zeros(20)
    for token in [3, 5, 5, 7]:
        counts[token] += 1
    # Every occurrence is one element of the vector that is scaled to norm 1.
    weight = network.log_weight_V.exp()
    norm = (counts * weight.square()).sum().sqrt()
    expected = (counts * weight / norm) @ network.vectors.weight
    assert torch.allclose(network(batch([3, 5, 5, 7]))[0], expected, atol=1e-6)


@pytest.mark.parametrize("longest", [1, 2, 3])
def test_padding_counts_nothing(longest):
    network = made(longest=longest)
    together = network(batch([4, 5, 6], [7], [1, 2, 3, 4, 5, 6, 7, 8]))
    for row, tokens in zip(together, ([4, 5, 6], [7], [1, 2, 3, 4, 5, 6, 7, 8]), strict=True):
        assert torch.allclose(row, network(batch(tokens))[0], atol=1e-6)


def test_order_matters_to_pairs_only():
    one, other = batch([4, 5, 6]), batch([6, 5, 4])
    assert torch.allclose(made(longest=1)(one), made(longest=1)(other), atol=1e-6)
    assert not torch.allclose(made(longest=2)(one), made(longest=2)(other), atol=1e-2)


def test_frequent_tokens_weigh_less_at_first():
    weight = made().log_weight_V[:20].exp()
    assert bool((weight[1:] >= weight[:-1]).all())
    assert 0.9 < float(weight[-1].detach()) < 1


def test_dropout_leaves_out_whole_tokens_and_never_breaks():
    network = made(dropout=0.9).train()
    out = network(batch([4], [5, 6]))
    assert torch.isfinite(out).all()
    out.sum().backward()
    assert all(torch.isfinite(each.grad).all() for each in network.parameters())


def test_parts_of_words_are_summed_too():
    spec = InputSpec(layout="tokens", vocabulary=20, subwords=9, size=(8,))
    network = made(spec, longest=2)
    tensors = batch([4, 5])
    parts = torch.tensor([[[1, 2], [8, 0]]])
    assert not torch.allclose(
        network({**tensors, "subwords": parts}), network({**tensors, "subwords": torch.zeros_like(parts)}), atol=1e-3
    )
