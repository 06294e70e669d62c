"""What newcomers bring: each layout goes through `new` and `fit` as it is, and learns the right thing from it."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sonde
from sonde import stages
from sonde.commands.new import NewRecipe, write_recipe
from sonde.commands.predict import predict
from sonde.recipe import Recipe

COUNT = 40
KINDS = ["ant", "bee"]
QUICK = ["training.steps=3", "training.batch_size=8"]


def rows(count: int = COUNT) -> list[dict[str, object]]:
    """Records whose label follows from x; the last column is no target."""
    rng = np.random.default_rng(0)
    return [
        {"x": round(float(rng.normal()) + 3 * (n % 2), 3), "place": "pond" if n % 3 else "wood", "kind": KINDS[n % 2]}
        for n in range(count)
    ]


def csv_of(records: list[dict[str, object]], separator: str = ",") -> str:
    lines = [list(records[0]), *(list(record.values()) for record in records)]
    return "".join(separator.join(map(str, line)) + "\n" for line in lines)


def picture(path: Path, label: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(str(path).encode()))
    Image.fromarray((rng.integers(0, 90, (8, 8, 3)) + 140 * label).astype(np.uint8)).save(path)


def sentence(n: int, more: str) -> str:
    """No two alike in the words that come again."""
    words = ["caf\u00e9", "line", "deep", "sea", "boat", "wave", "shore", "wind", "sail", "rope", "net", "fish", "salt"]
    return " ".join([KINDS[n % 2], *np.random.default_rng(zlib.crc32(f"{n}{more}".encode())).choice(words, 9)])


def new(path: Path, target: str | None = None) -> NewRecipe:
    return write_recipe(str(path), path.parent / "recipe.toml", target=target)


def run(made: NewRecipe, *changes: str) -> sonde.Run:
    found = sonde.fit(Recipe.read(made.path, changes=[*QUICK, *changes]), out=made.path.parent / "run")
    assert found.scores["test"]
    return found


def bare_names(root: Path, ending: str) -> Path:
    data = root / "data"
    for n in range(COUNT):
        picture(data / "train_images" / f"{n // 10}" / f"a{n:03d}.jpg", n % 2)
        picture(data / "test_images" / f"b{n:03d}.jpg", n % 2)
    listed = "".join(f"a{n:03d}{ending},{KINDS[n % 2]}\n" for n in range(COUNT))
    (data / "train.csv").write_text("image_id,label\n" + listed)
    (data / "test.csv").write_text("image_id\n" + "".join(f"b{n:03d}{ending}\n" for n in range(COUNT)))
    (data / "sample_submission.csv").write_text("image_id,label\n" + f"b000{ending},ant\n")
    return data


@pytest.mark.parametrize("ending", ["", ".jpg"])
def test_bare_names_beside_a_folder(tmp_path: Path, ending: str) -> None:
    data = bare_names(tmp_path, ending)
    made = new(data)
    assert made.sections["data"]["folders"] == {"image_id": "train_images"}
    assert made.sections["data"]["files"] == ["train.csv"]
    text = made.to_text()
    assert "image_id: names of image files in train_images/ (all 40 are there)" in text
    assert (
        "left out  test.csv (has no column 'label': nothing to score by), sample_submission.csv (no part of the data)"
    ) in text
    found = run(made)
    answers = list(predict(sonde.load(found.artifact), [data / "test.csv"]))
    assert len(answers) == COUNT
    assert all(answer["label"] in KINDS for answer in answers)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    data = bare_names(tmp_path, ".png")
    for file in (data / "train_images").rglob("a*.jpg"):
        file.unlink()
    with pytest.raises(sonde.UserError) as caught:
        new(data)
    assert str(caught.value).replace(str(data), "DATA") == (
        "none of the files is there that column 'image_id' of DATA/train.csv names. Expected files in the table's "
        "folder or in folders within it. hint: looked for 'a000.png', with and without an ending, in ., test_images; "
        "data.folders names another folder"
    )
    assert not (tmp_path / "recipe.toml").exists()


def test_numbers_that_name_pictures(tmp_path: Path) -> None:
    """1.png in train and in test: that of the table's name is meant."""
    for n in range(1, COUNT + 1):
        picture(tmp_path / "data" / "train" / f"{n}.png", n % 2)
        picture(tmp_path / "data" / "test" / f"{n}.png", n % 2)
    listed = "".join(f"{n},{KINDS[n % 2]}\n" for n in range(1, COUNT + 1))
    (tmp_path / "data" / "trainLabels.csv").write_text("id,label\n" + listed)
    made = new(tmp_path / "data")
    assert made.sections["data"]["folders"] == {"id": "train"}
    assert made.sections["inputs"]["image"]["field"] == "id"
    run(made)


def test_texts_that_a_table_names(tmp_path: Path) -> None:
    for n in range(COUNT):
        (tmp_path / "data" / "texts").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "texts" / f"{n}.txt").write_text(sentence(n, "table"))
    table = [{"doc": f"{n}.txt", "length": n % 5, "kind": KINDS[n % 2]} for n in range(COUNT)]
    (tmp_path / "data" / "texts.csv").write_text(csv_of(table))
    made = new(tmp_path / "data")
    assert {name: one["field"] for name, one in made.sections["inputs"].items()} == {"text": "doc"}
    run(made)


@pytest.mark.parametrize("split", ["", "train/"])
def test_a_folder_of_texts_for_each_class(tmp_path: Path, split: str) -> None:
    for n in range(COUNT):
        for part in {split, split and "test/"}:
            file = tmp_path / "data" / f"{part}{KINDS[n % 2]}" / f"{n}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            content = sentence(n, part)
            file.write_bytes(content.encode("latin-1" if n % 4 == 0 else "utf-8"))
    (tmp_path / "data" / f"{split}empty").mkdir()
    made = new(tmp_path / "data")
    assert made.sections["inputs"]["text"]["field"] == "file"
    assert f"left out  {split}empty/ (empty)" in made.to_text()
    found = run(made)
    assert sonde.load(found.artifact).predict([tmp_path / "data" / f"{split}ant" / "0.txt"])[0]["label"] in KINDS


def masks(root: Path, picture_of: str, mask_of: str, colours: list[object]) -> None:
    for n in range(12):
        mask = np.zeros((16, 16), np.uint8)
        mask[n:, : n + 2] = 1
        pixels = (np.stack([mask * 150] * 3, 2) + n).astype(np.uint8)
        for name, values in ((picture_of, pixels), (mask_of, np.array(colours, np.uint8)[mask])):
            path = root / name.format(n)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)


def test_masks_in_colours(tmp_path: Path) -> None:
    data = tmp_path / "data"
    masks(data, "images/{}.png", "masks/{}.png", [[128, 64, 128], [0, 0, 192]])
    (data / "class_dict.csv").write_text("name,r,g,b\nroad,128,64,128\nwalk,0,0,192\nbike,9,9,9\n")
    made = new(data)
    assert made.sections["target"]["palette"] == {"road": "#804080", "walk": "#0000c0", "bike": "#090909"}
    found = run(made, "training.batch_size=4")
    assert set(sonde.load(found.artifact).predict([data / "images" / "0.png"])[0]["shares"]) == {"road", "walk", "bike"}
    # Without names the colours are the names, which TOML wants in quotes.
    (data / "class_dict.csv").unlink()
    made = write_recipe(str(data), tmp_path / "recipe.toml", force=True)
    assert Recipe.read(made.path).target.palette == {"#0000c0": "#0000c0", "#804080": "#804080"}


def test_masks_beside_their_pictures(tmp_path: Path) -> None:
    masks(tmp_path / "data", "{}.jpg", "{}_mask.png", [0, 255])
    made = new(tmp_path / "data")
    assert made.sections["target"]["classes"] == ["background", "foreground"]
    run(made, "training.batch_size=4")


def workbook(path: Path, text: str) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    pytest.importorskip("fastexcel")
    book = openpyxl.Workbook()
    for number, record in enumerate(rows()):
        if not number:
            book.active.append(list(record))
        book.active.append(list(record.values()))
    book.save(path)


TABLES: dict[str, Callable[[Path, str], object]] = {
    "data.csv.gz": lambda path, text: path.write_bytes(gzip.compress(text.encode())),
    "data.json": lambda path, text: path.write_text(json.dumps(rows())),
    "data.xlsx": workbook,
    "data.tsv": lambda path, text: path.write_text(text.replace(",", "\t")),
    "utf16.csv": lambda path, text: path.write_bytes(text.replace("pond", "\u6c60").encode("utf-16")),
}


@pytest.mark.parametrize("name", TABLES)
def test_formats(tmp_path: Path, name: str) -> None:
    TABLES[name](tmp_path / name, csv_of(rows()))
    made = new(tmp_path / name)
    assert made.sections["target"]["field"] == "kind"
    assert list(made.sections["inputs"]["table"]["fields"]) == ["x", "place"]
    found = run(made)
    assert len(list(predict(sonde.load(found.artifact), [tmp_path / name]))) == COUNT


def test_latin_1_with_semicolons_and_decimal_commas(tmp_path: Path) -> None:
    places = ["M\u00fcnchen, Bayern", "K\u00f6ln"]
    table = [
        {"Gr\u00f6\u00dfe": str(row["x"]).replace(".", ","), "Ort": places[n % 3 == 0], "Art": row["kind"]}
        for n, row in enumerate(rows())
    ]
    (tmp_path / "data.csv").write_bytes(csv_of(table, ";").encode("latin-1"))
    made = new(tmp_path / "data.csv")
    assert made.sections["data"]["encoding"] == "cp1252"
    assert made.sections["data"]["decimal"] == ","
    assert "reads     the text as Western European (Windows-1252, Latin-1)" in made.to_text()
    assert made.sections["target"]["field"] == "Art"
    assert made.sections["inputs"]["table"]["fields"] == ["Gr\u00f6\u00dfe", "Ort"]
    found = run(made)
    columns = {column["field"]: column for column in sonde.load(found.artifact).task.inputs["table"].columns}
    assert columns["Gr\u00f6\u00dfe"]["kind"] == "number"
    assert columns["Ort"]["values"] == ["K\u00f6ln", "M\u00fcnchen, Bayern"]


@pytest.mark.parametrize("gap", ["", "NA", "?"])
def test_missing_targets(tmp_path: Path, gap: str) -> None:
    table = rows()
    for n in (3, 17):
        table[n]["kind"] = gap
    (tmp_path / "data.csv").write_text(csv_of(table))
    made = new(tmp_path / "data.csv")
    assert made.sections["data"]["drop_unlabelled"] is True
    assert "left out  2 of 40 rows, without a value in 'kind'" in made.to_text()
    assert "drop_unlabelled = true" in made.path.read_text()
    found = run(made)
    assert sonde.load(found.artifact).task.target.classes == KINDS


def test_one_ragged_row(tmp_path: Path) -> None:
    lines = csv_of(rows()).splitlines()
    lines[20] += ",more"
    (tmp_path / "data.csv").write_text("\n".join(lines) + "\n")
    made = new(tmp_path / "data.csv")
    assert made.sections["data"]["ragged"] == "skip"
    said = "skipped one row, which has too many or too few values: data.csv line 21"
    assert f"left out  {said}" in made.to_text()
    run(made)
    assert said in stages.load_data(Recipe.read(made.path)).notes


def test_rare_classes_train(tmp_path: Path) -> None:
    table = rows()
    table[5]["kind"] = "wasp"
    (tmp_path / "data.csv").write_text(csv_of(table))
    made = new(tmp_path / "data.csv")
    assert made.sections["data"]["split"]["rare"] == "train"
    assert "there is the class 'wasp' of 'kind' with fewer than 3 rows: all of them train" in made.to_text()
    found = run(made)
    assert sonde.load(found.artifact).task.target.classes == ["ant", "bee", "wasp"]


def test_a_column_of_nothing_but_rare_classes(tmp_path: Path) -> None:
    table = [{"x": n / 7, "kind": f"k{n // 2}"} for n in range(20)]
    (tmp_path / "data.csv").write_text(csv_of(table))
    with pytest.raises(sonde.UserError, match="10 of the 10 values in 'kind' have fewer than 3 rows"):
        new(tmp_path / "data.csv", "kind")


def test_pictures_and_columns_together(tmp_path: Path) -> None:
    table = []
    for n in range(COUNT):
        picture(tmp_path / "data" / "pictures" / f"{n}.png", n % 2)
        table.append({"file": f"pictures/{n}.png", "weight": n % 2 + n / 90, "noise": n * 7 % 11, "kind": KINDS[n % 2]})
    (tmp_path / "data" / "all.csv").write_text(csv_of(table))
    made = new(tmp_path / "data")
    inputs = made.sections["inputs"]
    assert inputs["image"]["field"] == "file"
    assert inputs["table"]["fields"] == ["weight"]
    text = made.to_text()
    assert "image and table are learned from together; to drop one, delete its two sections" in text
    assert "left out  noise (tells nothing of 'kind')" in text
    found = run(made)
    assert len(list(predict(sonde.load(found.artifact), [tmp_path / "data" / "all.csv"]))) == COUNT
    # As the comment says: one is dropped by deleting its two sections.
    kept = made.path.read_text().split("\n\n")
    kept = [part for part in kept if not part.startswith(("[inputs.table]", "[network.table]"))]
    made.path.write_text("\n\n".join(kept))
    again = sonde.fit(Recipe.read(made.path, changes=QUICK), out=tmp_path / "again")
    assert set(sonde.load(again.artifact).task.inputs) == {"image"}


def test_days_and_months(tmp_path: Path) -> None:
    table = [
        {"day of it": f"{1 + n % 28:02d}/{1 + n % 12:02d}/2020", "unclear": f"{1 + n % 12}/{1 + n % 11}/2020", **row}
        for n, row in enumerate(rows())
    ]
    (tmp_path / "data.csv").write_text(csv_of(table))
    made = new(tmp_path / "data.csv")
    assert made.sections["data"]["dates"] == {"day of it": "%d/%m/%Y"}
    text = made.to_text()
    assert "reads     day of it: '01/01/2020' with the day first (told by days past the twelfth)" in text
    assert "unclear (dates: day or month first? say so with data.dates)" in text
    assert made.sections["inputs"]["table"]["fields"] == ["day of it", "x", "place"]
    found = run(made)
    # In serving too, where one row shows nothing.
    (tmp_path / "one.csv").write_text("day of it,x,place\n03/04/2020,1.5,pond\n")
    assert len(list(predict(sonde.load(found.artifact), [tmp_path / "one.csv"]))) == 1
