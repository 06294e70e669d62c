"""A text spoken in a recording, by connectionist temporal classification (CTC): an answer for every few frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence as Listed
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, Protocol, Self, runtime_checkable

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sonde import metrics
from sonde.base import vocabulary
from sonde.base.config import Config
from sonde.base.errors import RecordError, UserError
from sonde.base.rng import BatchRng, key
from sonde.base.vocabulary import Vocabulary, check_saved
from sonde.contracts.augment import AugmentParams
from sonde.contracts.batch import Batch
from sonde.contracts.columns import Columns, EvalColumns, Ragged, Tensors
from sonde.contracts.input import Input
from sonde.contracts.part import agree
from sonde.contracts.records import Records
from sonde.contracts.specs import Features, FeatureWidth, InputSpec, OutputSpec
from sonde.contracts.target import Prediction, Target
from sonde.metrics import Normaliser
from sonde.targets import _texts
from sonde.targets._inputs import asked_of_one, the_input
from sonde.targets._paths import BLANK, Spelled, best_path, prefix_beam
from sonde.targets._sums import weighted_sum
from sonde.targets._text_scores import LOWER_IS_BETTER, NO_SHARES, SCORINGS, Name, Scoring, Settings

# Shares of positions that are blank, and of answers that are empty, from which on nothing else has been learned.
ALL_BLANK, ALL_EMPTY = 0.99, 0.95


class CtcConfig(Config):
    kind: Literal["ctc"] = "ctc"
    field: str = Field(default="text", description="the field that holds the text that is spoken")
    input: str | None = Field(default=None, description="the recording; the only one if left out")
    tokens: _texts.Tokens = Field(default="characters", description="characters, bpe or bytes")
    vocabulary_size: int | None = Field(
        default=None, ge=4, description="most tokens in the vocabulary; 4,096 if left out"
    )
    min_count: int = Field(default=2, ge=1, description="bpe: what training shows less often gets no token")
    beams: int = Field(
        default=1, ge=1, le=1000, description="1: the likeliest path; more: the likeliest text of so many"
    )
    metrics: tuple[Name, ...] = Field(
        default=("wer", "cer", "exact_match"),
        min_length=1,
        description="wer, cer, exact_match, bleu, chrf, ter, cider_d: the first picks the weights",
    )
    normaliser: Normaliser = Field(
        default="none", description="scores: none, lowercase, or words (no capitals, no marks)"
    )
    answer_words: bool = Field(default=False, description="answers tell when each word is spoken, in seconds")

    @model_validator(mode="after")
    def _enough_tokens(self) -> Self:
        least = 256 + len(vocabulary.RESERVED)
        if self.tokens == "bpe" and self.vocabulary_size is not None and self.vocabulary_size < least:
            raise ValueError(f"bpe needs a vocabulary_size of {least} at least, for the bytes themselves")
        return self


@runtime_checkable
class Timed(Protocol):
    """An input that knows how many seconds its frames are apart."""

    frame_seconds: float


@dataclass(frozen=True, kw_only=True)
class Heard:
    """Logits (B, T, V) of positions, how many are real (B,), and how many frames each stands for."""

    logits_BTV: Tensor
    length_B: Tensor
    stride: int


@dataclass(frozen=True, kw_only=True)
class Ctc(Target):
    """Truth: "tokens" int64 (B, U) and "count" (B,); "text" uint8 (B, bytes) and "text_length".

    The blank is token 0, which vocabularies keep for padding. The loss is in float32 whatever came before. A text that
    needs more positions than its recording has teaches nothing: its loss is 0, and a warning counts such texts.
    Shape suffixes: B example, T position, U token, V vocabulary.
    """

    Config = CtcConfig
    best: ClassVar = ("wer", "min")
    tie_break: ClassVar = ("loss", "min")
    baseline_name: ClassVar = "most frequent text"
    asks: ClassVar = OutputSpec(per=("position",))
    accepts: ClassVar = ("frames",)
    lower_is_better: ClassVar = frozenset({"loss", "blanks"}) | LOWER_IS_BETTER
    no_shares: ClassVar = NO_SHARES
    ragged: ClassVar = ("tokens", "text")
    padded: ClassVar = ("tokens",)

    config: CtcConfig
    input: str
    vocabulary_kind: str
    learned: str
    size: int
    commonest: str

    @classmethod
    def fit(cls, config: CtcConfig, records: Records, inputs: Mapping[str, Input]) -> Self:
        name = the_input(inputs, "frames", config.input, "ctc")
        texts = _texts.training_texts(config.field, records)
        kind = _texts.learn(config.tokens, texts, config.vocabulary_size, config.min_count)
        saved, learned = kind.save()
        return cls(
            config=config,
            input=name,
            vocabulary_kind=saved,
            learned=learned,
            size=len(kind.token_bytes),
            commonest=Counter(texts).most_common(1)[0][0],
        )

    def check_fitted(self, inputs: Mapping[str, Input]) -> None:
        check_saved(self.vocabulary)
        agree(self.input == the_input(inputs, "frames", self.config.input, "ctc"), f"its input is {self.input!r}")
        sizes = len(self.vocabulary.token_bytes)
        agree(self.size == sizes, f"its size is {self.size}, that of the vocabulary {sizes}")

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator, given: Records) -> tuple[CtcConfig, Records]:
        texts = np.empty(count, dtype=object)
        texts[:] = [" ".join(rng.choice(["deep", "sea", "soon"], 1 + index % 2)) for index in range(count)]
        return CtcConfig(beams=2), Records(fields={"text": texts}, ids=given.ids)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Between texts and ids."""
        return vocabulary.restore(self.vocabulary_kind, self.learned)

    @property
    def monitor(self) -> tuple[str, Literal["max", "min"]]:
        first = self.config.metrics[0]
        return first, "min" if first in LOWER_IS_BETTER else "max"

    @property
    def signatures(self) -> Mapping[str, str]:
        return {scoring.name: scoring.signature() for scoring in self._scorings}

    @property
    def _scorings(self) -> list[Scoring]:
        settings = Settings(tokenize="13a", normaliser=self.config.normaliser)
        return [SCORINGS[name](settings) for name in self.config.metrics]

    def outputs(self, inputs: Mapping[str, InputSpec]) -> dict[str, OutputSpec]:
        return asked_of_one(inputs, self.input, self.asks)

    def head(self, widths: Mapping[str, FeatureWidth]) -> nn.Module:
        return CtcHead(widths, self.input, self.size)

    def encode_many(self, records: Records, given: Mapping[str, Columns]) -> tuple[Columns, dict[int, RecordError]]:
        found = _texts.texts_in(self.config.field, records)
        errors = {index: text for index, text in enumerate(found) if isinstance(text, RecordError)}
        texts = [text for text in found if isinstance(text, str)]
        if not texts:
            return {}, errors
        # White space is one space between words: nobody hears more.
        ids, lengths = self.vocabulary.encode([" ".join(text.split()) for text in texts])
        whole = torch.from_numpy(lengths)
        tokens = Ragged(values=torch.from_numpy(ids), starts=whole.cumsum(0) - whole, lengths=whole)
        return {"tokens": tokens, "text": _texts.spelled(texts)}, errors

    def collate(self, columns: Columns) -> Tensors:
        tokens, text = columns["tokens"], columns["text"]
        assert isinstance(tokens, Ragged)
        assert isinstance(text, Ragged)
        return {
            "tokens": tokens.padded().long(),
            "count": tokens.lengths,
            "text": text.padded(),
            "text_length": text.lengths,
        }

    def apply_augment(self, truth: Tensors, params: AugmentParams) -> Tensors:
        if params.mix_weight_B is not None:
            raise UserError(
                "mixed recordings say two texts at once, and CTC writes one",
                hint="take the mixing out of the input's augment",
            )
        return truth

    def counts(self, batch: Batch) -> Tensors:
        # Each text has an end, so that silence counts too.
        return {"loss": weighted_sum(batch.truth["count"] + 1.0, batch.weight_B)}

    def loss(self, network: nn.Module, batch: Batch, rng: BatchRng) -> Tensors:
        return {"loss": weighted_sum(self._costs(network(batch.inputs), batch), batch.weight_B)}

    def _costs(self, heard: Heard, batch: Batch) -> Tensor:
        """-log(probability) of each text in nats, float32 (B,); 0 where it does not fit into its recording."""
        with torch.autocast(heard.logits_BTV.device.type, enabled=False):
            chances_TBV = heard.logits_BTV.float().log_softmax(2).transpose(0, 1)
            return functional.ctc_loss(
                chances_TBV,
                batch.truth["tokens"],
                heard.length_B,
                batch.truth["count"],
                blank=BLANK,
                reduction="none",
                zero_infinity=True,
            )

    @torch.no_grad()
    def predict(self, network: nn.Module, batch: Batch) -> list[Prediction]:
        """{"text", "confidence"}: the answer, and its probability's mean over positions. With `answer_words` also
        "words", each {"word", "start", "end"} in seconds (in frames, where the input does not know how long they are).
        """
        heard: Heard = network(batch.inputs)
        answers: list[Prediction] = []
        for found, length in zip(self._spelled(heard), heard.length_B.tolist(), strict=True):
            text = self.vocabulary.decode(found.tokens)
            mean = min(0.0, found.log_probability / max(1, length))
            answer: Prediction = {"text": " ".join(text.split()), "confidence": float(np.exp(mean))}
            if self.config.answer_words:
                answer["words"] = self._words(found, heard.stride)
            answers.append(answer)
        return answers

    def decode(
        self, predictions: list[Prediction], inputs: Mapping[str, Input], records: Records | None = None
    ) -> list[Prediction]:
        """Frames become seconds, where the input knows how long they are."""
        part = inputs[self.input]
        if not self.config.answer_words or not isinstance(part, Timed):
            return predictions
        apart = part.frame_seconds
        for answer in predictions:
            answer["words"] = [
                {"word": each["word"], "start": round(each["start"] * apart, 3), "end": round(each["end"] * apart, 3)}
                for each in answer["words"]
            ]
        return predictions

    def _spelled(self, heard: Heard) -> list[Spelled]:
        chances = heard.logits_BTV.float().log_softmax(2).cpu().numpy()
        rows = [row[:length] for row, length in zip(chances, heard.length_B.tolist(), strict=True)]
        if self.config.beams == 1:
            return [best_path(row) for row in rows]
        return [prefix_beam(row.astype(np.float64), self.config.beams) for row in rows]

    def _words(self, found: Spelled, stride: int) -> list[dict[str, object]]:
        """The words of an answer, and the frames from and to which each is spoken."""
        words: list[dict[str, object]] = []
        ids: list[int] = []
        span: tuple[int, int] | None = None
        for token, (start, stop) in [*zip(found.tokens, found.spans, strict=True), (BLANK, (0, 0))]:
            piece = self.vocabulary.decode([token])
            # A space, or a token of byte pairs that begins with one, ends a word.
            if (token == BLANK or piece[:1].isspace()) and span is not None:
                words.append(
                    {
                        "word": self.vocabulary.decode(ids).strip(),
                        "start": float(span[0] * stride),
                        "end": float(span[1] * stride),
                    }
                )
                ids, span = [], None
            if piece.strip():
                ids.append(token)
                span = (span[0] if span else start, stop)
        return words

    @torch.no_grad()
    def eval_outputs(self, network: nn.Module, batch: Batch) -> Columns:
        """Per example: "loss" in nats for "tokens" of them; "blanks" among the likeliest of its "positions"; whether
        the text is too long for the recording; a hash of the answer, and what each of the scores counts."""
        heard: Heard = network(batch.inputs)
        answers = [" ".join(self.vocabulary.decode(each.tokens).split()) for each in self._spelled(heard)]
        references = _texts.read_back(batch.truth["text"], batch.truth["text_length"])
        place_T = torch.arange(heard.logits_BTV.shape[1], device=heard.length_B.device)
        blank_BT = (heard.logits_BTV.argmax(2) == BLANK) & (place_T < heard.length_B[:, None])
        return {
            "loss": self._costs(heard, batch),
            "tokens": batch.truth["count"] + 1,
            "blanks": blank_BT.sum(1),
            "positions": heard.length_B,
            "too_long": self._needed(batch) > heard.length_B,
            **self._columns(answers, references),
        }

    def _needed(self, batch: Batch) -> Tensor:
        """The fewest positions that each text needs: one a token, and a blank between equal ones, (B,)."""
        tokens_BU, count_B = batch.truth["tokens"], batch.truth["count"]
        place_U = torch.arange(1, tokens_BU.shape[1], device=tokens_BU.device)
        again_BU = (tokens_BU[:, 1:] == tokens_BU[:, :-1]) & (place_U < count_B[:, None])
        return count_B + again_BU.sum(1)

    def _columns(self, answers: Listed[str], references: Listed[str]) -> Columns:
        columns: Columns = {"answer_hash": torch.tensor([key("answer", answer) for answer in answers])}
        columns["empty"] = torch.tensor([not answer for answer in answers])
        for scoring in self._scorings:
            columns |= scoring.columns(answers, references)
        return columns

    def metrics(self, columns: EvalColumns, weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        """The scores that `metrics` names, the share of blanks, and the loss per token."""
        found: dict[str, np.ndarray] = {}
        for scoring in self._scorings:
            found |= scoring.scores(columns, weights_RN)
        found["blanks"] = metrics.per_unit(columns["blanks"], columns["positions"], weights_RN)
        return {**found, "loss": metrics.per_unit(columns["loss"], columns["tokens"], weights_RN)}

    def baseline(self, truth: Columns) -> Columns:
        """The most frequent training text; its loss and its blanks are not defined."""
        text = truth["text"]
        assert isinstance(text, Ragged)
        references = _texts.read_back(text.padded(), text.lengths)
        nothing = torch.full((len(references),), torch.nan)
        columns = self._columns([self.commonest] * len(references), references)
        ones = torch.ones(len(references))
        return {"loss": nothing, "tokens": ones, "blanks": nothing, "positions": ones, "too_long": ones > 1, **columns}

    def warnings(self, columns: EvalColumns) -> list[str]:
        told = []
        too_long, count = int(columns["too_long"].sum()), len(columns["too_long"])
        if too_long:
            told.append(
                f"{too_long:,} of {count:,} texts of the validation split need more positions than their recordings "
                "have, and teach nothing where they are in training; lower network.subsample, or take target.tokens = "
                '"bpe"'
            )
        blanks = float(columns["blanks"].sum() / max(1, columns["positions"].sum()))
        if blanks > ALL_BLANK and columns["empty"].mean() > ALL_EMPTY:
            told.append(
                f"{blanks:.1%} of the answers are blank and {columns['empty'].mean():.0%} of the texts are empty: so "
                "far the network has learned nothing but blanks, as CTC does at first; if that stays, train longer, "
                "change training.optimizer.lr, or begin with shorter recordings"
            )
        return told


class CtcHead(nn.Module):
    """Features of a recording's positions to logits over the vocabulary; those of other inputs are added to each."""

    def __init__(self, widths: Mapping[str, FeatureWidth], main: str, size: int) -> None:
        super().__init__()
        numbers = {name: width for name, width in widths.items() if isinstance(width, int)}
        self.main = main
        self.others = nn.ModuleDict(
            {
                f"of_{name}": nn.Sequential(nn.LayerNorm(width), nn.Linear(width, numbers[main]))
                for name, width in numbers.items()
                if name != main
            }
        )
        self.answer = nn.Linear(numbers[main], size)
        nn.init.normal_(self.answer.weight, std=0.02)
        nn.init.zeros_(self.answer.bias)

    def forward(self, features: Mapping[str, Features]) -> Heard:
        main = features[self.main]
        values_BTW = main.values
        assert isinstance(values_BTW, Tensor)
        for name, layer in self.others.items():
            values_BTW = values_BTW + layer(features[name.removeprefix("of_")].values)[:, None]
        count, steps = values_BTW.shape[:2]
        if main.inside_BT is None:
            length_B = torch.full((count,), steps, device=values_BTW.device)
        else:
            length_B = main.inside_BT.sum(1)
        return Heard(logits_BTV=self.answer(values_BTW), length_B=length_B, stride=main.stride)
