"""What is wrong with the answers: classes that are too small, labels that look wrong, no signal at all."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sonde.checks import features
from sonde.checks.subject import Subject
from sonde.contracts.finding import Finding, judged

# Fewer training records than this teach no class; with fewer held-out ones its recall has an interval of 0.5 or wider
# (Clopper and Pearson 1934).
FEW_TO_LEARN, FEW_TO_SCORE = 5, 10
# Records that the cheap model is trained on, folds, and the fewest it can judge.
MOST, FOLDS, FEWEST = 6000, 5, 50
# Standard errors above the majority class that chance reaches once in a thousand sets; folds share their records, so
# that two are reached too often.
CHANCE = 3.0
# The share of labels that confident learning finds wrong.
WRONG_WARN, WRONG_FAIL = 0.03, 0.3


def class_sizes(subject: Subject) -> Iterator[Finding]:
    """Classes with too few records to learn or to score."""
    names = _classes(subject)
    if names is None:
        return
    counts = {split: _counts(subject, split, len(names)) for split in subject.sets}
    few = [name for name, count in zip(names, counts["train"], strict=True) if count < FEW_TO_LEARN]
    yield Finding(
        check="classes to learn",
        verdict="warn" if few else "pass",
        text=f"{len(few)} of {len(names)} classes have fewer than {FEW_TO_LEARN} training records"
        + (f": {', '.join(few[:5])}" if few else ""),
        fix="collect more of them, join them with others, or leave them out",
        numbers={"classes": dict(zip(names, counts["train"].tolist(), strict=True)) if len(names) <= 50 else {}},
    )
    split = "test" if "test" in subject.sets else "validation"
    if split in subject.sets and len(names) <= len(subject.sets[split].ids):
        unscored = [name for name, count in zip(names, counts[split], strict=True) if count < FEW_TO_SCORE]
        yield Finding(
            check="classes to score",
            verdict="warn" if unscored else "pass",
            text=f"{len(unscored)} of {len(names)} classes have fewer than {FEW_TO_SCORE} {split} records"
            + (f": {', '.join(unscored[:5])}; their recall is hardly known" if unscored else ""),
            fix="hold out more (data.split), or read those classes' scores with their intervals",
        )


def suspicious_labels(subject: Subject) -> Iterator[Finding]:
    """Training labels that look wrong: confident learning (Northcutt et al. 2021, "Confident Learning: Estimating
    Uncertainty in Dataset Labels") on out-of-fold probabilities of a linear model and a forest over plain features."""
    names = _classes(subject)
    train = subject.sets["train"]
    if names is None or len(train.ids) < FEWEST or subject.is_stream:
        return
    rng = np.random.default_rng([subject.recipe.training.seed, 7])
    chosen = np.arange(len(train.ids))
    if len(chosen) > MOST:
        chosen = np.sort(rng.choice(chosen, MOST, replace=False))
    label = train.examples.truth["class"].numpy()[chosen]  # type: ignore[union-attr]
    probabilities = out_of_fold(
        features.plain(subject.task, train, chosen), label, len(names), subject.recipe.training.seed
    )
    if probabilities is None:
        return
    majority = np.bincount(label).max() / len(label)
    right = float((probabilities.argmax(1) == label).mean())
    error = (right * (1 - right) / len(label)) ** 0.5
    yield Finding(
        check="signal",
        verdict="warn" if right <= majority + CHANCE * error else "pass",
        text=f"a cheap model over plain features is right on {right:.3f} of {len(label):,} training records that it "
        f"did not see; the majority class on {majority:.3f}",
        fix="if people can tell, look for shuffled labels or a wrong file; else a network may find what it does not",
        numbers={"accuracy": right, "majority": majority},
    )
    issues = label_issues(probabilities, label)
    share = len(issues) / len(label)
    # Where the cheap model hardly knows the classes its disagreement says nothing.
    able = right > majority + 0.5 * (1 - majority)
    yield Finding(
        check="labels",
        verdict=judged(share, warn=WRONG_WARN, fail=WRONG_FAIL) if able else "pass",
        text=f"{len(issues):,} of {len(label):,} training labels ({share:.1%}) look wrong"
        + ("" if able else "; but plain features hardly tell the classes apart"),
        fix="look at the records named first; `sonde check --out FOLDER` writes them all to label_issues.csv",
        records=[train.ids[chosen[index]] for index in issues],
        numbers={
            "share": share,
            "issues": [
                {
                    "record": train.ids[chosen[index]],
                    "label": names[label[index]],
                    "suggested": names[int(probabilities[index].argmax())],
                    "confidence": round(float(probabilities[index, label[index]]), 4),
                }
                for index in issues
            ],
        },
    )


def out_of_fold(values_NF: np.ndarray, label_N: np.ndarray, num_classes: int, seed: int) -> np.ndarray | None:
    """Probabilities (N, K) from models that did not see the record: a linear one and extra trees, averaged; None where
    classes are too small to fold."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    counts = np.bincount(label_N, minlength=num_classes)
    kept = counts[label_N] >= FOLDS
    if len(np.unique(label_N[kept])) < 2:
        return None
    probabilities_NK = np.tile(counts / counts.sum(), (len(label_N), 1))
    values_NF = np.nan_to_num(values_NF)
    places = np.flatnonzero(kept)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for train, held in folds.split(places, label_N[kept]):
        models = [
            make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=200, tol=1e-3)),
            ExtraTreesClassifier(100, min_samples_leaf=2, random_state=seed, n_jobs=1),
        ]
        found = np.zeros((len(held), num_classes))
        for model in models:
            model.fit(values_NF[places[train]], label_N[places[train]])
            found[:, model.classes_] += model.predict_proba(values_NF[places[held]]) / len(models)
        probabilities_NK[places[held]] = found
    return probabilities_NK


def label_issues(probabilities_NK: np.ndarray, label_N: np.ndarray) -> np.ndarray:
    """Positions whose label looks wrong, the least confident first: off the diagonal of the confident joint, which
    counts a record for the likeliest of the classes that it reaches the mean self-confidence of."""
    own_N = probabilities_NK[np.arange(len(label_N)), label_N]
    classes = probabilities_NK.shape[1]
    counts_K = np.bincount(label_N, minlength=classes)
    threshold_K = np.bincount(label_N, weights=own_N, minlength=classes) / np.maximum(counts_K, 1)
    reached_NK = (probabilities_NK >= threshold_K) & (counts_K > 0)
    best_N = np.where(reached_NK, probabilities_NK, -1.0).argmax(1)
    wrong_N = reached_NK.any(1) & (best_N != label_N) & (probabilities_NK.argmax(1) != label_N)
    worst_first = ranked(probabilities_NK, label_N)
    return worst_first[wrong_N[worst_first]]


def ranked(probabilities_NK: np.ndarray, label_N: np.ndarray) -> np.ndarray:
    """All positions, those first whose label is least likely right: by the probability of the label (self-confidence,
    Kuan and Mueller 2022; of 10 % flipped labels it finds more than the margin to the likeliest class does)."""
    own_N = probabilities_NK[np.arange(len(label_N)), label_N]
    return np.argsort(own_N, kind="stable")


def _classes(subject: Subject) -> list[str] | None:
    """The names of the classes, where the target has one class for an example."""
    names = getattr(subject.task.target, "classes", None)
    truth = subject.sets["train"].examples.truth
    if names is None or "class" not in truth or getattr(truth["class"], "ndim", 0) != 1:
        return None
    return list(names)


def _counts(subject: Subject, split: str, classes: int) -> np.ndarray:
    return np.bincount(subject.sets[split].examples.truth["class"].numpy(), minlength=classes)  # type: ignore[union-attr]
