"""Offline prediction: files, folders and tables in, an answer each out; what cannot be read is named."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sonde.artifact import Model
from sonde.base.config import kind_of
from sonde.base.errors import RecordError, UserError
from sonde.base.errors import near as near_miss
from sonde.base.files import make_folder, write_bytes
from sonde.base.progress import NoProgress, Progress
from sonde.contracts.target import Target
from sonde.data.sources._content import table_format

if TYPE_CHECKING:
    from sonde.data.sources.table import TableConfig

# Records answered at once: enough for the network, few enough to stream.
BATCH = 64


def predict(
    model: Model, paths: Sequence[Path], progress: Progress | None = None, *, draw: Path | None = None
) -> Iterator[dict[str, Any]]:
    """One mapping an input, in order: {"input": name, ...answer} or {"input": name, "error": what}.

    A path is a file that the model reads, a folder of such files, or a table (CSV, TSV, Parquet, JSONL) with a record
    a row. A table is read as that of the training data was; the target's columns may be in it or not. Files named in
    a table are relative to it. A model that learned from tagged words reads files of those too, and ignores the tags.
    Into the folder `draw` goes a picture of each answer, named after its input.

    Raises:
        UserError: a path does not exist, a folder is empty, a table lacks a field.
    """
    progress = progress or NoProgress()
    if draw is not None:
        _check_draws(model, draw)
    named = [each for path in paths for each in _records(model, path)]
    progress.begin("predict", len(named))
    rows = iter(named)
    done = 0
    while chunk := list(islice(rows, BATCH)):
        answers = model.answers([record for _, record in chunk], size=BATCH)
        for (name, record), answer in zip(chunk, answers, strict=True):
            if isinstance(answer, RecordError):
                yield {"input": name, "error": str(answer)}
            elif draw is None:
                yield {"input": name, **answer}
            else:
                drawn = model.task.target.draw(answer, record, model.task.inputs)
                yield {"input": name, **answer, "drawn": _saved(drawn, draw, name)}
        done += len(chunk)
        progress.at(done)


def _check_draws(model: Model, folder: Path) -> None:
    target = type(model.task.target)
    if target.draw is Target.draw:
        raise UserError(
            f"the answers of target {kind_of(model.task.target.config)!r} cannot be drawn", hint="leave out --draw"
        )
    make_folder(folder)


def _saved(picture: Any, folder: Path, name: str) -> str:
    """Write a picture under the name of its input; give its path."""
    parts = [part for part in Path(name).parts if part not in ("..", "/") and not part.endswith(":\\")]
    path = folder.joinpath(*parts).with_suffix(".png")
    make_folder(path.parent)
    file = io.BytesIO()
    picture.save(file, "PNG")
    write_bytes(path, file.getvalue())
    return str(path)


def _records(model: Model, path: Path) -> list[tuple[str, Any]]:
    if not path.exists():
        raise UserError(
            f"the input {path} does not exist", expected="a file, a folder or a table (CSV, JSON, Parquet, xlsx)"
        )
    tagged = _tagged(model, path)
    if tagged is not None:
        return tagged
    if path.is_file() and table_format(path) is not None:
        return _rows(model, path)
    parts = list(model.task.inputs.values())
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
        return [(one.relative_to(path).as_posix(), {field: one}) for one in files]
    return [(str(path), {field: path})]


def _rows(model: Model, path: Path) -> list[tuple[str, Any]]:
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
    files = {name for part in model.task.inputs.values() if part.reads_file for name in part.fields(part.config)}
    rows = []
    for name, record in zip(records.ids, records, strict=True):
        for field in files:
            if isinstance(record[field], str):
                record[field] = path.parent / record[field]
        rows.append((f"{path.name} {name}", record))
    return rows


def _tagged(model: Model, path: Path) -> list[tuple[str, Any]] | None:
    """The sentences of a file of tagged words, None if it is none or the model learned from other data."""
    from sonde.data.sources.tagged_text import TaggedText, TaggedTextConfig

    options = model.data_settings("tagged-text", TaggedTextConfig)
    if options is None or not path.is_file() or not TaggedText.recognise(path):
        return None
    records = TaggedText.read(path, options)
    return list(zip(records.ids, records, strict=True))


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
    return [name for part in model.task.inputs.values() for name in part.fields(part.config)]
