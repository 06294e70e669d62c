"""Clips: frames evenly through them, whatever the container; errors that name the file."""

from __future__ import annotations

import io
from fractions import Fraction

import numpy as np
import pytest
import torch

import sonde
from sonde.base.errors import RecordError
from sonde.base.rng import BatchRng
from sonde.base.videos import read_frames, spread
from sonde.commands.new import write_recipe
from sonde.contracts.records import Records
from sonde.inputs.video import Video, VideoAugment, VideoConfig
from sonde.recipe import Recipe

av = pytest.importorskip("av")


def clip(values, *, format="avi", codec="mjpeg") -> bytes:
    """A clip of one grey value a frame."""
    held = io.BytesIO()
    with av.open(held, "w", format=format) as container:
        stream = container.add_stream(codec, rate=Fraction(10))
        stream.width = stream.height = 32
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for value in values:
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), value, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return held.getvalue()


def shades(value, count):
    return [round(float(np.asarray(frame.convert("L")).mean())) for frame in read_frames(value, count)]


@pytest.mark.parametrize(("format", "codec"), [("avi", "mjpeg"), ("matroska", "mpeg4"), ("mp4", "mpeg4")])
def test_frames_lie_evenly_through_the_clip(format, codec):
    values = [20 * number + 10 for number in range(12)]
    found = shades(clip(values, format=format, codec=codec), 4)
    assert np.abs(np.array(found) - np.array([values[index] for index in (1, 4, 7, 10)])).max() <= 3


def test_a_short_clip_repeats_frames():
    assert spread(2, 4) == [0, 0, 1, 1]
    assert np.abs(np.array(shades(clip([50, 200]), 4)) - [50, 50, 200, 200]).max() <= 3


def test_what_is_no_clip_is_told(tmp_path):
    file = tmp_path / "a.mp4"
    file.write_bytes(b"no clip at all" * 100)
    with pytest.raises(RecordError, match=r"a.mp4 is not a readable clip: .*Expected a whole clip: MP4"):
        read_frames(file, 4)
    whole = clip([10, 20, 30], format="mp4", codec="mpeg4")
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecordError, match=r"a.mp4 is not a readable clip"):
        read_frames(file, 4)
    with pytest.raises(RecordError, match=r"the clip is an array of float64 \(3, 4\)"):
        read_frames(np.zeros((3, 4)), 4)


def test_all_frames_of_a_clip_are_moved_alike():
    clips = np.empty(3, dtype=object)
    clips[:] = [np.repeat(np.random.default_rng(n).integers(0, 255, (1, 8, 8), np.uint8), 4, axis=0) for n in range(3)]
    records = Records(fields={"video": clips}, ids=["a", "b", "c"])
    part = Video.fit(VideoConfig(frames=4, augment=VideoAugment(shift=0.25, flip=True)), records)
    tensors = part.collate(part.encode_many(records)[0])
    moved, params = part.augment(tensors, BatchRng(seed=0, epoch=0, records_B=torch.arange(3)))
    assert part.channels == 1
    assert (moved["grid"] == moved["grid"][:, :, :1]).all()
    # Masks follow by the same map.
    torch.testing.assert_close(params.grids(tensors["grid"][:, 0], 0), moved["grid"][:, 0])


def test_from_class_folders_of_clips_to_answers(tmp_path):
    for name, values in (("rising", [10, 60, 110, 160]), ("falling", [160, 110, 60, 10])):
        (tmp_path / "clips" / name).mkdir(parents=True)
        for number in range(8):
            (tmp_path / "clips" / name / f"{number}.avi").write_bytes(clip([each + number for each in values]))
    said = write_recipe(str(tmp_path / "clips"), tmp_path / "recipe.toml").to_text()
    assert "found 16 clips in 2 class folders" in said
    text = "\n".join(
        line
        for line in (tmp_path / "recipe.toml").read_text().splitlines()
        if not line.startswith(("epochs", "frames"))
    )
    (tmp_path / "recipe.toml").write_text(text)
    changes = ["training.steps=20", "inputs.video.frames=4", "inputs.video.size=8", "network.widths=[4,8]"]
    recipe = Recipe.read(tmp_path / "recipe.toml", changes=[*changes, "network.convolutions=1"])
    model = sonde.load(sonde.fit(recipe, out=tmp_path / "run").artifact)
    (answer,) = model.predict([tmp_path / "clips" / "rising" / "0.avi"])
    assert set(answer["probabilities"]) == {"rising", "falling"}
