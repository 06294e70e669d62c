"""What a kind shows of itself on a report: pictures of its answers as data, drawn by the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

# heatmap: rows {x, y, value, count}; lines: {x, y, series}; points: {x, y, id}; bars: {x, value, low, high};
# grouped (bars): {x, value, series}.
PanelKind = Literal["heatmap", "lines", "points", "bars", "grouped"]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A picture: what is drawn (see `PanelKind`), its axes, and a sentence that says how to read it.

    `diagonal` draws the line where both axes are equal. `domain` are the order of a heatmap's rows and columns.
    """

    kind: PanelKind
    title: str
    note: str
    rows: Sequence[Mapping[str, Any]]
    x: str = ""
    y: str = ""
    diagonal: bool = False
    domain: Sequence[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
