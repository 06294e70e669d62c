"""What pretrained weights are worth: `python benchmarks/transfer.py [NAME ...]` prints a Markdown row for each.

Each row trains a ready recipe (with the changes that it names) and gives its test score with its interval beside a
reference on the same split: published in docs/benchmarks.md, or measured here where it takes seconds. Names such as
`few-100` learn from so many records of AG News, and are compared with TF-IDF and a linear SVM on the same records by a
paired bootstrap of the test records.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

import sonde
from sonde.recipe import Recipe

RECIPES = Path(__file__).parents[1] / "recipes"
LORA = "network.lora={ rank = 8 }"
LORA_LR = ["training.optimizer.lr=1e-3", "training.optimizer.lr_head=3e-3", "training.optimizer.layer_decay=1.0"]
HEAD_LR = ["training.optimizer={ kind = 'adamw', lr = 5e-3 }", "training.epochs=20"]
# Records of few, and how many passes over them.
FEW = {100: 12, 400: 8, 1600: 4}
RESAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class Case:
    """A recipe with changes, the score that is looked at, and what stands beside it."""

    recipe: str
    score: str
    changes: tuple[str, ...] = ()
    reference: str = ""


CASES = {
    "ag-frozen": Case(
        recipe="ag_news_minilm",
        score="accuracy",
        changes=("network.freeze=true", *HEAD_LR),
        reference="0.876 (logistic regression on the same features)",
    ),
    "ag-full": Case(recipe="ag_news_minilm", score="accuracy", reference="goal 0.89"),
    "ag-lora": Case(
        recipe="ag_news_minilm", score="accuracy", changes=(LORA, *LORA_LR), reference="within 0.01 of ag-full"
    ),
    "ag-qlora": Case(
        recipe="ag_news_minilm",
        score="accuracy",
        changes=("network.lora={ rank = 8, quantize = 'nf4' }", *LORA_LR),
        reference="within 0.01 of ag-lora",
    ),
    "ud": Case(recipe="ud_partut_minilm", score="accuracy", reference="0.955 from scratch; goal 0.95"),
    "camvid": Case(recipe="camvid_lite0", score="miou", reference="0.490 from scratch; goal 0.55"),
    "flowers": Case(recipe="flowers5_lite0", score="accuracy", reference="0.714 from scratch"),
    "flowers-frozen": Case(
        recipe="flowers5_lite0",
        score="accuracy",
        changes=("network.freeze=true", *HEAD_LR),
        reference="0.714 from scratch",
    ),
    "emoji": Case(recipe="emoji_tags_lite0", score="mean_average_precision", reference="0.642 from scratch"),
    "emoji-frozen": Case(
        recipe="emoji_tags_lite0",
        score="mean_average_precision",
        changes=("network.freeze=true", *HEAD_LR),
        reference="0.642 from scratch",
    ),
}


def main() -> None:
    few = [f"few-{count}{way}" for count in FEW for way in ("", "-frozen", "-lora", "-qlora")]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(CASES), help=", ".join([*CASES, *few]))
    parser.add_argument("--set", action="append", default=[], dest="changes")
    arguments = parser.parse_args()
    print("| case | test score | value [95 % interval] | beside it | seconds |")
    print("|---|---|---|---|---|")
    for name in arguments.names:
        with tempfile.TemporaryDirectory() as place:
            row = few_records if name.startswith("few-") else whole
            print(row(name, Path(place), arguments.changes), flush=True)


def whole(name: str, place: Path, changes: list[str]) -> str:
    case = CASES[name]
    recipe = Recipe.read(RECIPES / f"{case.recipe}.toml", changes=[*case.changes, *changes])
    run = sonde.fit(recipe, out=place / "run")
    return f"| {name} | {case.score} | {run.scores['test'][case.score]} | {case.reference} | {run.seconds:.0f} |"


def few_records(name: str, place: Path, changes: list[str]) -> str:
    """So many records (a fifth of them validate) and the whole test split, beside an SVM on all of them."""
    _, size, *way = name.split("-")
    train, test = _some(int(size), place / "some")
    ways: dict[str, list[str]] = {
        "": [],
        "frozen": ["network.freeze=true", "training.optimizer={ kind = 'adamw', lr = 5e-3 }", "training.epochs=40"],
        "lora": [LORA, *LORA_LR],
        "qlora": ["network.lora={ rank = 8, quantize = 'nf4' }", *LORA_LR],
    }
    settings = [
        f"data.source={place / 'some'}",
        "data.split={ by = 'given', validation = 0.2 }",
        "training.batch_size=16",
        f"training.epochs={FEW[int(size)]}",
        *ways[way[0] if way else ""],
    ]
    recipe = Recipe.read(RECIPES / "ag_news_minilm.toml", changes=[*settings, *changes])
    started = time.perf_counter()
    run = sonde.fit(recipe, out=place / "run")
    model = sonde.load(run.artifact)
    answers = [str(each["label"]) for each in model.predict(test.select("title", "description").to_dicts())]
    mine, theirs = np.array(answers) == _labels(test), _svm(train, test) == _labels(test)
    low, high = _paired(mine.astype(float), theirs.astype(float))
    beside = f"SVM {theirs.mean():.3f}; paired difference [{low:+.3f}, {high:+.3f}]"
    return f"| {name} | accuracy | {run.scores['test']['accuracy']} | {beside} | {time.perf_counter() - started:.0f} |"


def _some(size: int, folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`size` training records drawn at random, as many of each class, and the test records; also in a folder."""
    source = RECIPES / tomllib.loads((RECIPES / "ag_news_minilm.toml").read_text())["data"]["source"]
    train, test = (pl.read_csv(source / f"{split}.csv") for split in ("train", "test"))
    shuffled = train.sample(fraction=1.0, shuffle=True, seed=0)
    drawn = shuffled.group_by("label", maintain_order=True).head(size // train["label"].n_unique())
    folder.mkdir()
    drawn.write_csv(folder / "train.csv")
    test.write_csv(folder / "test.csv")
    return drawn, test


def _svm(train: pl.DataFrame, test: pl.DataFrame) -> np.ndarray:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.svm import LinearSVC

    given, asked = ((each["title"] + " " + each["description"]).to_list() for each in (train, test))
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    fitted = vectors.fit_transform(given)
    return LinearSVC().fit(fitted, _labels(train)).predict(vectors.transform(asked))


def _labels(table: pl.DataFrame) -> np.ndarray:
    return table["label"].cast(pl.String).to_numpy()


def _paired(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the difference of two means over the same records."""
    rng = np.random.default_rng(0)
    gap = one - other
    means = np.array([gap[rng.integers(0, len(gap), len(gap))].mean() for _ in range(RESAMPLES)])
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


if __name__ == "__main__":
    main()
