from __future__ import annotations

import sys

import pytest

from sonde.base.errors import UserError
from sonde.base.lookup import ROOMS, find, kinds
from sonde.contracts.input import Input


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
