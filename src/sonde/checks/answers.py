"""What the network's own wiring gives away: answers that are probabilities already, parts that rest, looks ahead."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sonde.base import lookup
from sonde.base.config import kind_of
from sonde.checks.preflight import Flight
from sonde.contracts.backbone import Backbone
from sonde.contracts.finding import Finding

# Answers of several sum to 1 within this: no logits do so by chance.
SUM = 1e-3
# First weights are drawn uniformly (a kurtosis of 1.8) or normally (3); learned ones have heavier tails.
DRAWN = 3.2
# Targets whose loss takes logits. The others' answers are left alone.
_OF_LOGITS = ("classes", "tags", "vocabulary")


def logits(flight: Flight) -> Iterator[Finding]:
    """Whether the network answers with probabilities where the loss takes logits, and applies softmax once more."""
    task, network = flight.subject.task, flight.network().eval()
    if not any(getattr(task.target, name, None) for name in _OF_LOGITS) or not task.target.width:
        return
    with torch.inference_mode():
        answer = network(task.preprocess(flight.batch).inputs)
    if not isinstance(answer, Tensor) or answer.ndim < 2 or answer.numel() < 2:
        return
    unit = 1 if "pixel" in {spec.chosen for spec in task.outputs.values()} and answer.ndim > 3 else answer.ndim - 1
    inside = bool(((answer >= 0) & (answer <= 1)).all())
    sums = answer.float().sum(dim=unit)
    normalized = inside and answer.shape[unit] > 1 and bool(((sums - 1).abs() < SUM).all())
    # All of many numbers between 0 and 1, and none outside: the sigmoid of something.
    squashed = inside and not normalized and answer.numel() >= 64
    text = "answers are logits: they are negative, too, or above 1"
    if normalized:
        text = "the network's answers sum to 1: a softmax stands at its end, and the loss applies another"
    elif squashed:
        text = "all of the network's answers lie between 0 and 1: a sigmoid stands at its end, and the loss applies one"
    yield Finding(
        check="logits",
        verdict="fail" if normalized else "warn" if squashed else "pass",
        text=text,
        fix="take the last softmax or sigmoid out of the network: losses take logits",
    )


def frozen(flight: Flight) -> Iterator[Finding]:
    """Parts that are not trained though nobody loaded them: what starts at random and stays there learns nothing."""
    parameters = dict(flight.network().named_parameters())
    resting = [name for name, one in parameters.items() if not one.requires_grad]
    share = sum(parameters[name].numel() for name in resting) / max(1, sum(one.numel() for one in parameters.values()))
    tails = [_kurtosis(one) for name, one in parameters.items() if name in resting and one.ndim > 1]
    bad = bool(tails) and not _is_loaded(flight) and sorted(tails)[len(tails) // 2] < DRAWN
    yield Finding(
        check="frozen",
        verdict="warn" if bad else "pass",
        text=f"{share:.0%} of the weights ({len(resting)} of {len(parameters)} tensors) are not trained"
        + (f", and are spread as they are drawn at first, not as if learned: {', '.join(resting[:3])}" if bad else ""),
        fix="network.freeze = false, or requires_grad = True; or load pretrained weights: network.weights",
        numbers={"share": share},
    )


def _is_loaded(flight: Flight) -> bool:
    """Whether the recipe names pretrained weights."""
    if flight.own is not None:
        return False
    for config in flight.subject.recipe.network.values():
        kind = lookup.find("networks", kind_of(config), Backbone)  # type: ignore[type-abstract]
        if kind.first_weights(config) is not None:
            return True
    return False


def _kurtosis(weight: Tensor) -> float:
    values = weight.detach().float().flatten()
    centred = values - values.mean()
    return float(centred.pow(4).mean() / centred.square().mean().square().clamp(min=1e-30))


def causality(flight: Flight) -> Iterator[Finding]:
    """Where answers must not see the future: changed later positions leave the earlier answers as they are."""
    task = flight.subject.task
    asked = {name: spec for name, spec in task.outputs.items() if spec.causal}
    if not asked:
        return
    ((name, _), *_) = asked.items()
    network, batch = flight.network().eval(), task.preprocess(flight.batch)
    main = next((key for key in ("tokens", "frames") if key in batch.inputs[name]), None)
    if main is None:
        return
    given = batch.inputs[name]
    half = given[main].shape[1] // 2
    changed = given[main].clone()
    changed[:, half:] = changed[:, half:].flip(0).roll(1, 1) if len(changed) > 1 else changed[:, half:].flip(1)
    with torch.inference_mode():
        before = network(batch.inputs)
        after = network({**batch.inputs, name: {**given, main: changed}})
    if not isinstance(before, Tensor) or before.ndim != 3:
        return
    apart = float((before - after)[:, :half].abs().max()) / max(1.0, float(before.abs().max()))
    yield Finding(
        check="causality",
        verdict="fail" if apart > 1e-4 else "pass",
        text=f"other later positions change the earlier answers by {apart:.2g} at most",
        fix="the network sees the future that it is to tell: a causal mask is missing, or it reads in both directions",
        numbers={"difference": apart},
    )
