"""Pictures to texts: a decoder that looks says what is there, and says something else of other pictures."""

from __future__ import annotations

import numpy as np
import pytest

import sonde
from sonde import metrics
from sonde.base.errors import UserError
from sonde.contracts.augment import AugmentParams
from sonde.contracts.records import Records, as_field
from sonde.inputs.image import Image, ImageConfig
from sonde.recipe import Recipe
from sonde.targets.sequence import Sequence, SequenceConfig

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
PLACES = {"left": 0, "right": 8}


def picture(colour: str, place: str, rng: np.random.Generator) -> np.ndarray:
    """A square of a colour at a side of a grey picture, (16, 16, 3)."""
    pixels = np.full((16, 16, 3), 128) + rng.integers(-20, 20, (16, 16, 3))
    pixels[4:12, PLACES[place] : PLACES[place] + 8] = COLOURS[colour]
    return pixels.clip(0, 255).astype(np.uint8)


def write(folder, count=90):
    from PIL import Image as Pillow

    rng = np.random.default_rng(0)
    lines = ["path,caption,split"]
    for number in range(count):
        colour, place = rng.choice(list(COLOURS)), rng.choice(list(PLACES))
        Pillow.fromarray(picture(colour, place, rng)).save(folder / f"{number}.png")
        split = "train" if number < count * 2 // 3 else "validation" if number < count * 5 // 6 else "test"
        lines.append(f"{number}.png,a {colour} square on the {place},{split}")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    "network", ['{kind="cnn", widths=[16, 32]}', '{kind="transformer", width=32, layers=1, patch=4}']
)
def test_captions_say_what_is_in_a_picture(tmp_path, network):
    write(tmp_path)
    recipe = """
[data]
source = "captions.csv"
split = { by = "given" }
[inputs.image]
kind = "image"
field = "path"
size = 16
[target]
kind = "sequence"
field = "caption"
tokens = "characters"
decoder = { layers = 1, width = 32, dropout = 0.0 }
[network]
kind = "cnn"
[training]
steps = 150
batch_size = 20
evaluate_every = 150
optimizer = { kind = "muon", lr = 0.02 }
"""
    (tmp_path / "recipe.toml").write_text(recipe)
    run = sonde.fit(Recipe.read(tmp_path / "recipe.toml", changes=[f"network={network}"]), out=tmp_path / "run")
    scores = run.scores["test"]
    assert scores["exact_match"].value > 0.6
    assert scores["cider_d"].value > scores["cider_d"].baseline + 1
    assert scores["different"].value > 0.2
    model = sonde.load(run.artifact)
    rng = np.random.default_rng(1)
    truths = [f"a {colour} square on the {place}" for colour in COLOURS for place in PLACES]
    pictures = [picture(colour, place, rng) for colour in COLOURS for place in PLACES]
    answers = [answer["text"] for answer in model.predict(pictures)]
    shuffled = [*answers[1:], answers[0]]
    assert metrics.cider_d(answers, truths).mean() > metrics.cider_d(shuffled, truths).mean() + 1


def test_two_pictures_in_one_have_no_one_text():
    pictures = as_field([picture("red", "left", np.random.default_rng(0)) for _ in range(4)])
    train = Records(fields={"image": pictures, "target": as_field(["a", "b", "c", "d"])}, ids=list("abcd"))
    part = Image.fit(ImageConfig(), train)
    target = Sequence.fit(SequenceConfig(tokens="characters"), train, {"image": part})
    import torch

    with pytest.raises(UserError, match="mixup and cutmix make records of two texts"):
        target.apply_augment({}, AugmentParams(mix_weight_B=torch.ones(2)))
