"""Bag of words: the weighted sum of the vectors of words, and of runs of them if asked; for few texts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from sonde.contracts.backbone import Backbone, BackboneConfig
from sonde.contracts.columns import Tensors
from sonde.contracts.specs import InputSpec, LayoutName, OutputSpec, Per
from sonde.networks._sequences import inside

# An odd constant that spreads the sums of ids over the buckets (Knuth's multiplicative hashing).
SPREAD = 2_654_435_761


class NgramsConfig(BackboneConfig):
    kind: Literal["ngrams"] = "ngrams"
    width: int = Field(64, ge=1, description="width of the vector of each token and each run of tokens")
    longest: int = Field(1, ge=1, le=5, description="the longest run of tokens that is looked up: 1 is tokens alone")
    buckets: int = Field(4096, ge=1, description="vectors that runs of two tokens and more share, by their hash")
    dropout: float = Field(0.3, ge=0, lt=1, description="share of the tokens and runs that training leaves out")


class Ngrams(Backbone):
    """(B, T) tokens to (B, width): the sum of the vectors of all tokens and runs, each by its weight, all weights of a
    text scaled to norm 1 together.

    A bag of words and hashed pairs as in fastText (Joulin et al. 2017, "Bag of Tricks for Efficient Text
    Classification"). Weights are learned, and start from how rare a token is, as in TF-IDF: vocabularies count from the
    most frequent token on, and a word's frequency falls with its rank (Zipf's law). V vocabulary, L all that is summed.
    """

    Config = NgramsConfig
    accepts: ClassVar[tuple[LayoutName, ...]] = ("tokens",)
    gives: ClassVar[tuple[Per, ...]] = ("example",)
    tiny: ClassVar[Mapping[str, Any]] = {"width": 8, "longest": 2, "buckets": 16}

    def __init__(self, config: NgramsConfig, spec: InputSpec, output: OutputSpec) -> None:
        super().__init__(config, spec, output)
        self.vocabulary, self.buckets, self.longest = spec.vocabulary, config.buckets, config.longest
        pairs = config.buckets if config.longest > 1 else 0
        total = spec.vocabulary + pairs + spec.subwords
        self.vectors = nn.Embedding(total, config.width)
        nn.init.normal_(self.vectors.weight, std=config.width**-0.5)
        # One number each, of which the exponential is the weight; not a matrix, so that it does not decay to 1.
        self.log_weight_V = nn.Parameter(torch.zeros(total))
        with torch.no_grad():
            self.log_weight_V[: spec.vocabulary] = _rarity(spec.vocabulary).log()
        self.dropout = nn.Dropout(config.dropout)
        self.width = config.width

    def forward(self, tensors: Tensors) -> Tensor:
        ids_BL, there_BL = self._runs(tensors)
        weight_BL = self.log_weight_V[ids_BL].exp() * self.dropout(there_BL.to(self.log_weight_V.dtype))
        weight_BL = functional.normalize(weight_BL, dim=1)
        return functional.embedding_bag(
            ids_BL, self.vectors.weight, per_sample_weights=weight_BL.to(self.vectors.weight.dtype), mode="sum"
        )

    def _runs(self, tensors: Tensors) -> tuple[Tensor, Tensor]:
        """The number of every token, run and subword of each text, int64 (B, L), and which are real, bool (B, L)."""
        tokens_BT = tensors["tokens"]
        if tokens_BT.shape[1] == 0:
            tokens_BT = tokens_BT.new_zeros(len(tokens_BT), 1)
        inside_BT = inside(tensors, tokens_BT.shape[1])
        if inside_BT is None:
            inside_BT = torch.ones_like(tokens_BT, dtype=torch.bool)
        ids, there = [tokens_BT], [inside_BT]
        run_BT = tokens_BT
        for length in range(2, min(self.longest, tokens_BT.shape[1]) + 1):
            run_BT = run_BT[:, :-1] * SPREAD % 2_147_483_647 + tokens_BT[:, length - 1 :]
            ids.append(self.vocabulary + run_BT * SPREAD % 2_147_483_647 % self.buckets)
            there.append(inside_BT[:, length - 1 :])
        if "subwords" in tensors:
            parts_BTP = tensors["subwords"]
            offset = len(self.log_weight_V) - self.vocabulary - (self.buckets if self.longest > 1 else 0)
            ids.append((parts_BTP + len(self.log_weight_V) - offset).flatten(1))
            there.append(((parts_BTP > 0) & inside_BT[:, : parts_BTP.shape[1], None]).flatten(1))
        return torch.cat(ids, dim=1), torch.cat(there, dim=1)


def _rarity(vocabulary: int) -> Tensor:
    """Weights (V,) from near 0 for the most frequent token to 1 for the rarest: log(rank) / log(V)."""
    rank_V = torch.arange(2, vocabulary + 2, dtype=torch.float32)
    return rank_V.log() / math.log(vocabulary + 2)
