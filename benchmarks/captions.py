"""Captions beside what needs no network: the commonest caption, that of the nearest picture, and of shuffled pictures.

    python benchmarks/captions.py OUT [--set KEY=VALUE ...]

Trains recipes/emoji_captions.toml into the new folder OUT (or takes the run that is there) and prints a Markdown table
for the test split: CIDEr-D, BLEU, and the share of answers that are different. "Nearest" has the caption of the
training picture that is nearest in 16 x 16 pixels; "shuffled" gives every caption the next picture, to ruin it.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import sonde
from sonde import metrics, stages
from sonde.recipe import Recipe

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("SONDE_SHARED", ROOT.parent / "shared" / "data"))


def pixels(paths: Sequence[Path]) -> np.ndarray:
    """Small pictures on white, (N, 768)."""
    rows = []
    for path in paths:
        picture = Image.open(path).convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
        rows.append(np.asarray(flat.resize((16, 16)), np.float32).ravel())
    return np.stack(rows)


def nearest(train: Sequence[Path], test: Sequence[Path]) -> np.ndarray:
    ours, theirs = pixels(test), pixels(train)
    apart = (ours**2).sum(1)[:, None] - 2 * ours @ theirs.T + (theirs**2).sum(1)
    return apart.argmin(1)


def row(name: str, answers: Sequence[str], truths: Sequence[str]) -> str:
    one = np.ones((1, len(truths)))
    bleu = metrics.bleu(metrics.bleu_statistics(answers, truths), one)[0]
    cider = metrics.cider_d(answers, truths).mean()
    return f"| {name} | {cider:.3f} | {bleu:.1f} | {len(set(answers)) / len(answers):.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("out", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="changes", help="as of sonde fit")
    given = parser.parse_args()
    changes = [f"data.source={SHARED / 'openmoji_captions'}", *given.changes]
    recipe = Recipe.read(ROOT / "recipes" / "emoji_captions.toml", changes=changes)
    if not given.out.exists():
        sonde.fit(recipe, out=given.out)
    splits = stages.load_data(recipe).splits
    train, test = splits["train"].fields, splits["test"].fields
    model, truths = sonde.load(given.out), test["caption"].tolist()
    answers = [answer["text"] for answer in model.predict([{"file_name": path} for path in test["file_name"]])]
    commonest = Counter(train["caption"].tolist()).most_common(1)[0][0]
    known = train["caption"][nearest(train["file_name"].tolist(), test["file_name"].tolist())].tolist()
    print("| answers | CIDEr-D | BLEU | different |\n|---|---|---|---|")
    print(row("sonde", answers, truths))
    print(row("nearest picture's", known, truths))
    print(row("commonest caption", [commonest] * len(truths), truths))
    print(row("sonde, pictures shuffled", [*answers[1:], answers[0]], truths))


if __name__ == "__main__":
    main()
