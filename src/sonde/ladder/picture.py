"""A picture of score against cost: one point a rung, with its interval on the held-out records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sonde.ladder.result import Ladder, Tried

COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#9d755d", "#e45756", "#72b7b2", "#bab0ac", "#eeca3b")
FILES = ("ladder.svg", "ladder.png")


def draw(ladder: Ladder) -> list[Path] | None:
    """Write ladder.svg and ladder.png into the ladder's folder; None without matplotlib."""
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    split = "test" if any("test" in each.scores for each in ladder.tried) else "validation"
    # Text stays text, and the same ladder gives the same bytes.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "sonde", "font.size": 10}):
        figure = Figure(figsize=(9.6, 4.8), layout="constrained")
        FigureCanvasAgg(figure)
        axes: Any = figure.add_subplot()
        for number, each in enumerate(each for each in ladder.tried if each.run is not None):
            _point(axes, each, split, COLOURS[number % len(COLOURS)], shipped=each.name == ladder.shipped)
        if ladder.bar is not None:
            axes.axhline(ladder.bar.value, color="#666666", linestyle="--", linewidth=1, label=f"bar: {ladder.bar}")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.margins(x=0.12)
        axes.set_xlabel("time of training, all trials (seconds)")
        axes.set_ylabel(f"{split} {ladder.metric} ({'higher' if ladder.better == 'max' else 'lower'} is better)")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside right upper", frameon=False, fontsize=9)
        paths = [ladder.folder / name for name in FILES]
        figure.savefig(paths[0], metadata={"Date": None})
        figure.savefig(paths[1], dpi=150)
    return paths


def _point(axes: Any, each: Tried, split: str, colour: str, *, shipped: bool) -> None:
    score = each.scores.get(split)
    if score is None or score.value is None:
        return
    low = score.value if score.low is None else score.low
    high = score.value if score.high is None else score.high
    seconds = max(each.seconds, 1e-3)
    label = f"{each.name}: {score.value:.4g}" + (" (ship)" if shipped else "")
    axes.errorbar(
        seconds,
        score.value,
        yerr=[[score.value - low], [high - score.value]],
        fmt="*" if shipped else "o",
        markersize=16 if shipped else 8,
        color=colour,
        capsize=4,
        label=label,
    )
    axes.annotate(each.name, (seconds, score.value), xytext=(8, 6), textcoords="offset points", fontsize=8)
