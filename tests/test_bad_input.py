"""What people get wrong: a clear sentence, exit code 2, and nothing half-written."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sonde import cli

TABLE = """
[data]
source = "data.csv"
split = { by = "%(by)s" }
[inputs.table]
kind = "table"
fields = ["x"]
[target]
kind = "%(target)s"
field = "y"
[network]
kind = "%(network)s"
[training]
steps = 2
"""


@pytest.fixture
def sonde(monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr("sys.argv", ["sonde", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        return code, capsys.readouterr().err

    return run


@pytest.fixture
def fitted(tmp_path, sonde):
    """Fit a recipe on a table; give the exit code and the error, and see that nothing was left behind."""

    def run(rows, *, by="random", target="category", network="mlp", header="x,y", recipe=TABLE):
        (tmp_path / "data.csv").write_text("\n".join([header, *rows]) + "\n")
        (tmp_path / "recipe.toml").write_text(recipe % {"by": by, "target": target, "network": network})
        code, err = sonde("fit", tmp_path / "recipe.toml", "--out", tmp_path / "run")
        assert not (tmp_path / "run").exists()
        return code, err

    return run


ROWS = [f"{number},{'ab'[number % 2]}" for number in range(40)]


@pytest.mark.parametrize(
    ("rows", "settings", "said"),
    [
        (ROWS, {"header": "x,z"}, "has no field 'y'. Expected one of: x, z"),
        ([f"{n},a" for n in range(40)], {}, "'a'"),
        ([*ROWS, "41,c"], {"by": "stratified"}, "'c'"),
        ([f"{n},{n / 7}" for n in range(39)] + ["39,"], {"target": "number"}, "'y'"),
        ([f"{n},{n / 7}" for n in range(39)] + ["39,oops"], {"target": "number"}, "'oops'"),
        ([f"{n},3.5" for n in range(40)], {"target": "number"}, "3.5"),
        (ROWS, {"network": "unet"}, "network 'unet' takes grid; input 'table' offers columns. hint: use network 'mlp'"),
        (ROWS, {"by": "group"}, "group"),
        ([], {}, "data.csv"),
    ],
)
def test_a_wrong_table_is_told(fitted, rows, settings, said):
    code, err = fitted(rows, **settings)
    assert (code, err.count("Traceback")) == (2, 0), err
    assert said in err
    assert err.startswith("error: ")


def test_a_class_that_only_the_test_split_has(fitted):
    rows = [f"{n},{'ab'[n % 2]},train" for n in range(30)] + ["30,a,validation", "31,c,test"]
    code, err = fitted(rows, by="given", header="x,y,split")
    assert code == 2
    assert "row 32: the label 'c' in field 'y' was never seen in training. Expected one of: a, b" in err


def test_the_answer_among_the_inputs(fitted):
    code, err = fitted(ROWS, recipe=TABLE.replace('fields = ["x"]', 'fields = ["x", "y"]'))
    assert code == 2
    assert "the answer is among the inputs: y" in err


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda place: None, "does not exist"),
        (lambda place: place.mkdir(), "is not a data set that sonde recognises"),
        (lambda place: place.write_bytes(b"\x00\x01\x02"), "is not a data set that sonde recognises"),
    ],
)
def test_data_that_is_not_there(tmp_path, sonde, make, said):
    make(tmp_path / "photos")
    code, err = sonde("new", tmp_path / "photos", "--out", tmp_path / "recipe.toml")
    assert code == 2
    assert said in err
    assert not (tmp_path / "recipe.toml").exists()


def test_a_recipe_is_not_overwritten(tmp_path, sonde):
    (tmp_path / "recipe.toml").write_text("mine")
    code, err = sonde("new", "sklearn:digits", "--out", tmp_path / "recipe.toml")
    assert (code, (tmp_path / "recipe.toml").read_text()) == (2, "mine")
    assert "exists already" in err


def test_a_class_with_one_example(tmp_path, sonde):
    for place, (label, count) in enumerate((("cat", 12), ("dog", 12), ("yak", 1))):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng([place, number]).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.png")
    recipe = tmp_path / "recipe.toml"
    sonde("new", tmp_path / "photos", "--out", recipe)
    # `new` keeps it in training, and says so; a recipe that does not is refused.
    assert 'rare = "train"' in recipe.read_text()
    recipe.write_text(recipe.read_text().replace(', rare = "train"', ""))
    code, err = sonde("fit", recipe, "--out", tmp_path / "run", "--set", "training.steps=1")
    assert code == 2
    assert "the class 'yak' has only one example" in err
    assert not (tmp_path / "run").exists()


def test_arguments_that_mean_nothing(tmp_path, sonde):
    assert sonde("fit")[0] == 2
    assert sonde("fly")[0] == 2
    code, err = sonde("fit", tmp_path / "recipe.toml", "--resume")
    assert code == 2
    assert "--resume needs the run to go on with" in err
    code, err = sonde("predict", tmp_path, tmp_path)
    assert code == 2
    assert "is not a sonde artifact" in err


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a/1.png": b"", "a/2.png": b""}, "it holds 1 folder (a). Expected class folders"),
        ({"a/1.png": b"", "a/2.png": b""}, "hint: a class is learned beside others: one folder (a) is not enough"),
        ({"one.csv": b"x\n1\n", "two.csv": b"x\n1\n"}, "hint: several tables are no one data set; name one of them: "),
        ({"scan.nii": b"", "more.nii": b""}, "it holds 2 .nii."),
    ],
)
def test_a_folder_that_is_no_data_set_is_described(tmp_path, sonde, files, said):
    for name, content in files.items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(content)
    code, err = sonde("new", tmp_path / "photos", "--out", tmp_path / "recipe.toml")
    assert code == 2
    assert said in err


def test_places_that_are_nearly_right(tmp_path, sonde):
    (tmp_path / "flowers").mkdir()
    _, err = sonde("new", tmp_path / "flower", "--out", tmp_path / "recipe.toml")
    assert err.endswith("does not exist. hint: did you mean 'flowers'?\n")
    _, err = sonde("new", "https://example.org/a.csv", "--out", tmp_path / "recipe.toml")
    assert "https://example.org/a.csv is not on this machine. hint: download it first" in err
    (tmp_path / "a.json").write_text("[]")
    _, err = sonde("new", tmp_path / "a.json", "--out", tmp_path / "recipe.toml")
    assert "a.json is JSON, but not a table: an empty list. Expected a list of objects such as" in err


def test_answers_that_could_not_be_written_are_not_computed(tmp_path, sonde):
    code, err = sonde("predict", tmp_path / "gone", tmp_path, "--out", tmp_path / "nowhere" / "answers.jsonl")
    assert (code, "answers.jsonl cannot be written: No such file or directory" in err) == (2, True)
    code, err = sonde("predict", tmp_path / "gone", tmp_path, "--out", tmp_path)
    assert (code, "has no ending that says how to write answers" in err) == (2, True)
    code, err = sonde("predict", tmp_path / "gone", tmp_path)
    assert (code, "gone does not exist" in err) == (2, True)


def test_a_picture_that_is_none_is_told_plainly(tmp_path, sonde):
    for number in range(20):
        place = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 9 * number, dtype=np.uint8)).save(place)
    place.write_bytes(b"no picture")
    sonde("new", tmp_path / "photos", "--out", tmp_path / "recipe.toml")
    code, err = sonde("fit", tmp_path / "recipe.toml", "--out", tmp_path / "run", "--set", "training.steps=1")
    assert code == 2
    assert "19.png is not a readable picture: its content is of no known format. Expected a whole PNG" in err
