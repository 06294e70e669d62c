"""Two inputs that belong together, each as a vector near its partner's: pictures and texts (CLIP, SigLIP)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from sonde import metrics
from sonde.base.config import Config
from sonde.base.errors import RecordError, UserError, unknown
from sonde.base.gradients import without_gradient
from sonde.base.rng import BatchRng, generator
from sonde.contracts.augment import AugmentParams
from sonde.contracts.batch import Batch
from sonde.contracts.columns import Columns, EvalColumns, Ragged, Tensors
from sonde.contracts.fingerprints import fingerprints
from sonde.contracts.input import Input
from sonde.contracts.part import agree
from sonde.contracts.records import Record, Records, is_missing
from sonde.contracts.specs import Advice, Features, FeatureWidth, InputSpec, OutputSpec
from sonde.contracts.target import PairwiseTarget, Prediction
from sonde.targets import _pairs
from sonde.targets._classes import objects, text_of, texts_of
from sonde.targets._nearest import nearest
from sonde.targets._sums import examples, weighted_sum

if TYPE_CHECKING:
    from torch import Tensor, nn

# The learned temperature stays above 1 / this (Radford et al. 2021, CLIP).
LARGEST_SCALE = 100.0
# The first temperature, and the first bias of the sigmoid loss (Radford et al. 2021; Zhai et al. 2023, SigLIP).
FIRST_SCALE = {"softmax": 1 / 0.07, "sigmoid": 10.0}
FIRST_BIAS = -10.0
RECALL_AT = (1, 5, 10)
# With fewer pairs held out than this, chance alone finds many.
FEWEST_JUDGED = 50
# Both sides of a pair, as tensors and columns call them.
SIDES = ("first", "second")


class ZeroShot(Config):
    """Classes told apart by a sentence for each: no class is trained."""

    field: str = Field(description="the field that holds the class of a record")
    prompt: str = Field(default="{}", description="the sentence for a class; {} stands for its name")

    @model_validator(mode="after")
    def _has_a_place(self) -> Self:
        if self.prompt.count("{}") != 1:
            raise ValueError(f"the prompt {self.prompt!r} has no place for the class: expected {{}} once")
        return self


class MatchConfig(Config):
    kind: Literal["match"] = "match"
    width: int = Field(default=128, ge=1, description="numbers in the vectors that are compared")
    loss: Literal["softmax", "sigmoid"] = Field(
        default="softmax", description="softmax over the batch, both ways (CLIP); sigmoid of each pair (SigLIP)"
    )
    zero_shot: ZeroShot | None = Field(
        default=None, description="{ field, prompt }: classes told apart by a sentence for each, scored and answered"
    )
    remember: int = Field(default=20_000, ge=0, description="training pairs that the artifact searches, at most")
    nearest: int = Field(default=5, ge=1, description="how many of them an answer names, each way")
    answer_embedding: bool = Field(default=False, description="give the numbers of both vectors in the answer, too")


@dataclass(frozen=True, kw_only=True)
class Match(PairwiseTarget):
    """Truth: "codes" int64 (B, 2), a hash of each side of a pair, so that pairs that share a side are no negatives of
    each other; with `zero_shot` also "zero_shot" int64 (B,), -1 where a class was not in training.

    `names` are the two inputs, in the recipe's order, `ragged` their columns that are; `classes` with `prompts_KT` and
    `lengths_K`, the tokens of their sentences. What `remember` kept: both sides of training pairs, `known_first_NW` and
    `known_second_NW` float32, and their `known_ids`.
    Losses: the mean over the pairs of a batch of what both ways cost (see `sonde.targets._pairs`).
    Scores: each held-out record looks for its partner among all of its split, so that they depend on its size.
    B example, K class, T token, N record, W width.
    """

    Config = MatchConfig
    best: ClassVar = ("mean_recall", "max")
    baseline_name: ClassVar = "at random"
    needs_truth: ClassVar[bool] = False
    num_inputs: ClassVar[int] = 2
    remembers: ClassVar[bool] = True

    config: MatchConfig
    names: list[str]
    ragged_columns: dict[str, list[str]]
    classes: list[str]
    prompts_KT: Tensor
    lengths_K: Tensor
    known_first_NW: Tensor
    known_second_NW: Tensor
    known_ids: list[str]

    @classmethod
    def fit(cls, config: MatchConfig, records: Records, inputs: Mapping[str, Input]) -> Self:
        if len(inputs) != 2:
            raise UserError(
                f"target 'match' brings two inputs together; the recipe has {len(inputs)}: {', '.join(inputs)}",
                hint="give two, such as [inputs.image] and [inputs.text]",
            )
        classes: list[str] = []
        prompts_KT, lengths_K = torch.empty(0, 0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
        if config.zero_shot is not None:
            classes = _classes(config.zero_shot, records)
            prompts_KT, lengths_K = _prompts(config.zero_shot, classes, inputs)
        return cls(
            config=config,
            names=list(inputs),
            ragged_columns={name: list(part.ragged) for name, part in inputs.items()},
            classes=classes,
            prompts_KT=prompts_KT,
            lengths_K=lengths_K,
            known_first_NW=torch.empty(0, config.width),
            known_second_NW=torch.empty(0, config.width),
            known_ids=[],
        )

    @staticmethod
    def fields(config: MatchConfig) -> list[str]:
        return [] if config.zero_shot is None else [config.zero_shot.field]

    def check_fitted(self, inputs: Mapping[str, Input]) -> None:
        agree(self.names == list(inputs), f"it is for the inputs {self.names}")
        agree(set(self.ragged_columns) == set(inputs), "ragged_columns names other inputs")
        agree(
            (self.config.zero_shot is None) == (not self.classes), "it has classes without zero_shot, or none with it"
        )
        agree(len(set(self.classes)) == len(self.classes), "a class is there twice")
        prompts, lengths = self.prompts_KT, self.lengths_K
        agree(prompts.ndim == 2 and len(prompts) == len(lengths) == len(self.classes), "not one prompt for each class")
        agree(not prompts.is_floating_point() and lengths.dtype == torch.int64, "prompts are no whole numbers")
        if len(lengths):
            agree(int(lengths.min()) >= 1 and int(lengths.max()) <= prompts.shape[1], "a prompt's length is wrong")
            spec = inputs[self._text(inputs)].spec
            agree(int(prompts.min()) >= 0 and int(prompts.max()) < spec.vocabulary, "a prompt has an unknown token")
            agree(prompts.shape[1] <= spec.size[0], "a prompt is longer than a text may be")
        for held in (self.known_first_NW, self.known_second_NW):
            agree(held.dtype == torch.float32, "a remembered side is not float32")
            agree(held.shape == (len(self.known_ids), self.config.width), "a remembered side is not (N, width)")
            agree(bool(torch.isfinite(held).all()), "a remembered number is NaN or infinite")

    @staticmethod
    def _text(inputs: Mapping[str, Input]) -> str:
        """The input that sentences are for."""
        found = [name for name, part in inputs.items() if part.spec.layout == "tokens" and not part.spec.subwords]
        if len(found) != 1:
            raise UserError(
                f"target.zero_shot needs one input of texts, to read a sentence for each class; there are {len(found)}",
                hint="leave zero_shot out",
            )
        return found[0]

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator, given: Records) -> tuple[MatchConfig, Records]:
        return MatchConfig(width=8), Records(fields={}, ids=[f"row {index}" for index in range(count)])

    @classmethod
    def recommend(cls, config: MatchConfig, inputs: Mapping[str, Config], records: Records) -> Advice:
        """Large batches: every other pair of a batch is a negative."""
        return Advice(training={"batch_size": 128 if len(records) >= 1000 else 64})

    def outputs(self, inputs: Mapping[str, InputSpec]) -> dict[str, OutputSpec]:
        return dict.fromkeys(inputs, OutputSpec(per=("example",)))

    def head(self, widths: Mapping[str, FeatureWidth]) -> nn.Module:
        return Towers({name: width for name, width in widths.items() if isinstance(width, int)}, self.config)

    def encode(self, record: Record, given: Mapping[str, Tensors]) -> Tensors:
        columns: dict[str, Columns] = {
            name: {
                key: Ragged.of([value]) if key in self.ragged_columns[name] else value[None]
                for key, value in tensors.items()
            }
            for name, tensors in given.items()
        }
        fields = {name: objects([record.get(name)]) for name in self.fields(self.config)}
        found, errors = self.encode_many(Records(fields=fields, ids=["the record"]), columns)
        for error in errors.values():
            raise error
        return {name: column[0] for name, column in found.items()}

    def encode_many(self, records: Records, given: Mapping[str, Columns]) -> tuple[Columns, dict[int, RecordError]]:
        hashes = [fingerprints({"side": given[name]}) for name in self.names]
        truth: Columns = {"codes": torch.from_numpy(np.stack(hashes, axis=1).view(np.int64))}
        if self.config.zero_shot is not None:
            places = {name: place for place, name in enumerate(self.classes)}
            held = records.fields.get(self.config.zero_shot.field, objects([None] * len(records)))
            truth["zero_shot"] = torch.tensor(
                [places.get(text or "", -1) for text in texts_of(held)], dtype=torch.int64
            )
        return truth, {}

    def apply_augment(self, truth: Tensors, params: AugmentParams) -> Tensors:
        if params.mix_weight_B is not None:
            raise UserError(
                "mixup and cutmix make one record of two; a pair has one partner",
                hint="take mixup and cutmix out of the input's augment",
            )
        return truth

    @property
    def _term(self) -> str:
        return f"match_{self.config.loss}"

    def counts(self, batch: Batch) -> Tensors:
        return {self._term: examples(batch)}

    def embed(self, network: nn.Module, batch: Batch, rng: BatchRng) -> Tensors:
        held = {**self._sides(network(batch.inputs)), "codes": batch.truth["codes"]}
        return held if batch.weight_B is None else {**held, "weight": batch.weight_B}

    def _sides(self, answers: Tensors) -> Tensors:
        """The head's answers under names that no input can take."""
        sides = dict(zip(SIDES, (answers[f"of_{name}"] for name in self.names), strict=True))
        return sides | {name: answers[name] for name in ("scale", "bias")}

    def compare(self, embeddings: Tensors) -> Tensors:
        codes_B2 = embeddings["codes"]
        with torch.autocast(codes_B2.device.type, enabled=False):
            first_BW, second_BW = (embeddings[side].float() for side in SIDES)
            # One scale for all: given per example, so that its gradient comes back from every part of the batch.
            logits_BB = first_BW @ second_BW.T * embeddings["scale"].float().mean()
            shared_BB = (codes_B2[:, None] == codes_B2[None]).any(2)
            if self.config.loss == "sigmoid":
                cost_B = _pairs.sigmoid_match(logits_BB + embeddings["bias"].float().mean(), shared_BB)
            else:
                cost_B = _pairs.softmax_match(logits_BB, shared_BB)
        return {self._term: weighted_sum(cost_B, embeddings.get("weight"))}

    @without_gradient
    def predict(self, network: nn.Module, batch: Batch) -> list[Prediction]:
        """{"similarity", FIRST_to_SECOND: [{"id", "similarity"}, ...], SECOND_to_FIRST: [...]}: the cosine of the two
        sides, and for each the remembered training pairs whose other side is nearest to it. With `zero_shot` also
        "class" and "probability", with `answer_embedding` "embeddings"."""
        answers = network(batch.inputs)
        sides = self._sides(answers)
        first_BW, second_BW = (sides[side].float().cpu() for side in SIDES)
        one, other = self.names
        found = zip(
            (first_BW.double() * second_BW.double()).sum(1).tolist(),
            nearest(first_BW, self.known_second_NW, self.config.nearest, "cosine"),
            nearest(second_BW, self.known_first_NW, self.config.nearest, "cosine"),
            strict=True,
        )
        told: list[Prediction] = [
            {"similarity": cosine, f"{one}_to_{other}": self._known(there), f"{other}_to_{one}": self._known(back)}
            for cosine, there, back in found
        ]
        if self.classes:
            probability_BK = self._class_logits(network, sides, batch).softmax(1).cpu()
            for answer, (probability, place) in zip(told, zip(*probability_BK.max(1), strict=True), strict=True):
                answer |= {"class": self.classes[int(place)], "probability": float(probability)}
        if self.config.answer_embedding:
            for answer, row_1, row_2 in zip(told, first_BW.tolist(), second_BW.tolist(), strict=True):
                answer["embeddings"] = {one: row_1, other: row_2}
        return told

    def _known(self, found: list[tuple[int, float]]) -> list[dict[str, Any]]:
        return [{"id": self.known_ids[place], "similarity": cosine} for place, cosine in found]

    def _class_logits(self, network: nn.Module, sides: Tensors, batch: Batch) -> Tensor:
        """What is not a text, compared with the sentence of each class: (B, K)."""
        text = next(name for name in self.names if "tokens" in batch.inputs[name])
        other_BW = sides[SIDES[1 - self.names.index(text)]].float()
        prompts = {"tokens": self.prompts_KT.to(other_BW.device), "length": self.lengths_K.to(other_BW.device)}
        # Only the assembled network knows its backbones one by one.
        features = network.features_of(text, prompts)  # type: ignore[operator]
        prompts_KW = network.answer({text: features})[f"of_{text}"].float()  # type: ignore[operator]
        return other_BW @ prompts_KW.T * sides["scale"].float()[:, None]

    @without_gradient
    def eval_outputs(self, network: nn.Module, batch: Batch) -> Columns:
        sides = self._sides(network(batch.inputs))
        columns: Columns = {**{side: sides[side].float() for side in SIDES}, "codes": batch.truth["codes"]}
        if self.classes:
            columns["predicted"] = self._class_logits(network, sides, batch).argmax(1)
            columns["class"] = batch.truth["zero_shot"]
        return columns

    def baseline(self, truth: Columns) -> Columns:
        """Vectors drawn at random."""
        shape = (len(truth["codes"]), self.config.width)
        columns: Columns = {
            side: torch.nn.functional.normalize(torch.randn(shape, generator=generator("match", side)), dim=1)
            for side in SIDES
        }
        columns["codes"] = truth["codes"]
        if self.classes:
            drawn = torch.randint(len(self.classes), shape[:1], generator=generator("match", "class"))
            columns |= {"predicted": drawn, "class": truth["zero_shot"]}
        return columns

    def metrics(self, columns: EvalColumns, weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        """recall at 1, 5 and 10 each way, their mean, and the median rank; a partner of the same content counts."""
        first_NW, second_NW, codes_N2 = columns["first"], columns["second"], columns["codes"]
        one, other = self.names
        ranks = {
            f"{one}_to_{other}": metrics.partner_rank(first_NW, second_NW, codes_N2),
            f"{other}_to_{one}": metrics.partner_rank(second_NW, first_NW, codes_N2),
        }
        scores = {
            f"recall_at_{k}/{way}": metrics.nanmean(np.where(np.isnan(rank_N), np.nan, rank_N <= k), weights_RN)
            for way, rank_N in ranks.items()
            for k in RECALL_AT
        }
        found = {"mean_recall": np.mean([*scores.values()], axis=0), **scores}
        for way, rank_N in ranks.items():
            found[f"mean_reciprocal_rank/{way}"] = metrics.nanmean(1 / rank_N, weights_RN)
        if self.classes:
            right_N = np.where(columns["class"] < 0, np.nan, columns["predicted"] == columns["class"])
            found["zero_shot_accuracy"] = metrics.nanmean(right_N, weights_RN)
        return found

    def costs(self, columns: EvalColumns) -> np.ndarray:
        """1 less the similarity of the two sides."""
        return 1 - (np.asarray(columns["first"], np.float64) * columns["second"]).sum(1)

    def warnings(self, columns: EvalColumns) -> list[str]:
        first_NW, second_NW = (np.asarray(columns[side], np.float64) for side in SIDES)
        if len(first_NW) < FEWEST_JUDGED or not np.isfinite(first_NW).all() or not np.isfinite(second_NW).all():
            return []
        rank_N = metrics.partner_rank(first_NW, second_NW, columns["codes"])
        share = float((rank_N <= 1).mean())
        if share > 1 / len(rank_N) + 2 * np.sqrt(1 / len(rank_N) / len(rank_N)):
            return []
        one, other = self.names
        return [
            f"{one!r} and {other!r} of the validation split do not find each other: {share:.1%} are first among "
            f"{len(rank_N):,}, and chance gives {1 / len(rank_N):.1%}; train longer, with larger batches or another "
            "training.optimizer.lr, and check that the two fields of a record belong together"
        ]

    def remember(self, columns: EvalColumns, ids: Sequence[str]) -> Self:
        chosen = np.unique(np.linspace(0, len(ids) - 1, min(self.config.remember, len(ids))).astype(int))
        chosen = chosen if self.config.remember else chosen[:0]
        held = [torch.from_numpy(np.ascontiguousarray(columns[side][chosen], np.float32)) for side in SIDES]
        known_ids = [ids[place] for place in chosen.tolist()]
        return replace(self, known_first_NW=held[0], known_second_NW=held[1], known_ids=known_ids)


class Towers(torch.nn.Module):
    """Features of two inputs to {"of_NAME": (B, width) of length 1, ..., "scale": (B,), "bias": (B,)}, in float32;
    `scale` is 1 / temperature. Features of one input give that one alone."""

    def __init__(self, widths: Mapping[str, int], config: MatchConfig) -> None:
        super().__init__()
        self.answer = torch.nn.ModuleDict(
            {f"of_{name}": torch.nn.Linear(width, config.width, bias=False) for name, width in widths.items()}
        )
        self.log_scale = torch.nn.Parameter(torch.full((1,), float(np.log(FIRST_SCALE[config.loss]))))
        self.bias = torch.nn.Parameter(torch.full((1,), FIRST_BIAS)) if config.loss == "sigmoid" else None

    def forward(self, features: Mapping[str, Features]) -> Tensors:
        answers: Tensors = {}
        count = 0
        for name, each in features.items():
            assert isinstance(each.values, torch.Tensor)
            count = len(each.values)
            with torch.autocast(each.values.device.type, enabled=False):
                projected_BW = self.answer[f"of_{name}"](each.values.float())
                answers[f"of_{name}"] = torch.nn.functional.normalize(projected_BW, dim=1, eps=1e-6)
        answers["scale"] = self.log_scale.exp().clamp(max=LARGEST_SCALE).expand(count)
        answers["bias"] = (torch.zeros_like(self.log_scale) if self.bias is None else self.bias).expand(count)
        return answers


def _classes(zero_shot: ZeroShot, records: Records) -> list[str]:
    if zero_shot.field not in records.fields:
        raise unknown(zero_shot.field, records.fields, what="target.zero_shot: the field")
    held = records.fields[zero_shot.field]
    names = sorted({text for value in held[~is_missing(held)].tolist() if (text := text_of(value))})
    if len(names) < 2:
        raise UserError(
            f"field {zero_shot.field!r} of target.zero_shot has {len(names)} class in the training split",
            expected="two or more",
        )
    return names


def _prompts(zero_shot: ZeroShot, classes: list[str], inputs: Mapping[str, Input]) -> tuple[Tensor, Tensor]:
    """The sentence of each class as the network takes it: tokens (K, T) and lengths (K,)."""
    part = inputs[Match._text(inputs)]
    sentences = objects([zero_shot.prompt.replace("{}", name) for name in classes])
    fields = {part.config.field: sentences, **{name: objects([""] * len(classes)) for name in part.config.also}}
    columns, errors = part.encode_many(Records(fields=fields, ids=classes))
    for error in errors.values():
        raise error
    tensors = part.preprocess(part.collate(columns))
    return tensors["tokens"], tensors["length"].to(torch.int64)
