"""The head of forecasts: from the features of each channel, or of the whole example, to every step ahead.

B example, C channel, H step ahead, Q answer of a step (quantile), W width, A step ahead of which something is known.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sonde.contracts.specs import Features

# Width of the layer that reads what is known of a step ahead.
HIDDEN = 32


class FutureHead(nn.Module):
    """(B, C, H, Q). `main` has features for each channel, of which the first `channels` are forecast; the features of
    other inputs are added to each. Without a `main` all channels are answered from the features of all inputs.

    What is `known` of a step ahead (calendar, prices) adds to the answers for that step: a small network for all steps.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        *,
        main: str | None,
        channels: int,
        horizon: int,
        answers: int,
        known: int,
    ) -> None:
        super().__init__()
        self.main, self.channels, self.horizon, self.answers = main, channels, horizon, answers
        self.others = [name for name in widths if name != main]
        beside = sum(widths[name] for name in self.others)
        width = beside if main is None else widths[main]
        self.norms = nn.ModuleList(nn.LayerNorm(widths[name]) for name in self.others) if len(widths) > 1 else None
        self.mix = nn.Linear(beside, width) if main is not None and self.others else None
        self.answer = nn.Linear(width, horizon * answers * (channels if main is None else 1))
        nn.init.normal_(self.answer.weight, std=0.02)
        nn.init.zeros_(self.answer.bias)
        self.ahead = self.ahead_answer = None
        if known:
            self.ahead = nn.Sequential(nn.Linear(known, HIDDEN), nn.GELU())
            self.ahead_answer = nn.Linear(HIDDEN, channels * answers)
            nn.init.normal_(self.ahead_answer.weight, std=1e-3)
            nn.init.zeros_(self.ahead_answer.bias)

    def forward(self, features: Mapping[str, Features], ahead_BAK: Tensor | None = None) -> Tensor:
        others = [features[name].values for name in self.others]
        values = torch.cat(self._normalized(others), dim=1) if others else None
        if self.main is not None:
            main = features[self.main].values
            assert isinstance(main, Tensor)
            main = main[:, : self.channels]
            values = main if self.mix is None or values is None else main + self.mix(values)[:, None]
        assert values is not None
        answer_BCHQ = self.answer(values).reshape(len(values), self.channels, self.horizon, self.answers)
        if self.ahead is not None and self.ahead_answer is not None and ahead_BAK is not None:
            later = self.ahead_answer(self.ahead(ahead_BAK)).unflatten(2, (self.channels, self.answers))
            answer_BCHQ = answer_BCHQ + later.transpose(1, 2)
        return answer_BCHQ

    def _normalized(self, others: list[Tensor | tuple[Tensor, ...]]) -> list[Tensor]:
        plain = [each for each in others if isinstance(each, Tensor)]
        return plain if self.norms is None else [norm(each) for norm, each in zip(self.norms, plain, strict=True)]
