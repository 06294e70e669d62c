"""Volumes from files: NIfTI (through nibabel), .npy, .npz, or arrays; axes are right, anterior, superior (RAS)."""

from __future__ import annotations

import gzip
import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sonde.base.errors import RecordError, UserError
from sonde.base.files import read_bytes

ENDINGS = (".nii", ".nii.gz", ".npy", ".npz")
_GZIP, _ZIP, _NPY = b"\x1f\x8b", b"PK", b"\x93NUMPY"
# Units of the header, in millimetres.
_UNITS = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
_EXPECTED = "a whole NIfTI file (.nii, .nii.gz), or an array (.npy, .npz)"


@dataclass(frozen=True, kw_only=True)
class Volume:
    """`values` (X, Y, Z) or (X, Y, Z, channels); `affine` (4, 4) leads from voxels to millimetres, its axes nearest to
    right, anterior, superior. `orientation` (3, 2) is where each axis of the file went, and whether it was turned (as
    nibabel's `io_orientation`). An array without a header (`placed` is False) has voxels of 1 mm, or of the spacing
    that its .npz holds, and axes as they are.
    """

    values: np.ndarray
    affine: np.ndarray
    orientation: np.ndarray
    placed: bool

    @property
    def spacing(self) -> np.ndarray:
        """Millimetres from voxel to voxel along each axis, (3,)."""
        return spacing_of(self.affine)

    @property
    def size(self) -> tuple[int, int, int]:
        return self.values.shape[0], self.values.shape[1], self.values.shape[2]


def spacing_of(affine: np.ndarray) -> np.ndarray:
    """Millimetres from voxel to voxel along each axis, (3,)."""
    return np.sqrt((affine[:3, :3] ** 2).sum(axis=0))


def is_volume_name(name: str) -> bool:
    return name.lower().endswith(ENDINGS)


def stem(name: str) -> str:
    """A file's name without its ending: "a" for "a.nii.gz"."""
    lower = name.lower()
    ending = next((one for one in (".nii.gz", *ENDINGS) if lower.endswith(one)), "")
    return name[: len(name) - len(ending)] if ending else Path(name).stem


def read_volume(value: object) -> Volume:
    """A volume from a path, the bytes of a file, or an array.

    Raises:
        RecordError: it is no volume, it is cut short, or its header does not say where its voxels are.
    """
    name = str(value) if isinstance(value, Path) else "the volume"
    if isinstance(value, np.ndarray):
        return _bare(value, np.ones(3), name)
    content = read_bytes(value)
    if content.startswith((_NPY, _ZIP)):
        return _from_numpy(content, name)
    return _oriented(_image(content, name), name)


def to_file(values: np.ndarray, like: object) -> tuple[str, bytes]:
    """Values in the voxel order of the file `like`, as a file in its space: the ending of its name, and its content.

    Whole numbers as NIfTI with the header's place (qform and sform) where `like` is NIfTI, else as .npy.
    """
    content = b"" if isinstance(like, np.ndarray) else read_bytes(like)
    if not content or content.startswith((_NPY, _ZIP)):
        held = io.BytesIO()
        np.save(held, values, allow_pickle=False)
        return ".npy", held.getvalue()
    image = _image(content, str(like))
    nibabel = _library()
    header = image.header.copy()
    header.set_data_dtype(values.dtype)
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_max"], header["cal_min"] = 0, 0
    made = type(image)(values, None, header) if isinstance(image, nibabel.Nifti2Image) else None
    made = made or nibabel.Nifti1Image(values, None, header)
    # No time stamp: the same answer is the same file.
    return ".nii.gz", gzip.compress(made.to_bytes(), mtime=0)


def as_in_file(values: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """Values (X, Y, Z) whose axes are right, anterior, superior, with the axes of the file that they belong to."""
    axes, turned = orientation[:, 0].astype(int), orientation[:, 1] < 0
    moved = values.transpose(*axes)
    return moved[tuple(slice(None, None, -1) if each else slice(None) for each in turned)]


def to_ras(values: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """The inverse: from the axes of the file."""
    turned = tuple(slice(None, None, -1) if each < 0 else slice(None) for each in orientation[:, 1])
    return values[turned].transpose(*np.argsort(orientation[:, 0].astype(int)), *range(3, values.ndim))


def _library() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise UserError(
            f"NIfTI volumes need the package nibabel: {error}", hint="pip install 'sonde[volume]'"
        ) from error
    return nibabel


def _image(content: bytes, name: str) -> Any:
    """The NIfTI image in the bytes of a file; its values are there."""
    nibabel = _library()
    try:
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise RecordError(f"{name} is a damaged gzip file: {error}", expected=_EXPECTED) from error
    last: Exception | None = None
    for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        try:
            image = kind.from_bytes(content)
            image.dataobj[(0,) * len(image.shape)]
            held = int(np.prod(image.shape)) * image.header.get_data_dtype().itemsize
        except Exception as error:  # headers fail in many ways
            last = error
            continue
        if image.dataobj.offset + held > len(content):
            there = max(0, len(content) - image.dataobj.offset)
            raise RecordError(
                f"{name} is cut short: it has {there:,} of {held:,} bytes of voxels",
                expected=_EXPECTED,
                hint="copy the file again",
            )
        return image
    why = next(iter(str(last).splitlines()), type(last).__name__)
    raise RecordError(f"{name} is not a readable volume: {why}", expected=_EXPECTED) from last


def _oriented(image: Any, name: str) -> Volume:
    nibabel = _library()
    values = np.asanyarray(image.dataobj)
    if values.dtype.kind not in "uif":
        raise RecordError(f"{name} has voxels of type {values.dtype}", expected="numbers")
    values = _axes(values, name)
    affine = np.asarray(image.affine, dtype=np.float64).copy()
    affine[:3] *= _UNITS.get(image.header.get_xyzt_units()[0], 1.0)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise RecordError(
            f"the header of {name} does not say where its voxels are: its affine is {affine[:3].tolist()}",
            expected="an affine that can be inverted",
        )
    orientation = nibabel.io_orientation(affine)
    there = affine @ nibabel.orientations.inv_ornt_aff(orientation, values.shape[:3])
    return Volume(values=to_ras(values, orientation), affine=there, orientation=orientation, placed=True)


def _axes(values: np.ndarray, name: str) -> np.ndarray:
    """Three axes, and a fourth where there is more than one channel."""
    while values.ndim > 4 and values.shape[3] == 1:
        values = values[:, :, :, 0]
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    if values.ndim not in (3, 4) or not values.size:
        raise RecordError(
            f"{name} is an array of shape {values.shape}", expected="three axes of voxels, or a fourth for channels"
        )
    return values


def _from_numpy(content: bytes, name: str) -> Volume:
    try:
        held: Any = np.load(io.BytesIO(content), allow_pickle=False)
        arrays = {"volume": held} if isinstance(held, np.ndarray) else {key: held[key] for key in held.files}
    except Exception as error:  # a damaged archive fails in many ways
        raise RecordError(f"{name} is not a readable array: {error}", expected=_EXPECTED) from error
    spacing = np.asarray(arrays.pop("spacing", np.ones(3)), dtype=np.float64)
    if len(arrays) != 1:
        raise RecordError(
            f"{name} holds {len(arrays)} arrays: {', '.join(arrays)}",
            expected='one array of voxels, and "spacing" (three numbers in mm) if there is one',
        )
    if spacing.shape != (3,) or not np.isfinite(spacing).all() or (spacing <= 0).any():
        raise RecordError(f"the spacing in {name} is {spacing.tolist()}", expected="three lengths in mm")
    return _bare(next(iter(arrays.values())), spacing, name)


def _bare(values: np.ndarray, spacing: np.ndarray, name: str) -> Volume:
    if values.dtype.kind not in "uifb":
        raise RecordError(f"{name} is an array of {values.dtype}", expected="numbers")
    values = values.astype(np.uint8) if values.dtype.kind == "b" else values
    orientation = np.array([[0, 1], [1, 1], [2, 1]], dtype=np.float64)
    return Volume(values=_axes(values, name), affine=np.diag([*spacing, 1.0]), orientation=orientation, placed=False)
