"""A vector for each record, near those of its class: for classes that training never saw, and for what is alike."""

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
from sonde.base.rng import BatchRng, generator, key
from sonde.contracts.augment import AugmentParams
from sonde.contracts.batch import Batch
from sonde.contracts.columns import Columns, EvalColumns, Tensors
from sonde.contracts.input import Input
from sonde.contracts.part import agree
from sonde.contracts.records import Records
from sonde.contracts.specs import Advice, Features, FeatureWidth
from sonde.contracts.target import PairwiseTarget, Prediction
from sonde.targets import _pairs
from sonde.targets._classes import LabelType, objects, texts_of, type_of, value_of, wrong_label
from sonde.targets._nearest import nearest
from sonde.targets._sums import examples, weighted_sum

if TYPE_CHECKING:
    from torch import Tensor, nn

# Few-shot episodes that are scored: ways and shots.
EPISODES = ((5, 1), (5, 5), (20, 1))
# With fewer classes none is spared for validation and test alone.
FEWEST_CLASSES = 10
# Margins that are usual for distances of embeddings of norm 1.
MARGINS = {"triplet": 0.2, "contrastive": 1.0}
# A learned temperature stays above 1 / this (Radford et al. 2021, CLIP).
LARGEST_SCALE = 100.0
# How many records are looked at, at most and at least, to say whether embeddings mean anything.
JUDGED, FEWEST_JUDGED = 2000, 50
# Each is compared with those that lie this share of the split further on.
PAIRED = (0.0, 0.17, 0.37, 0.5)
# Embeddings are all alike where pairs are at less than this share of the distance that they could have.
ALIKE = 0.1


class EmbeddingConfig(Config):
    kind: Literal["embedding"] = "embedding"
    field: str = Field(default="label", description="the field that says which records belong together")
    width: int = Field(default=64, ge=1, description="numbers in an embedding")
    similarity: Literal["cosine", "euclidean"] = Field(
        default="cosine", description="cosine: embeddings have length 1; euclidean: distances as they are"
    )
    loss: Literal["supervised-contrastive", "triplet", "contrastive"] = Field(
        default="supervised-contrastive", description="supervised-contrastive, triplet (batch-hard) or contrastive"
    )
    temperature: float = Field(
        default=0.1, gt=0, description="supervised-contrastive: the lower, the more the nearest others count"
    )
    learn_temperature: bool = Field(default=False, description="let training find the temperature")
    margin: float | Literal["soft"] | None = Field(
        default=None,
        description="distance wanted between classes; soft: no bound (triplet); 0.2 (triplet) or 1 (contrastive) if "
        "left out",
    )
    per_class: int = Field(default=4, ge=1, description="records of a class that meet in a batch; 1: as chance has it")
    remember: int = Field(default=20_000, ge=0, description="training records that the artifact compares with, at most")
    nearest: int = Field(default=5, ge=1, description="how many of them an answer names")
    answer_embedding: bool = Field(default=False, description="give the numbers of the embedding in the answer, too")

    @model_validator(mode="after")
    def _suits_the_loss(self) -> Self:
        if self.loss == "supervised-contrastive" and self.similarity != "cosine":
            raise ValueError("supervised-contrastive compares by cosine; for euclidean use triplet or contrastive")
        if self.margin == "soft" and self.loss != "triplet":
            raise ValueError(f"the margin can be soft for the triplet loss only, not for {self.loss}")
        if isinstance(self.margin, float) and self.margin <= 0:
            raise ValueError(f"the margin {self.margin:g} must be above 0")
        return self


@dataclass(frozen=True, kw_only=True)
class Embedding(PairwiseTarget):
    """Truth: "code" int64 (B,), a hash of the label's text, so that labels which training never saw have one, too.

    `names` are the labels of the training split, `label_type` what they were in the data. What `remember` kept:
    embeddings `known_NW` float32 with the places of their labels among the names, `known_class_N` int64, and the
    records' `known_ids`.
    Losses: see `sonde.targets._pairs`; the mean is over all examples of a batch, of which those without a positive cost
    nothing, so that counts are additive. Batches are P classes x K records (Hermans et al. 2017).
    Scores: each held-out record looks for its class among the others of its split. B example, N record, W width.
    """

    Config = EmbeddingConfig
    best: ClassVar = ("map_at_r", "max")
    baseline_name: ClassVar = "at random"
    remembers: ClassVar[bool] = True

    config: EmbeddingConfig
    names: list[str]
    known_NW: Tensor
    known_class_N: Tensor
    known_ids: list[str]
    label_type: LabelType = "text"

    @classmethod
    def fit(cls, config: EmbeddingConfig, records: Records, inputs: Mapping[str, Input]) -> Self:
        if config.field not in records.fields:
            raise unknown(config.field, records.fields, what="the field")
        labels = records.fields[config.field]
        names, counts = np.unique(objects([text for text in texts_of(labels) if text]), return_counts=True)
        _require_pairs(config.field, labels, names, counts)
        return cls(
            config=config,
            names=names.tolist(),
            known_NW=torch.empty(0, config.width),
            known_class_N=torch.empty(0, dtype=torch.int64),
            known_ids=[],
            label_type=type_of(labels),
        )

    def check_fitted(self, inputs: Mapping[str, Input]) -> None:
        held, codes = self.known_NW, self.known_class_N
        agree(len(set(self.names)) == len(self.names), "a label is there twice")
        agree(
            held.dtype == torch.float32 and held.shape[1:] == (self.config.width,), "known_NW is not float32 (N, width)"
        )
        agree(codes.dtype == torch.int64 and codes.shape == held.shape[:1], "known_class_N is not int64 (N,)")
        agree(len(self.known_ids) == len(held), f"{len(self.known_ids)} ids for {len(held)} embeddings")
        agree(bool(torch.isfinite(held).all()), "an embedding is NaN or infinite")
        if len(codes):
            agree(int(codes.min()) >= 0 and int(codes.max()) < len(self.names), "an embedding has a label without name")

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator, given: Records) -> tuple[EmbeddingConfig, Records]:
        labels = objects([["cat", "dog", "owl"][index % 3] for index in range(count)])
        return EmbeddingConfig(width=8), Records(fields={"label": labels}, ids=[f"row {i}" for i in range(count)])

    @classmethod
    def recommend(cls, config: EmbeddingConfig, inputs: Mapping[str, Config], records: Records) -> Advice:
        """Whole classes are held out where there are some to spare; batches of about 128 records."""
        texts = [text for text in texts_of(records.fields[config.field]) if text]
        _, counts = np.unique(objects(texts), return_counts=True)
        # A score for 20 ways needs 20 classes in each held-out split.
        share = round(min(0.2, max(0.1, 25 / len(counts))), 2)
        held_out = len(counts) >= FEWEST_CLASSES
        split = {"by": "group", "field": config.field, "validation": share, "test": share}
        classes = max(2, min(32, int(len(counts) * (1 - 2 * share if held_out else 1))))
        per_class = max(2, min(128 // classes, int(np.median(counts)), 32))
        return Advice(
            data={"split": split} if held_out else {},
            target={"per_class": per_class},
            training={"batch_size": classes * per_class},
        )

    def head(self, widths: Mapping[str, FeatureWidth]) -> nn.Module:
        learned = self.config.loss == "supervised-contrastive" and self.config.learn_temperature
        return EmbeddingHead(
            {name: width for name, width in widths.items() if isinstance(width, int)},
            self.config.width,
            cosine=self.config.similarity == "cosine",
            temperature=self.config.temperature if learned else None,
        )

    def encode_many(self, records: Records, given: Mapping[str, Columns]) -> tuple[Columns, dict[int, RecordError]]:
        labels = records.fields.get(self.config.field, objects([None] * len(records)))
        texts = texts_of(labels)
        codes = {text: code_of(text) for text in set(texts.tolist()) if text is not None}
        errors = {
            index: wrong_label(labels[index], [], self.config.field) for index, text in enumerate(texts) if text is None
        }
        found = [codes[text] for text in texts if text is not None]
        return {"code": torch.tensor(found, dtype=torch.int64)}, errors

    def apply_augment(self, truth: Tensors, params: AugmentParams) -> Tensors:
        if params.mix_weight_B is not None:
            raise UserError(
                "mixup and cutmix make records of two classes; an embedding belongs to one",
                hint="take mixup and cutmix out of the input's augment",
            )
        return truth

    def together(self, truth: Columns) -> tuple[Tensor, int] | None:
        code = truth["code"]
        assert isinstance(code, torch.Tensor)
        return None if self.config.per_class == 1 else (code, self.config.per_class)

    @property
    def _term(self) -> str:
        return self.config.loss.replace("-", "_")

    @property
    def _margin(self) -> float | None:
        """The margin as a number; None where it is soft."""
        if self.config.margin is None:
            return MARGINS.get(self.config.loss)
        return None if self.config.margin == "soft" else self.config.margin

    def counts(self, batch: Batch) -> Tensors:
        return {self._term: examples(batch)}

    def embed(self, network: nn.Module, batch: Batch, rng: BatchRng) -> Tensors:
        held = {**network(batch.inputs), "code": batch.truth["code"], "record": batch.records_B}
        return held if batch.weight_B is None else {**held, "weight": batch.weight_B}

    def compare(self, embeddings: Tensors) -> Tensors:
        code_B, record_B = embeddings["code"], embeddings["record"]
        alike_BB = code_B[:, None] == code_B[None, :]
        # A small class may be in a batch with a record twice: it teaches nothing about itself.
        same_BB = alike_BB & (record_B[:, None] != record_B[None, :])
        with torch.autocast(code_B.device.type, enabled=False):
            cost_B = self._cost(embeddings, same_BB, ~alike_BB)
        return {self._term: weighted_sum(cost_B, embeddings.get("weight"))}

    def _cost(self, embeddings: Tensors, same_BB: Tensor, other_BB: Tensor) -> Tensor:
        embedding_BW = embeddings["embedding"].float()
        if self.config.loss == "triplet":
            return _pairs.batch_hard(embedding_BW, same_BB, other_BB, self._margin)
        if self.config.loss == "contrastive":
            return _pairs.contrastive(embedding_BW, same_BB, other_BB, self._margin or MARGINS["contrastive"])
        scale_B = embeddings.get("scale")
        if scale_B is None:
            scale_B = embedding_BW.new_full((len(embedding_BW),), 1 / self.config.temperature)
        return _pairs.supervised_contrastive(embedding_BW, same_BB, other_BB, scale_B.float())

    @without_gradient
    def predict(self, network: nn.Module, batch: Batch) -> list[Prediction]:
        """{"label", "nearest": [{"id", "label", "similarity"}, ...]}, the most similar first; "label" is its label.

        For euclidean "distance" in place of "similarity"; with `answer_embedding` also "embedding". The label is None
        and "nearest" empty as long as nothing is remembered.
        """
        embedding_BW = network(batch.inputs)["embedding"].float().cpu()
        answers: list[Prediction] = []
        for known, embedding in zip(self._nearest(embedding_BW), embedding_BW.tolist(), strict=True):
            answer: Prediction = {"label": known[0]["label"] if known else None, "nearest": known}
            answers.append({**answer, "embedding": embedding} if self.config.answer_embedding else answer)
        return answers

    def _nearest(self, embedding_BW: Tensor) -> list[list[dict[str, Any]]]:
        """The remembered records most like each embedding."""
        found = nearest(embedding_BW, self.known_NW, self.config.nearest, self.config.similarity)
        return [[self._known(place, closeness) for place, closeness in each] for each in found]

    def _known(self, place: int, closeness: float) -> dict[str, Any]:
        name = self.names[int(self.known_class_N[place])]
        measure = {"similarity": closeness} if self.config.similarity == "cosine" else {"distance": abs(closeness)}
        return {"id": self.known_ids[place], "label": value_of(name, self.label_type), **measure}

    @without_gradient
    def eval_outputs(self, network: nn.Module, batch: Batch) -> Columns:
        return {"embedding": network(batch.inputs)["embedding"].float(), "code": batch.truth["code"]}

    def baseline(self, truth: Columns) -> Columns:
        """Embeddings drawn at random."""
        drawn = torch.randn(len(truth["code"]), self.config.width, generator=generator("embedding", "baseline"))
        return {"embedding": torch.nn.functional.normalize(drawn, dim=1), "code": truth["code"]}

    def metrics(self, columns: EvalColumns, weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        """Each record looks among all others of the split; few-shot accuracy where there are classes enough."""
        embedding_NW, code_N = columns["embedding"], columns["code"]
        similarity = self.config.similarity
        found = metrics.retrieval(embedding_NW, code_N, similarity=similarity)
        scores = {
            name: metrics.nanmean(found[name], weights_RN)
            for name in ("map_at_r", "recall_at_1", "recall_at_5", "recall_at_10")
        }
        for ways, shots in EPISODES:
            right_N = metrics.few_shot(embedding_NW, code_N, ways=ways, shots=shots, seed=0, similarity=similarity)
            scores[f"few_shot_{ways}_way_{shots}_shot"] = metrics.nanmean(right_N, weights_RN)
        return scores

    def warnings(self, columns: EvalColumns) -> list[str]:
        embedding_NW = np.asarray(columns["embedding"], np.float64)
        if not np.isfinite(embedding_NW).all():
            return []
        distance = _between_classes(embedding_NW, columns["code"])
        if distance is None:
            return []
        reach = np.sqrt(2) if self.config.similarity == "cosine" else self._margin or 1.0
        if distance < ALIKE * reach:
            return [_collapsed(self.config, distance, self._margin)]
        return _no_better_than_chance(self.config, embedding_NW, columns["code"])

    def remember(self, columns: EvalColumns, ids: Sequence[str]) -> Self:
        places = {code_of(name): place for place, name in enumerate(self.names)}
        class_N = np.array([places[code] for code in columns["code"].tolist()], np.int64)
        chosen = _spread(class_N, self.config.remember)
        return replace(
            self,
            known_NW=torch.from_numpy(np.ascontiguousarray(columns["embedding"][chosen], np.float32)),
            known_class_N=torch.from_numpy(class_N[chosen]),
            known_ids=[ids[place] for place in chosen.tolist()],
        )


class EmbeddingHead(torch.nn.Module):
    """Features of one or several inputs to {"embedding": (B, width)}, in float32 whatever came before; with a learned
    temperature also {"scale": (B,)}, 1 / temperature for each example."""

    def __init__(self, widths: Mapping[str, int], width: int, *, cosine: bool, temperature: float | None) -> None:
        super().__init__()
        # Several inputs are brought to one size, so that none drowns the others.
        several = len(widths) > 1
        self.norms = torch.nn.ModuleDict(
            {f"norm_{name}": torch.nn.LayerNorm(each) for name, each in widths.items() if several}
        )
        self.answer = torch.nn.Linear(sum(widths.values()), width, bias=False)
        self.cosine = cosine
        self.log_scale = (
            None if temperature is None else torch.nn.Parameter(torch.full((1,), -float(np.log(temperature))))
        )

    def forward(self, features: Mapping[str, Features]) -> Tensors:
        values = {name: each.values for name, each in features.items() if isinstance(each.values, torch.Tensor)}
        (first, *_) = values.values()
        with torch.autocast(first.device.type, enabled=False):
            floats = {name: value.float() for name, value in values.items()}
            if len(self.norms):
                floats = {name: self.norms[f"norm_{name}"](value) for name, value in floats.items()}
            embedding_BW = self.answer(torch.cat([*floats.values()], dim=1))
            if self.cosine:
                embedding_BW = torch.nn.functional.normalize(embedding_BW, dim=1, eps=1e-6)
            if self.log_scale is None:
                return {"embedding": embedding_BW}
            scale_B = self.log_scale.exp().clamp(max=LARGEST_SCALE).expand(len(embedding_BW))
            return {"embedding": embedding_BW, "scale": scale_B}


def code_of(label: str) -> int:
    """The code of a label: the same everywhere, whether training saw it or not (63 bits of its hash)."""
    return key("label", label)


def _spread(class_N: np.ndarray, most: int) -> np.ndarray:
    """The places of at most so many records, in order, as many of every class as that allows."""
    order = np.argsort(class_N, kind="stable")
    _, start_K, count_K = np.unique(class_N[order], return_index=True, return_counts=True)
    turn_N = np.empty(len(class_N), np.int64)
    turn_N[order] = np.arange(len(class_N)) - np.repeat(start_K, count_K)
    return np.sort(np.argsort(turn_N, kind="stable")[:most])


def _between_classes(embedding_NW: np.ndarray, code_N: np.ndarray) -> float | None:
    """The median distance of two records of different classes, of some thousand pairs; None where there are none.

    The median: outliers do not hide that all others lie at one place.
    """
    count = len(embedding_NW)
    one_P = np.arange(count)[:: max(1, count // JUDGED)]
    found = []
    for share in PAIRED:
        other_P = (one_P + max(1, int(share * count))) % count
        apart_P = code_N[one_P] != code_N[other_P]
        found.append(np.linalg.norm(embedding_NW[one_P[apart_P]] - embedding_NW[other_P[apart_P]], axis=1))
    distances = np.concatenate(found)
    return float(np.median(distances)) if len(distances) else None


def _collapsed(config: EmbeddingConfig, distance: float, margin: float | None) -> str:
    """What to say of embeddings that are all alike."""
    stays = ""
    if config.loss == "triplet":
        stays = " and the loss stays near " + ("log 2 = 0.69" if margin is None else f"its margin of {margin:g}")
    softer = 'target.loss = "supervised-contrastive"'
    cure = {
        "triplet": f"set {softer}" if margin is None else f'set target.margin = "soft" or {softer}',
        "contrastive": f"set {softer}",
        "supervised-contrastive": "raise target.temperature",
    }[config.loss]
    return (
        f"the embeddings have collapsed: the records of the validation split lie almost at one place (two of "
        f"different classes are {distance:.2g} apart){stays}; lower training.optimizer.lr, and if that does not help "
        f"{cure}"
    )


def _no_better_than_chance(config: EmbeddingConfig, embedding_NW: np.ndarray, code_N: np.ndarray) -> list[str]:
    """A warning where the nearest record is of the same class no more often than any record is."""
    _, class_N, count_K = np.unique(code_N, return_inverse=True, return_counts=True)
    # Whole classes up to so many records, which is enough to tell and quick.
    few_N = (np.cumsum(count_K) <= max(JUDGED, count_K[0]))[class_N]
    embedding_NW, class_N = embedding_NW[few_N], class_N[few_N]
    right_N = metrics.retrieval(embedding_NW, class_N, ks=(1,), similarity=config.similarity)["recall_at_1"]
    asked_N = ~np.isnan(right_N)
    if asked_N.sum() < FEWEST_JUDGED or len(np.unique(class_N)) < 2:
        return []
    chance = float(((count_K[class_N[asked_N]] - 1) / (len(class_N) - 1)).mean())
    deviation = np.sqrt(chance * (1 - chance) / asked_N.sum())
    right = float(right_N[asked_N].mean())
    if right > chance + 2 * deviation:
        return []
    return [
        f"the embeddings of the validation split say nothing about its classes: the nearest other record is of the "
        f"same class in {right:.1%} of cases, and chance gives {chance:.1%}; train longer or with another "
        f"training.optimizer.lr, and check that {config.field!r} (target.field) says which records are alike"
    ]


def _require_pairs(field: str, labels: np.ndarray, names: np.ndarray, counts: np.ndarray) -> None:
    """That there is something to be near to, and something to be far from."""
    if not len(names):
        error = wrong_label(labels[0], [], field) if len(labels) else None
        raise UserError(
            f"no record of the training split has a label in field {field!r}", hint=error.hint if error else None
        )
    if len(names) == 1:
        raise UserError(
            f"all {counts[0]:,} labels in field {field!r} of the training split are {str(names[0])!r}",
            expected="at least two classes: an embedding keeps them apart",
            hint="look at data.split, or choose another target.field",
        )
    if counts.max() == 1:
        raise UserError(
            f"every label in field {field!r} of the training split belongs to one record, such as {str(names[0])!r}",
            expected="classes of two records or more: an embedding brings them together",
            hint="choose another target.field",
        )
