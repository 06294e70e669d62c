"""Small data sets of every shape for `benchmarks/faults.py`, each learnable and without a fault; all are drawn from a
seed but the digits, which are scikit-learn's real ones."""

from __future__ import annotations

import io
import wave
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from sonde.contracts.records import Records

Fields = dict[str, np.ndarray]


@dataclass
class Setup:
    """Records of the three splits, the recipe, and someone's module in place of its network."""

    train: Fields
    validation: Fields
    test: Fields
    recipe: dict[str, Any]
    own: nn.Module | None = None
    data: dict[str, Any] = field(default_factory=dict)

    def splits(self) -> dict[str, Records]:
        return {
            name: Records(fields=part, ids=[f"{name} {row}" for row in range(len(next(iter(part.values()))))])
            for name, part in (("train", self.train), ("validation", self.validation), ("test", self.test))
        }

    def training(self, **changes: Any) -> Setup:
        self.recipe["training"] = {**self.recipe["training"], **changes}
        return self


def objects(values: list[Any]) -> np.ndarray:
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def cut(fields: Fields, sizes: tuple[int, int, int] = (400, 120, 160)) -> tuple[Fields, Fields, Fields]:
    """The first records as training, and so on."""
    ends = np.cumsum(sizes)
    starts = [0, *ends[:-1]]
    parts = [{name: values[a:b] for name, values in fields.items()} for a, b in zip(starts, ends, strict=True)]
    return parts[0], parts[1], parts[2]


ADAMW = {"kind": "adamw", "lr": 3e-3}


def recipe(inputs: Any, target: Any, network: Any, **training: Any) -> dict[str, Any]:
    training = {"epochs": 12, "batch_size": 32, "optimizer": ADAMW, "schedule": {"kind": "warmup-cosine"}} | training
    return {"inputs": {"it": inputs}, "target": target, "network": network, "training": training}


def table(seed: int) -> Setup:
    """Three numbers and a colour; the class hangs on two of the numbers and the colour."""
    rng = np.random.default_rng([seed, 1])
    a, b, c = rng.normal(size=(3, 680))
    colour = rng.integers(3, size=680)
    label = a + b + (colour - 1) + 0.3 * rng.normal(size=680) > 0
    fields = {
        "a": a,
        "b": b,
        "c": c,
        "colour": objects([["red", "green", "blue"][k] for k in colour]),
        "label": objects([["no", "yes"][int(k)] for k in label]),
    }
    made = recipe(
        {"kind": "table", "fields": ["a", "b", "c", "colour"]},
        {"kind": "category", "field": "label"},
        {"kind": "mlp", "hidden": [32]},
        epochs=15,
    )
    return Setup(*cut(fields), made)


def price(seed: int) -> Setup:
    """A number from four."""
    rng = np.random.default_rng([seed, 2])
    a, b, c, d = rng.normal(size=(4, 680))
    fields = {"a": a, "b": b, "c": c, "d": d, "price": 100 + 20 * (a + b * (c > 0)) + 4 * rng.normal(size=680)}
    made = recipe(
        {"kind": "table", "fields": ["a", "b", "c", "d"]},
        {"kind": "number", "fields": ["price"]},
        {"kind": "mlp", "hidden": [64]},
        epochs=30,
    )
    return Setup(*cut(fields), made)


def digits(seed: int) -> Setup:
    """Real handwritten digits."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng([seed, 3]).permutation(len(data.target))[:1200]
    fields = {
        "image": (data.images[order] * 15.9).astype(np.uint8),
        "label": objects([str(label) for label in data.target[order]]),
    }
    made = recipe(
        {"kind": "image", "field": "image"},
        {"kind": "category", "field": "label"},
        {"kind": "cnn", "widths": [16, 32]},
    )
    return Setup(*cut(fields, (800, 200, 200)), made)


def colours(seed: int) -> Setup:
    """Coloured noise with a bright quarter that is the class; more red than blue in all of them."""
    rng = np.random.default_rng([seed, 4])
    place = rng.integers(4, size=680)
    grid = rng.integers(0, 110, (680, 16, 16, 3)).astype(np.int64) + np.array([70, 40, 10])
    for picture, quarter in zip(grid, place, strict=True):
        y, x = 8 * (quarter // 2), 8 * (quarter % 2)
        picture[y : y + 8, x : x + 8] += 60
    fields = {"image": grid.clip(0, 255).astype(np.uint8), "label": objects([f"at {k}" for k in place])}
    made = recipe(
        {"kind": "image", "field": "image"},
        {"kind": "category", "field": "label"},
        {"kind": "cnn", "widths": [16, 32]},
        epochs=8,
    )
    return Setup(*cut(fields), made)


TOPICS = {
    "sea": "wave tide ship harbour sail anchor fish coast storm whale",
    "wood": "tree leaf branch root bark moss fox trail acorn fern",
    "town": "street tram shop bridge tower market square light crowd bus",
}
WORDS = "the a of and to in it was very then there with for on at by from old new big small one two"
PLAIN = WORDS.split(" ")


def texts(seed: int) -> Setup:
    """Sentences of which a few words tell the topic."""
    rng = np.random.default_rng([seed, 5])
    names = list(TOPICS)
    topic = rng.integers(3, size=680)
    made_texts = []
    for k in topic:
        words = [*rng.choice(PLAIN, 9), *rng.choice(TOPICS[names[k]].split(), 4)]
        made_texts.append(" ".join(rng.permutation(words)))
    fields = {"text": objects(made_texts), "label": objects([names[k] for k in topic])}
    made = recipe(
        {"kind": "text", "field": "text", "tokens": "words", "min_count": 1},
        {"kind": "category", "field": "label"},
        {"kind": "recurrent", "width": 32, "embedding": 32, "dropout": 0.1},
        epochs=8,
    )
    return Setup(*cut(fields), made)


def tags(seed: int) -> Setup:
    """Words, of which names of places are tagged."""
    rng = np.random.default_rng([seed, 6])
    places = ["Rome", "Oslo", "Lima", "Bern", "Cairo", "Perth", "Quito", "Seoul"]
    words, found = [], []
    for _ in range(680):
        sentence = list(rng.choice(PLAIN, 8))
        at = rng.choice(8, rng.integers(1, 3), replace=False)
        for place in at:
            sentence[place] = str(rng.choice(places))
        words.append([str(word) for word in sentence])
        found.append(["B-place" if word in places else "O" for word in sentence])
    fields = {"text": objects(words), "tags": objects(found)}
    made = recipe(
        {"kind": "text", "field": "text", "tokens": "words", "min_count": 1},
        {"kind": "tags", "field": "tags"},
        {"kind": "recurrent", "width": 16, "embedding": 16, "dropout": 0.0},
        epochs=4,
    )
    return Setup(*cut(fields), made)


def stream(seed: int) -> Setup:
    """Letters that follow each other by a rule, most of the time."""
    rng = np.random.default_rng([seed, 7])
    letters = "abcdefgh"

    def text(count: int) -> str:
        at, found = 0, []
        for _ in range(count):
            at = (at * 3 + 1) % 8 if rng.random() < 0.85 else int(rng.integers(8))
            found.append(letters[at])
        return "".join(found)

    parts = [{"text": objects([text(count)])} for count in (9000, 1600, 1600)]
    made = recipe(
        {"kind": "text", "field": "text", "tokens": "characters", "window": 24},
        {"kind": "next-token"},
        {"kind": "transformer", "width": 32, "layers": 1, "heads": 2},
        epochs=12,
    )
    return Setup(parts[0], parts[1], parts[2], made)


RATE = 4000


def sound(notes: list[float], rng: np.random.Generator, gain: float = 0.4, seconds: float = 0.12) -> bytes:
    """A WAV file of tones, one after the other, each a little off and with noise."""
    time = np.arange(int(RATE * seconds)) / RATE
    tones = [np.sin(2 * np.pi * note * time * (1 + 0.02 * rng.normal()) + 6 * rng.random()) for note in notes]
    values = gain * (0.6 + 0.4 * rng.random()) * np.concatenate(tones) + 0.02 * rng.normal(size=len(time) * len(notes))
    return to_wav(values)


def to_wav(values: np.ndarray) -> bytes:
    place = io.BytesIO()
    with wave.open(place, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((values.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return place.getvalue()


def of_wav(data: bytes) -> np.ndarray:
    with wave.open(io.BytesIO(data)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2") / 32767


def sounds(seed: int) -> Setup:
    """Two tones each: which goes first is the class; what they are differs."""
    rng = np.random.default_rng([seed, 8])
    label = rng.integers(3, size=480)
    made_sounds = []
    for k in label:
        low = 250 + 300 * rng.random()
        notes = {0: [low, 3 * low], 1: [3 * low, low], 2: [low, low]}[int(k)]
        made_sounds.append(sound(notes, rng, seconds=0.12 + 0.04 * rng.random()))
    fields = {"audio": objects(made_sounds), "label": objects([["up", "down", "flat"][k] for k in label])}
    made = recipe(
        {"kind": "audio", "field": "audio", "rate": RATE, "n_mels": 24},
        {"kind": "category", "field": "label"},
        {"kind": "cnn", "widths": [16, 32]},
        epochs=12,
    )
    return Setup(*cut(fields, (280, 90, 110)), made)


def spelled(seed: int) -> Setup:
    """Tones that spell letters."""
    rng = np.random.default_rng([seed, 9])
    notes = {"a": 300.0, "b": 600.0, "c": 1000.0, "d": 1500.0}
    names = ["".join(rng.choice(list(notes), rng.integers(2, 5))) for _ in range(480)]
    fields = {
        "audio": objects([sound([notes[letter] for letter in name], rng) for name in names]),
        "text": objects(names),
    }
    made = recipe(
        {"kind": "audio", "field": "audio", "rate": RATE, "n_mels": 24},
        {"kind": "ctc", "field": "text"},
        {"kind": "recurrent", "width": 32, "embedding": 32, "subsample": 2, "dropout": 0.0},
        epochs=60,
    )
    return Setup(*cut(fields, (300, 80, 100)), made)


def masks(seed: int) -> Setup:
    """A bright and a dark square on noise."""
    rng = np.random.default_rng([seed, 10])
    grid = rng.integers(70, 130, (300, 24, 24)).astype(np.int64)
    mask = np.zeros((300, 24, 24), dtype=np.uint8)
    for picture, truth in zip(grid, mask, strict=True):
        for value, shift in ((1, 90), (2, -65)):
            y, x = rng.integers(0, 15, 2)
            side = rng.integers(6, 10)
            picture[y : y + side, x : x + side] += shift
            truth[y : y + side, x : x + side] = value
    fields = {"image": grid.clip(0, 255).astype(np.uint8), "mask": mask}
    made = recipe(
        {"kind": "image", "field": "image"},
        {"kind": "mask", "field": "mask", "classes": ["ground", "light", "dark"]},
        {"kind": "unet", "widths": [8, 16]},
        epochs=10,
        batch_size=16,
    )
    return Setup(*cut(fields, (180, 60, 60)), made)


def boxes(seed: int) -> Setup:
    """Bright things of two shapes on noise, in pictures that are wider than high."""
    rng = np.random.default_rng([seed, 11])
    grid = rng.integers(0, 90, (300, 32, 48)).astype(np.int64)
    found = []
    for picture in grid:
        mine = []
        for _ in range(int(rng.integers(1, 3))):
            wide = rng.random() < 0.5
            high, width = (6, 12) if wide else (11, 6)
            y, x = int(rng.integers(0, 32 - high)), int(rng.integers(0, 48 - width))
            picture[y : y + high, x : x + width] += 130
            mine.append({"label": "wide" if wide else "high", "box": [x, y, x + width, y + high]})
        found.append(mine)
    fields = {"image": grid.clip(0, 255).astype(np.uint8), "boxes": objects(found)}
    made = recipe(
        {"kind": "image", "field": "image", "size": [32, 48]},
        {"kind": "boxes", "field": "boxes", "width": 16, "convolutions": 1},
        {"kind": "cnn", "widths": [16, 32, 32]},
        epochs=15,
        batch_size=16,
    )
    return Setup(*cut(fields, (180, 60, 60)), made)


def embedded(seed: int) -> Setup:
    """Digits, to lie near their like."""
    made = digits(seed)
    made.recipe["target"] = {"kind": "embedding", "field": "label", "width": 16, "per_class": 4}
    made.recipe["training"] |= {"epochs": 8, "batch_size": 64}
    return made


def several(seed: int) -> Setup:
    """Any of three bright corners."""
    rng = np.random.default_rng([seed, 12])
    there = rng.random((680, 3)) < 0.4
    grid = rng.integers(0, 100, (680, 16, 16)).astype(np.int64)
    for picture, corners in zip(grid, there, strict=True):
        for corner in np.flatnonzero(corners):
            y, x = 10 * (corner // 2), 10 * (corner % 2)
            picture[y : y + 6, x : x + 6] += 100
    names = np.array(["a", "b", "c"], dtype=object)
    fields = {
        "image": grid.clip(0, 255).astype(np.uint8),
        "tags": objects([[str(name) for name in names[row]] for row in there]),
    }
    made = recipe(
        {"kind": "image", "field": "image"},
        {"kind": "labels", "field": "tags"},
        {"kind": "cnn", "widths": [16, 32]},
        epochs=10,
    )
    return Setup(*cut(fields), made)


def written(seed: int) -> Setup:
    """A text from a text: the letters in capitals."""
    rng = np.random.default_rng([seed, 13])
    words = ["".join(rng.choice(list("abcde"), rng.integers(8, 12))) for _ in range(880)]
    fields = {"text": objects(words), "target": objects([word.upper() for word in words])}
    made = recipe(
        {"kind": "text", "field": "text", "tokens": "characters"},
        {
            "kind": "sequence",
            "field": "target",
            "tokens": "characters",
            "decoder": {"width": 32, "layers": 1, "heads": 2},
        },
        {"kind": "transformer", "width": 32, "layers": 1, "heads": 2},
        epochs=20,
    )
    return Setup(*cut(fields, (600, 120, 160)), made)


SHAPES: dict[str, Callable[[int], Setup]] = {
    each.__name__: each
    for each in (
        table, price, digits, colours, texts, tags, stream, sounds, spelled, masks, boxes, embedded, several, written,
    )
}  # fmt: skip
