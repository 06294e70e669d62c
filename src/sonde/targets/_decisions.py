"""Which class is answered, where mistakes differ in what they cost or one class has to be found.

N example, K class.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from typing_extensions import TypedDict

from sonde.base.errors import unknown
from sonde.contracts.decision import DecisionConfig
from sonde.contracts.panel import Panel
from sonde.contracts.part import agree

# How many deviations a threshold has to save over that of the costs themselves to take its place.
BEYOND_NOISE = 2.0
# Thresholds that are tried.
TRIED = 200


class Decision(TypedDict):
    """How a class is chosen from probabilities. `costs` (K, K), true by answered: the least expected cost (Elkan 2001),
    or with a `threshold` of two classes the second from that probability on. Else the class `wanted` (its place) from
    `threshold` on, and the likeliest of the others below it."""

    costs: list[list[float]]
    wanted: int | None
    threshold: float | None


def check(config: DecisionConfig, classes: Sequence[str]) -> None:
    """That every class exists.

    Raises:
        UserError: one does not.
    """
    for true, answers in config.costs.items():
        for name in (true, *answers):
            if name not in classes:
                raise unknown(name, classes, what="decision.costs: the class")
    if config.recall is not None and config.recall.name not in classes:
        raise unknown(config.recall.name, classes, what="decision.recall: the class")


def agrees(decision: Decision, num_classes: int) -> None:
    """Whether a saved decision is of so many classes; see `Part.check_fitted`."""
    costs, wanted, threshold = decision["costs"], decision["wanted"], decision["threshold"]
    if wanted is not None:
        agree(0 <= wanted < num_classes and not costs, f"the decision is for class {wanted} of {num_classes}")
        agree(threshold is not None, "the decision has no threshold")
        return
    whole = len(costs) == num_classes and all(len(row) == num_classes for row in costs)
    agree(whole, f"the costs are not those of {num_classes} classes")
    agree(threshold is None or num_classes == 2, "a threshold of more than two classes")


def learn(
    config: DecisionConfig, probabilities_NK: np.ndarray, true_N: np.ndarray, classes: Sequence[str]
) -> tuple[Decision, list[str]]:
    """The decision that the recipe asks for, by held-out answers, and what is to be known of it."""
    if config.recall is not None:
        wanted = list(classes).index(config.recall.name)
        score_M = np.sort(probabilities_NK[true_N == wanted, wanted])
        threshold, notes = _at_least(score_M, config.recall.at_least, config.recall.name)
        return Decision(costs=[], wanted=wanted, threshold=threshold), notes
    costs_KK = cost_matrix(config, classes)
    plain = Decision(costs=costs_KK.tolist(), wanted=None, threshold=None)
    threshold = _cheaper(costs_KK, probabilities_NK, true_N, plain) if len(classes) == 2 else None
    return Decision(costs=costs_KK.tolist(), wanted=None, threshold=threshold), []


def cost_matrix(config: DecisionConfig, classes: Sequence[str]) -> np.ndarray:
    """(K, K), true by answered: what the recipe says, 1 for a mistake of a class that it does not name, else 0."""
    costs_KK = 1.0 - np.eye(len(classes))
    for code, true in enumerate(classes):
        if true in config.costs:
            costs_KK[code] = [config.costs[true].get(answered, 0.0) for answered in classes]
    return costs_KK


def choose(decision: Decision | None, probabilities_NK: np.ndarray) -> np.ndarray:
    """The answered class of each example, int64 (N,)."""
    if decision is None:
        return probabilities_NK.argmax(1)
    wanted, threshold = decision["wanted"], decision["threshold"]
    if wanted is not None:
        others_NK = probabilities_NK.copy()
        others_NK[:, wanted] = -1.0
        return np.where(probabilities_NK[:, wanted] >= threshold, wanted, others_NK.argmax(1))
    if threshold is not None:
        return (probabilities_NK[:, 1] >= threshold).astype(np.int64)
    return (probabilities_NK.astype(np.float64) @ np.array(decision["costs"])).argmin(1)


def costs_of(decision: Decision, true_N: np.ndarray, answered_N: np.ndarray) -> np.ndarray:
    return np.array(decision["costs"])[true_N, answered_N]


def in_words(decision: Decision, probabilities_NK: np.ndarray, true_N: np.ndarray, classes: Sequence[str]) -> str:
    """What the decision does on held-out records."""
    answered_N, wanted = choose(decision, probabilities_NK), decision["wanted"]
    if wanted is not None:
        is_N, told_N = true_N == wanted, answered_N == wanted
        false_alarms = int((told_N & ~is_N).sum())
        return (
            f"decision: {classes[wanted]} from probability {decision['threshold']:.4g} on (chosen on validation): "
            f"{int((is_N & told_N).sum()):,} of {int(is_N.sum()):,} found, {false_alarms:,} false alarms "
            f"among {int((~is_N).sum()):,} others"
        )
    total = float(costs_of(decision, true_N, answered_N).sum())
    plain = float(costs_of(decision, true_N, probabilities_NK.argmax(1)).sum())
    how = "the least expected cost"
    if decision["threshold"] is not None:
        how = f"{classes[1]} from probability {decision['threshold']:.4g} on (chosen on validation)"
    return f"decision: {how}: mistakes cost {total:,.6g}; with the likeliest class {plain:,.6g}"


def _at_least(score_M: np.ndarray, share: float, name: str) -> tuple[float, list[str]]:
    """The highest threshold that finds a new record of the class at least so often, in the mean over splits: the order
    statistic of conformal prediction, floor((M + 1) (1 - share)) from below."""
    if not len(score_M):
        return 0.0, [f"decision: no validation record is {name!r}, so every record is answered with it"]
    place = int(np.floor((len(score_M) + 1) * (1 - share) + 1e-9))
    if place >= 1:
        return float(score_M[place - 1]), []
    needed = int(np.ceil(share / (1 - share) - 1e-9))
    return float(score_M[0]), [
        f"decision: {len(score_M)} validation records are {name!r}; to promise that {share:.4g} of it is found takes "
        f"{needed}. The threshold finds all {len(score_M)}; hold more out (data.split) to be surer"
    ]


def _cheaper(costs_KK: np.ndarray, probabilities_NK: np.ndarray, true_N: np.ndarray, plain: Decision) -> float | None:
    """A threshold that costs less on held-out records than that of the costs themselves, beyond noise: it makes up for
    probabilities that are off. Looked for on one half of the records and judged on the other."""
    if len(true_N) < 200:
        return None
    order = np.random.default_rng(len(true_N)).permutation(len(true_N))
    looked, judged = order[::2], order[1::2]
    tried = np.quantile(probabilities_NK[looked, 1], np.linspace(0, 1, TRIED))

    def cost(threshold: float, rows: np.ndarray) -> np.ndarray:
        return costs_KK[true_N[rows], (probabilities_NK[rows, 1] >= threshold).astype(np.int64)]

    best = float(min(tried, key=lambda threshold: float(cost(threshold, looked).mean())))
    saved_N = costs_KK[true_N[judged], choose(plain, probabilities_NK[judged])] - cost(best, judged)
    error = saved_N.std(ddof=1) / np.sqrt(len(saved_N))
    return best if error > 0 and saved_N.mean() / error > BEYOND_NOISE else None


def panel(decision: Decision, probabilities_NK: np.ndarray, true_N: np.ndarray, classes: Sequence[str]) -> Panel:
    """What other thresholds would do: for a wish the shares found and answered, else the cost of each answer
    that the matrix weighs, beside that of the likeliest class."""
    wanted = decision["wanted"]
    if wanted is not None:
        score_N, is_N = probabilities_NK[:, wanted], true_N == wanted
        rows: list[dict[str, object]] = []
        for threshold in np.unique(np.quantile(score_N, np.linspace(0, 1, 60))).tolist():
            told_N = score_N >= threshold
            found = float(told_N[is_N].mean()) if is_N.any() else 0.0
            rows.append({"x": round(threshold, 5), "y": round(found, 4), "series": "found"})
            rows.append({"x": round(threshold, 5), "y": round(float(told_N.mean()), 4), "series": "alarms"})
        return Panel(
            kind="lines",
            title=f"Finding {classes[wanted]}",
            note=f"What share of {classes[wanted]} each threshold finds, and of how many records it says so. The "
            f"threshold {decision['threshold']:.4g} was chosen on the validation split.",
            rows=rows,
            x="threshold",
            y="share",
        )
    answered_N, likeliest_N = choose(decision, probabilities_NK), probabilities_NK.argmax(1)
    rows = []
    for code, name in enumerate(classes):
        mine = true_N == code
        for series, told_N in (("by cost", answered_N), ("likeliest class", likeliest_N)):
            cost = float(costs_of(decision, true_N[mine], told_N[mine]).sum()) / max(1, len(true_N))
            rows.append({"x": name, "value": round(cost, 6), "series": series})
    return Panel(
        kind="grouped",
        title="Cost by class",
        note="What the mistakes of each true class cost, per record of the split: as decided by cost, and had the "
        "likeliest class been answered.",
        rows=rows,
        x="true class",
        y="cost",
    )
