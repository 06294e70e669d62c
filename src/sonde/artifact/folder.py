"""The artifact's folder: task, weights and card, without code and without pickle; every file's hash is verified."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from sonde.base import files, tensors
from sonde.base.config import Config
from sonde.base.errors import UserError
from sonde.contracts.part import Part
from sonde.contracts.task import Task
from sonde.evaluation.trust import Trust

# 2: names of weights and settings changed.
FORMAT = 2
FILES = ("card.json", "task.json", "task.safetensors", "weights.safetensors")


def write(
    folder: Path,
    task: Task,
    network: Mapping[str, Config] | Config | None,
    weights: Mapping[str, Tensor],
    card: Mapping[str, Any],
    trust: Trust | None = None,
) -> None:
    """Write an artifact folder, whole or not at all.

    `network` holds the settings of each backbone, or those of a classical model; None for someone's own module.
    `trust` is what its answers are doubted by, where a validation split told.
    """
    described, fitted = {}, {}
    parts: dict[str, Part] = {**{f"inputs.{key}": value for key, value in task.inputs.items()}, "target": task.target}
    if trust is not None:
        parts["trust"] = trust
    for name, part in parts.items():
        values, held = part.save()
        described[name] = {"config": part.config.model_dump(mode="json"), "fitted": values}
        fitted |= {f"{name}.{key}": value.contiguous() for key, value in held.items()}
    backbones: dict[str, Any] | None = None
    if isinstance(network, Config):
        backbones = network.model_dump(mode="json")
    elif network is not None:
        backbones = {name: each.model_dump(mode="json") for name, each in network.items()}
    with files.folder(folder) as new:
        files.write_json(new / "card.json", dict(card))
        files.write_json(new / "task.json", {"format": FORMAT, "parts": described, "network": backbones})
        files.write_bytes(new / "task.safetensors", save(fitted))
        files.write_bytes(new / "weights.safetensors", save(tensors.unshared(weights)))
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
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{folder} is not a sonde artifact: MANIFEST.json cannot be read ({error})",
            expected="the folder `model` of a run",
        ) from error
    if missing or changed:
        what = [f"{name} is missing" for name in missing] + [f"{name} differs from its hash" for name in changed]
        raise UserError(f"the artifact {folder} is damaged: {', '.join(what)}", hint="restore it from a copy")
