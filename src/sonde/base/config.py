"""The base of every settings class: frozen, and strict about names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo


class Config(BaseModel):
    """Settings of one component. Unknown names are errors; a value is never changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    # Settings that had another name: the error for the old one tells the new one.
    renamed: ClassVar[Mapping[str, str]] = {}


# What stands for a file that an installed package brings (see `sonde.base.weight_files`), and for one that comes with
# the network: no paths.
PACKAGE = "package:"
FROM_NETWORK = "from the network"


def _located(path: str, info: ValidationInfo) -> str:
    base = (info.context or {}).get("base")
    return (
        path
        if base is None or path.startswith(PACKAGE) or path == FROM_NETWORK
        else str((base / Path(path).expanduser()).resolve())
    )


# The path of a file in a setting: as a recipe is read, a relative one starts at the recipe's folder.
FilePath = Annotated[str, AfterValidator(_located)]


def kind_of(config: BaseModel) -> str:
    """The name of the kind that these settings belong to."""
    return str(dict(config)["kind"])
