"""The artifact: task, weights and card in a folder, without code and without pickle; every file's hash is verified."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from sonde import networks
from sonde.base import files, lookup
from sonde.base.config import Config
from sonde.base.device import choose_device
from sonde.base.errors import RecordError, UserError
from sonde.columns import take
from sonde.records import Record, Records
from sonde.task import Body, Input, Part, Prediction, Target, Task

FORMAT = 1
FILES = ("card.json", "task.json", "task.safetensors", "weights.safetensors")


def write(
    folder: Path,
    task: Task,
    network: Mapping[str, Config] | None,
    weights: Mapping[str, Tensor],
    card: Mapping[str, Any],
) -> None:
    """Write an artifact folder, whole or not at all. `network` holds the settings of each body; None: someone's own."""
    described, tensors = {}, {}
    for name, part in {**{f"inputs.{key}": value for key, value in task.inputs.items()}, "target": task.target}.items():
        values, held = part.save()
        described[name] = {"config": part.config.model_dump(mode="json"), "fitted": values}
        tensors |= {f"{name}.{key}": value.contiguous() for key, value in held.items()}
    bodies = None if network is None else {name: each.model_dump(mode="json") for name, each in network.items()}
    with files.folder(folder) as new:
        files.write_json(new / "card.json", dict(card))
        files.write_json(new / "task.json", {"format": FORMAT, "parts": described, "network": bodies})
        files.write_bytes(new / "task.safetensors", save(tensors))
        held = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
        files.write_bytes(new / "weights.safetensors", save(held))
        files.write_json(new / "MANIFEST.json", {name: files.sha256(new / name) for name in FILES})


def verify(folder: Path) -> None:
    """Check that an artifact is whole and unchanged.

    Raises:
        UserError: it is not an artifact, or a file is missing or differs from the manifest.
    """
    if not folder.exists():
        raise UserError(
            f"the artifact {folder} does not exist", expected="the folder `model` of a run, or the run's own"
        )
    try:
        manifest = files.read_json(folder / "MANIFEST.json")
        if not isinstance(manifest, dict):
            raise ValueError("it is no list of hashes")
        missing = [name for name in FILES if not (folder / name).is_file()]
        changed = [name for name in FILES if name not in missing and manifest.get(name) != files.sha256(folder / name)]
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} is not a sonde artifact: MANIFEST.json cannot be read ({error})",
            expected="the folder `model` of a run",
        ) from error
    if missing or changed:
        what = [f"{name} is missing" for name in missing] + [f"{name} differs from its hash" for name in changed]
        raise UserError(f"the artifact {folder} is damaged: {', '.join(what)}", hint="restore it from a copy")


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained artifact in memory. `card` says what it is and how good."""

    task: Task
    network: nn.Module
    card: dict[str, Any]
    device: torch.device

    def predict(self, inputs: Iterable[Any], *, size: int = 64) -> list[Prediction]:
        """The answers, one for each input in order. A bad input raises; see `answers` for one error each.

        An input is a record (a mapping of fields) or the one field's value: a path for files, a text, an array.
        """
        found = list(self.answers(inputs, size=size))
        for answer in found:
            if isinstance(answer, RecordError):
                raise answer
        return found  # type: ignore[return-value]

    def answers(self, inputs: Iterable[Any], *, size: int = 64) -> Iterator[Prediction | RecordError]:
        """Answers as they come; an input that cannot be read gives its error in its place."""
        pending: list[Record] = []
        for value in inputs:
            pending.append(self._record(value))
            if len(pending) == size:
                yield from self._batch(pending)
                pending = []
        if pending:
            yield from self._batch(pending)

    def _record(self, value: Any) -> Record:
        if isinstance(value, Mapping):
            record = dict(value)
            for part in self.task.inputs.values():
                for name in part.fields(part.config) if part.reads_file else ():
                    if isinstance(record.get(name), str):
                        record[name] = Path(record[name])
            return record
        (first, *others) = self.task.inputs.values()
        fields = [name for part in (first, *others) for name in part.fields(part.config)]
        if others or not first.takes_file:
            raise UserError(f"{value!r} is one value alone", expected=f"a mapping with the fields {', '.join(fields)}")
        return {fields[0]: Path(value) if first.reads_file and isinstance(value, str) else value}

    def _batch(self, rows: Sequence[Record]) -> list[Prediction | RecordError]:
        records = Records.of(rows)
        encoded = {name: part.encode_many(records) for name, part in self.task.inputs.items()}
        errors = {index: error for _, bad in encoded.values() for index, error in bad.items()}
        good = [index for index in range(len(rows)) if index not in errors]
        answers: dict[int, Prediction] = {}
        if good:
            columns = {}
            for name, (column, bad) in encoded.items():
                readable = [index for index in range(len(rows)) if index not in bad]
                columns[name] = take(column, torch.tensor([readable.index(index) for index in good]))
            inputs = {
                name: {key: value.to(self.device) for key, value in tensors.items()}
                for name, tensors in self.task.collate_inputs(columns).items()
            }
            with torch.inference_mode():
                predictions = self.task.predict(self.network.eval(), inputs)
            answers = dict(zip(good, predictions, strict=True))
        return [errors[index] if index in errors else answers[index] for index in range(len(rows))]


def load(path: str | Path, *, network: nn.Module | None = None) -> Model:
    """A model from an artifact folder (or a run folder, whose `model` it is), after verifying every hash.

    `network` is needed only for an artifact of someone's own `nn.Module`, which holds weights but no code.
    """
    folder = Path(path)
    if (folder / "model" / "MANIFEST.json").is_file():
        folder = folder / "model"
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


def _network(folder: Path, task: Task, bodies: Mapping[str, Any] | None, own: nn.Module | None) -> nn.Module:
    if bodies is None:
        if own is None:
            raise UserError(
                f"the artifact {folder} holds the weights of a network that is not sonde's own",
                hint="sonde.load(path, network=the_module)",
            )
        return networks.wrap(own, task)
    configs = {name: _config("networks", saved, Body) for name, saved in bodies.items()}
    return networks.build(configs, task, restoring=True)


def _config(room: str, saved: Mapping[str, Any], contract: type[Any]) -> Config:
    return _kind(room, saved["kind"], contract).Config.model_validate(saved)


def _kind(room: str, kind: str, contract: type[Any]) -> type[Any]:
    """A kind that an artifact names. One that is not sonde's must be imported already: an artifact runs no code."""
    if "." in kind and kind not in sys.modules:
        raise UserError(
            f"the artifact needs the kind {kind!r}, which is not part of sonde",
            expected="a module that you have imported yourself",
            hint=f"import {kind} before loading, if you trust it",
        )
    return lookup.find(room, kind, contract)
