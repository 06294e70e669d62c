"""What comes back from `sonde predict` and `model.predict`: every row, in order, as what it was."""

from __future__ import annotations

import csv
import json

import numpy as np
import polars
import pytest

import sonde
from sonde import cli
from sonde.artifact import given
from sonde.base.errors import RecordError

ROWS = [(f"r{index:02}", index * 7 % 23, ["low", "high", "mid"][index % 3], int(index % 5 > 2)) for index in range(40)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("answers")
    lines = [",".join(map(str, row)) for row in [("row_id", "x", "level", "passed"), *ROWS]]
    (folder / "data.csv").write_text("\n".join(lines) + "\n")
    from sonde.commands.new import write_recipe

    found = write_recipe(str(folder / "data.csv"), folder / "recipe.toml", target="passed")
    assert found.sections["data"]["id"] == "row_id"
    recipe = sonde.Recipe.read(folder / "recipe.toml", changes=["training.steps=30"])
    return sonde.load(sonde.fit(recipe, out=folder / "run").artifact)


@pytest.fixture
def predict(model, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sonde.artifact.load", lambda path: model)

    def run(*words):
        monkeypatch.setattr("sys.argv", ["sonde", "predict", str(tmp_path), *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def asked(tmp_path, *rows, header="row_id,x,level"):
    path = tmp_path / "asked.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_table_becomes_a_table_with_every_row_in_its_place(predict, tmp_path):
    rows = [f"{name},{x},{level}" for name, x, level, _ in ROWS]
    rows[7] = "r07,much,low"
    path = asked(tmp_path, *rows)
    out = tmp_path / "answers.csv"
    code, printed, err = predict(path, "--out", out)
    assert code == 2
    assert "1 of 40 inputs could not be read: asked.csv row 8: field 'x' is 'much'" in err
    assert f"hint: the other answers are in {out}" in err
    assert not printed
    with out.open(newline="") as file:
        answers = list(csv.DictReader(file))
    assert list(answers[0]) == ["input", "row_id", "label", "confidence", "probabilities.0", "probabilities.1", "error"]
    assert [row["row_id"] for row in answers] == [row[0] for row in ROWS]
    assert "field 'x' is 'much'" in answers[7]["error"]
    assert answers[7]["label"] == ""
    assert {row["label"] for row in answers if not row["error"]} <= {"0", "1"}


def test_lines_of_json_keep_ids_and_types(predict, tmp_path):
    path = asked(tmp_path, "a,1,low", "b,39,high", header="row_id,x,level")
    code, printed, _ = predict(path)
    answers = [json.loads(line) for line in printed.splitlines()]
    assert code == 0
    assert [answer["row_id"] for answer in answers] == ["a", "b"]
    assert [type(answer["label"]) for answer in answers] == [int, int]
    for ending in (".jsonl", ".json"):
        assert predict(path, "--out", tmp_path / f"answers{ending}")[0] == 0
    lines = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == answers == json.loads((tmp_path / "answers.json").read_text())


def test_another_column_can_name_the_rows(predict, tmp_path):
    path = asked(tmp_path, "7,low,x1", header="x,level,code")
    assert json.loads(predict(path, "--id", "code")[1])["code"] == "x1"
    code, _, err = predict(path, "--id", "cod")
    assert code == 2
    assert "did you mean 'code'?" in err


def test_an_ending_that_says_nothing_is_refused_before_the_work(predict, tmp_path):
    code, _, err = predict(asked(tmp_path, "a,1,low"), "--out", tmp_path / "answers.txt")
    assert code == 2
    assert "one of: .jsonl, .ndjson, .json, .csv, .tsv" in err


def frames():
    columns = {"x": [row[1] for row in ROWS], "level": [row[2] for row in ROWS]}
    yield polars.DataFrame(columns)
    yield polars.DataFrame(columns, schema={"x": polars.Int8, "level": polars.Categorical}).lazy()
    try:
        import pandas
    except ImportError:
        return
    yield pandas.DataFrame(columns)
    yield pandas.DataFrame(columns).astype({"x": "Int64", "level": "category"})


@pytest.mark.parametrize("frame", list(frames()), ids=lambda frame: f"{type(frame).__module__.split('.')[0]}")
def test_data_frames_answer_as_records_do(model, frame):
    records = [{"x": x, "level": level} for _, x, level, _ in ROWS]
    expected = model.predict(records)
    answers = model.predict(frame)
    assert [answer["label"] for answer in answers] == [answer["label"] for answer in expected]
    assert np.allclose([answer["confidence"] for answer in answers], [answer["confidence"] for answer in expected])


def test_records_rows_and_a_mapping_alone(model):
    (alone,) = model.predict({"x": 3, "level": "low"})
    mixed = model.predict([{"x": 3, "level": "low"}, (3, "low"), np.array([3, "low"], dtype=object)])
    assert all(one["label"] == alone["label"] for one in mixed)
    with pytest.raises(RecordError, match="field 'x' is 'much'"):
        model.predict([("much", "low")])
    with pytest.raises(sonde.UserError, match="one value alone"):
        model.predict([5])


def test_frames_keep_dates_gaps_and_files():
    frame = polars.DataFrame({"when": ["2024-05-31", None], "n": [1, None], "f": [0.5, None], "on": [True, None]})
    frame = frame.with_columns(polars.col("when").str.to_date())
    found = given.frame_of(frame)
    assert found is not None
    assert found["when"].dtype == np.dtype("datetime64[us]")
    assert np.isnat(found["when"][1])
    assert np.isnan(found["n"][1])
    assert np.isnan(found["f"][1])
    assert found["on"].tolist() == [True, None]
    assert given.frame_of([1, 2]) is None
