"""What travels with a trained network so that its answers can be doubted: references of what is familiar, and how far
truths were from answers on the validation split.

N validation record, F number that is answered, R reference, W width, V measure, B example.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sonde.contracts.columns import EvalColumns
from sonde.contracts.decision import DecisionConfig
from sonde.contracts.part import Part, agree
from sonde.contracts.records import Records
from sonde.contracts.target import Prediction, Target
from sonde.evaluation import conformal, familiar
from sonde.evaluation.observe import Observed

# Validation records whose scores are kept: quantiles need no more.
MOST = 10_000


@dataclass(frozen=True, kw_only=True)
class Trust(Part):
    """Saved as inputs and targets are. `nonconformity` float64 (N, F) of validation truths and `group` int64 (N,) their
    place among `groups`, the values of the field `config.coverage_by`; `references` float16 (R, W) are features of
    training records, and `strangeness` float64 (V, N) what each of `measures` says of the validation records, sorted.
    Each may be empty.
    """

    Config = DecisionConfig

    config: DecisionConfig
    groups: list[str]
    measures: list[str]
    nonconformity: Tensor
    group: Tensor
    references: Tensor
    strangeness: Tensor

    def check_fitted(self, inputs: Mapping[str, Any]) -> None:
        agree(self.nonconformity.ndim == 2, "nonconformity is no table")
        agree(self.group.shape == self.nonconformity.shape[:1], "the groups are not one a record")
        agree(not len(self.group) or int(self.group.max()) < max(1, len(self.groups)), "a group has no name")
        agree(self.references.ndim == 2, "the references are no table")
        agree(self.strangeness.ndim == 2 and len(self.strangeness) == len(self.measures), "not one row a measure")
        for values in (self.nonconformity, self.references, self.strangeness):
            agree(bool(torch.isfinite(values.float()).all()), "a value is NaN or infinite")
        agree(bool((self.strangeness.diff(dim=1) >= 0).all()), "the validation split's values are not sorted")

    @property
    def has_regions(self) -> bool:
        return len(self.nonconformity) > 0

    @property
    def measure(self) -> str | None:
        """The measure that tells what is familiar; another that there is in place of one that there is not."""
        if self.config.familiar == "off" or not self.measures:
            return None
        return self.config.familiar if self.config.familiar in self.measures else self.measures[0]

    def regions(self, target: Target, seen: Observed, coverage: float, group_B: np.ndarray | None) -> list[Prediction]:
        """Sets or intervals for observed records, each of which holds the truth with this probability."""
        assert seen.answers is not None
        limits = conformal.limits(
            self.nonconformity.numpy(),
            coverage,
            self.group.numpy() if self.groups else None,
            group_B,
            count=len(seen.answers),
        )
        return target.regions(seen.answers, limits)

    def groups_of(self, records: Records) -> np.ndarray | None:
        """The group of each record, -1 where the validation split had none of its value; None without groups."""
        by = self.config.coverage_by
        if by is None or not self.groups:
            return None
        places = {name: code for code, name in enumerate(self.groups)}
        values = records.fields.get(by)
        if values is None:
            return np.full(len(records), -1)
        return np.array([places.get(str(value), -1) for value in values.tolist()])

    def p_values(self, target: Target, seen: Observed) -> dict[str, np.ndarray]:
        """By measure: the share of validation records that are at least as strange as each observed one, (B,)."""
        found = familiar.measures(target, seen, self.references)
        return {
            name: familiar.p_values(found[name], self.strangeness[row].numpy())
            for row, name in enumerate(self.measures)
            if name in found
        }

    def beside(
        self,
        target: Target,
        seen: Observed,
        records: Records,
        *,
        coverage: float | None,
        told_familiar: bool,
    ) -> list[Prediction]:
        """What is laid beside each prediction: its set or interval, and whether the record is familiar."""
        count = len(records)
        rows: list[Prediction] = [{} for _ in range(count)]
        if coverage is not None:
            rows = self.regions(target, seen, coverage, self.groups_of(records))
        if told_familiar and self.measure is not None:
            p_B = self.p_values(target, seen)[self.measure]
            limit = 1 - self.config.familiar_share
            rows = [
                {**row, "familiar": bool(p > limit), "unfamiliarity": round(1 - float(p), 6)}
                for row, p in zip(rows, p_B, strict=True)
            ]
        return rows


def fit(
    config: DecisionConfig,
    target: Target,
    columns: EvalColumns,
    *,
    train: Observed,
    validation: Observed,
    values_N: Sequence[Any] | None,
    seed: int,
) -> Trust:
    """References from training records, and what the validation split says of them. `columns` are those of the
    validation split, calibrated without themselves; `values_N` those of the field `config.coverage_by`."""
    scores = target.nonconformity(columns)
    scores_NF = np.zeros((0, 1)) if scores is None else scores.astype(np.float64).reshape(len(scores), -1)
    group_N = np.zeros(len(scores_NF), dtype=np.int64)
    groups: list[str] = []
    if values_N is not None and len(scores_NF):
        groups, group_N = _coded([str(value) for value in values_N])
    if len(scores_NF) > MOST:
        chosen = np.sort(np.random.default_rng([seed, 37]).choice(len(scores_NF), MOST, replace=False))
        scores_NF, group_N = scores_NF[chosen], group_N[chosen]
    kept = torch.zeros(0, 0, dtype=torch.float16)
    if config.familiar != "off" and train.features is not None:
        kept = familiar.references(train.features, seed)
    found = {} if config.familiar == "off" else familiar.measures(target, validation, kept)
    count = len(next(iter(found.values()), ()))
    rows = np.linspace(0, count - 1, min(count, MOST)).astype(np.int64)
    sorted_VN = [np.sort(values)[rows] for values in found.values()]
    return Trust(
        config=config,
        groups=groups,
        measures=list(found),
        nonconformity=torch.from_numpy(scores_NF),
        group=torch.from_numpy(group_N),
        references=kept,
        strangeness=torch.from_numpy(np.array(sorted_VN).reshape(len(found), len(rows))),
    )


def _coded(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    names, codes = np.unique(np.array(texts, dtype=object), return_inverse=True)
    return names.tolist(), codes.reshape(-1).astype(np.int64)
