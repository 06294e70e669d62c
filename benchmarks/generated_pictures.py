"""How good made pictures are: recognised by a classifier, Frechet distance in its features, nearest training pictures.

    python benchmarks/generated_pictures.py RUN CLASSIFIER [--count 1000] [--set guidance=2] [--out FOLDER]

RUN made pictures for classes (recipes/fashion_mnist_diffusion.toml), CLASSIFIER tells these apart
(recipes/fashion_mnist.toml); both were trained on one data set. Prints a line of JSON, and writes pictures into FOLDER.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import sonde
from sonde import stages
from sonde.base.images import side_by_side
from sonde.commands.make import settings
from sonde.contracts.answers import to_picture
from sonde.contracts.batch import Examples
from sonde.recipe import Recipe

BATCH = 256


def features(model, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The classifier's features before its last layer (N, W), and its classes (N,); pictures uint8 (N, H, W)."""
    from sonde.contracts.records import Records

    found, told = [], []
    (name,) = model.task.inputs
    field = model.task.inputs[name].config.field
    for start in range(0, len(pictures), BATCH):
        some = pictures[start : start + BATCH]
        records = Records(fields={field: some}, ids=[str(place) for place in range(len(some))])
        columns, _, _ = model.task.encode_inputs(records)
        batch = model.task.collate(Examples(inputs=columns, truth={}, count=len(some)), torch.arange(len(some)))
        with torch.inference_mode():
            made = model.network.features(model.task.preprocess(batch).inputs)
            told.append(model.network.answer(made).argmax(1).numpy())
            found.append(made[name].values.numpy())
    return np.concatenate(found).astype(np.float64), np.concatenate(told)


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """The Frechet distance of two normal distributions fitted to features (Heusel et al. 2017)."""
    mean, mean2 = one.mean(0), other.mean(0)
    cov, cov2 = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    values, vectors = np.linalg.eigh(cov)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov2 @ root).clip(0)).sum()
    return float(((mean - mean2) ** 2).sum() + np.trace(cov) + np.trace(cov2) - 2 * cross)


def gaussian_pictures(train: np.ndarray, count: int, components: int, rng: np.random.Generator) -> np.ndarray:
    """Pictures of a normal distribution fitted to the first principal components of the training pictures."""
    from sklearn.decomposition import PCA

    flat = train.reshape(len(train), -1).astype(np.float64)
    pca = PCA(components, random_state=0).fit(flat)
    drawn = pca.inverse_transform(rng.normal(size=(count, components)) * np.sqrt(pca.explained_variance_))
    return np.round(drawn.clip(0, 255)).astype(np.uint8).reshape(count, *train.shape[1:])


def sheet(rows: list[np.ndarray], columns: int) -> Image.Image:
    return side_by_side([to_picture(each.astype(np.float64) / 255) for each in rows], columns)


def nearest(made: np.ndarray, train: np.ndarray) -> np.ndarray:
    """For each made picture the place of the nearest training picture, by squared distance of pixels."""
    flat, known = made.reshape(len(made), -1).astype(np.float32), train.reshape(len(train), -1).astype(np.float32)
    return ((known**2).sum(1)[None] - 2 * flat @ known.T).argmin(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("classifier", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--set", dest="changes", action="append", default=[])
    parser.add_argument("--split", default="test", help="what made pictures are compared with: validation for choices")
    parser.add_argument("--out", type=Path, default=Path("generated"))
    args = parser.parse_args()
    model = sonde.load(args.run)
    changes = settings([], args.count, [], args.changes, None).changes
    model = model.with_settings(changes) if changes else model
    classifier = sonde.load(args.classifier)
    data = stages.load_data(Recipe.read(args.run / "recipe.toml"))
    train, test = data.splits["train"], data.splits[args.split]
    classes = classifier.task.target.classes
    started, made, wanted = time.perf_counter(), [], []
    for number in range(0, args.count, 50):
        # Every class in turn; a picture's number is its own.
        for place, label in enumerate(classes):
            each = 50 // len(classes)
            answers = model.make(each, {"label": label}, first=number + place * each)
            made += [answer["picture"] for answer in answers]
            wanted += [place] * each
    seconds = time.perf_counter() - started
    pictures, wanted = np.round(np.stack(made) * 255).astype(np.uint8), np.array(wanted)
    own, told = features(classifier, pictures)
    field = "image"
    held, held_told = features(classifier, test.fields[field])
    rng = np.random.default_rng(0)
    some = rng.permutation(len(train))[: len(held)]
    known, _ = features(classifier, train.fields[field][np.sort(some)])
    gaussian, _ = features(classifier, gaussian_pictures(train.fields[field][np.sort(some)], len(pictures), 50, rng))
    floor = frechet(known[: len(pictures)], held)
    truth = np.array([classes.index(name) for name in test.fields["label"]])
    places = nearest(pictures[: 5 * len(classes)], train.fields[field])
    args.out.mkdir(parents=True, exist_ok=True)
    order = np.argsort(wanted, kind="stable")
    by_class = [pictures[order[wanted[order] == place][:10]] for place in range(len(classes))]
    columns = min(len(each) for each in by_class)
    sheet([picture for each in by_class for picture in each[:columns]], columns).save(args.out / "made.png")
    closest = train.fields[field][places]
    pairs = [picture for place in range(0, len(places), 3) for picture in (pictures[place], closest[place])]
    sheet(pairs, 8).save(args.out / "nearest.png")
    apart = np.sqrt(((pictures[: len(places)].astype(float) - closest) ** 2).mean((1, 2)))
    print(
        json.dumps(
            {
                "pictures": len(pictures),
                "seconds": round(seconds, 1),
                "settings": dict(changes),
                "recognised": round(float((told == wanted).mean()), 4),
                f"{args.split} pictures recognised": round(float((held_told == truth).mean()), 4),
                "frechet distance": round(frechet(own, held), 3),
                "of a Gaussian fitted to 50 principal components": round(frechet(gaussian, held), 3),
                f"floor: as many training pictures against {args.split}": round(floor, 3),
                "features": f"{own.shape[1]} before the classifier's last layer; {len(held)} {args.split} pictures",
                "distance to the nearest training picture (RMS of 255 levels, least and median of 50)": [
                    round(float(apart.min()), 1),
                    round(float(np.median(apart)), 1),
                ],
                "recognised by class": {
                    name: round(float((told == wanted)[wanted == place].mean()), 3)
                    for place, name in enumerate(classes)
                },
            }
        )
    )


if __name__ == "__main__":
    main()
