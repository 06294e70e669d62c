"""From the `[data]` section to records, their splits and the snapshot."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sonde.base import lookup
from sonde.base.config import Config
from sonde.base.errors import UserError, near
from sonde.contracts.records import Records, is_missing
from sonde.data.settings import SCAFFOLD, DataConfig
from sonde.data.snapshot import Snapshot, snapshot
from sonde.data.source import Source
from sonde.data.sources import _folders
from sonde.data.split import assign, scaffolds

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The records of each split that has any, the fingerprint of the whole, and what people should know of it."""

    splits: dict[str, Records]
    snapshot: Snapshot
    notes: tuple[str, ...] = ()


def locate(source: str, base: Path) -> Path:
    """The path that a recipe's `source` means. A built-in ("sklearn:digits") is not a file and stays as it is."""
    if ":" in source and not Path(source).drive:
        return Path(source)
    return (base / Path(source).expanduser()).resolve()


def source_of(kind: str | None, path: Path) -> tuple[str, type[Source]]:
    """The source of a kind, or the one that recognises the path."""
    if kind is not None:
        return kind, lookup.find("sources", kind, Source)
    if ":" not in str(path) and not path.exists():
        raise missing(path)
    if re.match(r"\w\w+:/", str(path)):
        raise UserError(f"{path.as_posix().replace(':/', '://', 1)} is not on this machine", hint="download it first")
    sources = {name: lookup.find("sources", name, Source) for name in lookup.kinds("sources")}
    for name, source in sorted(sources.items(), key=lambda each: not each[1].distinct):
        if source.recognise(path):
            return name, source
    raise UserError(
        f"{path} is not a data set that sonde recognises: {_holdings(path)}",
        expected="class folders, a table (CSV, TSV, JSON, JSONL, Parquet, xlsx), pictures and masks, pictures and "
        "boxes (VOC, COCO, YOLO, CSV), idx files, text files, tagged words (CoNLL, CoNLL-U, JSONL), parallel texts "
        "(train.en, train.de; TMX), recordings with transcripts, series (a column of time stamps, .tsf, .ts)",
        hint=_suggestion(path) or "`sonde kinds` lists what is read; data.kind in a recipe chooses one",
    )


def missing(path: Path, hint: str = "data.source is relative to the recipe's folder") -> UserError:
    close = near(path.name, os.listdir(path.parent)) if path.parent.is_dir() else None
    return UserError(f"the data set {path} does not exist", hint=f"did you mean {close!r}?" if close else hint)


def _holdings(path: Path) -> str:
    """What lies there, in a few words."""
    if path.is_file():
        return f"it is a file ending in {path.suffix!r}" if path.suffix else "it is a file without an ending"
    inside = [one for one in path.iterdir() if not one.name.startswith(".")]
    if not inside:
        return "the folder is empty"
    endings = Counter(one.suffix.lower() or "no ending" for one in inside if one.is_file())
    folders = [one.name for one in inside if one.is_dir()]
    held = [f"{count} {ending}" for ending, count in endings.most_common(3)]
    if folders:
        held.append(f"{len(folders)} folder{'s' if len(folders) > 1 else ''} ({', '.join(sorted(folders)[:3])})")
    return "it holds " + ", ".join(held)


def _suggestion(path: Path) -> str | None:
    """What would make a data set of a few usual things that are none."""
    if path.is_file():
        return None
    inside = sorted(path.iterdir())
    tables = _folders.tables(path)
    folders = [one for one in inside if one.is_dir() and not one.name.startswith(".")]
    if len(tables) > 1:
        return f"several tables are no one data set; name one of them: {tables[0]}"
    if len(folders) == 1 and not tables:
        return f"a class is learned beside others: one folder ({folders[0].name}) is not enough"
    return None


def load(
    data: DataConfig,
    source: Config,
    *,
    files: Collection[str],
    used: Collection[str],
    label: str | None,
    needed: Collection[str] = (),
    seed: int,
) -> Dataset:
    """Read, split and fingerprint a data set.

    `files` are the fields that hold files: texts in them become paths beside the data set. `used` are the fields that
    the task reads, `label` the one that a stratified split balances, `needed` those without which there is no truth.
    """
    path = Path(data.source)
    if ":" not in data.source and not path.exists():
        raise missing(path)
    _, reader = source_of(data.kind, path)
    if reader.splits_itself and (data.split.by != "given" or data.split.validation or data.split.test):
        raise UserError(
            "the records of this data set overlap (windows of series): any other split than its own would put what "
            "training saw into the test",
            expected='split = { by = "given", validation = 0, test = 0 }',
            hint="data.validation and data.test say how much of each series is held out",
        )
    records = reader.read(path, source)
    if not len(records):
        raise UserError(f"the data set {path} has no records")
    wanted = {*used, *(name for name in (data.weight, data.group) if name)}
    for field in sorted(wanted):
        if field not in records.fields:
            raise UserError(
                f"the data set {path} has no field {field!r}",
                expected="one of: " + ", ".join(records.fields),
                hint=_near(field, records),
            )
    told = records.notes
    records, notes = _labelled(records, needed, drop=data.drop_unlabelled)
    root = path if path.is_dir() else path.parent
    records = records.with_fields(**{name: as_paths(records.fields[name], root) for name in files})
    if data.split.by == "scaffold" and data.split.field is not None:
        # Scores are resampled by scaffold, too: such molecules are alike.
        records = records.with_fields(**{SCAFFOLD: scaffolds(records, data.split.field)})
    splits = assign(records, data.split, label=None if label is None else records.fields[label], seed=seed)
    parts = {name: np.flatnonzero(splits == name) for name in SPLITS}
    if not len(parts["train"]):
        raise UserError(f"the training split of {path} is empty", hint="look at data.split")
    return Dataset(
        splits={name: records.take(indices) for name, indices in parts.items() if len(indices)},
        snapshot=snapshot(records, splits, used=wanted, split_by=data.split.function),
        notes=(*told, *notes),
    )


def _labelled(records: Records, needed: Collection[str], *, drop: bool) -> tuple[Records, tuple[str, ...]]:
    """The records whose truth is there, and what was left out.

    Raises:
        UserError: some have none, and are not to be left out; or all have none.
    """
    missing = np.zeros(len(records), dtype=bool)
    for field in needed:
        missing |= is_missing(records.fields[field])
    if not missing.any():
        return records, ()
    fields = ", ".join(repr(field) for field in needed)
    what = f"{int(missing.sum()):,} of {len(records):,} records have no value in {fields}"
    if missing.all() or not drop:
        first = records.ids[int(np.flatnonzero(missing)[0])]
        raise UserError(
            f"{what}, such as {first}",
            expected="a truth for every record",
            hint=None if missing.all() else "data.drop_unlabelled = true leaves such records out",
        )
    return records.take(np.flatnonzero(~missing)), (f"left out {what.replace(' have no', ' that have no')}",)


def _near(field: str, records: Records) -> str | None:
    close = near(field, records.fields)
    return f"did you mean {close!r}?" if close else None


def as_paths(values: np.ndarray, root: Path) -> np.ndarray:
    """Texts as paths under the data set's folder; arrays, bytes and paths stay."""
    if values.dtype != object:
        return values
    paths = np.empty(len(values), dtype=object)
    paths[:] = [root / value if isinstance(value, str) else value for value in values]
    return paths
