"""Where a backbone's first weights come from, for every kind alike."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sonde.base import weight_files
from sonde.base.errors import UserError
from sonde.contracts.backbone import Backbone, BackboneConfig

# Settings that say where first weights come from: of no use where trained ones will be put in.
FIRST_WEIGHTS = ("pretrained", "weights")


def without(config: BackboneConfig) -> BackboneConfig:
    """The settings of a backbone that trained weights are put into."""
    fields = type(config).model_fields
    return config.model_copy(update={name: fields[name].default for name in FIRST_WEIGHTS if name in fields})


def start(backbone: Backbone, config: BackboneConfig, *, restoring: bool) -> None:
    """Load the weights that a recipe names, unless the kind does so itself when it is made."""
    if restoring or config.weights is None or backbone.loads_itself:
        return
    backbone.load_weights(read(config.weights))


def read(setting: str) -> dict[str, Tensor]:
    """The weights of a backbone in a .safetensors file, or in the artifact of a run.

    Raises:
        UserError: there is no such file, it cannot be read, or the artifact has several backbones.
    """
    path = weight_files.locate(setting)
    for inner in (path / "model" / "weights.safetensors", path / "weights.safetensors"):
        if inner.is_file():
            return _only_backbone(load(inner), path)
    if not path.is_file():
        raise UserError(
            f"network.weights: there is no file {path}", expected="a .safetensors file, an artifact or a run"
        )
    return load(path)


def load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"the weights in {path} cannot be read: {error}", expected="a .safetensors file") from error


def _only_backbone(weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    names = {name.split(".")[1] for name in weights if name.startswith("backbones.")}
    if len(names) != 1:
        raise UserError(
            f"network.weights: the artifact {path} has {len(names)} backbones",
            expected="an artifact of a task with one input",
        )
    prefix = f"backbones.{names.pop()}."
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
