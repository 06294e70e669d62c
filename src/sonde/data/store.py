"""Records encoded once and kept as columns, in memory or, past a limit, in mapped files. Either way they are sliced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sonde.base.errors import RecordError, UnseenError, UserError
from sonde.base.files import cannot_write, make_folder
from sonde.contracts.batch import Examples
from sonde.contracts.columns import Columns, Ragged, num_bytes, take
from sonde.contracts.part import Part
from sonde.contracts.records import Records, numbers_of
from sonde.contracts.task import Task
from sonde.data.groups import Groups, blocks, by_column

# Records encoded at a time: enough to keep every thread busy, few enough to show progress and bound memory. Values are
# small where files are large.
CHUNK = 32768
CHUNK_OF_FILES = 2048


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Examples, the ids of the records that they come from, and which of them hang together, where that is known.

    By record id what was skipped and why: `unreadable` inputs, and `unseen` truths, which training never showed.
    """

    examples: Examples
    ids: list[str]
    unreadable: dict[str, str]
    unseen: dict[str, str]
    count: int
    groups: Groups | None = None

    @property
    def weight(self) -> np.ndarray | None:
        return None if self.examples.weight is None else self.examples.weight.numpy()


def encode(
    task: Task,
    records: Records,
    *,
    weight: str | None = None,
    group: str | None = None,
    memory: float = float("inf"),
    cache: Path | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Encoded:
    """Encode a split. `memory` is in bytes; what would exceed it goes to files under `cache`.

    `weight` and `group` are columns: how much each record counts, and which records hang together. Windows of a stream
    have no group of a record: their groups are blocks of neighbours.

    Raises:
        UserError: a truth is wrong, or not one record can be read.
    """
    weights_N = None if weight is None else _weights(records, weight)
    parts: dict[str, Part] = {**{f"inputs.{name}": part for name, part in task.inputs.items()}, "target": task.target}
    writers: dict[str, _ColumnWriter] = {}
    kept: list[np.ndarray] = []
    unreadable: dict[str, str] = {}
    unseen: dict[str, str] = {}
    size = CHUNK_OF_FILES if any(part.reads_file for part in parts.values()) else CHUNK
    for start in range(0, len(records), size):
        chunk = records.part(start, start + size)
        columns, good = _encode_chunk(task, chunk, unreadable, unseen)
        if not writers:
            forecast = sum(num_bytes(each) for each in columns.values()) * len(records) / max(1, len(chunk))
            folder = cache if forecast > memory else None
            writers = {name: _ColumnWriter(folder, name) for name in parts}
        for name, each in columns.items():
            writers[name].add(each)
        kept.append(start + good)
        on_progress(start + len(chunk))
    if len(unreadable) + len(unseen) == len(records):
        raise UserError(f"none of {len(records)} records can be read: {_first(unreadable | unseen)}")
    positions = np.concatenate(kept)
    whole = {name: writer.finish() for name, writer in writers.items()}
    inputs = {name: part.make_windows(whole[f"inputs.{name}"]) for name, part in task.inputs.items()}
    # A stream is cut into windows: their number is then not that of the records.
    count = len(next(iter(next(iter(inputs.values())).values())))
    if whole["target"] and count != len(positions):
        raise UserError(
            f"the inputs arrange {len(positions)} records as {count} windows, and the target has a truth per record",
            hint="leave out the input's window, or learn next-token",
        )
    weights = None if weights_N is None else torch.from_numpy(weights_N[positions])
    if weights is not None and count != len(positions):
        raise UserError(
            f"data.weight gives a weight per record, and the inputs make {count} windows of {len(positions)} records",
            hint="leave out data.weight, or the input's window",
        )
    examples = Examples(inputs=inputs, truth=whole["target"], weight=weights, count=count)
    places: list[int] = positions.tolist()
    windows = count != len(places)
    ids = [f"window {n}" for n in range(count)] if windows else [records.ids[place] for place in places]
    groups = None if group is None else by_column(group, records.fields[group][positions])
    return Encoded(
        examples=examples,
        ids=ids,
        unreadable=unreadable,
        unseen=unseen,
        count=len(records),
        groups=blocks(count) if windows else groups,
    )


def _encode_chunk(
    task: Task, chunk: Records, unreadable: dict[str, str], unseen: dict[str, str]
) -> tuple[dict[str, Columns], np.ndarray]:
    """The columns of every part for the records that all parts can read, and the positions of those."""
    inputs, good, errors = task.encode_inputs(chunk)
    positions = np.array(good, dtype=np.int64)
    truth, wrong = task.target.encode_many(chunk.take(positions) if errors else chunk, inputs)
    unreadable |= {chunk.ids[index]: str(error) for index, error in errors.items()}
    for index, error in wrong.items():
        name = chunk.ids[good[index]]
        if not isinstance(error, UnseenError):
            raise RecordError(
                f"{name}: {error.what}",
                expected=error.expected,
                hint=error.hint or "correct the record, or leave it out of the data set",
            )
        unseen[name] = str(error)
    if wrong:
        kept = torch.tensor([index for index in range(len(good)) if index not in wrong], dtype=torch.int64)
        inputs = {name: take(columns, kept) for name, columns in inputs.items()}
        positions = positions[kept.numpy()]
    return {**{f"inputs.{name}": columns for name, columns in inputs.items()}, "target": truth}, positions


def _weights(records: Records, field: str) -> np.ndarray:
    """How much each record counts, float32 (N,).

    Raises:
        UserError: one has no weight, or a weight that is no finite number from 0 up; or all weights are 0.
    """
    values = records.fields[field]
    weights = numbers_of(values)
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(wrong):
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UserError(
            f"the weight of {records.ids[wrong[0]]} in column {field!r} is {values[wrong[0]]!r}{more}",
            expected="a number from 0 up for every record",
            hint="correct the column, or leave out data.weight",
        )
    if len(weights) and not weights.any():
        raise UserError(f"all weights in column {field!r} are 0", hint="correct the column, or leave out data.weight")
    return weights.astype(np.float32)


def check_unreadable(sets: Mapping[str, Encoded], limit: float) -> None:
    """That no more than a share of a data set cannot be read: of the whole, as a split may be small.

    Raises:
        UserError: there are more; names how many of each split, and the first of them.
    """
    count = sum(each.count for each in sets.values())
    unreadable = {name: why for each in sets.values() for name, why in each.unreadable.items()}
    if len(unreadable) <= limit * count:
        return
    where = ", ".join(f"{len(each.unreadable)} of {each.count} in {split}" for split, each in sets.items())
    raise UserError(
        f"{len(unreadable)} of {count} records cannot be read ({where}): {_first(unreadable)}",
        expected=f"at most a share of {limit:g} unreadable records",
        hint="repair them, or raise data.max_unreadable to skip them",
    )


def _first(errors: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {error}" for name, error in list(errors.items())[:5])


class _ColumnWriter:
    """Collects the chunks of one part's columns: in lists, or appended to a file each, mapped at the end."""

    def __init__(self, folder: Path | None, name: str) -> None:
        self.folder = folder
        self.name = name
        self.chunks: dict[str, list[Tensor]] = {}
        self.lengths: dict[str, list[Tensor]] = {}
        self.starts: dict[str, list[Tensor]] = {}
        self.total: dict[str, int] = {}
        self.like: dict[str, Tensor] = {}

    def add(self, columns: Columns) -> None:
        for name, column in columns.items():
            values = column
            if isinstance(column, Ragged):
                self.lengths.setdefault(name, []).append(column.lengths)
                # Only what was taken apart (records skipped) is put together again; windows that overlap stay so.
                whole = len(column.values) <= int(column.lengths.sum())
                pieces = (column[index] for index in range(len(column)))
                values = column.values if whole else torch.cat([column.values[:0], *pieces])
                starts = column.starts if whole else column.lengths.cumsum(0) - column.lengths
                self.starts.setdefault(name, []).append(starts + self.total.get(name, 0))
            assert isinstance(values, Tensor)
            self.like.setdefault(name, values[:0])
            self.total[name] = self.total.get(name, 0) + len(values)
            if self.folder is None:
                self.chunks.setdefault(name, []).append(values)
            else:
                make_folder(self.folder)
                try:
                    with self._file(name).open("ab" if self.total[name] > len(values) else "wb") as file:
                        values.contiguous().numpy().tofile(file)
                except OSError as error:
                    raise cannot_write(self._file(name), error) from error

    def finish(self) -> Columns:
        columns: Columns = {}
        for name, like in self.like.items():
            if self.folder is None:
                chunks = self.chunks[name]
                values = torch.cat(chunks) if len(chunks) > 1 else chunks[0]
            else:
                shape = (self.total[name], *like.shape[1:])
                size = int(np.prod(shape))
                # A file of no bytes cannot be mapped.
                flat = (
                    torch.from_file(str(self._file(name)), shared=False, size=size, dtype=like.dtype) if size else like
                )
                values = flat.reshape(shape)
            if name in self.lengths:
                starts, lengths = torch.cat(self.starts[name]), torch.cat(self.lengths[name])
                columns[name] = Ragged(values=values, starts=starts, lengths=lengths)
            else:
                columns[name] = values
        return columns

    def _file(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{self.name}.{name}.bin"
