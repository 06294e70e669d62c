"""How good a network is: every metric of its target with an interval."""

from sonde.evaluation.scores import (
    RESAMPLES,
    Score,
    about,
    all_finite,
    apart,
    eval_outputs,
    finite,
    scores,
    standard_error,
    to_json,
    values,
)

__all__ = [
    "RESAMPLES",
    "Score",
    "about",
    "all_finite",
    "apart",
    "eval_outputs",
    "finite",
    "scores",
    "standard_error",
    "to_json",
    "values",
]
