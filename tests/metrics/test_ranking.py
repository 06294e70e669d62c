"""Scores of an order against scikit-learn (weighted, resampled, with ties), and retrieval against a slow loop."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import sklearn.metrics as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_rows import each, weights

from sonde import metrics
from sonde.metrics import Similarity, ranking


@pytest.mark.parametrize("decimals", [1, 8])
def test_roc_auc_and_average_precision(decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    positive = rng.random(90) < 0.3
    scores = np.round(rng.random(90) + positive * 0.3, decimals)
    rows = weights(rng, 90)
    for mine, theirs in (
        (metrics.roc_auc, oracle.roc_auc_score),
        (metrics.average_precision, oracle.average_precision_score),
    ):
        wanted = each(rows, lambda at, w, theirs=theirs: theirs(positive[at], scores[at], sample_weight=w))
        np.testing.assert_allclose(mine(scores, positive, rows), wanted, rtol=1e-12)


def test_roc_auc_macro_is_one_against_the_rest() -> None:
    rng = np.random.default_rng(5)
    true_N = rng.integers(0, 4, 100)
    scores = rng.random((100, 4)).round(2) + (true_N[:, None] == np.arange(4)) * 0.2 + 0.01
    probabilities = scores / scores.sum(1, keepdims=True)
    rows = weights(rng, 100)
    positive = true_N[:, None] == np.arange(4)
    wanted = each(
        rows, lambda at, w: oracle.roc_auc_score(true_N[at], probabilities[at], multi_class="ovr", sample_weight=w)
    )
    np.testing.assert_allclose(metrics.roc_auc_macro(probabilities, positive, rows), wanted, rtol=1e-12)


def test_what_a_row_leaves_undefined_is_nan_without_a_warning() -> None:
    true_N, scores_N = np.array([0, 0, 1]), np.array([0.1, 0.4, 0.8])
    rows = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
    np.testing.assert_array_equal(metrics.roc_auc(scores_N, true_N == 1, rows), [np.nan, np.nan, 1.0])
    np.testing.assert_array_equal(metrics.average_precision(scores_N, true_N == 1, rows), [np.nan, np.nan, 1.0])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=12))
def test_a_count_is_a_repetition(rows: list[tuple[int, int, int]]) -> None:
    true_N, predicted_N, times = (np.array(column) for column in zip(*rows, strict=True))
    scores = true_N + predicted_N
    found = metrics.roc_auc(scores, true_N == 1, times[None].astype(np.float64))
    repeated = metrics.roc_auc(np.repeat(scores, times), np.repeat(true_N, times) == 1, np.ones((1, int(times.sum()))))
    np.testing.assert_allclose(found, repeated)


def slow_retrieval(embeddings: np.ndarray, codes: np.ndarray, ks: tuple[int, ...], similarity: str) -> list[dict]:
    """As it is written down: one query at a time, all others sorted."""
    answers = []
    for query, code in enumerate(codes):
        far = []
        for other in range(len(codes)):
            a, b = embeddings[query].astype(float), embeddings[other].astype(float)
            size = np.linalg.norm(a) * np.linalg.norm(b) or 1.0
            far.append(-(a @ b) / size if similarity == "cosine" else np.linalg.norm(a - b))
        order = [other for other in np.argsort(np.round(far, 9), kind="stable") if other != query]
        hits = [codes[other] == code for other in order]
        relevant = sum(hits)
        if not relevant:
            answers.append(dict.fromkeys([*(f"recall_at_{k}" for k in ks), "map_at_r", "r_precision"], np.nan))
            continue
        answer = {f"recall_at_{k}": float(any(hits[:k])) for k in ks}
        answer["r_precision"] = sum(hits[:relevant]) / relevant
        answer["map_at_r"] = sum(sum(hits[: i + 1]) / (i + 1) for i in range(relevant) if hits[i]) / relevant
        answers.append(answer)
    return answers


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
@pytest.mark.parametrize("kind", ["real", "grid", "far from zero", "one code", "all the same"])
def test_retrieval_is_that_of_a_slow_loop(kind: str, similarity: Similarity, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    codes = rng.choice(12, 90, p=rng.dirichlet(np.full(12, 0.7)))
    codes[40] = 99
    embeddings = rng.normal(size=(90, 5)).astype(np.float32) + codes[:, None] % 5 * 0.3
    if kind == "grid":  # many ties, and some zeros
        embeddings = rng.integers(-1, 2, (90, 3)).astype(np.float32)
    elif kind == "far from zero":
        embeddings = embeddings.astype(np.float64) + 100
    elif kind == "one code":
        codes[:] = 7
    elif kind == "all the same":
        embeddings[:] = rng.normal(size=5)
    monkeypatch.setattr(ranking, "BLOCK_NUMBERS", 90 * 13)  # blocks of 13 queries
    ks = (1, 5, 10, 1000)
    found = metrics.retrieval(embeddings, codes, ks, similarity)
    wanted = slow_retrieval(embeddings, codes, ks, similarity)
    assert list(found) == ["recall_at_1", "recall_at_5", "recall_at_10", "recall_at_1000", "map_at_r", "r_precision"]
    for name, values in found.items():
        np.testing.assert_allclose(values, [answer[name] for answer in wanted], rtol=1e-12, err_msg=name)


def test_retrieval_made_by_hand() -> None:
    places = np.array([[0.0], [1.0], [3.0], [7.0], [7.5]])
    found = metrics.retrieval(places, np.array(["a", "b", "a", "a", "c"]), (1, 2), "euclidean")
    # From 0: 1 b, 3 a, 7 a, 7.5 c. From 3: 1 b, 0 a, 7 a, 7.5 c. From 7: 7.5 c, 3 a, 1 b, 0 a. Two others of code a.
    np.testing.assert_array_equal(found["recall_at_1"], [0, np.nan, 0, 0, np.nan])
    np.testing.assert_array_equal(found["recall_at_2"], [1, np.nan, 1, 1, np.nan])
    np.testing.assert_array_equal(found["r_precision"], [0.5, np.nan, 0.5, 0.5, np.nan])
    np.testing.assert_array_equal(found["map_at_r"], [0.25, np.nan, 0.25, 0.25, np.nan])
    # Of the two nearest the first is right, or the second, or both, or none.
    for hits, map_at_r in (("ab", 0.5), ("ba", 0.25), ("aa", 1.0), ("bb", 0.0)):
        codes = np.array(["a", *hits, *"a" * (2 - hits.count("a"))])
        query = metrics.retrieval(np.arange(float(len(codes)))[:, None], codes, (), "euclidean")
        assert query["map_at_r"][0] == map_at_r
        assert query["r_precision"][0] == hits.count("a") / 2


def test_ties_go_to_the_lower_index_and_copies_tie() -> None:
    # 1000 copies at an awkward place: were they told apart by the order of additions, the first would not be the first.
    rng = np.random.default_rng(2)
    embeddings = np.repeat(rng.normal(size=(1, 77)).astype(np.float32), 1001, axis=0)
    codes = np.zeros(1001, int)
    codes[1:1000] = np.arange(1, 1000)
    found = metrics.retrieval(embeddings, codes, (1, 999, 1000))
    for name, last in (("recall_at_1", 1.0), ("recall_at_999", 1.0), ("recall_at_1000", 1.0)):
        assert found[name][-1] == last
    np.testing.assert_array_equal([found[f"recall_at_{k}"][0] for k in (1, 999, 1000)], [0.0, 0.0, 1.0])


def test_retrieval_without_meaning_is_nan() -> None:
    embeddings = np.ones((4, 2))
    assert np.isnan(metrics.retrieval(embeddings, np.arange(4))["recall_at_1"]).all()
    assert np.isnan(metrics.retrieval(embeddings[:1], np.arange(1))["map_at_r"]).all()
    assert metrics.retrieval(embeddings[:0], np.arange(0))["map_at_r"].shape == (0,)
    embeddings[2, 1] = np.inf
    assert np.isnan(metrics.retrieval(embeddings, np.zeros(4))["r_precision"]).all()
    with pytest.raises(ValueError, match="unknown similarity 'dot': expected cosine or euclidean"):
        metrics.retrieval(embeddings, np.zeros(4), similarity="dot")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the 0 nearest"):
        metrics.retrieval(embeddings, np.zeros(4), (0, 1))


def few_shot_data(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings that tell six classes apart now and then; classes of 1, 2, 3 and more records, out of order."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat([3, 14, 15, 92, 65, 35], [1, 2, 3, 9, 12, 20]))
    return rng.normal(size=(len(codes), 4)) + codes[:, None] % 7 * 0.3, codes


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
@pytest.mark.parametrize(("ways", "shots"), [(2, 1), (4, 2), (3, 5)])
def test_few_shot_is_that_of_a_slow_loop(
    ways: int, shots: int, similarity: Similarity, monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings, codes = few_shot_data(ways)
    if similarity == "cosine":
        embeddings[5] = 0
    monkeypatch.setattr(ranking, "BLOCK_NUMBERS", ways * 4 * 9)  # blocks of 9 queries
    found = metrics.few_shot(embeddings, codes, ways=ways, shots=shots, episodes=7, seed=5, similarity=similarity)
    rng = np.random.default_rng(5)
    right = {query: [] for query in range(len(codes)) if (codes == codes[query]).sum() > shots}
    size = np.linalg.norm(embeddings, axis=1, keepdims=True)
    scaled = embeddings / np.where(size > 0, size, 1) if similarity == "cosine" else embeddings
    for _ in range(7):
        queries, supports = metrics.draw_supports(codes, ways=ways, shots=shots, rng=rng)
        assert list(queries) == list(right)
        for query, support in zip(queries, supports, strict=True):
            close = []
            for records in support:
                prototype = sum(scaled[record] for record in records) / shots
                if similarity == "cosine":
                    close.append(scaled[query] @ prototype / (np.linalg.norm(prototype) or 1))
                else:
                    close.append(-np.linalg.norm(scaled[query] - prototype))
            best = np.round(close, 9) == np.round(max(close), 9)
            right[query].append(best[0] / best.sum())
    wanted = [np.mean(right[query]) if query in right else np.nan for query in range(len(codes))]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    assert 0 < np.nanmean(found) < 1


def test_what_an_episode_draws() -> None:
    _, codes = few_shot_data(0)
    rng = np.random.default_rng(0)
    shots = 2
    seen_classes, seen_shots = [], []
    for _ in range(400):
        queries, supports = metrics.draw_supports(codes, ways=3, shots=shots, rng=rng)
        classes = codes[supports]
        assert supports.shape == (len(queries), 3, 2)
        assert (classes == classes[:, :, :1]).all()  # a way is one class
        assert (classes[:, 0, 0] == codes[queries]).all()  # the first is the query's own
        assert (np.diff(np.sort(classes[:, :, 0], axis=1), axis=1) > 0).all()  # no class twice
        assert (supports[..., 0] != supports[..., 1]).all()  # no shot twice
        assert (supports != queries[:, None, None]).all()  # never the query
        assert 3 not in classes  # one record cannot give two shots
        seen_classes.append(classes[:, 1:, 0][codes[queries] == 92])
        seen_shots.append(supports[queries == np.flatnonzero(codes == 92)[4], 0])
    # Equally often each of the four other classes (of 7200), and each of the eight other records (of 800).
    names, times = np.unique(np.concatenate(seen_classes), return_counts=True)
    assert names.tolist() == [14, 15, 35, 65]
    np.testing.assert_allclose(times, 7200 / 4, rtol=0.1)
    records, times = np.unique(np.concatenate(seen_shots), return_counts=True)
    assert records.tolist() == np.delete(np.flatnonzero(codes == 92), 4).tolist()
    np.testing.assert_allclose(times, 100, atol=40)


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
@pytest.mark.parametrize(("ways", "shots"), [(2, 1), (5, 1), (5, 5)])
def test_few_shot_at_its_extremes(ways: int, shots: int, similarity: Similarity) -> None:
    rng = np.random.default_rng(ways)
    codes = np.repeat(np.arange(10), 40)

    def score(embeddings: np.ndarray) -> np.ndarray:
        return metrics.few_shot(embeddings, codes, ways=ways, shots=shots, seed=1, similarity=similarity)

    apart = rng.normal(size=(400, 16)) + 30 * np.eye(16)[codes]
    assert (score(apart) == 1).all()
    np.testing.assert_allclose(score(rng.normal(size=(400, 16))).mean(), 1 / ways, atol=0.02)
    np.testing.assert_allclose(score(np.tile(rng.normal(size=16), (400, 1))), 1 / ways, rtol=1e-12)
    np.testing.assert_array_equal(score(apart), score(apart))
    np.testing.assert_array_equal(score(apart.astype(np.float32)), score(apart))


def test_few_shot_without_meaning_is_nan() -> None:
    embeddings, codes = np.eye(7), np.array(["a", "a", "b", "b", "b", "c", "d"])
    nan_at = [
        np.isnan(metrics.few_shot(embeddings, codes, ways=ways, shots=shots, seed=0)).tolist()
        for ways, shots in ((2, 1), (4, 1), (2, 2), (5, 1), (3, 2), (2, 3))
    ]
    alone = [False] * 5 + [True] * 2
    assert nan_at[:3] == [alone, alone, [True, True, False, False, False, True, True]]
    assert nan_at[3:] == [[True] * 7] * 3
    assert metrics.few_shot(embeddings[:0], codes[:0], ways=2, shots=1, seed=0).shape == (0,)
    embeddings[0, 0] = np.nan
    assert np.isnan(metrics.few_shot(embeddings, codes, ways=2, shots=1, seed=0)).all()
    with pytest.raises(ValueError, match="expected at least 2 ways and 1 shot"):
        metrics.few_shot(np.eye(7), codes, ways=1, shots=1, seed=0)
    with pytest.raises(ValueError, match="over 0 episodes"):
        metrics.few_shot(embeddings, codes, ways=2, shots=1, episodes=0, seed=0)


def test_the_examples_run() -> None:
    assert doctest.testmod(ranking).failed == 0
