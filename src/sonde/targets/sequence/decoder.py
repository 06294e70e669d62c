"""Decoders with attention to what the backbones made of the inputs: a transformer, or a recurrent network.

Both answer a whole text at once (training, teacher forcing), and token by token from a cache (generation).
B example, U token of a text, T position of the memory, W width, V vocabulary, N chosen position, K text (beam) of an
example, H head, R width of a head.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sonde.base.config import Config
from sonde.contracts.specs import Features, FeatureWidth
from sonde.targets.sequence.memory import Memory


class DecoderConfig(Config):
    kind: Literal["transformer", "recurrent"] = Field(
        default="transformer", description="transformer, or recurrent (LSTM) with attention"
    )
    width: int | None = Field(default=None, ge=2, description="width of the decoder; that of the features if left out")
    layers: int = Field(default=3, ge=1, description="layers on top of each other")
    heads: int = Field(default=4, ge=1, description="transformer: attention heads")
    mlp_ratio: float = Field(default=4.0, gt=0, description="transformer: width inside, as a multiple of width")
    dropout: float = Field(
        default=0.1, ge=0, lt=1, description="share of embeddings and of each layer's result dropped"
    )
    tie: bool = Field(default=True, description="share the weights of the embedding and of the answer")

    @model_validator(mode="after")
    def _heads_fit(self) -> DecoderConfig:
        if self.kind == "transformer" and self.width is not None and self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


@dataclass(frozen=True, kw_only=True)
class Cache:
    """What is known of texts half written. `memory` are tensors of B rows, `past` of B * K rows (first axis each)."""

    memory: tuple[Tensor | None, ...]
    past: tuple[Tensor, ...]
    step: int

    def take_examples(self, index: Tensor, texts: int) -> Cache:
        """The cache of some examples, with all of their texts."""
        rows = (index[:, None] * texts + torch.arange(texts, device=index.device)).flatten()
        memory = tuple(None if each is None else each.index_select(0, index) for each in self.memory)
        return Cache(memory=memory, past=tuple(each.index_select(0, rows) for each in self.past), step=self.step)

    def take_texts(self, rows: Tensor) -> Cache:
        """The cache of other texts of the same examples."""
        return Cache(memory=self.memory, past=tuple(each.index_select(0, rows) for each in self.past), step=self.step)


class Decoder(nn.Module, abc.ABC):
    """A head: `decoder(features, shown_BU, at_N)` gives logits (B, U, V), or (N, V) at the chosen positions."""

    def __init__(self, config: DecoderConfig, widths: Mapping[str, FeatureWidth], vocabulary: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.memory = Memory(widths, width)
        self.embedding = nn.Embedding(vocabulary, width)
        self.dropout = nn.Dropout(config.dropout)
        self.answer = None if config.tie else nn.Linear(width, vocabulary)

    def forward(self, features: Mapping[str, Features], shown_BU: Tensor, at_N: Tensor | None = None) -> Tensor:
        memory_BTW, inside_BT = self.memory(features)
        x_BUW, _ = self.read(memory_BTW, inside_BT, shown_BU, look=False)
        if at_N is not None:
            return self.logits(x_BUW.flatten(0, 1).index_select(0, at_N))
        return self.logits(x_BUW)

    def logits(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.embedding.weight) if self.answer is None else self.answer(x)

    def attention(self, features: Mapping[str, Features], shown_BU: Tensor) -> Tensor:
        """Where in the memory each token was looked up, (B, U, T): the last layer's mean over its heads."""
        memory_BTW, inside_BT = self.memory(features)
        _, weights_BUT = self.read(memory_BTW, inside_BT, shown_BU, look=True)
        assert weights_BUT is not None
        return weights_BUT

    @abc.abstractmethod
    def read(
        self, memory_BTW: Tensor, inside_BT: Tensor | None, shown_BU: Tensor, *, look: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Features (B, U, W) of whole texts; with `look` also where they looked, (B, U, T)."""

    @abc.abstractmethod
    def begin(self, features: Mapping[str, Features], texts: int) -> Cache:
        """The cache of `texts` empty texts for each example."""

    @abc.abstractmethod
    def extend(self, tokens_BK: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Logits (B, K, V) after one more token of each text, and the new cache."""


class TransformerDecoder(Decoder):
    """Pre-norm blocks of self-attention, attention to the memory and a feed-forward layer (Vaswani et al. 2017)."""

    def __init__(self, config: DecoderConfig, widths: Mapping[str, FeatureWidth], vocabulary: int, width: int) -> None:
        super().__init__(config, widths, vocabulary, width)
        # No ModuleList: FSDP would gather each block by itself, and in evaluation processes take different numbers of
        # steps.
        self.blocks = nn.ModuleDict({f"block_{number}": Block(config, width) for number in range(config.layers)})
        self.norm = nn.LayerNorm(width)
        for name, weights in self.named_parameters():
            if weights.ndim > 1:
                # Branches are summed over the depth: their last layers start smaller, so that the sum does not grow.
                last = name.endswith(("out.weight", "fc2.weight"))
                nn.init.normal_(weights, std=width**-0.5 / (math.sqrt(3 * config.layers) if last else 1))
            elif name.endswith("bias"):
                nn.init.zeros_(weights)

    def read(
        self, memory_BTW: Tensor, inside_BT: Tensor | None, shown_BU: Tensor, *, look: bool
    ) -> tuple[Tensor, Tensor | None]:
        x_BUW, weights = self._entry(shown_BU, 0), None
        for block in self.blocks.values():
            assert isinstance(block, Block)
            x_BUW = x_BUW + self.dropout(block.self_attention(block.norm1(x_BUW)))
            pair = block.cross_attention.of_memory(memory_BTW)
            query_BUW = block.norm2(x_BUW)
            if look:
                weights = block.cross_attention.weights(query_BUW, pair[0], inside_BT)
            x_BUW = x_BUW + self.dropout(block.cross_attention(query_BUW, *pair, inside_BT))
            x_BUW = x_BUW + self.dropout(block.feed_forward(block.norm3(x_BUW)))
        return self.norm(x_BUW), weights

    def begin(self, features: Mapping[str, Features], texts: int) -> Cache:
        memory_BTW, inside_BT = self.memory(features)
        pairs, past = [], []
        for block in self.blocks.values():
            assert isinstance(block, Block)
            pairs += block.cross_attention.of_memory(memory_BTW)
            size = (len(memory_BTW) * texts, block.self_attention.heads, 0, self.width // block.self_attention.heads)
            past += [memory_BTW.new_empty(size), memory_BTW.new_empty(size)]
        return Cache(memory=(inside_BT, *pairs), past=tuple(past), step=0)

    def extend(self, tokens_BK: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        inside_BT, *pairs = cache.memory
        x_BKW = self._entry(tokens_BK, cache.step, at_once=False)
        past: list[Tensor] = []
        for number, block in enumerate(self.blocks.values()):
            assert isinstance(block, Block)
            before = cache.past[2 * number : 2 * number + 2]
            # Each text is a row of its own to itself; to the memory the texts of an example are queries side by side.
            seen, held = block.self_attention.extend(block.norm1(x_BKW).flatten(0, 1)[:, None], before)
            past += held
            x_BKW = x_BKW + seen[:, 0].unflatten(0, tokens_BK.shape)
            key, value = pairs[2 * number : 2 * number + 2]
            assert key is not None
            assert value is not None
            x_BKW = x_BKW + block.cross_attention(block.norm2(x_BKW), key, value, inside_BT)
            x_BKW = x_BKW + block.feed_forward(block.norm3(x_BKW))
        return self.logits(self.norm(x_BKW)), Cache(memory=cache.memory, past=tuple(past), step=cache.step + 1)

    def _entry(self, tokens: Tensor, start: int, *, at_once: bool = True) -> Tensor:
        """Embeddings (..., W) that know their place: one after another from `start`, or all at `start`."""
        places = torch.arange(start, start + (tokens.shape[1] if at_once else 1), device=tokens.device)
        x = self.embedding(tokens) * math.sqrt(self.width)
        return self.dropout(x + _sinusoids(places, self.width).to(x.dtype))


class Block(nn.Module):
    def __init__(self, config: DecoderConfig, width: int) -> None:
        super().__init__()
        hidden = round(config.mlp_ratio * width)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.self_attention = SelfAttention(width, config.heads)
        self.cross_attention = CrossAttention(width, config.heads)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x_BUW: Tensor) -> Tensor:
        query, key, value = self._parts(x_BUW)
        return self.out(_merged(functional.scaled_dot_product_attention(query, key, value, is_causal=True)))

    def extend(self, x_N1W: Tensor, past: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        query, key, value = self._parts(x_N1W)
        key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        return self.out(_merged(functional.scaled_dot_product_attention(query, key, value))), (key, value)

    def _parts(self, x_BUW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, (B, H, U, R) each."""
        query, key, value = self.qkv(x_BUW).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return query, key, value


class CrossAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.kv = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def of_memory(self, memory_BTW: Tensor) -> tuple[Tensor, Tensor]:
        """Key and value of the memory, (B, H, T, R) each: once for a whole text."""
        key, value = self.kv(memory_BTW).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return key, value

    def forward(self, x_BUW: Tensor, key: Tensor, value: Tensor, inside_BT: Tensor | None) -> Tensor:
        mask = None if inside_BT is None else inside_BT[:, None, None, :]
        return self.out(
            _merged(functional.scaled_dot_product_attention(self._query(x_BUW), key, value, attn_mask=mask))
        )

    def weights(self, x_BUW: Tensor, key: Tensor, inside_BT: Tensor | None) -> Tensor:
        """The attention itself, mean over heads, (B, U, T)."""
        score = self._query(x_BUW) @ key.transpose(2, 3) / math.sqrt(key.shape[3])
        if inside_BT is not None:
            score = score.masked_fill(~inside_BT[:, None, None, :], -torch.inf)
        return score.softmax(3).mean(1)

    def _query(self, x_BUW: Tensor) -> Tensor:
        return self.query(x_BUW).unflatten(2, (self.heads, -1)).transpose(1, 2)


class RecurrentDecoder(Decoder):
    """An LSTM that begins from the mean of the memory and attends to it after each token (Luong et al. 2015)."""

    def __init__(self, config: DecoderConfig, widths: Mapping[str, FeatureWidth], vocabulary: int, width: int) -> None:
        super().__init__(config, widths, vocabulary, width)
        self.layers = config.layers
        drop = config.dropout if config.layers > 1 else 0.0
        self.cell = nn.LSTM(width, width, config.layers, batch_first=True, dropout=drop)
        self.first = nn.Linear(width, 2 * config.layers * width)
        self.query, self.mix = nn.Linear(width, width, bias=False), nn.Linear(2 * width, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)

    def read(
        self, memory_BTW: Tensor, inside_BT: Tensor | None, shown_BU: Tensor, *, look: bool
    ) -> tuple[Tensor, Tensor | None]:
        x_BUW, _ = self.cell(self._entry(shown_BU), self._first(memory_BTW, inside_BT))
        return self._attend(x_BUW, memory_BTW, inside_BT)

    def begin(self, features: Mapping[str, Features], texts: int) -> Cache:
        memory_BTW, inside_BT = self.memory(features)
        # The state has its layers first; caches have their rows first.
        past = tuple(
            each.transpose(0, 1).repeat_interleave(texts, dim=0) for each in self._first(memory_BTW, inside_BT)
        )
        return Cache(memory=(inside_BT, memory_BTW), past=past, step=0)

    def extend(self, tokens_BK: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        inside_BT, memory_BTW = cache.memory
        assert memory_BTW is not None
        hidden, cell = (each.transpose(0, 1).contiguous() for each in cache.past)
        x_N1W, state = self.cell(self._entry(tokens_BK).flatten(0, 1)[:, None], (hidden, cell))
        mixed_BKW, _ = self._attend(x_N1W[:, 0].unflatten(0, tokens_BK.shape), memory_BTW, inside_BT)
        past = tuple(each.transpose(0, 1) for each in state)
        return self.logits(mixed_BKW), Cache(memory=cache.memory, past=past, step=cache.step + 1)

    def _entry(self, tokens: Tensor) -> Tensor:
        return self.dropout(self.embedding(tokens) * math.sqrt(self.width))

    def _first(self, memory_BTW: Tensor, inside_BT: Tensor | None) -> tuple[Tensor, Tensor]:
        """The state before the first token, (layers, B, W) twice."""
        if inside_BT is None:
            mean_BW = memory_BTW.mean(1)
        else:
            mean_BW = (memory_BTW * inside_BT[:, :, None]).sum(1) / inside_BT.sum(1, keepdim=True)
        state = self.first(mean_BW).tanh().unflatten(1, (2, self.layers, -1)).permute(1, 2, 0, 3).contiguous()
        return state[0], state[1]

    def _attend(self, x_BUW: Tensor, memory_BTW: Tensor, inside_BT: Tensor | None) -> tuple[Tensor, Tensor]:
        score_BUT = self.query(x_BUW) @ memory_BTW.transpose(1, 2) / math.sqrt(self.width)
        if inside_BT is not None:
            score_BUT = score_BUT.masked_fill(~inside_BT[:, None, :], -torch.inf)
        weights_BUT = score_BUT.softmax(2)
        mixed_BUW = self.mix(torch.cat([weights_BUT @ memory_BTW, x_BUW], dim=2)).tanh()
        return self.dropout(mixed_BUW), weights_BUT


def build(config: DecoderConfig, widths: Mapping[str, FeatureWidth], main: str, vocabulary: int) -> Decoder:
    """The decoder for features of these widths."""
    of_main = widths[main]
    width = config.width or (of_main[-1] if isinstance(of_main, tuple) else of_main)
    if config.kind == "recurrent":
        return RecurrentDecoder(config, widths, vocabulary, width)
    return TransformerDecoder(config, widths, vocabulary, -(-width // config.heads) * config.heads)


def _merged(seen_BHUR: Tensor) -> Tensor:
    return seen_BHUR.transpose(1, 2).flatten(2)


def _sinusoids(places: Tensor, width: int) -> Tensor:
    """Sines, then cosines, of places at `width` / 2 wavelengths from 2 pi to 20,000 pi: (..., width)."""
    half = (width + 1) // 2
    rate_F = 10_000.0 ** (-torch.arange(half, device=places.device) / half)
    angle = places[..., None] * rate_F
    return torch.cat([angle.sin(), angle.cos()], dim=-1)[..., :width]
