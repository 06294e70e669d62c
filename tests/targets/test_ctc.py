"""CTC: the loss and the decoding against every path, texts that do not fit, blanks, timestamps, transcripts."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

import sonde
from sonde.base.errors import UserError
from sonde.commands.new import write_recipe
from sonde.commands.prove import prove
from sonde.contracts.batch import Batch, Examples
from sonde.contracts.columns import to_numpy
from sonde.contracts.records import Records, as_field
from sonde.contracts.specs import InputSpec, OutputSpec
from sonde.contracts.task import Task
from sonde.data.sources.transcripts import Transcripts, TranscriptsConfig
from sonde.inputs.audio import Audio, AudioConfig, Augment
from sonde.networks.recurrent import Recurrent, RecurrentConfig
from sonde.networks.transformer import Transformer, TransformerConfig
from sonde.recipe import Recipe
from sonde.targets._paths import align, best_path, prefix_beam
from sonde.targets.ctc import Ctc, CtcConfig, Heard

RATE = 8000
TONES = {"a": 500.0, "b": 1100.0, "c": 2300.0}


def tone_text(text, rng, seconds=0.15):
    """A sound whose tones spell a text of a, b and c, with pauses."""
    time = np.arange(round(seconds * RATE)) / RATE
    pause = np.zeros(round(0.08 * RATE))
    parts = [pause]
    for letter in text.replace(" ", ""):
        parts += [0.3 * np.sin(2 * np.pi * TONES[letter] * time), pause]
    sound = np.concatenate(parts)
    return (sound + 0.003 * rng.standard_normal(len(sound))).astype(np.float32)


def wav(sound):
    file = io.BytesIO()
    soundfile.write(file, sound, RATE, format="WAV")
    return file.getvalue()


def records(texts=("ab c", "b", "aa", "cab b")):
    rng = np.random.default_rng(0)
    sounds = as_field([wav(tone_text(text, rng)) for text in texts])
    return Records(
        fields={"audio": sounds, "text": as_field(list(texts))}, ids=[f"sound {n}" for n in range(len(texts))]
    )


def task(train=None, **settings):
    train = train or records()
    part = Audio.fit(AudioConfig(n_mels=16), train)
    return Task(inputs={"audio": part}, target=Ctc.fit(CtcConfig(**settings), train, {"audio": part}))


def spelled(path):
    return tuple(code for code, _ in itertools.groupby(path) if code)


def by_all_paths(chances_TV):
    """The log probability of every text, over all of its paths."""
    steps, size = chances_TV.shape
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(size), repeat=steps):
        total = sum(chances_TV[place, code] for place, code in enumerate(path))
        text = spelled(path)
        found[text] = float(np.logaddexp(found.get(text, -np.inf), total))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_finds_the_likeliest_text_over_all_paths(seed):
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed)) * 2
    chances = logits.log_softmax(1).double().numpy()
    found = by_all_paths(chances)
    best = max(found, key=found.__getitem__)
    answer = prefix_beam(chances, 200)
    assert tuple(answer.tokens) == best
    assert answer.log_probability == pytest.approx(found[best], abs=1e-3)
    greedy = best_path(chances)
    assert tuple(greedy.tokens) == spelled(chances.argmax(1).tolist())
    assert [chances[start:stop].argmax(1).tolist() for start, stop in greedy.spans] == [
        [token] * (stop - start) for token, (start, stop) in zip(greedy.tokens, greedy.spans, strict=True)
    ]
    spans = align(chances, list(best))
    assert all(start < stop for start, stop in spans)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))


class Says(nn.Module):
    """Answers with given logits."""

    def __init__(self, logits, lengths, stride=1):
        super().__init__()
        self.heard = Heard(logits_BTV=logits, length_B=torch.tensor(lengths), stride=stride)

    def forward(self, inputs):
        return self.heard


def batch_of(made, texts):
    truth, errors = made.target.encode_many(
        Records(fields={"text": as_field(texts)}, ids=[str(n) for n in range(len(texts))]), {}
    )
    assert not errors
    examples = Examples(inputs={}, truth=truth, count=len(texts))
    return Batch(inputs={}, truth=made.target.collate(truth), records_B=torch.arange(len(texts)), examples=examples)


def test_the_loss_is_that_of_all_paths_and_a_text_that_does_not_fit_teaches_nothing():
    made = task()
    assert made.target.vocabulary.known == " abc"
    logits = torch.randn(3, 4, made.target.size, generator=torch.Generator().manual_seed(0)).requires_grad_()
    network, batch = Says(logits, [4, 3, 4]), batch_of(made, ["ab", "aa", "abcab"])
    costs = made.target._costs(network.heard, batch)
    for index, text in ((0, "ab"), (1, "aa")):
        chances = logits[index].detach().log_softmax(1).double().numpy()[: [4, 3][index]]
        ids, _ = made.target.vocabulary.encode([text])
        assert float(costs[index].detach()) == pytest.approx(-by_all_paths(chances)[tuple(ids.tolist())], rel=1e-4)
    assert float(costs[2].detach()) == 0
    costs.sum().backward()
    assert float(logits.grad[2].abs().max()) == 0
    assert float(logits.grad[0].abs().max()) > 0
    assert made.target.counts(batch)["loss"] == 3 + 3 + 6
    columns = {name: to_numpy(column) for name, column in made.target.eval_outputs(network, batch).items()}
    assert columns["too_long"].tolist() == [False, False, True]
    (warning, *_) = made.target.warnings(columns)
    assert "1 of 3 texts of the validation split need more positions than their recordings have" in warning


def test_nothing_but_blanks_is_told():
    made = task()
    logits = torch.zeros(2, 6, made.target.size)
    logits[:, :, 0] = 9.0
    network, batch = Says(logits, [6, 5]), batch_of(made, ["ab", "c"])
    columns = {name: to_numpy(column) for name, column in made.target.eval_outputs(network, batch).items()}
    (warning,) = made.target.warnings(columns)
    assert warning.startswith("100.0% of the answers are blank and 100% of the texts are empty")
    found = made.target.metrics(columns, np.ones((1, 2)))
    assert found["wer"][0] == 1.0
    assert found["wer/deletions"][0] == 1.0
    assert found["blanks"][0] == 1.0
    assert made.target.signatures["wer"] == "nrefs:1|unit:words|normaliser:none"


def test_words_are_told_with_their_time():
    made = task(answer_words=True)
    code = {letter: int(made.target.vocabulary.encode([letter])[0][0]) for letter in " abc"}
    path = [0, code["a"], code["a"], code["b"], 0, code[" "], code["c"], code["c"], 0]
    logits = torch.full((1, len(path), made.target.size), -9.0)
    logits[0, torch.arange(len(path)), torch.tensor(path)] = 9.0
    (answer,) = made.predict(Says(logits, [len(path)], stride=4), batch_of(made, ["ab c"]))
    assert answer["text"] == "ab c"
    assert answer["words"] == [
        {"word": "ab", "start": 0.04, "end": 0.16},
        {"word": "c", "start": 0.24, "end": 0.32},
    ]


@pytest.mark.parametrize("kind", ["recurrent", "transformer"])
@pytest.mark.parametrize("per", ["position", "example"])
def test_subsampled_frames_do_not_depend_on_their_company(kind, per):
    torch.manual_seed(0)
    spec, output = InputSpec(layout="frames", channels=6, size=(41,)), OutputSpec(per=(per,), width=3)
    if kind == "recurrent":
        network = Recurrent(RecurrentConfig(width=8, embedding=8, subsample=4), spec, output).eval()
    else:
        network = Transformer(TransformerConfig(width=16, layers=1, heads=2, subsample=4), spec, output).eval()
    lengths = torch.tensor([41, 17, 30])
    frames = torch.randn(3, 41, 6) * (torch.arange(41) < lengths[:, None])[:, :, None]
    with torch.no_grad():
        together = network({"frames": frames, "length": lengths})
        for index, length in enumerate(lengths.tolist()):
            alone = network({"frames": frames[index : index + 1, :length], "length": lengths[index : index + 1]})
            if per == "example":
                torch.testing.assert_close(alone[0], together[index], rtol=1e-4, atol=1e-5)
                continue
            count = -(-length // 4)
            assert alone.values.shape[1] == count
            assert together.stride == 4
            assert together.inside_BT is None or int(together.inside_BT[index].sum()) == count
            torch.testing.assert_close(alone.values[0], together.values[index, :count], rtol=1e-4, atol=1e-5)


def test_only_frames_are_subsampled():
    spec = InputSpec(layout="tokens", vocabulary=9, size=(8,))
    with pytest.raises(
        UserError, match=r"joins frames of sound .* the input offers tokens.* hint: set network\.subsample to 1"
    ):
        Recurrent(RecurrentConfig(subsample=2), spec, OutputSpec(per=("position",), width=2))


def test_a_change_of_speed_shortens_and_raises():
    """As a tone that is really played faster: the middle band moves up, and the length shrinks."""
    from sonde.inputs import _mel

    filters = _mel.filters(RATE, 40)
    time = np.arange(RATE) / RATE
    slow = _mel.log_mel(torch.from_numpy(np.sin(2 * np.pi * 1000 * time).astype(np.float32)), RATE, filters)
    fast = _mel.log_mel(torch.from_numpy(np.sin(2 * np.pi * 1250 * time[:6400]).astype(np.float32)), RATE, filters)
    changed, length = _mel.change_speed(slow[None], torch.tensor([len(slow)]), torch.tensor([1.25]), RATE)
    assert abs(int(length) - len(fast)) <= 1
    peak = changed[0, 20:60].mean(0).argmax()
    assert abs(int(peak) - int(fast[20:60].mean(0).argmax())) <= 1
    same, length = _mel.change_speed(slow[None], torch.tensor([len(slow)]), torch.ones(1), RATE)
    torch.testing.assert_close(same[0], slow, rtol=1e-4, atol=1e-3)
    slower, length = _mel.change_speed(slow[None], torch.tensor([len(slow)]), torch.tensor([0.5]), RATE)
    assert int(length) == slower.shape[1] == len(slow)


def test_a_sound_needs_frames_and_a_text():
    train = records()
    part = Audio.fit(AudioConfig(n_mels=16), train)
    with pytest.raises(UserError, match="all 4 training records have the same text"):
        Ctc.fit(CtcConfig(), train.with_fields(text=as_field(["a"] * 4)), {"audio": part})


def write_folder(root, count=72):
    rng = np.random.default_rng(1)
    for number in range(count):
        text = "".join(rng.choice(list("abc"), rng.integers(1, 5)))
        part = root / ("train" if number < count * 0.7 else "dev" if number < count * 0.85 else "test")
        part.mkdir(parents=True, exist_ok=True)
        (part / f"{number:03}.wav").write_bytes(wav(tone_text(text, rng)))
        (part / f"{number:03}.txt").write_text(f"{text}\n")


def test_from_a_folder_with_transcripts_to_texts(tmp_path):
    """new -> fit -> prove, on tones that spell."""
    write_folder(tmp_path / "data")
    made = write_recipe(str(tmp_path / "data"), tmp_path / "recipe.toml")
    assert "text: ctc (a text along a recording" in made.to_text()
    changes = [
        "training.steps=240",
        "network.width=32",
        "network.layers=1",
        "training.evaluate_every=240",
        "network.dropout=0",
        "network.embedding=32",
        "training.batch_size=16",
        "training.optimizer.lr=0.01",
        "inputs.audio.augment={gain=0,shift=0,masks=0}",
    ]
    run = sonde.fit(Recipe.read(tmp_path / "recipe.toml", changes=changes), out=tmp_path / "run")
    cer = run.scores["test"]["cer"]
    assert cer.value < 0.5 * cer.baseline
    assert not prove(tmp_path / "run").failed


def test_lists_of_transcripts_are_read_as_librispeech_has_them(tmp_path):
    folder = tmp_path / "84" / "121123"
    folder.mkdir(parents=True)
    for name in ("84-121123-0000", "84-121123-0001", "84-121123-0002"):
        (folder / f"{name}.flac").write_bytes(b"fLaC")
    (folder / "84-121123.trans.txt").write_text("84-121123-0000 GO DO YOU HEAR\n84-121123-0001 BUT IN LESS\n")
    found = Transcripts.read(tmp_path, TranscriptsConfig())
    assert found.fields["text"].tolist() == ["GO DO YOU HEAR", "BUT IN LESS", None]
    guess = Transcripts.guess(tmp_path, None)
    assert "1 recordings have no transcript, such as 84/121123/84-121123-0002.flac" in guess.warnings[0]


@pytest.mark.parametrize(
    ("name", "row"),
    [("manifest.jsonl", '{{"audio_filepath": "{0}.wav", "duration": 1.5, "text": "{1}"}}'), ("m.csv", "{0}.wav,{1}")],
)
def test_manifests_are_recognised(tmp_path, name, row):
    rng = np.random.default_rng(0)
    for number in range(40):
        (tmp_path / f"{number}.wav").write_bytes(b"RIFF")
    lines = [row.format(number, "".join(rng.choice(list("abcdef"), 6))) for number in range(40)]
    if name.endswith(".csv"):
        lines.insert(0, "path,transcript")
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    from sonde.data.sources.table import Table

    guess = Table.guess(tmp_path / name, None)
    assert guess.target == {"kind": "ctc", "field": "text" if name.endswith("l") else "transcript"}
    assert [each["kind"] for each in guess.inputs.values()] == ["audio"]


def test_augmentation_by_speed_is_off_for_categories_and_on_for_texts():
    assert Augment().speed == 0
    found = Audio.recommend(AudioConfig(), OutputSpec(per=("position",)), records())
    assert found.input["augment"]["speed"] == 0.1
