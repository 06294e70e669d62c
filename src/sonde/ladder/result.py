"""What a ladder found: every rung with its score and its cost, the one to ship, and why."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from sonde.evaluation import Score
from sonde.ladder.bar import Bar
from sonde.ladder.choose import LEVEL, Better, Comparison
from sonde.ladder.rungs import Rung

MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A rung as it came out, or the `reason` why it was not tried.

    `scores` are those of the metric that decides, by split; `seconds` are those of all its trials, encoding and scoring
    included; `latency` is in seconds for one record alone.
    """

    name: str
    about: str
    note: str = ""
    reason: str = ""
    run: Path | None = None
    trials: int = 0
    scores: dict[str, Score | None] = field(default_factory=dict)
    seconds: float = 0.0
    num_bytes: int = 0
    latency: float = 0.0
    comparison: Comparison | None = None

    @classmethod
    def left_out(cls, rung: Rung, reason: str) -> Self:
        return cls(name=rung.name, about=rung.about, reason=reason)

    def to_json(self, price: float) -> dict[str, Any]:
        if self.run is None:
            return {"rung": self.name, "about": self.about, "reason": self.reason}
        compared = self.comparison
        return {
            "rung": self.name,
            "about": self.about,
            "note": self.note,
            "run": str(self.run),
            "artifact": str(self.run / "model"),
            "trials": self.trials,
            "scores": {split: None if score is None else asdict(score) for split, score in self.scores.items()},
            "seconds": round(self.seconds, 3),
            "bytes": self.num_bytes,
            "latency_ms": round(self.latency * 1000, 4),
            "price_of_training": round(price * self.seconds / 3600, 6),
            "price_of_a_million": round(price * self.latency * MILLION / 3600, 6),
            "behind_the_best": None
            if compared is None
            else {
                "best": compared.best,
                "difference": _number(compared.difference.value),
                "low": _number(compared.difference.low),
                "high": _number(compared.difference.high),
                "p": compared.difference.p,
                "level": compared.level,
                "tie": compared.tie,
            },
        }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """A finished ladder. `shipped` and `best` (by validation) are names of rungs; `best_on_test` is shown only."""

    folder: Path
    metric: str
    better: Better
    bar: Bar | None
    price: float
    looks: int
    tried: list[Tried]
    shipped: str
    best: str
    best_on_test: str | None
    num_validation: int
    baseline_name: str = ""

    def rung(self, name: str) -> Tried:
        return next(each for each in self.tried if each.name == name)

    @property
    def artifact(self) -> Path:
        """The artifact to ship."""
        run = self.rung(self.shipped).run
        assert run is not None
        return run / "model"

    @property
    def meets_bar(self) -> bool | None:
        """Whether the shipped rung meets the bar on the validation split, and on the test split where there is one;
        None without a bar."""
        if self.bar is None:
            return None
        found = [score.value for score in self.rung(self.shipped).scores.values() if score is not None]
        return all(self.bar.met(value) for value in found)

    @property
    def seconds(self) -> float:
        return sum(each.seconds for each in self.tried)

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "better": self.better,
            "bar": None if self.bar is None else str(self.bar),
            "meets_bar": self.meets_bar,
            "looks": self.looks,
            "seconds": round(self.seconds, 3),
            "price": round(self.price * self.seconds / 3600, 6),
            "ship": {"rung": self.shipped, "artifact": str(self.artifact), "why": self.why()},
            "best": self.best,
            "best_on_test": self.best_on_test,
            "rungs": [each.to_json(self.price) for each in self.tried],
        }

    def why(self) -> str:
        """Why this rung, in a sentence or two."""
        if self.bar is not None and self.bar.met(_value(self.rung(self.shipped), "validation")):
            return f"the cheapest that meets {self.bar} on the validation split" + self._on_test()
        unmet = "" if self.bar is None else f"none meets {self.bar}; "
        if self.shipped == self.best:
            return f"{unmet}the best on the validation split, and all that is cheaper is behind by more than chance"
        compared = self.rung(self.shipped).comparison
        assert compared is not None
        found = compared.difference
        return (
            f"{unmet}{self.best} is best on the validation split, ahead by {found.value:.4g} "
            f"[{found.low:.4g}, {found.high:.4g}]; {self.num_validation:,} records cannot tell that from chance "
            f"(p = {found.p:.2g}, and {LEVEL:g} / {self.looks} looks = {compared.level:.2g} counts), "
            "and a tie goes to the cheaper one"
        )

    def _never_looks(self) -> str:
        """The score of the answer that never looks at the input, where no rung is that answer."""
        if any(each.name == "constant" and each.run is not None for each in self.tried):
            return ""
        found = {split: score for each in self.tried for split, score in each.scores.items() if score is not None}
        shown = [f"{split} {score.baseline:.4g}" for split, score in found.items() if score.baseline is not None]
        return f"without looking at the input ({self.baseline_name}): {', '.join(shown)}" if shown else ""

    def _on_test(self) -> str:
        score = self.rung(self.shipped).scores.get("test")
        if score is None or self.bar is None:
            return ""
        if not self.bar.met(score.value):
            return f"; on the test split it does not ({score})"
        inside = score.low is not None and score.high is not None and score.low <= self.bar.value <= score.high
        return "; on the test split too" + (", though its interval holds less" if inside else "")

    def to_text(self) -> str:
        lines = _table(self)
        blind = self._never_looks()
        if blind:
            lines.append(blind)
        left_out = [each for each in self.tried if each.reason]
        if left_out:
            wide = max(len(each.name) for each in left_out)
            lines += ["left out", *(f"  {each.name:<{wide}}  {each.reason}" for each in left_out)]
        lines.append(f"ship {self.shipped}: {self.why()}")
        if self.best_on_test not in (None, self.shipped):
            peak = "highest" if self.better == "max" else "lowest"
            lines.append(f"on the test split, which decided nothing, {self.best_on_test} is {peak}")
        if self.shipped == "constant":
            lines.append("no model is better than one answer for all: too few records, or nothing to learn from them")
        price = f", at {self.price:g} an hour {self.price * self.seconds / 3600:.4g}" if self.price else ""
        lines.append(f"all rungs took {_time(self.seconds)}{price}")
        lines += ["made", f"  ladder     {self.folder}", f"  artifact   {self.artifact}"]
        return "\n".join(lines)


def _value(tried: Tried, split: str) -> float | None:
    score = tried.scores.get(split)
    return None if score is None else score.value


def _table(ladder: Ladder) -> list[str]:
    splits = [split for split in ("validation", "test") if any(split in each.scores for each in ladder.tried)]
    head = ["", "rung", *(f"{split} {ladder.metric}" for split in splits), "time", "size", "a record"]
    if ladder.price:
        head += ["training", "a million"]
    rows = [head]
    for each in ladder.tried:
        if each.run is None:
            continue
        row = ["->" if each.name == ladder.shipped else "", each.name]
        row += [str(each.scores[split] or "not defined here") for split in splits]
        row += [_time(each.seconds), _size(each.num_bytes), _time(each.latency)]
        if ladder.price:
            row += [
                f"{ladder.price * each.seconds / 3600:.3g}",
                f"{ladder.price * each.latency * MILLION / 3600:.3g}",
            ]
        rows.append([*row, each.about + (f" ({each.note})" if each.note else "")])
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return [
        "  ".join(f"{cell:<{wide}}" for cell, wide in zip(row, [*widths, 0], strict=False)).rstrip() for row in rows
    ]


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds / 60:.3g} min"


def _size(count: int) -> str:
    return f"{count / 1000:.3g} kB" if count < MILLION else f"{count / MILLION:.3g} MB"
