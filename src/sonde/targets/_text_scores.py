"""The scores of generated texts: statistics per example, which are columns, and what the columns make together.

R row of weights, N example.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from sonde import metrics
from sonde.contracts.columns import Columns, Ragged

Name = Literal["bleu", "chrf", "ter", "wer", "cer", "cider_d", "exact_match"]
LOWER_IS_BETTER = frozenset({"ter", "wer", "cer"})
NO_SHARES = frozenset({"bleu", "chrf", "ter", "cider_d", "wer", "cer"})


@dataclass(frozen=True, kw_only=True)
class Settings:
    tokenize: metrics.Tokenize
    normaliser: metrics.Normaliser


class Scoring(abc.ABC):
    """One score; `name` is that of its column, too."""

    name: ClassVar[str]

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abc.abstractmethod
    def columns(self, answers: Sequence[str], references: Sequence[str]) -> Columns: ...

    @abc.abstractmethod
    def scores(self, columns: Mapping[str, np.ndarray], weights_RN: np.ndarray) -> dict[str, np.ndarray]: ...

    @abc.abstractmethod
    def signature(self) -> str:
        """How exactly it is computed, in the way of sacreBLEU's signatures."""


class Bleu(Scoring):
    name: ClassVar = "bleu"

    def columns(self, answers: Sequence[str], references: Sequence[str]) -> Columns:
        return {"bleu": torch.from_numpy(metrics.bleu_statistics(answers, references, self.settings.tokenize))}

    def scores(self, columns: Mapping[str, np.ndarray], weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        return {"bleu": metrics.bleu(columns["bleu"], weights_RN)}

    def signature(self) -> str:
        return f"nrefs:1|case:mixed|eff:no|tok:{self.settings.tokenize}|smooth:exp"


class Chrf(Scoring):
    name: ClassVar = "chrf"

    def columns(self, answers: Sequence[str], references: Sequence[str]) -> Columns:
        return {"chrf": torch.from_numpy(metrics.chrf_statistics(answers, references))}

    def scores(self, columns: Mapping[str, np.ndarray], weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        return {"chrf": metrics.chrf(columns["chrf"], weights_RN)}

    def signature(self) -> str:
        return "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no"


class Ter(Scoring):
    name: ClassVar = "ter"

    def columns(self, answers: Sequence[str], references: Sequence[str]) -> Columns:
        return {"ter": torch.from_numpy(metrics.ter_statistics(answers, references))}

    def scores(self, columns: Mapping[str, np.ndarray], weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        return {"ter": metrics.ter(columns["ter"], weights_RN)}

    def signature(self) -> str:
        return "nrefs:1|case:lc|tok:tercom|norm:no|punct:yes|asian:no"


class Wer(Scoring):
    name: ClassVar = "wer"

    def columns(self, answers: Sequence[str], references: Sequence[str]) -> Columns:
        found = metrics.word_errors(answers, references, self.settings.normaliser)
        return {self.name: torch.from_numpy(found)}

    def scores(self, columns: Mapping[str, np.ndarray], weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        rate = {self.name: metrics.error_rate(columns[self.name], weights_RN)}
        shares = metrics.error_shares(columns[self.name], weights_RN)
        return rate | {f"{self.name}/{sort}": share_R for sort, share_R in shares.items()}

    def signature(self) -> str:
        return f"nrefs:1|unit:words|normaliser:{self.settings.normaliser}"


class Cer(Wer):
    name: ClassVar = "cer"

    def columns(self, answers: Sequence[str], references: Sequence[str]) -> Columns:
        found = metrics.character_errors(answers, references, self.settings.normaliser)
        return {self.name: torch.from_numpy(found)}

    def signature(self) -> str:
        return f"nrefs:1|unit:characters|normaliser:{self.settings.normaliser}"


class CiderD(Scoring):
    """How rare an n-gram is hangs on all references, so the columns are the texts themselves."""

    name: ClassVar = "cider_d"

    def columns(self, answers: Sequence[str], references: Sequence[str]) -> Columns:
        return {"answer": utf8(answers), "reference": utf8(references)}

    def scores(self, columns: Mapping[str, np.ndarray], weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        answers, references = ([bytes(each).decode() for each in columns[name]] for name in ("answer", "reference"))
        return {"cider_d": metrics.mean(metrics.cider_d(answers, references), weights_RN)}

    def signature(self) -> str:
        return "nrefs:1|case:lc|tok:words|n:4|sigma:6|idf:references"


class ExactMatch(Scoring):
    name: ClassVar = "exact_match"

    def columns(self, answers: Sequence[str], references: Sequence[str]) -> Columns:
        how = self.settings.normaliser
        same = [
            metrics.normalise(one, how) == metrics.normalise(two, how)
            for one, two in zip(answers, references, strict=True)
        ]
        return {"exact_match": torch.tensor(same, dtype=torch.float32)}

    def scores(self, columns: Mapping[str, np.ndarray], weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        return {"exact_match": metrics.mean(columns["exact_match"], weights_RN)}

    def signature(self) -> str:
        return f"nrefs:1|normaliser:{self.settings.normaliser}"


SCORINGS: Mapping[Name, type[Scoring]] = {
    "bleu": Bleu,
    "chrf": Chrf,
    "ter": Ter,
    "wer": Wer,
    "cer": Cer,
    "cider_d": CiderD,
    "exact_match": ExactMatch,
}


def utf8(texts: Sequence[str]) -> Ragged:
    """Texts as a column: the bytes of each."""
    encoded = [text.encode("utf-8", errors="replace") for text in texts]
    values = torch.frombuffer(bytearray(b"".join(encoded)), dtype=torch.uint8) if any(encoded) else torch.empty(0)
    lengths = torch.tensor([len(each) for each in encoded], dtype=torch.int64)
    return Ragged(values=values.to(torch.uint8), starts=lengths.cumsum(0) - lengths, lengths=lengths)
