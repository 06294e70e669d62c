"""A trained model in memory, from its artifact, and its answers."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sonde import networks
from sonde.artifact import given
from sonde.artifact.folder import FORMAT, verify
from sonde.base import files, lookup
from sonde.base.device import choose_device
from sonde.base.errors import RecordError, UserError
from sonde.contracts.backbone import Backbone, BackboneConfig
from sonde.contracts.batch import Examples
from sonde.contracts.input import Input
from sonde.contracts.part import Part
from sonde.contracts.records import Records
from sonde.contracts.target import Prediction, Target
from sonde.contracts.task import Task

Contract = TypeVar("Contract")


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained artifact in memory. `card` says what it is and how good."""

    task: Task
    network: nn.Module
    card: dict[str, Any]
    device: torch.device

    def predict(self, inputs: Any, *, size: int = 64) -> list[Prediction]:
        """The answers, one for each input in order. A bad input raises; see `answers` for one error each.

        `inputs` is a polars or pandas data frame with a record a row, or any number of inputs, of one kind or mixed: a
        mapping of fields, the one field's value (a path for files, a text, an array, bytes), or the values of all
        columns of a table in their order. A mapping, a path or a text that comes alone is one input.

        Raises:
            RecordError: an input cannot be read. UserError: it is not what the model answers for.
        """
        found: list[Prediction] = []
        for answer in self.answers(inputs, size=size):
            if isinstance(answer, RecordError):
                raise answer
            found.append(answer)
        return found

    def answers(self, inputs: Any, *, size: int = 64) -> Iterator[Prediction | RecordError]:
        """Answers as they come; an input that cannot be read gives its error in its place."""
        for records in given.records_in(inputs, self.task.inputs, size):
            yield from self._batch(records)

    def _batch(self, records: Records) -> list[Prediction | RecordError]:
        columns, good, errors = self.task.encode_inputs(records)
        answers: dict[int, Prediction] = {}
        if good:
            examples = Examples(inputs=columns, truth={}, count=len(good))
            batch = self.task.collate(examples, torch.arange(len(good))).to(self.device)
            with torch.inference_mode():
                readable = records.take(np.array(good))
                predictions = self.task.predict(self.network.eval(), self.task.preprocess(batch), readable)
            answers = dict(zip(good, predictions, strict=True))
        return [errors[index] if index in errors else answers[index] for index in range(len(records))]


def load(path: str | Path, *, network: nn.Module | None = None) -> Model:
    """A model from an artifact folder (or a run folder, whose `model` it is), after verifying every hash.

    `network` is needed only for an artifact of someone's own `nn.Module`, which holds weights but no code.
    """
    folder, within = files.current_folder(Path(path)), files.current_folder(Path(path) / "model")
    if (within / "MANIFEST.json").is_file():
        folder = within
    verify(folder)
    described = files.read_json(folder / "task.json")
    if described["format"] != FORMAT:
        raise UserError(
            f"the artifact {folder} has format {described['format']}",
            expected=f"format {FORMAT}",
            hint="use the version of sonde that wrote it (card.json names it)",
        )
    tensors = load_file(folder / "task.safetensors")
    parts = {name: _restore(name, saved, tensors) for name, saved in described["parts"].items()}
    inputs = {name.removeprefix("inputs."): part for name, part in parts.items() if isinstance(part, Input)}
    target = parts["target"]
    assert isinstance(target, Target)
    task = Task(inputs=inputs, target=target)
    whole = _network(folder, task, described["network"], network)
    whole.load_state_dict(load_file(folder / "weights.safetensors"))
    device = choose_device()
    return Model(task=task, network=whole.to(device).eval(), card=files.read_json(folder / "card.json"), device=device)


def _restore(name: str, saved: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Part:
    room, contract = ("targets", Target) if name == "target" else ("inputs", Input)
    kind = _kind(room, saved["config"]["kind"], contract)
    held = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
    return kind.restore(kind.Config.model_validate(saved["config"]), saved["fitted"], held)


def _network(folder: Path, task: Task, backbones: Mapping[str, Any] | None, own: nn.Module | None) -> nn.Module:
    if backbones is None:
        if own is None:
            raise UserError(
                f"the artifact {folder} holds the weights of a network that is not sonde's own",
                hint="sonde.load(path, network=the_module)",
            )
        return networks.wrap(own, task)
    configs: dict[str, BackboneConfig] = {
        name: _kind("networks", saved["kind"], Backbone).Config.model_validate(saved)
        for name, saved in backbones.items()
    }
    return networks.build(configs, task, restoring=True)


def _kind(room: str, kind: str, contract: type[Contract]) -> type[Contract]:
    """A kind that an artifact names. One that is not sonde's must be imported already: an artifact runs no code."""
    if "." in kind and kind not in sys.modules:
        raise UserError(
            f"the artifact needs the kind {kind!r}, which is not part of sonde",
            expected="a module that you have imported yourself",
            hint=f"import {kind} before loading, if you trust it",
        )
    return lookup.find(room, kind, contract)
