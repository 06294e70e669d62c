from __future__ import annotations

import dataclasses
import io
import json
import os
import weakref

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch.nn import functional

from sonde.base.errors import RecordError, UserError
from sonde.base.images import read_header, read_image
from sonde.base.rng import BatchRng
from sonde.contracts.augment import AugmentParams, partner
from sonde.contracts.records import Records, as_field
from sonde.contracts.specs import OutputSpec
from sonde.inputs.image import Augment, Image, ImageConfig, _beta, _colour, _gather, _places, _whole_pixels


def records(*pictures):
    return Records(fields={"image": as_field(list(pictures))}, ids=[str(number) for number in range(len(pictures))])


def png(mode="RGB", size=(12, 8), colour=0):
    file = io.BytesIO()
    Pillow.new(mode, size, colour).save(file, "PNG")
    return file.getvalue()


def image(**settings):
    return Image.fit(ImageConfig(**settings), records(png(colour=(255, 0, 0)), png(colour=(0, 0, 0))))


def draw(count=64):
    return BatchRng(seed=0, epoch=0, records_B=torch.arange(count))


def test_preprocessing_gives_mean_zero_and_deviation_one(shared):
    paths = sorted((shared / "flowers5" / "train" / "rose").glob("*"))[:30]
    part = Image.fit(ImageConfig(size=32), records(*paths))
    columns, errors = part.encode_many(records(*paths))
    assert not errors
    grid = part.preprocess({"grid": columns["grid"]})["grid"]
    assert grid.mean(dim=(0, 2, 3)).abs().max() < 1e-3
    assert (grid.std(dim=(0, 2, 3)) - 1).abs().max() < 1e-2
    assert grid.is_contiguous(memory_format=torch.channels_last)


def test_grey_and_colour_and_size_come_from_the_data():
    grey = Image.fit(ImageConfig(), records(png("L", (9, 7)), png("L", (9, 7))))
    assert (grey.channels, grey.size) == (1, [7, 9])
    assert (image().channels, image().size) == (3, [8, 12])
    mixed = Image.fit(ImageConfig(), records(png(size=(9, 7)), png(size=(100, 70))))
    assert mixed.size == [64, 64]


def test_transparency_becomes_white_and_sixteen_bits_become_eight():
    part = image(size=8)
    clear = part.encode({"image": png("RGBA", (8, 8), (0, 0, 0, 0))})["grid"]
    assert clear.unique().tolist() == [255]
    file = io.BytesIO()
    Pillow.fromarray(np.full((8, 8), 32768, dtype=np.uint16)).save(file, "PNG")
    assert part.encode({"image": file.getvalue()})["grid"].unique().tolist() == [127]


def test_arrays_are_taken_whole():
    pictures = np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)
    found = Records(fields={"image": pictures}, ids=list("abcde"))
    part = Image.fit(ImageConfig(), found)
    columns, _ = part.encode_many(found)
    np.testing.assert_array_equal(columns["grid"][:, 0].numpy(), pictures)
    assert torch.equal(part.encode(found[3])["grid"], columns["grid"][3])


def test_a_truncated_picture_is_named(tmp_path):
    path = tmp_path / "cut.png"
    whole = io.BytesIO()
    Pillow.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(whole, "PNG")
    path.write_bytes(whole.getvalue()[:900])
    part = image(size=8)
    columns, errors = part.encode_many(records(png(), path, png()))
    assert list(errors) == [1]
    assert len(columns["grid"]) == 2
    with pytest.raises(RecordError, match=r"cut\.png is not a readable picture: .*Expected a whole PNG"):
        part.encode({"image": path})
    with pytest.raises(RecordError, match="has no picture in field 'image'"):
        part.encode({"image": None})
    with pytest.raises(UserError, match="none of the first 1 records has a readable picture in field 'image'"):
        Image.fit(ImageConfig(), records(path))


def test_saved_and_restored_through_json():
    part = image(size=8)
    values, tensors = part.save()
    assert Image.restore(part.config, json.loads(json.dumps(values)), tensors) == part


def test_shift_and_flip_are_those_of_the_parameters():
    grid = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8).expand(64, 1, 8, 8).contiguous()
    params = _whole_pixels(Augment(flip=True, shift=0.25), draw(), AugmentParams(size=(8, 8)))
    moved = _gather(grid, params)
    rows_BH, columns_BW = params.sources(0), params.sources(1)
    flips = 0
    for index in range(64):
        rows, columns = rows_BH[index], columns_BW[index]
        assert torch.equal(moved[index, 0], grid[index, 0][rows][:, columns])
        flips += bool(columns[4] < columns[3])
    assert 20 < flips < 44
    assert flips == int(params.flip_BD[:, 1].sum())
    shifts = {int(row[0]) for row in rows_BH}
    assert shifts == {0, 1, 2}
    assert set(params.shift_BD.flatten().tolist()) == {-2, -1, 0, 1, 2}
    # What a truth is told is what was done to the picture.
    assert torch.equal(params.grids(grid[:, 0], outside=255), moved[:, 0])


def test_a_shift_reflects_as_torch_pads():
    grid = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8).expand(64, 1, 8, 8).contiguous()
    params = _whole_pixels(Augment(shift=0.25), draw(), AugmentParams(size=(8, 8)))
    moved = _gather(grid, params)
    padded = functional.pad(grid[:1].float(), (2, 2, 2, 2), mode="reflect")[0, 0]
    crops = {(y, x): padded[y : y + 8, x : x + 8] for y in range(5) for x in range(5)}
    assert all(any(torch.equal(one[0].float(), crop) for crop in crops.values()) for one in moved)


def test_augmentation_does_not_depend_on_the_batch():
    settings = Augment(
        flip=True, shift=0.1, zoom=0.2, rotate=20, brightness=0.3, contrast=0.3, saturation=0.3, cutout=0.4
    )
    part = image(size=16, augment=settings)
    grid = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    whole, _ = part.augment({"grid": grid}, draw(8))
    half, _ = part.augment({"grid": grid[4:]}, BatchRng(seed=0, epoch=0, records_B=torch.arange(4, 8)))
    torch.testing.assert_close(whole["grid"][4:], half["grid"])
    other, _ = part.augment({"grid": grid}, BatchRng(seed=0, epoch=1, records_B=torch.arange(8)))
    assert not torch.equal(whole["grid"], other["grid"])


def test_pictures_are_smaller_at_first():
    part = image(size=(20, 30), augment=Augment(small_fraction=0.5, flip=True))
    grid = part.encode_many(records(*[png(size=(30, 20), colour=(40 * n, 10, 200)) for n in range(4)]))[0]
    for progress, size in ((0.0, (14, 21)), (0.49, (14, 21)), (0.5, (20, 30)), (1.0, (20, 30))):
        at = dataclasses.replace(draw(4), progress=progress)
        assert part.augment(dict(grid), at)[0]["grid"].shape == (4, 3, *size)
    smaller = part.augment(dict(grid), dataclasses.replace(draw(4), progress=0.0))[0]["grid"]
    # Each picture has one colour, and keeps it.
    torch.testing.assert_close(smaller.mean((2, 3)), grid["grid"].float().mean((2, 3)), atol=1e-3, rtol=0)
    assert part.resizes
    assert not image().resizes


def test_mixing_shares_what_it_says():
    part = image(size=16, augment=Augment(mixup=0.4, cutmix=1.0))
    grid = torch.zeros(64, 3, 16, 16, dtype=torch.uint8)
    grid[::2] = 200
    mixed, params = part.augment({"grid": grid}, draw())
    own = grid.float().mean(dim=(1, 2, 3))
    expected = params.mix_weight_B * own + (1 - params.mix_weight_B) * partner(own)
    torch.testing.assert_close(mixed["grid"].mean(dim=(1, 2, 3)), expected)
    assert params.mix_weight_B.min() >= 0
    assert params.mix_weight_B.max() <= 1


@pytest.mark.parametrize("parameter", [0.2, 0.4, 1.0])
def test_shares_follow_a_beta_law(parameter):
    from scipy.stats import beta, kstest

    shares = _beta(draw(4000), "x", parameter).double().numpy()
    assert kstest(np.clip(shares, 1e-9, 1 - 1e-9), beta(parameter, parameter).cdf).pvalue > 1e-3


def test_rotation_does_not_distort_a_wide_picture():
    part = image(size=(20, 40), augment=Augment(rotate=25))
    # A centred square stays a square of the same area whatever its angle: a distorted map would change it.
    grid = torch.zeros(32, 3, 20, 40, dtype=torch.uint8)
    grid[:, :, 6:14, 16:24] = 255
    turned, _ = part.augment({"grid": grid}, draw(32))
    areas = turned["grid"][:, 0].sum(dim=(1, 2)) / 255
    assert (areas - 64).abs().max() < 6


def standard(mean, deviation):
    return Image(config=ImageConfig(), size=[4, 4], channels=len(mean), mean=mean, deviation=deviation)


def test_preprocessing_equals_the_formula():
    grid = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    part = standard([0.1, 0.2, 0.3], [0.5, 0.6, 0.7])
    mean, deviation = torch.tensor([0.1, 0.2, 0.3])[:, None, None], torch.tensor([0.5, 0.6, 0.7])[:, None, None]
    torch.testing.assert_close(part.preprocess({"grid": grid})["grid"], (grid / 255 - mean) / deviation)


def test_colour_is_brightness_then_contrast_then_saturation():
    settings = Augment(brightness=0.3, contrast=0.4, saturation=0.5)
    grid = torch.rand(5, 3, 6, 7) * 150 + 50
    rng = BatchRng(seed=0, epoch=0, records_B=torch.arange(5))
    signed = rng.uniform("colour", 3, 1, 1, 1) * 2 - 1
    wanted = grid * (1 + 0.3 * signed[:, 0])
    mean = wanted.mean(dim=(1, 2, 3), keepdim=True)
    wanted = mean + (wanted - mean) * (1 + 0.4 * signed[:, 1])
    grey = (wanted * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    wanted = (grey + (wanted - grey) * (1 + 0.5 * signed[:, 2])).clamp(0, 255)
    torch.testing.assert_close(_colour(settings, rng, grid), wanted, rtol=1e-5, atol=1e-3)


def test_places_are_those_of_affine_grid():
    affine = torch.randn(4, 2, 3)
    wanted = functional.affine_grid(affine, [4, 1, 5, 8], align_corners=False)
    torch.testing.assert_close(_places(affine, 5, 8), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "recommended", "patch"),
    [((480, 360), (240, 320), 2), ((96, 64), (64, 96), 1), ((250, 130), (128, 256), 2)],
)
def test_pictures_with_masks_keep_their_shape(size, recommended, patch):
    asked = OutputSpec(per=("pixel",))
    advice = Image.recommend(ImageConfig(), asked, records(png(size=size)))
    assert advice.input["size"] == recommended
    assert advice.network["patch"] == patch
    assert advice.input["augment"]["flip"]
    assert not Image.recommend(ImageConfig(), asked, records(png("L", size))).input["augment"]["flip"]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_standardized_grids_are_channels_last(channels, dtype):
    """By their strides: of one channel every order is contiguous, and layers go by the strides."""
    part = standard([0.5] * channels, [0.25] * channels)
    given = torch.full((2, channels, 4, 5), 255).to(dtype)
    grid = part.preprocess({"grid": given})["grid"]
    assert grid.stride() == (20 * channels, 1, 5 * channels, channels)
    assert (grid == 2).all()
    assert (given == 255).all()


def test_one_huge_picture_among_small_ones_changes_nothing_and_is_let_go(tmp_path, monkeypatch):
    read, most = [], [0]

    def reading(value):
        picture = read_image(value)
        read.append(weakref.ref(picture))
        most[0] = max(most[0], sum(each() is not None for each in read))
        return picture

    monkeypatch.setattr("sonde.inputs.image.read_image", reading)
    rng = np.random.default_rng(0)
    values = []
    for number in range(59):
        path = tmp_path / f"{number}.png"
        Pillow.fromarray(rng.integers(0, 255, (44, 48, 3), dtype=np.uint8)).save(path)
        values.append(path)
    huge = tmp_path / "huge.png"
    Pillow.new("RGB", (4000, 3000), (90, 120, 60)).save(huge)
    among = records(huge, *values)
    part = Image.fit(ImageConfig(), among)
    assert part.size == [64, 64]
    # Each is brought to size as soon as it is decoded: there are never more decoded than threads (and a few to go).
    assert most[0] <= 2 * (os.cpu_count() or 1) + 4
    columns, errors = part.encode_many(among)
    assert not errors
    assert columns["grid"].shape == (60, 3, 64, 64)
    advice = Image.recommend(ImageConfig(), OutputSpec(per=("pixel",)), among)
    assert advice.input["size"] == (48, 48)


def test_headers_say_what_decoding_says(tmp_path):
    for number, (mode, orientation) in enumerate([("RGB", 1), ("L", 6), ("RGB", 8), ("1", 1), ("P", 1)]):
        picture = Pillow.new(mode, (30, 20))
        path = tmp_path / f"{number}.{'jpg' if orientation > 1 else 'png'}"
        exif = Pillow.Exif()
        exif[0x0112] = orientation
        picture.save(path, exif=exif)
        whole, header = read_image(path), read_header(path)
        assert header == (whole.mode, whole.height, whole.width)
    assert read_header(np.zeros((4, 6), dtype=np.uint8)) == ("L", 4, 6)
    (tmp_path / "no.png").write_bytes(b"no picture")
    assert read_header(tmp_path / "no.png") is None
    assert read_header(None) is None
