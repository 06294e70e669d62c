"""Pretrained weights that this machine has: what `sonde new` offers to an input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sonde.contracts.specs import LayoutName


@dataclass(frozen=True, kw_only=True)
class WeightsAtHand:
    """`network` are the settings of the backbone that takes them, `layout` what it takes, `about` where they are."""

    network: Mapping[str, Any]
    layout: LayoutName
    about: str
