"""Pictures from the command line: `new --kind noise`, `fit`, `predict --count`, and what goes wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from sonde import cli

SMALL = ("--set", "network.image.widths=[4, 8]", "--set", "training.steps=2", "--set", "training.batch_size=8")


def pixels(path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("make")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for words in (
            ("new", "sklearn:digits", "--kind", "noise"),
            (
                "fit",
                "recipe.toml",
                "--out",
                "run",
                *SMALL,
                "--set",
                "target.generate.steps=2",
                "--set",
                "ladder.reference=false",
            ),
        ):
            patch.setattr("sys.argv", ["sonde", *words])
            with pytest.raises(SystemExit) as stop:
                cli.main()
            assert not stop.value.code
    return folder


@pytest.fixture
def sonde(run, monkeypatch, capsys):
    monkeypatch.chdir(run)

    def call(*words):
        monkeypatch.setattr("sys.argv", ["sonde", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        told = capsys.readouterr()
        return code, [json.loads(line) for line in told.out.splitlines() if line.startswith("{")], told.err

    return call


def test_the_recipe_steers_by_the_class(run):
    text = (run / "recipe.toml").read_text()
    assert 'kind = "noise"' in text
    assert '[inputs.label]\nkind = "table"' in text
    assert "allow_unknown = false" in text
    # A split by class goes on, though the target has no field.
    assert 'field = "label" }' in text.split("[inputs")[0]


def test_the_report_shows_what_was_made(run):
    page = (run / "run" / "report.html").read_text()
    assert page.count('"picture": "data:image/png') + page.count('"picture":"data:image/png') >= 32


def test_pictures_are_made_and_drawn(sonde, run):
    code, answers, _ = sonde(
        "predict", "run", "--count", 3, "--given", "label=3", "--set", "guidance=2", "--draw", "drawn"
    )
    assert code == 0
    assert [(each["number"], each["label"]) for each in answers] == [(0, "3"), (1, "3"), (2, "3")]
    assert pixels(run / answers[1]["drawn"]).shape == (8, 8)
    assert pixels(run / "drawn" / "all.png").shape == (8, 3 * 8 + 2 * 4, 3)
    _, alone, _ = sonde(
        "predict", "run", "--count", 1, "--first", 2, "--given", "label=3", "--set", "guidance=2", "--draw", "alone"
    )
    one, other = (pixels(run / each["drawn"]) for each in (alone[0], answers[2]))
    assert np.abs(one - other).max() <= 1


def test_a_table_of_classes_alone_makes_a_picture_a_row(sonde, run):
    (run / "wanted.csv").write_text("label\n3\n7\n")
    code, answers, _ = sonde("predict", "run", "wanted.csv")
    assert code == 0
    assert all(each["picture"].startswith("data:image/png;base64,") for each in answers)
    assert answers[0]["picture"] != answers[1]["picture"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--count", "0"), "0 answers cannot be made. Expected a count of 1 or more"),
        (
            ("--count", "1", "--given", "label=12"),
            "field 'label' is '12', which training did not show. Expected one of: 0, 1",
        ),
        (("--count", "1", "--given", "lable=1"), "the field 'lable' does not exist"),
        (("--count", "1", "--given", "label"), "--given 'label' is not NAME=VALUE"),
        (("--count", "1", "--set", "guidanc=1"), "did you mean 'guidance'?"),
        (("--count", "1", "--set", "eta=0.5"), "eta is for sampler ddim"),
        (("--given", "label=1"), "there is nothing to answer for"),
        (("--count", "1", "wanted.csv"), "with --count there are no inputs"),
        ((), "there is nothing to answer for"),
    ],
)
def test_what_goes_wrong_is_told(sonde, words, told):
    code, answers, error = sonde("predict", "run", *words)
    assert code == 2
    assert not answers
    assert told in error
