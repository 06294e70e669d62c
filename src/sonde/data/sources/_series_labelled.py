"""Series that each have a label or a number: what is learned of them, and long tables that hold them.

`config` names the columns of a table: item, time, values, label.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sonde.base.errors import UserError, unknown
from sonde.contracts.records import Records, as_field
from sonde.data.source import Guess
from sonde.data.sources import _folders, _series_items
from sonde.data.sources._series_items import Roles


def guess(path: Path, records: Records, data: dict[str, object], label: str) -> Guess:
    """The task of series that each have a label, or a number."""
    labels = records.fields["label"]
    numbers = labels.dtype.kind == "f"
    classes = len(set(labels.tolist()))
    split: dict[str, object] = {"by": "random" if numbers else "stratified", "validation": 0.1, "test": 0.1}
    warnings: tuple[str, ...] = ()
    if "split" in records.fields:
        split, warning = _folders.given_split(set(records.fields["split"]))
        warnings = (warning,) if warning else ()
    lengths = [len(each) for each in records.fields["series"]]
    channels = records.fields["series"][0].shape[1]
    steps = f"{min(lengths)}" if min(lengths) == max(lengths) else f"{min(lengths)} to {max(lengths)}"
    return Guess(
        about=f"{len(records):,} series of {steps} steps and {channels} channel{'s' if channels > 1 else ''}"
        + ("" if numbers else f" in {classes} classes"),
        count=len(records),
        data={**data, "split": split},
        inputs={"series": {"kind": "series", "field": "series"}},
        target={"kind": "number" if numbers else "category", "field": "label"},
        notes={"target.field": f"the column {label}"} if label != "label" else {},
        warnings=warnings,
    )


def from_table(path: Path, config: Any) -> Records:
    """A record for each item of a long table."""
    records = _series_items.table_of(path, config.dates)
    for name in (config.item, config.time, *config.values, config.label):
        if name is not None and name not in records.fields:
            raise unknown(name, records.fields, what="[data] names a column that is not there:")
    if config.time is None or not config.values:
        raise UserError(
            "data.item needs data.time and data.values beside it", expected="the columns of steps and of values"
        )
    static = () if config.label is None else (config.label,)
    _check_constant(records, config)
    roles = Roles(time=config.time, item=config.item, values=config.values, static=static)
    found = _series_items.from_table(records, roles, None)
    fields = {"series": _folders.arrays([item.values for item in found.items])}
    if config.label is not None:
        fields["label"] = as_field([_folders.plain(item.static[config.label]) for item in found.items])
    return Records(fields=fields, ids=[item.name for item in found.items], notes=found.notes)


def _check_constant(records: Records, config: Any) -> None:
    if config.label is None or config.item is None:
        return
    seen: dict[str, object] = {}
    for place, (name, label) in enumerate(
        zip(records.fields[config.item].tolist(), records.fields[config.label].tolist(), strict=True)
    ):
        if seen.setdefault(str(name), label) != label:
            raise UserError(
                f"the item {name!r} has two labels, {seen[str(name)]!r} and {label!r} ({records.ids[place]})",
                expected="one label for each series",
            )
