"""What is checked: a recipe with its data, read and encoded, before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sonde.contracts.fingerprints import fingerprints
from sonde.contracts.task import Task
from sonde.data.load import Dataset
from sonde.data.store import Encoded
from sonde.recipe import Recipe

HELD_OUT = ("validation", "test")


@dataclass(frozen=True)
class Subject:
    """A recipe, its records, the fitted task and the encoded splits."""

    recipe: Recipe
    data: Dataset
    task: Task
    sets: dict[str, Encoded]

    @cached_property
    def inputs(self) -> dict[str, np.ndarray]:
        """The fingerprint of each example's inputs, by split."""
        return {split: fingerprints(each.examples.inputs) for split, each in self.sets.items()}

    @cached_property
    def truths(self) -> dict[str, np.ndarray]:
        """The fingerprint of each example's truth, by split; empty where the target makes its truth itself."""
        return {
            split: fingerprints({"target": each.examples.truth})
            for split, each in self.sets.items()
            if each.examples.truth
        }

    @property
    def held_out(self) -> dict[str, Encoded]:
        return {split: self.sets[split] for split in HELD_OUT if split in self.sets}

    @property
    def layouts(self) -> set[str]:
        return {spec.layout for spec in self.task.specs.values()}

    @cached_property
    def is_stream(self) -> bool:
        """Whether examples are windows of a stream, which overlap by design."""
        return any(len(self.sets[split].ids) and self.sets[split].ids[0].startswith("window ") for split in self.sets)
