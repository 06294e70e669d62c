"""Class folders, masks, text files, idx files and built-in sets: every layout, and what each error says."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sonde.base.errors import UserError
from sonde.data.source import Source
from sonde.data.sources import _mask_values
from sonde.data.sources.builtin import Builtin
from sonde.data.sources.class_folders import ClassFolders
from sonde.data.sources.idx import Idx
from sonde.data.sources.masks import Masks
from sonde.data.sources.text_files import TextFiles, TextFilesConfig


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def fails(source: type[Source], path: Path) -> str:
    with pytest.raises(UserError) as caught:
        source.read(path, source.Config())
    return str(caught.value).replace(str(path), "ROOT")


def test_class_folders(tmp_path: Path) -> None:
    root = touch(
        tmp_path, "b/2.PNG", "b/deep/1.jpg", "a/x.png", "a/.hidden.png", "a/notes.txt", "README.md", ".git/z.png"
    )
    assert ClassFolders.recognise(root)
    records = ClassFolders.read(root, ClassFolders.Config())
    assert records.ids == ["a/x.png", "b/2.PNG", "b/deep/1.jpg"]
    assert records.fields["label"].tolist() == ["a", "b", "b"]
    assert records.fields["file"][0] == root / "a" / "x.png"
    assert "split" not in records.fields


def test_class_folders_in_splits(tmp_path: Path) -> None:
    root = touch(
        tmp_path, "test/a/1.wav", "train/a/1.wav", "train/b/1.flac", "valid/b/1.wav", "dev/b/2.wav", "extra/x.txt"
    )
    assert ClassFolders.recognise(root)
    records = ClassFolders.read(root, ClassFolders.Config())
    assert dict(zip(records.ids, records.fields["split"], strict=True)) == {
        "train/a/1.wav": "train",
        "train/b/1.flac": "train",
        "dev/b/2.wav": "validation",
        "valid/b/1.wav": "validation",
        "test/a/1.wav": "test",
    }
    guess = ClassFolders.guess(root, None)
    assert guess.inputs == {"audio": {"kind": "audio", "field": "file"}}
    assert guess.data["split"] == {"by": "given"}
    assert guess.about == "5 sounds in 2 class folders"


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/1.png", "car/1.png")
    assert ClassFolders.recognise(root)
    assert ClassFolders.read(root, ClassFolders.Config()).fields["label"].tolist() == ["car", "train"]
    # But train and test with pictures right in them are no classes.
    assert not ClassFolders.recognise(touch(tmp_path / "other", "train/1.png", "test/1.png"))


def test_class_folders_guess(tmp_path: Path) -> None:
    root = touch(tmp_path, *[f"often/{number}.png" for number in range(30)], "rare/1.png", "rare/2.png")
    guess = ClassFolders.guess(root, None)
    assert guess.data["split"] == {"by": "stratified", "rare": "train", "validation": 0.1, "test": 0.1}
    assert guess.warnings == (
        "the class 'rare' has fewer than 3 records: all of them train, and no score tells how well they are learned",
    )
    touch(root, "rare/3.png")
    guess = ClassFolders.guess(root, "label")
    assert guess.data["split"] == {"by": "stratified", "validation": 0.1, "test": 0.1}
    assert guess.warnings == ("the class 'rare' has 3 records and 'often' has 30",)
    with pytest.raises(UserError, match="class folders have no field 'colour' to learn"):
        ClassFolders.guess(root, "colour")
    root = touch(tmp_path / "two", "train/a/1.png", "train/b/1.png", "val/a/1.png")
    guess = ClassFolders.guess(root, None)
    assert guess.data["split"] == {"by": "given", "test": 0.1}
    assert guess.warnings == ("there is no test split: a tenth of the training records becomes one",)


def test_class_folders_errors(tmp_path: Path) -> None:
    assert fails(ClassFolders, tmp_path / "no") == (
        "ROOT is not a folder. hint: data.source is relative to the recipe's folder"
    )
    assert fails(ClassFolders, tmp_path) == (
        "ROOT has no class folders. Expected a folder for each class, with pictures, sounds or texts in it."
    )
    root = touch(tmp_path, "a/1.png", "b/1.npy")
    text = fails(ClassFolders, root)
    assert text.startswith(
        "the class folder ROOT/b has no pictures, sounds, clips or scans. Expected files ending in .avi, .bmp"
    )
    assert text.endswith("hint: fill it, or move it away if it is no class")


def test_nested_class_folders(tmp_path: Path) -> None:
    names = ["Greek/one/1.png", "Greek/two/1.png", "Latin/one/1.png", "Latin/one/2.png"]
    root = touch(tmp_path / "plain", *names, "README.md")
    assert ClassFolders.recognise(root)
    records = ClassFolders.read(root, ClassFolders.Config())
    assert records.ids == names
    assert records.fields["label"].tolist() == ["Greek/one", "Greek/two", "Latin/one", "Latin/one"]
    guess = ClassFolders.guess(root, None)
    assert guess.about == "4 pictures in 3 nested class folders"
    assert guess.notes == {"target.field": "the path of the class folder"}
    outer = ClassFolders.read(root, ClassFolders.Config(nested=False))
    assert outer.fields["label"].tolist() == ["Greek", "Greek", "Latin", "Latin"]
    root = touch(tmp_path / "split", *(f"{split}/{name}" for split in ("train", "test") for name in names))
    records = ClassFolders.read(root, ClassFolders.Config())
    assert records.fields["label"].tolist() == ["Greek/one", "Greek/two", "Latin/one", "Latin/one"] * 2
    assert records.fields["split"].tolist() == ["train"] * 4 + ["test"] * 4


@pytest.mark.parametrize(
    "files",
    [
        # One group alone; pictures beside the classes; unlike depths; a group without pictures; pictures and masks.
        ["Greek/one/1.png", "Greek/two/1.png"],
        ["Greek/one/1.png", "Latin/two/1.png", "Latin/1.png"],
        ["Greek/one/1.png", "Latin/two/deep/1.png"],
        ["Greek/one/1.png", "Latin/two/1.png", "notes/1.txt"],
        ["case1/images/1.png", "case1/masks/1.png", "case2/images/1.png", "case2/masks/1.png"],
    ],
)
def test_what_is_not_clearly_nested(tmp_path: Path, files: list[str]) -> None:
    assert not ClassFolders.recognise(touch(tmp_path, *files))


def test_nested_may_be_said(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.png", "a/deep/2.png", "b/1.png")
    assert ClassFolders.read(root, ClassFolders.Config()).fields["label"].tolist() == ["a", "a", "b"]
    records = ClassFolders.read(root, ClassFolders.Config(nested=True))
    assert dict(zip(records.ids, records.fields["label"], strict=True)) == {
        "a/1.png": "a",
        "a/deep/2.png": "a/deep",
        "b/1.png": "b",
    }


def masks_of(root: Path) -> list[tuple[str, str, str | None]]:
    assert Masks.recognise(root)
    assert not ClassFolders.recognise(root)
    records = Masks.read(root, Masks.Config())
    splits = records.fields.get("split", np.full(len(records), None))
    masks = [mask.relative_to(root).as_posix() for mask in records.fields["mask"]]
    return list(zip(records.ids, masks, splits, strict=True))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            ["train/1.jpg", "trainannot/1.png", "val/2.jpg", "valannot/2.png", "test/3.jpg", "testannot/3.png"],
            [
                ("train/1.jpg", "trainannot/1.png", "train"),
                ("val/2.jpg", "valannot/2.png", "validation"),
                ("test/3.jpg", "testannot/3.png", "test"),
            ],
        ),
        (["images/1.jpg", "masks/1.png"], [("images/1.jpg", "masks/1.png", None)]),
        (["Images/a/1.jpg", "Labels/a/1_mask.png"], [("Images/a/1.jpg", "Labels/a/1_mask.png", None)]),
        (
            ["images/train/1.jpg", "annotations/train/1.png", "images/val/1.jpg", "annotations/val/1.png"],
            [
                ("images/train/1.jpg", "annotations/train/1.png", "train"),
                ("images/val/1.jpg", "annotations/val/1.png", "validation"),
            ],
        ),
        (
            ["train/images/1.jpg", "train/masks/1.png", "test/images/1.jpg", "test/masks/1.png"],
            [
                ("train/images/1.jpg", "train/masks/1.png", "train"),
                ("test/images/1.jpg", "test/masks/1.png", "test"),
            ],
        ),
        (["train/1.jpg", "train_masks/1_mask.gif"], [("train/1.jpg", "train_masks/1_mask.gif", "train")]),
    ],
)
def test_masks_layouts(tmp_path: Path, files: list[str], expected: list) -> None:
    assert masks_of(touch(tmp_path, *files, "README.md")) == expected


def test_masks_errors(tmp_path: Path) -> None:
    assert "ROOT is not a folder." in fails(Masks, tmp_path / "no")
    assert fails(Masks, tmp_path) == (
        "ROOT has no pictures with masks. Expected the folders images and masks, or train and trainannot (and the same "
        "for val and test), or a_mask.png beside a.jpg."
    )
    root = touch(tmp_path, "images/1.jpg", "images/2.jpg", "masks/1.png")
    assert fails(Masks, root) == (
        "ROOT/images/2.jpg has no mask in ROOT/masks. Expected for every picture a mask of the same name. "
        "hint: add the masks, or move the pictures away"
    )
    touch(root, "images/3.jpg", "images/4.jpg")
    assert fails(Masks, root).startswith("ROOT/images/2.jpg and 2 more have no mask in ROOT/masks.")
    root = touch(tmp_path / "b", "images/1.jpg", "masks/1.png", "masks/9.png")
    assert fails(Masks, root) == "ROOT/masks/9.png has no picture in ROOT/images."


def test_masks_guess(tmp_path: Path) -> None:
    root = Masks.sample(tmp_path)
    guess = Masks.guess(root, None)
    assert guess.target == {"kind": "mask", "field": "mask", "classes": ["background", "foreground"]}
    assert (guess.warnings, guess.read_as) == ((), ("masks: 0 as background, 1 as foreground",))
    Image.fromarray(np.full((8, 8), 7, dtype=np.uint8)).save(root / "masks" / "0.png")
    assert Masks.guess(root, None).warnings == (
        "the masks hold the ids 0, 1, 7: if one means no class, say so with target.ignore",
    )
    Image.fromarray(np.full((8, 8), 255, dtype=np.uint8)).save(root / "masks" / "0.png")
    guess = Masks.guess(root, "mask")
    assert guess.target == {"kind": "mask", "field": "mask", "ignore": 255}
    assert guess.notes == {"target.ignore": "by custom, 255 marks pixels without a class"}
    # Grey that is stored as colours is grey.
    Image.fromarray(np.full((8, 8, 3), 255, dtype=np.uint8)).save(root / "masks" / "0.png")
    assert Masks.guess(root, "mask").target == guess.target
    (root / "masks" / "1.png").write_bytes(b"torn")  # is for training to report
    assert Masks.guess(root, None).count == 6
    with pytest.raises(UserError, match="pictures with masks have no field 'label' to learn"):
        Masks.guess(root, "label")


def test_masks_of_another_size_are_told(tmp_path: Path) -> None:
    root = Masks.sample(tmp_path)
    Image.fromarray(np.zeros((6, 12), dtype=np.uint8)).save(root / "masks" / "3.png")
    assert Masks.guess(root, None).warnings[0] == (
        "1 of 6 masks are not of the size of their picture: images/3.png is 8 x 8 pixels and its mask 12 x 6; masks "
        "are brought to size like pictures, and may not fit"
    )


def test_short_texts_are_cut_finer(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a line of words\n" * 2000)
    guess = TextFiles.guess(tmp_path / "a.txt", None)
    assert (guess.data["piece_characters"], guess.warnings) == (320, ())
    assert guess.about == "32,000 characters of text in 1 file"
    assert len(TextFiles.read(tmp_path / "a.txt", TextFilesConfig(piece_characters=320))) >= 100
    (tmp_path / "a.txt").write_text("a")
    guess = TextFiles.guess(tmp_path / "a.txt", None)
    assert guess.about == "1 character of text in 1 file"
    assert guess.warnings == ("so few characters (1) teach no language",)


def test_text_pieces_are_the_file(tmp_path: Path) -> None:
    text = "one\r\ntwo\n" + "x" * 30 + "\n\nend \u00e9"
    (tmp_path / "a.txt").write_bytes(text.encode())
    for most in (1, 7, 10, 1000):
        records = TextFiles.read(tmp_path / "a.txt", TextFilesConfig(piece_characters=most))
        assert "".join(records.fields["text"]) == text
        assert max(map(len, records.fields["text"])) <= most
    records = TextFiles.read(tmp_path / "a.txt", TextFilesConfig(piece_characters=10))
    assert records.fields["text"][0] == "one\r\ntwo\n"
    assert records.ids[:2] == ["a.txt 1", "a.txt 2"]
    assert "split" not in records.fields


def test_text_folders(tmp_path: Path) -> None:
    plain = touch(tmp_path / "plain", "b.md", "a.txt", "README.md", "LICENSE.txt", ".hidden")
    assert TextFiles.read(plain, TextFilesConfig()).ids == ["a.txt 1", "b.md 1"]
    named = touch(tmp_path / "named", "test.txt", "train.txt", "wiki.valid.txt")
    folders = touch(tmp_path / "folders", "test/x.txt", "train/x.txt", "val/x.txt", "README.md")
    for root, ids in (
        (named, ["train.txt 1", "wiki.valid.txt 1", "test.txt 1"]),
        (folders, ["train/x.txt 1", "val/x.txt 1", "test/x.txt 1"]),
    ):
        records = TextFiles.read(root, TextFilesConfig())
        assert records.ids == ids
        assert records.fields["split"].tolist() == ["train", "validation", "test"]
        assert TextFiles.guess(root, None).data["split"] == {"by": "given"}
    assert all(TextFiles.recognise(root) for root in (plain, named, folders))
    assert not TextFiles.recognise(touch(tmp_path / "mixed", "a.txt", "b.bin"))
    assert not TextFiles.recognise(touch(tmp_path / "about", "README.md", "classes.txt", "class_names.txt"))


def test_text_errors(tmp_path: Path) -> None:
    assert fails(TextFiles, tmp_path / "no.txt") == "the text file ROOT does not exist."
    assert fails(TextFiles, tmp_path) == (
        "the folder ROOT is not a folder of text files. Expected files ending in .txt or .md."
    )
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ntw\xb9o")
    assert fails(TextFiles, path) == (
        "the text file ROOT is not UTF-8: byte 0xb9 at offset 6 (line 2). Expected text in UTF-8, or one that is "
        "certainly Western European. "
        "hint: iconv -f cp1250 -t UTF-8 a.txt > converted.txt, if it is Central European, or the like"
    )
    path.write_bytes(b" \n")
    assert fails(TextFiles, path) == "the text file ROOT is empty."
    with pytest.raises(UserError, match="plain text has no field 'label' to learn"):
        TextFiles.guess(path, "label")


def idx_bytes(values: np.ndarray, magic: bytes = b"\0\0\x08") -> bytes:
    return magic + bytes([values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write_idx(root: Path, part: str, count: int, packed: bool = False) -> None:
    for name, values in (
        (f"{part}-images-idx3-ubyte", np.arange(count * 6, dtype=np.uint8).reshape(count, 2, 3)),
        (f"{part}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8)),
    ):
        content = idx_bytes(values)
        (root / (name + ".gz" * packed)).write_bytes(gzip.compress(content) if packed else content)


def test_idx(tmp_path: Path) -> None:
    write_idx(tmp_path, "train", 3)
    write_idx(tmp_path, "t10k", 2, packed=True)
    touch(tmp_path, "README.md")
    assert Idx.recognise(tmp_path)
    records = Idx.read(tmp_path, Idx.Config())
    assert records.ids == ["train 1", "train 2", "train 3", "t10k 1", "t10k 2"]
    assert records.fields["split"].tolist() == ["train"] * 3 + ["test"] * 2
    assert records.fields["label"].tolist() == ["0", "1", "2", "0", "1"]
    assert records.fields["image"][1].tolist() == [[6, 7, 8], [9, 10, 11]]
    (tmp_path / "class_names.txt").write_text("Shirt\nCoat\nAnkle boot\n")
    assert Idx.read(tmp_path, Idx.Config()).fields["label"][2] == "Ankle boot"
    assert not TextFiles.recognise(tmp_path)
    guess = Idx.guess(tmp_path, None)
    assert guess.inputs == {"image": {"kind": "image", "field": "image", "size": [2, 3]}}
    assert guess.about == "5 pictures of 2 x 3 pixels in 3 classes"


def test_idx_errors(tmp_path: Path) -> None:
    assert "ROOT is not a folder." in fails(Idx, tmp_path / "no")
    assert fails(Idx, tmp_path).startswith("ROOT has no idx files. Expected train-images-idx3-ubyte(.gz)")
    write_idx(tmp_path, "train", 3)
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    good = images.read_bytes()
    images.write_bytes(good[:-1])
    assert fails(Idx, tmp_path) == (
        "ROOT/train-images-idx3-ubyte holds 17 values, and its header says 3 x 2 x 3. "
        "hint: it may be cut short: fetch it again"
    )
    images.write_bytes(good[:7])
    assert fails(Idx, tmp_path) == "ROOT/train-images-idx3-ubyte is cut short within its header."
    images.write_bytes(b"\x89PNG")
    assert fails(Idx, tmp_path) == (
        "ROOT/train-images-idx3-ubyte is not an idx file of bytes: it begins with 89 50 4e 47. "
        "Expected the magic number 00 00 08 and the number of axes."
    )
    images.write_bytes(idx_bytes(np.zeros((4, 2, 3), dtype=np.uint8)))
    assert fails(Idx, tmp_path) == (
        "train-images-idx3-ubyte has 4 pictures and train-labels-idx1-ubyte has 3 labels in ROOT. "
        "Expected a label for every picture."
    )
    images.write_bytes(idx_bytes(np.zeros(3, dtype=np.uint8)))
    assert "train-images-idx3-ubyte has 1 axes and train-labels-idx1-ubyte has 1 in ROOT." in fails(Idx, tmp_path)
    images.write_bytes(good)
    (tmp_path / "class_names.txt").write_text("Shirt\nCoat\n")
    assert fails(Idx, tmp_path) == (
        "ROOT/class_names.txt has 2 names, and there is a label 2. Expected a name for each label."
    )
    labels.unlink()
    assert fails(Idx, tmp_path) == (
        "ROOT/train-images-idx3-ubyte has no file of labels beside it. Expected train-labels-idx...-ubyte(.gz)."
    )
    (tmp_path / "fold7-labels-idx1-ubyte").write_bytes(b"")
    assert "ROOT/fold7-labels-idx1-ubyte: 'fold7' is no split. Expected train, validation, test or t10k." in fails(
        Idx, tmp_path
    )
    images.unlink()
    (tmp_path / "fold7-labels-idx1-ubyte").unlink()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(good)[:20])
    labels.write_bytes(idx_bytes(np.zeros(3, dtype=np.uint8)))
    assert fails(Idx, tmp_path).startswith("ROOT/train-images-idx3-ubyte.gz cannot be read: ")


def test_builtin() -> None:
    path = Path("sklearn:digits")
    assert Builtin.recognise(path)
    records = Builtin.read(path, Builtin.Config())
    assert records.fields["image"].shape == (1797, 8, 8)
    assert (records.fields["image"].dtype, records.fields["image"].max()) == (np.uint8, 255)
    assert set(records.fields["label"]) == set("0123456789")
    guess = Builtin.guess(path, None)
    assert guess.inputs["image"]["field"] == "image"
    assert guess.data["split"]["by"] == "stratified"
    for name, kind, features in (("wine", "category", 13), ("iris", "category", 4), ("diabetes", "number", 10)):
        guess = Builtin.guess(Path(f"sklearn:{name}"), None)
        assert guess.target["kind"] == kind
        assert len(guess.inputs["table"]["fields"]) == features
    assert fails(Builtin, Path("sklearn:digit")) == (
        "the built-in data set 'digit' does not exist. Expected one of: breast_cancer, diabetes, digits, iris, wine. "
        "hint: did you mean 'digits'?"
    )
    assert fails(Builtin, Path("other")) == (
        "ROOT is not a built-in data set. Expected sklearn: and a name, such as sklearn:digits."
    )
    with pytest.raises(UserError, match="the field 'colour' does not exist"):
        Builtin.guess(path, "colour")


def test_real_folders(shared: Path) -> None:
    flowers = ClassFolders.read(shared / "flowers5", ClassFolders.Config())
    assert (len(flowers), (flowers.fields["split"] == "test").sum()) == (2000, 500)
    roads = Masks.read(shared / "camvid_small", Masks.Config())
    assert np.unique(roads.fields["split"].astype(str), return_counts=True)[1].tolist() == [50, 100, 30]
    play = TextFiles.read(shared / "tinyshakespeare", TextFilesConfig())
    assert "".join(play.fields["text"]).encode() == (shared / "tinyshakespeare" / "input.txt").read_bytes()
    clothes = Idx.read(shared / "fashion_mnist", Idx.Config())
    assert clothes.fields["image"].shape == (70_000, 28, 28)
    assert clothes.fields["label"][0] == "Ankle boot"


def test_folders_of_texts(tmp_path: Path) -> None:
    root = touch(tmp_path / "plain", "pos/1.txt", "pos/2.txt", "neg/1.txt", "README.txt")
    assert ClassFolders.recognise(root)
    guess = ClassFolders.guess(root, None)
    assert guess.about == "3 texts in 2 class folders"
    assert guess.inputs == {"text": {"kind": "text", "field": "file"}}
    root = touch(
        tmp_path / "split",
        *(f"{split}/{label}/{n}.txt" for split in ("train", "test") for label in ("pos", "neg") for n in range(2)),
        "train/unsup/1.txt",
        "train/urls_pos.txt",
    )
    assert ClassFolders.recognise(root)
    assert not TextFiles.recognise(root)
    guess = ClassFolders.guess(root, None)
    assert guess.about == "8 texts in 2 class folders"
    assert guess.data["split"] == {"by": "given", "validation": 0.1}
    assert guess.notes["data.kind"] == "left out: train/unsup/ (by its name it holds records without a class)"


def test_empty_class_folders_are_ignored_and_told(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.png", "b/1.ppm", "b/2.pgm")
    (root / "none" / "deep").mkdir(parents=True)
    assert ClassFolders.recognise(root)
    records = ClassFolders.read(root, ClassFolders.Config())
    assert records.fields["label"].tolist() == ["a", "b", "b"]
    assert records.notes == ("none/ (empty)",)
    assert ClassFolders.guess(root, None).notes["data.kind"] == "left out: none/ (empty)"


def picture(path: Path, pixels: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(pixels, dtype=np.uint8)).save(path)


COLOURS = [[[128, 64, 128], [0, 0, 0]], [[70, 70, 70], [70, 70, 70]]]


@pytest.mark.parametrize(
    ("folders", "ending"),
    [(("", ""), "_mask"), (("a/", "a/"), "_seg"), (("imgs/", "labels/"), ""), (("x", "x"), "_gt")],
)
def test_masks_in_colours(tmp_path: Path, folders: tuple[str, str], ending: str) -> None:
    for name in "pqr":
        picture(tmp_path / f"{folders[0]}{name}.jpg", np.zeros((2, 2, 3)))
        picture(tmp_path / f"{folders[1]}{name}{ending}.png", COLOURS)
    assert Masks.recognise(tmp_path)
    assert not ClassFolders.recognise(tmp_path)
    guess = Masks.guess(tmp_path, None)
    assert guess.about == "3 pictures with masks"
    palette = {colour: colour for colour in ("#000000", "#464646", "#804080")}
    assert guess.target == {"kind": "mask", "field": "mask", "palette": palette}
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nRoad,128,64,128\nVoid,0,0,0\nWall of brick,70,70,70\n")
    guess = Masks.guess(tmp_path, None)
    palette = {"Road": "#804080", "Void": "#000000", "Wall of brick": "#464646"}
    assert guess.target == {"kind": "mask", "field": "mask", "palette": palette, "ignore": 1}
    assert guess.notes["target.palette"] == "colours from class_dict.csv"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("class_dict.csv", "name,r,g,b\nroad,1,2,3\nsky,4,5,6\n"),
        ("label_colors.txt", "1 2 3\t\troad\n4 5 6\t\tsky\n"),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nroad:1,2,3::\nsky:4,5,6::\n"),
        ("classes.csv", "id,name,r,g,b\n0,road,1,2,3\n1,sky,4,5,6\n"),
    ],
)
def test_files_of_colours(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert _mask_values.class_file(tmp_path).classes == (("road", 0x010203), ("sky", 0x040506))


@pytest.mark.parametrize("content", ["road\nsky\n", "0 road\n1 sky\n", "sky,1\nroad,0\n"])
def test_files_of_names(tmp_path: Path, content: str) -> None:
    (tmp_path / "codes.txt").write_text(content)
    assert _mask_values.class_file(tmp_path).classes == (("road", None), ("sky", None))
    for name in "pqr":
        picture(tmp_path / "images" / f"{name}.png", np.zeros((2, 2, 3)))
        picture(tmp_path / "masks" / f"{name}.png", [[0, 1], [255, 1]])
    guess = Masks.guess(tmp_path, None)
    assert guess.target == {"kind": "mask", "field": "mask", "classes": ["road", "sky"], "ignore": 255}


def test_masks_with_losses_and_shades(tmp_path: Path) -> None:
    disc = np.hypot(*np.mgrid[-1:1:64j, -1:1:64j]) < 0.6
    for index in range(4):
        picture(tmp_path / "images" / f"{index}.jpg", np.stack([disc * 200] * 3, 2))
        picture(tmp_path / "masks" / f"{index}.jpg", disc * 255)
    guess = Masks.guess(tmp_path, None)
    assert guess.target["palette"] == {"background": "#000000", "foreground": "#ffffff"}
    assert guess.target["nearest_colour"] is True
    picture(tmp_path / "masks" / "0.jpg", np.arange(64 * 64).reshape(64, 64) % 256)
    picture(tmp_path / "masks" / "1.jpg", np.random.default_rng(0).integers(0, 256, (64, 64, 3)))
    with pytest.raises(UserError, match=r"the masks hold [\d,]+ different colours.*class_dict\.csv"):
        Masks.guess(tmp_path, None)
    for index in range(4):
        picture(tmp_path / "masks" / f"{index}.jpg", np.arange(64 * 64).reshape(64, 64) % 256)
    with pytest.raises(UserError, match=r"the masks hold 25\d different values up to 25"):
        Masks.guess(tmp_path, None)


def test_masks_beside_their_pictures(tmp_path: Path) -> None:
    for patient in "abcd":
        for slice_ in range(2):
            picture(tmp_path / patient / f"{slice_}.tif", np.zeros((2, 2, 3)))
            picture(tmp_path / patient / f"{slice_}_mask.tif", [[0, 255], [0, 0]])
    assert Masks.recognise(tmp_path)
    assert not ClassFolders.recognise(tmp_path)
    guess = Masks.guess(tmp_path, None)
    assert guess.target["classes"] == ["background", "foreground"]
    assert guess.warnings[0].startswith("pictures share folders: if a folder is a patient")
    assert Masks.read(tmp_path, Masks.Config()).fields["folder"].tolist() == list("aabbccdd")
    (tmp_path / "a" / "0_mask.tif").unlink()
    assert fails(Masks, tmp_path) == (
        "ROOT/a/0.tif has no mask beside it. Expected for every picture a mask, as 1_mask.tif for 1.tif. "
        "hint: add the masks, or move the pictures away"
    )
    root = tmp_path / "split"
    for split in ("train", "val"):
        for name in "ab":
            picture(root / split / f"{name}.png", np.zeros((2, 2, 3)))
            picture(root / split / f"{name}_label.png", [[0, 1], [0, 0]])
    assert Masks.read(root, Masks.Config()).fields["split"].tolist() == ["train", "train", "validation", "validation"]
