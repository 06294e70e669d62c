"""Scores of an order: ROC AUC, average precision; among embeddings, retrieval and few-shot accuracy.

Shape suffixes: R row of weights, N example, K class, G distinct score of a positive; among embeddings W width,
Q query, D depth of a list of neighbours, V way of an episode, S shot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

from sonde.metrics.means import mean_of_defined, ratio

Score = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
Similarity = Literal["cosine", "euclidean"]

# Numbers of a block of similarities or of prototypes that are held at a time: 64 MiB of float64.
BLOCK_NUMBERS = 1 << 23
# Similarities, of which most are about 1, are rounded to this: far above what the order of additions changes, so that
# ties are ties on every machine, and far below what float32 embeddings can tell apart.
GRAIN = 2.0**-40


def roc_auc(scores_N: np.ndarray, positive_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """The chance that a positive example scores above a negative one, ties counting half (Hanley and McNeil 1982).

    NaN where a row lacks positives or negatives.
    """
    positive_N = np.asarray(positive_N, bool)
    if 2 * positive_N.sum() > len(positive_N):
        # The same chance seen from the other side: the fewer levels, the quicker.
        scores_N, positive_N = -scores_N, ~positive_N
    area_R, pairs_R = np.zeros(len(weights_RN)), np.zeros(len(weights_RN))
    for number, (at_G, below_G, not_above_G, negative) in enumerate(_levels(scores_N, positive_N, weights_RN)):
        area_R[number] = at_G @ (below_G + not_above_G) / 2
        pairs_R[number] = at_G.sum() * negative
    return ratio(area_R, pairs_R)


def average_precision(scores_N: np.ndarray, positive_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """The mean precision at each recall step, not interpolated; tied scores make one step. NaN without positives."""
    area_R, found_R = np.zeros(len(weights_RN)), np.zeros(len(weights_RN))
    levels = _levels(scores_N, np.asarray(positive_N, bool), weights_RN)
    for number, (at_G, below_G, _, negative) in enumerate(levels):
        found_G = np.cumsum(at_G[::-1])[::-1]
        above_G = found_G + (negative - below_G)
        # Where nothing is found yet, a level weighs nothing.
        area_R[number] = at_G @ np.divide(found_G, above_G, out=np.zeros_like(found_G), where=above_G > 0)
        found_R[number] = at_G.sum()
    return ratio(area_R, found_R)


def _levels(
    scores_N: np.ndarray, positive_N: np.ndarray, weights_RN: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, float]]:
    """What ranking scores are made of: scores are sorted once for all rows.

    For every row, at each distinct score of a positive, lowest first: the weight of positives there, of negatives
    below it, of negatives not above it; and the weight of all negatives.
    """
    levels_G, level_of_positive = np.unique(scores_N[positive_N], return_inverse=True)
    num_bins = 2 * len(levels_G) + 1
    # Bin 2g holds the negatives between levels g - 1 and g, bin 2g + 1 those tied with level g; positives come after.
    bin_N = np.searchsorted(levels_G, scores_N, side="left") + np.searchsorted(levels_G, scores_N, side="right")
    bin_N[positive_N] = num_bins + level_of_positive
    for row_N in weights_RN:
        binned = np.bincount(bin_N, row_N, num_bins + len(levels_G))
        passed = np.cumsum(binned[:num_bins])
        yield binned[num_bins:], passed[:-1:2], passed[1::2], float(passed[-1])


def roc_auc_macro(scores_NK: np.ndarray, positive_NK: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """The mean of `roc_auc` over classes, each against the rest, of those classes that have both sides."""
    return _macro(roc_auc, scores_NK, positive_NK, weights_RN)


def average_precision_macro(scores_NK: np.ndarray, positive_NK: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """Mean average precision: the mean of `average_precision` over the classes that occur."""
    return _macro(average_precision, scores_NK, positive_NK, weights_RN)


def _macro(score: Score, scores_NK: np.ndarray, positive_NK: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    columns = zip(np.ascontiguousarray(scores_NK.T), np.ascontiguousarray(positive_NK.T), strict=True)
    values = [score(scores_N, positive_N, weights_RN) for scores_N, positive_N in columns]
    return mean_of_defined(np.stack(values, axis=1))


def retrieval(
    embeddings_NW: np.ndarray,
    codes_N: np.ndarray,
    ks: Sequence[int] = (1, 5, 10),
    similarity: Similarity = "cosine",
) -> dict[str, np.ndarray]:
    """How well each record finds the others of its code among all other records: one number per query, (N,).

    `codes_N` says which records belong together (classes, identities), as numbers or strings. Every record is a query
    in turn; the others are ordered by similarity, the lower index first where they tie.

    - `recall_at_K` for each of `ks`: 1 if any of the K nearest has the query's code, else 0
    - `r_precision`: with R others of the code, the share of the R nearest that have it
    - `map_at_r`: (1 / R) x the sum of precision(i) over those i <= R whose i-th nearest has the code (Musgrave et al.
      2020, A Metric Learning Reality Check)

    A query whose code no other record has is NaN: it does not count, yet the others still meet it. All are NaN if an
    embedding is not finite. `nanmean` of a column is the score; bootstrap rows resample the queries, not what they
    search. Blocks of queries keep memory at some hundred MiB; time grows with N x N x W.

    >>> found = retrieval(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]), np.array([0, 0, 1, 2]), ks=(1,))
    >>> found["recall_at_1"]
    array([ 1.,  1., nan, nan])
    """
    if min(ks, default=1) < 1:
        raise ValueError(f"cannot look at the {min(ks)} nearest: expected ks of at least 1")
    count = len(embeddings_NW)
    names = [*(f"recall_at_{k}" for k in ks), "map_at_r", "r_precision"]
    scores = {name: np.full(count, np.nan) for name in names}
    left_NW, right_NW = _sides(_comparable(embeddings_NW, similarity), similarity)
    if not np.isfinite(left_NW).all():
        return scores
    _, code_N, size_K = np.unique(codes_N, return_inverse=True, return_counts=True)
    relevant_N = size_K[code_N] - 1
    # Queries with about the same R go together, since a block orders as many neighbours as its largest R asks for.
    queries = np.argsort(relevant_N, kind="stable")
    queries = queries[relevant_N[queries] > 0]
    step = max(1, BLOCK_NUMBERS // max(count, 1))
    for start in range(0, len(queries), step):
        query_Q = queries[start : start + step]
        relevant_Q1 = relevant_N[query_Q, None]
        depth = min(max([*ks, int(relevant_Q1.max())]), count - 1)
        nearest_QD = _nearest(left_NW[query_Q], right_NW, query_Q, depth)
        hit_QD = code_N[nearest_QD] == code_N[query_Q, None]
        for k in ks:
            scores[f"recall_at_{k}"][query_Q] = hit_QD[:, :k].any(axis=1)
        precision_QD = np.cumsum(hit_QD, axis=1) / np.arange(1, depth + 1)
        hit_QD &= np.arange(depth) < relevant_Q1
        scores["map_at_r"][query_Q] = (precision_QD * hit_QD).sum(axis=1) / relevant_Q1[:, 0]
        scores["r_precision"][query_Q] = hit_QD.sum(axis=1) / relevant_Q1[:, 0]
    return scores


def partner_rank(query_NW: np.ndarray, found_NW: np.ndarray, codes_N2: np.ndarray) -> np.ndarray:
    """For each query the rank of its partner among all, by cosine: 1 is first, (N,) float64.

    Query i belongs to `found_NW[i]` and to every other with which its pair shares a code on either side; the best rank
    of these counts. Ties go against it. All are NaN if a vector is not finite.

    >>> partner_rank(np.eye(3), np.eye(3)[[0, 2, 1]], np.arange(6).reshape(3, 2))
    array([1., 3., 3.])
    """
    left_NW, right_NW = _comparable(query_NW, "cosine"), _comparable(found_NW, "cosine")
    if not (np.isfinite(left_NW).all() and np.isfinite(right_NW).all()):
        return np.full(len(left_NW), np.nan)
    ranks_N = np.empty(len(left_NW))
    step = max(1, BLOCK_NUMBERS // max(len(left_NW), 1))
    for start in range(0, len(left_NW), step):
        similar_QN = np.round(left_NW[start : start + step] @ right_NW.T / GRAIN)
        own_QN = (codes_N2[start : start + step, None] == codes_N2[None]).any(2)
        best_Q1 = np.where(own_QN, similar_QN, -np.inf).max(1, keepdims=True)
        ranks_N[start : start + step] = 1 + ((similar_QN >= best_Q1) & ~own_QN).sum(1)
    return ranks_N


def few_shot(
    embeddings_NW: np.ndarray,
    codes_N: np.ndarray,
    *,
    ways: int,
    shots: int,
    episodes: int = 20,
    seed: int,
    similarity: Similarity = "cosine",
) -> np.ndarray:
    """N-way K-shot accuracy of each record, (N,): the share of its episodes in which the nearest prototype is its own.

    Every record is the query of `episodes` episodes, drawn as `draw_supports` says. A class's prototype is the mean of
    its shots' embeddings (Snell et al. 2017, Prototypical Networks); for cosine the embeddings are scaled to norm 1
    first. An episode in which the record's own class ties with others for the nearest counts 1 / (classes that tie), so
    that embeddings which are all the same have chance level, 1 / ways.

    NaN for a record whose class has no more than `shots` records; all are NaN if fewer than `ways` classes have `shots`
    records, or if an embedding is not finite. `nanmean` is the score.

    >>> few_shot(np.array([[0.0], [0.1], [5.0], [5.1], [9.0]]), np.array([0, 0, 1, 1, 2]), ways=2, shots=1, seed=0,
    ...          similarity="euclidean")
    array([ 1.,  1.,  1.,  1., nan])
    """
    if episodes < 1:
        raise ValueError(f"cannot average over {episodes} episodes: expected at least 1")
    vectors_NW = _comparable(embeddings_NW, similarity)
    right_N = np.full(len(vectors_NW), np.nan)
    if not np.isfinite(vectors_NW).all():
        return right_N
    rng = np.random.default_rng(seed)
    step = max(1, BLOCK_NUMBERS // max(ways * vectors_NW.shape[1], 1))
    for _ in range(episodes):
        query_Q, support_QVS = draw_supports(codes_N, ways=ways, shots=shots, rng=rng)
        for start in range(0, len(query_Q), step):
            block = slice(start, start + step)
            right_Q = _own_is_nearest(vectors_NW, query_Q[block], support_QVS[block], similarity)
            right_N[query_Q[block]] = np.nan_to_num(right_N[query_Q[block]]) + right_Q
    return right_N / episodes


def draw_supports(
    codes_N: np.ndarray, *, ways: int, shots: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One random episode for each record that can be a query: the queries (Q,) and their supports' indices (Q, V, S).

    Queries are all records whose class has more than `shots` records; there are none if fewer than `ways` classes have
    at least `shots`. Way 0 is the query's own class. The other ways are different classes, any set of them equally
    likely, out of those with at least `shots` records. A way's shots are different records of its class, any set
    equally likely, never the query. Every query has its own draw.
    """
    if ways < 2 or shots < 1:
        raise ValueError(f"an episode of {ways} ways and {shots} shots: expected at least 2 ways and 1 shot")
    _, class_N, size_K = np.unique(codes_N, return_inverse=True, return_counts=True)
    member_N = np.argsort(class_N, kind="stable")
    first_K = np.cumsum(size_K) - size_K
    place_N = np.empty_like(member_N)  # of a record among those of its class
    place_N[member_N] = np.arange(len(member_N)) - first_K[class_N[member_N]]

    able = np.flatnonzero(size_K >= shots)
    query_Q = np.flatnonzero((size_K[class_N] > shots) & (len(able) >= ways))
    own_Q1 = class_N[query_Q, None]
    # Drawn among all but the own class, or the query: numbers from there on move up by one.
    other_QV = _draw_subsets(np.full(len(query_Q), len(able) - 1), ways - 1, rng)
    other_QV = able[other_QV + (other_QV >= np.searchsorted(able, own_Q1))]
    class_QV = np.hstack([own_Q1, other_QV])
    size_QV = size_K[class_QV]
    size_QV[:, 0] -= 1
    shot_QVS = _draw_subsets(size_QV, shots, rng)
    shot_QVS[:, 0] += shot_QVS[:, 0] >= place_N[query_Q, None]
    return query_Q, member_N[first_K[class_QV][..., None] + shot_QVS]


def _draw_subsets(sizes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """For each size n a random set of `count` different numbers below n, (..., count) (Floyd's algorithm)."""
    drawn = np.empty((*sizes.shape, count), np.int64)
    for number in range(count):
        highest = sizes - count + number
        drawn[..., number] = rng.integers(0, highest, endpoint=True)
        taken = (drawn[..., :number] == drawn[..., number, None]).any(axis=-1)
        drawn[..., number] = np.where(taken, highest, drawn[..., number])
    return drawn


def _own_is_nearest(
    vectors_NW: np.ndarray, query_Q: np.ndarray, support_QVS: np.ndarray, similarity: Similarity
) -> np.ndarray:
    """Whether way 0 has the nearest prototype (Q,), shared among those that tie."""
    prototype_QVW = vectors_NW[support_QVS[..., 0]]
    for shot in range(1, support_QVS.shape[-1]):
        prototype_QVW += vectors_NW[support_QVS[..., shot]]
    prototype_QVW /= support_QVS.shape[-1]
    closeness_QV = np.einsum("qw,qvw->qv", vectors_NW[query_Q], prototype_QVW)
    square_QV = np.einsum("qvw,qvw->qv", prototype_QVW, prototype_QVW)
    if similarity == "cosine":
        closeness_QV /= np.sqrt(np.where(square_QV > 0, square_QV, 1.0))
    else:
        closeness_QV -= square_QV / 2
    closeness_QV = np.rint(closeness_QV / GRAIN)
    nearest_QV = closeness_QV == closeness_QV.max(axis=1, keepdims=True)
    return nearest_QV[:, 0] / nearest_QV.sum(axis=1)


def _comparable(embeddings_NW: np.ndarray, similarity: Similarity) -> np.ndarray:
    """Embeddings in float64 and of common size: of norm 1 for cosine (zeros stay zero), else around their mean."""
    vectors_NW = np.asarray(embeddings_NW, np.float64)
    if similarity not in ("cosine", "euclidean"):
        raise ValueError(f"unknown similarity {similarity!r}: expected cosine or euclidean")
    if not len(vectors_NW) or not np.isfinite(vectors_NW).all():
        return np.full(vectors_NW.shape, np.nan)
    if similarity == "cosine":
        norm_N1 = np.linalg.norm(vectors_NW, axis=1, keepdims=True)
        return vectors_NW / np.where(norm_N1 > 0, norm_N1, 1.0)
    vectors_NW = vectors_NW - vectors_NW.mean(axis=0)
    norm_N = np.linalg.norm(vectors_NW, axis=1)
    # The median, so that one far outlier does not make the others seem alike.
    return vectors_NW / (np.median(norm_N) or norm_N.max() or 1.0)


def _sides(vectors_NW: np.ndarray, similarity: Similarity) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays whose product of rows orders the second's by similarity to the first's, in units of GRAIN."""
    if similarity == "cosine":
        return vectors_NW / GRAIN, vectors_NW
    # Half the squared distance is |a|^2 / 2 - a b + |b|^2 / 2, of which the first is the same for all b.
    half_N1 = np.square(vectors_NW).sum(axis=1, keepdims=True) / 2
    ones_N1 = np.ones_like(half_N1)
    return np.hstack([vectors_NW, ones_N1]) / GRAIN, np.hstack([vectors_NW, -half_N1])


def _nearest(left_QW: np.ndarray, right_NW: np.ndarray, query_Q: np.ndarray, depth: int) -> np.ndarray:
    """The `depth` records most like each query, itself left out, best first; of those that tie the lower index."""
    closeness_QN = left_QW @ right_NW.T
    np.rint(closeness_QN, out=closeness_QN)
    closeness_QN[np.arange(len(query_Q)), query_Q] = -np.inf
    count = len(right_NW)
    least_Q1 = np.partition(closeness_QN, count - depth, axis=1)[:, count - depth, None]
    chosen_QN = closeness_QN >= least_Q1
    surplus_Q1 = chosen_QN.sum(axis=1, keepdims=True) - depth
    tied = np.flatnonzero(surplus_Q1)
    if len(tied):
        last_QN = closeness_QN[tied] == least_Q1[tied]
        from_behind_QN = np.cumsum(last_QN[:, ::-1], axis=1, dtype=np.int32)[:, ::-1]
        chosen_QN[tied] &= ~(last_QN & (from_behind_QN <= surplus_Q1[tied]))
    nearest_QD = (np.flatnonzero(chosen_QN) % count).reshape(-1, depth)
    order_QD = np.argsort(-np.take_along_axis(closeness_QN, nearest_QD, axis=1), axis=1, kind="stable")
    return np.take_along_axis(nearest_QD, order_QD, axis=1)
