"""Small real data sets that scikit-learn carries: sklearn:digits, iris, wine, breast_cancer and diabetes."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from sonde.base.config import Config
from sonde.base.errors import UserError, unknown
from sonde.contracts.records import Records
from sonde.data.source import Guess, Source
from sonde.data.sources import _folders, _roles

_PREFIX = "sklearn:"
# Grey values of the digits go from 0 to here.
_INK = 16


class BuiltinConfig(Config):
    kind: Literal["builtin"] = "builtin"


class Builtin(Source):
    """Digits: "image" (N, 8, 8) uint8 and "label". The others: a field per column, and "label" or "target"."""

    Config: ClassVar = BuiltinConfig

    @staticmethod
    def recognise(path: Path) -> bool:
        return str(path).startswith(_PREFIX)

    @staticmethod
    def guess(path: Path, target: str | None) -> Guess:
        records = Builtin.read(path, BuiltinConfig())
        about = f"{len(records):,} records of {path}, which scikit-learn carries"
        data = {"source": str(path), "kind": "builtin"}
        if "image" not in records.fields:
            roles = _roles.guess(records, target)
            return Guess(
                about=about,
                count=len(records),
                data={**data, "split": roles.split},
                inputs=roles.inputs,
                target=roles.target,
                notes=roles.notes,
                warnings=tuple(roles.warnings),
            )
        if target not in (None, "label"):
            raise unknown(target, ["label"], what="--target: the field")
        height, width = records.fields["image"].shape[1:]
        return Guess(
            about=about,
            count=len(records),
            data={**data, "split": {"by": "stratified", "validation": 0.1, "test": 0.1}},
            inputs={"image": {"kind": "image", "field": "image", "size": [height, width]}},
            target={"kind": "category", "field": "label"},
        )

    @staticmethod
    def read(path: Path, config: BuiltinConfig) -> Records:
        from sklearn import datasets

        loaders = {
            "digits": datasets.load_digits,
            "iris": datasets.load_iris,
            "wine": datasets.load_wine,
            "breast_cancer": datasets.load_breast_cancer,
            "diabetes": datasets.load_diabetes,
        }
        name = str(path).removeprefix(_PREFIX)
        if not str(path).startswith(_PREFIX):
            raise UserError(
                f"{path} is not a built-in data set", expected="sklearn: and a name, such as sklearn:digits"
            )
        if name not in loaders:
            raise unknown(name, loaders, what="the built-in data set")
        found = loaders[name]()
        fields: dict[str, np.ndarray]
        if name == "digits":
            fields = {"image": np.round(found.images * (255 / _INK)).astype(np.uint8)}
        else:
            fields = {str(column): found.data[:, place] for place, column in enumerate(found.feature_names)}
        if name == "diabetes":
            fields["target"] = found.target.astype(np.float64)
        else:
            fields["label"] = _folders.objects([str(each) for each in found.target_names])[found.target]
        return Records(fields=fields, ids=[f"row {number}" for number in range(1, len(found.target) + 1)])

    @staticmethod
    def sample(folder: Path) -> Path:
        return Path(f"{_PREFIX}iris")
