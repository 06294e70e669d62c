"""Two inputs brought together: losses beside slow references, duplicates, partners, classes by their sentences."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.nn import functional

import sonde
from sonde import metrics
from sonde.base.errors import UserError
from sonde.commands.new import write_recipe
from sonde.contracts.records import Records, as_field
from sonde.inputs.text import Text, TextConfig
from sonde.recipe import Recipe
from sonde.targets._pairs import sigmoid_match, softmax_match
from sonde.targets.match import Match, MatchConfig, ZeroShot
from sonde.testing import sample_task

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (240, 240, 240)}
SHAPES = ("square", "bar", "frame")


def unit(count, width=5, seed=0):
    return functional.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_softmax_is_the_mean_of_both_cross_entropies():
    logits = 5 * unit(6, seed=1) @ unit(6, seed=2).T
    own = torch.arange(6)
    expected = (
        functional.cross_entropy(logits, own, reduction="none")
        + functional.cross_entropy(logits.T, own, reduction="none")
    ) / 2
    torch.testing.assert_close(softmax_match(logits, torch.eye(6, dtype=torch.bool)), expected)


def test_sigmoid_judges_every_pair():
    logits = 5 * unit(6, seed=1) @ unit(6, seed=2).T - 1
    signs = 2 * torch.eye(6) - 1
    expected = -functional.logsigmoid(signs * logits).sum(1)
    torch.testing.assert_close(sigmoid_match(logits, torch.eye(6, dtype=torch.bool)), expected)


@pytest.mark.parametrize("loss", [softmax_match, sigmoid_match])
def test_pairs_that_share_a_side_are_no_negatives(loss):
    """A pair beside its double costs what it costs alone with the others."""
    logits = 5 * unit(4, seed=1) @ unit(4, seed=2).T
    doubled = torch.cat([logits, logits[:1]])
    doubled = torch.cat([doubled, doubled[:, :1]], dim=1)
    shared = torch.eye(5, dtype=torch.bool)
    shared[0, 4] = shared[4, 0] = True
    found = loss(doubled, shared)
    torch.testing.assert_close(found[0], loss(logits, torch.eye(4, dtype=torch.bool))[0])
    torch.testing.assert_close(found[0], found[4])


def test_ranks_by_hand():
    query, found = unit(7, seed=3).numpy(), unit(7, seed=4).numpy()
    codes = np.arange(14).reshape(7, 2)
    codes[5, 1] = codes[2, 1]
    ranks = metrics.partner_rank(query, found, codes)
    for place in range(7):
        similar = found @ query[place]
        own = [place, *({2, 5} - {place} if place in (2, 5) else ())]
        best = max(similar[own])
        others = [value for index, value in enumerate(similar) if index not in own]
        assert ranks[place] == 1 + sum(value >= best for value in others)


def test_vectors_that_are_all_alike_find_nothing():
    ranks = metrics.partner_rank(np.ones((9, 3)), np.ones((9, 3)), np.arange(18).reshape(9, 2))
    assert ranks.tolist() == [9.0] * 9


def test_repeated_captions_have_one_code():
    task, _ = sample_task(Text, Match)
    records = Records(fields={"text": as_field(["deep sea", "line", "deep sea"])}, ids=["1", "2", "3"])
    columns, _ = task.inputs["given"].encode_many(records)
    target = Match.fit(MatchConfig(), records, {"one": task.inputs["given"], "other": task.inputs["given"]})
    truth, errors = target.encode_many(records, {"one": columns, "other": columns})
    codes = truth["codes"]
    assert not errors
    assert torch.equal(codes[0], codes[2])
    assert codes[0, 0] != codes[1, 0]
    alone = target.encode(records[1], {name: task.inputs["given"].encode(records[1]) for name in ("one", "other")})
    assert torch.equal(alone["codes"], codes[1])


def test_one_input_is_refused():
    with pytest.raises(UserError, match="brings two inputs together; the recipe has 1: text"):
        Match.fit(MatchConfig(), Records(fields={}, ids=[]), {"text": None})


def test_zero_shot_needs_a_text():
    records = Records(fields={"kind": as_field(["a", "b"]), "text": as_field(["x y", "y z"])}, ids=["1", "2"])
    text = Text.fit(TextConfig(min_count=1), records)
    config = MatchConfig(zero_shot=ZeroShot(field="kind"))
    with pytest.raises(UserError, match="needs one input of texts"):
        Match.fit(config, records, {"one": text, "other": text})
    with pytest.raises(UserError, match="the field 'nothing'"):
        Match.fit(MatchConfig(zero_shot=ZeroShot(field="nothing")), records, {"one": text, "other": text})


def test_a_prompt_without_a_place_is_told():
    with pytest.raises(ValueError, match="has no place for the class"):
        ZeroShot(field="group", prompt="a picture")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Pictures of coloured shapes with captions."""
    from PIL import Image, ImageDraw

    folder = tmp_path_factory.mktemp("drawn")
    rng = np.random.default_rng(0)
    lines = ["file_name,caption,colour"]
    for number in range(144):
        colour, shape = list(COLOURS)[number % 4], SHAPES[number // 4 % 3]
        picture = Image.new("RGB", (16, 16))
        x, y = rng.integers(1, 6, 2).tolist()
        box = (x, y, x + 8, y + (3 if shape == "bar" else 8))
        fill, outline = (None, COLOURS[colour]) if shape == "frame" else (COLOURS[colour], None)
        ImageDraw.Draw(picture).rectangle(box, fill=fill, outline=outline, width=2)
        picture.save(folder / f"{number}.png")
        lines.append(f"{number}.png,{rng.choice(['a', 'one', 'this'])} {colour} {shape},{colour}")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_from_a_folder_to_answers(drawn, tmp_path):
    """`sonde new --kind match`, as written but for its length; partners are found, and classes by their sentence."""
    written = write_recipe(str(drawn), tmp_path / "recipe.toml", target="caption", kind="match")
    assert {name: each["kind"] for name, each in written.sections["inputs"].items()} == {
        "image": "image",
        "caption": "text",
    }
    changes = [
        "training.epochs=null",
        "training.steps=50",
        "target.zero_shot={ field = 'colour', prompt = 'a {} square' }",
    ]
    recipe = Recipe.read(tmp_path / "recipe.toml", changes=changes)
    sonde.fit(recipe, out=tmp_path / "run")
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    model = sonde.load(tmp_path / "run" / "model")
    record = {"file_name": str(drawn / "0.png"), "caption": "a red square"}
    (answer,) = model.predict([record])
    assert answer["class"] == "red"
    assert len(answer["image_to_caption"]) == len(answer["caption_to_image"]) == 5
    assert scores
