from __future__ import annotations

import sys
import textwrap

import pytest

from sonde.base import lookup
from sonde.base.errors import UserError
from sonde.base.lookup import ROOMS, find, kinds, kinds_in
from sonde.contracts.backbone import Backbone
from sonde.contracts.input import Input
from sonde.contracts.specs import InputSpec, OutputSpec
from sonde.testing import check_network


def test_listing_reads_docstrings_and_imports_nothing():
    before = set(sys.modules)
    listed = {room: kinds(room) for room in ROOMS}
    assert listed["inputs"]["image"]
    assert all(line.endswith((".", ".)")) for found in listed.values() for line in found.values()), listed
    new = {name for name in set(sys.modules) - before if name.startswith("sonde.")}
    assert not new


def test_an_unknown_kind_answers_with_the_near_miss():
    with pytest.raises(UserError, match=r"the input kind 'imgae' does not exist.*hint: did you mean 'image'\?"):
        find("inputs", "imgae", Input)


def test_private_modules_are_no_kinds():
    with pytest.raises(UserError, match=r"does not exist"):
        find("inputs", "__init__", Input)


def test_a_kind_of_ones_own_is_an_import():
    with pytest.raises(UserError, match=r"'no_such_package.depth' cannot be imported"):
        find("inputs", "no_such_package.depth", Input)
    with pytest.raises(UserError, match=r"defines 0 classes of Input"):
        find("inputs", "json.decoder", Input)


@pytest.mark.parametrize("kind", [".foo", "..", ".", "foo.", "foo..bar", "foo. bar"])
def test_what_is_no_name_of_a_module(kind):
    with pytest.raises(UserError, match=r"the input kind '.*' is not the name of a module. Expected a kind of sonde"):
        find("inputs", kind, Input)


def test_no_kind_at_all():
    with pytest.raises(UserError, match=r"the input kind '' does not exist. Expected one of: audio, "):
        find("inputs", "", Input)


BACKBONE = """
from sonde.contracts.backbone import Backbone, BackboneConfig
from {package}._layers import Layer, WIDTH


class Config(BackboneConfig):
    kind: str = "{package}"


class Ours(Backbone):
    Config = Config
    accepts = ("vector",)
    gives = ("example",)

    def __init__(self, config, spec, output):
        super().__init__(config, spec, output)
        self.layer, self.width = Layer(spec.channels, WIDTH), WIDTH

    def forward(self, tensors):
        return self.layer(tensors["vector"])
"""
LAYERS = """
from torch import nn

WIDTH = 7


class Layer(nn.Linear):
    pass
"""


def write(place, files):
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(textwrap.dedent(text))


@pytest.fixture
def importable(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("their_kinds", "room"):
            del sys.modules[name]


@pytest.mark.parametrize("where", ["__init__", "exported", "hidden"])
@pytest.mark.parametrize("package", ["their_kinds.ours", "their_kinds"])
def test_a_kind_may_be_a_folder(importable, where, package):
    """The class in `__init__.py`, imported there from a module, or in a module that nothing imports."""
    backbone = BACKBONE.format(package=package)
    doc = f'"""Ours: a folder with the class {where}."""\n'
    place = package.replace(".", "/")
    files = {"their_kinds/__init__.py": "", f"{place}/_layers.py": LAYERS}
    if where == "__init__":
        files[f"{place}/__init__.py"] = doc + backbone
    else:
        files[f"{place}/_backbone.py"] = backbone
        files[f"{place}/__init__.py"] = doc + (f"from {package}._backbone import Ours" if where == "exported" else "")
    write(importable, files)
    found = find("networks", package, Backbone) if "." in package else find_in_room(importable)
    assert found.__name__ == "Ours"
    network = found(found.Config(), InputSpec(layout="vector", channels=6), OutputSpec(per=("example",), width=2))
    assert network.width == 7
    check_network(found)


def test_a_folder_with_two_kinds_is_told(importable):
    two = BACKBONE.format(package="their_kinds")
    more = BACKBONE.format(package="their_kinds").replace("class Ours", "class Others")
    write(
        importable,
        {
            "their_kinds/__init__.py": "",
            "their_kinds/_layers.py": LAYERS,
            "their_kinds/a.py": two,
            "their_kinds/b.py": more,
        },
    )
    with pytest.raises(UserError, match=r"the module room\.their_kinds defines 2 classes of Backbone"):
        find_in_room(importable)


def find_in_room(place):
    """By a short name, as if the folder stood in sonde."""
    write(place, {"room/__init__.py": ""})
    (place / "their_kinds").rename(place / "room" / "their_kinds")
    for path in (place / "room").rglob("*.py"):
        path.write_text(path.read_text().replace("from their_kinds", "from room.their_kinds"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(lookup.ROOMS, "networks", "room")
        return find("networks", "their-kinds", Backbone)


def test_files_and_folders_are_listed_by_their_first_lines(tmp_path):
    write(
        tmp_path,
        {
            "__init__.py": '"""The room itself."""',
            "_private.py": '"""Not a kind."""',
            "one_file.py": '"""One file.\\n\\nMore of it.\\n"""',
            "folder/__init__.py": '"""A folder.\\n\\nMore of it.\\n"""',
            "folder/inner.py": '"""Part of a kind."""',
            "_private_folder/__init__.py": '"""Not a kind."""',
            "data/table.csv": "no package",
        },
    )
    assert kinds_in(tmp_path) == {"folder": "A folder.", "one-file": "One file."}
