"""A tag for every word: parts of speech, or entities as BIO or BIOES tags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, TypeGuard, runtime_checkable

import numpy as np
import torch
from pydantic import Field

from sonde import metrics
from sonde.base.config import Config
from sonde.base.errors import RecordError, UnseenError, UserError, near, unknown
from sonde.base.gradients import without_gradient
from sonde.base.rng import BatchRng
from sonde.contracts.batch import Batch
from sonde.contracts.columns import Columns, EvalColumns, Ragged, Tensors
from sonde.contracts.input import Input
from sonde.contracts.part import agree
from sonde.contracts.records import Record, Records
from sonde.contracts.specs import InputSpec, OutputSpec
from sonde.contracts.target import Prediction, Target
from sonde.targets._classes import MOST, check_classes, listing, objects
from sonde.targets._inputs import asked_of_one, the_input
from sonde.targets._sums import weighted_sum

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sonde.contracts.classical import Problem

# What padding is in a truth: no loss, no score.
NONE = -100


class TagsConfig(Config):
    kind: Literal["tags"] = "tags"
    field: str = Field(default="tags", description="the field that holds a list of tags, one for each word")
    input: str | None = Field(default=None, description="the input whose words they are; the only one if left out")
    scheme: Literal["BIO", "BIOES", "none"] | None = Field(
        default=None, description="how tags mark entities: BIO, BIOES or none; what the training tags show if left out"
    )


@runtime_checkable
class Worded(Protocol):
    """A token input that knows whether its records are `words`, and what the words of one are."""

    words: bool

    def split(self, record: Record) -> tuple[list[str], str | None, list[int]]: ...


@dataclass(frozen=True, kw_only=True)
class Tags(Target):
    """Truth: "tags" int64 (B, W), -100 where there is no word; W counts words, however many tokens they are.

    The answer for a word is that at its first token (as in BERT, Devlin et al. 2019), which the input names: "starts"
    (B, W) and "words" (B,). `tags` are sorted by name, `tag_counts` are their training words; `scheme` says how they
    mark entities, None if they do not.
    Shape suffixes: B example, T token, W word, K tag, N word of any example.
    """

    Config = TagsConfig
    best: ClassVar = ("accuracy", "max")
    tie_break: ClassVar = ("log_loss", "min")
    baseline_name: ClassVar = "most frequent tag"
    asks: ClassVar = OutputSpec(per=("position",))
    accepts: ClassVar = ("tokens",)
    lower_is_better: ClassVar = frozenset({"log_loss"})
    ragged: ClassVar = ("tags",)

    config: TagsConfig
    input: str
    tags: list[str]
    tag_counts: list[int]
    scheme: metrics.Scheme | None

    @classmethod
    def fit(cls, config: TagsConfig, records: Records, inputs: Mapping[str, Input]) -> Self:
        name = the_input(inputs, "tokens", config.input, "tags")
        part = inputs[name]
        if not isinstance(part, Worded) or not part.words:
            raise UserError(
                f"target 'tags' needs words, and the records of input {name!r} are whole texts",
                expected="a list of words in each training record",
                hint="CoNLL and CoNLL-U files give such lists, and so does JSONL with tokens and tags, or with spans",
            )
        if config.field not in records.fields:
            raise unknown(config.field, records.fields, what="the field")
        values = [value for value in records.fields[config.field] if value is not None and _is_list(value)]
        counts = Counter(tag for value in values for tag in value if isinstance(tag, str) and tag.strip())
        tags = sorted(counts)
        if len(tags) < 2:
            shown = f"has no tag but {tags[0]!r}" if tags else "has no lists of tags"
            raise UserError(f"field {config.field!r} of the training split {shown}", expected="at least two tags")
        return cls(
            config=config,
            input=name,
            tags=tags,
            tag_counts=[counts[tag] for tag in tags],
            scheme=_scheme(config, tags),
        )

    def check_fitted(self, inputs: Mapping[str, Input]) -> None:
        check_classes(self.tags, self.tag_counts, None)
        agree(self.input == the_input(inputs, "tokens", self.config.input, "tags"), f"its input is {self.input!r}")

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator, given: Records) -> tuple[TagsConfig, Records]:
        """Where the input is a text, its words in its place, and those with a capital as places."""
        if "text" not in given.fields:
            return TagsConfig(), Records(fields={"tags": objects([["O", "B-place"]] * count)}, ids=given.ids)
        words = [text.split() for text in given.fields["text"]]
        tags = [["B-place" if word[0].isupper() else "O" for word in sentence] for sentence in words]
        return TagsConfig(), Records(fields={"text": objects(words), "tags": objects(tags)}, ids=given.ids)

    @property
    def monitor(self) -> tuple[str, Literal["max", "min"]]:
        return ("entity_f1", "max") if self.scheme else self.best

    @property
    def width(self) -> int:
        return len(self.tags)

    def outputs(self, inputs: Mapping[str, InputSpec]) -> dict[str, OutputSpec]:
        return asked_of_one(inputs, self.input, replace(self.asks, width=self.width))

    def encode(self, record: Record, given: Mapping[str, Tensors]) -> Tensors:
        tags, count = record.get(self.config.field), len(given[self.input]["starts"])
        if tags is None or not _is_list(tags):
            what = "are missing" if tags is None else f"are {tags!r}"
            raise RecordError(f"the tags in field {self.config.field!r} {what}", expected="a list, one for each word")
        if len(tags) != count:
            raise RecordError(f"the record has {count} words and {len(tags)} tags", expected="a tag for every word")
        codes = [self._codes.get(tag, -1) if isinstance(tag, str) else -1 for tag in tags]
        if -1 in codes:
            raise self._wrong(tags[codes.index(-1)], codes.index(-1) + 1)
        return {"tags": torch.tensor(codes)}

    @property
    def _codes(self) -> dict[str, int]:
        return {tag: code for code, tag in enumerate(self.tags)}

    def _wrong(self, tag: Any, number: int) -> RecordError:
        if not isinstance(tag, str) or not tag.strip():
            return RecordError(f"word {number} has {tag!r} in place of a tag", expected=listing(self.tags))
        close = near(tag, self.tags)
        return UnseenError(
            f"the tag {tag!r} of word {number} was never seen in training",
            expected=listing(self.tags),
            hint=f"did you mean {close!r}?" if close else "give the training split examples of it (see data.split)",
        )

    def collate(self, columns: Columns) -> Tensors:
        tags = columns["tags"]
        assert isinstance(tags, Ragged)
        return {"tags": tags.padded(NONE)}

    def counts(self, batch: Batch) -> Tensors:
        return {"loss": weighted_sum((batch.truth["tags"] != NONE).float(), batch.weight_B)}

    def loss(self, network: nn.Module, batch: Batch, rng: BatchRng) -> Tensors:
        return {"loss": weighted_sum(self._costs(self._logits(network, batch), batch), batch.weight_B)}

    def _logits(self, network: nn.Module, batch: Batch) -> Tensor:
        """The answers for all words, float32 (B, W, K); those beyond the last word of an example mean nothing."""
        given = batch.inputs[self.input]
        starts_BW, steps = given["starts"], given["tokens"].shape[1]
        first_B = torch.arange(len(starts_BW), device=starts_BW.device) * steps
        at_N = (starts_BW + first_B[:, None]).flatten()
        return network(batch.inputs, at_N).float().unflatten(0, starts_BW.shape)

    def _costs(self, logits_BWK: Tensor, batch: Batch) -> Tensor:
        """-log(probability) of every tag in nats, (B, W); 0 where there is no word."""
        truth_BW = batch.truth["tags"]
        cost_N = torch.nn.functional.cross_entropy(
            logits_BWK.flatten(0, 1), truth_BW.flatten(), ignore_index=NONE, reduction="none"
        )
        return cost_N.unflatten(0, truth_BW.shape)

    @without_gradient
    def predict(self, network: nn.Module, batch: Batch) -> list[Prediction]:
        """{"tags": [...], "confidence": [...]}, one of each for every word; with a scheme also "entities", each
        {"label", "words": [first, stop]}."""
        sure_BW, best_BW = self._logits(network, batch).softmax(2).max(2)
        counts = batch.inputs[self.input]["words"].tolist()
        found = []
        for codes, sure, count in zip(best_BW.tolist(), sure_BW.tolist(), counts, strict=True):
            tags = [self.tags[code] for code in codes[:count]]
            answer: Prediction = {"tags": tags, "confidence": sure[:count]}
            if self.scheme:
                spans = metrics.spans(tags, self.scheme)
                answer["entities"] = [{"label": label, "words": [start, stop]} for label, start, stop in spans]
            found.append(answer)
        return found

    def decode(
        self, predictions: list[Prediction], inputs: Mapping[str, Input], records: Records | None = None
    ) -> list[Prediction]:
        """Adds the "words", and the "text" of each entity; in a record that is a text also its "start" and "end" there,
        in characters."""
        part = inputs[self.input]
        if records is None or not isinstance(part, Worded):
            return predictions
        return [_quoted(each, *part.split(record)) for each, record in zip(predictions, records, strict=True)]

    @without_gradient
    def eval_outputs(self, network: nn.Module, batch: Batch) -> Columns:
        """Per example: "predicted" and "true" tags as codes, ragged, and the "loss" in nats, summed over its words."""
        logits_BWK = self._logits(network, batch)
        inside_BW = batch.truth["tags"] != NONE
        lengths = inside_BW.sum(1).cpu()
        starts = lengths.cumsum(0) - lengths
        return {
            "predicted": Ragged(values=logits_BWK.argmax(2)[inside_BW], starts=starts, lengths=lengths),
            "true": Ragged(values=batch.truth["tags"][inside_BW], starts=starts, lengths=lengths),
            "loss": self._costs(logits_BWK, batch).sum(1),
        }

    def baseline(self, truth: Columns) -> Columns:
        """The shares of the tags in training: the most frequent one is predicted."""
        true = truth["tags"]
        assert isinstance(true, Ragged)
        share_K = torch.tensor(self.tag_counts, dtype=torch.float32)
        cost_K = share_K.sum().log() - share_K.log()
        costs = replace(true, values=cost_K[true.values])
        likeliest = torch.full_like(true.values, int(share_K.argmax()))
        return {"predicted": replace(true, values=likeliest), "true": true, "loss": costs.padded().sum(1)}

    def costs(self, columns: EvalColumns) -> np.ndarray:
        """The share of each sentence's words that are wrong."""
        return np.array(
            [
                float(np.mean(predicted != true)) if len(true) else 0.0
                for predicted, true in zip(columns["predicted"], columns["true"], strict=True)
            ]
        )

    def classical(self, truth: Columns) -> Problem:
        """A row for each word."""
        from sonde.contracts.classical import Problem

        tags = truth["tags"]
        assert isinstance(tags, Ragged)
        codes = torch.cat([tags[index] for index in range(len(tags))])
        return Problem(kind="classes", width=self.width, truth=codes, per="position")

    def metrics(self, columns: Mapping[str, np.ndarray], weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        """Over words: accuracy, macro F1, log loss. Over entities, where tags mark them: precision, recall and F1 of
        all together, as seqeval has them, and F1 by label."""
        true, predicted = list(columns["true"]), list(columns["predicted"])
        counts = metrics.tally_words(true, predicted, len(self.tags), weights_RN)
        words_N = np.array([len(each) for each in true])
        scores = {
            "accuracy": metrics.accuracy(counts),
            "macro_f1": metrics.macro_f1(counts),
            "log_loss": metrics.per_unit(columns["loss"], words_N, weights_RN),
        }
        if self.scheme:
            names = objects(self.tags)
            found = metrics.entity_counts(
                [names[each].tolist() for each in true],
                [names[each].tolist() for each in predicted],
                self.scheme,
                sorted({tag[2:] or metrics.UNNAMED for tag in self.tags if tag != "O"}),
            )
            entities = metrics.entity_f1(found.tp_NE, found.predicted_NE, found.actual_NE, weights_RN)
            scores |= {
                "entity_f1": entities.f1_R,
                "entity_precision": entities.precision_R,
                "entity_recall": entities.recall_R,
            }
            if len(found.types) <= MOST:
                scores |= {f"entity_f1/{name}": entities.f1_RE[:, code] for code, name in enumerate(found.types)}
        elif len(self.tags) <= MOST:
            f1_RK = metrics.f1(counts)
            scores |= {f"f1/{name}": f1_RK[:, code] for code, name in enumerate(self.tags)}
        return scores


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim == 1)


def _scheme(config: TagsConfig, tags: Sequence[str]) -> metrics.Scheme | None:
    found = metrics.detect_scheme(tags)
    if config.scheme is None or config.scheme == found:
        return found
    if config.scheme == "none":
        return None
    try:
        metrics.spans(tags, config.scheme)
    except ValueError as error:
        raise UserError(f"target.scheme is {config.scheme}: {error}", hint="leave scheme out") from error
    return config.scheme


def _quoted(answer: Prediction, words: list[str], text: str | None, starts: list[int]) -> Prediction:
    """An answer with its words, and its entities as they stand in the text."""
    quoted = {"words": words, **answer}
    if "entities" in answer:
        quoted["entities"] = [{**each, **_place(each["words"], words, text, starts)} for each in answer["entities"]]
    return quoted


def _place(span: list[int], words: list[str], text: str | None, starts: list[int]) -> dict[str, Any]:
    first, stop = span
    if text is None:
        return {"text": " ".join(words[first:stop])}
    start, end = starts[first], starts[stop - 1] + len(words[stop - 1])
    return {"text": text[start:end], "start": start, "end": end}
