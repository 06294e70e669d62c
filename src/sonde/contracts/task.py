"""A task: fitted inputs and a fitted target, everything between a record and a network.

`encode` and `collate` are the only way from a record to tensors: training, evaluation, prediction and serving all
take it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from sonde.base.errors import RecordError
from sonde.base.rng import BatchRng
from sonde.contracts.batch import Batch, Examples
from sonde.contracts.columns import Columns, take
from sonde.contracts.input import Input
from sonde.contracts.records import Records
from sonde.contracts.specs import InputSpec, OutputSpec
from sonde.contracts.target import Prediction, Target

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Task:
    """A choice of inputs and one target, fitted on the training split."""

    inputs: dict[str, Input]
    target: Target

    @property
    def for_answers(self) -> Task:
        """The task with the inputs that answers are made from: without what is itself made (`Target.makes`)."""
        made = self.target.makes
        return Task(inputs={name: part for name, part in self.inputs.items() if name not in made}, target=self.target)

    @property
    def specs(self) -> dict[str, InputSpec]:
        """What each input offers."""
        return {name: part.spec for name, part in self.inputs.items()}

    @property
    def outputs(self) -> dict[str, OutputSpec]:
        """What the target asks of each input's backbone, as far as the input can be answered for so."""
        asked = self.target.outputs(self.specs)
        able = {name: tuple(per for per in asked[name].per if per in part.gives) for name, part in self.inputs.items()}
        return {name: replace(output, per=able.get(name) or output.per) for name, output in asked.items()}

    def encode_inputs(self, records: Records) -> tuple[dict[str, Columns], list[int], dict[int, RecordError]]:
        """The encoded inputs of the records that all inputs can read, the positions of these, and all other errors."""
        encoded = {name: part.encode_many(records) for name, part in self.inputs.items()}
        errors = {index: error for _, bad in encoded.values() for index, error in bad.items()}
        good = [index for index in range(len(records)) if index not in errors]
        columns = {name: _without(column, bad, good, len(records)) for name, (column, bad) in encoded.items()}
        return columns, good, errors

    def collate(self, examples: Examples, records_B: Tensor) -> Batch:
        """A batch of all of these examples."""
        return Batch(
            inputs={name: part.collate(examples.inputs[name]) for name, part in self.inputs.items()},
            truth=self.target.collate(examples.truth) if examples.truth else {},
            records_B=records_B,
            examples=examples,
            weight_B=examples.weight,
        )

    def split(self, batch: Batch, size: int) -> list[Batch]:
        """Micro-batches of at most `size` examples, collated anew: as if there had never been the whole."""
        if size >= len(batch):
            return [batch]
        device = batch.records_B.device
        parts = []
        for start in range(0, len(batch), size):
            chosen = torch.arange(start, min(start + size, len(batch)))
            records = batch.records_B[start : start + size]
            parts.append(self.collate(batch.examples.take(chosen), records).to(device))
        return parts

    def augment(self, batch: Batch, rng: BatchRng) -> Batch:
        """The batch as augmentation changed it, its truth too; in training only, before `preprocess`."""
        inputs, truth = dict(batch.inputs), batch.truth
        for name, part in self.inputs.items():
            focus = self.target.focus(batch.truth, rng)
            tensors = batch.inputs[name] if focus is None else {**batch.inputs[name], "focus": focus}
            inputs[name], params = part.augment(tensors, rng)
            truth = self.target.apply_augment(truth, params)
        return Batch(
            inputs=inputs,
            truth=truth,
            records_B=batch.records_B,
            examples=batch.examples,
            weight_B=batch.weight_B,
        )

    def without_augmentation(self) -> Task:
        """The same task, its training batches left as they are."""
        inputs: dict[str, Input] = {}
        for name, part in self.inputs.items():
            changes = {"augment": type(part.config.augment)()} if "augment" in type(part.config).model_fields else {}
            inputs[name] = type(part).restore(part.config.model_copy(update=changes), *part.save())
        return Task(inputs=inputs, target=self.target)

    def preprocess(self, batch: Batch) -> Batch:
        """The batch as a network takes it."""
        return batch.with_inputs(**{name: part.preprocess(batch.inputs[name]) for name, part in self.inputs.items()})

    def predict(self, network: nn.Module, batch: Batch, records: Records | None = None) -> list[Prediction]:
        """The answers for a preprocessed batch, with what the inputs say of themselves (`Input.annotate`).

        `records` are what it was made from, for answers that quote them.
        """
        answers = self.target.decode(self.target.predict(network, batch), self.inputs, records)
        # What is itself made is not in the batch.
        said = {name: self.inputs[name].annotate(tensors) for name, tensors in batch.inputs.items()}
        said = {name: each for name, each in said.items() if each}
        for name, each in said.items():
            # Several inputs may say the same sort of thing: then each says it under its name.
            answers = [
                answer | (more if len(said) == 1 else {name: more}) for answer, more in zip(answers, each, strict=True)
            ]
        return answers


def _without(columns: Columns, bad: Mapping[int, RecordError], good: list[int], count: int) -> Columns:
    """Columns of the readable records of one input, cut down to those that all inputs can read."""
    if count - len(bad) == len(good):
        return columns
    place = {index: number for number, index in enumerate(index for index in range(count) if index not in bad)}
    return take(columns, torch.tensor([place[index] for index in good], dtype=torch.int64))
