"""Class names as texts, their codes and their weights: what the targets that have classes share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from sonde.base.errors import RecordError, near, unknown
from sonde.contracts.part import agree

ClassWeights = Literal["none", "balanced"] | dict[str, Annotated[float, Field(ge=0)]]

# What labels were in the data: a class is called by a text, and answers give it back as what it was.
LabelType = Literal["text", "integer", "boolean"]

# How many names an error spells out, and an answer of many classes gives.
MOST = 20


def text_of(label: Any) -> str | None:
    """A label as the name of a class; None where it is missing or no label at all.

    Whole numbers read alike however they were stored: 3, 3.0 and "3"; so do true and "true".
    """
    if isinstance(label, str):
        return label if label.strip() else None
    if isinstance(label, (bool, np.bool_)):
        return "true" if label else "false"
    if isinstance(label, (float, np.floating)):
        if label != label:
            return None
        return str(int(label)) if float(label).is_integer() else str(float(label))
    return str(label) if isinstance(label, (int, np.generic, PurePath)) else None


def texts_of(labels: np.ndarray) -> np.ndarray:
    """The names of a whole field, an object array (N,) of texts and None."""
    if labels.dtype == object or labels.ndim != 1:
        return objects([text_of(label) for label in labels])
    # Numbers: every distinct one is written out once.
    distinct, inverse = np.unique(labels, return_inverse=True)
    return objects([text_of(label) for label in distinct])[inverse]


def type_of(labels: Iterable[Any]) -> LabelType:
    """What all labels are that are there: texts, whole numbers or true and false; texts where they are mixed."""
    if isinstance(labels, np.ndarray) and labels.dtype.kind in "iub":
        return "boolean" if labels.dtype.kind == "b" else "integer"
    there = [label for label in labels if text_of(label) is not None]
    if there and all(isinstance(label, (bool, np.bool_)) for label in there):
        return "boolean"
    return "integer" if there and all(_is_whole(label) for label in there) else "text"


def _is_whole(label: Any) -> bool:
    if isinstance(label, (bool, np.bool_)):
        return False
    # A missing label makes floats of a column of whole numbers.
    return isinstance(label, (int, np.integer)) or (
        isinstance(label, (float, np.floating)) and float(label).is_integer()
    )


def value_of(name: str, label_type: LabelType) -> str | int | bool:
    """The label that a class was called by in the data."""
    if label_type == "boolean":
        return name == "true"
    return int(name) if label_type == "integer" else name


def objects(values: Sequence[Any]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def codes_of(texts: Iterable[str | None], names: Sequence[str]) -> np.ndarray:
    """The place of every text among the names, int64 (N,); -1 where it is not one of them."""
    lookup = {name: code for code, name in enumerate(names)}
    return np.array([lookup.get(text, -1) if text is not None else -1 for text in texts], dtype=np.int64)


def wrong_label(label: Any, names: Sequence[str], field: str) -> RecordError:
    """What is wrong with a label that is not one of the names."""
    expected = listing(names) if names else "a text, a whole number, true or false"
    text = text_of(label)
    if text is None:
        if isinstance(label, (list, tuple, set, dict, bytes)) or (isinstance(label, np.ndarray) and label.ndim):
            return RecordError(
                f"{label!r} in field {field!r} is not a label",
                expected=expected,
                hint='several labels a record are learned by the target kind "labels"',
            )
        return RecordError(f"the label in field {field!r} is missing", expected=expected)
    close = near(text, names)
    return RecordError(
        f"the label {text!r} in field {field!r} was never seen in training",
        expected=expected,
        hint=f"did you mean {close!r}?" if close else "give the training split examples of it (see data.split)",
    )


def listing(names: Sequence[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > MOST else ""
    return "one of: " + ", ".join(names[:MOST]) + more


def class_weights(
    choice: ClassWeights, names: Sequence[str], counts: Sequence[int], setting: str = "target.class_weights"
) -> list[float] | None:
    """One weight per class, or None where all count the same.

    "balanced" gives N / (K * count), as scikit-learn does: every class then has the same say. Names that a mapping
    leaves out weigh 1.

    Raises:
        UserError: a weight is given for a class that does not exist.
    """
    if isinstance(choice, str):
        if choice == "none":
            return None
        return [sum(counts) / (len(counts) * count) if count else 0.0 for count in counts]
    require_names(choice, names, setting)
    return [float(choice.get(name, 1.0)) for name in names]


def check_classes(names: Sequence[str], counts: Sequence[int], weights: Sequence[float] | None) -> None:
    """Whether saved classes, their records and their weights agree; see `Part.check_fitted`."""
    agree(bool(names) and len(set(names)) == len(names), "a class is there twice, or there is none")
    agree(len(counts) == len(names) and min(counts) >= 0, f"{len(counts)} counts for {len(names)} classes")
    agree(weights is None or len(weights) == len(names), "the weights are not one a class")


def require_names(choice: Mapping[str, float], names: Sequence[str], setting: str) -> None:
    for name in choice:
        if name not in names:
            raise unknown(name, names, what=f"{setting}: the class")
