from __future__ import annotations

import io

import numpy as np
import pytest
import sklearn.metrics as oracle
import torch
from PIL import Image as Pillow
from pydantic import ValidationError
from target_fakes import (
    Fake,
    FakeConfig,
    FakeInput,
    Fixed,
    as_json,
    check_repeats,
    check_sums,
    made,
    mean_loss,
    question,
    restored,
)
from torch.nn import functional

from sonde.base.config import Config
from sonde.base.errors import RecordError, UserError
from sonde.base.rng import BatchRng
from sonde.contracts.augment import AugmentParams
from sonde.contracts.records import Records
from sonde.contracts.specs import InputSpec
from sonde.inputs.image import Augment, Image, ImageConfig
from sonde.targets.mask import IGNORED, Mask, MaskConfig, dice_loss, unpack

CAMVID = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")


def records(*masks):
    column = np.empty(len(masks), dtype=object)
    column[:] = masks
    return Records(fields={"mask": column}, ids=[f"picture {index}" for index in range(len(masks))])


def grid(height=4, width=4, how="squash"):
    return {
        "given": FakeInput(
            config=FakeConfig(resize_mode=how), offered=InputSpec(layout="grid", channels=3, size=(height, width))
        )
    }


def mask(*masks, inputs=None, **settings):
    return Mask.fit(MaskConfig(**settings), records(*(masks or (np.arange(4).reshape(2, 2),))), inputs or grid())


def png(values, mode="L"):
    image = Pillow.fromarray(np.asarray(values, dtype=np.uint8))
    if mode == "P":
        image.putpalette(list(range(256)) * 3)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def batch(seed=0, count=8, weights=False, num_classes=4):
    """Random pictures and masks, some pixels ignored, one picture without the last classes."""
    drawn = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, num_classes, (count, 4, 4), generator=drawn)
    truth[0] %= 2
    truth[torch.rand(count, 4, 4, generator=drawn) < 0.2] = IGNORED
    inputs = {"given": {"grid": torch.randn(count, 3, 4, 4, generator=drawn)}}
    weight_B = torch.rand(count, generator=drawn) if weights else None
    return made(inputs, {"mask": truth.to(torch.uint8)}, weight_B)


def test_camvid(shared):
    pictures = sorted((shared / "camvid_small" / "train").glob("*"))[:12]
    masks = sorted((shared / "camvid_small" / "trainannot").glob("*"))[:12]
    picture_field = np.empty(12, dtype=object)
    picture_field[:] = pictures
    every = records(*masks).with_fields(image=picture_field)
    image = Image.fit(ImageConfig(size=(45, 60)), every)
    target = Mask.fit(MaskConfig(ignore=11, classes=list(CAMVID)), every, {"photo": image})
    assert target.ids == list(range(11))
    assert target.size == [45, 60]
    assert target.how == "crop"
    assert target.width == 11
    columns, errors = target.encode_many(every, {})
    assert not errors
    truth = columns["mask"]
    assert truth.dtype == torch.uint8
    assert truth.shape == (12, 45, 60)
    assert set(truth.unique().tolist()) <= {*range(11), IGNORED}
    whole = np.stack([np.asarray(Pillow.open(path)) for path in masks])
    # Every eighth pixel says about as much as all of them.
    np.testing.assert_allclose((truth == 3).float().mean().item(), (whole == 3).mean(), rtol=0.05)
    assert target.pixels == np.bincount(whole.ravel(), minlength=12)[:11].tolist()
    assert torch.equal(restored(target).encode(every[3], {})["mask"], truth[3])


def test_the_ids_that_masks_hold_become_classes():
    target = mask(np.array([[0, 255], [255, 255]], dtype=np.uint8))
    assert target.ids == [0, 255]
    assert target.classes == ["0", "255"]
    assert target.pixels == [1, 3]
    assert target.encode({"mask": np.full((4, 4), 255)}, {})["mask"].unique().tolist() == [1]
    assert mask(np.array([[0, 255], [7, 255]]), ignore=255).ids == [0, 7]


def test_names_of_ids():
    target = mask(np.array([[1, 2], [4, 0]]), ignore=0, classes=["road", "car", "sky", "tree"])
    assert target.ids == [1, 2, 3, 4]
    assert target.pixels == [1, 1, 0, 1]
    assert mask(np.array([[0, 255]]), classes=["ground", "cloud"]).ids == [0, 255]


@pytest.mark.parametrize("layout", ["array", "grey", "palette", "file", "bool", "16 bit"])
def test_forms_of_a_mask(layout, tmp_path):
    values = np.array([[0, 1], [1, 0]])
    (tmp_path / "mask.png").write_bytes(png(values))
    sixteen = io.BytesIO()
    Pillow.fromarray(values.astype(np.uint16)).save(sixteen, "PNG")
    value = {
        "array": values,
        "grey": png(values),
        "palette": png(values, "P"),
        "file": tmp_path / "mask.png",
        "bool": values.astype(bool),
        "16 bit": sixteen.getvalue(),
    }[layout]
    found = mask(values).encode({"mask": value}, {})["mask"]
    assert found.dtype == torch.uint8
    assert found.tolist() == np.kron(values, np.ones((2, 2))).tolist()


@pytest.mark.parametrize("how", ["crop", "squash", "pad"])
def test_the_mask_goes_where_its_picture_goes(how):
    """A picture that shows its own mask still does so at the size of the input."""
    values = np.zeros((30, 50), dtype=np.uint8)
    values[10:, 20:40] = 1
    every = records(png(values))
    every = every.with_fields(image=np.array([png(values * 200)], dtype=object))
    image = Image.fit(ImageConfig(size=(20, 24), resize_mode=how, channels=1), every)
    target = Mask.fit(MaskConfig(), every, {"photo": image})
    shown = image.encode(every[0])["grid"][0]
    truth = target.encode(every[0], {})["mask"]
    sure = ((shown < 20) | (shown > 180)) & (truth != IGNORED)
    assert sure.float().mean() > (0.5 if how == "pad" else 0.8)
    assert torch.equal(shown[sure] > 100, truth[sure] == 1)
    assert bool((truth == IGNORED).any()) == (how == "pad")


def test_augmentation_moves_picture_and_mask_alike():
    drawn = np.random.default_rng(0)
    masks = [drawn.integers(0, 4, (8, 8), dtype=np.uint8) for _ in range(6)]
    every = records(*masks)
    pictures = np.empty(6, dtype=object)
    pictures[:] = [png(each * 60) for each in masks]
    every = every.with_fields(image=pictures)
    for augment in (Augment(flip=True, shift=0.25), Augment(flip=True)):
        image = Image.fit(ImageConfig(channels=1, augment=augment), every)
        target = Mask.fit(MaskConfig(), every, {"photo": image})
        rng = BatchRng(seed=0, epoch=1, records_B=torch.arange(6))
        changed, params = image.augment(image.encode_many(every)[0], rng)
        followed = target.apply_augment(target.encode_many(every, {})[0], params)["mask"]
        assert torch.equal(changed["grid"][:, 0], followed * 60)


def test_whole_pixels_are_shifted_with_reflection_and_mirrored():
    truth = torch.tensor([[[0, 1, 2], [3, 0, IGNORED]]], dtype=torch.uint8)

    def moved(shift, flip):
        params = AugmentParams(size=(2, 3), shift_BD=torch.tensor([shift]), flip_BD=torch.tensor([flip]))
        return mask().apply_augment({"mask": truth}, params)["mask"].tolist()

    assert moved([1, 0], [False, False]) == [[[3, 0, IGNORED], [0, 1, 2]]]
    assert moved([0, 1], [False, False]) == [[[1, 2, 1], [0, IGNORED, 0]]]
    assert moved([0, 1], [False, True]) == [[[1, 0, 1], [0, 3, 0]]]
    assert mask().apply_augment({"mask": truth}, AugmentParams())["mask"] is truth


def test_an_affine_map_takes_the_nearest_pixel():
    truth = torch.tensor([[[0, 1, 2], [3, 0, IGNORED]]], dtype=torch.uint8)
    mirror = torch.tensor([[[-1.0, 0, 0], [0, 1, 0]]])
    assert (
        mask().apply_augment({"mask": truth}, AugmentParams(size=(2, 3), affine=mirror))["mask"].tolist()
        == truth.flip(2).tolist()
    )
    right = torch.tensor([[[1.0, 0, -2 / 3], [0, 1, 0]]])
    found = mask().apply_augment({"mask": truth}, AugmentParams(size=(2, 3), affine=right))["mask"]
    assert found.tolist() == [[[IGNORED, 0, 1], [IGNORED, 3, 0]]]
    assert found.dtype == torch.uint8


def test_mixed_pictures_are_refused():
    with pytest.raises(NotImplementedError, match="Mask does not support mixed examples"):
        mask().apply_augment(batch().truth, AugmentParams(mix_weight_B=torch.ones(8)))


@pytest.mark.parametrize(
    ("class_weights", "weights"),
    [("none", [1.0, 1, 1, 1]), ("balanced", [0.5, 1.5, 1.5, 1.5]), ({"0": 3.0}, [3.0, 1, 1, 1])],
)
def test_cross_entropy_is_that_of_torch(class_weights, weights):
    target = mask(np.array([[0, 1], [2, 3], [0, 0]]), class_weights=class_weights)
    given, network = batch(), Fake(4)
    wanted = functional.cross_entropy(
        network(given.inputs), given.truth["mask"].long(), weight=torch.tensor(weights), ignore_index=IGNORED
    )
    torch.testing.assert_close(mean_loss(target, network, given), wanted)


def test_dice_by_its_definition():
    given = batch()
    p, truth = Fake(4)(given.inputs).softmax(1), given.truth["mask"]
    wanted = []
    for each, true in zip(p, truth, strict=True):
        valid = true != IGNORED
        losses = []
        for code in true[valid].unique().tolist():
            is_class, answered = (true == code)[valid].float(), each[code][valid]
            losses.append(1 - 2 * (is_class * answered).sum() / (is_class.sum() + answered.sum()))
        wanted.append(torch.stack(losses).mean())
    torch.testing.assert_close(dice_loss(p, truth), torch.stack(wanted))


def test_dice_of_the_right_answer_is_zero():
    truth = batch().truth["mask"]
    sure = functional.one_hot(truth.long() % 4, 4).movedim(-1, 1).float()
    torch.testing.assert_close(dice_loss(sure, truth), torch.zeros(8))
    nothing = torch.full((1, 4, 4), IGNORED, dtype=torch.uint8)
    assert dice_loss(sure[:1], nothing).tolist() == [0.0]


def test_terms_and_their_weights():
    given, network = batch(), Fake(4)
    rng = BatchRng(seed=0, epoch=0, records_B=given.records_B)
    one = mask(dice=1.0).loss(network, given, rng)
    other = mask(cross_entropy=0.0, dice=0.5).loss(network, given, rng)
    assert set(one) == {"cross_entropy", "dice"}
    assert set(other) == {"dice"}
    torch.testing.assert_close(other["dice"], one["dice"] / 2)
    pixels = (given.truth["mask"] != IGNORED).flatten(1).sum(1).float()
    per_picture = dice_loss(network(given.inputs).softmax(1), given.truth["mask"])
    torch.testing.assert_close(
        one["dice"] / mask(dice=1.0).counts(given)["dice"], (per_picture * pixels).sum() / pixels.sum()
    )
    with pytest.raises(ValidationError, match="cross_entropy and dice are both 0"):
        MaskConfig(cross_entropy=0.0, dice=0.0)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("settings", [{}, {"dice": 0.7}, {"dice": 1.0, "class_weights": "balanced"}])
def test_losses_are_sums(settings, weights):
    target = mask(np.array([[0, 1], [2, 3], [0, 0]]), **settings)
    check_sums(target, Fake(4), batch(weights=weights))
    check_repeats(target, Fake(4), batch())


def test_predictions_unpack():
    target = mask(np.array([[0, 7], [9, 255]]), classes=["sky", "road", "car", "tree"])
    drawn = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 4, (3, 4, 5), generator=drawn)
    codes[0] = 2
    answers = target.predict(Fixed(functional.one_hot(codes, 4).movedim(-1, 1).float()), question(3))
    assert as_json(answers) == answers
    for answer, wanted in zip(answers, codes.numpy(), strict=True):
        assert answer["size"] == [4, 5]
        np.testing.assert_array_equal(unpack(answer), np.array([0, 7, 9, 255])[wanted])
        assert sum(answer["mask"]["lengths"]) == 20
    assert answers[0]["mask"] == {"ids": [9], "lengths": [20]}
    assert answers[0]["shares"] == {"sky": 0.0, "road": 0.0, "car": 1.0, "tree": 0.0}


def test_metrics():
    target, given, network = mask(), batch(), Fake(4)
    confusion = target.eval_outputs(network, given)["confusion"]
    answered, truth = network(given.inputs).argmax(1), given.truth["mask"]
    for each, a, t in zip(confusion, answered, truth, strict=True):
        valid = t != IGNORED
        np.testing.assert_array_equal(each, oracle.confusion_matrix(t[valid], a[valid], labels=range(4)))
    found = target.metrics({"confusion": confusion.numpy()}, np.ones((1, 8)))
    valid = truth != IGNORED
    iou = oracle.jaccard_score(truth[valid], answered[valid], average=None)
    assert list(found) == ["miou", "pixel_accuracy", "class_accuracy", "iou/0", "iou/1", "iou/2", "iou/3"]
    assert [found[f"iou/{name}"][0] for name in range(4)] == pytest.approx(iou.tolist())
    assert found["miou"][0] == pytest.approx(iou.mean())
    assert found["pixel_accuracy"][0] == pytest.approx(oracle.accuracy_score(truth[valid], answered[valid]))
    assert found["class_accuracy"][0] == pytest.approx(oracle.balanced_accuracy_score(truth[valid], answered[valid]))
    assert target.best[0] in found


def test_bad_masks_say_what_and_what_to_do(tmp_path):
    target = mask(np.array([[0, 1]]), classes=["road", "car"])
    for value, text in (
        (None, "the record has no mask in field 'mask'"),
        (b"no picture", "is not a readable picture"),
        (
            np.arange(12, dtype=np.uint8).reshape(2, 2, 3),
            "the mask in field 'mask' is in colours. Expected a class id a pixel, or a colour for each class in "
            "target.palette. hint: sonde new writes",
        ),
        (np.zeros((2, 2, 5), np.uint8), "is an array of uint8 (2, 2, 5). Expected one class id a pixel"),
        (np.zeros((2, 2)), "is an array of float64 (2, 2)"),
        (np.array([[-1]]), "is an array of int64 (1, 1)"),
        (
            np.array([[0, 9]]),
            "the mask has pixels of the id 9, which no training mask has. Expected one of: 0 road, 1 car. "
            "hint: set target.ignore = 9, or name every class in target.classes",
        ),
    ):
        with pytest.raises(RecordError) as caught:
            target.encode({"mask": value}, {})
        assert text in str(caught.value)


def test_bad_settings_say_what_and_what_to_do():
    with pytest.raises(UserError, match="no training record has a readable mask in field 'mask'"):
        mask(b"broken", None)
    with pytest.raises(UserError, match=r"the training masks hold 1 classes.*Expected from 2 to 254"):
        mask(np.zeros((2, 2), np.uint8))
    with pytest.raises(UserError, match="masks hold class ids, not colours or grey values"):
        mask(np.arange(256).reshape(16, 16))
    with pytest.raises(
        UserError, match=r"names 2 classes, the masks hold the ids 0, 1, 5\..*one name for each id.*target\.ignore"
    ):
        mask(np.array([[0, 1, 5]]), classes=["road", "car"])
    with pytest.raises(UserError, match="the field 'masks' does not exist"):
        mask(field="masks")


class NoPicture(Config):
    kind: str = "sound"


def test_the_input_that_a_mask_belongs_to():
    picture = grid()["given"]
    sound = FakeInput(config=NoPicture(), offered=InputSpec(layout="grid", channels=1, size=(4, 4)))
    row = FakeInput(config=NoPicture(), offered=InputSpec(layout="vector", channels=2))
    assert mask(inputs={"a": picture, "b": row}).size == [4, 4]
    assert mask(inputs={"a": picture, "b": sound}, input="a").size == [4, 4]
    for inputs, settings, text in (
        ({"b": row}, {}, r"target 'mask' needs an input that offers grid; the inputs are: b \(vector\)"),
        ({"a": picture, "c": picture}, {}, r"can belong to several inputs: a, c.*choose one with target\.input"),
        ({"a": picture}, {"input": "aa"}, r"target\.input: the input 'aa' does not exist"),
        ({"b": row}, {"input": "b"}, r"target\.input is 'b', which offers vector.*an input that offers grid"),
        ({"b": sound}, {}, "the input 'b' is neither a picture nor a volume"),
    ):
        with pytest.raises(UserError, match=text):
            mask(inputs=inputs, **settings)


def test_advice_minds_small_classes():
    assert Mask.recommend(MaskConfig(), {}, records()).target == {"dice": 1.0}


def test_masks_in_colours():
    palette = {"road": "#ff0000", "void": "#000000", "sky": "#0000ff"}
    colours = np.array([[[255, 0, 0], [0, 0, 255]], [[0, 0, 0], [0, 0, 255]]], np.uint8)
    target = mask(colours, palette=palette, ignore=1)
    assert (target.ids, target.classes, target.pixels) == ([0, 2], ["road", "sky"], [1, 2])
    # Names and places of the classes are those of the palette; void is ignored, and codes have no gap.
    assert target.encode({"mask": colours}, {})["mask"].unique().tolist() == [0, 1, 255]
    near = colours.copy()
    near[0, 0] = [250, 9, 3]
    with pytest.raises(RecordError, match=r"has 1 pixels of the colour #fa0903.*nearest_colour = true"):
        target.encode({"mask": near}, {})
    nearest = mask(colours, palette=palette, ignore=1, nearest_colour=True)
    assert (nearest.encode({"mask": near}, {})["mask"] == target.encode({"mask": colours}, {})["mask"]).all()
    for settings, text in (
        ({"palette": palette, "classes": ["a", "b"]}, "palette names the classes"),
        ({"nearest_colour": True}, "give palette as well"),
        ({"palette": {"road": "red"}}, "String should match pattern"),
    ):
        with pytest.raises(ValueError, match=text):
            MaskConfig(**settings)


def test_grey_in_three_channels_is_grey():
    grey = np.array([[0, 1], [3, 3]], np.uint8)
    target = mask(grey)
    alpha = np.full((2, 2, 1), 9, np.uint8)
    for shape in (np.stack([grey] * 3, 2), np.concatenate([np.stack([grey] * 3, 2), alpha], 2)):
        assert (target.encode({"mask": shape}, {})["mask"] == target.encode({"mask": grey}, {})["mask"]).all()
