"""VOC, COCO, YOLO and CSV: the same boxes from each, and what is said of what is wrong or missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from sonde.base.errors import UserError
from sonde.contracts.records import Records
from sonde.data.load import source_of
from sonde.data.source import Source
from sonde.data.sources.box_table import BoxTable, BoxTableConfig
from sonde.data.sources.coco import Coco, CocoConfig
from sonde.data.sources.voc import Voc, VocConfig
from sonde.data.sources.yolo import Yolo, YoloConfig

KINDS = {"voc": Voc, "coco": Coco, "yolo": Yolo, "box-table": BoxTable}


def fails(source: type[Source], path: Path, config: object = None) -> str:
    with pytest.raises(UserError) as caught:
        source.read(path, config or source.Config())
    return str(caught.value).replace(str(path), "ROOT")


def boxes_of(records: Records, scale: tuple[float, float] = (1, 1)) -> dict[str, list]:
    """The boxes by the picture's stem, in pixels."""
    width, height = scale
    return {
        Path(name).stem: [
            (one["label"], *(round(side * by, 6) for side, by in zip(one["box"], (width, height) * 2, strict=True)))
            for one in value
        ]
        for name, value in zip(records.ids, records.fields["boxes"], strict=True)
    }


def picture(path: Path, size: tuple[int, int] = (48, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_all_formats_give_the_same_boxes(kind: str, tmp_path: Path) -> None:
    source = KINDS[kind]
    path = source.sample(tmp_path)
    assert source_of(None, path)[0] == kind
    guess = source.guess(path, None)
    settings = {name: value for name, value in guess.data.items() if name in source.Config.model_fields}
    records = source.read(path, source.Config(**settings))
    scale = (48, 32) if guess.target.get("units") == "shares" else (1, 1)
    assert boxes_of(records, scale) == {
        "0": [("cell", 4, 4, 20, 16)],
        "1": [("cell", 10, 8, 30, 28), ("cell", 32, 2, 46, 12)],
        "2": [("cell", 2, 2, 14, 30)],
        "3": [],
    }
    assert guess.target["kind"] == "boxes"
    assert "4 cell; 1 without any" in guess.about
    assert all(file.is_file() for file in records.fields["image"])
    with pytest.raises(UserError, match="have no field 'label' to learn"):
        source.guess(path, "label")


def voc(root: Path, *objects: str, name: str = "a", size: str = "<width>48</width><height>32</height>") -> Path:
    picture(root / "JPEGImages" / f"{name}.png")
    (root / "Annotations").mkdir(exist_ok=True)
    (root / "Annotations" / f"{name}.xml").write_text(
        f"<annotation><filename>{name}.png</filename><size>{size}</size>{''.join(objects)}</annotation>"
    )
    return root


def voc_object(*box: int, label: str = "car", more: str = "") -> str:
    sides = "".join(
        f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{label}</name>{more}<bndbox>{sides}</bndbox></object>"


def test_voc_counts_pixels_from_one(tmp_path: Path) -> None:
    root = voc(tmp_path, voc_object(1, 2, 48, 32), voc_object(5, 5, 9, 9, more="<difficult>1</difficult>"))
    (found,) = Voc.read(root, VocConfig()).fields["boxes"]
    assert found == [
        {"label": "car", "box": [0, 1, 48, 32]},
        {"label": "car", "box": [4, 4, 9, 9], "difficult": True},
    ]
    voc(root, voc_object(0, 2, 40, 30), name="b")
    guess = Voc.guess(root, None)
    assert guess.data["first_pixel"] == 0
    assert guess.notes["data.first_pixel"] == "some boxes begin at 0"


def test_voc_lists_give_the_split(tmp_path: Path) -> None:
    for name in "abcd":
        voc(tmp_path, voc_object(1, 1, 9, 9), name=name)
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for split, names in (("train", "a"), ("val", "b"), ("trainval", "ab"), ("test", "c"), ("car_train", "d")):
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    records = Voc.read(tmp_path, VocConfig())
    splits = {Path(name).stem: split for name, split in zip(records.ids, records.fields["split"], strict=True)}
    assert splits == {"a": "train", "b": "validation", "c": "test", "d": "none"}
    assert Voc.guess(tmp_path, None).data["split"] == {"by": "given"}
    (lists / "test.txt").write_text("a\n")
    assert "a is in the lists of test and of train" in fails(Voc, tmp_path)


def test_voc_errors(tmp_path: Path) -> None:
    root = voc(tmp_path, voc_object(1, 1, 9, 9))
    picture(root / "JPEGImages" / "extra.png")
    assert fails(Voc, root) == (
        "1 of 2 pictures have no label file, such as ROOT/JPEGImages/extra.png. Expected a label file for every "
        'picture, empty where nothing is to be found. hint: data.unlabelled = "background" takes them for pictures '
        "with nothing on them"
    )
    guess = Voc.guess(root, None)
    assert guess.data["unlabelled"] == "background"
    assert any("1 of 2 pictures have no label file, such as extra.png" in each for each in guess.warnings)
    assert len(Voc.read(root, VocConfig(unlabelled="background"))) == 2
    (root / "JPEGImages" / "extra.png").unlink()
    (root / "JPEGImages" / "a.png").unlink()
    assert "ROOT/Annotations/a.xml has no picture in ROOT/JPEGImages. Expected a.png there" in fails(Voc, root)
    voc(root, voc_object(1, 1, 9, 9).replace("<xmax>9</xmax>", "<xmax>wide</xmax>"))
    assert "xmax of object 1 ('car') of ROOT/Annotations/a.xml is 'wide'. Expected a finite number" in fails(Voc, root)
    (root / "Annotations" / "a.xml").write_text("<annotation><object>")
    assert "ROOT/Annotations/a.xml is not readable XML" in fails(Voc, root)


def test_boxes_that_are_none_are_counted(tmp_path: Path) -> None:
    root = voc(
        tmp_path, voc_object(5, 5, 5, 9), voc_object(30, 5, 90, 9), voc_object(3, 3, 9, 9), voc_object(9, 3, 3, 9)
    )
    guess = Voc.guess(root, None)
    assert guess.target["invalid_boxes"] == "drop"
    (warning, *_) = guess.warnings
    assert warning == (
        "3 boxes are invalid and will be left out (target.invalid_boxes): a box of JPEGImages/a.png has no area: "
        "[5, 4, 5, 9]"
    )


def coco(root: Path, **changes: object) -> Path:
    picture(root / "train2017" / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 48, "height": 32}],
        "categories": [{"id": 3, "name": "car"}, {"id": 90, "name": "bus"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 90, "bbox": [2, 3, 10, 5], "area": 40, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 3, "bbox": [2, 3, 20, 15], "area": 300, "iscrowd": 1},
        ],
    } | changes
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    (root / "annotations" / "captions_train2017.json").write_text(json.dumps({"images": [], "annotations": []}))
    return root


def test_coco_keeps_names_crowds_and_areas(tmp_path: Path) -> None:
    root = coco(tmp_path)
    assert source_of(None, root)[0] == "coco"
    records = Coco.read(root, CocoConfig())
    assert records.fields["boxes"][0] == [
        {"label": "bus", "box": [2, 3, 12, 8], "area": 40},
        {"label": "car", "box": [2, 3, 22, 18], "crowd": True, "area": 300},
    ]
    assert records.fields["split"].tolist() == ["train"]
    assert records.fields["size"][0] == [48, 32]
    assert records.ids == ["train2017/a.png"]
    assert Coco.read(root / "annotations" / "instances_train2017.json", CocoConfig(images="../train2017")).ids


def test_coco_errors(tmp_path: Path) -> None:
    one = {"id": 5, "image_id": 1, "category_id": 3, "bbox": [2, 3, 10, 5]}
    file = "ROOT/annotations/instances_train2017.json"
    assert f"annotation 5 of {file} has image_id 8, and no image has" in fails(
        Coco, coco(tmp_path, annotations=[one | {"image_id": 8}])
    )
    assert "has category_id 1, and no category has. Expected one of: 3 (car), 90 (bus)" in fails(
        Coco, coco(tmp_path, annotations=[one | {"category_id": 1}])
    )
    assert "has bbox [1, 2]. Expected [x, y, width, height]" in fails(
        Coco, coco(tmp_path, annotations=[one | {"bbox": [1, 2]}])
    )
    assert f"{file} has no list 'categories' of objects" in fails(Coco, coco(tmp_path, categories=None))
    (tmp_path / "train2017" / "a.png").unlink()
    assert "hint: data.images = the folder with the pictures" in fails(
        Coco, coco(tmp_path / "other", images=[{"id": 1, "file_name": "gone.png"}])
    )


def yolo(root: Path, *lines: str, name: str = "a") -> Path:
    picture(root / "train" / "images" / f"{name}.png")
    file = root / "train" / "labels" / f"{name}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines))
    (root / "data.yaml").write_text("train: ../train/images\nval: ../train/images\nnc: 2\nnames: ['car', 'bus']\n")
    return root


def test_yolo_as_roboflow_writes_it(tmp_path: Path) -> None:
    root = yolo(tmp_path, "1 0.5 0.5 0.5 0.25", "0 0.1 0.1 0.4 0.1 0.4 0.3")
    (root / "data.yaml").write_text("train: ../train/images\nnames: ['car', 'bus']\n")
    guess = Yolo.guess(root, None)
    assert guess.target["units"] == "shares"
    assert "1 lines are polygons: the boxes around them are taken" in guess.warnings
    assert boxes_of(Yolo.read(root, YoloConfig())) == {
        "a": [("bus", 0.25, 0.375, 0.75, 0.625), ("car", 0.1, 0.1, 0.4, 0.3)]
    }


def test_yolo_without_names(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("3 0.5 0.5 0.5 0.5\n")
    assert source_of(None, tmp_path)[0] == "yolo"
    guess = Yolo.guess(tmp_path, None)
    assert "3" in boxes_of(Yolo.read(tmp_path, YoloConfig()))["a"][0]
    assert any("they are called by number" in each for each in guess.warnings)


def test_yolo_errors(tmp_path: Path) -> None:
    root = yolo(tmp_path, "0 0.5 0.5 0.5 0.5")
    (root / "data.yaml").write_text("train: train/images\nnames: {0: car}\n")
    picture(root / "train" / "images" / "b.png")
    assert "1 of 2 pictures have no label file, such as ROOT/train/images/b.png" in fails(Yolo, root)
    assert Yolo.guess(root, None).data["unlabelled"] == "background"
    (root / "train" / "labels" / "b.txt").write_text("")
    assert len(Yolo.read(root, YoloConfig())) == 2
    label = root / "train" / "labels" / "a.txt"
    label.write_text("0 0.5 0.5 0.5\n")
    assert "ROOT/train/labels/a.txt:1 has 4 values: 0 0.5 0.5 0.5. Expected class x y width height" in fails(Yolo, root)
    label.write_text("\n4 0.5 0.5 0.5 0.5\n")
    assert "ROOT/train/labels/a.txt:2 has the class 4. Expected a number from 0 to 0" in fails(Yolo, root)
    (root / "data.yaml").write_text("train: gone\nnames: [car]\n")
    assert "train in ROOT/data.yaml names 'gone', which is not there" in fails(Yolo, root)


def table(root: Path, header: str, *rows: str) -> Path:
    picture(root / "a.png")
    picture(root / "b.png")
    (root / "boxes.csv").write_text("\n".join([header, *rows]) + "\n")
    return root / "boxes.csv"


@pytest.mark.parametrize(
    ("header", "row", "form"),
    [
        ("filename,width,height,class,xmin,ymin,xmax,ymax", "a.png,48,32,car,4,6,10,20", "xyxy"),
        ("image,x,y,width,height,label", "a.png,4,6,6,14,car", "xywh"),
        ("label,path,x_center,y_center,w,h", "car,a.png,7,13,6,14", "cxcywh"),
    ],
)
def test_tables_of_boxes(header: str, row: str, form: str, tmp_path: Path) -> None:
    path = table(tmp_path, header, row)
    assert source_of(None, path)[0] == "box-table"
    guess = BoxTable.guess(path, None)
    assert guess.data["box_format"] == form
    assert boxes_of(BoxTable.read(path, BoxTableConfig())) == {"a": [("car", 4, 6, 10, 20)]}


def test_a_row_without_a_box_is_background(tmp_path: Path) -> None:
    path = table(tmp_path, "file,x1,y1,x2,y2,label,split", "a.png,4,6,10,20,car,train", "b.png,,,,,,valid")
    records = BoxTable.read(path, BoxTableConfig())
    assert boxes_of(records) == {"a": [("car", 4, 6, 10, 20)], "b": []}
    assert records.fields["split"].tolist() == ["train", "validation"]
    path = table(tmp_path, "file,x1,y1,x2,y2,label", "a.png,0.1,0.2,0.5,0.9,car")
    assert BoxTable.guess(path, None).target["units"] == "shares"


def test_table_errors(tmp_path: Path) -> None:
    header = "file,x1,y1,x2,y2,label"
    path = table(tmp_path, header, "a.png,4,6,ten,20,car")
    assert "'x2' in ROOT line 2 is 'ten'. Expected a finite number" in fails(BoxTable, path)
    path = table(tmp_path, header, "a.png,4,6,10,20,")
    assert "ROOT line 2 has a box and no label in column 'label'" in fails(BoxTable, path)
    path = table(tmp_path, header, "a.png,4,6,,20,car")
    assert "'x2' in ROOT line 2 is None" in fails(BoxTable, path)
    assert "and no x9" in fails(BoxTable, path, BoxTableConfig(box=["x1", "y1", "x9", "y2"]))
    path = table(tmp_path, "file,label,score", "a.png,car,1")
    assert not BoxTable.recognise(path)
    assert 'hint: name them: data.file, data.label, data.box = ["x1", "y1", "x2", "y2"]' in fails(BoxTable, path)


def test_bccd(shared: Path) -> None:
    guess = Voc.guess(shared / "bccd", None)
    assert guess.about == "364 pictures with boxes (Pascal VOC): 4,155 RBC, 372 WBC, 361 Platelets"
    assert guess.data["split"] == {"by": "given"}
    assert any(each.startswith("2 boxes are invalid") for each in guess.warnings)
