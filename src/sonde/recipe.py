"""The recipe: a typed TOML file that says what to learn, from what, and how. Strict reading, resolved writing."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import Field, SerializeAsAny, ValidationError

from sonde.base import lookup
from sonde.base.config import Config
from sonde.base.errors import UserError
from sonde.contracts.backbone import Backbone, BackboneConfig
from sonde.contracts.classical import Estimator, EstimatorConfig
from sonde.contracts.decision import DecisionConfig
from sonde.contracts.input import Input
from sonde.contracts.target import Target
from sonde.data.settings import DataConfig
from sonde.training.ladder_settings import LadderConfig
from sonde.training.settings import TrainingConfig

SECTIONS = ("data", "inputs", "target", "network", "training", "classical", "ladder", "decision")
# Sections that a recipe can leave out.
OPTIONAL = ("training", "ladder", "decision")


class Recipe(Config):
    """What to learn, from what, and how: every section of a recipe, read strictly and with its defaults filled in."""

    data: DataConfig
    source: SerializeAsAny[Config] = Field(exclude=True)
    inputs: dict[str, SerializeAsAny[Config]]
    target: SerializeAsAny[Config]
    # A recipe has networks, or a classical model in their place.
    network: dict[str, SerializeAsAny[BackboneConfig]] = Field(default_factory=dict)
    classical: SerializeAsAny[EstimatorConfig] | None = None
    training: TrainingConfig
    ladder: LadderConfig = LadderConfig()
    decision: DecisionConfig = DecisionConfig()

    @classmethod
    def read(cls, path: str | Path, *, changes: Sequence[str] = ()) -> Recipe:
        """Read a recipe file; `changes` are overrides such as "training.steps=100".

        Raises:
            UserError: it is not TOML, a setting does not exist or has a wrong value; names the line and the near miss.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"the recipe {path} cannot be read: {error.strerror or error}",
                hint="`sonde new DATA` writes one",
            ) from error
        except UnicodeDecodeError as error:
            raise UserError(f"the recipe {path} is not UTF-8 text (byte {error.start})") from error
        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UserError(
                f"the recipe {path} is not TOML: {error}", hint='strings need quotes: kind = "image"'
            ) from error
        for change in changes:
            _apply(tables, change)
        overridden = [change.partition("=")[0].strip().split(".") for change in changes]
        return cls.of(tables, base=path.parent, where=_Lines(path, text, overridden))

    @classmethod
    def of(cls, tables: Mapping[str, Any], *, base: Path | None = None, where: _Lines | None = None) -> Recipe:
        """A recipe from nested tables. Relative paths (`data.source`, a tokenizer) start at `base`, or else here."""
        where = where or _Lines()
        where.base = base or Path.cwd()
        for section in tables:
            if section not in SECTIONS:
                raise _not_a_setting((section,), None, where, SECTIONS)
        model = "classical" if "classical" in tables else "network"
        if model == "classical" and "network" in tables:
            raise UserError(
                f"the recipe{where.of_file()} has a [network] and a [classical] section",
                expected="one of them: what is trained",
                hint="`sonde ladder` compares a network with classical models",
            )
        for section in ("data", "inputs", "target", model, *OPTIONAL):
            if not isinstance(tables.get(section, {} if section in OPTIONAL else None), Mapping):
                raise UserError(
                    f"the recipe{where.of_file()} has no [{section}] section",
                    expected="the sections data, inputs, target and network (and training)",
                    hint="`sonde new DATA` writes a whole recipe",
                )
        data, source = _read_data(dict(tables["data"]), where)
        inputs = _read_kinds("inputs", tables["inputs"], where)
        network: Mapping[str, Any] = tables.get("network", {})
        networks: dict[str, Any] = {}
        classical = None
        if model == "classical":
            classical = _read_kind("estimators", tables["classical"], ("classical",), where)
        elif "kind" in network:
            networks = {name: _read_kind("networks", network, ("network",), where) for name in inputs}
        else:
            networks = _read_kinds("networks", network, where, section="network")
            if set(networks) != set(inputs):
                raise UserError(
                    f"the recipe{where.of_file()} has networks for {sorted(networks)} and inputs {sorted(inputs)}",
                    expected="one [network] for all inputs, or one [network.NAME] for each input",
                )
        return cls(
            data=data,
            source=source,
            inputs=inputs,
            target=_read_kind("targets", tables["target"], ("target",), where),
            network=networks,
            classical=classical,
            ladder=_validated(LadderConfig, tables.get("ladder", {}), ("ladder",), where),
            decision=_validated(DecisionConfig, tables.get("decision", {}), ("decision",), where),
            training=_validated(TrainingConfig, _with_length(tables.get("training", {})), ("training",), where),
        )

    def to_toml(self) -> str:
        """The whole recipe with every default written out; reading it back gives an equal recipe."""
        import tomli_w

        tables = self.model_dump(mode="json", exclude_none=True)
        tables = {name: table for name, table in tables.items() if table}
        tables["data"] |= self.source.model_dump(mode="json", exclude_none=True)
        return tomli_w.dumps(tables)


class _Lines:
    """Where a setting stands in the recipe file, for error messages; and where its relative paths start."""

    def __init__(self, path: Path | None = None, text: str = "", overridden: Sequence[list[str]] = ()) -> None:
        self.path = path
        self.lines = text.splitlines()
        self.overridden = overridden
        self.base = Path.cwd()

    def of_file(self) -> str:
        return f" {self.path}" if self.path else ""

    def find(self, place: Sequence[str | int]) -> str:
        """ " (recipe.toml:14)", or nothing when the setting cannot be found (an override, an inline table)."""
        words = [str(word) for word in place]
        if any(words[: len(override)] == override for override in self.overridden):
            return " (from --set)"
        best: tuple[int, int] | None = None
        section: list[str] = []
        for number, line in enumerate(self.lines, start=1):
            header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line)
            if header:
                section = [part.strip().strip("\"'") for part in header[1].split(".")]
                depth = _common(section, words)
                if depth == len(section) and (best is None or depth > best[0]):
                    best = (depth, number)
                continue
            key = re.match(r"\s*([\w.\"'-]+)\s*=", line)
            if key:
                here = section + [part.strip("\"'") for part in key[1].split(".")]
                depth = _common(here, words)
                if depth == len(here) and (best is None or depth > best[0]):
                    best = (depth, number)
        return f" ({self.path.name}:{best[1]})" if best and self.path else ""


def _common(here: Sequence[str], words: Sequence[str]) -> int:
    depth = 0
    for mine, theirs in zip(here, words, strict=False):
        if mine != theirs:
            break
        depth += 1
    return depth


def _with_length(training: Mapping[str, Any]) -> dict[str, Any]:
    return dict(training) if {"epochs", "steps"} & set(training) else {"epochs": 10, **training}


def _read_data(table: dict[str, Any], where: _Lines) -> tuple[DataConfig, Config]:
    from sonde.data.load import locate, source_of

    own = {name: value for name, value in table.items() if name in DataConfig.model_fields}
    data = _validated(DataConfig, own, ("data",), where)
    place = locate(data.source, where.base)
    kind, source = source_of(data.kind, place)
    options = {name: value for name, value in table.items() if name not in DataConfig.model_fields}
    known = {**source.Config.model_fields, **DataConfig.model_fields}
    for name in options:
        if name not in known:
            raise _not_a_setting(("data", name), source.Config, where, sorted(known))
    config = _validated(source.Config, {**options, "kind": kind}, ("data",), where)
    return data.model_copy(update={"kind": kind, "source": str(place)}), config


def _read_kinds(room: str, table: Mapping[str, Any], where: _Lines, section: str | None = None) -> dict[str, Any]:
    section = section or room
    if not table:
        raise UserError(f"the recipe{where.of_file()} has no [{section}.NAME] section", expected="at least one")
    for name, value in table.items():
        if not isinstance(value, Mapping):
            raise UserError(
                f"{section}.{name} is not a section{where.find((section, name))}",
                expected=f"[{section}.NAME] with a kind in it, NAME chosen freely",
            )
        if not name.isidentifier():
            raise UserError(
                f"the name {name!r} in [{section}.{name}] is not a plain word", expected="letters, digits and _"
            )
    return {name: _read_kind(room, value, (section, name), where) for name, value in table.items()}


def _read_kind(room: str, table: Mapping[str, object], place: tuple[str, ...], where: _Lines) -> Any:
    contract = {"inputs": Input, "targets": Target, "networks": Backbone, "estimators": Estimator}[room]
    kind = table.get("kind")
    if not isinstance(kind, str):
        raise UserError(
            f"{'.'.join(place)} has no kind{where.find(place)}",
            expected="kind = one of: " + ", ".join(lookup.kinds(room)),
        )
    try:
        found = lookup.find(room, kind, contract)
    except UserError as error:
        raise UserError(error.what + where.find((*place, "kind")), expected=error.expected, hint=error.hint) from None
    return _validated(found.Config, table, place, where)


def _validated(config: type[Config], table: Mapping[str, Any], place: tuple[str, ...], where: _Lines) -> Any:
    """A settings object, or the first of pydantic's complaints in our words."""
    try:
        return config.model_validate(table, context={"base": where.base})
    except ValidationError as error:
        first = error.errors()[0]
        path = (*place, *(part for part in first["loc"] if not str(part).startswith(("function-", "literal["))))
        if first["type"] == "extra_forbidden":
            raise _not_a_setting(path, _config_at(config, first["loc"][:-1]), where) from None
        name = ".".join(str(part) for part in path)
        if first["type"] == "missing":
            raise UserError(f"{name} is missing{where.find(path[:-1])}", expected="a value for it") from None
        message = first["msg"].removeprefix("Value error, ").replace("valid tuple", "valid list")
        raise UserError(f"{name} = {first['input']!r} is not valid{where.find(path)}: {message}") from None


def _config_at(config: type[Config], loc: Sequence[str | int]) -> type[Config] | None:
    """The settings class at a place inside another."""
    current = config
    for part in loc:
        field = current.model_fields.get(str(part))
        nested = [kind for kind in _classes(field.annotation) if issubclass(kind, Config)] if field else []
        if not nested:
            return None
        current = nested[0]
    return current


def _classes(annotation: object) -> list[type]:
    if isinstance(annotation, type):
        return [annotation]
    return [kind for part in get_args(annotation) for kind in _classes(part)]


def _not_a_setting(
    path: Sequence[str | int], config: type[Config] | None, where: _Lines, names: Sequence[str] = ()
) -> UserError:
    """The error for a setting that does not exist in `config` (or among `names`), and what was probably meant."""
    words = [str(part) for part in path]
    owner = ".".join(words[:-1]) or "a recipe"
    names = names or ([] if config is None else list(config.model_fields))
    new = None if config is None else config.renamed.get(words[-1])
    close = difflib.get_close_matches(words[-1], names, n=1, cutoff=0.6)
    hint = None
    if new is not None:
        hint = f"{'.'.join(words)} is now called {'.'.join([*words[:-1], new])}"
    elif close:
        hint = f"did you mean {'.'.join([*words[:-1], close[0]])}?"
    return UserError(
        f"{'.'.join(words)} is not a setting of {owner}{where.find(path)}",
        expected="one of: " + ", ".join(names) if names else None,
        hint=hint,
    )


def _apply(tables: dict[str, Any], change: str) -> None:
    """One override `a.b.c=value`; the value is TOML, or a plain word."""
    name, equals, text = change.partition("=")
    if not equals or not name.strip():
        raise UserError(
            f"--set {change!r} is not an override", expected="SECTION.SETTING=VALUE", hint="--set training.steps=100"
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *sections, last = name.strip().split(".")
    table = tables
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise UserError(f"--set {change!r}: {section} is a value, not a section")
    table[last] = value
    # Steps and epochs say the same thing: overriding one replaces the other.
    if sections == ["training"] and last in ("steps", "epochs"):
        table.pop("epochs" if last == "steps" else "steps", None)
