from __future__ import annotations

import csv
import io
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from sonde.base.errors import RecordError, UserError
from sonde.base.rng import BatchRng
from sonde.contracts.augment import AugmentParams
from sonde.contracts.columns import take
from sonde.contracts.records import Records, as_field
from sonde.contracts.specs import OutputSpec
from sonde.inputs import _mel
from sonde.inputs.audio import Audio, AudioConfig, Augment
from sonde.training.settings import TrainingConfig

NOTHING = Augment(gain=0, shift=0, time=0, frequency=0)


def records(*sounds):
    return Records(fields={"audio": as_field(list(sounds))}, ids=[str(number) for number in range(len(sounds))])


def sound(samples, rate=8000, kind="WAV", subtype="FLOAT"):
    file = io.BytesIO()
    soundfile.write(file, np.asarray(samples, dtype=np.float32), rate, format=kind, subtype=subtype)
    return file.getvalue()


def tone(hertz=440.0, seconds=0.5, rate=8000):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def audio(*sounds, **settings):
    return Audio.fit(AudioConfig(**settings), records(*(sounds or (sound(tone()), sound(tone(660, 0.3))))))


def draw(*positions, epoch=0):
    return BatchRng(seed=0, epoch=epoch, records_B=torch.tensor(positions))


@pytest.fixture(scope="module")
def digits(shared):
    folder = shared / "fsdd_4speakers"
    with (folder / "manifest.csv").open(newline="") as file:
        paths = [folder / row["path"] for row in csv.DictReader(file)][::25]
    return records(*paths)


@pytest.fixture(scope="module")
def fitted(digits):
    return Audio.fit(AudioConfig(), digits)


def test_spoken_digits_alone_together_and_restored_are_the_same(digits, fitted):
    columns, errors = fitted.encode_many(digits)
    values, tensors = fitted.save()
    config = AudioConfig.model_validate(json.loads(fitted.config.model_dump_json()))
    restored = Audio.restore(config, json.loads(json.dumps(values)), tensors)
    assert not errors
    assert restored == fitted
    for index in range(len(digits)):
        for part in (fitted, restored):
            alone = part.encode(digits[index])
            assert torch.equal(alone["frames"], columns["frames"][index])
            assert torch.equal(alone["length"], columns["length"][index])
    spec = fitted.spec
    assert (spec.layout, spec.channels) == ("frames", 40)
    assert columns["frames"].shape == (len(digits), *spec.size, 40)
    assert columns["frames"].dtype == torch.float16


def test_preprocessing_gives_mean_zero_and_deviation_one_and_silent_padding(digits, fitted):
    tensors = fitted.preprocess(fitted.collate(fitted.encode_many(digits)[0]))
    real = torch.arange(fitted.length)[None] < tensors["length"][:, None]
    frames = tensors["frames"]
    assert frames.dtype == torch.float32
    assert frames[real].mean(0).abs().max() < 1e-2
    assert (frames[real].std(0) - 1).abs().max() < 1e-2
    assert (frames[~real] == 0).all()


def test_features_are_those_of_the_formula():
    samples = np.random.default_rng(0).standard_normal(2000) * 0.1
    found = audio(sound(samples), n_mels=40)._frames(sound(samples)).numpy()
    # Frame 7 by hand: 200 samples around sample 7 * 80 under a Hann window, padded to 256.
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(200) / 200)
    piece = samples[560 - 100 : 560 + 100] * window
    place = np.exp(-2j * np.pi * np.outer(np.arange(129), np.arange(200)) / 256)
    power = np.abs(place @ piece) ** 2
    expected = np.log(np.maximum(power @ _mel.filters(8000, 40).numpy(), 1e-10))
    np.testing.assert_allclose(found[7], expected, rtol=1e-4, atol=1e-4)
    assert found.shape == (1 + 2000 // 80, 40)


@pytest.mark.parametrize(("rate", "n_mels"), [(8000, 40), (16000, 64), (16000, 80)])
def test_filters_and_spectrogram_are_those_of_librosa(rate, n_mels):
    from transformers.audio_utils import mel_filter_bank, spectrogram

    n_fft = _mel.n_fft(rate)
    theirs = mel_filter_bank(n_fft // 2 + 1, n_mels, 0, rate / 2, rate, norm="slaney", mel_scale="slaney")
    ours = _mel.filters(rate, n_mels)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-6)
    assert (ours.sum(0) > 0).all()
    samples = np.random.default_rng(1).standard_normal(4000).astype(np.float32)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_mel.window(rate)) / _mel.window(rate))
    padded = np.zeros(n_fft)
    start = (n_fft - len(hann)) // 2
    padded[start : start + len(hann)] = hann
    expected = spectrogram(
        samples, padded, n_fft, _mel.hop(rate), power=2.0, pad_mode="constant", mel_filters=theirs, log_mel="log"
    )
    found = _mel.log_mel(torch.from_numpy(samples), rate, ours)
    np.testing.assert_allclose(found.numpy(), expected.T, atol=2e-3)


def test_the_same_sound_in_another_form_gives_the_same_features():
    part = audio(seconds=0.5)
    plain = part._frames(sound(tone()))
    both = np.stack([tone(), tone()], axis=1)
    torch.testing.assert_close(part._frames(sound(both)), plain)
    for kind, subtype, rate in (("FLAC", "PCM_16", 8000), ("WAV", "PCM_16", 44100), ("OGG", "VORBIS", 16000)):
        other = part._frames(sound(tone(rate=rate), rate, kind, subtype))
        loud = plain > plain.max() - 6
        assert other.shape == plain.shape
        assert (other - plain)[loud].abs().max() < 0.2, (kind, rate)


def test_rate_and_length_come_from_the_data():
    high = [sound(tone(rate=44100), 44100)] * 2
    assert audio(*high, sound(tone())).rate == 16000
    assert audio(*high, sound(tone())).n_mels == 64
    assert audio(high[0], sound(tone())).rate == 8000
    assert audio(high[0], rate=22050).rate == 22050
    many = audio(*[sound(tone(seconds=0.2))] * 99, sound(tone(seconds=3)))
    assert many.seconds == 0.2
    assert many.length == 1 + 1600 // 80
    assert audio(sound(np.zeros(8000 * 31))).seconds == 30


def test_short_recordings_are_padded_with_silence_and_long_ones_cut():
    part = audio(seconds=0.4)
    columns, _ = part.encode_many(records(sound(tone(seconds=0.1)), sound(tone(seconds=2))))
    assert columns["length"].tolist() == [11, 41]
    assert columns["frames"].shape == (2, 41, 40)
    assert (columns["frames"][0, 11:] == np.float16(math.log(1e-10))).all()
    one, _ = part.encode_many(records(sound([0.1])))
    assert one["length"].tolist() == [1]


def test_silence_can_be_learnt():
    part = audio(sound(np.zeros(800)))
    frames = part.preprocess(part.collate(part.encode_many(records(sound(np.zeros(800))))[0]))["frames"]
    assert torch.isfinite(frames).all()


def test_augmentation_is_keyed_and_does_not_depend_on_the_batch(digits, fitted):
    tensors = fitted.collate(fitted.encode_many(digits)[0])
    everyone = range(len(digits))
    whole, params = fitted.augment(tensors, draw(*everyone))
    again, _ = fitted.augment(tensors, draw(*everyone))
    other, _ = fitted.augment(tensors, draw(*everyone, epoch=1))
    some, _ = fitted.augment(take(tensors, torch.tensor([9, 4])), draw(9, 4))
    assert params == AugmentParams()
    assert torch.equal(whole["frames"], again["frames"])
    assert not torch.equal(whole["frames"], other["frames"])
    assert torch.equal(whole["frames"][[9, 4]], some["frames"])
    assert torch.equal(whole["length"][[9, 4]], some["length"])
    assert (whole["length"] <= fitted.length).all()
    assert (whole["length"] >= tensors["length"]).all()


def augmented(count=400, length=30, **settings):
    """Frames of value 1 and a mean of 0, so that what was blanked is 0."""
    part = Audio(
        config=AudioConfig(augment=NOTHING.model_copy(update=settings)),
        rate=8000,
        n_mels=20,
        seconds=0.5,
        mean=[0.0] * 20,
        deviation=[1.0] * 20,
    )
    frames = torch.ones(count, part.length, 20, dtype=torch.float16)
    tensors = {"frames": frames, "length": torch.full((count,), length)}
    return part.augment(tensors, draw(*range(count)))[0]


def test_nothing_is_changed_when_all_is_off():
    assert (augmented()["frames"] == 1).all()


def test_a_shift_delays_and_loses_nothing():
    changed = augmented(shift=0.5, length=40)
    delay = (changed["frames"][:, :, 0] == 0).sum(1)
    assert set(delay.tolist()) == set(range(12))
    assert torch.equal(changed["length"], 40 + delay)
    assert torch.equal(augmented(shift=0.5, length=51)["length"], torch.full((400,), 51))


def test_gain_moves_all_bands_alike():
    change = augmented(gain=6.0)["frames"] - 1
    torch.testing.assert_close(change.amin((1, 2)), change.amax((1, 2)))
    assert 1.3 < float(change.max()) <= 6 * math.log(10) / 10
    assert abs(float(change.mean())) < 0.15


def test_masks_blank_stretches_and_ranges_up_to_their_share():
    times = (augmented(time=0.2, masks=1)["frames"][:, :, 0] == 0).sum(1)
    assert set(times.tolist()) == set(range(7))
    blank = augmented(frequency=0.25, masks=1)["frames"][:, 0, :] == 0
    assert set(blank.sum(1).tolist()) == set(range(6))
    # One range is one piece: it begins at most once.
    assert int((blank[:, 1:] & ~blank[:, :-1]).sum(1).max()) <= 1
    assert (augmented(time=0.2, masks=1, length=30)["frames"][:, 30:] == 1).all()


def test_a_record_without_a_readable_recording_is_named(tmp_path):
    empty, text, half = tmp_path / "empty.wav", tmp_path / "notes.wav", tmp_path / "half.wav"
    empty.write_bytes(sound([]))
    text.write_text("these are notes")
    half.write_bytes(sound(tone())[:3000])
    torn = sound(tone(seconds=2), kind="FLAC", subtype="PCM_16")[:2500]
    wild = sound([0.1, np.nan, np.inf])
    part = audio()
    columns, errors = part.encode_many(records(sound(tone()), empty, text, half, torn, wild, None, "a.wav"))
    assert sorted(errors) == [1, 2, 3, 4, 5, 6, 7]
    assert len(columns["frames"]) == 1
    assert str(errors[1]) == f"{empty} has no samples. Expected a recording that is not empty."
    assert "notes.wav is not a readable recording: Format not recognised. Expected a whole WAV" in str(errors[2])
    assert "half.wav is cut short: it has 3000 of" in str(errors[3])
    assert "the recording is not a readable recording: flac decoder lost sync" in str(errors[4])
    assert str(errors[5]) == "the recording has samples that are NaN or infinite. Expected samples from -1 to 1."
    assert str(errors[6]) == "the record has no recording in field 'audio'."
    assert "'a.wav' is not a file" in str(errors[7])
    with pytest.raises(RecordError, match=r"gone\.wav cannot be read: No such file"):
        part.encode({"audio": Path("gone.wav")})


def test_data_without_recordings_cannot_be_fitted():
    with pytest.raises(UserError, match=r"none of the first 2 records has a readable recording in field 'audio'"):
        audio(b"no", b"none")
    with pytest.raises(UserError, match=r"the records have no field 'sound'. Expected one of: audio"):
        audio(field="sound")
    with pytest.raises(RecordError, match="samples that are NaN or infinite"):
        audio(sound([np.nan, 0.0]))


def test_a_missing_package_is_named(monkeypatch):
    recording = sound(tone())
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(UserError, match=r"audio needs the package soundfile.*sonde\[audio\]"):
        audio(recording)


def test_advice_is_made_of_settings(digits):
    for per, network in (("example", "cnn"), ("position", "recurrent")):
        advice = Audio.recommend(AudioConfig(), OutputSpec(per=(per,)), digits)
        AudioConfig.model_validate(dict(advice.input))
        assert advice.network["kind"] == network
        TrainingConfig.model_validate(dict(advice.training))


def test_one_long_recording_among_short_ones_is_cut_and_told(monkeypatch):
    short = [sound(tone(300 + 10 * number, 0.3)) for number in range(11)]
    among = records(*short, sound(tone(440, 9.0)))
    part = Audio.fit(AudioConfig(), among)
    assert part.seconds == pytest.approx(0.6)
    columns, errors = part.encode_many(among)
    assert not errors
    assert columns["frames"].shape[1] == part.length < 70
    advice = Audio.recommend(AudioConfig(), OutputSpec(per=("example",)), among)
    assert advice.input == {"seconds": 0.6}
    assert advice.notes == (
        "1 of 12 recordings are longer than 0.6 s (the longest is 9 s) and are cut there; seconds in the recipe "
        "changes it",
    )
    # Where many are long they are what the data is about.
    half = Audio.fit(AudioConfig(), records(*short[:6], *[sound(tone(440, 2.0))] * 6))
    assert half.seconds == pytest.approx(2.0)
    assert Audio.recommend(AudioConfig(), OutputSpec(per=("example",)), records(*short)).notes == ()
