"""What `sonde new` makes of the advice of several inputs."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from sonde.commands.new import write_recipe

WORDS = ["good", "bad", "late", "early", "broken", "fine", "again", "never"]


def written(folder: Path, *, text: bool) -> dict:
    rows = [
        f'{number % 7 / 2},"{" ".join(WORDS[(number * 7 + place * place) % 8] for place in range(9))} {number}",'
        f"{'yes' if number % 3 else 'no'}\n"
        for number in range(120)
    ]
    rows = (
        rows
        if text
        else [f"{row.split(',')[0]},{number * number % 11},{row.rsplit(',')[-1]}" for number, row in enumerate(rows)]
    )
    path = folder / "rows.csv"
    path.write_text(f"size,{'note' if text else 'count'},label\n" + "".join(rows))
    write_recipe(str(path), folder / "recipe.toml", target="label")
    return tomllib.loads((folder / "recipe.toml").read_text())


@pytest.mark.parametrize("text", [False, True])
def test_the_training_of_a_small_table_gives_way_to_that_of_a_text(tmp_path: Path, text: bool) -> None:
    recipe = written(tmp_path, text=text)
    assert set(recipe["inputs"]) == ({"text", "table"} if text else {"table"})
    optimizer = recipe["training"]["optimizer"]
    assert (optimizer["kind"], optimizer["weight_decay"]) == (("adamw", 0.01) if text else ("muon", 0.7))
