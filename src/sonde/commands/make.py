"""Answers that are made out of nothing, or for a class or a text: `sonde predict MODEL --count 16`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sonde.artifact import Model
from sonde.base.errors import UserError, unknown
from sonde.base.images import side_by_side
from sonde.base.progress import NoProgress, Progress
from sonde.commands.predict import check_has, save_picture
from sonde.contracts.answers import to_json, without_pictures

# Answers made at once, and columns of the sheet that shows them all.
BATCH, COLUMNS = 64, 8
# The sheet shows no more than this.
MOST = 256


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was asked for on the command line: fields that answers are made for, and settings of how."""

    given: Mapping[str, Any]
    changes: Mapping[str, Any]


def settings(
    inputs: Sequence[Path], count: int | None, given: Sequence[str], changes: Sequence[str], id_field: str | None
) -> Asked:
    """What `--given` and `--set` say.

    Raises:
        UserError: it is no FIELD=VALUE, or what is asked for does not go together.
    """
    if count is None and not inputs:
        raise UserError(
            "there is nothing to answer for",
            expected="files, folders or tables; or --count for a model that makes pictures",
        )
    if count is not None and (inputs or id_field):
        what = f"the input {inputs[0]}" if inputs else f"--id {id_field}"
        raise UserError(
            f"--count and {what} were given: with --count there are no inputs",
            hint="a table of classes or texts alone makes one picture a row",
        )
    if given and count is None:
        raise UserError("--given says what answers are made for, and goes with --count", hint="--count 16")
    return Asked(
        given=dict(_pair(each, "--given", "label=Bag") for each in given),
        changes=dict(_setting(each) for each in changes),
    )


def make(
    model: Model,
    count: int,
    progress: Progress | None = None,
    *,
    first: int = 0,
    given: Mapping[str, Any] | None = None,
    draw: Path | None = None,
) -> Iterator[dict[str, Any]]:
    """One mapping an answer: its number, what it was made for, and what was made.

    Into the folder `draw` goes a picture of each, and one of all of them ("all.png").

    Raises:
        UserError: the model makes nothing, `count` or the fields in `given` are wrong.
    """
    progress = progress or NoProgress()
    record = _record(model, given or {})
    if count < 1 or not model.task.target.makes:
        # It says what is wrong.
        model.make(count, record)
    if draw is not None:
        check_has(model, draw, "draw", "be drawn")
    progress.begin("make", count)
    drawn: list[Any] = []
    written: set[Path] = set()
    for start in range(0, count, BATCH):
        some = min(BATCH, count - start)
        for answer in model.make(some, record, first=first + start, size=BATCH):
            told = {**(record or {}), **answer}
            if draw is None:
                yield to_json(told)
                continue
            picture = model.task.target.draw(answer, told, model.task.inputs)
            drawn.append(picture)
            path = save_picture(picture, draw, f"{answer['number']:05d}.png", written)
            yield {**to_json(without_pictures(told)), "drawn": path}
        progress.at(start + some)
    if draw is not None:
        save_picture(side_by_side(drawn[:MOST], COLUMNS), draw, "all.png", set())


def _record(model: Model, given: Mapping[str, Any]) -> dict[str, Any] | None:
    """What answers are made for, with every field that the model reads; None where nothing is said."""
    if not given:
        return None
    fields = [name for part in model.task.for_answers.inputs.values() for name in part.fields(part.config)]
    for name in given:
        if not fields:
            raise UserError(f"--given {name}=...: this model is steered by nothing", hint="leave --given out")
        if name not in fields:
            raise unknown(name, fields, what="--given: the field")
    missing = [name for name in fields if name not in given]
    if missing:
        raise UserError(f"--given lacks {', '.join(missing)}", expected=f"a value for each of {', '.join(fields)}")
    return dict(given)


def _pair(text: str, option: str, example: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UserError(f"{option} {text!r} is not NAME=VALUE", hint=f"{option} {example}")
    return name.strip(), value.strip()


def _setting(text: str) -> tuple[str, Any]:
    """A setting and its value, which is TOML or a plain word; "target.generate." before its name may be left out."""
    name, value = _pair(text, "--set", "guidance=2")
    try:
        read = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        read = value
    return name.removeprefix("target.").removeprefix("generate."), read
