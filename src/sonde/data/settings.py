"""The `[data]` section: what every source has in common. Options of one source are in its own `Config`."""

from __future__ import annotations

from pydantic import Field

from sonde.base.config import Config
from sonde.data.split import Split

# The field that a split by scaffold adds to the records.
SCAFFOLD = "scaffold"


class DataConfig(Config):
    source: str = Field(description="a folder or a file, relative to this recipe; or a built-in such as sklearn:digits")
    kind: str | None = Field(default=None, description="how to read it: see `sonde kinds`; recognised if left out")
    split: Split = Field(default=Split(by="random"), description="which records train, validate and test")
    weight: str | None = Field(default=None, description="a column that says how much each record counts")
    group: str | None = Field(
        default=None,
        description="a column whose records hang together (a speaker, a patient): scores' intervals resample whole "
        "groups; data.split.field if left out and split.by is group",
    )
    id: str | None = Field(
        default=None,
        description="a column that names the records: answers of `sonde predict` carry it, nothing learns it",
    )
    max_unreadable: float = Field(
        default=0.01, ge=0, le=1, description="share of records that may be unreadable and are then skipped"
    )
    drop_unlabelled: bool = Field(
        default=False, description="leave out records whose target is missing, instead of stopping at the first"
    )
    memory: float = Field(
        default=4.0, gt=0, description="GiB that encoded examples may take; more goes to a mapped file"
    )

    @property
    def group_field(self) -> str | None:
        """The column that says which records hang together, where the recipe knows one."""
        own = {"group": self.split.field, "scaffold": SCAFFOLD}
        return self.group or own.get(self.split.by)
