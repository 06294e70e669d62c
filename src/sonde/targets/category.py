"""One of several classes: spam or not, which digit, which flower."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Self

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
from sonde.contracts.records import Record, Records
from sonde.contracts.target import Prediction, Target
from sonde.targets import _panels as panels
from sonde.targets._classes import (
    MOST,
    ClassWeights,
    LabelType,
    check_classes,
    class_weights,
    codes_of,
    objects,
    texts_of,
    type_of,
    value_of,
    wrong_label,
)
from sonde.targets._sums import examples, weighted_sum

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sonde.contracts.classical import Problem

# More different numbers with decimals than this are a quantity, not names.
MANY_NUMBERS = 100


class CategoryConfig(Config):
    kind: Literal["category"] = "category"
    field: str = Field(default="label", description="the field that holds the class")
    loss: Literal["cross-entropy", "focal"] = Field(
        default="cross-entropy", description="focal: easy examples count less"
    )
    gamma: float = Field(default=2.0, ge=0, description="how much less, for the focal loss")
    smoothing: float = Field(default=0.0, ge=0, lt=1, description="share of the truth that is spread over all classes")
    class_weights: ClassWeights = Field(
        default="none", description="balanced: every class has the same say; or a table of weights by class name"
    )


@dataclass(frozen=True, kw_only=True)
class Category(Target):
    """Truth: "class" int64 (B,); after mixing also "partner" int64 (B,) and "share" float32 (B,).

    Classes are sorted by name; `class_counts` are their training records, `weights` what each counts in the loss;
    `label_type` is what they were in the data, and are in answers.
    Losses: cross-entropy with label smoothing (Szegedy et al. 2016) and class weights as
    `torch.nn.functional.cross_entropy` has them, or focal (Lin et al. 2017). Shape suffixes: B example, K class.
    """

    Config = CategoryConfig
    best: ClassVar = ("accuracy", "max")
    baseline_name: ClassVar = "majority class"
    tie_break: ClassVar = ("log_loss", "min")
    lower_is_better: ClassVar = frozenset({"log_loss", "rms_calibration_error"})

    config: CategoryConfig
    classes: list[str]
    class_counts: list[int]
    weights: list[float] | None
    label_type: LabelType = "text"

    @classmethod
    def fit(cls, config: CategoryConfig, records: Records, inputs: Mapping[str, Input]) -> Self:
        if config.field not in records.fields:
            raise unknown(config.field, records.fields, what="the field")
        labels = records.fields[config.field]
        texts = texts_of(labels)
        names, counts = np.unique(objects([text for text in texts if text is not None]), return_counts=True)
        _require_classes(config.field, labels, names.tolist(), counts.tolist())
        return cls(
            config=config,
            classes=names.tolist(),
            class_counts=counts.tolist(),
            weights=class_weights(config.class_weights, names.tolist(), counts.tolist()),
            label_type=type_of(labels),
        )

    def check_fitted(self, inputs: Mapping[str, Input]) -> None:
        check_classes(self.classes, self.class_counts, self.weights)

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator, given: Records) -> tuple[CategoryConfig, Records]:
        labels = objects([["cat", "dog", "owl"][index % 3] for index in range(count)])
        return CategoryConfig(smoothing=0.1), Records(fields={"label": labels}, ids=[f"row {i}" for i in range(count)])

    @property
    def width(self) -> int:
        return len(self.classes)

    def encode(self, record: Record, given: Mapping[str, Tensors]) -> Tensors:
        columns, errors = self.encode_many(
            Records(fields={self.config.field: objects([record.get(self.config.field)])}, ids=["the record"]), {}
        )
        if errors:
            raise errors[0]
        return {"class": columns["class"][0]}

    def encode_many(self, records: Records, given: Mapping[str, Columns]) -> tuple[Columns, dict[int, RecordError]]:
        labels = records.fields.get(self.config.field, objects([None] * len(records)))
        codes = codes_of(texts_of(labels), self.classes)
        errors = {
            int(index): wrong_label(labels[index], self.classes, self.config.field)
            for index in np.flatnonzero(codes < 0)
        }
        return {"class": torch.from_numpy(codes[codes >= 0])}, errors

    def apply_augment(self, truth: Tensors, params: AugmentParams) -> Tensors:
        if params.mix_weight_B is None:
            return truth
        if "share" in truth:
            raise UserError(
                "two inputs mix their examples, each its own way", hint="let one input only mix (mixup, cutmix)"
            )
        return {**truth, "partner": partner(truth["class"]), "share": params.mix_weight_B}

    @property
    def _term(self) -> str:
        return self.config.loss.replace("-", "_")

    def counts(self, batch: Batch) -> Tensors:
        if self.weights is None:
            return {self._term: examples(batch)}
        weights_K = constant(self.weights, batch.records_B.device)
        counted_B = weights_K[batch.truth["class"]]
        if "share" in batch.truth:
            counted_B = torch.lerp(weights_K[batch.truth["partner"]], counted_B, batch.truth["share"])
        return {self._term: weighted_sum(counted_B, batch.weight_B)}

    def loss(self, network: nn.Module, batch: Batch, rng: BatchRng) -> Tensors:
        logits_BK = network(batch.inputs).float()
        cost_B = self._cost(logits_BK, batch.truth["class"])
        if "share" in batch.truth:
            cost_B = torch.lerp(self._cost(logits_BK, batch.truth["partner"]), cost_B, batch.truth["share"])
        return {self._term: weighted_sum(cost_B, batch.weight_B)}

    def _cost(self, logits_BK: Tensor, class_B: Tensor) -> Tensor:
        smoothing = self.config.smoothing
        weights_K = None if self.weights is None else constant(self.weights, logits_BK.device)
        if self.config.loss == "cross-entropy":
            return torch.nn.functional.cross_entropy(
                logits_BK, class_B, weight=weights_K, label_smoothing=smoothing, reduction="none"
            )
        log_BK = torch.nn.functional.log_softmax(logits_BK, dim=1)
        # Kept from zero, where a power below one has no gradient.
        rest_BK = (-torch.expm1(log_BK)).clamp_min(1e-6)
        cost_BK = -log_BK * rest_BK**self.config.gamma
        if weights_K is not None:
            cost_BK = cost_BK * weights_K
        cost_B = cost_BK.gather(1, class_B[:, None])[:, 0]
        return torch.lerp(cost_B, cost_BK.mean(1), smoothing) if smoothing else cost_B

    @without_gradient
    def predict(self, network: nn.Module, batch: Batch) -> list[Prediction]:
        """{"label", "confidence", "probabilities": {class: p}}; of many classes the 20 likeliest, best first.

        The label is a text, a whole number or a boolean, as in the data; JSON's keys are texts.
        """
        probabilities_BK = network(batch.inputs).float().softmax(1)
        best_B = probabilities_BK.argmax(1).tolist()
        rows = probabilities_BK.tolist()
        if len(self.classes) > MOST:
            tops = probabilities_BK.topk(MOST, dim=1).indices.tolist()
        else:
            tops = [range(len(self.classes))] * len(rows)
        return [
            {
                "label": value_of(self.classes[best], self.label_type),
                "confidence": row[best],
                "probabilities": {self.classes[code]: row[code] for code in top},
            }
            for best, row, top in zip(best_B, rows, tops, strict=True)
        ]

    @without_gradient
    def eval_outputs(self, network: nn.Module, batch: Batch) -> Columns:
        return {"probabilities": network(batch.inputs).float().softmax(1), "class": batch.truth["class"]}

    def baseline(self, truth: Columns) -> Columns:
        """The shares of the classes in training: the majority class is predicted."""
        share_K = torch.tensor(self.class_counts, dtype=torch.float32)
        share_K /= share_K.sum()
        return {"probabilities": share_K.expand(len(truth["class"]), -1), "class": truth["class"]}

    def costs(self, columns: EvalColumns) -> np.ndarray:
        """The negative log probability of the true class."""
        own_N = columns["probabilities"][np.arange(len(columns["class"])), columns["class"]]
        return -np.log(np.maximum(own_N, 1e-12))

    def panels(self, columns: EvalColumns) -> list[Panel]:
        probabilities_NK, true_N = columns["probabilities"], columns["class"]
        found = [panels.confusion(true_N, probabilities_NK.argmax(1), self.classes)] if len(self.classes) <= 50 else []
        right_N = probabilities_NK.argmax(1) == true_N
        found.append(panels.reliability(probabilities_NK.max(1), right_N))
        if len(self.classes) == 2:
            found += panels.curves({self.classes[1]: (probabilities_NK[:, 1], true_N == 1)})
        elif len(self.classes) <= 10:
            one_against_rest = {
                name: (probabilities_NK[:, code], true_N == code) for code, name in enumerate(self.classes)
            }
            found += panels.curves(one_against_rest)
        return found

    def classical(self, truth: Columns) -> Problem:
        from sonde.contracts.classical import Problem

        class_N = truth["class"]
        assert isinstance(class_N, torch.Tensor)
        weight_N = None if self.weights is None else torch.tensor(self.weights, dtype=torch.float64)[class_N]
        return Problem(kind="classes", width=self.width, truth=class_N, weight_N=weight_N)

    def metrics(self, columns: Mapping[str, np.ndarray], weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        probabilities_NK, true_N = columns["probabilities"], columns["class"]
        num_classes = len(self.classes)
        predicted_N = probabilities_NK.argmax(axis=1)
        counts = metrics.tally(true_N, predicted_N, num_classes, weights_RN)
        scores = {
            "accuracy": metrics.accuracy(counts),
            "balanced_accuracy": metrics.balanced_accuracy(counts),
            "macro_f1": metrics.macro_f1(counts),
            "roc_auc": _roc_auc(probabilities_NK, true_N, weights_RN),
            "log_loss": metrics.log_loss(probabilities_NK, true_N, weights_RN),
            "rms_calibration_error": metrics.rms_calibration_error(
                probabilities_NK.max(axis=1), predicted_N == true_N, weights_RN
            ),
        }
        if num_classes > 10:
            scores["top5_accuracy"] = metrics.top_accuracy(probabilities_NK, true_N, weights_RN, most=5)
        if num_classes <= MOST:
            recall_RK, precision_RK = metrics.recall(counts), metrics.precision(counts)
            scores |= {f"recall/{name}": recall_RK[:, code] for code, name in enumerate(self.classes)}
            scores |= {f"precision/{name}": precision_RK[:, code] for code, name in enumerate(self.classes)}
        return scores


def _roc_auc(probabilities_NK: np.ndarray, true_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    if probabilities_NK.shape[1] == 2:
        return metrics.roc_auc(probabilities_NK[:, 1], true_N == 1, weights_RN)
    positive_NK = true_N[:, None] == np.arange(probabilities_NK.shape[1])
    return metrics.roc_auc_macro(probabilities_NK, positive_NK, weights_RN)


def _require_classes(field: str, labels: np.ndarray, names: list[str], counts: list[int]) -> None:
    if not names:
        error = wrong_label(labels[0], [], field) if len(labels) else None
        raise UserError(
            f"no record of the training split has a label in field {field!r}", hint=error.hint if error else None
        )
    if len(names) == 1:
        raise UserError(
            f"all {counts[0]:,} labels in field {field!r} of the training split are {names[0]!r}",
            expected="at least two classes",
            hint="look at data.split, or choose another target.field",
        )
    if labels.dtype.kind == "f" and len(names) > MANY_NUMBERS and any("." in name for name in names):
        raise UserError(
            f"field {field!r} holds {len(names):,} different numbers, such as {names[0]}",
            expected="the names of classes",
            hint='quantities are learned by the target kind "number"',
        )
