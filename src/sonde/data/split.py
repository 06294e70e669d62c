"""Which records train, validate and test: given by the data, drawn at random, by class, by group, by the
scaffold of molecules, or by time."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from sonde.base import molecules
from sonde.base.config import Config
from sonde.base.errors import UserError, near, unknown
from sonde.contracts.records import Records, is_missing

# How people name the three parts, in columns, folders and files.
_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
# A record that no part uses, in a column that gives the split.
_UNUSED = "none"
# Labels with fewer records each than this are quantities or texts, not classes to balance unasked.
_RECORDS_PER_CLASS = 10


class Split(Config):
    by: Literal["given", "random", "stratified", "group", "scaffold", "time", "order"] = Field(
        default="random",
        description="given: by a column or by folders; stratified: every class keeps its share; "
        "group: no group is in two parts; scaffold: no Bemis-Murcko scaffold is, and the commonest train; "
        "time: the newest records test; order: the last records test",
    )
    field: str | None = Field(
        default=None,
        description="the column to split by; for given 'split', for stratified the target's field if left out",
    )
    rare: Literal["error", "train"] = Field(
        default="error",
        description="stratified: classes with fewer records than there are splits; train keeps them there",
    )
    validation: float = Field(default=0.1, ge=0, lt=1, description="share of the records that pick the best checkpoint")
    test: float = Field(default=0.1, ge=0, lt=1, description="share of the records that give the final scores")

    @property
    def function(self) -> str:
        """What computed the groups of a split that are not written in the data: a snapshot keeps that."""
        return f"{molecules.SCAFFOLD} of {self.field!r}, largest groups first" if self.by == "scaffold" else ""

    @model_validator(mode="after")
    def _leaves_training(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation = {self.validation:g} and test = {self.test:g} leave nothing to train on; "
                "their sum must be below 1"
            )
        return self


def split_name(text: str) -> str | None:
    """The part ("train", "validation", "test") that a name stands for in any of its spellings, or None."""
    return _NAMES.get(text.strip().lower())


def part_of(value: object) -> str | None:
    """As `split_name`, for any value of a column: "" for "none", a record that is not used; None for nonsense."""
    if not isinstance(value, str):
        return None
    return "" if value.strip().lower() == _UNUSED else split_name(value)


def assign(records: Records, split: Split, *, label: np.ndarray | None, seed: int) -> np.ndarray:
    """The part of every record, (N,) texts: "train", "validation", "test", or "" for one that is not used.

    `label` is the target's field, which a stratified split balances. The same records, settings and seed give the same
    parts; a share above 0 gives at least one record.

    Raises:
        UserError: the column is missing or has values that make no sense; there are too few records, classes or groups.
    """
    shares = {"train": 1 - split.validation - split.test, "validation": split.validation, "test": split.test}
    shares = {part: share for part, share in shares.items() if share > 0}
    rng = np.random.Generator(np.random.PCG64(seed))
    everything = np.arange(len(records))
    if split.by != "given" and len(records) < len(shares):
        raise UserError(
            f"{_records(len(records))} cannot be split into {_parts(shares)}", expected="at least one record for each"
        )
    if split.by == "given":
        return _given(records, split, label, rng)
    if split.by == "order":
        return _cut(everything, np.ones(len(records)), shares)
    if split.by == "random":
        return _drawn(everything, shares, rng)
    if split.by == "stratified":
        return _stratified(records, split, label, shares, rng)
    if split.field is None:
        raise UserError(
            f"a split by {split.by} needs a column, and data.split names none",
            expected=f'split = {{ by = "{split.by}", field = "..." }}',
        )
    values = _column(records, split.field)
    if split.by == "group":
        return _grouped(records, split.field, values, shares, rng)
    if split.by == "scaffold":
        return _by_scaffold(scaffolds(records, split.field), shares)
    return _timed(records, split.field, values, shares)


def _column(records: Records, name: str) -> np.ndarray:
    if name not in records.fields:
        raise unknown(name, records.fields, what="data.split: the column")
    return records.fields[name]


def _parts(shares: dict[str, float]) -> str:
    names = list(shares)
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _cut(blocks: np.ndarray, sizes: np.ndarray, shares: dict[str, float]) -> np.ndarray:
    """Cut a row of blocks into the parts, in their order.

    `blocks` (N,) is the block of each record, `sizes` (G,) how many records each block has, G at least the number of
    parts. Shares are met as nearly as whole blocks allow; every part gets at least one block.
    """
    middles = np.cumsum(sizes) - sizes / 2
    wanted = np.cumsum(list(shares.values()))[:-1] * sizes.sum()
    cuts = np.searchsorted(middles, wanted)
    for place in range(len(cuts)):
        most = len(sizes) - (len(cuts) - place)
        least = cuts[place - 1] + 1 if place else 1
        cuts[place] = max(least, min(cuts[place], most))
    return np.array(list(shares))[np.searchsorted(cuts, blocks, side="right")]


def _drawn(members: np.ndarray, shares: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    return _cut(rng.permutation(len(members)), np.ones(len(members)), shares)


def _stratified(
    records: Records, split: Split, label: np.ndarray | None, shares: dict[str, float], rng: np.random.Generator
) -> np.ndarray:
    values = label if split.field is None else _column(records, split.field)
    of_field = f" in column {split.field!r}" if split.field else ""
    if values is None:
        raise UserError(
            "a stratified split needs classes, and the target has no field",
            expected="data.split.field, or another way to split",
            hint='split = { by = "random" }',
        )
    missing = is_missing(values)
    if missing.any():
        raise UserError(
            f"{records.ids[int(missing.argmax())]} has no class{of_field}, and the split is stratified",
            hint="fill it in, or remove the record",
        )
    codes, counts = codes_of(values)
    if counts.min() < len(shares) and split.rare == "error":
        rare = int(counts.argmin())
        name = values[int(np.argmax(codes == rare))]
        raise UserError(
            f"the class {str(name)!r}{of_field} has only {_counted(int(counts[rare]))}",
            expected=f"at least {len(shares)} of every class: one each for {_parts(shares)}",
            hint='add examples, remove the class, or keep it in training with split = { ..., rare = "train" }',
        )
    return _by_class(codes, counts, shares, rng)


def _counted(count: int) -> str:
    return "one example" if count == 1 else f"{count} examples"


def _records(count: int) -> str:
    return "one record" if count == 1 else f"{count} records"


def _by_class(codes: np.ndarray, counts: np.ndarray, shares: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    """Every class cut by the shares; a class too small for that trains."""
    parts = np.full(len(codes), "train", dtype="<U10")
    by_class = np.argsort(codes, kind="stable")
    for members in np.split(by_class, np.cumsum(counts)[:-1]):
        if len(members) >= len(shares):
            parts[members] = _drawn(members, shares, rng)
    return parts


def codes_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number of every record's class or group, and how many records each has."""
    if values.dtype == object:
        seen: dict[str, int] = {}
        # Values of a file or of JSON need not be hashable (lists of labels).
        keys = (value if isinstance(value, str) else repr(value) for value in values)
        codes = np.fromiter((seen.setdefault(key, len(seen)) for key in keys), np.int64, len(values))
    else:
        codes = np.unique(values, return_inverse=True)[1].reshape(-1)
    return codes, np.bincount(codes)


def _given(records: Records, split: Split, label: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """The parts that the data names; one that it lacks is taken from the training records, by its share."""
    name = split.field or "split"
    if split.field is None and name not in records.fields:
        raise UserError(
            "the data set gives no split: it has no train and test folders and no column 'split'",
            hint='use split = { by = "random" }, or name the column with data.split.field',
        )
    values = _column(records, name).tolist()
    # A column has few different values: each is read once.
    known = {value: part_of(value) for value in set(values)}
    found = [known[value] for value in values]
    if None in found:
        wrong = found.index(None)
        close = near(str(values[wrong]), _NAMES)
        raise UserError(
            f"the column {name!r} has the value {values[wrong]!r} at {records.ids[wrong]}, which is no part of a split",
            expected="train, validation, test, or none for a record that is not used",
            hint=f"did you mean {close!r}?" if close else None,
        )
    parts = np.array(found, dtype="<U10")
    train = np.flatnonzero(parts == "train")
    if not len(train):
        raise UserError(f"no record is 'train' in the column {name!r}", expected="records to train on")
    wanted = {"validation": split.validation, "test": split.test}
    taken = {part: share for part, share in wanted.items() if share > 0 and not (parts == part).any()}
    if taken:
        shares = {"train": 1 - sum(taken.values()), **taken}
        if len(train) < len(shares):
            raise UserError(f"{_counted(len(train))} to train on cannot be split into {_parts(shares)}")
        parts[train] = _taken(train, None if label is None else label[train], shares, rng)
    return parts


def _taken(
    train: np.ndarray, label: np.ndarray | None, shares: dict[str, float], rng: np.random.Generator
) -> np.ndarray:
    if label is not None and label.ndim == 1 and label.dtype.kind != "f":
        codes, counts = codes_of(label)
        if len(counts) * _RECORDS_PER_CLASS <= len(train):
            return _by_class(codes, counts, shares, rng)
    return _drawn(train, shares, rng)


def _grouped(
    records: Records, name: str, values: np.ndarray, shares: dict[str, float], rng: np.random.Generator
) -> np.ndarray:
    missing = is_missing(values)
    if missing.any():
        raise UserError(
            f"{records.ids[int(missing.argmax())]} has no group in column {name!r}",
            hint="fill it in: a group without a name could be in two parts",
        )
    codes, counts = codes_of(values)
    if len(counts) < len(shares):
        raise UserError(
            f"the column {name!r} has {len(counts)} groups, too few for {_parts(shares)}",
            expected="at least one group for each part",
        )
    order = rng.permutation(len(counts))
    # A group larger than a part would fill it alone: those train.
    order = order[np.argsort(counts[order] <= min(shares.values()) * len(records), kind="stable")]
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return _cut(place[codes], counts[order], shares)


def scaffolds(records: Records, field: str) -> np.ndarray:
    """The Bemis-Murcko scaffold of every record's molecule, as texts; an unreadable molecule has one of its own.

    Raises:
        UserError: there is no such column, or no molecule in it; RDKit is not installed.
    """
    values = _column(records, field)
    found = {value: molecules.scaffold(value, field) for value in set(values.tolist())}
    if all(each is None for each in found.values()):
        raise UserError(
            f"a split by scaffold needs molecules, and the column {field!r} has none, but {values[0]!r}",
            expected="SMILES",
        )
    names = np.empty(len(values), dtype=object)
    names[:] = [
        f"unreadable: {name}" if found[value] is None else found[value]
        for value, name in zip(values.tolist(), records.ids, strict=True)
    ]
    return names


def _by_scaffold(names: np.ndarray, shares: dict[str, float]) -> np.ndarray:
    """Whole scaffolds fill the training split, then validation, then test; those with most molecules first, as in
    MoleculeNet (Wu et al. 2018): what is rare is held out."""
    codes, counts = codes_of(names)
    if len(counts) < len(shares):
        raise UserError(
            f"the molecules have {len(counts)} scaffolds, too few for {_parts(shares)}",
            expected="at least one scaffold for each part",
        )
    # Scaffolds of one size: the one that comes first in the data is last, as there.
    order = np.lexsort((-np.arange(len(counts)), -counts))
    limits = np.cumsum(list(shares.values())) * len(names)
    filled = np.zeros(len(shares), dtype=np.int64)
    part = np.empty(len(counts), dtype=np.int64)
    for code in order:
        fits = [place for place in range(len(shares) - 1) if filled[: place + 1].sum() + counts[code] <= limits[place]]
        part[code] = fits[0] if fits else len(shares) - 1
        filled[part[code]] += counts[code]
    for place in np.flatnonzero(filled == 0):
        # A share so small that no scaffold fits gets the last one all the same.
        part[order[-1 - (len(shares) - 1 - int(place))]] = place
    return np.array(list(shares))[part[codes]]


def _timed(records: Records, name: str, values: np.ndarray, shares: dict[str, float]) -> np.ndarray:
    """The oldest records train, the newest test; records of one time stay together."""
    missing = is_missing(values)
    if missing.any():
        raise UserError(
            f"{records.ids[int(missing.argmax())]} has no time in column {name!r}",
            hint="fill it in, or remove the record",
        )
    if values.dtype.kind not in "iufM":
        raise UserError(
            f"the column {name!r} has {str(values[0])!r} at {records.ids[0]}, which is no time",
            expected="numbers, or dates like 2024-05-31 or 2024-05-31 14:00:00",
        )
    times, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    if len(times) < len(shares):
        raise UserError(
            f"the column {name!r} has {len(times)} different times, too few for {_parts(shares)}",
            expected="at least one time for each part",
        )
    return _cut(codes.reshape(-1), counts, shares)
