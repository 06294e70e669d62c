"""A trained model in memory, from its artifact, and its answers."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from pydantic import ValidationError
from torch import nn

from sonde.artifact import given
from sonde.artifact.folder import verify
from sonde.artifact.restore import read_card, read_network, read_task, reading
from sonde.base import files
from sonde.base.config import Config, kind_of
from sonde.base.device import choose_device, out_of_memory
from sonde.base.errors import RecordError, UserError, unknown
from sonde.contracts.batch import Examples
from sonde.contracts.records import Record, Records
from sonde.contracts.target import Prediction
from sonde.contracts.task import Task
from sonde.evaluation.observe import observe
from sonde.evaluation.trust import Trust

Settings = TypeVar("Settings", bound=Config)


class Doubts(NamedTuple):
    """What is laid beside answers: regions of this coverage, and whether a record is familiar."""

    coverage: float | None
    familiar: bool

    def __bool__(self) -> bool:
        return self.coverage is not None or self.familiar


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained artifact in memory. `card` says what it is and how good; `trust` holds what its answers are doubted by,
    where a validation split told that."""

    task: Task
    network: nn.Module
    card: dict[str, Any]
    device: torch.device
    trust: Trust | None = None

    def predict(
        self, inputs: Any, *, size: int = 64, coverage: float | None = None, familiar: bool = False
    ) -> list[Prediction]:
        """The answers, one for each input in order. A bad input raises; see `answers` for one error each.

        `inputs` is a polars or pandas data frame with a record a row, or any number of inputs, of one kind or mixed: a
        mapping of fields, the one field's value (a path for files, a text, an array, bytes), or the values of all
        columns of a table in their order. A mapping, a path or a text that comes alone is one input.

        With a `coverage` (the recipe's `decision.coverage`, if left out) an answer has the "set" of classes, or "low"
        and "high", that holds the truth so often. `familiar` adds whether the record is like those of training
        ("familiar"), and the share of validation records that are less strange ("unfamiliarity").

        Raises:
            RecordError: an input cannot be read. UserError: it is not what the model answers for, or the model cannot
                tell what is asked.
        """
        return _sound(self.answers(inputs, size=size, coverage=coverage, familiar=familiar))

    def make(self, count: int, given: Record | None = None, *, first: int = 0, size: int = 64) -> list[Prediction]:
        """So many answers of a model that makes something (pictures out of noise), for the fields `given`; without
        them for what training had, drawn at random and told with each answer.

        They are numbered from `first` on: the same number and the same seed (`with_settings`) give the same answer,
        alone or in company.

        Raises:
            UserError: this model makes nothing, or nothing is asked for. RecordError: what is given cannot be read.
        """
        target = self.task.target
        if not target.makes:
            raise UserError(
                f"a model of target {kind_of(target.config)!r} makes nothing by itself", hint="give it inputs"
            )
        if count < 1 or first < 0:
            what = f"{count} answers" if count < 1 else f"answers from number {first} on"
            raise UserError(f"{what} cannot be made", expected="a count of 1 or more, numbers from 0 on")
        numbers = range(first, first + count)
        records = [given] * count if given is not None else target.prompts(numbers)
        answers = _sound(self.answers(records, size=size, first=first))
        told = records if given is None else [{} for _ in numbers]
        return [
            {"number": number, **record, **answer}
            for number, record, answer in zip(numbers, told, answers, strict=True)
        ]

    def with_settings(self, changes: Mapping[str, Any]) -> Model:
        """The same model with other settings of how it makes answers (`target.generate`): guidance, steps, seed.

        Raises:
            UserError: there is no such setting, or it has no such value.
        """
        target = self.task.target
        before = dict(target.config).get("generate")
        if not isinstance(before, Config):
            raise UserError(
                f"target {kind_of(target.config)!r} has no settings of how answers are made", hint="leave out --set"
            )
        for name in changes:
            if name not in type(before).model_fields:
                raise unknown(name, type(before).model_fields, what="the setting")
        try:
            generate = type(before).model_validate({**before.model_dump(), **changes})
            config = type(target.config).model_validate({**target.config.model_dump(), "generate": generate})
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"])) or "the settings"
            raise UserError(
                f"{name} cannot be {first['input']!r}: {first['msg'].removeprefix('Value error, ')}"
                if first["loc"]
                else first["msg"].removeprefix("Value error, ")
            ) from None
        changed = dataclasses.replace(target, config=config)  # type: ignore[type-var]
        return dataclasses.replace(self, task=Task(inputs=self.task.inputs, target=changed))

    def data_settings(self, kind: str, settings: type[Settings]) -> Settings | None:
        """How the training data were read, if by a source of this kind: by the recipe that the artifact carries.

        Raises:
            UserError: the recipe holds other settings than such a source has.
        """
        data = tomllib.loads(self.card.get("recipe", "")).get("data", {})
        if data.get("kind") != kind:
            return None
        with reading(Path("card.json"), "recipe"):
            return settings(**{name: value for name, value in data.items() if name in settings.model_fields})

    def answers(
        self, inputs: Any, *, size: int = 64, first: int = 0, coverage: float | None = None, familiar: bool = False
    ) -> Iterator[Prediction | RecordError]:
        """Answers as they come, see `predict`; an input that cannot be read gives its error in its place.

        The inputs are numbered from `first` on, for answers that are drawn at random.
        """
        doubts = self._doubts(coverage, familiar)
        for records in given.records_in(inputs, self.task.for_answers.inputs, size):
            yield from self._batch(records, first, doubts)
            first += len(records)

    def _doubts(self, coverage: float | None, familiar: bool) -> Doubts:
        """What is laid beside answers.

        Raises:
            UserError: the artifact cannot tell.
        """
        trust = self.trust
        if coverage is not None:
            if not 0 < coverage < 1:
                raise UserError(f"the coverage {coverage:g} is no share", expected="a number between 0 and 1: 0.9")
            if trust is None or not trust.has_regions:
                raise UserError(
                    "this model has no sets or intervals of a stated coverage",
                    expected="a model of a category or of numbers that was fitted with a validation split",
                    hint="set data.split.validation and fit again",
                )
        elif trust is not None and trust.has_regions:
            coverage = trust.config.coverage
        if familiar and (trust is None or trust.measure is None):
            raise UserError(
                "this model cannot tell what is familiar",
                expected="a network that was fitted with a validation split, and decision.familiar other than off",
                hint="set data.split.validation and fit again",
            )
        return Doubts(coverage=coverage, familiar=familiar)

    def _batch(self, records: Records, first: int, doubts: Doubts) -> list[Prediction | RecordError]:
        """The answers for these rows at once or, where memory does not allow it, for one half after the other."""
        try:
            return self._answer(records, first, doubts)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            if len(records) == 1:
                raise UserError("memory ran out over one input alone", hint="use a machine with more memory") from error
        half = len(records) // 2
        return [
            *self._batch(records.part(0, half), first, doubts),
            *self._batch(records.part(half, len(records)), first + half, doubts),
        ]

    def _answer(self, records: Records, first: int, doubts: Doubts) -> list[Prediction | RecordError]:
        task = self.task.for_answers
        columns, good, errors = task.encode_inputs(records)
        answers: dict[int, Prediction] = {}
        if good:
            examples = Examples(inputs=columns, truth={}, count=len(good))
            batch = task.collate(examples, first + torch.tensor(good)).to(self.device)
            with torch.inference_mode():
                readable = records.take(np.array(good))
                ready = task.preprocess(batch)
                predictions = self.task.predict(self.network.eval(), ready, readable)
                if self.trust is not None and doubts:
                    beside = self.trust.beside(
                        task.target,
                        observe(task, self.network, ready),
                        readable,
                        coverage=doubts.coverage,
                        told_familiar=doubts.familiar,
                    )
                    predictions = [{**answer, **more} for answer, more in zip(predictions, beside, strict=True)]
            answers = dict(zip(good, predictions, strict=True))
            errors |= {index: _not_finite() for index, answer in answers.items() if not _is_finite(answer)}
        return [errors[index] if index in errors else answers[index] for index in range(len(records))]


def _sound(answers: Iterator[Prediction | RecordError]) -> list[Prediction]:
    """All answers; the first error of an input is raised."""
    found: list[Prediction] = []
    for answer in answers:
        if isinstance(answer, RecordError):
            raise answer
        found.append(answer)
    return found


def _is_finite(answer: Any) -> bool:
    """Whether all numbers of an answer are numbers."""
    if isinstance(answer, float):
        return math.isfinite(answer)
    if isinstance(answer, Mapping):
        return all(map(_is_finite, answer.values()))
    if isinstance(answer, np.ndarray):
        return bool(np.isfinite(answer).all())
    return all(map(_is_finite, answer)) if isinstance(answer, list) else True


def _not_finite() -> RecordError:
    return RecordError(
        "the answer is NaN or infinite",
        expected="finite numbers",
        hint="the input has numbers far from those of the training split, or the weights are damaged",
    )


def load(path: str | Path, *, network: nn.Module | None = None) -> Model:
    """A model from an artifact folder (or a run folder, whose `model` it is), after verifying every hash.

    `network` is needed only for an artifact of someone's own `nn.Module`, which holds weights but no code.

    Raises:
        UserError: it is no artifact, is damaged, or holds what sonde does not write; the network's weights are others.
    """
    folder, within = files.current_folder(Path(path)), files.current_folder(Path(path) / "model")
    if (within / "MANIFEST.json").is_file():
        folder = within
    verify(folder)
    task, backbones, trust = read_task(folder)
    whole = read_network(folder, task, backbones, network)
    device = choose_device()
    return Model(task=task, network=whole.to(device).eval(), card=read_card(folder), device=device, trust=trust)
