"""Every ready recipe, whole, on its real data: its test score beside its goal and beside a classical model.

    python benchmarks/quality.py [NAME ...] [--out FOLDER] [--set SECTION.SETTING=VALUE]

The classical model (scikit-learn) gets the same records in the same splits; it is a tie where its score lies inside the
interval of sonde's. The table is printed as Markdown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sonde import metrics
from sonde.contracts.records import Records
from sonde.recipe import Recipe
from sonde.stages import fit_task, load_data

RECIPES = Path(__file__).parents[1] / "recipes"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A recipe, the test score that counts, the goal, and what a classical model makes of the same records."""

    recipe: str
    metric: str
    goal: float | None = None
    extra: tuple[tuple[str, float], ...] = ()
    classical: Callable[[Recipe], float] | None = None
    scale: float = 1.0
    lower_is_better: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="recipes to run; all if none is named")
    parser.add_argument("--out", type=Path, default=None, help="keep the runs in this folder")
    parser.add_argument("--set", dest="changes", action="append", default=[], help="override a setting of every recipe")
    arguments = parser.parse_args()
    print("| recipe | test score | value [95 % interval] | goal | classical (scikit-learn) | | seconds |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        for case in CASES:
            if not arguments.names or case.recipe in arguments.names:
                print(row(case, arguments.out or Path(place), arguments.changes), flush=True)


def row(case: Case, folder: Path, changes: list[str]) -> str:
    path = RECIPES / f"{case.recipe}.toml"
    command = [sys.executable, "-m", "sonde", "fit", str(path), "--out", str(folder / case.recipe), "--json"]
    command += [f"--set={change}" for change in changes]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"| {case.recipe} | failed: {done.stderr.strip().splitlines()[-1]} |"
    line = json.loads(done.stdout.splitlines()[-1])
    score = line["scores"]["test"][case.metric]
    value, low, high = (score[key] * case.scale for key in ("value", "low", "high"))
    started = time.perf_counter()
    other, verdict = "-", "-"
    if case.classical is not None:
        found = case.classical(Recipe.read(path)) * case.scale
        other = f"{found:.4g} ({time.perf_counter() - started:.0f} s)"
        # Inside of sonde's interval the two cannot be told apart.
        above = found > high
        verdict = "tie" if low <= found <= high else "loss" if above != case.lower_is_better else "win"
    met = case.goal is not None and (value <= case.goal if case.lower_is_better else value >= case.goal)
    goal = "-" if case.goal is None else f"{case.goal:g} {'met' if met else 'NOT met'}"
    shown = f"{value:.4f} [{low:.4f}, {high:.4f}]"
    rows = [f"| {case.recipe} | {case.metric} | {shown} | {goal} | {other} | {verdict} | {line['seconds']:.0f} |"]
    for metric, least in case.extra:
        found = line["scores"]["test"][metric]
        shown = f"{found['value']:.4f} [{found['low']:.4f}, {found['high']:.4f}]"
        rows.append(f"| | {metric} | {shown} | {least:g} {'met' if found['value'] >= least else 'NOT met'} | | | |")
    return "\n".join(rows)


def _splits(recipe: Recipe) -> tuple[Records, Records]:
    splits = load_data(recipe).splits
    return splits["train"], splits["test"]


def _labels(recipe: Recipe, records: Records) -> np.ndarray:
    return np.array([str(label) for label in records.fields[recipe.target.field]])  # type: ignore[attr-defined]


def pixels(recipe: Recipe) -> float:
    """Accuracy of an RBF support vector machine on the principal components of the pixels (15,000 pictures at most)."""
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    train, test = _splits(recipe)
    (image,) = fit_task(recipe, train).inputs.values()
    features = []
    for records in (train, test):
        grids = image.encode_many(records)[0]["grid"]
        step = max(1, grids.shape[-1] // 32)  # type: ignore[union-attr]
        features.append(grids[:, :, ::step, ::step].flatten(1).numpy() / 255)  # type: ignore[index, union-attr]
    chosen = np.linspace(0, len(train) - 1, min(15_000, len(train))).astype(int)
    model = make_pipeline(
        PCA(min(100, features[0].shape[1]), whiten=False, random_state=0), StandardScaler(with_std=False), SVC(C=10)
    )
    model.fit(features[0][chosen], _labels(recipe, train)[chosen])
    return model.score(features[1], _labels(recipe, test))


def words(recipe: Recipe) -> float:
    """Accuracy of a linear support vector machine on TF-IDF of words and pairs of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    train, test = _splits(recipe)
    (config,) = recipe.inputs.values()
    names = [config.field, *config.also]  # type: ignore[attr-defined]

    def texts(records: Records) -> list[str]:
        return [
            "\n".join(str(value) for value in values)
            for values in zip(*(records.fields[n] for n in names), strict=True)
        ]

    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LinearSVC())
    return model.fit(texts(train), _labels(recipe, train)).score(texts(test), _labels(recipe, test))


def words_in_context(recipe: Recipe) -> float:
    """Accuracy over words of a linear support vector machine on a word, its affixes and shape, and its neighbours."""
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.svm import LinearSVC

    (config,) = recipe.inputs.values()

    def features(sentence: list[str]) -> Iterator[dict[str, str | bool]]:
        lower = ["", "", *(word.lower() for word in sentence), "", ""]
        for place, word in enumerate(sentence, start=2):
            found: dict[str, str | bool] = {"capital": word[0].isupper(), "capitals": word.isupper()}
            found |= {"digit": any(map(str.isdigit, word)), "hyphen": "-" in word, "first": place == 2}
            found |= {f"starts {size}": lower[place][:size] for size in range(1, 5)}
            found |= {f"ends {size}": lower[place][-size:] for size in range(1, 5)}
            found |= {f"word {offset}": lower[place + offset] for offset in range(-2, 3)}
            found |= {f"ending {offset}": lower[place + offset][-3:] for offset in (-2, -1, 1, 2)}
            yield found

    def both(records: Records) -> tuple[list[dict[str, str | bool]], list[str]]:
        sentences, tags = records.fields[config.field], records.fields[recipe.target.field]  # type: ignore[attr-defined]
        return [each for words in sentences for each in features(words)], [tag for each in tags for tag in each]

    train, test = _splits(recipe)
    table = DictVectorizer()
    (x, tags), (x_test, tags_test) = both(train), both(test)
    model = LinearSVC(C=0.1).fit(_narrow(table.fit_transform(x)), tags)
    return model.score(_narrow(table.transform(x_test)), tags_test)


def _narrow(matrix: Any) -> Any:
    """The sparse matrix with 32-bit indices, which is all that the linear machine takes."""
    matrix.indices, matrix.indptr = matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)
    return matrix


def _columns(recipe: Recipe, *parts: Records) -> list[np.ndarray]:
    """Tables as numbers, texts as the codes of the training split, for gradient boosting."""
    (config,) = recipe.inputs.values()
    columns: list[list[np.ndarray]] = [[] for _ in parts]
    for name in config.fields:  # type: ignore[attr-defined]
        if parts[0].fields[name].dtype == object:
            codes = {value: code for code, value in enumerate(sorted({str(value) for value in parts[0].fields[name]}))}
            found = [np.array([codes.get(str(value), np.nan) for value in part.fields[name]]) for part in parts]
        else:
            found = [part.fields[name].astype(float) for part in parts]
        for column, values in zip(columns, found, strict=True):
            column.append(values)
    return [np.stack(column, axis=1) for column in columns]


def boosted_classes(recipe: Recipe) -> float:
    """The better test accuracy of histogram gradient boosting and of a random forest."""
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

    train, test = _splits(recipe)
    x, x_test = _columns(recipe, train, test)
    models = (HistGradientBoostingClassifier(random_state=0), RandomForestClassifier(500, random_state=0))
    fill = np.nanmedian(x, axis=0)
    filled, filled_test = np.where(np.isnan(x), fill, x), np.where(np.isnan(x_test), fill, x_test)
    return max(model.fit(filled, _labels(recipe, train)).score(filled_test, _labels(recipe, test)) for model in models)


def boosted_number(recipe: Recipe) -> float:
    """RMSE of histogram gradient boosting."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    train, test = _splits(recipe)
    x, x_test = _columns(recipe, train, test)
    field = recipe.target.field  # type: ignore[attr-defined]
    model = HistGradientBoostingRegressor(max_iter=500, random_state=0).fit(x, train.fields[field])
    return float(np.sqrt(np.mean((model.predict(x_test) - test.fields[field]) ** 2)))


def spectra(recipe: Recipe) -> float:
    """Accuracy of an RBF support vector machine on each band's mean and deviation in ten stretches of time."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    train, test = _splits(recipe)
    (audio,) = fit_task(recipe, train).inputs.values()

    def features(records: Records) -> np.ndarray:
        columns = audio.encode_many(records)[0]
        rows = []
        for frames, length in zip(columns["frames"], columns["length"], strict=True):  # type: ignore[arg-type]
            parts = np.array_split(frames[: int(length)].float().numpy(), 10)
            rows.append(np.concatenate([np.concatenate([part.mean(0), part.std(0)]) for part in parts if len(part)]))
        return np.stack(rows)

    model = make_pipeline(StandardScaler(), SVC(C=10))
    return model.fit(features(train), _labels(recipe, train)).score(features(test), _labels(recipe, test))


def few_shot_pixels(recipe: Recipe) -> float:
    """20-way 1-shot accuracy of the nearest picture, by the cosine of pixels around their mean."""
    train, test = _splits(recipe)
    task = fit_task(recipe, train)
    (image,) = task.inputs.values()
    pixels = [image.encode_many(part)[0]["grid"].flatten(1).double().numpy() for part in (train, test)]  # type: ignore[union-attr]
    _, codes = np.unique(_labels(recipe, test), return_inverse=True)
    right = metrics.few_shot(pixels[1] - pixels[0].mean(axis=0), codes, ways=20, shots=1, seed=0)
    return float(np.nanmean(right))


CASES = [
    Case(recipe="digits", metric="accuracy", goal=0.985, classical=pixels),
    Case(recipe="fashion_mnist", metric="accuracy", goal=0.93, classical=pixels),
    Case(recipe="flowers5", metric="accuracy", goal=0.72, classical=pixels),
    Case(recipe="spoken_digits", metric="accuracy", goal=0.97, classical=spectra),
    Case(recipe="emoji_tags", metric="mean_average_precision"),
    Case(recipe="sms_spam", metric="accuracy", goal=0.985, extra=(("recall/spam", 0.93),), classical=words),
    Case(recipe="ud_partut", metric="accuracy", goal=0.92, classical=words_in_context),
    Case(recipe="ag_news", metric="accuracy", goal=0.85, classical=words),
    Case(recipe="titanic", metric="accuracy", classical=boosted_classes),
    Case(
        recipe="california_housing", metric="rmse", goal=0.5, classical=boosted_number, scale=1e-5, lower_is_better=True
    ),
    Case(recipe="camvid", metric="miou", goal=0.45),
    Case(recipe="bccd", metric="ap50", goal=0.8, extra=(("map", 0.5),)),
    Case(recipe="omniglot", metric="few_shot_20_way_1_shot", goal=0.85, classical=few_shot_pixels),
    Case(recipe="shakespeare", metric="loss", goal=1.88, lower_is_better=True),
]

if __name__ == "__main__":
    main()
