"""Offline prediction: files, folders and tables in, an answer each out; what cannot be read is named."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from sonde.artifact import Model
from sonde.base import lookup
from sonde.base.config import kind_of
from sonde.base.errors import RecordError, UserError, unknown
from sonde.base.errors import near as near_miss
from sonde.base.files import make_folder, write_bytes
from sonde.base.progress import NoProgress, Progress
from sonde.contracts.answers import to_json, without_pictures
from sonde.contracts.records import Records, is_missing
from sonde.contracts.target import Target
from sonde.data.settings import DataConfig
from sonde.data.source import Source
from sonde.data.sources._content import table_format

if TYPE_CHECKING:
    from sonde.data.sources.table import TableConfig

# Records answered at once: enough for the network, few enough to stream.
BATCH = 64


def predict(
    model: Model,
    paths: Sequence[Path],
    progress: Progress | None = None,
    *,
    id_field: str | None = None,
    draw: Path | None = None,
    coverage: float | None = None,
    familiar: bool = False,
    files: Path | None = None,
) -> Iterator[dict[str, Any]]:
    """One mapping an input, in order: {"input": name, ...answer} or {"input": name, "error": what}.

    What names the records of a table goes with their answers, under its own name: the column `id_field`, or the one
    that the recipe calls `data.id`, where the table has it.

    A path is a file that the model reads, a folder of such files, or a table (CSV, TSV, Parquet, JSONL) with a record
    a row. A table is read as that of the training data was; the target's columns may be in it or not. Files named in
    a table are relative to it. What the source of the training data reads otherwise is read so here, too
    (`Source.inputs`): tagged words, or a text with a line for each translation. Into the folder `draw` goes a picture
    of each answer, named after its input, and into `files` the answer as its field keeps such answers. `coverage` and
    `familiar` are those of `Model.predict`.

    Raises:
        UserError: a path does not exist, a folder is empty, a table lacks a field or the column `id_field`.
    """
    progress = progress or NoProgress()
    if draw is not None:
        check_has(model, draw, "draw", "be drawn")
    if files is not None:
        check_has(model, files, "files", "be written as files")
    named = [each for path in paths for each in _records(model, path, id_field)]
    progress.begin("predict", len(named))
    rows = iter(named)
    done = 0
    written: set[Path] = set()
    while chunk := list(islice(rows, BATCH)):
        answers = model.answers([record for _, record in chunk], size=BATCH, coverage=coverage, familiar=familiar)
        for (names, record), answer in zip(chunk, answers, strict=True):
            if isinstance(answer, RecordError):
                yield {**names, "error": str(answer)}
                continue
            answered = {name: value for name, value in names.items() if name not in answer}
            # What is drawn need not be in the answer again.
            answered |= to_json(answer if draw is None else without_pictures(answer))
            if draw is not None:
                drawn = model.task.target.draw(answer, record, model.task.inputs)
                answered["drawn"] = save_picture(drawn, draw, names["input"], written)
            if files is not None:
                made = model.task.target.files(answer, record, model.task.inputs)
                answered["files"] = [
                    _saved(content, files, names["input"], ending, written) for ending, content in made.items()
                ]
            yield answered
        done += len(chunk)
        progress.at(done)


def check_has(model: Model, folder: Path, method: str, done: str) -> None:
    """That a target answers in such a form; makes the folder."""
    if getattr(type(model.task.target), method) is getattr(Target, method):
        raise UserError(
            f"the answers of target {kind_of(model.task.target.config)!r} cannot {done}", hint=f"leave out --{method}"
        )
    make_folder(folder)


def save_picture(picture: Any, folder: Path, name: str, written: set[Path]) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return _saved(file.getvalue(), folder, name, ".png", written)


def _saved(content: bytes, folder: Path, name: str, ending: str, written: set[Path]) -> str:
    """Write a file under the name of its input (of a path from the root the last part), unlike those `written`; give
    its path."""
    given = Path(name)
    parts = [given.name] if given.is_absolute() else [part for part in given.parts if part != ".."]
    place = folder.joinpath(*parts)
    stem = place.stem.removesuffix(".nii") if place.suffix == ".gz" else place.stem
    path = place.with_name(stem + ending)
    for number in count(2):
        if path not in written:
            break
        path = place.with_name(f"{stem}-{number}{ending}")
    written.add(path)
    make_folder(path.parent)
    write_bytes(path, content)
    return str(path)


# What an answer is told apart by: "input", and the id of a table's row under the name of its column.
Names = dict[str, Any]


def _records(model: Model, path: Path, id_field: str | None) -> list[tuple[Names, Any]]:
    if not path.exists():
        raise UserError(
            f"the input {path} does not exist", expected="a file, a folder or a table (CSV, JSON, Parquet, xlsx)"
        )
    known = _as_the_data(model, path)
    if known is not None:
        return known
    if path.is_file() and table_format(path) is not None:
        return _rows(model, path, id_field)
    if id_field is not None:
        raise UserError(f"--id {id_field} names a column, and the input {path} is no table")
    parts = list(model.task.for_answers.inputs.values())
    if not parts:
        raise UserError(
            f"this model makes its answers out of nothing, and there is nothing to look for in {path}",
            hint="--count 16 makes 16 of them",
        )
    if len(parts) != 1 or not parts[0].takes_file:
        raise UserError(
            f"this model cannot answer for the file {path}: it reads the fields {', '.join(_fields(model))}",
            expected="a table (CSV, JSON, Parquet, xlsx) with these columns",
        )
    field = parts[0].fields(parts[0].config)[0]
    if path.is_dir():
        files = sorted(one for one in path.rglob("*") if one.is_file() and not one.name.startswith("."))
        if not files:
            raise UserError(f"the folder {path} is empty", expected="files to answer for")
        return [({"input": one.relative_to(path).as_posix()}, {field: one}) for one in files]
    return [({"input": str(path)}, {field: path})]


def _rows(model: Model, path: Path, id_field: str | None) -> list[tuple[Names, Any]]:
    from sonde.data.sources.table import read_rows

    records = read_rows(path, _options(model, path))
    for field in _fields(model):
        if field not in records.fields:
            close = near_miss(field, records.fields)
            raise UserError(
                f"the table {path} has no column {field!r}, but {', '.join(records.fields)}",
                expected=f"the columns {', '.join(_fields(model))}",
                hint=f"is {close!r} meant? Then rename it" if close else None,
            )
    files = {
        name for part in model.task.for_answers.inputs.values() if part.reads_file for name in part.fields(part.config)
    }
    ids = _ids(model, path, records, id_field)
    rows = []
    for place, (name, record) in enumerate(zip(records.ids, records, strict=True)):
        for field in files:
            if isinstance(record[field], str):
                record[field] = path.parent / record[field]
        rows.append(({"input": f"{path.name} {name}", **{key: column[place] for key, column in ids.items()}}, record))
    return rows


def _as_the_data(model: Model, path: Path) -> list[tuple[Names, Any]] | None:
    """The records of a file that the source of the training data knows how to read; None where it knows none."""
    for kind in lookup.kinds("sources"):
        source = lookup.find("sources", kind, Source)  # type: ignore[type-abstract]
        options = model.data_settings(kind, source.Config)
        if options is not None:
            records = source.inputs(path, options, _fields(model))
            if records is None:
                return None
            return [({"input": name}, record) for name, record in zip(records.ids, records, strict=True)]
    return None


def _ids(model: Model, path: Path, records: Records, id_field: str | None) -> dict[str, list[Any]]:
    """The column that names a table's records, as JSON holds it; none where neither caller nor recipe name one.

    Raises:
        UserError: the caller names one that the table does not have.
    """
    if id_field is not None and id_field not in records.fields:
        raise unknown(id_field, records.fields, what=f"--id: the table {path} has other columns; the column")
    trained = model.data_settings("table", DataConfig)
    name = id_field or (trained.id if trained is not None else None)
    if name is None or name not in records.fields:
        return {}
    values = [
        None if gone else value
        for value, gone in zip(records.fields[name].tolist(), is_missing(records.fields[name]), strict=True)
    ]
    return {name: [value if isinstance(value, (str, bool, int, float, NoneType)) else str(value) for value in values]}


def _options(model: Model, path: Path) -> TableConfig:
    """How to read a table: as the training data was, by the recipe that the artifact carries."""
    from sonde.data.sources.table import TableConfig, like

    texts = [field for part in [*model.task.inputs.values(), model.task.target] for field in part.texts()]
    trained = model.data_settings("table", TableConfig)
    if trained is None:
        return TableConfig(texts=texts)
    options = trained.model_copy(update={"texts": [*trained.texts, *texts]})
    target = model.task.target
    return like(path, options, needed=_fields(model), answers=target.fields(target.config))


def _fields(model: Model) -> list[str]:
    return [name for part in model.task.for_answers.inputs.values() for name in part.fields(part.config)]
