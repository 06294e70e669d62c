"""Texts token by token from a decoder: the likeliest token each time, one drawn, or a beam.

No answer depends on its company: every example ends by itself and has its own random numbers.
B example, K text (beam) of an example, V vocabulary, U token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from sonde.contracts.specs import Features
from sonde.targets._sampling import Sampling, choose
from sonde.targets.sequence.decoder import Cache, Decoder

# Examples that are done are taken out when they are this share.
DONE = 0.25


class Generate(Sampling):
    """How an answer is looked for."""

    temperature: float = Field(
        default=0.0, ge=0, description="0: the likeliest answer; above, tokens are drawn, and below 1 likely ones gain"
    )
    beams: int = Field(
        default=1, ge=1, le=1000, description="texts that are followed side by side; 1 takes the likeliest token"
    )
    length_penalty: float = Field(
        default=1.0, ge=0, le=100, description="beams: log probabilities are divided by the length to this power"
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="same seed, same input: same answer")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.beams > 1 and self.temperature:
            raise ValueError("beams look for the likeliest answer, a temperature draws one; give one of them")
        return self


@dataclass(frozen=True, kw_only=True)
class Found:
    """Answers: the tokens of each, without the end, and the sum of their log probabilities, that of the end too."""

    tokens: list[list[int]]
    log_probability: list[float]


def generate(
    decoder: Decoder, features: Mapping[str, Features], settings: Generate, end: int, longest: int, u_BU: Tensor | None
) -> Found:
    """The answer to each example, of at most `longest` tokens; `u_BU` are numbers in [0, 1) to draw by."""
    if settings.beams > 1:
        return _beam(decoder, decoder.begin(features, settings.beams), settings, end, longest)
    return _one_by_one(decoder, decoder.begin(features, 1), settings, end, longest, u_BU)


def _one_by_one(
    decoder: Decoder, cache: Cache, settings: Generate, end: int, longest: int, u_BU: Tensor | None
) -> Found:
    count = len(cache.past[0])
    device = cache.past[0].device
    who_B = torch.arange(count, device=device)
    tokens_BU = torch.full((count, longest), end, device=device)
    total_B = torch.zeros(count, device=device)
    last_B = torch.full((count,), end, device=device)
    done_B = torch.zeros(count, dtype=torch.bool, device=device)
    for step in range(longest):
        logits_BKV, cache = decoder.extend(last_B[:, None], cache)
        logits_BV = logits_BKV[:, 0].float()
        next_B = logits_BV.argmax(1) if u_BU is None else choose(logits_BV, u_BU[who_B, step], settings)
        gained_B = logits_BV.gather(1, next_B[:, None])[:, 0] - logits_BV.logsumexp(1)
        total_B[who_B] += torch.where(done_B, 0.0, gained_B)
        last_B = torch.where(done_B, end, next_B)
        tokens_BU[who_B, step] = last_B
        done_B = done_B | (next_B == end)
        if not _some_done(done_B):
            continue
        left = (~done_B).nonzero()[:, 0]
        if not len(left):
            break
        who_B, last_B, done_B = who_B[left], last_B[left], done_B[left]
        cache = cache.take_examples(left, 1)
    return Found(tokens=[_until(ids, end) for ids in tokens_BU.tolist()], log_probability=total_B.tolist())


def _some_done(done_B: Tensor) -> bool:
    return bool(done_B.float().mean() >= DONE)


def _until(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids


@dataclass(frozen=True, kw_only=True)
class _Finished:
    """The best K texts of each example that have ended: scores by length, log probabilities, tokens filled with END."""

    score_BK: Tensor
    total_BK: Tensor
    tokens_BKU: Tensor

    def with_others(self, score: Tensor, total: Tensor, tokens: Tensor) -> _Finished:
        """The best K of these and of others (B, any number)."""
        score_BK, place_BK = torch.cat([self.score_BK, score], 1).topk(self.score_BK.shape[1], dim=1)
        tokens_BKU = torch.cat([self.tokens_BKU, tokens], 1)
        return _Finished(
            score_BK=score_BK,
            total_BK=torch.cat([self.total_BK, total], 1).gather(1, place_BK),
            tokens_BKU=tokens_BKU.gather(1, place_BK[:, :, None].expand(-1, -1, tokens_BKU.shape[2])),
        )

    def take(self, index: Tensor) -> _Finished:
        return _Finished(
            score_BK=self.score_BK[index], total_BK=self.total_BK[index], tokens_BKU=self.tokens_BKU[index]
        )


def _beam(decoder: Decoder, cache: Cache, settings: Generate, end: int, longest: int) -> Found:
    """Beam search as Hugging Face's generate has it at its defaults: an example ends when none of its K texts that
    go on can still beat the worst of K that have ended, at their length so far."""
    width = settings.beams
    count, device = len(cache.past[0]) // width, cache.past[0].device
    who_B = torch.arange(count, device=device)
    total_BK = torch.full((count, width), -torch.inf, device=device)
    total_BK[:, 0] = 0.0
    tokens_BKU = torch.full((count, width, longest), end, device=device)
    ended = _Finished(
        score_BK=torch.full((count, width), -torch.inf, device=device),
        total_BK=torch.full((count, width), -torch.inf, device=device),
        tokens_BKU=tokens_BKU,
    )
    last_BK = torch.full((count, width), end, device=device)
    found_tokens: list[list[int]] = [[] for _ in range(count)]
    found_total = [0.0] * count
    for step in range(longest):
        logits_BKV, cache = decoder.extend(last_BK, cache)
        logits_BKV = logits_BKV.float()
        # The best of all are among the best of each text: the whole vocabulary is gone through once.
        each = min(2 * width, logits_BKV.shape[2])
        likely_BKC, code_BKC = logits_BKV.topk(each, dim=2)
        sums_BKC = likely_BKC + (total_BK - logits_BKV.logsumexp(2))[:, :, None]
        best_BC, place_BC = sums_BKC.flatten(1).topk(min(2 * width, each * width), dim=1)
        from_BC, token_BC = place_BC // each, code_BKC.flatten(1).gather(1, place_BC)
        chosen = tokens_BKU.gather(1, from_BC[:, :, None].expand(-1, -1, longest))
        ends_BC = token_BC == end
        # Those past the K best do not count as ended: they would not have been followed either.
        counts_BC = ends_BC & (torch.arange(best_BC.shape[1], device=device) < width)
        power = (step + 1) ** settings.length_penalty
        ended = ended.with_others((best_BC / power).masked_fill(~counts_BC, -torch.inf), best_BC, chosen)
        total_BK, kept_BK = best_BC.masked_fill(ends_BC, -torch.inf).topk(width, dim=1)
        from_BK, last_BK = from_BC.gather(1, kept_BK), token_BC.gather(1, kept_BK)
        tokens_BKU = chosen.gather(1, kept_BK[:, :, None].expand(-1, -1, longest))
        tokens_BKU[:, :, step] = last_BK
        rows = (torch.arange(len(who_B), device=device)[:, None] * width + from_BK).flatten()
        cache = cache.take_texts(rows)
        if step == longest - 1:
            ended = ended.with_others(total_BK / power, total_BK, tokens_BKU)
        done_B = (ended.score_BK[:, -1] >= total_BK[:, 0] / power) | (step == longest - 1)
        if not bool(done_B.any()):
            continue
        finished = done_B.nonzero()[:, 0]
        _note(found_tokens, found_total, who_B[finished], ended.take(finished), end)
        left = (~done_B).nonzero()[:, 0]
        if not len(left):
            break
        who_B, total_BK, tokens_BKU, last_BK = who_B[left], total_BK[left], tokens_BKU[left], last_BK[left]
        ended, cache = ended.take(left), cache.take_examples(left, width)
    return Found(tokens=found_tokens, log_probability=found_total)


def _note(tokens: list[list[int]], total: list[float], who_B: Tensor, ended: _Finished, end: int) -> None:
    """Write down the best text of examples that are done."""
    best = zip(who_B.tolist(), ended.tokens_BKU[:, 0].tolist(), ended.total_BK[:, 0].tolist(), strict=True)
    for who, ids, log_probability in best:
        tokens[who], total[who] = _until(ids, end), log_probability
