"""Pictures with boxes as Pascal VOC has them: an XML file for every picture (JPEGImages, Annotations)."""

from __future__ import annotations

import xml.etree.ElementTree as xml
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from sonde.base.config import Config
from sonde.base.errors import UserError
from sonde.base.threads import each
from sonde.contracts.records import Records
from sonde.data.source import Guess, Source
from sonde.data.sources import _boxes, _folders
from sonde.data.sources._boxes import Picture, Unlabelled, number
from sonde.data.split import split_name

_XML = frozenset({".xml"})
_NOTES = frozenset({"annotations", "annotation", "xmls", "labels"})
_PICTURES = ("jpegimages", "images", "image", "imgs", "img")


class VocConfig(Config):
    kind: Literal["voc"] = "voc"
    first_pixel: Literal[0, 1] = Field(
        default=1, description="the number of the first pixel: 1, as in VOC, is taken off the left and the top of boxes"
    )
    unlabelled: Unlabelled = Field(default="error", description=_boxes.UNLABELLED_HELP)


class Voc(Source):
    """Fields "image" (Path), "boxes" (objects, with "difficult"), "size" (what the XML says), and "split" where there
    are lists in ImageSets/Main or split folders; records are named by the picture."""

    Config: ClassVar = VocConfig
    distinct: ClassVar = True

    @staticmethod
    def recognise(path: Path) -> bool:
        return path.is_dir() and any(_is_voc(next(iter(found), None)) for _, _, found in _layouts(path))

    @staticmethod
    def guess(path: Path, target: str | None) -> Guess:
        pictures = _pictures(path, VocConfig())
        # A box at 0 is a box counted from 0.
        sides = [side for one in pictures for each in one.objects or [] for side in each["box"][:2]]
        from_zero = min(sides, default=0) < 0
        data: dict[str, object] = {"source": str(path), "kind": "voc"}
        notes = {}
        if from_zero:
            data["first_pixel"] = 0
            notes["data.first_pixel"] = "some boxes begin at 0"
        missing = [one.file.name for one in pictures if one.objects is None]
        found = Voc.read(path, VocConfig(first_pixel=0 if from_zero else 1, unlabelled="background"))
        return _boxes.guess(found, target, data=data, format_name="Pascal VOC", unlabelled=missing, notes=notes)

    @staticmethod
    def read(path: Path, config: VocConfig) -> Records:
        if not path.is_dir():
            raise _folders.no_folder(path)
        return _boxes.records(path, _pictures(path, config), config.unlabelled)

    @staticmethod
    def sample(folder: Path) -> Path:
        (folder / "Annotations").mkdir()
        for index, boxes in enumerate(_boxes.SAMPLE):
            _boxes.sample_picture(folder / "JPEGImages" / f"{index}.png", boxes)
            objects = "".join(
                f"<object><name>cell</name><difficult>0</difficult><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
                f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
                for x1, y1, x2, y2 in boxes
            )
            size = "<size><width>48</width><height>32</height><depth>3</depth></size>"
            (folder / "Annotations" / f"{index}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
        return folder


def _layouts(root: Path) -> Iterator[tuple[str | None, Path, list[Path]]]:
    """Split, picture folder and XML files: Annotations beside JPEGImages, or XML files among the pictures; in the root
    or in folders of splits."""
    for split, folder in [(None, root), *_folders.split_folders(root)]:
        inner = {one.name.lower(): one for one in _folders.folders(folder)}
        notes = [inner[name] for name in sorted(_NOTES & set(inner))]
        pictures = [inner[name] for name in _PICTURES if name in inner]
        if notes and pictures:
            found = _folders.files_below(notes[0], _XML)
            if found:
                yield split, pictures[0], found
        elif _folders.holds(folder, _XML) and _folders.holds(folder, _folders.IMAGES):
            yield split, folder, [one for one in _folders.entries(folder) if one.suffix.lower() in _XML]


def _is_voc(file: Path | None) -> bool:
    if file is None:
        return False
    with file.open("rb") as opened:
        return b"<annotation" in opened.read(2048)


def _pictures(root: Path, config: VocConfig) -> list[Picture]:
    listed = _listed(root)
    found: list[Picture] = []
    for split, folder, files in _layouts(root):
        pictures = _boxes.by_stem(folder)
        notes = each(lambda file: _read(file, config), files)
        for file, (named, objects, size) in zip(files, notes, strict=True):
            picture = pictures.pop(file.stem, None) or pictures.pop(Path(named).stem, None)
            if picture is None:
                raise UserError(f"{file} has no picture in {folder}", expected=f"{named or file.stem + '.jpg'} there")
            part = split or (listed.get(file.stem, "none") if listed else None)
            found.append(Picture(file=picture, objects=objects, split=part, size=size))
        for name, picture in pictures.items():
            part = split or (listed.get(name, "none") if listed else None)
            if part != "none":
                found.append(Picture(file=picture, objects=None, split=part, size=[0, 0]))
    if not found:
        raise UserError(
            f"{root} has no pictures with XML files",
            expected="the folders JPEGImages and Annotations, or both kinds of files side by side",
        )
    return sorted(
        found, key=lambda one: (_folders.ORDER.index(one.split) if one.split in _folders.ORDER else 0, one.file)
    )


def _listed(root: Path) -> dict[str, str]:
    """The split of each picture by the lists in ImageSets/Main; "trainval" counts where there is no "train"."""
    folder = root / "ImageSets" / "Main"
    if not folder.is_dir():
        return {}
    lists = {file.stem: file for file in _folders.entries(folder) if file.suffix == ".txt"}
    if "train" in lists:
        lists.pop("trainval", None)
    named = {("train" if name == "trainval" else split_name(name)): file for name, file in lists.items()}
    found: dict[str, str] = {}
    for split, file in named.items():
        for line in file.read_text(encoding="utf-8").split("\n") if split else []:
            name = line.strip().split(" ")[0]
            if found.get(name, split) != split:
                raise UserError(f"{name} is in the lists of {found[name]} and of {split} in {folder}")
            if name and split:
                found[name] = split
    return found


def _read(file: Path, config: VocConfig) -> tuple[str, list[dict[str, Any]], list[int]]:
    """The picture's name, its objects and the size that they were drawn on."""
    try:
        root = xml.parse(file).getroot()
    except (xml.ParseError, OSError) as error:
        raise UserError(f"{file} is not readable XML: {error}") from error
    size = [int(float(root.findtext(f"size/{side}") or 0)) for side in ("width", "height")]
    objects = []
    for place, one in enumerate(root.iter("object"), start=1):
        label = (one.findtext("name") or "").strip()
        if not label:
            raise UserError(f"object {place} of {file} has no name")
        x1, y1, x2, y2 = (
            number(one.findtext(f"bndbox/{side}"), f"{side} of object {place} ({label!r}) of {file}")
            for side in ("xmin", "ymin", "xmax", "ymax")
        )
        # A box from a pixel to the same pixel is a slip of the mouse: it is left without an area.
        left, top = (low - config.first_pixel if low < high else low for low, high in ((x1, x2), (y1, y2)))
        found: dict[str, Any] = {"label": label, "box": [left, top, x2, y2]}
        if (one.findtext("difficult") or "0").strip() == "1":
            found["difficult"] = True
        objects.append(found)
    return root.findtext("filename") or "", objects, size
