"""Pictures with boxes from a CSV file: a row for every box, with its picture, four numbers and a label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import polars
from pydantic import Field

from sonde.base.config import Config
from sonde.base.errors import UserError
from sonde.contracts.records import Records
from sonde.data.source import Guess, Source
from sonde.data.sources import _boxes, _csv, _folders
from sonde.data.sources._boxes import Picture, number
from sonde.data.split import split_name

_TABLES = frozenset({".csv", ".tsv"})
# What columns are called, in lower case.
_FILE = ("filename", "file", "image", "path", "image_path", "file_name", "filepath", "img", "image_name", "image_id")
_LABEL = ("label", "class", "class_name", "category", "name", "classname", "labelname")
_LOW = (("x1", "y1"), ("xmin", "ymin"), ("x_min", "y_min"), ("left", "top"), ("bbox_x1", "bbox_y1"))
_HIGH = (("x2", "y2"), ("xmax", "ymax"), ("x_max", "y_max"), ("right", "bottom"), ("bbox_x2", "bbox_y2"))
_CORNER = (("x", "y"), ("bbox_x", "bbox_y"), *_LOW)
_CENTRE = (("x_center", "y_center"), ("xcenter", "ycenter"), ("cx", "cy"), ("x_centre", "y_centre"))
_SIDES = (("w", "h"), ("width", "height"), ("bbox_w", "bbox_h"), ("bbox_width", "bbox_height"), ("box_w", "box_h"))
_SPLIT = ("split", "subset", "set")

Form = Literal["xyxy", "xywh", "cxcywh"]
_FORMS = {
    "xyxy": "x1, y1, x2, y2: two corners",
    "xywh": "x, y, width, height: the upper left corner and the sides",
    "cxcywh": "the centre and the sides",
}


class BoxTableConfig(Config):
    kind: Literal["box-table"] = "box-table"
    file: str | None = Field(default=None, description="the column of picture files; seen from its name if left out")
    label: str | None = Field(default=None, description="the column of labels; seen from its name if left out")
    box: list[str] = Field(
        default=[], description="the four columns of the box; seen from their names if left out", max_length=4
    )
    box_format: Form | None = Field(
        default=None,
        description="xyxy: two corners; xywh: first corner and sides; cxcywh: centre and sides; by names if left out",
    )
    images: str = Field(default=".", description="the folder that picture files start from, relative to the data set")


class BoxTable(Source):
    """Fields "image" (Path), "boxes" (objects), and "split" where there is such a column. A row with nothing but its
    picture says that nothing is on it. Numbers that are all at most 1 are shares of the picture's sides."""

    Config: ClassVar = BoxTableConfig
    distinct: ClassVar = True

    @staticmethod
    def recognise(path: Path) -> bool:
        file = _file(path)
        if file is None:
            return False
        try:
            names = [name or "" for name in _csv.first_line(file)]
        except (UserError, polars.exceptions.PolarsError):
            return False
        return _found_columns(names, BoxTableConfig()) is not None

    @staticmethod
    def guess(path: Path, target: str | None) -> Guess:
        file = _checked_file(path)
        names, form = _columns(file, _frame(file).columns, BoxTableConfig())
        folder = _image_folder(file)
        data: dict[str, Any] = {"source": str(path), "kind": "box-table", "box": names[2:], "box_format": form}
        config = BoxTableConfig(box=names[2:], box_format=form, images=folder)
        if folder != ".":
            data["images"] = folder
        found = BoxTable.read(path, config)
        largest = max((max(one["box"]) for value in found.fields["boxes"] for one in value), default=2.0)
        units: Literal["pixels", "shares"] = "shares" if largest <= 1.01 else "pixels"
        return _boxes.guess(
            found,
            target,
            data=data,
            format_name=f"CSV, {form}",
            units=units,
            notes={"data.box_format": _FORMS[form], "target.units": "no number is above 1"},
        )

    @staticmethod
    def read(path: Path, config: BoxTableConfig) -> Records:
        file = _checked_file(path)
        frame = _frame(file)
        (picture, label, *box), form = _columns(file, frame.columns, config)
        split = next((name for name in frame.columns if name.lower() in _SPLIT), None)
        objects: dict[str, list[dict[str, Any]]] = {}
        splits: dict[str, str | None] = {}
        wanted = [picture, label, *box, *([split] if split else [])]
        for line, row in enumerate(frame.select(wanted).iter_rows(), start=2):
            name, text, sides = row[0], row[1], row[2:6]
            if not name:
                raise UserError(f"{file} line {line} names no picture in column {picture!r}")
            mine = objects.setdefault(name, [])
            part = split_name(row[6]) if split and row[6] else None
            if splits.setdefault(name, part) != part:
                raise UserError(f"{file} line {line}: {name} is in two splits")
            if text is None and all(side is None for side in sides):
                continue
            if text is None:
                raise UserError(f"{file} line {line} has a box and no label in column {label!r}")
            values = [
                number(side, f"{column!r} in {file} line {line}") for side, column in zip(sides, box, strict=True)
            ]
            mine.append({"label": text, "box": _corners(values, form)})
        root = file.parent / config.images
        pictures = [Picture(file=root / name, objects=mine, split=splits[name]) for name, mine in objects.items()]
        return _boxes.records(path if path.is_dir() else path.parent, pictures, "error")

    @staticmethod
    def sample(folder: Path) -> Path:
        lines = ["file,x,y,w,h,label"]
        for index, boxes in enumerate(_boxes.SAMPLE):
            _boxes.sample_picture(folder / "pictures" / f"{index}.png", boxes)
            lines += [f"{index}.png,{x1},{y1},{x2 - x1},{y2 - y1},cell" for x1, y1, x2, y2 in boxes]
            lines += [] if boxes else [f"{index}.png,,,,,"]
        (folder / "boxes.csv").write_text("\n".join(lines) + "\n")
        return folder / "boxes.csv"


def _frame(file: Path) -> polars.DataFrame:
    """The values as texts. The first row names the columns; no row is skipped."""
    dialect = _csv.sniff(file)
    return _csv.read(file, replace(dialect, header=True, columns=(), ragged=_csv.Dialect.ragged))


def _file(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix.lower() in _TABLES else None
    found = [one for one in _folders.entries(path) if one.suffix.lower() in _TABLES] if path.is_dir() else []
    return found[0] if len(found) == 1 else None


def _checked_file(path: Path) -> Path:
    file = _file(path)
    if file is None:
        raise UserError(f"{path} is not a CSV file of boxes, nor a folder with one", hint="name the file")
    return file


def _image_folder(file: Path) -> str:
    """The folder that has the first picture, relative to the file: "." where none has."""
    frame = _frame(file)
    (picture, *_), _ = _columns(file, frame.columns, BoxTableConfig())
    first = next((name for name in frame[picture] if name), "")
    for folder in (file.parent, *_folders.folders(file.parent)):
        if (folder / first).is_file():
            return folder.relative_to(file.parent).as_posix()
    return "."


def _found_columns(names: list[str], config: BoxTableConfig) -> tuple[list[str], Form] | None:
    """File, label and the four numbers, by the names of columns; None: it is no table of boxes."""
    by_name = {name.strip().lower(): name for name in names}
    file = config.file or next((by_name[name] for name in _FILE if name in by_name), None)
    label = config.label or next((by_name[name] for name in _LABEL if name in by_name), None)
    if file is None or label is None:
        return None
    if config.box:
        return [file, label, *config.box], config.box_format or "xyxy"
    forms: list[tuple[Form, tuple, tuple]] = [
        ("xyxy", _LOW, _HIGH),
        ("xywh", _CORNER, _SIDES),
        ("cxcywh", _CENTRE, _SIDES),
    ]
    for form, firsts, seconds in forms:
        first = next((pair for pair in firsts if all(name in by_name for name in pair)), None)
        second = next((pair for pair in seconds if all(name in by_name for name in pair)), None)
        if first and second:
            return [file, label, *(by_name[name] for name in (*first, *second))], config.box_format or form
    return None


def _columns(file: Path, names: list[str], config: BoxTableConfig) -> tuple[list[str], Form]:
    found = _found_columns(names, config)
    if found is None or not set(found[0]) <= set(names):
        lacking = [name for name in (found[0] if found else []) if name not in names]
        raise UserError(
            f"{file} has the columns {', '.join(names)}" + (f", and no {', '.join(lacking)}" if lacking else ""),
            expected="columns such as file, x1, y1, x2, y2, label or file, x, y, w, h, label",
            hint='name them: data.file, data.label, data.box = ["x1", "y1", "x2", "y2"]',
        )
    return found


def _corners(values: list[float], form: Form) -> list[float]:
    a, b, c, d = values
    if form == "xywh":
        return [a, b, a + c, b + d]
    if form == "cxcywh":
        return [a - c / 2, b - d / 2, a + c / 2, b + d / 2]
    return values
