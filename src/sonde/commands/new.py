"""`sonde new`: look at data, guess the task, and write a recipe with comments that trains well without editing."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sonde.base import descriptions, files, lookup
from sonde.base.config import Config
from sonde.base.errors import RecordError, UserError
from sonde.commands import _weights_at_hand, budget
from sonde.contracts.at_hand import WeightsAtHand
from sonde.contracts.input import Input
from sonde.contracts.records import Records, is_missing
from sonde.contracts.specs import Advice, OutputSpec
from sonde.contracts.target import Target
from sonde.data.load import as_paths, locate, missing, source_of
from sonde.data.settings import DataConfig
from sonde.data.source import Guess

# So many classes with so few records each are rather compared with each other than told apart.
MANY_CLASSES = 50
FEW_EACH = 30
# Records whose truth is tried before a recipe for another kind of target is written.
TRIED = 32
# Fields of an input that people are told.
SHOWN = 12
LEFT_OUT = "left out: "
# What columns are called that name records: id, ID, row_id, PassengerId.
_ID = re.compile(r"(?i:(^|[\W_])(id|uuid|guid|key)$)|[a-z]I[dD]$")
# Records that are drawn with their truth, where that can be.
DRAWN = 10
# Networks of inputs that steer what is made, where those that answer by themselves are larger than it takes.
STEERING: Mapping[str, Mapping[str, Any]] = {"table": {"kind": "mlp", "hidden": [64], "dropout": 0.0}}


@dataclass(frozen=True, kw_only=True)
class NewRecipe:
    """What was found, what was decided, and the recipe that was written for it."""

    path: Path
    guess: Guess
    sections: Mapping[str, Any]
    # What people should know of the settings.
    notes: tuple[str, ...] = ()
    # Pictures of some records with their truth, and the folder that they are in.
    drawn: int = 0
    folder: Path | None = None
    # What pretrained weights were found, and what became of that.
    pretrained: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "recipe": str(self.path),
            "about": self.guess.about,
            "target": dict(self.sections["target"]),
            "inputs": {name: dict(each) for name, each in self.sections["inputs"].items()},
            "split": dict(self.sections["data"].get("split", {})),
            "pretrained": list(self.pretrained),
            "read_as": list(self.guess.read_as),
            "notes": list(self.notes),
            "warnings": list(self.guess.warnings),
            "drawn": None if self.folder is None else str(self.folder),
        }

    def to_text(self) -> str:
        notes = self.guess.notes
        target = dict(self.sections["target"])
        why = notes.get("target.field", notes.get("target.kind", ""))
        # Without a field of its own a target learns from what goes in.
        first = next(iter(self.sections["inputs"].values()))
        field = target.get("field") or ", ".join(target.get("fields", [])) or f"the {first['kind']} itself"
        lines = [f"found {self.guess.about}", f"  target    {field}: {target['kind']}" + (f" ({why})" if why else "")]
        for name, section in self.sections["inputs"].items():
            fields = section.get("fields") or [section.get("field", name), *section.get("also", [])]
            shown = ", ".join(fields[:SHOWN]) + (f", ... ({len(fields)})" if len(fields) > SHOWN else "")
            lines.append(f"  input     {section['kind']}: {shown}")
        if "inputs" in notes:
            lines.append(f"            {notes['inputs']}")
        lines += [f"  left out  {note.removeprefix(LEFT_OUT)}" for note in notes.values() if note.startswith(LEFT_OUT)]
        lines += [f"  reads     {each}" for each in self.guess.read_as]
        lines += [f"  weights   {each}" for each in self.pretrained]
        lines.append(f"  split     {_split_in_words(self.sections['data'].get('split', {}))}")
        lines += [f"  note      {note}" for note in self.notes]
        lines += [f"look at this first: {warning}" for warning in self.guess.warnings]
        if self.folder is not None:
            lines.append(f"drew {self.drawn} records with their truth into {self.folder}: look at them")
        return "\n".join([*lines, f"wrote {self.path}", f"next: sonde fit {self.path}"])


def _split_in_words(split: Mapping[str, Any]) -> str:
    """A split as people say it."""
    by = str(split.get("by", "random"))
    ways = {
        "given": f"as the {'column ' + repr(split['field']) if 'field' in split else 'data'} says",
        "group": f"by {split.get('field')!r}: none is in two splits",
        "time": f"by {split.get('field')!r}: the newest test",
    }
    held = [f"{100 * share:g} % {name}" for name in ("validation", "test") if (share := split.get(name, 0.1))]
    return ways.get(by, by) + (f"; {', '.join(held)}" if by != "given" and held else "")


def write_recipe(
    source: str,
    out: Path,
    *,
    target: str | None = None,
    kind: str | None = None,
    force: bool = False,
    pretrained: bool = True,
) -> NewRecipe:
    """Write the recipe for a data set; `kind` is the kind of target to learn, where it is not the one that is seen.

    With `pretrained`, weights that this machine has are fine-tuned where they suit the data.

    Raises:
        UserError: the data set is missing, broken or of no known format, or does not suit the kind of target; `out` is
            there already (unless `force`).
    """
    if out.exists() and not force:
        raise UserError(f"{out} exists already", hint="--force replaces it, --out writes another")
    path = locate(source, Path.cwd())
    if ":" not in source and not path.exists():
        raise missing(path, hint="a relative path starts at the folder in which the command is run")
    _, reader = source_of(None, path)
    guess = reader.guess(path, target)
    records = _records(guess, path)
    guess = _with_hint(guess, records) if kind is None else _of_kind(guess, kind, records)
    weights = _weights_at_hand.find()
    tuned = _fine_tuned(guess, records, weights)
    sections, notes = recommend(guess, records, tuned if pretrained else None)
    sections["data"]["source"] = _relative(source, path, out)
    text = to_toml(sections, guess)
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(out, text.encode())
    folder = out.with_name(f"{out.stem}-truth")
    drawn = _draw(sections, records, folder)
    return NewRecipe(
        path=out,
        guess=guess,
        sections=sections,
        drawn=drawn,
        folder=folder if drawn else None,
        notes=notes,
        pretrained=_told(tuned, weights, pretrained=pretrained),
    )


def _draw(sections: Mapping[str, Any], records: Records, folder: Path) -> int:
    """Draw some records with their truth, where the target can; give how many."""
    kind = lookup.find("targets", sections["target"]["kind"], Target)  # type: ignore[type-abstract]
    if kind.draw_truth.__func__ is Target.draw_truth.__func__:  # type: ignore[attr-defined]
        return 0
    target = kind.Config.model_validate(dict(sections["target"]))
    inputs = {
        name: lookup.find("inputs", each["kind"], Input).Config.model_validate(dict(each))  # type: ignore[type-abstract]
        for name, each in sections["inputs"].items()
    }
    drawn = 0
    for place in np.unique(np.linspace(0, len(records) - 1, min(DRAWN, len(records))).astype(int)):
        try:
            picture = kind.draw_truth(target, records[int(place)], inputs)
        except RecordError:
            continue
        if picture is not None:
            files.make_folder(folder)
            name = Path(str(records.ids[int(place)])).with_suffix("").as_posix().replace("/", "_")
            picture.save(folder / f"{name}.png")
            drawn += 1
    return drawn


def _records(guess: Guess, path: Path) -> Records:
    """The records as the recipe will read them, for the inputs to look at."""
    data = {name: value for name, value in guess.data.items() if name not in DataConfig.model_fields}
    kind, reader = source_of(guess.data["kind"], path)
    records = reader.read(path, reader.Config.model_validate({**data, "kind": kind}))
    root = path if path.is_dir() else path.parent
    parts = [(lookup.find("inputs", each["kind"], Input), each) for each in guess.inputs.values()]
    names = [
        name for part, each in parts if part.reads_file for name in part.fields(part.Config.model_validate(dict(each)))
    ]
    return records.with_fields(**{name: as_paths(records.fields[name], root) for name in names})


def _of_kind(guess: Guess, kind: str, records: Records) -> Guess:
    """The same data with another kind of target, tried on some records.

    Raises:
        UserError: there is no such kind, or it cannot be learned from this data.
    """
    found = lookup.find("targets", kind, Target)  # type: ignore[type-abstract]
    settings = {name: value for name, value in guess.target.items() if name in found.Config.model_fields}
    target = {**settings, "kind": kind}
    guess = _still_stratified(_paired(_steered(guess, found), found, records), found)
    try:
        config = found.Config.model_validate(target)
        inputs = {}
        for name, section in guess.inputs.items():
            part = lookup.find("inputs", section["kind"], Input)  # type: ignore[type-abstract]
            inputs[name] = part.fit(part.Config.model_validate(dict(section)), records)
        some = records.part(0, min(TRIED, len(records)))
        encoded = {name: part.encode_many(some)[0] for name, part in inputs.items()}
        _, errors = found.fit(config, records, inputs).encode_many(some, encoded)
        for error in errors.values():
            raise error
    except (UserError, ValueError, NotImplementedError) as error:
        told = error if isinstance(error, UserError) else UserError(str(error))
        raise UserError(
            f"the target kind {kind!r} does not suit this data ({guess.about}): {told.what}",
            expected=told.expected,
            hint=told.hint or "leave out --kind to see what suits it",
        ) from None
    return replace(guess, target=target)


def _steered(guess: Guess, kind: type[Target]) -> Guess:
    """What was to be learned as a further input, for a kind that needs no truth and can be steered: pictures are made
    for a class or a text."""
    field = guess.target.get("field")
    if not kind.steered or not isinstance(field, str) or any(field in _read(each) for each in guess.inputs.values()):
        return guess
    section: dict[str, Any]
    if guess.target["kind"] == "sequence":
        section = {"kind": "text", "field": field}
    elif guess.target["kind"] == "category":
        section = {"kind": "table", "fields": [field], "categories": [field], "allow_unknown": False}
    else:
        return guess
    name = field if field.isidentifier() and field not in guess.inputs else "steering"
    notes = {name: note for name, note in guess.notes.items() if not name.startswith("target.")}
    return replace(guess, inputs={**guess.inputs, name: section}, notes=notes)


def _still_stratified(guess: Guess, kind: type[Target]) -> Guess:
    """A split by classes names their field, where the target does not."""
    split, field = guess.data.get("split", {}), guess.target.get("field")
    if "field" in kind.Config.model_fields or split.get("by") != "stratified" or field is None:
        return guess
    return replace(guess, data={**guess.data, "split": {**split, "field": field}})


def _paired(guess: Guess, kind: type[Target], records: Records) -> Guess:
    """What was to be learned as a further input, for a kind that brings two inputs together: a picture's caption."""
    field = guess.target.get("field")
    if kind.num_inputs < 2 or not isinstance(field, str):
        return guess
    (first, its), *others = guess.inputs.items()
    text = all(isinstance(value, str) for value in records.fields[field][:TRIED])
    section = {"kind": "text", "field": field} if text else {"kind": "table", "fields": [field]}
    name = field if field.isidentifier() and field not in guess.inputs else "partner"
    notes = {each: note for each, note in guess.notes.items() if not each.startswith("target.")}
    # A field that is neither is no part of the pair.
    read = [each for _, other in others for each in _read(other)]
    if read:
        notes["inputs"] = f"{LEFT_OUT}{', '.join(read)} (a pair has two sides)"
    return replace(guess, inputs={first: its, name: section}, notes=notes)


def _read(section: Mapping[str, Any]) -> list[str]:
    """The fields that an input's section names."""
    named = [section.get("field", ""), *section.get("fields", ()), *section.get("also", ())]
    return [name for name in named if name]


def _with_hint(guess: Guess, records: Records) -> Guess:
    """Where there are many classes of few records each: that there is another way to look at them."""
    labels = records.fields.get(guess.target.get("field", ""))
    if guess.target["kind"] != "category" or labels is None:
        return guess
    counts = sorted(Counter(labels.tolist()).values())
    if len(counts) <= MANY_CLASSES or counts[len(counts) // 2] > FEW_EACH:
        return guess
    hint = (
        f"there are {len(counts)} classes with {counts[len(counts) // 2]} records or so of each; to find what is "
        "alike, and to know classes that training never saw, learn an embedding: sonde new --kind embedding"
    )
    return replace(guess, warnings=(*guess.warnings, hint))


def _relative(source: str, path: Path, out: Path) -> str:
    """The source as seen from the recipe's folder, so that both can be moved together."""
    return source if ":" in source else Path(os.path.relpath(path, out.parent.resolve())).as_posix()


Tuned = tuple[WeightsAtHand, Advice]


def _fine_tuned(guess: Guess, records: Records, weights: Sequence[WeightsAtHand]) -> Tuned | None:
    """The first weights at hand that suit the data, and how to fine-tune them; for a single input, and a target that
    has no wishes of its own."""
    if len(guess.inputs) != 1:
        return None
    target_kind = lookup.find("targets", guess.target["kind"], Target)  # type: ignore[type-abstract]
    (section,) = guess.inputs.values()
    kind = lookup.find("inputs", section["kind"], Input)  # type: ignore[type-abstract]
    config = kind.Config.model_validate(dict(section))
    target = target_kind.Config.model_validate(dict(guess.target))
    own = target_kind.recommend(target, {section["kind"]: config}, records)
    if own.network or own.training:
        return None
    for each in weights:
        advice = kind.fine_tune(config, target_kind.asks, records, each)
        if advice is not None:
            return each, advice
    return None


def _told(tuned: Tuned | None, weights: Sequence[WeightsAtHand], *, pretrained: bool) -> tuple[str, ...]:
    if tuned is None:
        return ()
    found, _ = tuned
    others = len(weights) - 1
    more = f"; {others} more at hand" if others else ""
    if pretrained:
        return (f"pretrained, from {found.about}: fine-tuned{more} (--from-scratch trains without)",)
    return (f"pretrained ones are at hand, from {found.about}{more}; left out as asked",)


def recommend(
    guess: Guess, records: Records, tuned: Tuned | None = None
) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """The sections of a recipe: what the source found, and what the inputs and the target recommend for it, with
    pretrained weights where `tuned` says how; and what people should know of that."""
    target_kind = lookup.find("targets", guess.target["kind"], Target)
    target = target_kind.Config.model_validate(dict(guess.target))
    found: dict[str, Config] = {}
    advice: list[Advice] = []
    for section in guess.inputs.values():
        kind = lookup.find("inputs", section["kind"], Input)
        config = kind.Config.model_validate(dict(section))
        found[section["kind"]] = config
        # What steers is looked at as a whole, whatever is made.
        steers = target_kind.steered and bool(advice)
        asks = OutputSpec(per=("example",)) if steers else target_kind.asks
        advice.append(kind.recommend(config, asks, records) if tuned is None else tuned[1])
    own = target_kind.recommend(target, found, records)
    names = list(guess.inputs)
    # The advice of a target that others steer is for the input that it makes, the first.
    its = set(names[:1] if target_kind.steered or len(names) == 1 else [])
    inputs = {
        name: {**guess.inputs[name], **each.input, **(own.input if name in its else {})}
        for name, each in zip(names, advice, strict=True)
    }
    networks = {
        name: _laid_over(each.network, own.network if name in its or not target_kind.steered else {})
        for name, each in zip(names, advice, strict=True)
    }
    for name in names[1:] if target_kind.steered else []:
        # A word that is dropped at random says something else of the picture; a class needs no depth.
        inputs[name].pop("augment", None)
        networks[name] = dict(STEERING.get(guess.inputs[name]["kind"], networks[name]))
    training: dict[str, Any] = {}
    known = target_kind.Config.model_fields
    answers = dict(guess.target)
    for each in advice:
        if each.leads or not any(other.leads for other in advice):
            training = _longer(training, dict(each.training))
        answers |= {name: value for name, value in each.target.items() if name in known}
    given = guess.data.get("split", {}).get("by") == "given"
    data = dict(guess.data) | {name: value for name, value in own.data.items() if name != "split" or not given}
    training |= own.training
    changed, kept, why = ({}, {}, ()) if "split" in own.data else budget.checkpoint(records, data)
    data |= changed
    training = budget.work(
        training,
        budget.count_training(records, data.get("split", {})),
        max(each.min_steps for each in (*advice, own)),
        keep_batch="batch_size" in own.training,
    )
    sections = {
        "data": data | _id_field(guess, records),
        "inputs": {name: {key: value for key, value in each.items() if value != {}} for name, each in inputs.items()},
        "target": answers | dict(own.target),
        "network": next(iter(networks.values())) if len(networks) == 1 else networks,
        "training": training | kept,
    }
    return sections, (*(note for each in (*advice, own) for note in each.notes), *why)


def _id_field(guess: Guess, records: Records) -> dict[str, str]:
    """`data.id`: the first column of a table that is called an id, names every record and is not learned from."""
    if guess.data["kind"] != "table":
        return {}
    used = {guess.target.get("field"), *guess.target.get("fields", ()), guess.data.get("split", {}).get("field")}
    for section in guess.inputs.values():
        used |= {section.get("field"), *section.get("also", ()), *section.get("fields", ())}
    for name, values in records.fields.items():
        if name not in used and _ID.search(name) and _is_unique(values):
            return {"id": name}
    return {}


def _is_unique(values: np.ndarray) -> bool:
    """Whether each record has a value of its own."""
    return values.ndim == 1 and not is_missing(values).any() and len(set(map(str, values.tolist()))) == len(values)


def _laid_over(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with others laid over them; those of another kind take their place."""
    same = "kind" not in other or one.get("kind") == other["kind"]
    return {**(one if same else {}), **other}


def _longer(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Of the advice of two inputs the one that trains longer."""
    return other if other.get("epochs", 0) > one.get("epochs", 0) else one or other


def to_toml(sections: Mapping[str, Any], guess: Guess) -> str:
    """The recipe as people like to read it: a section each, short tables inline, a comment on every line."""
    lines = [f"# {guess.about}", *(f"# Look at this first: {warning}" for warning in guess.warnings)]
    for name in ("data", "inputs", "target", "network", "training"):
        section = sections[name]
        nested = name in ("inputs", "network") and "kind" not in section
        if name in guess.notes:
            lines += ["", f"# {guess.notes[name]}"]
        for path, table in (
            ((f"{name}.{key}", value) for key, value in section.items()) if nested else [(name, section)]
        ):
            lines += ["", f"[{path}]"]
            comments = {**_comments(name, table), **_under(guess.notes, path)}
            width = max(len(f"{key} = {_value(value)}") for key, value in table.items())
            for key, value in table.items():
                setting = f"{key} = {_value(value)}"
                comment = comments.get(key)
                lines.append(f"{setting:<{min(width, 60)}}  # {comment}" if comment else setting)
    return "\n".join(lines) + "\n"


def _comments(section: str, table: Mapping[str, Any]) -> dict[str, str]:
    """The descriptions of the settings, from where they are defined."""
    if section == "training":
        return descriptions.of_class("sonde.training.settings", "TrainingConfig")
    room = {"target": "targets", "network": "networks", "data": "sources"}.get(section, section)
    own = {name: field.description for name, field in DataConfig.model_fields.items() if section == "data"}
    found = descriptions.of_kind(f"{lookup.ROOMS[room]}.{table['kind'].replace('-', '_')}")
    return {**found, **{name: text for name, text in own.items() if text}}


def _under(notes: Mapping[str, str], path: str) -> dict[str, str]:
    return {name.removeprefix(path + "."): note for name, note in notes.items() if name.rpartition(".")[0] == path}


def _key(name: str) -> str:
    """A key of a table: names of columns, classes and colours may need quotes."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(each)}" for key, each in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(each) for each in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)
