"""Any number of labels at once: the tags of a text, what a photo shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field

from sonde import metrics
from sonde.base.config import Config
from sonde.base.constants import constant
from sonde.base.errors import RecordError, UserError, unknown
from sonde.base.gradients import without_gradient
from sonde.base.rng import BatchRng
from sonde.contracts.augment import AugmentParams, partner
from sonde.contracts.batch import Batch
from sonde.contracts.columns import Columns, EvalColumns, Tensors
from sonde.contracts.input import Input
from sonde.contracts.panel import Panel
from sonde.contracts.part import agree
from sonde.contracts.records import Record, Records, numbers_of
from sonde.contracts.target import Prediction, Target
from sonde.targets import _panels as panels
from sonde.targets import _temperature
from sonde.targets._classes import (
    MOST,
    LabelType,
    check_classes,
    codes_of,
    objects,
    require_names,
    text_of,
    type_of,
    value_of,
    wrong_label,
)
from sonde.targets._sums import examples, weighted_sum

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sonde.contracts.classical import Problem


class LabelsConfig(Config):
    kind: Literal["labels"] = "labels"
    field: str = Field(
        default="labels", description='the field that holds a list of labels, or a text such as "red;round"'
    )
    separator: str = Field(default=";", min_length=1, description="what stands between the labels of a text")
    min_count: int = Field(default=1, ge=1, description="labels that fewer training records have are ignored")
    fields: list[str] = Field(default=[], description="instead of field: several fields of 0 and 1, one a label")
    loss: Literal["binary-cross-entropy", "focal"] = Field(
        default="binary-cross-entropy", description="focal: easy answers count less"
    )
    gamma: float = Field(default=2.0, ge=0, description="how much less, for the focal loss")
    positive_weights: Literal["none", "balanced"] | dict[str, Annotated[float, Field(gt=0)]] = Field(
        default="none",
        description="how much more a present label counts; balanced: as much as the absent ones together",
    )
    threshold: float = Field(default=0.5, gt=0, lt=1, description="probability from which a label is given")


@dataclass(frozen=True, kw_only=True)
class Labels(Target):
    """Truth: "labels" (B, K), uint8, or float32 after mixing.

    Labels are sorted by name (or in the order of `fields`); `class_counts` are the training records that have each,
    `weights` how much its presence counts, `label_type` what they were in the data; those rarer than `min_count` are as
    if they were not there. A missing value, an empty text or list is a record without labels.
    The loss is summed over labels too, and divided by their number. Shape suffixes: B example, K label.
    """

    Config = LabelsConfig
    needs_truth: ClassVar = False
    baseline_name: ClassVar = "label frequencies"
    best: ClassVar = ("mean_average_precision", "max")
    lower_is_better: ClassVar = frozenset({"log_loss"})
    calibrations: ClassVar = _temperature.METHODS

    config: LabelsConfig
    classes: list[str]
    class_counts: list[int]
    num_records: int
    weights: list[float] | None
    label_type: LabelType = "text"
    temperatures: list[float] = field(default_factory=list)

    @classmethod
    def fit(cls, config: LabelsConfig, records: Records, inputs: Mapping[str, Input]) -> Self:
        for name in cls.fields(config):
            if name not in records.fields:
                raise unknown(name, records.fields, what="the field")
        if config.fields:
            present_NK, _ = _flags(records, config.fields)
            classes, counts = list(config.fields), present_NK.sum(axis=0).tolist()
            _require_both(config.fields, counts, len(records))
        else:
            lists = _lists(records.fields[config.field], config.separator)
            every = objects([text for texts in lists if texts is not None for text in texts])
            found, how_often = np.unique(every, return_counts=True)
            if not len(found):
                raise UserError(f"no record of the training split has a label in field {config.field!r}")
            often = how_often >= config.min_count
            if not often.any():
                raise UserError(
                    f"target.min_count is {config.min_count}, and the commonest label, {found[how_often.argmax()]!r}, "
                    f"is in {how_often.max()} training records",
                    hint="set a smaller one",
                )
            classes, counts = found[often].tolist(), how_often[often].tolist()
        return cls(
            config=config,
            classes=classes,
            class_counts=counts,
            num_records=len(records),
            weights=_positive_weights(config, classes, counts, len(records)),
            label_type="text" if config.fields else type_of(_flat(records.fields[config.field])),
        )

    def check_fitted(self, inputs: Mapping[str, Input]) -> None:
        check_classes(self.classes, self.class_counts, self.weights)
        agree(self.config.fields in ([], self.classes), "the labels are not the fields of the settings")
        count = len(self.classes)
        agree(len(self.temperatures) in (0, 1, count), f"{len(self.temperatures)} temperatures for {count} labels")
        agree(all(each > 0 for each in self.temperatures), "a temperature is not above 0")

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator, given: Records) -> tuple[LabelsConfig, Records]:
        tags = objects([["new", "red", "round"][: index % 4] for index in range(count)])
        return LabelsConfig(field="tags"), Records(fields={"tags": tags}, ids=[f"row {i}" for i in range(count)])

    @staticmethod
    def fields(config: LabelsConfig) -> list[str]:
        return config.fields or [config.field]

    @property
    def width(self) -> int:
        return len(self.classes)

    def encode(self, record: Record, given: Mapping[str, Tensors]) -> Tensors:
        names = self.fields(self.config)
        for name in names:
            if name not in record:
                raise RecordError(f"the record has no field {name!r}")
        fields = {name: objects([record[name]]) for name in names}
        columns, errors = self.encode_many(Records(fields=fields, ids=["the record"]), {})
        if errors:
            raise errors[0]
        return {"labels": columns["labels"][0]}

    def encode_many(self, records: Records, given: Mapping[str, Columns]) -> tuple[Columns, dict[int, RecordError]]:
        if self.config.fields:
            present_NK, errors = _flags(records, self.config.fields)
        else:
            present_NK, errors = self._named(records.fields[self.config.field])
        good = np.array([index not in errors for index in range(len(records))], dtype=bool)
        return {"labels": torch.from_numpy(present_NK[good])}, errors

    def _named(self, values: np.ndarray) -> tuple[np.ndarray, dict[int, RecordError]]:
        """Which labels each record has, uint8 (N, K), and the errors by position."""
        lists = _lists(values, self.config.separator)
        errors = {
            index: _not_a_list(values[index], self.config.field) for index, texts in enumerate(lists) if texts is None
        }
        row = np.repeat(np.arange(len(lists)), [len(texts or ()) for texts in lists])
        every = [text for texts in lists for text in texts or ()]
        code = codes_of(every, self.classes)
        # Where rare labels are ignored, one that training never showed is the rarest.
        for place in np.flatnonzero(code < 0)[::-1] if self.config.min_count == 1 else ():
            errors[int(row[place])] = wrong_label(every[place], self.classes, self.config.field)
        present_NK = np.zeros((len(lists), len(self.classes)), dtype=np.uint8)
        present_NK[row[code >= 0], code[code >= 0]] = 1
        return present_NK, errors

    def apply_augment(self, truth: Tensors, params: AugmentParams) -> Tensors:
        if params.mix_weight_B is None:
            return truth
        labels_BK = truth["labels"].float()
        return {"labels": torch.lerp(partner(labels_BK), labels_BK, params.mix_weight_B[:, None])}

    @property
    def _term(self) -> str:
        return self.config.loss.replace("-", "_")

    def counts(self, batch: Batch) -> Tensors:
        return {self._term: examples(batch, each=len(self.classes))}

    def loss(self, network: nn.Module, batch: Batch, rng: BatchRng) -> Tensors:
        logits_BK = network(batch.inputs).float()
        true_BK = batch.truth["labels"].float()
        weights_K = None if self.weights is None else constant(self.weights, logits_BK.device)
        if self.config.loss == "focal":
            cost_BK = _focal(logits_BK, true_BK, weights_K, self.config.gamma)
        else:
            cost_BK = torch.nn.functional.binary_cross_entropy_with_logits(
                logits_BK, true_BK, pos_weight=weights_K, reduction="none"
            )
        return {self._term: weighted_sum(cost_BK, batch.weight_B)}

    @without_gradient
    def predict(self, network: nn.Module, batch: Batch) -> list[Prediction]:
        """{"labels": [...], "probabilities": {label: p}}; of many labels the 20 likeliest, best first."""
        logits_BK = _temperature.divided(self.temperatures, network(batch.inputs).float())
        rows = logits_BK.sigmoid().tolist()
        if len(self.classes) > MOST:
            tops = logits_BK.topk(MOST, dim=1).indices.tolist()
        else:
            tops = [range(len(self.classes))] * len(rows)
        return [
            {
                "labels": [
                    value_of(name, self.label_type)
                    for name, p in zip(self.classes, row, strict=True)
                    if p >= self.config.threshold
                ],
                "probabilities": {self.classes[code]: row[code] for code in top},
            }
            for row, top in zip(rows, tops, strict=True)
        ]

    @without_gradient
    def eval_outputs(self, network: nn.Module, batch: Batch) -> Columns:
        return {"probabilities": self._probabilities(network(batch.inputs)), "labels": batch.truth["labels"]}

    def _probabilities(self, logits_BK: Tensor) -> Tensor:
        return _temperature.divided(self.temperatures, logits_BK.float()).sigmoid()

    def calibrate(self, columns: EvalColumns, method: str, weight_N: np.ndarray | None = None) -> Self:
        """By the temperature, or one for each label: the order of records within a label stays."""
        found = _temperature.fit_sigmoid(columns["probabilities"], columns["labels"], method, weight_N)
        return replace(self, temperatures=found)

    def calibrated(self, columns: EvalColumns) -> EvalColumns:
        scales = [1 / each for each in self.temperatures]
        return {**columns, "probabilities": _temperature.rescale_sigmoid(columns["probabilities"], scales)}

    def before_calibration(self, columns: EvalColumns) -> EvalColumns:
        return {**columns, "probabilities": _temperature.rescale_sigmoid(columns["probabilities"], self.temperatures)}

    def uncalibrated(self) -> Self:
        return replace(self, temperatures=[])

    def unsureness(self, answers: Tensor) -> Mapping[str, Tensor]:
        """The energy, summed over labels (Wang et al. 2021, "Can multi-label classification networks know what they
        don't know?")."""
        return {"energy": -torch.nn.functional.softplus(answers.float()).sum(1)}

    def baseline(self, truth: Columns) -> Columns:
        """The share of the training records that have each label."""
        share_K = torch.tensor(self.class_counts, dtype=torch.float32) / max(1, self.num_records)
        return {"probabilities": share_K.expand(len(truth["labels"]), -1), "labels": truth["labels"]}

    def costs(self, columns: EvalColumns) -> np.ndarray:
        """The binary cross-entropy, summed over the labels."""
        true_NK = columns["labels"].astype(bool)
        own_NK = np.where(true_NK, columns["probabilities"], 1 - columns["probabilities"])
        return -np.log(np.maximum(own_NK, 1e-12)).sum(axis=1)

    def panels(self, columns: EvalColumns) -> list[Panel]:
        probabilities_NK, true_NK = columns["probabilities"], columns["labels"].astype(bool)
        right_NK = (probabilities_NK >= 0.5) == true_NK
        sure_NK = np.maximum(probabilities_NK, 1 - probabilities_NK)
        most = np.argsort(-true_NK.sum(0))[:10].tolist()
        before = None
        if self.temperatures:
            before = self.before_calibration(columns)["probabilities"].ravel()
            before = np.maximum(before, 1 - before)
        return [
            panels.reliability(sure_NK.ravel(), right_NK.ravel(), before),
            *panels.curves({self.classes[code]: (probabilities_NK[:, code], true_NK[:, code]) for code in most}),
        ]

    def classical(self, truth: Columns) -> Problem:
        from sonde.contracts.classical import Problem

        labels_NK = truth["labels"]
        assert isinstance(labels_NK, torch.Tensor)
        return Problem(kind="labels", width=self.width, truth=labels_NK)

    def metrics(self, columns: Mapping[str, np.ndarray], weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        probabilities_NK, true_NK = columns["probabilities"], columns["labels"] > 0
        predicted_NK = probabilities_NK >= self.config.threshold
        counts = metrics.tally_labels(true_NK, predicted_NK, weights_RN)
        scores = {
            "mean_average_precision": metrics.average_precision_macro(probabilities_NK, true_NK, weights_RN),
            "micro_f1": metrics.micro_f1(counts),
            "macro_f1": metrics.macro_f1(counts),
            "roc_auc": metrics.roc_auc_macro(probabilities_NK, true_NK, weights_RN),
            "subset_accuracy": metrics.mean((true_NK == predicted_NK).all(axis=1), weights_RN),
            "log_loss": metrics.mean(self.costs(columns) / max(1, len(self.classes)), weights_RN),
        }
        if len(self.classes) <= MOST:
            f1_RK = metrics.f1(counts)
            scores |= {f"f1/{name}": f1_RK[:, code] for code, name in enumerate(self.classes)}
        return scores


def _focal(logits_BK: Tensor, true_BK: Tensor, weights_K: Tensor | None, gamma: float) -> Tensor:
    """Binary focal loss (Lin et al. 2017); a truth between 0 and 1 is a mixture of both."""
    # Kept from zero, where a power below one has no gradient.
    present_BK = -torch.nn.functional.logsigmoid(logits_BK) * (-logits_BK).sigmoid().clamp_min(1e-6) ** gamma
    absent_BK = -torch.nn.functional.logsigmoid(-logits_BK) * logits_BK.sigmoid().clamp_min(1e-6) ** gamma
    if weights_K is not None:
        present_BK = present_BK * weights_K
    return torch.lerp(absent_BK, present_BK, true_BK)


def _lists(values: np.ndarray, separator: str) -> list[list[str] | None]:
    """The labels of every record as texts; None where the value is neither a list of labels nor a text."""
    return [_list(value, separator) for value in values]


def _list(value: Any, separator: str) -> list[str] | None:
    if value is None or (isinstance(value, float) and value != value):
        return []
    if isinstance(value, str):
        return list(dict.fromkeys(part.strip() for part in value.split(separator) if part.strip()))
    if isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
        texts = [text_of(label) for label in value]
        return None if None in texts else list(dict.fromkeys(text for text in texts if text is not None))
    text = text_of(value)
    return None if text is None else [text]


def _flat(values: np.ndarray) -> Iterator[Any]:
    """Every label of every record, as it stands in the data."""
    for value in values:
        if isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
            yield from value
        else:
            yield value


def _not_a_list(value: Any, field: str) -> RecordError:
    return RecordError(
        f"{value!r} in field {field!r} is not a list of labels",
        expected='a list of texts, or a text such as "red;round"',
    )


def _flags(records: Records, names: Sequence[str]) -> tuple[np.ndarray, dict[int, RecordError]]:
    """Fields of 0 and 1 as uint8 (N, K), and the errors by position."""
    present_NK = np.zeros((len(records), len(names)), dtype=np.uint8)
    errors: dict[int, RecordError] = {}
    for code, name in enumerate(names):
        values = records.fields[name]
        numbers = numbers_of(values)
        present_NK[:, code] = numbers == 1
        for index in np.flatnonzero((numbers != 0) & (numbers != 1)):
            what = "is missing" if text_of(values[index]) is None else f"is {values[index]!r}"
            errors.setdefault(int(index), RecordError(f"the label in field {name!r} {what}", expected="0 or 1"))
    return present_NK, errors


def _require_both(names: Sequence[str], counts: Sequence[int], count: int) -> None:
    for name, present in zip(names, counts, strict=True):
        if present in (0, count):
            raise UserError(
                f"field {name!r} is {int(present > 0)} in every record of the training split",
                expected="some records with 0 and some with 1",
                hint="leave it out of target.fields, or look at data.split",
            )


def _positive_weights(
    config: LabelsConfig, classes: Sequence[str], counts: Sequence[int], count: int
) -> list[float] | None:
    choice = config.positive_weights
    if isinstance(choice, str):
        return None if choice == "none" else [(count - present) / max(present, 1) for present in counts]
    require_names(choice, classes, "target.positive_weights")
    return [float(choice.get(name, 1.0)) for name in classes]
