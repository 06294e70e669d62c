"""The contract of a source: it reads a data set in a format people already have, and yields records.

Sources are plain files under `sonde/data/sources/`; none edits another. They import neither torch nor any input.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from sonde.base.config import Config
from sonde.contracts.records import Records


@dataclass(frozen=True, kw_only=True)
class Guess:
    """What a source makes of a path, for `sonde new`: the task that the layout suggests.

    Every table is a section of the recipe as TOML would hold it. `about` says in one line what was found ("1,500
    photos in 5 class folders"), `count` is the number of records, `notes` maps a dotted setting ("target.kind") to a
    comment that explains the choice, `read_as` says which texts are read as numbers, `warnings` are things a person
    should look at before training.
    """

    about: str
    count: int
    data: Mapping[str, Any]
    inputs: Mapping[str, Mapping[str, Any]]
    target: Mapping[str, Any]
    notes: Mapping[str, str] = field(default_factory=dict)
    read_as: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Source(abc.ABC):
    """Reads one format. A kind is one module with one final subclass and its `Config` (the options of `[data]`)."""

    Config: ClassVar[type[Config]]
    # Whether what it recognises is written in a form that has one meaning only: such sources are asked before those
    # that a folder of other things may look like.
    distinct: ClassVar[bool] = False
    # Whether its records overlap (windows of series), so that only the split that it gives itself keeps them apart.
    splits_itself: ClassVar[bool] = False

    @staticmethod
    @abc.abstractmethod
    def recognise(path: Path) -> bool:
        """Whether this path looks like this format. Cheap: it lists folders and reads a few first bytes, no more."""

    @staticmethod
    @abc.abstractmethod
    def guess(path: Path, target: str | None) -> Guess:
        """The task that this data set suggests; `target` names the field to learn, where the user said so.

        Raises:
            UserError: the data set is broken, or the named field does not exist.
        """

    @staticmethod
    @abc.abstractmethod
    def read(path: Path, config: Any) -> Records:
        """Every record, in an order that depends on the data alone (sorted paths, rows as they stand).

        Files are `pathlib.Path` values, not opened. A split that the layout itself gives (train/ and test/ folders) is
        a field named "split" with the values "train", "validation" and "test".

        Raises:
            UserError: nothing is there, or it is not in this format; names the file and the line where there is one.
        """

    @staticmethod
    def inputs(path: Path, config: Any, fields: Sequence[str]) -> Records | None:
        """The records to answer for in a file that is like those of the data set, but need not hold the truth; None
        where it is none such. `fields` are what the inputs of the model read."""
        return None

    @staticmethod
    @abc.abstractmethod
    def sample(folder: Path) -> Path:
        """Write a tiny data set of this format into an empty folder; give the path to read. For the conformance kit."""
