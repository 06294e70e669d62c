"""Every classical model answers as scikit-learn's own, from tensors alone, saved and restored."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sonde.base.errors import UserError
from sonde.classical import _sklearn, gradient_boosting, linear, random_forest, svm
from sonde.classical.constant import Constant, ConstantConfig
from sonde.classical.gradient_boosting import GradientBoosting, GradientBoostingConfig
from sonde.classical.linear import Linear, LinearConfig
from sonde.classical.random_forest import RandomForest, RandomForestConfig
from sonde.classical.svm import Svm, SvmConfig
from sonde.contracts.classical import Bag, Matrix, Problem, Unsuitable


def columns(count=240, seed=0, wide=5):
    """Numbers and two categorical columns, one of them with a value (0) that training never shows."""
    rng = np.random.default_rng(seed)
    categories = np.stack([rng.integers(1, 4, count), rng.integers(0, 6, count)], axis=1)
    return Matrix(
        numbers=torch.from_numpy(rng.normal(size=(count, wide)).astype(np.float32)),
        categories=torch.from_numpy(categories),
        sizes=(4, 6),
    )


def unseen(matrix):
    """The same with a category that training never showed in some rows."""
    categories = matrix.categories.clone()
    categories[::5, 0] = 0
    return Matrix(numbers=matrix.numbers, categories=categories, sizes=matrix.sizes)


def classes(matrix, count):
    score = matrix.numbers[:, 0] + (matrix.categories[:, 0] == 2) + 0.3 * matrix.numbers[:, 1]
    edges = torch.quantile(score, torch.linspace(0, 1, count + 1)[1:-1])
    return Problem(kind="classes", width=count, truth=torch.bucketize(score, edges))


def labels(matrix):
    truth = torch.stack([matrix.numbers[:, 0] > 0, matrix.numbers[:, 1] > 0.5, torch.zeros(len(matrix)) > 1], dim=1)
    return Problem(kind="labels", width=3, truth=truth.to(torch.uint8))


def numbers(matrix):
    truth = torch.stack([matrix.numbers[:, 0] ** 2, matrix.numbers[:, 1] - matrix.categories[:, 1]], dim=1)
    return Problem(kind="numbers", width=2, truth=truth)


def again(estimator):
    """Saved and restored."""
    return type(estimator)(estimator.config, {name: value.clone() for name, value in estimator.named_buffers()})


def close(answers, expected):
    assert answers.shape == expected.shape
    assert np.abs(answers.numpy() - expected).max() < 1e-6


@pytest.mark.parametrize("count", [2, 3])
def test_gradient_boosting_of_classes(count):
    matrix = columns()
    problem, config = classes(matrix, count), GradientBoostingConfig(max_trees=30, min_leaf=5)
    own = again(GradientBoosting.fit(config, matrix, problem, held_out=None, seed=0))
    rows = gradient_boosting.rows(matrix).numpy()
    theirs = gradient_boosting.train(config, rows, problem.truth.numpy(), None, problem, matrix.sizes, 0)
    other = unseen(columns(seed=1))
    close(own(other).softmax(1), theirs.predict_proba(gradient_boosting.rows(other).numpy()))


def test_gradient_boosting_of_numbers_and_labels():
    matrix, other, config = columns(), unseen(columns(seed=1)), GradientBoostingConfig(max_trees=30, min_leaf=5)
    rows, others = gradient_boosting.rows(matrix).numpy(), gradient_boosting.rows(other).numpy()
    for problem, method in ((numbers(matrix), "predict"), (labels(matrix), "predict_proba")):
        own = again(GradientBoosting.fit(config, matrix, problem, held_out=None, seed=0))(other)
        for place in range(2):
            truth = _sklearn.truths(problem)[:, place]
            theirs = gradient_boosting.train(config, rows, truth, None, problem, matrix.sizes, 0)
            expected = getattr(theirs, method)(others)
            if problem.kind == "labels":
                close(own[:, place].sigmoid(), expected[:, 1])
            else:
                assert np.abs(own[:, place].numpy() - expected).max() < 1e-5 * np.abs(expected).max()
    assert (own[:, 2].sigmoid() < 1e-6).all(), "a label that no training record has"


def test_gradient_boosting_stops_by_the_validation_split():
    matrix, held = columns(), columns(seed=2)
    problem = classes(matrix, 2)
    noise = Problem(kind="classes", width=2, truth=torch.arange(len(held)) % 2)
    config = GradientBoostingConfig(max_trees=200, patience=3)
    stopped = GradientBoosting.fit(config, matrix, problem, held_out=(held, noise), seed=0)
    assert len(stopped.forest.roots) < 20, "noise cannot be predicted: the first trees are already too many"


@pytest.mark.parametrize("count", [2, 4])
def test_random_forest_of_classes(count):
    matrix, other, config = columns(), unseen(columns(seed=1)), RandomForestConfig(trees=20)
    problem = classes(matrix, count)
    own = again(RandomForest.fit(config, matrix, problem, held_out=None, seed=3))
    theirs = random_forest.estimator(config, problem, 3).fit(random_forest.rows(matrix), problem.truth)
    close(own(other).softmax(1), theirs.predict_proba(random_forest.rows(other)))


def test_random_forest_of_labels_and_numbers():
    matrix, other, config = columns(), columns(seed=1), RandomForestConfig(trees=20)
    rows, others = random_forest.rows(matrix), random_forest.rows(other)
    problem = labels(matrix)
    own = again(RandomForest.fit(config, matrix, problem, held_out=None, seed=3))(other)
    theirs = random_forest.estimator(config, problem, 3).fit(rows, problem.truth).predict_proba(others)
    for place in range(2):
        close(own[:, place].sigmoid(), theirs[place][:, 1])
    assert (own[:, 2].sigmoid() < 1e-6).all()
    problem = numbers(matrix)
    own = again(RandomForest.fit(config, matrix, problem, held_out=None, seed=3))(other)
    expected = random_forest.estimator(config, problem, 3).fit(rows, problem.truth.double()).predict(others)
    assert np.abs(own.numpy() - expected).max() < 1e-5


@pytest.mark.parametrize(("count", "wide"), [(2, 5), (4, 5), (3, 120)])
def test_svm_of_classes(count, wide):
    matrix, other, config = columns(wide=wide), columns(seed=1, wide=wide), SvmConfig(C=2.0)
    problem = classes(matrix, count)
    own = again(Svm.fit(config, matrix, problem, held_out=None, seed=0))
    made = svm.prepare(matrix, 0)
    theirs = svm.train(config, svm.transform(matrix, **made).numpy(), problem)
    close(own(other).softmax(1), theirs.predict_proba(svm.transform(other, **made).numpy()))


def test_svm_of_numbers():
    from sklearn.svm import SVR

    matrix, other = columns(), columns(seed=1)
    problem = numbers(matrix)
    own = again(Svm.fit(SvmConfig(C=1.0), matrix, problem, held_out=None, seed=0))(other)
    made = svm.prepare(matrix, 0)
    rows, others = (svm.transform(each, **made).numpy() for each in (matrix, other))
    for place in range(2):
        close(own[:, place], SVR(C=1.0).fit(rows, _sklearn.truths(problem)[:, place]).predict(others))


def test_svm_says_when_a_class_is_too_rare():
    matrix = columns(20)
    truth = torch.zeros(20, dtype=torch.int64)
    truth[3] = 1
    with pytest.raises(Unsuitable, match="one training record"):
        Svm.fit(SvmConfig(), matrix, Problem(kind="classes", width=2, truth=truth), held_out=None, seed=0)


@pytest.mark.parametrize("count", [2, 3])
def test_linear_of_classes(count):
    matrix, other = columns(), columns(seed=1)
    problem, config = classes(matrix, count), LinearConfig(C=0.5)
    own = again(Linear.fit(config, matrix, problem, held_out=None, seed=0))
    mean, deviation = _sklearn.standard(matrix.dense())
    theirs = linear.logistic(config, sparse=False).fit((matrix.dense() - mean) / deviation, problem.truth)
    close(own(other).softmax(1), theirs.predict_proba((other.dense() - mean) / deviation))


def test_linear_of_a_bag_beside_numbers():
    """Sparse rows, one of them empty, and two numbers."""
    rng = np.random.default_rng(0)
    length = torch.from_numpy(rng.integers(1, 5, 60))
    length[7] = 0
    total = int(length.sum())
    bag = Bag(
        columns=torch.from_numpy(rng.integers(0, 30, total)),
        values=torch.from_numpy(rng.random(total)),
        length_B=length,
        width=30,
    )
    matrix = Matrix.of(torch.from_numpy(rng.normal(size=(60, 2)).astype(np.float32)), bag=bag)
    truth = torch.from_numpy(rng.integers(0, 3, 60))
    config = LinearConfig(C=1.0)
    own = again(Linear.fit(config, matrix, Problem(kind="classes", width=3, truth=truth), held_out=None, seed=0))
    mean, deviation = _sklearn.standard(matrix.dense())
    features = _sklearn.joined((matrix.dense() - mean) / deviation, bag)
    close(own(matrix).softmax(1), linear.logistic(config, sparse=True).fit(features, truth).predict_proba(features))
    rows = torch.tensor([7, 0, 59])
    assert torch.allclose(own(matrix.take(rows)), own(matrix)[rows], atol=1e-12)


def test_ridge():
    from sklearn.linear_model import Ridge

    matrix, other = columns(), columns(seed=1)
    problem = numbers(matrix)
    own = again(Linear.fit(LinearConfig(C=0.25), matrix, problem, held_out=None, seed=0))
    mean, deviation = _sklearn.standard(matrix.dense())
    theirs = Ridge(alpha=4.0).fit((matrix.dense() - mean) / deviation, problem.truth.double())
    close(own(other), theirs.predict((other.dense() - mean) / deviation))


def test_weights_of_rows_count():
    """A weight of 2 is a row that comes twice."""
    matrix = columns(80)
    twice = torch.cat([torch.arange(80), torch.arange(20)])
    weight = torch.ones(80, dtype=torch.float64)
    weight[:20] = 2
    problem = classes(matrix, 2)
    weighted = Problem(kind="classes", width=2, truth=problem.truth, weight_N=weight)
    scaled = _sklearn.standard(matrix.dense())
    rows = (matrix.dense() - scaled[0]) / scaled[1]
    one, _ = linear.train(LinearConfig(), rows.numpy(), weighted)
    two, _ = linear.train(LinearConfig(), rows[twice].numpy(), problem.take(twice))
    assert torch.allclose(one, two, atol=1e-3)


def test_a_class_that_the_sample_lacks_is_never_answered():
    matrix = columns()
    problem = classes(matrix, 3)
    fewer = torch.where(problem.truth == 1, 2, problem.truth)
    lacking = Problem(kind="classes", width=3, truth=fewer)
    for kind in (Linear, GradientBoosting, RandomForest, Svm):
        own = kind.fit(kind.trials(lacking, matrix)[0], matrix, lacking, held_out=None, seed=0)(matrix).softmax(1)
        assert own.shape == (len(matrix), 3)
        assert (own[:, 1] < 1e-6).all()


def test_constant_is_the_share_of_training():
    problem = Problem(kind="classes", width=3, truth=torch.tensor([0, 0, 0, 2]))
    own = Constant.fit(ConstantConfig(), columns(4), problem, held_out=None, seed=0)
    close(own(columns(2)).softmax(1), np.array([[0.75, 0.0, 0.25]] * 2))


def test_damaged_trees_are_refused():
    matrix = columns()
    own = RandomForest.fit(RandomForestConfig(trees=2), matrix, classes(matrix, 2), held_out=None, seed=0)
    held = dict(own.named_buffers())
    for name, place, value in (("left", 0, 10**6), ("roots", 1, -1), ("column", 0, -3)):
        broken = {each: tensor.clone() for each, tensor in held.items()}
        broken[name][place] = value
        with pytest.raises(UserError, match="trees are damaged"):
            RandomForest(own.config, broken)
    with pytest.raises(UserError, match="trees are damaged"):
        RandomForest(own.config, {name: value for name, value in held.items() if name != "value"})
