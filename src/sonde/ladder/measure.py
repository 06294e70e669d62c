"""What a finished rung is like: its scores, size and speed, all of its artifact, as it would be shipped."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sonde import evaluation
from sonde.artifact import Model, load
from sonde.base import files
from sonde.base.device import Precision
from sonde.base.errors import SondeError
from sonde.contracts.part import Part
from sonde.contracts.records import Records
from sonde.data.load import Dataset
from sonde.data.store import Encoded, encode
from sonde.evaluation.paired import Drawn, draw
from sonde.recipe import Recipe

# Records answered for one at a time, and how many of them come before the clock is looked at.
TIMED, WARM = 30, 3


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An artifact's scores (split -> metric -> score), its draws of the metric that decides, by split, its bytes, and
    the seconds that one record takes."""

    scores: dict[str, dict[str, evaluation.Score]]
    drawn: dict[str, Drawn]
    num_bytes: int
    latency: float


class Scorer:
    """Measures artifacts on one data set; splits are encoded once for all artifacts that encode alike."""

    def __init__(self, recipe: Recipe, data: Dataset, metric: str, cache: Path) -> None:
        self._recipe, self._data, self._metric, self._cache = recipe, data, metric, cache
        self._encoded: dict[str, Encoded] = {}
        self._ids: dict[str, list[str]] = {}

    def measure(self, run: Path) -> Measured:
        """Of a finished run.

        Raises:
            SondeError: the records that it could be scored on are not those of the rungs before.
        """
        model = load(run)
        drawn = {split: self._draw(model, split) for split in ("validation", "test") if split in self._data.splits}
        scores = {
            split: {name: evaluation.Score(**score) for name, score in found.items()}
            for split, found in files.read_json(run / "scores.json").items()
        }
        size = sum(file.stat().st_size for file in (run / "model").iterdir())
        return Measured(scores=scores, drawn=drawn, num_bytes=size, latency=latency(model, self._data))

    def _draw(self, model: Model, split: str) -> Drawn:
        held_out = self._encode(model, split)
        before = self._ids.setdefault(split, held_out.ids)
        if before != held_out.ids:
            raise SondeError(f"rungs cannot be compared: they read other records of the {split} split")
        columns = evaluation.eval_outputs(
            model.task, model.network, held_out.examples, precision=Precision(kind="fp32", device=model.device)
        )
        return draw(
            model.task,
            columns,
            self._metric,
            seed=self._recipe.training.seed,
            weight=held_out.weight,
            groups=held_out.groups,
        )

    def _encode(self, model: Model, split: str) -> Encoded:
        alike = repr([split, *map(_described, [*model.task.inputs.values(), model.task.target])])
        if alike not in self._encoded:
            data = self._recipe.data
            self._encoded[alike] = encode(
                model.task,
                self._data.splits[split],
                weight=data.weight,
                group=data.group_field,
                memory=data.memory * 2**30,
                cache=self._cache / split / str(len(self._encoded)),
            )
        return self._encoded[alike]


def _described(part: Part) -> object:
    """All that a part's encoding depends on."""
    values, tensors = part.save()
    hashes = {name: hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest() for name, value in tensors.items()}
    return part.config, values, hashes


def latency(model: Model, data: Dataset) -> float:
    """Seconds for one record alone, from the record to the answer: the median over a few of the held-out ones."""
    split = "test" if "test" in data.splits else "validation"
    records = _asked(data.splits[split], model)
    times = []
    for index in range(WARM + TIMED):
        record = records[index % len(records)]
        started = time.perf_counter()
        # An unreadable record gives its error in place of an answer, as quickly.
        list(model.answers([record]))
        times.append(time.perf_counter() - started)
    return statistics.median(times[WARM:])


def _asked(records: Records, model: Model) -> Records:
    """The records without what is asked."""
    fields: Mapping[str, object] = {
        name: None for part in model.task.inputs.values() for name in part.fields(part.config)
    }
    return Records(fields={name: records.fields[name] for name in fields}, ids=records.ids)
