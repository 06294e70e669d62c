"""The base of every settings class: frozen, and strict about names."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Settings of one component. Unknown names are errors; a value is never changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def kind_of(config: BaseModel) -> str:
    """The name of the kind that these settings belong to."""
    return str(dict(config)["kind"])
