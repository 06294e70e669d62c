"""Windows of series: what is known, and what is to be forecast from it; train, validation and test follow in time.

A window belongs to the split in which all of its horizon lies, so none straddles a border; its lookback may reach into
the split before. Values are views: nothing is copied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sonde.base.errors import UserError
from sonde.contracts.records import Records, as_field
from sonde.data.sources import _folders
from sonde.data.sources._series_items import Item, Items

# Rows of training series below which a lookback of the wished length leaves too few windows: half of them is taken.
_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How series are cut: steps known and to forecast, and how much of each series trains, validates and tests.

    A number below 1 is a share of the series, one from 1 on a number of steps. `train` None: all that the others leave.
    """

    lookback: int
    horizon: int
    train: float | None
    validation: float
    test: float
    stride: int = 1


def steps_of(size: float, length: int, horizon: int) -> int:
    """The steps that a share, or a number of steps, means: a horizon at least, where it is any."""
    if size <= 0:
        return 0
    return max(math.floor(size * length), horizon) if size < 1 else int(size)


def windows(found: Items, cut: Cut, num_values: int, num_known: int = 0) -> Records:
    """Records with the fields series (L, channels), future (H, values), split, item and block; time (L + H) where there
    are time stamps, known (L + H, known) where some channels are known ahead; and static ones. Of the channels the
    first `num_values` are to be forecast, the last `num_known` known ahead.

    Raises:
        UserError: no series is long enough.
    """
    series: list[np.ndarray] = []
    future: list[np.ndarray] = []
    times: list[np.ndarray] = []
    known: list[np.ndarray] = []
    ids: list[str] = []
    splits: list[str] = []
    items: list[Item] = []
    blocks: list[str] = []
    short = 0
    for item in found.items:
        before = len(ids)
        values = _own(item.values)
        truth = values if num_values == values.shape[1] else _own(values[:, :num_values])
        ahead = _own(item.values[:, len(found.channels) - num_known :])
        moments = None if item.times is None else _own(item.times)
        for split, origins in _origins(len(item.values), cut).items():
            origins = origins[_have_values(truth, origins, cut)] if len(origins) else origins
            names = _names(item, origins)
            length = _block(len(origins), cut.horizon)
            for place, origin in enumerate(origins.tolist()):
                start = max(0, origin - cut.lookback)
                series.append(values[start:origin])
                future.append(truth[origin : origin + cut.horizon])
                if moments is not None:
                    times.append(moments[start : origin + cut.horizon])
                if num_known:
                    known.append(ahead[start : origin + cut.horizon])
                splits.append(split)
                items.append(item)
                ids.append(names[place])
                blocks.append(f"{item.name} {split} {place // length}")
        short += len(ids) == before
    if not ids:
        raise UserError(
            f"no series is long enough for a window: the longest has {max(len(each.values) for each in found.items):,} "
            "steps",
            expected=f"a past, {cut.horizon} steps to forecast, and as many each to validate and test by",
            hint="a smaller data.horizon, or data.validation = 0",
        )
    fields: dict[str, np.ndarray] = {
        "series": _folders.arrays(series),
        "future": _folders.arrays(future),
        "split": _folders.objects(splits),
        "block": _folders.objects(blocks),
        "item": _folders.objects([item.name for item in items]),
    }
    if len(times) == len(ids):
        fields["time"] = _folders.arrays(times)
    if num_known:
        fields["known"] = _folders.arrays(known)
    for name in found.items[0].static:
        fields[name] = as_field([_folders.plain(item.static[name]) for item in items])
    notes = list(found.notes)
    if short:
        notes.append(f"{short} of {len(found.items)} series are too short for a window, and were left out")
    return Records(fields=fields, ids=ids, notes=tuple(notes))


def last_windows(found: Items, lookback: int) -> Records:
    """The end of every series: what forecasts go on from."""
    items = found.items
    fields = {
        "series": _folders.arrays([item.values[-lookback:] for item in items]),
        "item": _folders.objects([item.name for item in items]),
    }
    if all(item.times is not None for item in items):
        fields["time"] = _folders.arrays([item.times[-lookback:] for item in items if item.times is not None])
    for name in items[0].static:
        fields[name] = as_field([_folders.plain(item.static[name]) for item in items])
    return Records(fields=fields, ids=[item.name or "series" for item in items])


def _origins(length: int, cut: Cut) -> dict[str, np.ndarray]:
    """The first step to forecast of every window, by split."""
    validation, test = (steps_of(each, length, cut.horizon) for each in (cut.validation, cut.test))
    if cut.train is None:
        train, end = length - validation - test, length
    else:
        train = steps_of(cut.train, length, cut.horizon)
        end = min(length, train + validation + test)
    past = cut.lookback
    if train - cut.horizon < 2 * past:
        past = max(1, min(past, int((train - cut.horizon) * _SHARE)))
    return {
        "train": np.arange(past, train - cut.horizon + 1, cut.stride),
        "validation": np.arange(max(1, train), train + validation - cut.horizon + 1),
        "test": np.arange(max(1, train + validation), end - cut.horizon + 1),
    }


def _have_values(values: np.ndarray, origins: np.ndarray, cut: Cut) -> np.ndarray:
    """Which windows have a value in their lookback and one in their horizon."""
    there = np.concatenate([[0], np.cumsum(~np.isnan(values).all(axis=1))])
    past = there[origins] - there[np.maximum(0, origins - cut.lookback)]
    return (past > 0) & (there[origins + cut.horizon] - there[origins] > 0)


def _block(count: int, horizon: int) -> int:
    """Windows that are resampled together: neighbours share their horizon (and see `sonde.data.groups.blocks`)."""
    return max(1, horizon, math.ceil(round(count ** (1 / 3), 9)))


def _names(item: Item, origins: np.ndarray) -> list[str]:
    before = f"{item.name} " if item.name else ""
    if item.times is None:
        return [f"{before}step {origin + 1}" for origin in origins.tolist()]
    return [f"{before}{time.replace('T', ' ')}" for time in np.datetime_as_string(item.times[origins]).tolist()]


def _own(values: np.ndarray) -> np.ndarray:
    """The same in one piece of memory that is no view, so that windows of it are."""
    return values.copy() if values.base is not None or not values.flags.c_contiguous else values
