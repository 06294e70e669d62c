"""Which examples hang together: by a column, or as neighbours in a stream; and what the errors say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sonde.base.errors import UserError
from sonde.contracts.records import Records, as_field
from sonde.contracts.task import Task
from sonde.data.groups import blocks, by_column
from sonde.data.store import encode
from sonde.inputs.text import Text, TextConfig
from sonde.recipe import Recipe
from sonde.stages import load_data
from sonde.targets.category import Category, CategoryConfig
from sonde.targets.next_token import NextToken, NextTokenConfig


def texts(count: int = 12) -> Records:
    fields = {
        "text": as_field(["deep sea", "long line"] * (count // 2)),
        "label": as_field(["a", "b"] * (count // 2)),
        "speaker": as_field([f"s{index % 3}" for index in range(count)]),
    }
    return Records(fields=fields, ids=[f"row {index}" for index in range(count)])


@pytest.mark.parametrize(
    "values",
    [
        as_field(["x", None, "y", "x", None]),
        as_field([1, None, 2, 1, None]),
        as_field([["x"], None, "y", ["x"], None]),
    ],
)
def test_a_missing_value_is_a_group_of_its_own(values: np.ndarray) -> None:
    groups = by_column("speaker", values)
    assert (groups.name, groups.count) == ("speaker", 4)
    assert groups.codes[0] == groups.codes[3]
    assert len(set(groups.codes.tolist())) == 4


@pytest.mark.parametrize(("count", "length"), [(1, 1), (2, 2), (27, 3), (1000, 10), (1001, 11)])
def test_blocks_are_neighbours(count: int, length: int) -> None:
    groups = blocks(count)
    assert groups.codes.tolist() == [place // length for place in range(count)]
    assert (groups.name, groups.count) == ("blocks", -(-count // length))


def test_encoded_examples_know_their_group() -> None:
    records = texts()
    part = Text.fit(TextConfig(min_count=1), records)
    task = Task(inputs={"text": part}, target=Category.fit(CategoryConfig(), records, {"text": part}))
    assert encode(task, records).groups is None
    groups = encode(task, records, group="speaker").groups
    assert groups is not None
    assert groups.codes.tolist() == [0, 1, 2] * 4


def test_windows_of_a_stream_hang_together_in_blocks() -> None:
    records = texts()
    part = Text.fit(TextConfig(tokens="bytes", window=4), records)
    task = Task(inputs={"text": part}, target=NextToken.fit(NextTokenConfig(), records, {"text": part}))
    encoded = encode(task, records, group="speaker")
    assert encoded.groups is not None
    assert encoded.groups.name == "blocks"
    assert len(encoded.groups.codes) == len(encoded.examples) != len(records)


def recipe(folder: Path, **data: object) -> Recipe:
    lines = ["text,label,speaker", *(f"word {index},{'ab'[index % 2]},s{index % 6}" for index in range(60))]
    (folder / "table.csv").write_text("\n".join(lines))
    return Recipe.of(
        {
            "data": {"source": str(folder / "table.csv"), **data},
            "inputs": {"text": {"kind": "text"}},
            "target": {"kind": "category"},
            "network": {"kind": "mlp"},
            "training": {"steps": 1},
        }
    )


def test_the_group_of_a_recipe(tmp_path: Path) -> None:
    assert recipe(tmp_path).data.group_field is None
    assert recipe(tmp_path, group="speaker").data.group_field == "speaker"
    split = {"by": "group", "field": "speaker"}
    assert recipe(tmp_path, split=split).data.group_field == "speaker"
    assert recipe(tmp_path, split=split, group="label").data.group_field == "label"
    assert recipe(tmp_path, split={"by": "given", "field": "speaker"}).data.group_field is None


def test_a_group_column_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no field 'speeker'.*did you mean 'speaker'\?"):
        load_data(recipe(tmp_path, group="speeker"))
