"""Pictures of answers and truths: what `new`, `fit` and `predict --draw` leave behind, for boxes and for masks."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import sonde
from sonde.base.errors import UserError
from sonde.commands.new import write_recipe
from sonde.commands.predict import predict
from sonde.data.sources.coco import Coco
from sonde.data.sources.masks import Masks
from sonde.recipe import Recipe

SMALL = ["training.steps=2", "training.batch_size=2", "inputs.image.size=[32,48]"]


def trained(recipe: Path, out: Path, *changes: str) -> sonde.Model:
    text = "\n".join(line for line in recipe.read_text().splitlines() if not line.startswith("epochs"))
    recipe.write_text(text + "\n")
    return sonde.load(sonde.fit(Recipe.read(recipe, changes=[*SMALL, *changes]), out=out).artifact)


def test_boxes_are_drawn_all_the_way(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    data = Coco.sample(tmp_path / "data")
    found = write_recipe(str(data), tmp_path / "recipe.toml")
    assert found.drawn == 4
    assert found.folder == tmp_path / "recipe-truth"
    with (
        Image.open(tmp_path / "recipe-truth" / "images_0.png") as drawn,
        Image.open(data / "images" / "0.png") as plain,
    ):
        assert drawn.size == plain.size
        assert drawn.convert("RGB").getpixel((20, 12)) == (0xE6, 0x9F, 0x00)
    assert "drew 4 records with their truth into" in found.to_text()
    model = trained(
        tmp_path / "recipe.toml",
        tmp_path / "run",
        "network.width=0.125",
        "target.width=8",
        "target.min_score=0.0",
        "target.max_answers=3",
    )
    with Image.open(tmp_path / "run" / "first_batch.png") as batch:
        assert batch.size == (2 * 48 + 4, 32)
    answers = list(predict(model, [data / "images"], draw=tmp_path / "drawn"))
    assert [len(answer["boxes"]) for answer in answers] == [3, 3, 3, 3]
    assert answers[0]["drawn"] == str(tmp_path / "drawn" / "0.png")
    for side in answers[0]["boxes"][0]["box"]:
        assert 0 <= side <= 48
    with Image.open(tmp_path / "drawn" / "3.png") as drawn:
        assert drawn.size == (48, 32)
    assert sonde.load(tmp_path / "run").predict([data / "images" / "0.png"])[0].keys() == {"boxes"}


def test_masks_are_drawn(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    data = Masks.sample(tmp_path / "data")
    assert write_recipe(str(data), tmp_path / "recipe.toml").drawn == 0
    model = trained(tmp_path / "recipe.toml", tmp_path / "run", "network.widths=[4,8]")
    assert not (tmp_path / "run" / "first_batch.png").exists()
    list(predict(model, [data / "images"], draw=tmp_path / "drawn"))
    with Image.open(tmp_path / "drawn" / "0.png") as drawn:
        assert drawn.size == (48, 32)


def test_answers_that_cannot_be_drawn_are_refused(tmp_path: Path) -> None:
    table = tmp_path / "plants.csv"
    table.write_text("light,height\n" + "".join(f"{row % 7},{row}\n" for row in range(40)))
    write_recipe(str(table), tmp_path / "recipe.toml", target="height")
    recipe = Recipe.read(tmp_path / "recipe.toml", changes=["training.epochs=1"])
    model = sonde.load(sonde.fit(recipe, out=tmp_path / "run").artifact)
    with pytest.raises(UserError, match="the answers of target 'number' cannot be drawn"):
        list(predict(model, [table], draw=tmp_path / "drawn"))
    assert not (tmp_path / "drawn").exists()
