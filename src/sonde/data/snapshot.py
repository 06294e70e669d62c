"""The fingerprint of a data set: a hash of every record's content, its split, and one number over all.

It depends on what the records hold (the bytes of their files too), on their names and on their splits; not on where the
data lies, when a file was touched, or how numbers are stored. Two runs with one fingerprint saw the same data.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from sonde.base.errors import RecordError
from sonde.base.files import read_bytes
from sonde.base.hashing import GOLDEN, splitmix64
from sonde.base.threads import each
from sonde.contracts.records import Records

# Splits as they are stored: one digit a record.
_SPLITS = ("", "train", "validation", "test")
# How many records a line about changes names.
_SHOWN = 5
# Whole numbers up to here are the same as floating-point ones, and then have the same hash.
_EXACT = 1 << 53


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a run was trained on. `hashes` are 16 hex digits a record, over the `fields` that the task reads; `split_by`
    names the function that the groups of its split come from, where they are not in the data."""

    fields: Sequence[str]
    ids: Sequence[str]
    hashes: Sequence[str]
    splits: Sequence[str]
    fingerprint: str
    split_by: str = ""

    def to_json(self) -> dict[str, Any]:
        """Columns, not records: hashes joined to one text, splits to one digit each (0 is a record not used)."""
        codes = {name: str(code) for code, name in enumerate(_SPLITS)}
        return {
            "fingerprint": self.fingerprint,
            **({"split_by": self.split_by} if self.split_by else {}),
            "fields": list(self.fields),
            "splits": "".join(codes[split] for split in self.splits),
            "hashes": "".join(self.hashes),
            "ids": list(self.ids),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        return cls(
            fields=value["fields"],
            ids=value["ids"],
            hashes=_pieces(value["hashes"]),
            splits=[_SPLITS[int(code)] for code in value["splits"]],
            fingerprint=value["fingerprint"],
            split_by=value.get("split_by", ""),
        )


def snapshot(records: Records, splits: np.ndarray, *, used: AbstractSet[str], split_by: str = "") -> Snapshot:
    """The snapshot of records, their splits (as `assign` gives them) and the fields that the task reads."""
    fields = sorted(used)
    hashes = np.zeros(len(records), dtype=np.uint64)
    for name in fields:
        hashes = _mix(hashes + _mix(_hash_field(records.fields[name]) + np.uint64(_digest(b"name", name.encode()))))
    packed = hashes.astype(">u8").tobytes()
    parts = splits.tolist()
    digest = hashlib.sha256(json.dumps([fields, list(records.ids), parts]).encode() + packed)
    return Snapshot(
        fields=fields,
        ids=records.ids,
        hashes=_pieces(packed.hex()),
        splits=parts,
        fingerprint=digest.hexdigest(),
        split_by=split_by,
    )


def changes(old: Snapshot, new: Snapshot) -> list[str]:
    """What differs between two snapshots, a line for people each; none when the fingerprints are equal."""
    if old.fingerprint == new.fingerprint:
        return []
    lines = []
    if list(old.fields) != list(new.fields):
        lines.append(f"the fields in use were {', '.join(old.fields)} and are {', '.join(new.fields)}")
    before = dict(zip(old.ids, zip(old.hashes, old.splits, strict=True), strict=True))
    after = dict(zip(new.ids, zip(new.hashes, new.splits, strict=True), strict=True))
    both = [name for name in after if name in before]
    lines += _line("added", [name for name in after if name not in before])
    lines += _line("removed", [name for name in before if name not in after])
    if list(old.fields) == list(new.fields):
        lines += _line("changed", [name for name in both if before[name][0] != after[name][0]])
    moved = [name for name in both if before[name][1] != after[name][1]]
    lines += _line(
        "moved to another split",
        [f"{name} ({before[name][1] or 'none'} -> {after[name][1] or 'none'})" for name in moved],
    )
    return lines or ["the records are in another order"]


def _line(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = ", ..." if len(names) > _SHOWN else ""
    count = "1 record" if len(names) == 1 else f"{len(names)} records"
    return [f"{count} {what}: {', '.join(names[:_SHOWN])}{more}"]


def _pieces(text: str) -> list[str]:
    return [text[start : start + 16] for start in range(0, len(text), 16)]


def _hash_field(values: np.ndarray) -> np.ndarray:
    """A hash of every value of a field, uint64 (N,)."""
    if values.ndim > 1:
        rows = np.ascontiguousarray(values)
        return np.fromiter((_digest_array(row) for row in rows), np.uint64, len(rows))
    if values.dtype.kind in "biuf":
        return _hash_numbers(values)
    if values.dtype.kind == "M":
        return _hash_times(values)
    return _hash_objects(values.tolist())


def _hash_numbers(values: np.ndarray) -> np.ndarray:
    """Numbers by their value, however they are stored: 3, 3.0 and a float32 3.0 alike, and -0.0 as 0.0."""
    floats = values.astype(np.float64) + 0.0
    bits = np.where(np.isnan(floats), np.nan, floats).view(np.uint64)
    if values.dtype.kind in "iu":
        large = (values > _EXACT) | (values < -_EXACT) if values.dtype.kind == "i" else values > _EXACT
        # Beyond 2^53 neighbours share a float: their own bits tell them apart.
        bits = np.where(large, ~values.astype(np.uint64), bits)
    return _mix(bits)


def _hash_times(values: np.ndarray) -> np.ndarray:
    return _mix(values.astype("datetime64[us]").view(np.uint64) ^ np.uint64(_digest(b"time", b"")))


def _hash_objects(values: list[Any]) -> np.ndarray:
    """Texts, files and whatever else: every distinct value is hashed once, files in threads."""
    try:
        distinct = list(dict.fromkeys(values))
    except TypeError:  # lists, arrays and mappings cannot be looked up
        return np.fromiter(map(_hash_value, values), np.uint64, len(values))
    hashes = each(_hash_value, distinct, threads=any(isinstance(value, Path) for value in distinct))
    found = dict(zip(distinct, hashes, strict=True))
    return np.fromiter(map(found.__getitem__, values), np.uint64, len(values))


def _hash_value(value: Any) -> int:
    if isinstance(value, str):
        return _digest(b"text", value.encode("utf-8", "surrogatepass"))
    if isinstance(value, (Path, bytes, bytearray, memoryview)):
        try:
            return _digest(b"file", read_bytes(value))
        except RecordError:
            # Whether records that cannot be read are too many is for others to judge; here they are the same.
            return _digest(b"unreadable", b"")
    if value is None or (isinstance(value, float) and value != value):
        return int(_hash_numbers(np.array([np.nan]))[0])
    if isinstance(value, (bool, int, float, np.number, np.bool_)) and abs(value) < 1 << 63:
        return int(_hash_numbers(np.array([value]))[0])
    if isinstance(value, (datetime.date, np.datetime64)):
        return int(_hash_times(np.array([value], dtype="datetime64[us]"))[0])
    if isinstance(value, np.ndarray):
        return _digest_array(value)
    return _digest(b"json", json.dumps(value, sort_keys=True, default=str).encode())


def _digest_array(values: np.ndarray) -> int:
    plain = np.ascontiguousarray(values)
    return _digest(f"{plain.dtype.str}{plain.shape}".encode(), plain.tobytes())


def _digest(sort: bytes, content: bytes) -> int:
    """64 bits of a content of some sort: a text and a file with the same bytes differ."""
    digest = hashlib.blake2b(sort + b"\0", digest_size=8)
    digest.update(content)
    return int.from_bytes(digest.digest(), "little")


def _mix(values: np.ndarray) -> np.ndarray:
    return splitmix64(values + np.uint64(GOLDEN))
