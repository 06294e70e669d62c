"""`sonde demo`: the whole way on scikit-learn's handwritten digits, through the same doors as any data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sonde.artifact import load
from sonde.base.errors import UserError
from sonde.base.progress import Progress
from sonde.commands.new import write_recipe
from sonde.recipe import Recipe
from sonde.run import Run, fit
from sonde.stages import load_data

SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What the demo made, and what its model says of some test digits."""

    recipe: Path
    run: Run
    answers: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        return {"recipe": str(self.recipe), **self.run.to_json(), "answers": self.answers}

    def to_text(self) -> str:
        right = sum(each["label"] == each["truth"] for each in self.answers)
        said = " ".join(each["label"] for each in self.answers)
        true = " ".join(each["truth"] for each in self.answers)
        artifact, folder = self.run.artifact, self.run.folder
        return "\n".join(
            [
                self.run.to_text(),
                f"  recipe     {self.recipe}",
                "",
                f"the artifact, loaded afresh, on {SHOWN} test digits: {right} right",
                f"  it says    {said}",
                f"  truth      {true}",
                "",
                "try next:",
                f"  sonde fit {self.recipe} --set training.seed=1 --out {folder.parent / 'again'}",
                "  sonde new YOUR_DATA",
                f"  sonde predict {artifact} YOUR_PICTURE.png",
            ]
        )


def demo(out: Path, progress: Progress) -> Demo:
    """Digits -> recipe -> fit -> scores -> artifact -> answers, all of it under the new folder `out`."""
    if out.exists():
        raise UserError(f"{out} exists already", hint="remove it, or choose another folder with --out")
    recipe_path = out / "recipe.toml"
    write_recipe("sklearn:digits", recipe_path)
    recipe = Recipe.read(recipe_path)
    run = fit(recipe, out=out / "run", progress=progress)
    # The model of the artifact, not the one in memory: what a colleague would load.
    test = load_data(recipe).splits["test"]
    records = [test[index] for index in range(SHOWN)]
    answers = load(run.artifact).predict([{"image": record["image"]} for record in records])
    shown = [
        {"label": answer["label"], "confidence": answer["confidence"], "truth": str(record["label"])}
        for answer, record in zip(answers, records, strict=True)
    ]
    return Demo(recipe=recipe_path, run=run, answers=shown)
