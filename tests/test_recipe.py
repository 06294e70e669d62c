from __future__ import annotations

import pytest

from sonde.base.errors import UserError
from sonde.recipe import Recipe

WHOLE = """
[data]
source = "sklearn:digits"
split = { by = "stratified" }

[inputs.image]
kind = "image"
size = 8

[target]
kind = "category"

[network]
kind = "mlp"

[training]
epochs = 2
optimizer = { kind = "adamw", lr = 1e-3 }
"""


@pytest.fixture
def write(tmp_path):
    def written(old="", new=""):
        assert old in WHOLE
        path = tmp_path / "recipe.toml"
        path.write_text(WHOLE.replace(old, new, 1))
        return path

    return written


def test_a_relative_file_starts_at_the_recipes_folder(write, tmp_path):
    path = write('kind = "mlp"', 'kind = "timm"\nname = "test_vit"\nweights = "first/vit.safetensors"')
    text = path.read_text().replace('kind = "image"\nsize = 8', 'kind = "text"\ntokenizer = "tokenizer.json"')
    path.write_text(text)
    read = Recipe.read(path)
    assert read.inputs["image"].tokenizer == str(tmp_path / "tokenizer.json")
    assert read.network["image"].weights == str(tmp_path / "first" / "vit.safetensors")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "resolved.toml").write_text(read.to_toml())
    assert Recipe.read(tmp_path / "elsewhere" / "resolved.toml") == read
    assert Recipe.read(path, changes=["network.weights=/there.pth"]).network["image"].weights == "/there.pth"


def refused(path, *changes):
    with pytest.raises(UserError) as caught:
        Recipe.read(path, changes=changes)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_the_resolved_recipe_reads_back_equal(write, tmp_path):
    recipe = Recipe.read(write())
    path = tmp_path / "resolved.toml"
    path.write_text(recipe.to_toml())
    assert Recipe.read(path) == recipe
    assert "micro_batch" not in recipe.to_toml()
    assert "batch_size = 64" in recipe.to_toml()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "epochs = 2",
            "stpes = 2",
            r"training.stpes is not a setting of training (recipe.toml:17). Expected one of: epochs, steps,",
        ),
        ("epochs = 2", "stpes = 2", "hint: did you mean training.steps?"),
        ("lr = 1e-3", "lrr = 1e-3", "training.optimizer.lrr is not a setting of training.optimizer (recipe.toml:18)"),
        ("size = 8", "sise = 8", "inputs.image.sise is not a setting of inputs.image (recipe.toml:8)"),
        ('"stratified"', '"stratifid"', "data.split.by = 'stratifid' is not valid (recipe.toml:4)"),
        ('source = "sk', 'sorce = "x"\nsource = "sk', "data.sorce is not a setting of data (recipe.toml:3)"),
        ('"mlp"', '"mpl"', "the network kind 'mpl' does not exist (recipe.toml:14). Expected one of: "),
        ('"mlp"', '"mpl"', "hint: did you mean 'mlp'?"),
        ('kind = "category"', 'knd = "category"', "target has no kind (recipe.toml:10). Expected kind = one of:"),
        ("[target]", "[traget]", "traget is not a setting of a recipe (recipe.toml:10)"),
        (
            "lr = 1e-3",
            "lr = -1",
            "training.optimizer.lr = -1 is not valid (recipe.toml:18): Input should be greater than 0",
        ),
        ("epochs = 2", "epochs = ", "is not TOML"),
        ("[inputs.image]", "[inputs.'a b']", "the name 'a b' in [inputs.a b] is not a plain word"),
        ('source = "sklearn:digits"', 'source = "nothing/here"', "does not exist"),
    ],
)
def test_a_wrong_recipe_is_told_where_and_how_to_mend(write, old, new, said):
    assert said in refused(write(old, new))


def test_a_missing_section_is_named(write):
    assert "has no [network] section" in refused(write('[network]\nkind = "mlp"\n', ""))
    assert "hint: `sonde new DATA` writes a whole recipe" in refused(write('[network]\nkind = "mlp"\n', ""))


def test_a_section_that_is_a_value(write):
    with pytest.raises(UserError, match=r"has no \[training\] section"):
        Recipe.read(write(), changes=["training=3"])


def test_overrides_replace_settings_anywhere(write):
    changes = ("training.steps=7", "training.optimizer.lr=0.5", "network.kind=mlp", "network.hidden=[4, 5]")
    recipe = Recipe.read(write(), changes=changes)
    assert recipe.training.steps == 7
    assert recipe.training.epochs is None
    assert recipe.training.optimizer.lr == 0.5
    assert list(recipe.network["image"].hidden) == [4, 5]
    assert "--set 'training.steps' is not an override" in refused(write(), "training.steps")
    assert "training.stepz is not a setting of training (from --set). Expected" in refused(write(), "training.stepz=3")


def test_a_recipe_that_is_not_there_or_not_text(tmp_path):
    assert "cannot be read: No such file" in refused(tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8 text" in refused(tmp_path / "binary.toml")


@pytest.mark.parametrize(
    ("setting", "old", "new"),
    [
        ("training.clip=1.0", "training.clip", "training.max_grad_norm"),
        ("training.average=0.9", "training.average", "training.ema_decay"),
        ("training.keep=last", "training.keep", "training.checkpoint"),
        ("training.schedule.final=0.1", "training.schedule.final", "training.schedule.min_lr_ratio"),
        ("training.schedule.at=[0.5]", "training.schedule.at", "training.schedule.milestones"),
        ("training.optimizer.lr_other=1e-3", "training.optimizer.lr_other", "training.optimizer.lr_adamw"),
        ("inputs.image.fit=pad", "inputs.image.fit", "inputs.image.resize_mode"),
        ("inputs.image.augment.small=0.5", "inputs.image.augment.small", "inputs.image.augment.small_fraction"),
    ],
)
def test_a_setting_that_had_another_name_tells_the_new_one(write, setting, old, new):
    said = refused(write(), setting)
    assert f"{old} is not a setting of {old.rpartition('.')[0]} (from --set)" in said
    assert said.endswith(f"hint: {old} is now called {new}")
    # And the new one exists.
    value = {"checkpoint": "last", "resize_mode": "pad", "milestones": "[0.5]"}.get(new.rpartition(".")[2], "0.5")
    assert Recipe.read(write(), changes=[f"{new}={value}"])


def test_the_number_of_mel_bands_had_another_name(write):
    path = write()
    path.write_text(path.read_text().replace('kind = "image"\nsize = 8', 'kind = "audio"\nbands = 40'))
    assert refused(path).endswith("hint: inputs.image.bands is now called inputs.image.n_mels")
    assert "(recipe.toml:8)" in refused(path)
