"""One of several classes: spam or not, which digit, which flower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from sonde.contracts.decision import DecisionConfig
from sonde.contracts.input import Input
from sonde.contracts.panel import Panel
from sonde.contracts.part import agree
from sonde.contracts.records import Records
from sonde.contracts.target import Prediction, Target
from sonde.targets import _decisions, _temperature
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
from sonde.targets._decisions import Decision
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
    `label_type` is what they were in the data, and are in answers. `temperatures` bring probabilities to what was
    observed on the validation split (none, one, or one a class); `decision` is how the answered class is chosen, where
    that is not the likeliest.
    Losses: cross-entropy with label smoothing (Szegedy et al. 2016) and class weights as
    `torch.nn.functional.cross_entropy` has them, or focal (Lin et al. 2017). Shape suffixes: B example, K class.
    """

    Config = CategoryConfig
    best: ClassVar = ("accuracy", "max")
    baseline_name: ClassVar = "majority class"
    tie_break: ClassVar = ("log_loss", "min")
    lower_is_better: ClassVar = frozenset({"log_loss", "brier", "ece", "rms_calibration_error", "cost", "alarms"})
    no_shares: ClassVar = frozenset({"cost"})
    calibrations: ClassVar = _temperature.METHODS

    config: CategoryConfig
    classes: list[str]
    class_counts: list[int]
    weights: list[float] | None
    label_type: LabelType = "text"
    temperatures: list[float] = field(default_factory=list)
    decision: Decision | None = None

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
        count = len(self.classes)
        agree(len(self.temperatures) in (0, 1, count), f"{len(self.temperatures)} temperatures for {count} classes")
        agree(all(each > 0 for each in self.temperatures), "a temperature is not above 0")
        if self.decision is not None:
            _decisions.agrees(self.decision, count)

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator, given: Records) -> tuple[CategoryConfig, Records]:
        labels = objects([["cat", "dog", "owl"][index % 3] for index in range(count)])
        return CategoryConfig(smoothing=0.1), Records(fields={"label": labels}, ids=[f"row {i}" for i in range(count)])

    @property
    def width(self) -> int:
        return len(self.classes)

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

    def attack_loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """How far the likeliest wrong class is above the true one (Carlini and Wagner 2017). Cross-entropy has no
        gradient left where a network is very sure."""
        logits_BK = network(batch.inputs).float()
        true_B1 = batch.truth["class"][:, None]
        wrong_B = logits_BK.scatter(1, true_B1, -torch.inf).amax(1)
        return (wrong_B - logits_BK.gather(1, true_B1)[:, 0]).sum()

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
        probabilities_BK = self._probabilities(network(batch.inputs))
        best_B = _decisions.choose(self.decision, probabilities_BK.cpu().numpy()).tolist()
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
        return {"probabilities": self._probabilities(network(batch.inputs)), "class": batch.truth["class"]}

    def _probabilities(self, logits_BK: Tensor) -> Tensor:
        return _temperature.softmax_at(self.temperatures, logits_BK.float())

    def calibrate(self, columns: EvalColumns, method: str, weight_N: np.ndarray | None = None) -> Self:
        """By the temperature, or one for each answered class."""
        found = _temperature.fit_softmax(columns["probabilities"], columns["class"], method, weight_N)
        return replace(self, temperatures=found)

    def calibrated(self, columns: EvalColumns) -> EvalColumns:
        scales = [1 / each for each in self.temperatures]
        return {**columns, "probabilities": _temperature.rescale_softmax(columns["probabilities"], scales)}

    def before_calibration(self, columns: EvalColumns) -> EvalColumns:
        return {**columns, "probabilities": _temperature.rescale_softmax(columns["probabilities"], self.temperatures)}

    def uncalibrated(self) -> Self:
        return replace(self, temperatures=[], decision=None)

    def check_decision(self, config: DecisionConfig) -> None:
        _decisions.check(config, self.classes)

    def decide(self, config: DecisionConfig, columns: EvalColumns) -> tuple[Self, list[str]]:
        if not config.decides:
            return self, []
        decision, notes = _decisions.learn(config, columns["probabilities"], columns["class"], self.classes)
        return replace(self, decision=decision), notes

    def decision_in_words(self, columns: EvalColumns) -> str | None:
        if self.decision is None:
            return None
        return _decisions.in_words(self.decision, columns["probabilities"], columns["class"], self.classes)

    def nonconformity(self, columns: EvalColumns) -> np.ndarray:
        """One minus the probability of the truth: least ambiguous sets (Sadinle et al. 2019)."""
        return 1 - columns["probabilities"][np.arange(len(columns["class"])), columns["class"]].astype(np.float64)

    def regions(self, answers: Tensor, limits: np.ndarray) -> list[Prediction]:
        """{"set": [labels]}, the likeliest first; the answer is always among them, so that no set is empty."""
        probabilities_BK = self._probabilities(answers).cpu().numpy()
        inside_BK = 1 - probabilities_BK.astype(np.float64) <= limits
        inside_BK[np.arange(len(inside_BK)), _decisions.choose(self.decision, probabilities_BK)] = True
        order_BK = np.argsort(-probabilities_BK, axis=1, kind="stable")
        return [
            {"set": [value_of(self.classes[code], self.label_type) for code in order_K if inside_K[code]]}
            for order_K, inside_K in zip(order_BK.tolist(), inside_BK, strict=True)
        ]

    def region_sizes(self, regions: Sequence[Prediction]) -> list[float]:
        return [float(len(each["set"])) for each in regions]

    def unsureness(self, answers: Tensor) -> Mapping[str, Tensor]:
        """One minus the largest probability (Hendrycks and Gimpel 2017), and the energy (Liu et al. 2020)."""
        logits_BK = answers.float()
        return {"max-softmax": 1 - logits_BK.softmax(1).max(1).values, "energy": -logits_BK.logsumexp(1)}

    def right(self, columns: EvalColumns) -> np.ndarray:
        return _decisions.choose(self.decision, columns["probabilities"]) == columns["class"]

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
        answered_N = _decisions.choose(self.decision, probabilities_NK)
        found = [panels.confusion(true_N, answered_N, self.classes)] if len(self.classes) <= 50 else []
        right_N = probabilities_NK.argmax(1) == true_N
        before = self.before_calibration(columns)["probabilities"].max(1) if self.temperatures else None
        found.append(panels.reliability(probabilities_NK.max(1), right_N, before))
        if self.decision is not None:
            found.append(_decisions.panel(self.decision, probabilities_NK, true_N, self.classes))
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
        predicted_N = _decisions.choose(self.decision, probabilities_NK)
        confidence_N, likeliest_N = probabilities_NK.max(axis=1), probabilities_NK.argmax(axis=1) == true_N
        counts = metrics.tally(true_N, predicted_N, num_classes, weights_RN)
        scores = {
            "accuracy": metrics.accuracy(counts),
            "balanced_accuracy": metrics.balanced_accuracy(counts),
            "macro_f1": metrics.macro_f1(counts),
            "roc_auc": _roc_auc(probabilities_NK, true_N, weights_RN),
            "log_loss": metrics.log_loss(probabilities_NK, true_N, weights_RN),
            "brier": metrics.brier(probabilities_NK, true_N, weights_RN),
            "ece": metrics.debiased_calibration_error(confidence_N, likeliest_N, weights_RN),
            "rms_calibration_error": metrics.rms_calibration_error(confidence_N, likeliest_N, weights_RN),
        }
        if self.decision is not None and self.decision["costs"]:
            scores["cost"] = metrics.mean(_decisions.costs_of(self.decision, true_N, predicted_N), weights_RN)
        elif self.decision is not None:
            scores["alarms"] = metrics.mean(predicted_N == self.decision["wanted"], weights_RN)
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
