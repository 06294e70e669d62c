"""What the looks of a training say (see `sonde.training.vitals`): units, gradients by depth, updates, spikes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sonde.contracts.finding import Finding, judged

# A layer of which so many units are dead at the end passes hardly anything on; of a healthy relu network a third is not
# rare (Glorot et al. 2011, "Deep Sparse Rectifier Neural Networks": half and more of the values are zeros).
DEAD = 0.9
# So many values at the limits of tanh or sigmoid (Glorot and Bengio 2010 show layers that saturate and stay so).
SATURATED = 0.6
# A layer's gradient beside the largest: a millionth of it has vanished on the way (Hochreiter 1991), and
# optimizers that divide by its size follow its noise.
VANISHED = 1e-6
# The length of an update beside that of its weight, at the highest rate of the run: about 1e-3 is usual (Karpathy,
# "makemore" lectures; Bottou 2012). A tenth forgets in ten steps; below 1e-6 float32 hardly moves.
LARGE, SMALL, USUAL = 0.1, 1e-5, 1e-3
# Nine gradients of ten are cut to a hundredth: the rate is not what the recipe says (Pascanu et al. 2013 clip near the
# mean length).
CUT = 100.0
# A spike: so many times the median of the 20 losses around it.
SPIKE = 3.0


@dataclass(frozen=True, kw_only=True)
class Looks:
    """The looks of a log: weights in the order of the network, numbers by look."""

    steps: Sequence[int]
    layers: Sequence[str]
    gradient: np.ndarray
    update: np.ndarray
    dead: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    saturated: Mapping[str, Sequence[float | None]] = field(default_factory=dict)

    @staticmethod
    def read(log: Path) -> Looks | None:
        """The looks of a log.jsonl, None where there are none; of a step that was made twice the last counts."""
        found: dict[int, dict[str, Any]] = {}
        for line in log.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if "vitals" in row:
                found[row["step"]] = row["vitals"]
        if not found:
            return None
        steps = sorted(found)
        looks = [found[step] for step in steps]
        layers = looks[0]["layers"]
        none = [None] * len(layers)
        return Looks(
            steps=steps,
            layers=layers,
            gradient=np.array([each["gradient"] for each in looks], dtype=np.float64),
            update=np.array([each.get("update", none) for each in looks], dtype=np.float64),
            dead={name: [each["dead"].get(name) for each in looks] for name in looks[-1]["dead"]},
            saturated={name: [each["saturated"].get(name) for each in looks] for name in looks[-1]["saturated"]},
        )


def findings(looks: Looks) -> Iterator[Finding]:
    """A verdict on each thing that was followed."""
    if looks.dead:
        yield _units(looks.dead, "dead units", DEAD, "of the units give nothing on any example", _REVIVE)
    if looks.saturated:
        yield _units(looks.saturated, "saturated units", SATURATED, "of the values stand at a limit", _UNSATURATE)
    yield _gradients(looks)
    if np.isfinite(looks.update).any():
        yield _updates(looks)


_REVIVE = "a lower training.optimizer.lr (a large step switches relu units off for good), normalized inputs, or gelu"
_UNSATURATE = "normalized inputs, smaller first weights or a lower training.optimizer.lr; relu or gelu have no limit"


def _units(found: Mapping[str, Sequence[float | None]], check: str, most: float, what: str, fix: str) -> Finding:
    last = {name: values[-1] or 0.0 for name, values in found.items()}
    worst = max(last, key=lambda name: last[name])
    return Finding(
        check=check,
        verdict=judged(last[worst], warn=most),
        text=f"at the end {last[worst]:.0%} {what} in {worst}; {np.mean([*last.values()]):.0%} in all layers",
        fix=fix,
        numbers={"layers": last},
    )


def _gradients(looks: Looks) -> Finding:
    most = np.nan_to_num(looks.gradient).max(axis=0)
    silent = [name for name, value in zip(looks.layers, most, strict=True) if value == 0]
    lost = [name for name, value in zip(looks.layers, most, strict=True) if 0 < value < VANISHED * most.max()]
    text = f"root mean square {most.min():.2g} to {most.max():.2g} over {len(most)} weights"
    if silent:
        text = f"{len(silent)} of {len(most)} weights never got a gradient: {', '.join(silent[:3])}"
    elif lost:
        text = f"{len(lost)} of {len(most)} weights get less than a millionth of the largest gradient: {lost[0]}"
    return Finding(
        check="gradients by depth",
        verdict="warn" if silent or lost else "pass",
        text=text,
        fix="a normalization in each layer, residual connections, fewer layers; is something detached?",
        numbers={name: float(f"{value:.4g}") for name, value in zip(looks.layers, most, strict=True)},
    )


def _updates(looks: Looks) -> Finding:
    seen = looks.update[np.isfinite(looks.update).any(axis=1)]
    peak = float(np.nanmax(np.nanmedian(seen, axis=1)))
    factor = USUAL / max(peak, 1e-12)
    large = peak >= LARGE
    bad = large or peak < SMALL
    return Finding(
        check="update to weight",
        verdict="warn" if bad else "pass",
        text=f"the median weight moved by {peak:.2g} of its length in one step, at most"
        + (f": {'too much to settle' if large else 'it hardly moves'} (about {USUAL:g} is usual)" if bad else ""),
        fix=f"training.optimizer.lr times {factor:.1g}" if peak > 0 else "is everything frozen?",
        numbers={"peak": peak},
    )


def clipping(log: Path, most: float) -> Iterator[Finding]:
    """Whether nearly every gradient is cut down to a fraction of itself."""
    norms = [
        row["norm"] for line in log.read_text(encoding="utf-8").splitlines() if "norm" in (row := json.loads(line))
    ]
    known = np.array([one for one in norms if isinstance(one, float) and np.isfinite(one)])
    if not most or len(known) < 10:
        return
    usual = float(np.quantile(known, 0.1)) / most
    yield Finding(
        check="clipping",
        verdict=judged(usual, warn=CUT),
        text=f"nine gradients of ten are {usual:.3g} times training.max_grad_norm or longer"
        if usual > 1
        else f"the median gradient is {float(np.median(known)) / most:.3g} times training.max_grad_norm long",
        fix=f"training.max_grad_norm = {float(np.median(known)):.1g}, about the median length; or 0, which is off",
        numbers={"median_norm": float(np.median(known))},
    )


def first_thing(found: Sequence[Finding]) -> str:
    """What to try first where training went badly, by the findings; empty where they say nothing."""
    order = ("clipping", "update to weight", "gradients by depth", "dead units", "saturated units")
    bad = {one.check: one for one in found if one.verdict != "pass"}
    first = next((bad[name] for name in order if name in bad), None)
    return "" if first is None else f"first: {first.fix} ({first.check}: {first.text})"


def spikes(steps: np.ndarray, losses: np.ndarray, records_of: Callable[[int], Sequence[str]]) -> Iterator[Finding]:
    """Single steps whose loss is far above that of the steps around it, and the records of the worst one's batch."""
    if len(losses) < 50:
        return
    windows = np.lib.stride_tricks.sliding_window_view(losses, 21)
    # A loss that is small already may jump without harm: what counts is a tenth of where it began.
    floor = 0.1 * float(np.median(np.abs(losses[:20])))
    over = losses[10:-10] - SPIKE * np.median(windows, axis=1) - floor
    high = np.flatnonzero(over > 0)
    if not len(high):
        yield Finding(check="loss spikes", verdict="pass", text=f"none in {len(losses):,} logged steps")
        return
    worst = 10 + int(high[np.argmax(over[high])])
    step = int(steps[worst])
    yield Finding(
        check="loss spikes",
        verdict="warn",
        text=f"{len(high)} of {len(losses):,} logged steps; the highest, {losses[worst]:.4g} at step {step:,}, is "
        f"{losses[worst] / max(1e-12, float(np.median(windows[worst - 10]))):.0f} times the loss around it",
        fix="look at the records of that batch, named here; then a lower rate or a tighter training.max_grad_norm",
        records=list(records_of(step)),
        numbers={"steps": [int(steps[10 + place]) for place in high[:50]]},
    )


def panels(looks: Looks) -> list[dict[str, Any]]:
    """The looks as lines for the report: one for each of a few layers, by step."""
    found = []
    chosen = sorted({int(place) for place in np.linspace(0, len(looks.layers) - 1, min(6, len(looks.layers)))})
    for values, title, note in (
        (looks.gradient, "Gradients by depth", "The root mean square of some weights' gradients, first to last layer."),
        (looks.update, "Update beside weight", "How far a step moves a weight, beside its length; 0.001 is usual."),
    ):
        rows = [
            {"x": step, "y": float(values[at, place]), "series": _brief(looks.layers[place])}
            for place in chosen
            for at, step in enumerate(looks.steps)
            if np.isfinite(values[at, place]) and values[at, place] > 0
        ]
        found.append({"title": title, "note": note, "rows": rows, "log": True, "y": title.lower()})
    for units, title in ((looks.dead, "Dead units"), (looks.saturated, "Saturated values")):
        names = list(units)[:: max(1, len(units) // 6)][:6]
        rows = [
            {"x": step, "y": value, "series": _brief(name)}
            for name in names
            for step, value in zip(looks.steps, units[name], strict=True)
            if value is not None
        ]
        note = "The share in some layers, on the same few training examples each time."
        found.append({"title": title, "note": note, "rows": rows, "log": False, "y": "share"})
    return [one for one in found if one["rows"]]


def _brief(name: str) -> str:
    """A layer's name without what all share."""
    short = name.removeprefix("backbones.").removesuffix(".weight")
    return short if len(short) <= 28 else f"...{short[-25:]}"
