"""Forecasts in pictures: the error of each step ahead, forecasts beside what came, and a fan of quantiles.

N example, H step ahead, Q quantile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sonde.contracts.columns import EvalColumns
from sonde.contracts.panel import Panel
from sonde.contracts.target import Prediction

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

# Forecasts on a page; steps of the past beside one, as a multiple of its horizon; size of a channel's picture.
SHOWN, PAST = 3, 2
WIDTH, HEIGHT, MARGIN = 720, 220, 12
DEEP, LIGHT, INK = (27, 94, 138), (198, 219, 239), (70, 70, 70)


def panels(columns: EvalColumns, levels: Sequence[float], name: str) -> list[Panel]:
    """The error by the step ahead, and some forecasts of the first channel with what came."""
    count_H = np.maximum(columns["count"].sum(0), 1)
    rows = []
    for label, values in (("mae", columns["absolute"].sum(0) / count_H), ("mse", columns["squared"].sum(0) / count_H)):
        rows += [{"x": step + 1, "y": round(float(value), 5), "series": label} for step, value in enumerate(values)]
    found = [
        Panel(
            kind="lines",
            title="Error by step ahead",
            note="How errors grow with the distance, on the scale of the training split (1: a deviation of it).",
            rows=rows,
            x="step ahead",
            y="error",
        )
    ]
    fan_NHA = columns["fan"]
    for place in np.unique(np.linspace(0, len(fan_NHA) - 1, min(SHOWN, len(fan_NHA))).astype(int)).tolist():
        found.append(_forecast(fan_NHA[place], levels, name, place))
    return found


def _forecast(fan_HA: np.ndarray, levels: Sequence[float], name: str, place: int) -> Panel:
    middle = list(levels).index(0.5)
    lines = {"came": fan_HA[:, 0], "forecast": fan_HA[:, 1 + middle]}
    if len(levels) > 1:
        lines |= {f"{levels[0]:g}": fan_HA[:, 1], f"{levels[-1]:g}": fan_HA[:, -1]}
    rows = [
        {"x": step + 1, "y": float(f"{value:.5g}"), "series": label}
        for label, values in lines.items()
        for step, value in enumerate(values)
    ]
    return Panel(
        kind="lines",
        title=f"Forecast {place + 1} of {name}",
        note="What was forecast and what came, in the units of the data; outer lines are the outermost quantiles.",
        rows=rows,
        x="step ahead",
        y=name,
    )


def fan(prediction: Prediction, past: Any, levels: Sequence[float]) -> Picture:
    """The end of the past in ink, the forecast as a line in a fan of its quantiles; a row for each channel."""
    from PIL import Image, ImageDraw

    channels = list(prediction["forecast"])
    values = np.asarray(past, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    picture = Image.new("RGB", (WIDTH, HEIGHT * len(channels)), "white")
    pen = ImageDraw.Draw(picture)
    for row, name in enumerate(channels):
        forecast = np.array(prediction["forecast"][name])
        before = values[-PAST * len(forecast) :, row]
        bands = {level: np.array(each[name]) for level, each in prediction.get("quantiles", {}).items()}
        everything = np.concatenate([before[np.isfinite(before)], forecast, *bands.values()])
        low, high = float(everything.min()), float(everything.max())
        place = _Axes(len(before) + len(forecast), low, high, HEIGHT * row)
        steps = np.arange(len(before), len(before) + len(forecast))
        ends = [str(f"{level:g}") for level in levels]
        for number in range(len(ends) // 2):
            lower, upper = bands[ends[number]], bands[ends[-1 - number]]
            shade = 0.35 + 0.65 * (1 - number / max(1, len(ends) // 2))
            color = tuple(round(255 - (255 - each) * (1.5 - shade)) for each in LIGHT)
            pen.polygon([*place.points(steps, lower), *reversed(place.points(steps, upper))], fill=color)
        there = np.flatnonzero(np.isfinite(before))
        pen.line(place.points(there, before[there]), fill=INK, width=1)
        pen.line(place.points(steps, forecast), fill=DEEP, width=2)
        pen.text((MARGIN, HEIGHT * row + 2), f"{name}   {low:.4g} to {high:.4g}", fill=INK)
    return picture


class _Axes:
    """From steps and values to pixels."""

    def __init__(self, steps: int, low: float, high: float, top: int) -> None:
        self.steps, self.low, self.range, self.top = max(1, steps - 1), low, (high - low) or 1.0, top

    def points(self, steps: np.ndarray, values: np.ndarray) -> list[tuple[float, float]]:
        x = MARGIN + steps / self.steps * (WIDTH - 2 * MARGIN)
        y = self.top + HEIGHT - MARGIN - (values - self.low) / self.range * (HEIGHT - 3 * MARGIN)
        return list(zip(x.tolist(), y.tolist(), strict=True))
