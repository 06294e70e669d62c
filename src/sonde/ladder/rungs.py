"""The rungs of a ladder, the cheapest first: each a few recipes to try, or the reason why a data set cannot have it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sonde import classical, networks
from sonde.base import lookup
from sonde.base.config import kind_of
from sonde.base.errors import UserError
from sonde.contracts.backbone import Backbone, BackboneConfig
from sonde.contracts.batch import Examples
from sonde.contracts.task import Task
from sonde.recipe import Recipe
from sonde.training.ladder_settings import LadderConfig

# What the learning rate is multiplied by in each trial of a network.
RATES = (1.0, 1 / 3, 3.0)
# The settings by which a backbone starts from pretrained weights.
PRETRAINED = ("weights", "pretrained")
NO_WEIGHTS = "no weights at hand: the recipe's network starts from scratch"


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One approach. `recipes` are its trials, the best guess first; `reason` says why there are none. `dear`: it trains
    a network."""

    name: str
    about: str
    recipes: tuple[Recipe, ...] = ()
    reason: str = ""
    note: str = ""
    dear: bool = False


def rungs(recipe: Recipe, task: Task, train: Examples) -> list[Rung]:
    """All rungs for a recipe, in the order in which they are tried.

    Raises:
        UserError: `ladder.rungs` names one that there is none of.
    """
    found = [*_classical(recipe, task, train), *_pretrained(recipe), *_from_scratch(recipe, task)]
    wanted = recipe.ladder.rungs
    for name in wanted:
        if name not in [each.name for each in found]:
            raise UserError(
                f"ladder.rungs names {name!r}", expected="some of: " + ", ".join(each.name for each in found)
            )
    return [each for each in found if not wanted or each.name in wanted]


def _classical(recipe: Recipe, task: Task, train: Examples) -> Iterator[Rung]:
    for offer in classical.offers(task, train):
        plain = _plain(recipe)
        recipes = tuple(
            plain.model_copy(update={"network": {}, "classical": config})
            for config in offer.trials[: recipe.ladder.trials]
        )
        note = f"fitted to {offer.sampled:,} training records" if offer.sampled else ""
        yield Rung(name=offer.kind, about=offer.about, recipes=recipes, reason=offer.reason, note=note)


def _pretrained(recipe: Recipe) -> Iterator[Rung]:
    """Frozen features, adapters, all weights: of networks that start from what others have learned."""
    started = {name: config for name, config in recipe.network.items() if is_pretrained(config)}
    ways = {
        "frozen": ("frozen pretrained features, linear head", {"freeze": True}),
        "lora": ("low-rank adapters (LoRA) on the pretrained network", {"freeze": False}),
        "fine-tuned": ("fine-tuning all weights", {"freeze": False}),
    }
    for name, (about, settings) in ways.items():
        reason = "" if started else NO_WEIGHTS
        if name == "lora":
            able = {each: config for each, config in started.items() if "lora" in type(config).model_fields}
            if started and len(able) < len(started):
                reason = f"network '{kind_of(next(iter(started.values())))}' has no adapters"
        if reason:
            yield Rung(name=name, about=about, reason=reason, dear=True)
            continue
        changed = {}
        for each, config in recipe.network.items():
            own: dict[str, Any] = dict(settings) if each in started else {}
            if each in started and "lora" in type(config).model_fields:
                own["lora"] = (getattr(config, "lora", None) or {}) if name == "lora" else None
            changed[each] = type(config).model_validate({**config.model_dump(), **own})
        yield Rung(name=name, about=about, recipes=_trials(recipe, changed), dear=True)


def is_pretrained(config: BackboneConfig) -> bool:
    """Whether a network starts from weights that were learned elsewhere."""
    named = kind_of(config) == "huggingface" and bool(getattr(config, "name", None))
    return named or any(bool(getattr(config, name, None)) for name in PRETRAINED)


def _from_scratch(recipe: Recipe, task: Task) -> Iterator[Rung]:
    kinds = " and ".join(dict.fromkeys(kind_of(config) for config in recipe.network.values()))
    if any(is_pretrained(config) for config in recipe.network.values()):
        reason = "the recipe's network starts from pretrained weights"
        yield Rung(name="small-network", about=f"a small {kinds} from scratch", reason=reason, dear=True)
        yield Rung(name="network", about=f"the recipe's {kinds} from scratch", reason=reason, dear=True)
        return
    small = {name: _smaller(config) for name, config in recipe.network.items()}
    shrunk = {name: config for name, config in small.items() if config is not None}
    if len(shrunk) == len(small) and _weighs_less(task, shrunk, recipe):
        yield Rung(name="small-network", about=f"a small {kinds}", recipes=_trials(recipe, shrunk), dear=True)
    else:
        reason = f"network '{kinds}' has no smaller form"
        yield Rung(name="small-network", about=f"a small {kinds}", reason=reason, dear=True)
    yield Rung(name="network", about=f"the recipe's {kinds}", recipes=_trials(recipe, recipe.network), dear=True)


def _smaller(config: BackboneConfig) -> BackboneConfig | None:
    return lookup.find("networks", kind_of(config), Backbone).smaller(config)


def _weighs_less(task: Task, small: dict[str, BackboneConfig], recipe: Recipe) -> bool:
    """Whether the small network has fewer weights than the recipe's, which may be as small as can be."""
    sizes = [
        sum(one.numel() for one in networks.build(configs, task, restoring=True).parameters())
        for configs in (small, recipe.network)
    ]
    return sizes[0] < sizes[1]


def _plain(recipe: Recipe) -> Recipe:
    """The recipe of a rung: it knows nothing of the ladder, so that a ladder can go on with another bar or budget."""
    return recipe.model_copy(update={"ladder": LadderConfig(reference=False)})


def _trials(recipe: Recipe, network: dict[str, BackboneConfig]) -> tuple[Recipe, ...]:
    """The same network at several learning rates."""
    optimizer = recipe.training.optimizer
    found = []
    for rate in RATES[: recipe.ladder.trials]:
        changes = {"lr": optimizer.lr * rate}
        if optimizer.lr_adamw is not None:
            changes["lr_adamw"] = optimizer.lr_adamw * rate
        tuned = recipe.training.model_copy(update={"optimizer": optimizer.model_copy(update=changes)})
        found.append(_plain(recipe).model_copy(update={"network": network, "training": tuned}))
    return tuple(found)
