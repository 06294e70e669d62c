"""What is wrong with named columns: one that gives the answer away, and the same person on both sides of a split."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from sonde.checks.subject import Subject
from sonde.contracts.finding import Finding, Verdict
from sonde.contracts.records import is_missing

# A column alone that is right so often on records it did not see, where the majority class is not: from here on it is
# more often a copy of the answer, written down after it, than a good measurement.
WARN = 0.99
MOST = 5000
# Columns that are tried one by one.
TRIED = 40
# What columns are called that name someone or something which several records share.
_OWNER = re.compile(
    r"(^|_|\b)(patient|subject|speaker|author|user|customer|client|person|participant|household|student|owner|device"
    r"|site|hospital|session|animal)(_?(id|no|nr|number|code|name))?$",
    re.I,
)


def leaks(subject: Subject) -> Iterator[Finding]:
    """Columns of which one alone gives the target away: a shallow tree on each, judged on records it did not see."""
    train = subject.sets["train"]
    answers = _answers(train.examples.truth)
    if answers is None:
        return
    rng = np.random.default_rng([subject.recipe.training.seed, 5])
    count = len(train.ids)
    chosen = np.sort(rng.choice(count, MOST, replace=False)) if count > MOST else np.arange(count)
    found: dict[str, float] = {}
    columns = {
        name: values
        for key, part in subject.task.inputs.items()
        for name, values in part.named(train.examples.inputs[key]).items()
    }
    if len(chosen) < 50:
        return
    for name in _likeliest({name: values[chosen] for name, values in columns.items()}, answers[chosen]):
        found[name] = _alone(columns[name][chosen], answers[chosen])
    if not found:
        return
    # Of a single column nobody says that it leaks: it is all there is.
    bad = {name: score for name, score in found.items() if score >= WARN} if len(found) > 1 else {}
    best = max(found, key=lambda name: found[name])
    verdict: Verdict = "pass"
    if bad:
        verdict = "fail" if max(bad.values()) >= 0.9995 and len(bad) == 1 else "warn"
    shown = ", ".join(f"{name!r} ({score:.3f})" for name, score in sorted(bad.items(), key=lambda one: -one[1])[:5])
    yield Finding(
        check="leaks",
        verdict=verdict,
        text=f"one column alone gives the target: {shown}"
        if bad
        else f"no column alone gives the target; {best!r} comes nearest ({found[best]:.3f} of what can be known)",
        fix="is it known before the answer is? if not, take it out of the input's fields",
        numbers={name: round(score, 4) for name, score in found.items()},
    )


def _likeliest(columns: dict[str, np.ndarray], answers: np.ndarray) -> list[str]:
    """The columns that go best with the answers or with one of the classes, where there are many."""
    if len(columns) <= TRIED:
        return list(columns)
    values_NC = np.nan_to_num(np.stack([*columns.values()], axis=1).astype(np.float64))
    values_NC = (values_NC - values_NC.mean(0)) / np.maximum(values_NC.std(0), 1e-12)
    sides_NK = answers[:, None] if answers.dtype.kind == "f" else answers[:, None] == np.unique(answers)[:20]
    sides_NK = (sides_NK - sides_NK.mean(0)) / np.maximum(sides_NK.std(0), 1e-12)
    strength_C = np.abs(values_NC.T @ sides_NK).max(1)
    names = list(columns)
    return [names[place] for place in np.argsort(-strength_C)[:TRIED]]


def _alone(values: np.ndarray, answers: np.ndarray) -> float:
    """How much of the answers a small tree on one column knows out of fold: the share of the majority class's errors
    that it avoids, or of the variance."""
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    folds = KFold(3, shuffle=True, random_state=0)
    column = np.nan_to_num(values.reshape(-1, 1).astype(np.float64))
    if answers.dtype.kind == "f":
        told = cross_val_predict(DecisionTreeRegressor(min_samples_leaf=3, random_state=0), column, answers, cv=folds)
        variance = float(answers.var())
        return max(0.0, 1 - float(((told - answers) ** 2).mean()) / variance) if variance else 0.0
    if len(np.unique(answers)) < 2:
        return 0.0
    tree = DecisionTreeClassifier(min_samples_leaf=3, random_state=0)
    told = np.array(cross_val_predict(tree, column, answers, cv=folds))  # pyright: ignore
    majority = np.bincount(answers).max() / len(answers)
    right = float(np.mean(told == answers))
    return max(0.0, float((right - majority) / (1 - majority)))


def _answers(truth: object) -> np.ndarray | None:
    """The class (int) or the first number (float) of each example."""
    assert isinstance(truth, dict)
    for name in ("class", "value"):
        column = truth.get(name)
        if column is not None and getattr(column, "ndim", 0) in (1, 2):
            values = column.numpy()
            return values if values.ndim == 1 else values[:, 0].astype(np.float64)
    return None


def owners(subject: Subject) -> Iterator[Finding]:
    """The same patient, speaker or author on both sides of a split."""
    if subject.recipe.data.group_field is not None or subject.is_stream:
        return
    train = subject.data.splits["train"]
    for name, values in train.fields.items():
        if values.ndim != 1 or not _OWNER.search(name):
            continue
        mine = {str(value) for value in values.tolist()}
        # A name of its own for every record joins nothing; a handful of names are categories.
        if len(mine) > 0.9 * len(values) or len(mine) < 3:
            continue
        for split in subject.held_out:
            theirs = {str(value) for value in subject.data.splits[split].fields[name].tolist()}
            both = mine & theirs
            if both:
                yield Finding(
                    check="owners",
                    verdict="warn",
                    text=f"{len(both):,} of {len(theirs):,} values of {name!r} in {split} are also in training, such "
                    f"as {min(both)!r}",
                    fix=f'data.group = "{name}" keeps the records of one on one side, and makes the intervals honest',
                    numbers={"field": name, "split": split, "shared": len(both)},
                )


# A column that is missing in so many records, and one of which so many records share the value.
MISSING, ALIKE = 0.5, 0.995


def missing_columns(subject: Subject) -> Iterator[Finding]:
    """Columns of a table that most records lack, and columns of which nearly all records have one value."""
    train = subject.data.splits["train"]
    named = {
        name: values
        for key, part in subject.task.inputs.items()
        for name, values in part.named(subject.sets["train"].examples.inputs[key]).items()
    }
    if not named:
        return
    shares = {name: float(is_missing(train.fields[name]).mean()) for name in named if name in train.fields}
    bad = {name: share for name, share in shares.items() if share >= MISSING}
    yield Finding(
        check="missing columns",
        verdict="warn" if bad else "pass",
        text=f"{len(bad)} of {len(named)} columns are missing in half of the records or more"
        + (": " + ", ".join(f"{name!r} ({share:.0%})" for name, share in list(bad.items())[:5]) if bad else ""),
        fix="was something lost on the way? if not, is it missing in use, too? else take it out of the fields",
        numbers={"missing": {name: round(share, 4) for name, share in shares.items()}},
    )
    alike = {name: _commonest(values) for name, values in named.items() if len(values) >= 200}
    near = [name for name, share in alike.items() if ALIKE <= share < 1]
    yield Finding(
        check="near-constant columns",
        verdict="warn" if near else "pass",
        text=f"{len(near)} of {len(named)} columns have one value in {ALIKE:.1%} of the records or more"
        + (f": {', '.join(map(repr, near[:5]))}" if near else ""),
        fix="a network can learn little from so few other records; take it out of the fields, or collect more of them",
        numbers={"columns": near},
    )


def _commonest(values: np.ndarray) -> float:
    """The share of the commonest value."""
    return float(np.unique(values, return_counts=True)[1].max() / len(values))
