"""Pictures of answers that several targets have in common. N example, K class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sonde.contracts.panel import Panel

# Points of a curve and of a scatter on a page; bins of confidence and of errors.
POINTS, SCATTERED, BINS = 60, 1500, 10


def confusion(true_N: np.ndarray, predicted_N: np.ndarray, names: Sequence[str]) -> Panel:
    counts_KK = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts_KK, (true_N, predicted_N), 1)
    return heatmap(counts_KK, names, "records")


def heatmap(counts_KK: np.ndarray, names: Sequence[str], what: str) -> Panel:
    """How the truths of each class are answered, as shares of the class."""
    share_KK = counts_KK / np.maximum(counts_KK.sum(axis=1, keepdims=True), 1)
    rows = [
        {"y": names[true], "x": names[told], "value": round(float(share_KK[true, told]), 4), "count": int(count)}
        for (true, told), count in np.ndenumerate(counts_KK)
    ]
    return Panel(
        kind="heatmap",
        title="Confusion",
        note=f"Each row is a true class: where its {what} were put. Off the diagonal they are wrong; choose a cell to "
        "see some.",
        rows=rows,
        x="answered",
        y="true",
        domain=list(names),
    )


def reliability(confidence_N: np.ndarray, right_N: np.ndarray, before_N: np.ndarray | None = None) -> Panel:
    """How often answers of a given confidence are right; with `before_N` also by that before calibration."""
    rows = _binned("answers" if before_N is None else "calibrated", confidence_N, right_N)
    if before_N is not None:
        rows += _binned("before calibration", before_N, right_N)
    return Panel(
        kind="lines",
        title="Reliability",
        note="How often answers of each confidence are right: on the dashed line confidence means what it says, below "
        "it the model is too sure. Each point stands for as many records.",
        rows=rows,
        x="confidence",
        y="right",
        diagonal=True,
    )


def _binned(series: str, confidence_N: np.ndarray, right_N: np.ndarray) -> list[dict[str, object]]:
    edges = np.unique(np.quantile(confidence_N, np.linspace(0, 1, BINS + 1)))
    bins_N = np.clip(np.searchsorted(edges, confidence_N, side="right") - 1, 0, max(0, len(edges) - 2))
    rows: list[dict[str, object]] = []
    for number in range(max(1, len(edges) - 1)):
        chosen = bins_N == number
        if chosen.any():
            rows.append(
                {
                    "x": round(float(confidence_N[chosen].mean()), 4),
                    "y": round(float(right_N[chosen].mean()), 4),
                    "series": series,
                    "count": int(chosen.sum()),
                }
            )
    return rows


def curves(classes: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> list[Panel]:
    """Precision over recall, and the true over the false positive rate, of each class that has both kinds."""
    precision: list[dict[str, object]] = []
    rates: list[dict[str, object]] = []
    for name, (score_N, true_N) in classes.items():
        if not 0 < true_N.sum() < len(true_N):
            continue
        order = np.argsort(-score_N, kind="stable")
        hits, misses = np.cumsum(true_N[order]), np.cumsum(~true_N[order])
        # Ties fall together: only the last of equal scores is a point.
        last = np.flatnonzero(np.append(np.diff(score_N[order]) != 0, True))
        chosen = last[np.unique(np.linspace(0, len(last) - 1, min(POINTS, len(last))).astype(int))]
        for place in chosen.tolist():
            recall = float(hits[place] / true_N.sum())
            precision.append({"x": round(recall, 4), "y": round(float(hits[place] / (place + 1)), 4), "series": name})
            rates.append({"x": round(float(misses[place] / (~true_N).sum()), 4), "y": round(recall, 4), "series": name})
    if not precision:
        return []
    return [
        Panel(
            kind="lines",
            title="Precision and recall",
            note="What share of the answers for a class is right, over the share of the class that is found.",
            rows=precision,
            x="recall",
            y="precision",
        ),
        Panel(
            kind="lines",
            title="ROC",
            note="The share of a class that is found, over the share of all others that is taken for it.",
            rows=rates,
            x="false positive rate",
            y="true positive rate",
            diagonal=True,
        ),
    ]


def numbers(name: str, true_N: np.ndarray, answer_N: np.ndarray) -> list[Panel]:
    """Answers beside truths, and how large errors are."""
    chosen = np.linspace(0, len(true_N) - 1, min(SCATTERED, len(true_N))).astype(int)
    rows = [{"x": float(true_N[place]), "y": float(answer_N[place]), "place": int(place)} for place in chosen]
    error_N = answer_N - true_N
    low, high = np.quantile(error_N, [0.005, 0.995])
    counts, edges = np.histogram(np.clip(error_N, low, high), bins=4 * BINS)
    bars = [
        {"x": float((left + right) / 2), "value": int(count)}
        for count, left, right in zip(counts, edges, edges[1:], strict=False)
    ]
    return [
        Panel(
            kind="points",
            title=f"Answers for {name}",
            note="Each point is a record; on the dashed line the answer is the truth.",
            rows=rows,
            x="true",
            y="answered",
            diagonal=True,
        ),
        Panel(
            kind="bars",
            title=f"Errors of {name}",
            note="Answer minus truth, the outermost 1 % drawn in: centred on 0 where nothing is systematically off.",
            rows=bars,
            x="error",
            y="records",
        ),
    ]
