"""The faults of `benchmarks/faults.py`: each takes a sound set-up and puts one thing wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import faults_data as sets
import faults_networks as modules
import numpy as np
from faults_data import Setup, objects

Stage = Literal["audit", "flight", "fit"]


@dataclass(frozen=True)
class Fault:
    """One thing wrong, and the only words that count as having caught it: the name of a check that does not pass, or
    ("told:" before it) words of an error or of a warning while training."""

    name: str
    stage: Stage
    expected: str
    make: Callable[[int], Setup]


FAULTS: list[Fault] = []


def fault(name: str, stage: Stage, expected: str) -> Callable[[Callable[[int], Setup]], Callable[[int], Setup]]:
    def known(make: Callable[[int], Setup]) -> Callable[[int], Setup]:
        FAULTS.append(Fault(name, stage, expected, make))
        return make

    return known


def add(
    name: str, stage: Stage, expected: str, shape: str, change: Callable[[Setup, np.random.Generator], None]
) -> None:
    def make(seed: int) -> Setup:
        made = sets.SHAPES[shape](seed)
        change(made, np.random.default_rng([seed, 99]))
        return made

    FAULTS.append(Fault(f"{shape}: {name}", stage, expected, make))


# Labels.
def shuffled(share: float) -> Callable[[Setup, np.random.Generator], None]:
    def change(made: Setup, rng: np.random.Generator) -> None:
        labels = made.train["label"]
        if share == 1:
            made.train["label"] = rng.permutation(labels)
            return
        classes = sorted(set(labels))
        labels = labels.copy()
        for place in rng.choice(len(labels), int(share * len(labels)), replace=False):
            labels[place] = rng.choice([one for one in classes if one != labels[place]])
        made.train["label"] = labels

    return change


for shape in ("table", "digits", "texts", "sounds", "colours"):
    add("all labels shuffled", "audit", "signal", shape, shuffled(1.0))
for shape in ("table", "digits", "texts", "colours"):
    add("20 % of the labels wrong", "audit", "labels", shape, shuffled(0.2))


def _moved_up(made: Setup, rng: np.random.Generator) -> None:
    made.train["label"] = np.roll(made.train["label"], 1)


add("labels of the record before", "audit", "signal", "digits", _moved_up)
add("labels of the record before", "audit", "signal", "texts", _moved_up)


def _conflicting(field: str) -> Callable[[Setup, np.random.Generator], None]:
    def change(made: Setup, rng: np.random.Generator) -> None:
        labels = made.train["label"].copy()
        made.train[field] = made.train[field].copy()
        for place in range(0, 60, 2):
            made.train[field][place] = made.train[field][place + 1]
            labels[place] = next(one for one in sorted(set(labels)) if one != labels[place + 1])
        made.train["label"] = labels

    return change


add("same picture, two labels", "audit", "conflicting labels", "digits", _conflicting("image"))
add("same text, two labels", "audit", "conflicting labels", "texts", _conflicting("text"))


def _rare(made: Setup, rng: np.random.Generator) -> None:
    made.train["label"] = made.train["label"].copy()
    made.train["label"][:3] = "rare"


add("a class of three records", "audit", "classes to learn", "table", _rare)


def _few_held(made: Setup, rng: np.random.Generator) -> None:
    kept = np.flatnonzero(made.test["label"] != "3")
    one = np.flatnonzero(made.test["label"] == "3")[:2]
    made.test = {name: values[np.concatenate([kept, one])] for name, values in made.test.items()}


add("two test records of a class", "audit", "classes to score", "digits", _few_held)


# Leaks.
def _leak_number(made: Setup, rng: np.random.Generator) -> None:
    made.recipe["inputs"]["it"]["fields"] += ["decided"]
    for part in (made.train, made.validation, made.test):
        part["decided"] = (part["label"] == "yes") * 2.0 + 0.1 * rng.normal(size=len(part["label"]))


def _leak_word(made: Setup, rng: np.random.Generator) -> None:
    made.recipe["inputs"]["it"]["fields"] += ["status"]
    for part in (made.train, made.validation, made.test):
        part["status"] = objects(["closed" if label == "yes" else "open" for label in part["label"]])


def _leak_price(made: Setup, rng: np.random.Generator) -> None:
    made.recipe["inputs"]["it"]["fields"] += ["with_tax"]
    for part in (made.train, made.validation, made.test):
        part["with_tax"] = 1.19 * part["price"] + 0.2 * rng.normal(size=len(part["price"]))


add("a number that gives the target away", "audit", "leaks", "table", _leak_number)
add("a word that gives the target away", "audit", "leaks", "table", _leak_word)
add("the target with tax among the inputs", "audit", "leaks", "price", _leak_price)


# Splits.
def _copied(made: Setup, rng: np.random.Generator) -> None:
    for name, values in made.test.items():
        count = len(values) // 3
        made.test[name] = np.concatenate([made.train[name][:count], values[count:]])


for shape in ("table", "digits", "texts", "sounds", "masks", "price"):
    add("a third of test is training", "audit", "duplicates across splits", shape, _copied)


def _nearly_picture(made: Setup, rng: np.random.Generator) -> None:
    _copied(made, rng)
    count = len(made.test["image"]) // 3
    some = made.test["image"][:count].astype(int)
    made.test["image"] = made.test["image"].copy()
    made.test["image"][:count] = (some + rng.integers(-2, 3, some.shape)).clip(0, 255).astype(np.uint8)


def _nearly_text(made: Setup, rng: np.random.Generator) -> None:
    _copied(made, rng)
    for place in range(len(made.test["text"]) // 3):
        words = made.test["text"][place].split()
        words[int(rng.integers(len(words)))] = "the"
        made.test["text"][place] = " ".join(words)


def _nearly_row(made: Setup, rng: np.random.Generator) -> None:
    _copied(made, rng)
    count = len(made.test["a"]) // 3
    for name in ("a", "b", "c"):
        made.test[name][:count] = np.round(made.test[name][:count], 2)


def _nearly_sound(made: Setup, rng: np.random.Generator) -> None:
    _copied(made, rng)
    for place in range(len(made.test["audio"]) // 3):
        values = sets.of_wav(made.test["audio"][place])
        made.test["audio"][place] = sets.to_wav(0.8 * values + 0.002 * rng.normal(size=len(values)))


near = "near duplicates across splits"
add("a third of test is training, saved again", "audit", near, "digits", _nearly_picture)
add("a third of test is training, saved again", "audit", near, "colours", _nearly_picture)
add("a third of test is training, a word changed", "audit", near, "texts", _nearly_text)
add("a third of test is training, rounded", "audit", near, "table", _nearly_row)
add("a third of test is training, softer", "audit", near, "sounds", _nearly_sound)


def _within(made: Setup, rng: np.random.Generator) -> None:
    for name, values in made.train.items():
        made.train[name] = np.concatenate([values, values[:80]])


add("training records repeated", "audit", "duplicates", "digits", _within)
add("training records repeated", "audit", "duplicates", "texts", _within)


def _owners(made: Setup, rng: np.random.Generator) -> None:
    for part in (made.train, made.validation, made.test):
        part["patient"] = objects([f"p{k}" for k in rng.integers(60, size=len(part["label"]))])


add("patients on both sides", "audit", "owners", "table", _owners)


def _speakers(made: Setup, rng: np.random.Generator) -> None:
    for part in (made.train, made.validation, made.test):
        part["speaker_id"] = objects([f"s{k}" for k in rng.integers(20, size=len(part["label"]))])


add("speakers on both sides", "audit", "owners", "sounds", _speakers)


def _darker(made: Setup, rng: np.random.Generator) -> None:
    made.test["image"] = (made.test["image"] / 255 * 4).astype(np.uint8)


add("test pictures scaled in another way", "audit", "splits differ", "digits", _darker)


def _other_unit(made: Setup, rng: np.random.Generator) -> None:
    made.test["b"] = 2.54 * made.test["b"] + 3


add("a column of test in another unit", "audit", "splits differ", "table", _other_unit)


def _other_words(made: Setup, rng: np.random.Generator) -> None:
    made.test["text"] = objects([text.replace("the", "le").replace("a ", "un ") for text in made.test["text"]])


add("test texts of another source", "audit", "splits differ", "texts", _other_words)


def _bgr(made: Setup, rng: np.random.Generator) -> None:
    made.test["image"] = np.ascontiguousarray(made.test["image"][..., ::-1])


add("test pictures are BGR", "audit", "channel order", "colours", _bgr)


# Inputs that cannot be.
def _blank(made: Setup, rng: np.random.Generator) -> None:
    made.train["image"] = made.train["image"].copy()
    made.train["image"][::20] = 17


add("lost pictures", "audit", "blank pictures", "digits", _blank)
add("lost pictures", "audit", "blank pictures", "masks", _blank)


def _silent(made: Setup, rng: np.random.Generator) -> None:
    for place in range(0, len(made.train["audio"]), 20):
        made.train["audio"][place] = sets.to_wav(np.zeros(1000))


add("silent recordings", "audit", "silent recordings", "sounds", _silent)


def _short(made: Setup, rng: np.random.Generator) -> None:
    made.recipe["inputs"]["it"]["length"] = 6


add("texts cut by the context", "audit", "cut texts", "texts", _short)


def _short_sounds(made: Setup, rng: np.random.Generator) -> None:
    made.recipe["inputs"]["it"]["seconds"] = 0.15


add("recordings cut by the context", "audit", "cut recordings", "sounds", _short_sounds)


def _small_vocabulary(made: Setup, rng: np.random.Generator) -> None:
    made.recipe["inputs"]["it"]["vocabulary_size"] = 20


add("a vocabulary of twenty words", "audit", "unknown tokens", "texts", _small_vocabulary)


def _other_language(made: Setup, rng: np.random.Generator) -> None:
    made.test["text"] = objects([" ".join(word[::-1] + "x" for word in text.split()) for text in made.test["text"]])


add("test in another language", "audit", "unknown tokens", "texts", _other_language)


def _missing(made: Setup, rng: np.random.Generator) -> None:
    for part in (made.train, made.validation, made.test):
        part["c"] = np.where(rng.random(len(part["c"])) < 0.7, np.nan, part["c"])


add("a column that is mostly missing", "audit", "missing columns", "table", _missing)


def _constant(made: Setup, rng: np.random.Generator) -> None:
    for part in (made.train, made.validation, made.test):
        part["c"] = np.full(len(part["c"]), 3.0)


add("a constant column", "audit", "constant columns", "table", _constant)


def _near_constant(made: Setup, rng: np.random.Generator) -> None:
    for part in (made.train, made.validation, made.test):
        part["d"] = np.full(len(part["d"]), 3.0)
        part["d"][0] = 4.0


add("a column with one other value", "audit", "near-constant columns", "price", _near_constant)


def _annotators(made: Setup, rng: np.random.Generator) -> None:
    for name, noise in (("annotator_1", 0.3), ("annotator_2", 0.3), ("annotator_3", 0.3)):
        labels = made.train["label"].copy()
        flipped = rng.random(len(labels)) < noise
        labels[flipped] = rng.permutation(labels[flipped])
        made.train[name] = labels


add("annotators who disagree", "audit", "annotators", "texts", _annotators)


# Masks, boxes and texts that cannot be.
def _interpolated(made: Setup, rng: np.random.Generator) -> None:
    from PIL import Image

    def again(mask: np.ndarray) -> np.ndarray:
        scaled = Image.fromarray((mask * 10).astype(np.uint8)).resize((40, 40), Image.Resampling.BILINEAR)
        return np.array(scaled.resize((24, 24), Image.Resampling.BILINEAR), dtype=np.uint8)

    for part in (made.train, made.validation, made.test):
        part["mask"] = np.stack([again(mask) for mask in part["mask"]])
    every = sorted(
        {int(value) for part in (made.train, made.validation, made.test) for value in np.unique(part["mask"])}
    )
    codes = np.zeros(256, np.uint8)
    codes[every] = np.arange(len(every))
    for part in (made.train, made.validation, made.test):
        part["mask"] = codes[part["mask"]]
    made.recipe["target"]["classes"] = [f"class {value}" for value in every]


add("masks interpolated", "audit", "masks interpolated", "masks", _interpolated)


def _empty_masks(made: Setup, rng: np.random.Generator) -> None:
    made.train["mask"] = made.train["mask"].copy()
    made.train["mask"][: int(0.7 * len(made.train["mask"]))] = 0


add("most masks are empty", "audit", "empty masks", "masks", _empty_masks)


def _beyond(made: Setup, rng: np.random.Generator) -> None:
    made.train["mask"] = made.train["mask"] + 1


add("class ids off by one", "audit", "told:mask", "masks", _beyond)


def _each_box(made: Setup, change: Callable[[list[float]], list[float]]) -> None:
    for part in (made.train, made.validation, made.test):
        part["boxes"] = objects([[{**one, "box": change(one["box"])} for one in found] for found in part["boxes"]])


add("x and y of boxes swapped", "audit", "told:boxes", "boxes",
    lambda made, rng: _each_box(made, lambda box: [box[1], box[0], box[3], box[2]]))  # fmt: skip
add("boxes as x, y, width, height", "audit", "told:boxes", "boxes",
    lambda made, rng: _each_box(made, lambda box: [box[0], box[1], box[2] - box[0], box[3] - box[1]]))  # fmt: skip
add("boxes as shares of the picture", "audit", "tiny boxes", "boxes",
    lambda made, rng: _each_box(made, lambda box: [box[0] / 48, box[1] / 32, box[2] / 48, box[3] / 32]))  # fmt: skip


def _boxes_twice(made: Setup, rng: np.random.Generator) -> None:
    made.train["boxes"] = objects([[*found, *found] for found in made.train["boxes"]])


add("every box is there twice", "audit", "boxes twice", "boxes", _boxes_twice)


def _cut_answers(made: Setup, rng: np.random.Generator) -> None:
    made.recipe["target"]["length"] = 3


add("answers cut", "audit", "cut answers", "written", _cut_answers)


# Rates.
def rate(factor: float) -> Callable[[Setup, np.random.Generator], None]:
    def change(made: Setup, rng: np.random.Generator) -> None:
        made.training(optimizer={**sets.ADAMW, "lr": sets.ADAMW["lr"] * factor})

    return change


for shape in ("digits", "texts", "price", "stream", "masks"):
    add("rate x100", "flight", "learning rate", shape, rate(100))
for shape in ("digits", "texts", "price", "stream", "table"):
    add("rate /100", "fit", "training", shape, rate(0.01))


def _nothing_moves(made: Setup, rng: np.random.Generator) -> None:
    made.training(optimizer={"kind": "adamw", "lr": 1e-9})


add("a rate of 1e-9", "fit", "update to weight", "digits", _nothing_moves)


# Networks.
def with_module(shape: str, kind: type, **settings: int) -> Callable[[int], Setup]:
    def make(seed: int) -> Setup:
        import torch

        made = sets.SHAPES[shape](seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made.own = kind(**settings)
        return made

    return make


for kind, stage, expected, name in (
    (modules.SoftmaxTwice, "flight", "logits", "softmax twice"),
    (modules.SigmoidTwice, "flight", "logits", "sigmoid before the loss"),
    (modules.Dead, "flight", "gradients", "a dead network"),
    (modules.HalfDead, "fit", "dead units", "a dead layer"),
    (modules.Frozen, "flight", "frozen", "frozen layers"),
    (modules.AllFrozen, "flight", "frozen", "all frozen"),
    (modules.Detached, "flight", "gradients", "features detached"),
    (modules.Unused, "flight", "gradients", "a layer unused"),
    (modules.Mixing, "flight", "independence", "normalized over the batch"),
    (modules.WrongSoftmax, "flight", "independence", "attention over the batch"),
    (modules.Huge, "flight", "loss at the start", "a huge head"),
    (modules.Unscaled, "flight", "loss at the start", "inputs not scaled"),
    (modules.Constant, "flight", "learns by heart", "inputs not used"),
    (modules.Saturated, "fit", "saturated units", "saturated units"),
    (modules.DeepSigmoid, "fit", "gradients by depth", "fourteen sigmoids"),
    (modules.NotFinite, "fit", "told:NaN", "a NaN for some records"),
):
    FAULTS.append(Fault(f"digits: {name}", stage, expected, with_module("digits", kind)))
several = with_module("several", modules.SigmoidTwice, given=256, classes=3)
FAULTS.append(Fault("several: sigmoid before the loss", "flight", "logits", several))
FAULTS.append(
    Fault("table: softmax twice", "flight", "logits", with_module("table", modules.SoftmaxTwice, given=3, classes=2))
)
FAULTS.append(Fault("embedded: collapsed", "fit", "told:collapsed", with_module("embedded", modules.Collapsed)))
FAULTS.append(Fault("texts: an exploding recurrence", "flight", "loss at the start",
                    with_module("texts", modules.Exploding, vocabulary=200, classes=3)))  # fmt: skip
FAULTS.append(
    Fault("stream: reads the future", "flight", "causality", with_module("stream", modules.SeesAhead, vocabulary=11))
)
FAULTS.append(Fault("stream: the mean of past and future", "flight", "causality",
                    with_module("stream", modules.MeanOfAll, vocabulary=11)))  # fmt: skip


def _blank_ctc(made: Setup, rng: np.random.Generator) -> None:
    made.training(epochs=2, optimizer={"kind": "adamw", "lr": 3e-3})


add("nothing but blanks", "fit", "told:blank", "spelled", _blank_ctc)


# Training.
def _too_short(made: Setup, rng: np.random.Generator) -> None:
    made.training(epochs=None, steps=40, evaluate_every=4, optimizer={"kind": "adamw", "lr": 3e-4},
                  schedule={"kind": "constant"})  # fmt: skip


add("far too few steps", "fit", "training", "digits", _too_short)


def _overfits(made: Setup, rng: np.random.Generator) -> None:
    made.train = {name: values[:60] for name, values in made.train.items()}
    shuffled(0.2)(made, rng)
    made.recipe["network"] = {"kind": "mlp", "hidden": [256, 256]}
    made.training(epochs=200, schedule={"kind": "constant"})


add("sixty noisy records, a large network", "fit", "training", "table", _overfits)


def _dropped(made: Setup, rng: np.random.Generator) -> None:
    made.recipe["network"] |= {"kind": "mlp", "hidden": [32], "dropout": 0.98}
    del made.recipe["network"]["widths"]


add("nearly everything dropped", "fit", "training", "digits", _dropped)


def _clipped(made: Setup, rng: np.random.Generator) -> None:
    made.training(max_grad_norm=1e-6, optimizer={"kind": "sgd", "lr": 0.1})


add("the gradient clipped to nothing", "fit", "clipping", "digits", _clipped)


def _decayed(made: Setup, rng: np.random.Generator) -> None:
    made.training(optimizer={"kind": "adamw", "lr": 3e-3, "weight_decay": 300.0})


add("weights decayed away", "fit", "training", "digits", _decayed)


def _outlier(made: Setup, rng: np.random.Generator) -> None:
    made.train["price"] = made.train["price"].copy()
    made.train["price"][7] = 1e5
    made.training(batch_size=8)


add("one price in another currency", "fit", "loss spikes", "price", _outlier)
