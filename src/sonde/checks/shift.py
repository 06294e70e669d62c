"""Whether held-out records are like the training records: a classifier two-sample test."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

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


# Pictures whose channels are swapped are so many times nearer to training in the other order.
SWAPPED = 4.0


def channel_order(subject: Subject) -> Iterator[Finding]:
    """Whether the colours of a split are those of training read backwards: BGR for RGB."""
    for name, spec in subject.task.specs.items():
        if spec.layout != "grid" or spec.channels != 3:
            continue
        train = _colours(subject, "train", name)
        for split in subject.held_out:
            theirs = _colours(subject, split, name)
            straight, back = float(np.abs(train - theirs).max()), float(np.abs(train - theirs[::-1]).max())
            swapped = straight > SWAPPED * back and straight > 0.05
            yield Finding(
                check="channel order",
                verdict="fail" if swapped else "pass",
                text=f"mean colours of {split} are {straight:.3f} from those of training, and {back:.3f} in the other "
                "order of channels",
                fix="one of the two was written as BGR (OpenCV's order) and the other as RGB: write both as RGB",
                numbers={"split": split, "straight": straight, "swapped": back},
            )


def _colours(subject: Subject, split: str, name: str) -> np.ndarray:
    """The mean of each channel, from 0 to 1."""
    grid = subject.sets[split].examples.inputs[name]["grid"]
    assert isinstance(grid, torch.Tensor)
    step = max(1, len(grid) // 1000)
    return grid[::step].flatten(2).double().mean((0, 2)).numpy() / 255
