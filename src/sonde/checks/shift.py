"""Whether held-out records are like the training records: a classifier two-sample test."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sonde.checks import features
from sonde.checks.subject import Subject
from sonde.contracts.finding import Finding, judged

# Records of each side, and the fewest.
MOST, FEWEST = 2000, 40
# The area under the curve of telling the sides apart: 0.5 for none. From 0.65 on one side says less of the other.
WARN, FAIL = 0.65, 0.95


def splits_differ(subject: Subject) -> Iterator[Finding]:
    """How well a forest tells training from held-out records by plain features (Lopez-Paz and Oquab 2017, "Revisiting
    Classifier Two-Sample Tests")."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    if subject.is_stream:
        return
    seed = subject.recipe.training.seed
    rng = np.random.default_rng([seed, 11])
    for split, each in subject.held_out.items():
        count = min(len(each.ids), len(subject.sets["train"].ids), MOST)
        if count < FEWEST:
            continue
        sides = []
        for part in (subject.sets["train"], each):
            chosen = np.sort(rng.choice(len(part.ids), count, replace=False))
            sides.append(np.nan_to_num(features.plain(subject.task, part, chosen)))
        values, side = np.concatenate(sides), np.repeat([0, 1], count)
        model = ExtraTreesClassifier(60, min_samples_leaf=5, random_state=seed, n_jobs=1)
        folds = StratifiedKFold(3, shuffle=True, random_state=seed)
        told = np.array(cross_val_predict(model, values, side, cv=folds, method="predict_proba"))[:, 1]  # pyright: ignore
        area = float(roc_auc_score(side, told))
        # The area of no difference has this deviation (Hanley and McNeil 1982), so small splits need more.
        chance = 3 * np.sqrt((2 * count + 1) / (12 * count**2))
        yield Finding(
            check="splits differ",
            verdict=judged(area - max(0.0, chance - 0.1), warn=WARN, fail=FAIL),
            text=f"a cheap model tells training from {split} records with an area under the curve of {area:.3f} "
            "(0.5: not at all)",
            fix="if the split is not meant to be another time or place, draw it at random: data.split",
            numbers={"split": split, "roc_auc": area},
        )
