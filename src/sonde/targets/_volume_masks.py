"""What masks of volumes have of their own: read in the space of their volume, answered and scored voxel by voxel there.

B example, K class, 3 axis, P class that is no background.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sonde import metrics
from sonde.base.errors import RecordError
from sonde.base.rng import BatchRng
from sonde.base.volumes import Volume, as_in_file, read_volume, spacing_of
from sonde.contracts.columns import Columns, Ragged, Tensors

if TYPE_CHECKING:
    from torch import Tensor

# Voxels of each class that patches of training are drawn around.
PLACES = 64
# A mask lies off its volume where a corner is more than this many voxels away.
OFF = 0.5
# Scores of each case and label, and which of them are means over labels, too.
CASE_SCORES = ("dice", "hd95", "nsd", "volume_error")
LOWER_IS_BETTER = frozenset({"hd95", "volume_error"})


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The codes of a mask's classes, of which `background` (None: none) is no label; surfaces may lie `tolerance` mm
    apart. `classes` are the names of all codes."""

    classes: Sequence[str]
    background: int | None
    tolerance: float
    ignored: int

    @property
    def codes(self) -> list[int]:
        return [code for code in range(len(self.classes)) if code != self.background]


def is_volume(tensors: Mapping[str, Any]) -> bool:
    """Whether encoded or preprocessed inputs are volumes with a place in space."""
    return "native" in tensors and "affine" in tensors


def read_labels(value: Any, field: str) -> Volume:
    """A mask as a volume of whole numbers from 0 up.

    Raises:
        RecordError: it is missing or unreadable, or holds something else.
    """
    if value is None:
        raise RecordError(f"the record has no mask in field {field!r}")
    mask = read_volume(value)
    values = mask.values
    if values.ndim != 3:
        raise RecordError(
            f"the mask in field {field!r} has {values.shape[3]} channels", expected="one class id for each voxel"
        )
    if values.dtype.kind == "f":
        # Scaled headers and other programs leave floats.
        if not np.isfinite(values).all() or np.abs(values - np.round(values)).max() > 1e-3:
            raise RecordError(
                f"the mask in field {field!r} has voxels between whole numbers",
                expected="class ids, no probabilities and nothing that was interpolated",
            )
        values = np.round(values)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise RecordError(
            f"the mask in field {field!r} has ids from {values.min():g} to {values.max():g}",
            expected="ids from 0 to 65535",
        )
    return Volume(values=values.astype(np.int64), affine=mask.affine, orientation=mask.orientation, placed=mask.placed)


def check_space(mask: Volume, given: Tensors, field: str) -> None:
    """That a mask lies where its volume does.

    Raises:
        RecordError: it has another size, or lies elsewhere.
    """
    size = tuple(given["native"].tolist())
    affine = given["affine"].reshape(3, 4).double().numpy()
    if mask.size != size:
        raise RecordError(
            f"the mask in field {field!r} has {_by(mask.size)} voxels and its volume {_by(size)} (axes right, "
            "anterior, superior)",
            expected="a mask of the size of its volume",
            hint="is it the mask of another volume? Else resample it, to the nearest voxel",
        )
    corners = np.array(np.meshgrid(*([0, side - 1] for side in size))).reshape(3, -1)
    moved = (mask.affine[:3, :3] - affine[:, :3]) @ corners + (mask.affine[:3, 3] - affine[:, 3])[:, None]
    most = float(np.linalg.norm(moved, axis=0).max())
    if most > OFF * float(spacing_of(mask.affine).min()):
        raise RecordError(
            f"the mask in field {field!r} lies up to {most:.1f} mm off its volume: their affines differ",
            expected="a mask in the space of its volume",
            hint="resample it to its volume, or copy the volume's header if that is known to be right",
        )


def places_of(codes: np.ndarray, labels: Labels) -> np.ndarray:
    """Some voxels of each label, evenly through it, int16 (P, PLACES, 3); -1 where there is none."""
    places = np.full((len(labels.codes), PLACES, 3), -1, dtype=np.int16)
    for row, code in enumerate(labels.codes):
        flat = np.flatnonzero(codes == code)
        if len(flat):
            chosen = flat[np.linspace(0, len(flat) - 1, PLACES).astype(int)]
            places[row] = np.stack(np.unravel_index(chosen, codes.shape), axis=1)
    return places


def focus(places_BPQ3: Tensor, rng: BatchRng) -> Tensor:
    """A voxel of a label of each example, (B, 3), each of its labels as likely; NaN where it has none."""
    there_BP = places_BPQ3[:, :, 0, 0] >= 0
    u_B2 = rng.uniform("focus", 2)
    # The n-th of the labels that are there.
    wanted_B = (u_B2[:, 0] * there_BP.sum(1)).long()
    row_B = ((there_BP.cumsum(1) - 1 == wanted_B[:, None]) & there_BP).int().argmax(1)
    column_B = (u_B2[:, 1] * places_BPQ3.shape[2]).long()
    index_B = torch.arange(len(row_B), device=row_B.device)
    place_B3 = places_BPQ3[index_B, row_B, column_B].float() + 0.5
    return torch.where(there_BP.any(1, keepdim=True), place_B3, torch.nan)


def padded(voxels: Ragged, native_B3: Tensor, fill: int) -> Tensor:
    """Masks (B, *largest), each at its beginning, filled up."""
    masks = torch.full((len(voxels), *native_B3.amax(0).tolist()), fill, dtype=torch.uint8)
    for index, size in enumerate(native_B3.tolist()):
        masks[(index, *map(slice, size))] = voxels[index].reshape(size)
    return masks


def _by(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))


def in_native(logits: Tensor, tensors: Tensors) -> Tensor:
    """Answers (B, K, *grid) for the voxels of the volumes as they came, (B, K, *largest)."""
    native_B3, placement_B6 = tensors["native"], tensors["placement"]
    largest = native_B3.amax(0).tolist()
    shapes_B3 = tensors.get("shape")
    exact = bool((placement_B6[:, :3] == 1).all() and (placement_B6[:, 3:] == 0).all())
    if exact and list(logits.shape[2:]) == largest:
        return logits
    found = logits.new_zeros(*logits.shape[:2], *largest)
    for index, size in enumerate(native_B3.tolist()):
        shape = list(logits.shape[2:]) if shapes_B3 is None else shapes_B3[index].tolist()
        one = logits[(slice(index, index + 1), slice(None), *map(slice, shape))]
        scale, offset = placement_B6[index, :3], placement_B6[index, 3:]
        axes = [
            (2 * ((torch.arange(side, device=logits.device) + 0.5) * scale[axis] + offset[axis]) / shape[axis] - 1)
            for axis, side in enumerate(size)
        ]
        places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flip(-1)[None].to(one.dtype)
        part = torch.nn.functional.grid_sample(one, places, padding_mode="border", align_corners=False)
        found[(slice(index, index + 1), slice(None), *map(slice, size))] = part
    return found


def outputs(codes_B: Tensor, masks_B: Tensor, tensors: Tensors, labels: Labels) -> Columns:
    """The scores of each case for the metrics, float64 (B, P) each; voxels without a class count for nothing."""
    rows = []
    native_B3, affine_B = tensors["native"].tolist(), tensors["affine"].reshape(-1, 3, 4).double().cpu().numpy()
    for index, size in enumerate(native_B3):
        box = (index, *map(slice, size))
        predicted, true = codes_B[box].cpu().numpy(), masks_B[box].cpu().numpy()
        predicted = np.where(true == labels.ignored, labels.ignored, predicted)
        spacing = spacing_of(affine_B[index]).tolist()
        rows.append(metrics.case_scores(predicted, true, labels.codes, spacing, labels.tolerance))
    names = (*CASE_SCORES, "predicted_ml", "true_ml")
    return {
        f"case_{name}": torch.from_numpy(np.nan_to_num(np.stack([row[name] for row in rows]), nan=NOTHING))
        for name in names
    }


# Stands for "no such score" where outputs have to be numbers.
NOTHING = -1e9


def scores(columns: Mapping[str, np.ndarray], weights_RN: np.ndarray, labels: Labels) -> dict[str, np.ndarray]:
    """Means over the cases that have a score: for each label, and over all labels. Of volume errors their size."""
    found: dict[str, np.ndarray] = {}
    names = [labels.classes[code] for code in labels.codes]
    for name in CASE_SCORES:
        values_NP = columns[f"case_{name}"]
        there_NP = values_NP > NOTHING / 2
        values_NP = np.where(there_NP, np.abs(values_NP), 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            by_label_RP = (weights_RN @ values_NP) / (weights_RN @ there_NP.astype(np.float64))
        found[name] = metrics.mean_of_defined(by_label_RP)
        found |= {f"{name}/{label}": by_label_RP[:, number] for number, label in enumerate(names)}
    return found


def answer(codes: np.ndarray, tensors: Tensors, index: int, labels: Labels) -> tuple[np.ndarray, dict[str, float]]:
    """The codes of one example as its file has its axes, and the millilitres of each label."""
    codes = codes[tuple(map(slice, tensors["native"][index].tolist()))]
    affine = tensors["affine"][index].reshape(3, 4).double().cpu().numpy()
    millilitres = float(np.prod(spacing_of(affine))) / 1000
    orientation = tensors["orientation"][index].reshape(3, 2).cpu().numpy()
    volumes = {labels.classes[code]: float((codes == code).sum()) * millilitres for code in labels.codes}
    return as_in_file(codes, orientation), volumes
