"""Several annotators of the same records: how far they agree is the ceiling of what a score can mean."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from sonde.checks.subject import Subject
from sonde.contracts.finding import Finding, Verdict
from sonde.contracts.records import is_missing
from sonde.metrics import agreement as measures

# Columns that hold one annotator's label each: label_2, annotator_b, rater 3 ...
_ANNOTATOR = re.compile(r"^(annotator|annotation|rater|reader|coder|judge|labell?er)[ _-]?\w+$", re.I)
# Krippendorff 2004: from 0.8 on labels can be relied on, below 0.667 no conclusion holds.
RELIED, TENTATIVE = 0.8, 0.667
# Records that are worth comparing.
FEWEST = 20


def agreement(subject: Subject) -> Iterator[Finding]:
    """Kappa and alpha of the columns in which annotators gave their labels; the Dice of their masks."""
    train = subject.data.splits["train"]
    target = subject.task.target
    fields = target.fields(target.config)
    names = _annotators([*train.fields], fields, set(subject_fields(subject)))
    if len(names) < 2 or len(train) < FEWEST:
        return
    columns = [train.fields[name] for name in names]
    if all(isinstance(column[0], np.ndarray) for column in columns):
        yield _of_masks(names, columns)
        return
    codes_NA = _codes(columns)
    alpha = measures.krippendorff_alpha(codes_NA)
    pairs = {
        f"{names[a]} and {names[b]}": _kappa(codes_NA[:, a], codes_NA[:, b])
        for a, b in combinations(range(len(names)), 2)
    }
    whole = codes_NA[(codes_NA >= 0).all(1)]
    fleiss = float("nan")
    if len(whole) >= FEWEST:
        fleiss = measures.fleiss_kappa(np.stack([(whole == k).sum(1) for k in range(int(whole.max()) + 1)], axis=1))
    torn = np.flatnonzero([len(set(row[row >= 0].tolist())) > 1 for row in codes_NA])
    worst = min(pairs, key=lambda name: pairs[name])
    verdict: Verdict = "pass" if alpha >= RELIED else "warn"
    yield Finding(
        check="annotators",
        verdict=verdict,
        text=f"{len(names)} annotators differ on {len(torn):,} of {len(codes_NA):,} records: Krippendorff's alpha "
        f"{alpha:.3f}, Fleiss' kappa {fleiss:.3f}; least between {worst} (Cohen's kappa {pairs[worst]:.3f})",
        fix=f"no score above their agreement means anything; below {RELIED:g}: write rules for the cases named here, "
        "and label those again",
        records=[train.ids[int(place)] for place in torn[:1000]],
        numbers={"alpha": alpha, "fleiss": fleiss, "cohen": pairs, "tentative": alpha >= TENTATIVE},
    )


def subject_fields(subject: Subject) -> list[str]:
    """The fields that inputs read."""
    return [field for part in subject.task.inputs.values() for field in part.fields(part.config)]


def _annotators(names: Sequence[str], fields: Sequence[str], read: set[str]) -> list[str]:
    """The columns that look like annotators' labels and that no input reads."""
    found = []
    for name in names:
        of_target = any(re.match(rf"^{re.escape(field)}[ _-]?(\d+|[a-z])$", name, re.I) for field in fields)
        if name not in read and (of_target or _ANNOTATOR.match(name)):
            found.append(name)
    return found


def _codes(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Labels as numbers, (N, A), -1 where missing."""
    known: dict[str, int] = {}
    found = np.full((len(columns[0]), len(columns)), -1)
    for at, column in enumerate(columns):
        there = np.flatnonzero(~is_missing(column))
        found[there, at] = [known.setdefault(str(value), len(known)) for value in column[there].tolist()]
    return found


def _kappa(one: np.ndarray, other: np.ndarray) -> float:
    both = (one >= 0) & (other >= 0)
    return measures.cohen_kappa(one[both], other[both]) if both.any() else float("nan")


def _of_masks(names: Sequence[str], columns: Sequence[np.ndarray]) -> Finding:
    found = {
        f"{names[a]} and {names[b]}": float(
            np.mean([measures.dice_of_masks(one, other) for one, other in zip(columns[a], columns[b], strict=True)])
        )
        for a, b in combinations(range(len(names)), 2)
    }
    worst = min(found, key=lambda name: found[name])
    return Finding(
        check="annotators",
        verdict="pass" if found[worst] >= RELIED else "warn",
        text=f"the masks of {worst} agree least: a mean Dice of {found[worst]:.3f}",
        fix="no Dice above that between annotators means anything; agree on where outlines go",
        numbers={"dice": found},
    )
