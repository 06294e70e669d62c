"""The next token of a text (language modelling), and texts that go on from a beginning."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import numpy as np
import torch
from pydantic import Field

from sonde import metrics
from sonde.base.config import Config
from sonde.base.errors import RecordError, UserError
from sonde.base.gradients import without_gradient
from sonde.base.rng import BatchRng, generator
from sonde.contracts.batch import Batch
from sonde.contracts.columns import Columns, EvalColumns, Tensors
from sonde.contracts.input import Input
from sonde.contracts.part import agree
from sonde.contracts.records import Record, Records
from sonde.contracts.specs import InputSpec, OutputSpec
from sonde.contracts.target import Prediction, Target
from sonde.targets._inputs import asked_of_one, the_input
from sonde.targets._positions import real_positions
from sonde.targets._sampling import Sampling, choose
from sonde.targets._sums import weighted_sum

if TYPE_CHECKING:
    from torch import Tensor, nn


class Generate(Sampling):
    """How a text is continued."""

    tokens: int = Field(default=200, ge=1, description="how many tokens are added")
    seed: int = Field(default=0, ge=0, description="same seed, same prompt: same text")


class NextTokenConfig(Config):
    kind: Literal["next-token"] = "next-token"
    input: str | None = Field(default=None, description="the token input to predict; the only one if left out")
    generate: Generate = Field(default=Generate(), description="how predictions continue a text")


@runtime_checkable
class Sized(Protocol):
    """A token input that knows how many bytes of text each token of its vocabulary stands for."""

    token_bytes: list[int]


@runtime_checkable
class Decodes(Protocol):
    """A token input that reads its tokens back as text."""

    def decode(self, ids: Sequence[int]) -> str: ...


@runtime_checkable
class Extends(Protocol):
    """A network that answers for further positions, given the cache of the earlier ones (None at the start)."""

    def extend(self, inputs: dict[str, Tensors], cache: Any) -> tuple[Tensor, Any]: ...


@dataclass(frozen=True, kw_only=True)
class NextToken(Target):
    """Needs no truth of its own: every token of the input but the first is to be predicted from those before it.

    `token_bytes` (V,) is there when the input knows it; then bits per byte are reported, which compares vocabularies.
    Shape suffixes: B example, T position, V vocabulary, M position of any example (B * T), N one of those that count,
    or token generated.
    """

    Config = NextTokenConfig
    best: ClassVar = ("loss", "min")
    asks: ClassVar = OutputSpec(per=("position",), causal=True)
    loss_reaches_zero: ClassVar = False
    accepts: ClassVar = ("tokens",)
    lower_is_better: ClassVar = frozenset({"loss", "perplexity", "bits_per_byte"})

    config: NextTokenConfig
    input: str
    vocabulary: int
    context: int
    token_bytes: list[int] | None

    @classmethod
    def fit(cls, config: NextTokenConfig, records: Records, inputs: Mapping[str, Input]) -> Self:
        name = the_input(inputs, "tokens", config.input, "next-token")
        part = inputs[name]
        if part.spec.subwords:
            raise UserError(
                f"target 'next-token' predicts whole tokens; input {name!r} takes them apart",
                hint="leave subwords out",
            )
        return cls(
            config=config,
            input=name,
            vocabulary=part.spec.vocabulary,
            context=part.spec.size[0],
            token_bytes=list(part.token_bytes) if isinstance(part, Sized) else None,
        )

    def check_fitted(self, inputs: Mapping[str, Input]) -> None:
        agree(
            self.input == the_input(inputs, "tokens", self.config.input, "next-token"), f"its input is {self.input!r}"
        )
        spec, sizes = inputs[self.input].spec, self.token_bytes
        agree(self.vocabulary == spec.vocabulary, f"its vocabulary is {self.vocabulary}, the input's {spec.vocabulary}")
        agree(self.context == spec.size[0], f"its context is {self.context}, the input's {spec.size[0]}")
        agree(sizes is None or len(sizes) == self.vocabulary, "token_bytes are not one a token")

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator, given: Records) -> tuple[NextTokenConfig, Records]:
        config = NextTokenConfig(generate=Generate(tokens=4, top_k=5))
        return config, Records(fields={}, ids=[f"text {index}" for index in range(count)])

    @staticmethod
    def fields(config: NextTokenConfig) -> list[str]:
        return []

    @property
    def width(self) -> int:
        return self.vocabulary

    def outputs(self, inputs: Mapping[str, InputSpec]) -> dict[str, OutputSpec]:
        return asked_of_one(inputs, self.input, replace(self.asks, width=self.width))

    def encode(self, record: Record, given: Mapping[str, Tensors]) -> Tensors:
        return {}

    def encode_many(self, records: Records, given: Mapping[str, Columns]) -> tuple[Columns, dict[int, RecordError]]:
        return {}, {}

    def counts(self, batch: Batch) -> Tensors:
        return {"loss": weighted_sum(self._positions(batch).float(), batch.weight_B)}

    def _positions(self, batch: Batch) -> Tensor:
        """How many tokens of each example are predicted, int64 (B,)."""
        return (batch.inputs[self.input]["length"] - 1).clamp_min(0)

    def loss(self, network: nn.Module, batch: Batch, rng: BatchRng) -> Tensors:
        return {"loss": weighted_sum(self._costs(network, batch), batch.weight_B)}

    def _costs(self, network: nn.Module, batch: Batch) -> Tensor:
        """-log(probability) of every predicted token in nats, (B, T), at the place before it; 0 where there is none."""
        given = batch.inputs[self.input]
        tokens_BT, length_B = given["tokens"], given["length"]
        # Tokens that augmentation hid are to be predicted as they were (word dropout, Bowman et al. 2016).
        next_BT = given.get("clean_tokens", tokens_BT).roll(-1, 1)
        # The last token is nobody's past. A network is given one position and a length of 1 at least.
        shown_BT = tokens_BT[:, : max(1, tokens_BT.shape[1] - 1)]
        shown = {**given, "tokens": shown_BT, "length": (length_B - 1).clamp_min(1)}
        place_T = torch.arange(1, shown_BT.shape[1] + 1, device=tokens_BT.device)
        beyond_BT = place_T[None, :] >= length_B[:, None]
        truth_M = next_BT[:, : shown_BT.shape[1]].masked_fill(beyond_BT, -100).flatten()
        inputs = {**batch.inputs, self.input: shown}
        at_N = real_positions(beyond_BT)
        if at_N is None:
            cost_M = self._cost(network(inputs).flatten(0, 1), truth_M)
        else:
            cost_N = self._cost(network(inputs, at_N), truth_M[at_N])
            cost_M = cost_N.new_zeros(len(truth_M)).index_copy(0, at_N, cost_N)
        return cost_M.unflatten(0, shown_BT.shape)

    def _cost(self, logits_MV: Tensor, truth_M: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(logits_MV.float(), truth_M, ignore_index=-100, reduction="none")

    @without_gradient
    def predict(self, network: nn.Module, batch: Batch) -> list[Prediction]:
        """{"tokens": [...]}: the ids that go on from each prompt, without the prompt itself."""
        return [{"tokens": ids} for ids in self.generate(network, batch.inputs)]

    def decode(
        self, predictions: list[Prediction], inputs: Mapping[str, Input], records: Records | None = None
    ) -> list[Prediction]:
        """Adds "text" where the input can read its own tokens back."""
        part = inputs[self.input]
        if not isinstance(part, Decodes):
            return predictions
        return [{"text": part.decode(each["tokens"]), **each} for each in predictions]

    @without_gradient
    def generate(self, network: nn.Module, inputs: dict[str, Tensors]) -> list[list[int]]:
        """The ids that go on from each prompt of a batch, `config.generate.tokens` of them.

        Each prompt has its own random numbers, so its text does not depend on its company. The network's cache is used
        where it has one. A text that outgrows the context starts afresh from its last half.
        """
        lengths = inputs[self.input]["length"].clamp_min(1).tolist()
        texts: dict[int, list[int]] = {}
        # Prompts of one length go together: none is padded, and a cache holds only what is real.
        for length in sorted(set(lengths)):
            rows = [row for row, one in enumerate(lengths) if one == length]
            index = torch.tensor(rows, device=inputs[self.input]["tokens"].device)
            chosen = {name: {key: value[index] for key, value in part.items()} for name, part in inputs.items()}
            ids = self._continue(network, chosen, chosen[self.input]["tokens"][:, :length]).tolist()
            texts |= dict(zip(rows, ids, strict=True))
        return [texts[row] for row in range(len(lengths))]

    def _continue(self, network: nn.Module, inputs: dict[str, Tensors], prompt_BT: Tensor) -> Tensor:
        """What follows prompts of one length, int64 (B, N)."""
        settings = self.config.generate
        streams = [generator(settings.seed, "generate", *ids) for ids in prompt_BT.tolist()]
        u_BN = torch.stack([torch.rand(settings.tokens, generator=stream) for stream in streams]).to(prompt_BT.device)
        window_BT = fresh_BT = prompt_BT[:, -self.context :]
        cache, added = None, []
        for step in range(settings.tokens):
            answer_BTV, cache = self._read(network, inputs, window_BT, fresh_BT, cache)
            fresh_BT = choose(answer_BTV[:, -1].float(), u_BN[:, step], settings)[:, None]
            added.append(fresh_BT)
            window_BT = torch.cat([window_BT, fresh_BT], dim=1)
            if window_BT.shape[1] > self.context:
                window_BT = fresh_BT = window_BT[:, -max(1, self.context // 2) :]
                cache = None
        return torch.cat(added, dim=1)

    def _read(
        self, network: nn.Module, inputs: dict[str, Tensors], window_BT: Tensor, fresh_BT: Tensor, cache: Any
    ) -> tuple[Tensor, Any]:
        """Answers for the fresh tokens, and the new cache; where there is none, the whole window is read again."""
        if isinstance(network, Extends):
            with contextlib.suppress(NotImplementedError):
                return network.extend(self._with(inputs, fresh_BT), cache)
        return network(self._with(inputs, window_BT)), None

    def _with(self, inputs: dict[str, Tensors], tokens_BT: Tensor) -> dict[str, Tensors]:
        length_B = torch.full((len(tokens_BT),), tokens_BT.shape[1], device=tokens_BT.device)
        return {**inputs, self.input: {"tokens": tokens_BT, "length": length_B}}

    @without_gradient
    def eval_outputs(self, network: nn.Module, batch: Batch) -> Columns:
        """Per example: "loss" in nats, summed over "positions", and the "bytes" of what was predicted, if known."""
        measured: Columns = {"loss": self._costs(network, batch).sum(1), "positions": self._positions(batch)}
        if self.token_bytes is not None:
            given = batch.inputs[self.input]
            bytes_V = torch.tensor(self.token_bytes, device=given["tokens"].device)
            place_T = torch.arange(given["tokens"].shape[1], device=given["tokens"].device)
            predicted_BT = (place_T[None, :] >= 1) & (place_T[None, :] < given["length"][:, None])
            measured["bytes"] = (bytes_V[given["tokens"]] * predicted_BT).sum(1)
        return measured

    def costs(self, columns: EvalColumns) -> np.ndarray:
        """Nats per token."""
        return columns["loss"] / np.maximum(columns["positions"], 1)

    def metrics(self, columns: Mapping[str, np.ndarray], weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        """loss in nats per token, its perplexity, and bits per byte of text."""
        loss_R = metrics.per_unit(columns["loss"], columns["positions"], weights_RN)
        scores = {"loss": loss_R, "perplexity": metrics.perplexity(loss_R)}
        if "bytes" in columns:
            nats_R = metrics.per_unit(columns["loss"], columns["bytes"], weights_RN)
            scores["bits_per_byte"] = nats_R / np.log(2)
        return scores
