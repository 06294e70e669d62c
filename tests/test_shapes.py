"""Each shape of problem as a new user meets it: `sonde new`, `fit` and `predict`, on real data in miniature."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import struct

import pytest

from sonde import cli

METRICS = {
    "category": {"accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "log_loss"},
    "number": {"mae", "rmse", "r2"},
    "next-token": {"loss", "perplexity"},
    "mask": {"miou", "pixel_accuracy"},
    "labels": {"mean_average_precision", "micro_f1", "subset_accuracy", "f1/0"},
}


@pytest.fixture
def sonde(monkeypatch, capsys):
    """Run a command in this process; give its exit code, standard output and standard error."""

    def run(*words):
        monkeypatch.setattr("sys.argv", ["sonde", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return run


def few_folders(source, place, each):
    """The first files of every class folder."""
    for path in sorted(source.rglob("*")):
        if path.is_dir() and any(one.is_file() for one in path.iterdir()):
            target = place / path.relative_to(source)
            target.mkdir(parents=True)
            for one in sorted(path.iterdir())[:each]:
                shutil.copy(one, target)
    return place


def flowers(shared, place):
    return few_folders(shared / "flowers5", place / "flowers", 12)


def camvid(shared, place):
    return few_folders(shared / "camvid_small", place / "camvid", 16)


def spoken(shared, place):
    lines = (shared / "fsdd_4speakers" / "manifest.csv").read_text().splitlines()
    chosen = [lines[0], *lines[1::8]]
    (place / "digits" / "wav").mkdir(parents=True)
    for line in chosen[1:]:
        name = line.split(",")[0]
        (place / "digits" / name).parent.mkdir(exist_ok=True)
        shutil.copy(shared / "fsdd_4speakers" / name, place / "digits" / name)
    (place / "digits" / "manifest.csv").write_text("\n".join(chosen) + "\n")
    return place / "digits"


def sms(shared, place):
    lines = (shared / "sms_spam" / "sms.tsv").read_text(encoding="utf-8").split("\n")[:400]
    (place / "sms.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return place / "sms.tsv"


def titanic(shared, place):
    return shared / "titanic" / "titanic.csv"


def housing(shared, place):
    lines = (shared / "california_housing" / "housing.csv").read_text().splitlines()
    (place / "housing.csv").write_text("\n".join(lines[:600]) + "\n")
    return place / "housing.csv"


def shakespeare(shared, place):
    (place / "input.txt").write_text((shared / "tinyshakespeare" / "input.txt").read_text()[:40_000])
    return place / "input.txt"


def fashion(shared, place):
    """The first 300 and 100 pictures, as idx files of their own."""
    (place / "idx").mkdir()
    for name, count in (("train", 300), ("t10k", 100)):
        images = gzip.decompress((shared / "fashion_mnist" / f"{name}-images-idx3-ubyte.gz").read_bytes())
        labels = gzip.decompress((shared / "fashion_mnist" / f"{name}-labels-idx1-ubyte.gz").read_bytes())
        header = images[:4] + struct.pack(">I", count) + images[8:16]
        (place / "idx" / f"{name}-images-idx3-ubyte").write_bytes(header + images[16 : 16 + count * 784])
        (place / "idx" / f"{name}-labels-idx1-ubyte").write_bytes(
            labels[:4] + struct.pack(">I", count) + labels[8:][:count]
        )
    return place / "idx"


def pairs(shared, place):
    """Two garments side by side in one picture, and what they are."""
    from PIL import Image

    pixels = gzip.decompress((shared / "fashion_mnist" / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((shared / "fashion_mnist" / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    (place / "pairs").mkdir()
    rows = []
    for number in range(0, 300, 2):
        picture = Image.new("L", (56, 28))
        for side in (0, 1):
            at = (number + side) * 784
            picture.paste(Image.frombytes("L", (28, 28), pixels[at : at + 784]), (28 * side, 0))
        picture.save(place / "pairs" / f"{number}.png")
        rows.append((f"{number}.png", sorted({labels[number], labels[number + 1]})))
    return rows


def pairs_jsonl(shared, place):
    rows = [json.dumps({"path": name, "labels": found}) for name, found in pairs(shared, place)]
    (place / "pairs" / "manifest.jsonl").write_text("\n".join(rows) + "\n")
    return place / "pairs"


def pairs_csv(shared, place):
    rows = [f"{name},{';'.join(map(str, found))}" for name, found in pairs(shared, place)]
    (place / "pairs" / "manifest.csv").write_text("\n".join(["path,tags", *rows]) + "\n")
    return place / "pairs"


SHAPES = {
    "class folders": (flowers, "category", "image"),
    "idx": (fashion, "category", "image"),
    "masks": (camvid, "mask", "image"),
    "manifest, lists": (pairs_jsonl, "labels", "image"),
    "manifest, lists in texts": (pairs_csv, "labels", "image"),
    "manifest": (spoken, "category", "audio"),
    "messages": (sms, "category", "text"),
    "table, category": (titanic, "category", "table"),
    "table, number": (housing, "number", "table"),
    "plain text": (shakespeare, "next-token", "text"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_new_fit_predict(name, shared, tmp_path, sonde):
    make, target, given = SHAPES[name]
    data = make(shared, tmp_path)
    recipe, run = tmp_path / "recipe.toml", tmp_path / "run"

    code, out, err = sonde("new", data, "--out", recipe)
    assert code == 0, err
    assert f'kind = "{target}"' in recipe.read_text()
    assert f'kind = "{given}"' in recipe.read_text()

    changes = ["--set", "training.steps=3", *(["--set", "target.generate.tokens=12"] if target == "next-token" else [])]
    code, out, err = sonde("fit", recipe, "--out", run, *changes, "--json")
    assert code == 0, err
    line = json.loads(out.splitlines()[-1])
    assert set(line) == {"run", "artifact", "scores", "seconds"}
    # So few records leave none to validate with.
    assert "test" in line["scores"]
    for split in line["scores"]:
        assert METRICS[target] <= set(line["scores"][split])
    for file in ("recipe.toml", "snapshot.json", "log.jsonl", "scores.json", "model/card.json", "model/MANIFEST.json"):
        assert (run / file).is_file()

    question, count = asked(given, target, data, tmp_path)
    code, out, err = sonde("predict", run, question, "--out", tmp_path / "answers.jsonl")
    assert code == 0, err
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert len(answers) == count
    key = {"category": "label", "number": "value", "mask": "mask", "next-token": "text", "labels": "labels"}[target]
    assert all(key in answer for answer in answers), answers[0]


def asked(given, target, data, place):
    """What to predict for, and how many answers to expect."""
    if given == "table":
        lines = data.read_text().splitlines()[:6]
        (place / "asked.csv").write_text("\n".join(lines) + "\n")
        return place / "asked.csv", 5
    if given == "text":
        (place / "asked.jsonl").write_text('{"text": "First Citizen"}\n{"text": "win a free prize now"}\n')
        return place / "asked.jsonl", 2
    if target == "labels":
        (place / "asked.jsonl").write_text('{"path": "pairs/0.png"}\n{"path": "pairs/2.png"}\n')
        return place / "asked.jsonl", 2
    if data.name == "idx":
        from PIL import Image

        Image.new("L", (40, 30)).save(place / "one.png")
        return place / "one.png", 1
    folder = {"image": "flowers", "audio": "digits/wav"}[given] if target != "mask" else "camvid/test"
    return place / folder, sum(each.is_file() for each in (place / folder).rglob("*"))


def test_rows_are_predicted_as_the_training_data_was_read(shared, tmp_path, sonde):
    data = sms(shared, tmp_path)
    sonde("new", data, "--out", tmp_path / "recipe.toml")
    assert sonde("fit", tmp_path / "recipe.toml", "--out", tmp_path / "run", "--set", "training.steps=1")[0] == 0
    lines = data.read_text(encoding="utf-8").split("\n")[:40]
    texts = [line.split("\t")[1] for line in lines]

    def answers(name, content):
        (tmp_path / name).write_text(content, encoding="utf-8")
        code, out, err = sonde("predict", tmp_path / "run", tmp_path / name)
        assert code == 0, err
        return [json.loads(line)["probabilities"] for line in out.splitlines()]

    whole = answers("whole.tsv", "\n".join(lines))
    assert len(whole) == 40
    # Quotes are texts here, whether the label, a header or both are there or not.
    lines[3] = lines[3] + ' "and'
    quoted = answers("whole.tsv", "\n".join(lines))
    assert quoted[:3] == whole[:3]
    texts[3] += ' "and'
    assert answers("texts.tsv", "\n".join(texts)) == quoted
    assert answers("header.tsv", "\n".join(["text", *texts])) == quoted
    assert answers("both.tsv", "\n".join(["label\ttext", *lines])) == quoted
    # Other files are read as such files are.
    assert answers("rows.jsonl", "\n".join(json.dumps({"text": text}) for text in texts)) == quoted
    rows = ['"' + text.replace('"', '""') + '"' for text in texts]
    assert answers("rows.csv", "\n".join(["text", *rows])) == quoted


def test_a_bad_file_is_named_and_the_others_are_answered(shared, tmp_path, sonde):
    data = flowers(shared, tmp_path)
    sonde("new", data, "--out", tmp_path / "recipe.toml")
    assert sonde("fit", tmp_path / "recipe.toml", "--out", tmp_path / "run", "--set", "training.steps=1")[0] == 0
    asked = tmp_path / "asked"
    asked.mkdir()
    for number, path in enumerate(sorted((data / "test" / "rose").iterdir())[:3]):
        shutil.copy(path, asked / f"{number}.jpg")
    (asked / "1.jpg").write_bytes((asked / "1.jpg").read_bytes()[:300])
    code, out, err = sonde("predict", tmp_path / "run", asked)
    assert code == 2
    answers = [json.loads(line) for line in out.splitlines()]
    assert [("error" in each) for each in answers] == [False, True, False]
    assert "1 of 3 inputs could not be read: 1.jpg" in err


def test_unreadable_records_are_listed_and_skipped_when_few(shared, tmp_path, sonde):
    data = flowers(shared, tmp_path)
    broken = sorted((data / "train" / "rose").iterdir())[0]
    broken.write_bytes(b"")
    sonde("new", data, "--out", tmp_path / "recipe.toml")
    command = ("fit", tmp_path / "recipe.toml", "--set", "training.steps=1", "--out")
    code, _, err = sonde(*command, tmp_path / "strict", "--set", "data.max_unreadable=0")
    assert code == 2
    assert re.search(r"1 of \d+ records cannot be read", err)
    assert broken.name in err
    assert "data.max_unreadable" in err
    assert not (tmp_path / "strict").exists()
    code, _, err = sonde(*command, tmp_path / "lenient", "--set", "data.max_unreadable=0.1")
    assert code == 0, err
    assert f"skipped train/rose/{broken.name}" in err
    assert broken.name in (tmp_path / "lenient" / "log.jsonl").read_text()
