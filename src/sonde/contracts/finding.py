"""What a check found: a verdict with its evidence and the fix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["pass", "warn", "fail"]
# Records that a finding names; more would help nobody on a terminal.
NAMED = 20


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a check looked at. `text` says what was found, with its figures; `fix` what to do about it.

    `records` are ids, the worst first; `numbers` is the evidence for machines.
    """

    check: str
    verdict: Verdict
    text: str
    fix: str = ""
    records: Sequence[str] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "check": self.check,
            "verdict": self.verdict,
            "text": self.text,
            "fix": self.fix,
            "records": list(self.records)[:NAMED],
            "numbers": dict(self.numbers),
        }

    def to_text(self) -> str:
        word = {"pass": "pass", "warn": "WARN", "fail": "FAIL"}[self.verdict]
        lines = [f"{word}  {self.check:<22} {self.text}"]
        if self.verdict != "pass":
            if self.records:
                more = f" and {len(self.records) - 3:,} more" if len(self.records) > 3 else ""
                lines.append(f"{'':<29}records: {', '.join(self.records[:3])}{more}")
            if self.fix:
                lines.append(f"{'':<29}fix: {self.fix}")
        return "\n".join(lines)


def judged(share: float, *, warn: float, fail: float = float("inf")) -> Verdict:
    """The verdict on a number that should be low.

    >>> judged(0.05, warn=0.01, fail=0.2)
    'warn'
    """
    return "fail" if share >= fail else "warn" if share >= warn else "pass"
