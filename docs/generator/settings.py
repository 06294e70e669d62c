"""Every setting with its type, default and description, from the pydantic models."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from generator import text
from sonde.contracts.decision import DecisionConfig
from sonde.data.settings import DataConfig
from sonde.training.ladder_settings import LadderConfig
from sonde.training.settings import TrainingConfig

WORDS = {int: "whole number", float: "number", str: "text", bool: "`true`, `false`"}


def page() -> str:
    sections = [
        (
            "[`[data]`](#data)",
            "where the records are, how they are read and split; each of the [sources](sources.md) adds its own",
        ),
        ("`[inputs.NAME]`", "what goes in, one section an input: one of the [inputs](inputs.md)"),
        ("`[target]`", "what comes out: one of the [targets](targets.md)"),
        (
            "`[network]`",
            "the backbone: one of the [networks](networks.md); `[network.NAME]` where inputs have one each",
        ),
        ("`[classical]`", "in place of `[network]`: one of the [estimators](estimators.md)"),
        ("[`[training]`](#training)", "how long, and how it is trained"),
        ("[`[ladder]`](#ladder)", "how `sonde ladder` compares approaches, and what stands beside a fit"),
    ]
    return text.page(
        [
            "# Recipe",
            "A recipe is a TOML file of sections. `sonde new DATA` writes one, with a comment where it decided "
            "something. What is left out has the default that stands here; a name that does not exist is an error that "
            "names the line and the nearest setting. The run folder keeps the recipe with every default written out.",
            text.table(["section", ""], sections),
            "Relative paths start at the recipe's folder. `--set training.steps=100` overrides a setting on the "
            'command line, `sonde.Recipe.read(path, changes=["training.steps=100"])` in Python.',
            "## data",
            *tables(DataConfig, "data"),
            "## training",
            "Give `epochs` or `steps`; it is 10 epochs if both are left out.",
            *tables(TrainingConfig, "training"),
            "## ladder",
            *tables(LadderConfig, "ladder"),
            *tables(DecisionConfig, "decision"),
        ]
    )


def tables(config: type[BaseModel], section: str, skip: Container[str] = ()) -> list[str]:
    """A table of the settings of a section, then one of each section inside of it."""
    fields = {
        name: field for name, field in config.model_fields.items() if name not in skip and not _is_name(name, field)
    }
    if not fields:
        return ["It has no settings of its own."]
    rows = [
        (
            f"`{name}`",
            kind(field.annotation, field.metadata, f"{section}.{name}"),
            default(field),
            field.description or "",
        )
        for name, field in fields.items()
    ]
    parts = [text.table(["setting", "type", "default", ""], rows)]
    for name, field in fields.items():
        inner = next(iter(models(field.annotation)), None)
        if inner is not None:
            about = f": {text.whole(inner.__doc__)}" if vars(inner).get("__doc__") else ""
            parts += [f"`[{section}.{name}]`{about}", *tables(inner, f"{section}.{name}")]
    return parts


def _is_name(name: str, field: FieldInfo) -> bool:
    """Whether it is the name of the kind, which the heading says."""
    return name == "kind" and get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a setting can hold."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from models(each)


def default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined:
        return "left out"
    return "as below" if isinstance(value, BaseModel) else f"`{toml(value)}`"


def toml(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(map(toml, value)) + "]"
    return f"{value!r}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def kind(annotation: Any, metadata: Sequence[Any] = (), place: str = "") -> str:
    """A type in the words of TOML."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kind(inner[0], [*inner[1:], *metadata], place)
    if origin is Literal:
        return ", ".join(f"`{toml(each)}`" for each in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(kind(each, metadata, place) for each in inner if each is not type(None)))
    if origin in (list, tuple):
        return _several(origin, [each for each in inner if each is not Ellipsis], Ellipsis in inner, metadata)
    if origin is dict:
        return f"table of {_plural(kind(inner[1]))}"
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return f"section `[{place}]`"
    word = WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))
    bounds = ", ".join(_bounds(metadata)) if annotation in (int, float) else ""
    return f"{word} {bounds}".strip()


def _several(origin: Any, items: list[Any], any_number: bool, metadata: Sequence[Any]) -> str:
    if origin is tuple and not any_number and len(items) > 1:
        return f"list of {len(items)} {_plural(kind(items[0]))}"
    least = next((f", at least {each.min_length}" for each in metadata if isinstance(each, MinLen)), "")
    return f"list of {_plural(kind(items[0]))}{least}"


def _bounds(metadata: Iterable[Any]) -> Iterator[str]:
    for each in metadata:
        if isinstance(each, FieldInfo):
            yield from _bounds(each.metadata)
        for bound, sign, name in ((Ge, ">=", "ge"), (Gt, ">", "gt"), (Le, "<=", "le"), (Lt, "<", "lt")):
            if isinstance(each, bound):
                yield f"{sign} {getattr(each, name):g}"


def _plural(word: str) -> str:
    for one in ("whole number", "number", "text"):
        if word == one or word.startswith(f"{one} "):
            return word.replace(one, f"{one}s", 1)
    return word
