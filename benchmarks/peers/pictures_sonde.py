"""`sonde.fit` on the ready recipe of the data set, with other epochs and another seed; its own test split judges."""

from __future__ import annotations

import tempfile

import torch._dynamo  # noqa: F401  (imports do not count, for anyone)
from environments import ROOT
from race_common import Race

import sonde
from sonde import run  # noqa: F401

RECIPES = {"fashion": "fashion_mnist.toml", "flowers": "flowers5.toml"}


def main() -> None:
    race = Race()
    race.start()
    recipe = sonde.Recipe.read(ROOT / "recipes" / RECIPES[race.name])
    settings = {"epochs": race.epochs, "seed": race.seed}
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update=settings)})
    with tempfile.TemporaryDirectory() as place:
        done = sonde.fit(recipe, out=f"{place}/run")
    race.note(done.scores["test"]["accuracy"].value, stop=False)
    race.tell()


if __name__ == "__main__":
    main()
