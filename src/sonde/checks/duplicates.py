"""The same record twice: within a split, on both sides of one, and with two different answers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sonde.checks.subject import Subject
from sonde.contracts.finding import Finding, judged

# The share of a held-out split that training has seen: from a twentieth on scores are no longer those of new records
# to the second digit; from a fifth on a memorised training set would pass for a good model.
SEEN_WARN, SEEN_FAIL = 0.01, 0.2
# Rows of a coarse table are equal by chance. There a held-out row in training counts only beyond what training rows
# have among themselves.
CHANCE = 2.0
# And one alone may be: beyond the values that training knows all are encoded alike.
FEW_ROWS = 3
# The share of records whose equal has another answer: a ceiling for every score.
CONFLICT_WARN, CONFLICT_FAIL = 0.01, 0.2
WITHIN_WARN = 0.05


def across_splits(subject: Subject) -> Iterator[Finding]:
    """Held-out records whose encoded inputs are those of a training record."""
    if subject.is_stream or "train" not in subject.sets:
        return
    train = np.unique(subject.inputs["train"])
    own = 1 - len(train) / len(subject.inputs["train"])
    coarse = subject.layouts <= {"columns"}
    for split, each in subject.held_out.items():
        seen = np.isin(subject.inputs[split], train)
        share = float(seen.mean())
        verdict = judged(share, warn=SEEN_WARN, fail=SEEN_FAIL)
        if coarse and share <= CHANCE * own + SEEN_WARN:
            verdict = "warn" if share >= SEEN_FAIL else "pass"
        if coarse and verdict == "fail" and seen.sum() < FEW_ROWS:
            verdict = "warn"
        text = f"{int(seen.sum()):,} of {len(seen):,} {split} records ({share:.1%}) are also training records"
        yield Finding(
            check="duplicates across splits",
            verdict=verdict,
            text=text + (f"; {own:.1%} of training is double" if coarse and share else ""),
            fix="keep copies together: data.group names a column whose records belong together; or delete the copies",
            records=[each.ids[index] for index in np.flatnonzero(seen)[:1000]],
            numbers={"split": split, "share": share, "share_within_training": own},
        )


def within_training(subject: Subject) -> Iterator[Finding]:
    """Training records that are there more than once."""
    if subject.is_stream:
        return
    hashes = subject.inputs["train"]
    _, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    double = len(hashes) - len(first)
    share = double / len(hashes)
    coarse = subject.layouts <= {"columns"}
    worst = first[np.argsort(-counts)][: int((counts > 1).sum())]
    ids = subject.sets["train"].ids
    yield Finding(
        check="duplicates",
        verdict="pass" if coarse else judged(share, warn=WITHIN_WARN),
        text=f"{double:,} of {len(hashes):,} training records ({share:.1%}) repeat another one",
        fix="delete the copies, or keep them in one split by data.group",
        records=[ids[index] for index in worst[:1000]],
        numbers={"share": share, "most_copies": int(counts.max())},
    )


def conflicting_labels(subject: Subject) -> Iterator[Finding]:
    """Records with equal inputs and different truths, over all splits."""
    if subject.is_stream or not subject.truths:
        return
    inputs = np.concatenate([subject.inputs[split] for split in subject.truths])
    truths = np.concatenate([subject.truths[split] for split in subject.truths])
    ids = [name for split in subject.truths for name in subject.sets[split].ids]
    _, place = np.unique(inputs, return_inverse=True)
    pairs = np.unique(np.stack([place.astype(np.uint64), truths], axis=1), axis=0)
    answers = np.bincount(pairs[:, 0].astype(np.int64), minlength=int(place.max()) + 1)
    torn = answers[place] > 1
    share = float(torn.mean())
    order = np.flatnonzero(torn)
    order = order[np.argsort(place[order], kind="stable")]
    yield Finding(
        check="conflicting labels",
        verdict=judged(share, warn=CONFLICT_WARN, fail=CONFLICT_FAIL if not subject.layouts <= {"columns"} else 2.0),
        text=f"{int(torn.sum()):,} of {len(torn):,} records ({share:.1%}) have an equal with another answer",
        fix="correct the labels; if both are right, the inputs lack what tells them apart",
        records=[ids[index] for index in order[:1000]],
        numbers={"share": share},
    )
