"""Volumes end to end: NIfTI in, a mask in the same space out; oracles for its scores; errors that name the file."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

import sonde
from sonde.base.errors import RecordError, UserError
from sonde.base.volumes import as_in_file, read_volume, to_file, to_ras
from sonde.commands.new import write_recipe
from sonde.commands.predict import predict
from sonde.contracts.specs import InputSpec, OutputSpec
from sonde.metrics import case_scores, surface_distances
from sonde.networks import _windows
from sonde.networks.unet import UNet, UNetConfig
from sonde.recipe import Recipe

nibabel = pytest.importorskip("nibabel")


def _blob(rng, size, centre, radius):
    places = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"))
    return ((places - np.array(centre).reshape(3, 1, 1, 1)) ** 2).sum(0) < radius**2


@pytest.fixture
def scans(tmp_path):
    """Eight bright balls in noise, half of the files with other axes and another spacing."""
    rng = np.random.default_rng(0)
    for name in ("imagesTr", "labelsTr"):
        (tmp_path / "scans" / name).mkdir(parents=True)
    for index in range(8):
        size = (14, 12 + index % 3, 10)
        mask = _blob(rng, size, rng.uniform(4, 8, 3), 3.2).astype(np.uint8)
        image = (mask * 80 + rng.normal(0, 10, size)).astype(np.float32)
        affine = (
            np.diag([1.0, 1.0, 2.0, 1.0])
            if index % 2
            else np.array([[0, -1.0, 0, 9], [1.5, 0, 0, -4], [0, 0, 1, 2], [0, 0, 0, 1]])
        )
        for folder, values in (("imagesTr", image), ("labelsTr", mask)):
            nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "scans" / folder / f"case_{index}.nii.gz")
    (tmp_path / "scans" / "dataset.json").write_text('{"labels": {"0": "background", "1": "ball"}}')
    return tmp_path / "scans"


def test_from_scans_to_masks_in_their_space(scans, tmp_path):
    said = write_recipe(str(scans), tmp_path / "recipe.toml").to_text()
    assert "found 8 volumes with masks" in said
    assert "masks: the ids 0, 1" in said
    text = "\n".join(
        line for line in (tmp_path / "recipe.toml").read_text().splitlines() if not line.startswith("epochs")
    )
    (tmp_path / "recipe.toml").write_text(text)
    recipe = Recipe.read(tmp_path / "recipe.toml", changes=["training.steps=60", "network.widths=[4, 8]"])
    assert recipe.target.classes == ["background", "ball"]
    run = sonde.fit(recipe, out=tmp_path / "run")
    assert run.scores["test"]["dice"].value > 0.7
    assert run.scores["test"]["hd95/ball"].value < 6
    assert run.scores["test"]["dice"].baseline == 0

    file = scans / "imagesTr" / "case_0.nii.gz"
    model = sonde.load(run.artifact)
    (answer,) = predict(model, [file], draw=tmp_path / "pictures", files=tmp_path / "masks")
    made, given = nibabel.load(answer["files"][0]), nibabel.load(file)
    assert answer["files"] == [str(tmp_path / "masks" / "case_0.nii.gz")]
    json.dumps(answer)
    np.testing.assert_allclose(made.affine, given.affine)
    truth = np.asarray(nibabel.load(scans / "labelsTr" / "case_0.nii.gz").dataobj)
    found = np.asarray(made.dataobj)
    assert found.shape == truth.shape
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.6
    assert answer["millilitres"]["ball"] == pytest.approx(found.sum() * 1.5 / 1000)
    assert Path(answer["drawn"]).read_bytes().startswith(b"\x89PNG")


def test_axes_come_and_go_whatever_their_order():
    rng = np.random.default_rng(0)
    for axes, signs in itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)):
        affine = np.zeros((4, 4))
        affine[3, 3] = 1
        for place, axis in enumerate(axes):
            affine[axis, place] = signs[place] * (place + 1)
        image = nibabel.Nifti1Image(rng.integers(0, 9, (3, 4, 5)).astype(np.uint8), affine)
        volume, reference = read_volume(image.to_bytes()), nibabel.as_closest_canonical(image)
        np.testing.assert_array_equal(volume.values, reference.dataobj)
        np.testing.assert_allclose(volume.affine, reference.affine)
        in_file = as_in_file(volume.values, volume.orientation)
        np.testing.assert_array_equal(in_file, image.dataobj)
        np.testing.assert_array_equal(to_ras(in_file, volume.orientation), volume.values)
        ending, content = to_file(in_file, image.to_bytes())
        again = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
        assert ending == ".nii.gz"
        np.testing.assert_allclose(again.affine, affine)


def test_scores_of_a_case_are_those_of_the_formulas():
    rng = np.random.default_rng(1)
    spacing = (0.8, 1.0, 2.5)
    one, other = _blob(rng, (16, 14, 9), (7, 6, 4), 4.2), _blob(rng, (16, 14, 9), (8, 7, 4), 3.7)
    points = [np.argwhere(each & ~ndimage.binary_erosion(each)) * spacing for each in (one, other)]
    apart = np.linalg.norm(points[0][:, None] - points[1][None], axis=2)
    there, back = apart.min(1), apart.min(0)
    found = case_scores(one.astype(int), other.astype(int), [1], spacing, 1.0)
    np.testing.assert_allclose(np.sort(surface_distances(one, other, spacing)[0]), np.sort(there))
    assert found["dice"][0] == pytest.approx(2 * (one & other).sum() / (one.sum() + other.sum()))
    assert found["hd95"][0] == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    assert found["nsd"][0] == pytest.approx(((there <= 1).sum() + (back <= 1).sum()) / (len(there) + len(back)))
    assert found["true_ml"][0] == pytest.approx(other.sum() * 2 / 1000)


@pytest.mark.filterwarnings("ignore")
def test_scores_of_a_case_are_those_of_monai():
    monai = pytest.importorskip("monai.metrics")
    rng = np.random.default_rng(2)
    spacing = (0.8, 1.0, 2.5)
    one, other = _blob(rng, (16, 14, 9), (7, 6, 4), 4.2), _blob(rng, (16, 14, 9), (8, 7, 4), 3.7)
    given = [torch.from_numpy(each)[None, None].float() for each in (one, other)]
    found = case_scores(one.astype(int), other.astype(int), [1], spacing, 1.0)
    hd95 = monai.compute_hausdorff_distance(*given, include_background=True, percentile=95, spacing=list(spacing))
    nsd = monai.compute_surface_dice(*given, [1.0], include_background=True, spacing=list(spacing))
    assert found["hd95"][0] == pytest.approx(float(hd95), rel=1e-5)
    assert found["nsd"][0] == pytest.approx(float(nsd), rel=1e-5)


def test_a_label_that_is_missed_has_the_worst_scores_and_one_that_is_nowhere_has_none():
    empty, full = np.zeros((4, 4, 4), int), np.ones((4, 4, 4), int)
    missed, nowhere = case_scores(empty, full, [1, 2], (1, 1, 2), 1.0)["dice"]
    assert missed == 0
    assert np.isnan(nowhere)
    assert case_scores(empty, full, [1], (1, 1, 2), 1.0)["hd95"][0] == pytest.approx(np.sqrt(16 + 16 + 64))


def test_windows_cover_all_and_give_what_the_whole_gives():
    assert _windows.starts((10, 8, 20), (8, 8, 8)) == [(x, 0, z) for x in (0, 2) for z in (0, 4, 8, 12)]
    torch.manual_seed(0)
    # A network that sees one voxel alone answers alike in any window.
    weight = torch.randn(3, 2)

    def answer(inputs):
        return torch.einsum("kc,bcxyz->bkxyz", weight, inputs["scan"]["grid"])

    grid, shape = torch.randn(2, 2, 11, 9, 20), torch.tensor([[11, 9, 20], [5, 9, 8]])
    grid[1, :, 5:], grid[1, :, :, :, 8:] = 0, 0
    found = _windows.slide(answer, {"scan": {"grid": grid, "shape": shape}}, "scan", (8, 8, 8))
    torch.testing.assert_close(found, answer({"scan": {"grid": grid}}), atol=1e-4, rtol=1e-4)


def test_a_unet_takes_volumes_whose_sides_do_not_halve():
    network = UNet(
        UNetConfig(widths=(4, 8), patch=2),
        InputSpec(layout="grid", channels=1, size=(7, 9, 6)),
        OutputSpec(per=("pixel",)),
    )
    assert network({"grid": torch.randn(2, 1, 7, 9, 6)})[0].shape == (2, 4, 7, 9, 6)


def _with(scans, name, change):
    file = scans / name
    image = nibabel.load(file)
    values, affine = change(np.asarray(image.dataobj), image.affine.copy())
    nibabel.save(nibabel.Nifti1Image(values, affine), file)


def _moved(values, affine):
    affine[0, 3] += 5
    return values, affine


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda values, affine: (values[1:], affine),
            "the mask in field 'mask' has 13 x 13 x 10 voxels and its volume 14 x 13 x 10",
        ),
        (_moved, "lies up to 5.0 mm off its volume: their affines differ"),
        (lambda values, affine: (values * 0.5, affine), "has voxels between whole numbers"),
    ],
)
def test_a_mask_that_is_not_its_volumes_is_told(scans, tmp_path, change, words):
    (tmp_path / "recipe.toml").write_text(
        '[data]\nsource = "scans"\n[inputs.volume]\nkind = "volume"\nview = "patches"\nsize = [8, 8, 8]\n'
        '[target]\nkind = "mask"\n[network]\nkind = "unet"\nwidths = [4]\n[training]\nsteps = 1\n'
    )
    _with(scans, "labelsTr/case_1.nii.gz", change)
    with pytest.raises(UserError) as caught:
        sonde.fit(Recipe.read(tmp_path / "recipe.toml"), out=tmp_path / "run")
    assert words in str(caught.value)
    assert "case_1.nii.gz" in str(caught.value)


def test_files_that_are_cut_short_are_told(scans):
    file = scans / "imagesTr" / "case_0.nii.gz"
    content = file.read_bytes()
    with pytest.raises(RecordError, match="is a damaged gzip file"):
        read_volume(content[:200])
    file.write_bytes(gzip.compress(gzip.decompress(content)[:-100]))
    with pytest.raises(RecordError, match=r"case_0.nii.gz is cut short: it has 6,620 of 6,720 bytes of voxels"):
        read_volume(file)


def test_a_volume_without_its_mask_is_told(scans, tmp_path):
    (scans / "labelsTr" / "case_3.nii.gz").unlink()
    with pytest.raises(UserError, match=r"case_3.nii.gz has no mask in .*labelsTr. Expected for every volume a mask"):
        write_recipe(str(scans), tmp_path / "recipe.toml")
