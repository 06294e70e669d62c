"""How long, in what batches and by what split to train on so many records: what `sonde new` makes of the advice."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sonde.contracts.records import Records
from sonde.data.split import part_of

# A batch is at most this share of the training split, but never smaller than LEAST: else an epoch is one step or two.
PORTION, LEAST = 1 / 4, 8
# A validation split of fewer records cannot choose a checkpoint: the standard error of an accuracy of 0.8 among 50 is
# 0.057, more than what checkpoints differ by.
TOO_FEW = 50


def count_training(records: Records, split: Mapping[str, Any]) -> int:
    """How many records the training split will have, about."""
    shares = {name: float(split.get(name, 0.1)) for name in ("validation", "test")}
    if split.get("by") != "given":
        return max(1, round(len(records) * (1 - sum(shares.values()))))
    held = _given(records, split)
    train = held["train"]
    # What the data does not hold out itself is taken from the training records.
    return max(1, round(train * (1 - sum(share for name, share in shares.items() if not held[name]))))


def _given(records: Records, split: Mapping[str, Any]) -> dict[str, int]:
    values = records.fields.get(str(split.get("field", "split")), np.empty(0, dtype=object))
    parts = [part_of(value) for value in values]
    return {name: parts.count(name) for name in ("train", "validation", "test")}


def work(training: Mapping[str, Any], count: int, min_steps: int, *, keep_batch: bool = False) -> dict[str, Any]:
    """The `[training]` section for `count` training records: batches that leave several steps to an epoch, and epochs
    enough for `min_steps` steps. Advice in `steps` stays as it is."""
    changed = dict(training)
    if "epochs" not in changed:
        return changed
    batch = int(changed.get("batch_size", 64))
    if not keep_batch:
        batch = min(batch, max(LEAST, 2 ** int(math.log2(max(1.0, PORTION * count)))))
        changed["batch_size"] = batch
    per_epoch = max(1, count // min(batch, count))
    changed["epochs"] = max(changed["epochs"], math.ceil(min_steps / per_epoch))
    return changed


def checkpoint(records: Records, data: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
    """Changes of `[data]` and `[training]` where the validation split is too small to choose a checkpoint by, and why.

    The last weights are kept then; where the split is drawn, what would validate trains instead.
    """
    split = dict(data.get("split", {}))
    share = float(split.get("validation", 0.1))
    if not share:
        return {}, {}, ()
    given = split.get("by") == "given"
    held = _given(records, split) if given else {"validation": 0, "train": len(records)}
    count = held["validation"] or round(held["train"] * share)
    if count >= TOO_FEW:
        return {}, {}, ()
    what = f"a validation split of {count:,} records is too small to choose weights by: the last ones are kept"
    if held["validation"]:
        return {}, {"checkpoint": "last"}, (what,)
    return {"split": {**split, "validation": 0.0}}, {"checkpoint": "last"}, (f"{what}, and those records train",)
