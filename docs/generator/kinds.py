"""A page for each room of kinds: whatever is on disk, with what it declares and its settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from generator import settings, text
from sonde.base import lookup
from sonde.contracts.backbone import Backbone
from sonde.contracts.classical import Estimator
from sonde.contracts.input import Input
from sonde.contracts.target import Target
from sonde.data.settings import DataConfig
from sonde.data.source import Source

CONTRACTS = {"sources": Source, "inputs": Input, "targets": Target, "networks": Backbone, "estimators": Estimator}
# The section of a recipe that the settings of a kind stand in.
SECTIONS = {
    "sources": "data",
    "inputs": "inputs.NAME",
    "targets": "target",
    "networks": "network",
    "estimators": "classical",
}
ABOUT = {
    "sources": "A source reads a data set in a format that people already have. `sonde new` recognises it, so does "
    "a recipe without `data.kind`. Its options stand in `[data]`, beside [those of all sources](recipe.md#data).",
    "inputs": "An input knows what goes in. Its settings stand in `[inputs.NAME]`; the name is yours to choose.",
    "targets": "A target knows what comes out and how wrong an answer is. Its settings stand in `[target]`.",
    "networks": "A network is the backbone that turns an input into features; the target's head answers from them. Its "
    "settings stand in `[network]`, or in `[network.NAME]` for the input of that name.",
    "estimators": "An estimator is a classical model in place of a network: fitted by scikit-learn, kept as tensors. "
    "Its settings stand in `[classical]`; `sonde ladder` tries them all by itself.",
}
# Pages that people wrote about a kind.
PAGES = Path(__file__).parents[1] / "kinds"


def page(room: str) -> str:
    found = lookup.kinds(room)
    parts = [f"# {room.capitalize()}", ABOUT[room]]
    parts.append(text.table(["kind", ""], [(f"[`{name}`](#{name})", line) for name, line in found.items()]))
    for name, line in found.items():
        kind: Any = lookup.find(room, name, CONTRACTS[room])  # type: ignore[type-abstract]
        parts += [f"## {name}", line, " ".join(facts(room, kind))]
        if vars(kind).get("__doc__"):
            parts.append(text.doc(kind))
        if (PAGES / f"{name}.md").exists():
            parts.append(f"More: [{name}](../kinds/{name}.md).")
        parts += settings.tables(kind.Config, SECTIONS[room], skip=DataConfig.model_fields if room == "sources" else ())
    return text.page(parts)


def facts(room: str, kind: Any) -> Iterator[str]:
    """What a kind declares: by this it is known what fits together."""
    if room == "networks":
        yield f"Takes {_either(kind.accepts)}; answers per {_either(kind.gives)}."
        if kind.causal:
            yield "Can answer causally."
        if kind.conditions:
            yield "Can be steered by a condition."
    if room == "estimators":
        bags = ", those of words too" if kind.takes_bags else ""
        yield f"Answers with {_either(kind.solves)}; takes up to {kind.most_columns:,} columns{bags}."
    if room == "targets":
        yield f"Needs an answer per {_either(kind.asks.per)}" + (
            f" and an input that offers {_either(kind.accepts)}." if kind.accepts else "."
        )
        if hasattr(kind, "best"):
            yield f"The weights are chosen by `{kind.best[0]}`."
        if kind.baseline_name:
            yield f"Beside its scores stand those of: {kind.baseline_name}."


def _either(words: tuple[str, ...]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
