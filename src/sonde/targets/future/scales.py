"""How far each training series is from itself a season before: what scaled errors (MASE, RMSSE) are divided by.

T step, C channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sonde.base.stretches import locate
from sonde.contracts.input import Input
from sonde.contracts.records import Records
from sonde.metrics import seasonal_differences


def error_scales(
    config: Any, records: Records, truths: Sequence[Any], history: str | None, inputs: Mapping[str, Input]
) -> tuple[list[str], np.ndarray]:
    """The series of the training split by name, and of each the mean absolute and the mean squared seasonal difference,
    float32 (series, 2, C), over all of its training steps. Without a series that goes on there are none."""
    channels = next(value.shape[1] for value in truths if isinstance(value, np.ndarray))
    if history is None:
        return [], np.zeros((0, 2, channels), np.float32)
    pasts = records.fields[inputs[history].config.field]
    field = records.fields.get(config.item or "")
    names = np.full(len(records), "") if field is None else np.array([str(name) for name in field])
    order = np.argsort(names, kind="stable")
    items, first = np.unique(names[order], return_index=True)
    found = np.zeros((len(items), 2, channels), np.float32)
    for place, rows in enumerate(np.split(order, first[1:])):
        windows = [_plain(pasts[row]) for row in rows]
        later = [truths[row] for row in rows if isinstance(truths[row], np.ndarray)]
        alike = [each for each in (*windows, *later) if each.ndim == 2 and each.shape[1] == windows[0].shape[1]]
        gaps = [seasonal_differences(part[:, :channels], config.season) for part in locate(alike).parts]
        gaps_TC = np.concatenate(gaps)
        there_TC = np.isfinite(gaps_TC)
        count_C = np.maximum(there_TC.sum(0), 1)
        gaps_TC = np.where(there_TC, gaps_TC, 0.0)
        found[place] = np.stack([np.abs(gaps_TC).sum(0) / count_C, np.square(gaps_TC).sum(0) / count_C])
    return items.tolist(), found


def _plain(value: Any) -> np.ndarray:
    array = value if isinstance(value, np.ndarray) and value.dtype == np.float64 else np.asarray(value, np.float64)
    return array[:, None] if array.ndim == 1 else array
