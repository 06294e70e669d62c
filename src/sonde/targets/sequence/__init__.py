"""A text for an input: translation, captions, speech (encoder and decoder)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence as Listed
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sonde import metrics
from sonde.base import vocabulary
from sonde.base.config import Config
from sonde.base.errors import RecordError, UserError, unknown
from sonde.base.rng import BatchRng, generator, key
from sonde.base.vocabulary import Vocabulary, check_saved
from sonde.contracts.augment import AugmentParams
from sonde.contracts.batch import Batch
from sonde.contracts.columns import Columns, EvalColumns, Ragged, Tensors
from sonde.contracts.finding import Finding, judged
from sonde.contracts.input import Input
from sonde.contracts.layouts import LAYOUTS
from sonde.contracts.part import agree
from sonde.contracts.records import Records
from sonde.contracts.specs import Advice, Features, FeatureWidth, InputSpec, OutputSpec
from sonde.contracts.target import Prediction, Target
from sonde.metrics import Normaliser, Tokenize
from sonde.targets import _texts
from sonde.targets._inputs import asked_of_one
from sonde.targets._positions import real_positions
from sonde.targets._sums import weighted_sum
from sonde.targets._text_scores import LOWER_IS_BETTER, NO_SHARES, SCORINGS, Name, Scoring, Settings
from sonde.targets.sequence._advice import advice
from sonde.targets.sequence.decoder import Decoder, DecoderConfig, build
from sonde.targets.sequence.search import Found, Generate, generate

# Scores that people of a field look at, by what goes in; the first picks the weights.
USUAL: Mapping[str, tuple[Name, ...]] = {
    "tokens": ("bleu", "chrf", "exact_match"),
    "grid": ("cider_d", "bleu", "exact_match"),
    "frames": ("wer", "cer", "exact_match"),
}
# Of so many answers or more, so few different ones say that the input is not looked at.
JUDGED, FEW_DIFFERENT = 50, 0.05


# No answer is longer: what an artifact says beyond it is not what was trained.
MOST_TOKENS = 1 << 20


class SequenceConfig(Config):
    kind: Literal["sequence"] = "sequence"
    field: str = Field(default="target", description="the field that holds the text to give")
    input: str | None = Field(
        default=None, description="the input that is looked at word by word; the only one with positions if left out"
    )
    tokens: _texts.Tokens = Field(default="bpe", description="what the text is made of: bpe, characters or bytes")
    vocabulary_size: int | None = Field(
        default=None, ge=4, description="most tokens in the vocabulary; 4,096 if left out"
    )
    min_count: int = Field(default=2, ge=1, description="bpe: what training shows less often gets no token")
    joint: bool = Field(
        default=False, description="take the vocabulary of the text input, which learns it from both (its learn_from)"
    )
    length: int | None = Field(
        default=None,
        ge=1,
        description="most tokens of an answer; half more than training has (at most 512) if left out",
    )
    decoder: DecoderConfig = Field(default=DecoderConfig(), description="what writes the text")
    label_smoothing: float = Field(default=0.1, ge=0, lt=1, description="share of the truth dealt out to all tokens")
    generate: Generate = Field(default=Generate(), description="how answers are looked for")
    metrics: tuple[Name, ...] | None = Field(
        default=None,
        min_length=1,
        description="bleu, chrf, ter, wer, cer, cider_d, exact_match: the first picks the weights; by the input if "
        "left out",
    )
    bleu_tokenize: Tokenize = Field(default="13a", description="13a, char (Chinese, Japanese) or none")
    normaliser: Normaliser = Field(
        default="none", description="wer, cer, exact_match: none, lowercase, or words (no capitals, no marks)"
    )
    answer_attention: bool = Field(default=False, description="answers tell what each token was looked up in")

    @model_validator(mode="after")
    def _enough_tokens(self) -> Self:
        least = 256 + len(vocabulary.RESERVED)
        if self.tokens == "bpe" and self.vocabulary_size is not None and self.vocabulary_size < least:
            raise ValueError(f"bpe needs a vocabulary_size of {least} at least, for the bytes themselves")
        if self.joint and self.vocabulary_size is not None:
            raise ValueError("with joint the vocabulary is the input's; give vocabulary_size there")
        return self


@runtime_checkable
class EncoderDecoder(Protocol):
    """A network whose head can be asked token by token."""

    head: nn.Module

    def features(self, inputs: Mapping[str, Tensors]) -> dict[str, Features]: ...


@dataclass(frozen=True, kw_only=True)
class Sequence(Target):
    """Truth: "tokens" int64 (B, U), the end among them, and "count" (B,); "text" uint8 (B, bytes) and "text_length".

    The vocabulary is `vocabulary_kind` and `learned`; `length` is the most tokens of an answer. `commonest` is the most
    frequent training text, `token_counts` (V,) how often training has each token: the baseline.
    Shape suffixes: B example, U token, V vocabulary, N real token of any example.
    """

    Config = SequenceConfig
    best: ClassVar = ("bleu", "max")
    tie_break: ClassVar = ("loss", "min")
    baseline_name: ClassVar = "most frequent text"
    asks: ClassVar = OutputSpec(per=("position", "pixel"))
    lower_is_better: ClassVar = frozenset({"loss", "perplexity"}) | LOWER_IS_BETTER
    no_shares: ClassVar = NO_SHARES
    ragged: ClassVar = ("tokens", "text")
    padded: ClassVar = ("tokens",)

    config: SequenceConfig
    input: str
    vocabulary_kind: str
    learned: str
    length: int
    scored: list[Name]
    commonest: str
    token_counts: Tensor

    @classmethod
    def fit(cls, config: SequenceConfig, records: Records, inputs: Mapping[str, Input]) -> Self:
        name = _looked_at(inputs, config.input)
        texts = _texts.training_texts(config.field, records)
        if config.joint:
            kind = _texts.shared(inputs[name], name)
        else:
            kind = _texts.learn(config.tokens, texts, config.vocabulary_size, config.min_count)
        ids, lengths = kind.encode(texts)
        counts = np.bincount(ids, minlength=len(kind.token_bytes))
        counts[kind.end or 0] += len(texts)
        saved, learned = kind.save()
        layout = inputs[name].spec.layout
        return cls(
            config=config,
            input=name,
            vocabulary_kind=saved,
            learned=learned,
            length=config.length or _texts.usual_length(lengths + 1),
            scored=list(config.metrics or USUAL.get(layout, USUAL["tokens"])),
            commonest=Counter(texts).most_common(1)[0][0],
            token_counts=torch.from_numpy(counts),
        )

    def check_fitted(self, inputs: Mapping[str, Input]) -> None:
        check_saved(self.vocabulary)
        agree(self.vocabulary.end is not None, "the vocabulary has no end of a text")
        agree(1 <= self.length <= MOST_TOKENS, f"length is {self.length}")
        agree(self.input == _looked_at(inputs, self.config.input), f"its input is {self.input!r}")
        agree(bool(self.scored) and set(self.scored) <= set(SCORINGS), f"its scores are {self.scored}")
        sizes = len(self.vocabulary.token_bytes)
        agree(self.token_counts.shape == (sizes,), f"{len(self.token_counts)} counts for {sizes} tokens")

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator, given: Records) -> tuple[SequenceConfig, Records]:
        words = np.array(["deep", "sea", "sonde", "line"], dtype=object)
        texts = np.empty(count, dtype=object)
        texts[:] = [" ".join(rng.choice(words, 1 + index % 4)) for index in range(count)]
        decoder = DecoderConfig(width=16, layers=2, heads=2)
        config = SequenceConfig(tokens="characters", decoder=decoder, generate=Generate(beams=2))
        return config, Records(fields={"target": texts}, ids=given.ids)

    @classmethod
    def recommend(cls, config: SequenceConfig, inputs: Mapping[str, Config], records: Records) -> Advice:
        return advice(inputs, records)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Between texts and ids."""
        return vocabulary.restore(self.vocabulary_kind, self.learned)

    @property
    def end(self) -> int:
        """The token that ends a text; a decoder begins from it, too."""
        end = self.vocabulary.end
        assert end is not None
        return end

    @property
    def monitor(self) -> tuple[str, Literal["max", "min"]]:
        first = self.scored[0]
        return first, "min" if first in LOWER_IS_BETTER else "max"

    @property
    def signatures(self) -> Mapping[str, str]:
        return {scoring.name: scoring.signature() for scoring in self._scorings}

    @property
    def _scorings(self) -> list[Scoring]:
        settings = Settings(tokenize=self.config.bleu_tokenize, normaliser=self.config.normaliser)
        return [SCORINGS[name](settings) for name in self.scored]

    def outputs(self, inputs: Mapping[str, InputSpec]) -> dict[str, OutputSpec]:
        return asked_of_one(inputs, self.input, self.asks)

    def head(self, widths: Mapping[str, FeatureWidth]) -> Decoder:
        return build(self.config.decoder, widths, self.input, len(self.token_counts))

    def encode_many(self, records: Records, given: Mapping[str, Columns]) -> tuple[Columns, dict[int, RecordError]]:
        found = _texts.texts_in(self.config.field, records)
        errors = {index: text for index, text in enumerate(found) if isinstance(text, RecordError)}
        texts = [text for text in found if isinstance(text, str)]
        if not texts:
            return {}, errors
        ids, lengths = self.vocabulary.encode(texts)
        ends = lengths.cumsum()
        ids = np.insert(ids, ends, self.end)
        ends, lengths = ends + np.arange(1, len(ends) + 1), lengths + 1
        # One that is cut has no end: a decoder does not learn to stop there.
        starts = torch.from_numpy(ends - lengths)
        kept = torch.from_numpy(lengths.clip(max=self.length))
        tokens = Ragged(values=torch.from_numpy(ids.astype(np.int32)), starts=starts, lengths=kept)
        return {"tokens": tokens, "text": _texts.spelled(texts)}, errors

    def collate(self, columns: Columns) -> Tensors:
        tokens, text = columns["tokens"], columns["text"]
        assert isinstance(tokens, Ragged)
        assert isinstance(text, Ragged)
        return {
            "tokens": tokens.padded(self.end).long(),
            "count": tokens.lengths,
            "text": text.padded(),
            "text_length": text.lengths,
        }

    def audit(self, columns: Columns, ids: Listed[str]) -> list[Finding]:
        """Texts that are cut: nobody learns their end."""
        tokens = columns["tokens"]
        assert isinstance(tokens, Ragged)
        last_N = tokens.values[tokens.starts + tokens.lengths - 1]
        cut: list[int] = (last_N != self.end).nonzero()[:, 0].tolist()
        return [
            Finding(
                check="cut answers",
                verdict=judged(len(cut) / max(1, len(tokens)), warn=0.005),
                text=f"{len(cut):,} of {len(tokens):,} texts have more than {self.length:,} tokens and are cut",
                fix="raise target.length",
                records=[ids[place] for place in cut],
            )
        ]

    def apply_augment(self, truth: Tensors, params: AugmentParams) -> Tensors:
        if params.mix_weight_B is not None:
            raise UserError(
                "mixup and cutmix make records of two texts, and a decoder writes one",
                hint="take mixup and cutmix out of the input's augment",
            )
        return truth

    def counts(self, batch: Batch) -> Tensors:
        return {"loss": weighted_sum(batch.truth["count"].float(), batch.weight_B)}

    def loss(self, network: nn.Module, batch: Batch, rng: BatchRng) -> Tensors:
        costs_BU = self._costs(network, batch, self.config.label_smoothing)
        return {"loss": weighted_sum(costs_BU, batch.weight_B)}

    def _costs(self, network: nn.Module, batch: Batch, smoothing: float) -> Tensor:
        """-log(probability) of every token in nats, (B, U), given those before it; 0 where there is none."""
        tokens_BU, count_B = batch.truth["tokens"], batch.truth["count"]
        beyond_BU = torch.arange(tokens_BU.shape[1], device=tokens_BU.device) >= count_B[:, None]
        truth = tokens_BU.masked_fill(beyond_BU, -100).flatten()
        at_N = real_positions(beyond_BU)
        logits = network(batch.inputs, self._shown(tokens_BU), at_N)
        if at_N is None:
            return self._cost(logits.flatten(0, 1), truth, smoothing).unflatten(0, tokens_BU.shape)
        cost_N = self._cost(logits, truth[at_N], smoothing)
        return cost_N.new_zeros(len(truth)).index_copy(0, at_N, cost_N).unflatten(0, tokens_BU.shape)

    def _shown(self, tokens_BU: Tensor) -> Tensor:
        """What the decoder has read when it gives each token: a beginning, and those before it."""
        return functional.pad(tokens_BU[:, :-1], (1, 0), value=self.end)

    def _cost(self, logits_NV: Tensor, truth_N: Tensor, smoothing: float) -> Tensor:
        return functional.cross_entropy(
            logits_NV.float(), truth_N, ignore_index=-100, reduction="none", label_smoothing=smoothing
        )

    @torch.no_grad()
    def predict(self, network: nn.Module, batch: Batch) -> list[Prediction]:
        """{"text", "confidence"}: the answer, and the geometric mean of the probabilities of its tokens. With
        `answer_attention` also "tokens" (a text each) and "attention", for each token what it was looked up in."""
        features, found = self._generate(network, batch)
        answers: list[Prediction] = []
        for ids, total in zip(found.tokens, found.log_probability, strict=True):
            mean = total / (len(ids) + (len(ids) < self.length))
            answers.append({"text": self.vocabulary.decode(ids), "confidence": float(np.exp(min(0.0, mean)))})
        if self.config.answer_attention:
            for answer, more in zip(answers, self._attention(network, features, found), strict=True):
                answer |= more
        return answers

    def _generate(self, network: nn.Module, batch: Batch) -> tuple[dict[str, Features], Found]:
        assert isinstance(network, EncoderDecoder)
        assert isinstance(network.head, Decoder)
        features = network.features(batch.inputs)
        u_BU = self._drawn(batch) if self.config.generate.temperature else None
        return features, generate(network.head, features, self.config.generate, self.end, self.length, u_BU)

    def _drawn(self, batch: Batch) -> Tensor:
        """Numbers in [0, 1) to draw tokens by, (B, length): a function of the seed and of what goes in."""
        columns = batch.examples.inputs[self.input]
        streams = []
        for index in range(len(batch)):
            content = [column[index].cpu().numpy().tobytes() for _, column in sorted(columns.items())]
            streams.append(generator(self.config.generate.seed, "generate", key(*(each.hex() for each in content))))
        drawn = torch.stack([torch.rand(self.length, generator=stream) for stream in streams])
        return drawn.to(batch.records_B.device)

    def _attention(self, network: Any, features: Mapping[str, Features], found: Found) -> list[Prediction]:
        """Which tokens an answer is made of, and where each was looked up; one by one, as lengths differ."""
        answers: list[Prediction] = []
        for index, ids in enumerate(found.tokens):
            mine = {name: _of_one(each, index) for name, each in features.items()}
            device = self.token_counts.device
            tokens_BU = torch.tensor([[*ids, self.end]], device=next(network.parameters()).device)
            weights_BUT = network.head.attention(mine, self._shown(tokens_BU))
            (main,) = (each for name, each in mine.items() if name == self.input)
            real = weights_BUT.shape[2] if main.inside_BT is None else int(main.inside_BT.sum())
            answers.append(
                {
                    "tokens": [self.vocabulary.decode([each]) for each in ids],
                    "attention": weights_BUT[0, : len(ids), :real].to(device, torch.float32).cpu().tolist(),
                }
            )
        return answers

    @torch.no_grad()
    def eval_outputs(self, network: nn.Module, batch: Batch) -> Columns:
        """Per example: "loss" in nats, summed over "tokens" of them; a hash of the "answer" that is given; and what
        each of the scores counts."""
        # The whole network first: where its weights are spread over processes, that gathers them.
        loss_B = self._costs(network, batch, 0.0).sum(1)
        _, found = self._generate(network, batch)
        answers = [self.vocabulary.decode(ids) for ids in found.tokens]
        references = _texts.read_back(batch.truth["text"], batch.truth["text_length"])
        return {"loss": loss_B, "tokens": batch.truth["count"], **self._columns(answers, references)}

    def _columns(self, answers: Listed[str], references: Listed[str]) -> Columns:
        columns: Columns = {
            "answer_hash": torch.tensor([key("answer", answer) for answer in answers]),
            "reference_hash": torch.tensor([key("answer", reference) for reference in references]),
        }
        for scoring in self._scorings:
            columns |= scoring.columns(answers, references)
        return columns

    def metrics(self, columns: EvalColumns, weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        """The scores that `metrics` names (BLEU, chrF and TER from 0 to 100), the share of answers that are different,
        the loss per token and its perplexity."""
        found: dict[str, np.ndarray] = {}
        for scoring in self._scorings:
            found |= scoring.scores(columns, weights_RN)
        loss_R = metrics.per_unit(columns["loss"], columns["tokens"], weights_RN)
        different_R = metrics.distinct_share(columns["answer_hash"], weights_RN)
        return {**found, "different": different_R, "loss": loss_R, "perplexity": metrics.perplexity(loss_R)}

    def baseline(self, truth: Columns) -> Columns:
        """The most frequent training text; and for the loss, how often training has each token."""
        text, tokens = truth["text"], truth["tokens"]
        assert isinstance(text, Ragged)
        assert isinstance(tokens, Ragged)
        references = _texts.read_back(text.padded(), text.lengths)
        share_V = (self.token_counts + 1).double() / (self.token_counts + 1).sum()
        costs = [-share_V[tokens[index].long()].log().sum() for index in range(len(tokens))]
        return {
            "loss": torch.stack(costs),
            "tokens": tokens.lengths,
            **self._columns([self.commonest] * len(references), references),
        }

    def warnings(self, columns: EvalColumns) -> list[str]:
        hashes, truths = columns["answer_hash"], columns["reference_hash"]
        different, wanted = len(np.unique(hashes)), len(np.unique(truths))
        if len(hashes) < JUDGED or different > FEW_DIFFERENT * wanted:
            return []
        return [
            f"the {len(hashes):,} answers for the validation split are only {different} different texts, where the "
            f"truths are {wanted:,}: the decoder does not look at the input yet; train longer, or with another "
            "training.optimizer.lr"
        ]


def _looked_at(inputs: Mapping[str, Input], chosen: str | None) -> str:
    """The input with positions or pixels that the decoder attends to."""
    able = {name for name, part in inputs.items() if set(Sequence.asks.per) & set(LAYOUTS[part.spec.layout].gives)}
    if chosen is not None and chosen not in inputs:
        raise unknown(chosen, inputs, what="target.input: the input")
    if chosen in able:
        return str(chosen)
    offered = ", ".join(f"{name} ({part.spec.layout})" for name, part in inputs.items())
    if chosen is not None or not able:
        what = f"target.input is {chosen!r}, which" if chosen is not None else "target 'sequence': no input"
        raise UserError(
            f"{what} has no positions or pixels to look at; the inputs are: {offered}",
            expected="a text, a sound, a picture, or another input with positions",
        )
    if len(able) > 1:
        raise UserError(
            f"target 'sequence' can look at several inputs: {', '.join(sorted(able))}",
            hint="choose one with target.input; of the others it sees one vector each",
        )
    return able.pop()


def _of_one(features: Features, index: int) -> Features:
    values = features.values
    row = slice(index, index + 1)
    return Features(
        values=tuple(each[row] for each in values) if isinstance(values, tuple) else values[row],
        inside_BT=None if features.inside_BT is None else features.inside_BT[row],
        size=features.size,
    )
