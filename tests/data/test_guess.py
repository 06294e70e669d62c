"""What `sonde new` is told: exactly one source knows each real data set, and the task that it suggests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars
import pytest

from sonde.base.errors import UserError
from sonde.base.lookup import find, kinds
from sonde.contracts.records import Records
from sonde.data.source import Guess, Source
from sonde.data.sources import _roles
from sonde.data.sources.table import Table

REAL = {
    "flowers5": ("class-folders", {"image"}, "category"),
    "fsdd_4speakers": ("table", {"audio"}, "category"),
    "sms_spam": ("table", {"text"}, "category"),
    "sms_spam/sms.tsv": ("table", {"text"}, "category"),
    "ag_news_small": ("table", {"text"}, "category"),
    "california_housing": ("table", {"table"}, "number"),
    "titanic": ("table", {"table"}, "category"),
    "hippocampus3d": ("volumes", {"volume"}, "mask"),
    "camvid_small": ("masks", {"image"}, "mask"),
    "fashion_mnist": ("idx", {"image"}, "category"),
    "tinyshakespeare": ("text-files", {"text"}, "next-token"),
    "tinyshakespeare/input.txt": ("text-files", {"text"}, "next-token"),
    "openmoji_captions": ("table", {"image"}, "sequence"),
    "multi30k_en_de": ("parallel-text", {"text"}, "sequence"),
    "esol": ("table", {"molecule"}, "number"),
    "cora": ("node-graph", {"nodes"}, "category"),
    "bccd": ("voc", {"image"}, "boxes"),
    "omniglot_small1": ("class-folders", {"image"}, "category"),
    "ud_english_partut": ("tagged-text", {"text"}, "tags"),
    "ud_english_partut/en_partut-ud-dev.conllu": ("tagged-text", {"text"}, "tags"),
}
# Formats that no source reads yet: none may claim them.
OTHERS = ["ucr_small"]


def recognising(path: Path) -> list[str]:
    """Those that know a path, without the ones that are asked only where no distinct format is recognised."""
    found = {name: source for name in kinds("sources") if (source := find("sources", name, Source)).recognise(path)}
    return [name for name, source in found.items() if source.distinct] or [*found]


def real(shared: Path, name: str, target: str | None = None) -> Guess:
    (kind,) = recognising(shared / name)
    return find("sources", kind, Source).guess(shared / name, target)


@pytest.mark.parametrize("name", REAL)
def test_exactly_one_source_knows_it(shared: Path, name: str) -> None:
    kind, inputs, target = REAL[name]
    assert recognising(shared / name) == [kind]
    guess = real(shared, name)
    assert set(guess.inputs) == inputs
    assert guess.target["kind"] == target
    assert guess.data["kind"] == kind
    source = find("sources", kind, Source)
    options = {key: value for key, value in guess.data.items() if key not in ("source", "split")}
    assert len(source.read(shared / name, source.Config(**options))) == guess.count


@pytest.mark.parametrize("name", OTHERS)
def test_nobody_claims_what_is_not_read(shared: Path, name: str) -> None:
    assert recognising(shared / name) == []


def test_every_source_knows_its_own_sample_alone(tmp_path: Path) -> None:
    for name in kinds("sources"):
        folder = tmp_path / name
        folder.mkdir()
        assert recognising(find("sources", name, Source).sample(folder)) == [name]


def test_housing_and_passengers(shared: Path) -> None:
    guess = real(shared, "california_housing")
    assert guess.target == {"kind": "number", "field": "median_house_value"}
    assert len(guess.inputs["table"]["fields"]) == 9
    assert real(shared, "california_housing", "ocean_proximity").target["kind"] == "category"
    guess = real(shared, "titanic")
    assert guess.target["field"] == "Survived"
    assert guess.inputs["table"]["fields"] == ["Pclass", "Sex", "Age", "SibSp", "Parch", "Fare", "Embarked"]
    assert guess.notes["inputs.table.fields"] == (
        "left out: PassengerId (names records), Name (names records), Ticket (names records), Cabin (names records)"
    )
    assert guess.data["split"] == {"by": "stratified", "validation": 0.1, "test": 0.1}


def test_texts_and_files(shared: Path) -> None:
    guess = real(shared, "ag_news_small")
    assert guess.inputs["text"] == {"kind": "text", "field": "title", "also": ["description"]}
    assert guess.data["split"] == {"by": "given", "validation": 0.1}
    guess = real(shared, "sms_spam")
    assert guess.data["columns"] == ["label", "text"]
    assert (guess.data["header"], guess.data["quoting"]) == (False, False)
    guess = real(shared, "fsdd_4speakers")
    assert guess.inputs["audio"] == {"kind": "audio", "field": "path"}
    assert guess.target["field"] == "label"
    guess = real(shared, "openmoji_captions")
    assert guess.inputs["image"]["field"] == "file_name"
    assert guess.target["field"] == "caption"
    guess = real(shared, "openmoji_captions", "tags")
    assert guess.target == {"kind": "labels", "field": "tags", "separator": ",", "min_count": 10}


def test_a_prediction_among_the_columns_is_left_out(shared: Path, tmp_path: Path) -> None:
    # Beside molecules all that is computed from them is left out: without them the prediction stands for itself.
    rows = polars.read_csv(shared / "esol" / "delaney-processed.csv").drop("smiles")
    rows.write_csv(tmp_path / "rows.csv")
    guess = Table.guess(tmp_path / "rows.csv", None)
    assert guess.target["field"] == "measured log solubility in mols per litre"
    assert not any("predicted" in name for name in guess.inputs["table"]["fields"])
    assert guess.warnings[0].startswith(
        "'ESOL predicted log solubility in mols per litre' is named a prediction (correlation 0.91), and was left out: "
    )


def roles(target: str | None = None, **fields: object) -> _roles.Roles:
    columns = {}
    for name, values in fields.items():
        columns[name] = np.array(values, dtype=object if isinstance(values[0], (str, list, type(None))) else None)
        if isinstance(values[0], list):
            columns[name] = np.empty(len(values), dtype=object)
            columns[name][:] = values
    count = len(next(iter(columns.values())))
    return _roles.guess(Records(fields=columns, ids=[f"row {i}" for i in range(count)]), target)


RNG = np.random.default_rng(0)
X = RNG.normal(size=200)
KIND = ["ant", "bee"] * 100


def test_the_column_to_learn() -> None:
    assert roles(y=KIND, x=X).target == {"kind": "category", "field": "y"}
    assert roles(x=X, unit_price=X + RNG.normal(size=200), z=X).target == {"kind": "number", "field": "unit_price"}
    assert roles(x=X, kind=KIND).target["field"] == "kind"
    assert roles("x", x=X, kind=KIND).target == {"kind": "number", "field": "x"}
    assert roles(x=X, label=np.arange(200) % 7).target["kind"] == "category"
    assert roles(x=X, label=np.arange(200) % 20).notes["target.kind"] == (
        "20 different whole numbers; for a quantity: number"
    )
    assert roles(x=X, count=np.arange(200) % 150).target["kind"] == "number"
    assert roles(x=X, tags=[["a"], ["a", "b"]] * 100).target == {"kind": "labels", "field": "tags"}
    assert roles(x=X, tags=["a;b", "a", "b;c", "c"] * 50).target == {
        "kind": "labels",
        "field": "tags",
        "separator": ";",
    }
    many = [";".join(f"t{number}" for number in {i % 5, i % 5 + 5, 20 + i}) for i in range(60)]
    found = roles(x=X[:60], label=KIND[:60], genres=many)
    assert found.target["field"] == "label"
    assert found.notes["inputs.table.fields"] == "left out: genres (lists or objects)"
    found = roles("genres", x=X[:60], genres=many)
    assert found.target == {"kind": "labels", "field": "genres", "separator": ";", "min_count": 10}
    assert found.notes["target.min_count"] == "60 of 70 labels are rarer, and are ignored"


def test_columns_to_learn_from() -> None:
    found = roles(
        label=KIND,
        row=np.arange(200),
        customer_id=RNG.integers(0, 90, 200),
        acid=RNG.permutation(10_000)[:200],
        same=["x"] * 200,
        name=[f"n{number}" for number in range(200)],
        note=[f"the {number} th of the long notes" for number in range(200)],
        x=X,
    )
    assert found.inputs == {
        "text": {"kind": "text", "field": "note"},
        "table": {"kind": "table", "fields": ["acid", "x"]},
    }
    assert found.notes["inputs.table.fields"] == (
        "left out: row (names records), customer_id (names records), same (one value), name (names records)"
    )
    assert found.warnings == [
        'records share a \'customer_id\': if new ones bring their own, split = { by = "group", field = "customer_id" }'
    ]
    # Where only names are left, they are what is learnt from.
    found = roles(label=KIND, name=[f"n{number}" for number in range(200)])
    assert found.inputs == {"text": {"kind": "text", "field": "name"}}


def test_leaks_are_left_out_and_doubted() -> None:
    found = roles("price", price=X, cents=X * 100, other=RNG.normal(size=200))
    assert found.inputs["table"]["fields"] == ["other"]
    assert found.warnings == [
        "'cents' repeats the target (correlation 1.000), and was left out: is it known when 'price' is asked for?"
    ]
    code = np.array([0.0, 1.0] * 100)
    found = roles(label=KIND, code=code, x=X)
    assert found.inputs["table"]["fields"] == ["x"]
    assert found.warnings[0].startswith("'code' alone tells 100.0% of the classes, and was left out")
    # The last column is never taken away.
    assert roles(label=KIND, code=code).inputs["table"]["fields"] == ["code"]
    # A value that is missing with one class only tells it too.
    seen = [None if kind == "ant" else str(number % 4) for number, kind in enumerate(KIND)]
    assert roles(label=KIND, seen=seen, x=X).inputs["table"]["fields"] == ["x"]


def test_splits_and_doubts() -> None:
    parts = ["train", "dev"] * 90 + ["test"] * 20
    assert roles(x=X, label=KIND, split=parts).split == {"by": "given"}
    assert roles(x=X, label=KIND, fold=parts).split == {"by": "given", "field": "fold"}
    assert roles(x=X, label=KIND, split=[*parts[:-1], "none"]).split == {"by": "given"}
    found = roles(x=X, label=["ant"] * 180 + ["bee"] * 20, split=parts)
    assert found.warnings == ["there is the class 'bee' of 'label' without a training row"]
    found = roles(x=X, label=["ant"] * 199 + ["bee"])
    assert found.split == {"by": "stratified", "rare": "train", "validation": 0.1, "test": 0.1}
    assert found.warnings == [
        "there is the class 'bee' of 'label' with fewer than 3 rows: all of them train, and no score tells how well "
        "they are learned"
    ]
    day = np.datetime64("2024-01-01", "us") + np.arange(200).astype("timedelta64[D]")
    assert roles(x=X, y=X + RNG.normal(size=200), day=day).warnings == [
        '\'day\' is a time: if later records are to be predicted, split = { by = "time", field = "day" }'
    ]
    holes = np.where(np.arange(200) < 2, np.nan, X + RNG.normal(size=200))
    found = roles(x=X, y=holes)
    assert found.data == {"drop_unlabelled": True}
    assert found.notes["data.drop_unlabelled"] == "left out: 2 of 200 rows, without a value in 'y'"
    most = np.where(np.arange(200) < 150, np.nan, X + RNG.normal(size=200))
    assert roles(x=X, y=most).warnings == ["150 of 200 rows have no value in 'y', and are left out"]


def fails(target: str | None = None, **fields: object) -> str:
    with pytest.raises(UserError) as caught:
        roles(target, **fields)
    return str(caught.value)


def test_errors() -> None:
    assert fails("pric", x=X, price=X) == (
        "--target: the column 'pric' does not exist. Expected one of: price, x. hint: did you mean 'price'?"
    )
    assert fails("same", x=X, same=["a"] * 200) == (
        "the column 'same' has one value in all rows: there is nothing to learn."
    )
    names = [f"n{number}" for number in range(200)]
    assert fails("name", x=X, name=names) == (
        "the column 'name' has 200 different texts in 200 rows. Expected a column of classes or numbers to learn."
    )
    assert fails(name=names) == (
        "none of the columns looks like something to learn: name (names records). "
        "Expected a column of classes or numbers. hint: sonde new --target names it"
    )
    assert fails(label=KIND) == (
        "there is no column to learn 'label' from. Expected columns with numbers, categories, texts or file names."
    )


def test_what_is_missing_or_infinite_is_told() -> None:
    found = roles(label=[None, *KIND[1:]], x=np.where(np.arange(200) == 7, np.inf, X))
    assert found.data == {"drop_unlabelled": True}
    assert found.warnings == ["'x' has an infinite value: such rows are unreadable"]
    prices = np.where(np.arange(200) == 9, np.inf, X)
    assert roles("price", price=prices, x=X, y=RNG.normal(size=200)).target["kind"] == "number"
    assert fails("x", x=X, note=[["a"]] * 200, same=["a"] * 200) == (
        "there is no column to learn 'x' from: note (lists or objects), same (one value). "
        "Expected columns with numbers, categories, texts or file names."
    )


def test_headers_are_seen(tmp_path: Path) -> None:
    table = find("sources", "table", Source)
    rows = "".join(f"{x:.3f},{kind}\n" for x, kind in zip(X, KIND, strict=True))
    for content, names in (
        (rows, ["column_1", "label"]),
        ("x,kind\n" + rows, None),
        ("0,1\n" + rows, None),  # numbered, as unnamed columns are when written
        (f"x,{KIND[0]}\n" + rows, None),  # over numbers, though the other column has its name as a value
    ):
        (tmp_path / "a.csv").write_text(content)
        guess = table.guess(tmp_path / "a.csv", None)
        assert guess.data.get("columns") == names
        assert guess.count == 200


def test_a_manifest_of_sounds(tmp_path: Path) -> None:
    lines = [f'{{"audio_filepath": "wav/{n}.wav", "duration": {n / 7}, "label": "{n % 2}"}}\n' for n in range(12)]
    (tmp_path / "manifest.jsonl").write_text("".join(lines))
    for number in range(12):
        (tmp_path / "wav").mkdir(exist_ok=True)
        (tmp_path / "wav" / f"{number}.wav").touch()
    assert recognising(tmp_path) == ["table"]
    guess = find("sources", "table", Source).guess(tmp_path, None)
    assert guess.inputs == {"audio": {"kind": "audio", "field": "audio_filepath"}}
    assert guess.target == {"kind": "category", "field": "label"}
    assert guess.notes["inputs.audio.field"] == "left out: duration (is about the file)"
    (tmp_path / "wav").rename(tmp_path / "elsewhere")
    assert find("sources", "table", Source).guess(tmp_path, None).data["folders"] == {"audio_filepath": "elsewhere"}
    for file in (tmp_path / "elsewhere").iterdir():
        file.unlink()
    with pytest.raises(UserError) as caught:
        find("sources", "table", Source).guess(tmp_path, None)
    assert str(caught.value).replace(str(tmp_path), "ROOT") == (
        "none of the files is there that column 'audio_filepath' of ROOT/manifest.jsonl names. Expected files in the "
        "table's folder or in folders within it. hint: looked for 'wav/0.wav', with and without an ending, in .; "
        "data.folders names another folder"
    )


def test_targets_of_well_known_tables() -> None:
    noise = RNG.normal(size=(4, 200))
    # y is a length beside x and z; a whole name speaks before a word of one; when and where are no answers.
    assert roles(price=noise[0], x=noise[1], y=noise[2], z=noise[3]).target["field"] == "price"
    assert roles(x=noise[1], y=noise[2]).target["field"] == "y"
    assert roles(price=noise[0], min_price=noise[1], max_price=noise[2]).target["field"] == "price"
    assert roles(default=KIND, balance=noise[0], income=noise[1]).target["field"] == "default"
    assert roles(wage=noise[0], tenure=noise[1]).target["field"] == "wage"
    assert roles(wage=["low", "high"] * 100, left=KIND).target["field"] == "left"
    assert roles(temp=noise[0], month=np.arange(200) % 12, day=np.arange(200) % 30).target["field"] == "temp"
    assert roles(kind=KIND, latitude=noise[0], longitude=noise[1]).target["field"] == "kind"
    # One rare class does not make another column the target; many classes, some of them rare, are names.
    assert roles(place=KIND, kind=[*KIND[1:], "wasp"]).target["field"] == "kind"
    names = [f"n{number // 8}" for number in range(199)] + ["once"]
    assert roles(x=noise[0], kind=KIND, name=names).target["field"] == "kind"


def test_copies_of_the_target_by_rank() -> None:
    wage = np.exp(RNG.normal(size=200))
    found = roles("wage", wage=wage, lwage=np.log(wage), x=X)
    assert found.inputs["table"]["fields"] == ["x"]
    assert found.warnings[0].startswith("'lwage' repeats the target (correlation of ranks 1.000), and was left out")


def test_values_missing_in_a_few_rows_do_not_stop_a_run() -> None:
    holes = np.where(np.arange(200) == 7, np.nan, X)
    assert roles(x=holes, label=KIND).inputs["table"] == {"kind": "table", "fields": ["x"], "allow_missing": True}
