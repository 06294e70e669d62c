"""Features equal what the field computes: scikit-learn's TF-IDF, and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sonde.base import lookup
from sonde.base.errors import UserError
from sonde.classical import _sklearn
from sonde.contracts.feature_maps import Columns, Pixels, Pooled, Stretches, Tokens, feature_map
from sonde.contracts.input import Input
from sonde.contracts.layouts import LAYOUTS
from sonde.contracts.specs import InputSpec

SPEC = InputSpec(layout="tokens", vocabulary=12, size=(9,))


def texts(count, seed=0):
    rng = np.random.default_rng(seed)
    length = torch.from_numpy(rng.integers(1, 9, count))
    tokens = torch.from_numpy(rng.integers(1, 12, (count, 9)))
    return {"tokens": tokens.masked_fill(torch.arange(9) >= length[:, None], 0), "length": length}


@pytest.mark.parametrize("grams", [(1, 2), (2, 5)])
def test_tf_idf_is_that_of_scikit_learn(grams):
    from sklearn.feature_extraction.text import TfidfVectorizer

    train, test = texts(60), texts(20, seed=1)
    own = Tokens(SPEC, grams, "")
    halves = [{name: value[part] for name, value in train.items()} for part in (slice(0, 25), slice(25, None))]
    own.learn(iter(halves), "example")
    theirs = TfidfVectorizer(
        analyzer=lambda words: [
            tuple(words[at : at + size])
            for size in range(grams[0], grams[1] + 1)
            for at in range(len(words) - size + 1)
        ],
        sublinear_tf=True,
        min_df=2,
    )

    def plain(batch):
        return [row[:length].tolist() for row, length in zip(batch["tokens"], batch["length"], strict=True)]

    theirs.fit(plain(train))
    # Both sort by other keys: columns are matched by the n-gram.
    keys = {
        sum(token * 12 ** (len(gram) - 1 - at) for at, token in enumerate(gram)) * grams[1] + len(gram) - 1: column
        for gram, column in theirs.vocabulary_.items()
    }
    order = [keys[key] for key in own.keys.tolist()]
    assert len(order) == len(keys)
    restored = Tokens(SPEC, grams, "")
    restored.restore(own.state_dict())
    found = _sklearn.sparse(restored(test, "example").bag).toarray()
    assert np.abs(found - theirs.transform(plain(test)).toarray()[:, order]).max() < 1e-6


def test_n_grams_that_training_never_showed_are_nothing():
    own = Tokens(SPEC, (1, 1), "")
    own.learn(iter([{"tokens": torch.tensor([[3, 4], [3, 4]]), "length": torch.tensor([2, 2])}]), "example")
    bag = own({"tokens": torch.tensor([[9, 8], [3, 9]]), "length": torch.tensor([2, 2])}, "example").bag
    assert bag.length_B.tolist() == [0, 1]
    assert bag.values.tolist() == [1.0]


def test_damaged_n_grams_are_refused():
    own = Tokens(SPEC, (1, 2), "")
    own.learn(iter([texts(30)]), "example")
    held = own.state_dict()
    for broken in ({}, {**held, "keys": held["keys"].flip(0)}, {**held, "idf": held["idf"][1:]}):
        with pytest.raises(UserError, match="n-grams are damaged"):
            Tokens(SPEC, (1, 2), "").restore(broken)


def test_stretches_of_sounds_of_any_length():
    length = torch.tensor([40, 7, 1, 23])
    frames = torch.randn(4, 40, 3, generator=torch.Generator().manual_seed(0))
    found = Stretches()({"frames": frames, "length": length}, "example").numbers
    assert found.shape == (4, 10 * 2 * 3)
    for row in (0, 3):
        size = int(length[row])
        for stretch in range(10):
            part = frames[row, size * stretch // 10 : size * (stretch + 1) // 10].double()
            wanted = torch.cat([part.mean(0), part.std(0, correction=0)]).float()
            assert torch.allclose(found[row].view(10, 6)[stretch], wanted, atol=1e-5)
    # Beyond the length nothing is seen, and every example is as it is alone.
    alone = Stretches()({"frames": frames[1:2, :7], "length": length[1:2]}, "example").numbers
    assert torch.allclose(found[1], alone[0], atol=1e-5)
    assert torch.isfinite(found).all()


def test_large_pictures_are_averaged():
    grid = torch.arange(64.0 * 64).reshape(1, 1, 64, 64)
    found = Pixels()({"grid": grid}, "example").numbers
    assert found.shape == (1, 1024)
    assert found[0, 0] == grid[0, 0, :2, :2].mean()
    assert Pixels()({"grid": grid[:, :, :8, :8]}, "example").numbers.shape == (1, 64)


def test_graphs_are_pooled():
    tensors = {"nodes": torch.tensor([[1.0], [5.0], [-2.0]]), "length": torch.tensor([2, 0, 1])}
    found = Pooled()(tensors, "example").numbers
    assert found.tolist() == [[6.0, 3.0, 5.0, 2.0], [0.0, 0.0, 0.0, 0.0], [-2.0, -2.0, -2.0, 1.0]]


def test_categories_become_columns():
    matrix = Columns((2, 3))({"numbers": torch.ones(2, 1), "categories": torch.tensor([[1, 2], [0, 0]])}, "example")
    assert matrix.dense().tolist() == [[1, 0, 1, 0, 0, 1], [1, 1, 0, 1, 0, 0]]
    assert matrix.num_columns == 6


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_has_features(layout):
    """One row for each example, the same alone as in a batch."""
    spec = LAYOUTS[layout].sample
    tensors = LAYOUTS[layout].random(spec, 5, torch.Generator().manual_seed(0))
    own = feature_map(spec)
    own.learn(iter([tensors]), "example")
    matrix = own(tensors, "example")
    alone = own(LAYOUTS[layout].alone(tensors, 3), "example")
    assert len(matrix) == 5
    assert own.about
    assert torch.allclose(matrix.dense()[3], alone.dense()[0], atol=1e-5)
    if matrix.bag is not None:
        assert torch.allclose(matrix.take(torch.tensor([3])).bag.values, alone.bag.values)


@pytest.mark.parametrize("kind", lookup.kinds("inputs"))
def test_every_input_has_features(kind):
    part = lookup.find("inputs", kind, Input)
    try:
        config, records = part.sample(12, np.random.default_rng(0))
    except NotImplementedError:
        pytest.skip("it has no sample")
    fitted = part.fit(config, records)
    columns = fitted.make_windows(fitted.encode_many(records)[0])
    tensors = fitted.preprocess(fitted.collate(columns))
    own = fitted.feature_map()
    own.learn(iter([tensors]), "example")
    assert len(own(tensors, "example")) == len(next(iter(columns.values())))
