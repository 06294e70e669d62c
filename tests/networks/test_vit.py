"""Pictures and clips as patches: parity with timm, positions by axis, stems, stochastic depth, dense answers."""

import pytest
import torch

from sonde.base.errors import UserError
from sonde.contracts.specs import InputSpec, OutputSpec
from sonde.networks._packing import packed, padded
from sonde.networks.transformer import Transformer, TransformerConfig

PICTURE = InputSpec(layout="grid", channels=3, size=(32, 32))
CLIP = InputSpec(layout="grid", channels=1, size=(8, 12, 12))
EXAMPLE = OutputSpec(per=("example",), width=2)


def _named_as_timm(ours: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our weights under the names that timm has for the same layers."""
    renamed = {}
    for name, value in ours.items():
        for one, other in (
            ("entry.layer", "patch_embed.proj"),
            ("attention.out", "attn.proj"),
            ("attention.qkv", "attn.qkv"),
            (".fc", ".mlp.fc"),
            ("position_embedding.weight", "pos_embed"),
        ):
            name = name.replace(one, other)
        if name == "pos_embed":
            value = value[None]
        renamed[name] = value[None, None] if name == "cls_token" else value
    return renamed


@pytest.mark.parametrize(("pool", "theirs"), [("class", "token"), ("mean", "avg")])
def test_the_same_features_as_timm_on_the_same_weights(pool, theirs):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    config = TransformerConfig(width=24, layers=3, heads=4, patch=8, pool=pool, norm_eps=1e-6)
    ours = Transformer(config, PICTURE, EXAMPLE).eval()
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    reference = timm.models.vision_transformer.VisionTransformer(
        img_size=32,
        patch_size=8,
        embed_dim=24,
        depth=3,
        num_heads=4,
        num_classes=0,
        global_pool=theirs,
        class_token=pool == "class",
        fc_norm=False,
    ).eval()
    reference.load_state_dict(_named_as_timm(ours.state_dict()))
    grid = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours({"grid": grid}), reference(grid), rtol=1e-5, atol=1e-5)


def test_sinusoids_by_axis_are_those_of_timm():
    timm = pytest.importorskip("timm")
    network = Transformer(TransformerConfig(width=16, patch=8, positions="sinusoidal"), PICTURE, EXAMPLE)
    found = network.entry.sinusoids(torch.device("cpu"))
    reference = timm.layers.build_sincos2d_pos_embed([4, 4], dim=16, interleave_sin_cos=False)
    # They put the two axes' sines first, then their cosines.
    rows, columns = found[:, :8], found[:, 8:]
    ordered = torch.cat([rows[:, :4], rows[:, 4:], columns[:, :4], columns[:, 4:]], dim=1)
    assert {tuple(row) for row in ordered.T.round(decimals=4).tolist()} == {
        tuple(row) for row in reference.T.round(decimals=4).tolist()
    }


def test_patches_of_a_clip_may_have_a_side_for_each_axis():
    network = Transformer(TransformerConfig(width=16, heads=2, layers=1, patch=(2, 4, 4)), CLIP, EXAMPLE)
    assert network.entry.shape == (4, 3, 3)
    assert network({"grid": torch.randn(2, 1, 8, 12, 12)}).shape == (2, 16)


def test_patches_need_a_side_for_each_axis():
    with pytest.raises(UserError) as caught:
        Transformer(TransformerConfig(patch=(2, 4, 4)), PICTURE, EXAMPLE)
    assert str(caught.value) == (
        "network.patch has 3 sides, and the input's grid 2 axes. Expected one number, or one for each axis."
    )


def test_a_convolutional_stem_ends_at_the_same_patches():
    config = TransformerConfig(width=16, heads=2, layers=1, patch=(2, 4, 4), stem="convolutional")
    network = Transformer(config, CLIP, EXAMPLE)
    assert network.entry.stem(torch.randn(1, 1, 8, 12, 12)).shape == (1, 16, 4, 3, 3)
    with pytest.raises(UserError, match=r"halves the size step by step; network.patch is \[6, 6\]"):
        Transformer(TransformerConfig(patch=6, stem="convolutional"), PICTURE, EXAMPLE)


def test_a_dense_answer_is_a_grid_of_patches_in_their_places():
    torch.manual_seed(0)
    network = Transformer(
        TransformerConfig(width=16, heads=2, layers=1, patch=8, dropout=0.0),
        PICTURE,
        OutputSpec(per=("pixel",), width=2),
    ).eval()
    as_positions = Transformer(
        TransformerConfig(width=16, heads=2, layers=1, patch=8, dropout=0.0),
        PICTURE,
        OutputSpec(per=("position",), width=2),
    ).eval()
    as_positions.load_state_dict(network.state_dict())
    grid = torch.randn(2, 3, 32, 32)
    (found,) = network({"grid": grid})
    assert found.shape == (2, 16, 4, 4)
    torch.testing.assert_close(found[:, :, 1, 2], as_positions({"grid": grid})[:, 1 * 4 + 2])


def test_stochastic_depth_skips_whole_examples_and_keeps_the_mean():
    network = Transformer(
        TransformerConfig(width=16, heads=2, layers=2, dropout=0.0, drop_path=0.5), PICTURE, EXAMPLE
    ).train()
    assert [block.skipped for block in network.blocks] == [0.0, 0.5]
    torch.manual_seed(0)
    kept = (
        network.blocks[1]._kept(torch.ones(4000 * 3, 16), padded(4000, 3, None, causal=False)).unflatten(0, (4000, 3))
    )
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert (kept == kept[:, :1, :1]).all()
    assert abs(kept.mean() - 1) < 0.05
    assert (network.eval().blocks[1]._kept(torch.ones(6, 16), padded(2, 3, None, causal=False)) == 1).all()


def test_rows_that_are_packed_know_their_example():
    length_B = torch.tensor([2, 4, 3])
    layout = packed(length_B, 4, causal=False)
    rows = layout.pack(torch.arange(3.0)[:, None, None].expand(3, 4, 1))
    assert torch.equal(layout.by_row(torch.arange(3.0)), rows[:, 0])
