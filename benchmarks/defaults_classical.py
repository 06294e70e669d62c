"""The usual models of scikit-learn on the records of a recipe: what `defaults.py` holds sonde's defaults against.

They get the training and the validation split, all that is not tested on: nobody would leave the latter out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from sonde.contracts.records import Records, is_missing
from sonde.recipe import Recipe
from sonde.stages import fit_task, load_data

# A support vector machine takes time that grows with the square of the records.
MOST_FOR_SVM = 12_000
# Categories of a column that gradient boosting takes as such, and linear models as a column each.
MOST_CATEGORIES = 255


def scores(recipe: Recipe) -> dict[str, dict[str, float]]:
    """{model: {"score": accuracy or RMSE on the test split, "seconds": of fitting and answering}}."""
    splits = load_data(recipe).splits
    train = _joined([splits[name] for name in ("train", "validation") if name in splits])
    test = splits["test"]
    classes = recipe.target.kind == "category"  # type: ignore[attr-defined]
    truths = [_truth(recipe, part, classes=classes) for part in (train, test)]
    kinds = {config.kind for config in recipe.inputs.values()}  # type: ignore[attr-defined]
    if kinds == {"table"}:
        models = _of_tables(recipe, train, test, classes=classes)
    else:
        models = {"text": _of_texts, "image": _of_pictures, "audio": _of_sounds}[kinds.pop()](recipe, train, test)
    found: dict[str, dict[str, float]] = {}
    for name, model, x, x_test in models:
        started = time.perf_counter()
        answers = model.fit(x, truths[0]).predict(x_test)
        score = np.mean(answers == truths[1]) if classes else np.sqrt(np.mean((answers - truths[1]) ** 2))
        found[name] = {"score": float(score), "seconds": time.perf_counter() - started}
    return found


Models = Iterator[tuple[str, Any, Any, Any]]


def _joined(parts: list[Records]) -> Records:
    fields = {name: np.concatenate([part.fields[name] for part in parts]) for name in parts[0].fields}
    return Records(fields=fields, ids=[each for part in parts for each in part.ids])


def _truth(recipe: Recipe, records: Records, *, classes: bool) -> np.ndarray:
    values = records.fields[recipe.target.field]  # type: ignore[attr-defined]
    return np.array([str(value) for value in values]) if classes else values.astype(float)


def _of_tables(recipe: Recipe, train: Records, test: Records, *, classes: bool) -> Models:
    from sklearn import ensemble, linear_model, svm
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    (config,) = recipe.inputs.values()
    numbers, codes, flat = [], [], []
    for name in config.fields:  # type: ignore[attr-defined]
        column, column_test = train.fields[name], test.fields[name]
        if column.dtype == object or column.dtype.kind in "bU":
            codes.append(_codes(column, column_test))
        else:
            numbers.append((_floats(column), _floats(column_test)))
    for column, column_test in numbers:
        middle = np.nanmedian(column)
        flat += [tuple(np.where(np.isnan(each), middle, each)[:, None] for each in (column, column_test))]
        if np.isnan(column).any():
            flat += [tuple(np.isnan(each)[:, None].astype(float) for each in (column, column_test))]
    for column, column_test in codes:
        flat += [tuple(_one_hot(each, int(column.max()) + 1) for each in (column, column_test))]
    x, x_test = (np.concatenate([each[side] for each in flat], axis=1) for side in (0, 1))
    raw, raw_test = (np.stack([each[side] for each in (*numbers, *codes)], axis=1) for side in (0, 1))
    listed = [len(numbers) + place for place, (column, _) in enumerate(codes) if column.max() < MOST_CATEGORIES]
    boosted: dict[str, Any] = {"random_state": 0, "categorical_features": listed or None}
    slow = boosted | {"max_iter": 400, "learning_rate": 0.05, "early_stopping": True, "n_iter_no_change": 20}
    if classes:
        yield "logistic regression", _scaled(linear_model.LogisticRegression(max_iter=2000)), x, x_test
        if len(x) <= MOST_FOR_SVM:
            yield "SVM", _scaled(svm.SVC()), x, x_test
        yield "random forest", ensemble.RandomForestClassifier(random_state=0), x, x_test
        yield "gradient boosting", ensemble.HistGradientBoostingClassifier(**boosted), raw, raw_test
        if len(x) >= 2000:
            yield "gradient boosting, slow", ensemble.HistGradientBoostingClassifier(**slow), raw, raw_test
        return
    alphas = np.logspace(-3, 4, 15)
    yield "ridge regression", _scaled(linear_model.RidgeCV(alphas)), x, x_test
    if len(x) <= MOST_FOR_SVM:
        yield "SVM", _with_scaled_truth(make_pipeline(StandardScaler(), svm.SVR())), x, x_test
    yield "random forest", ensemble.RandomForestRegressor(random_state=0), x, x_test
    yield "gradient boosting", ensemble.HistGradientBoostingRegressor(**boosted), raw, raw_test
    if len(x) >= 2000:
        yield "gradient boosting, slow", ensemble.HistGradientBoostingRegressor(**slow), raw, raw_test


def _scaled(model: Any) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), model)


def _with_scaled_truth(model: Any) -> Any:
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.preprocessing import StandardScaler

    return TransformedTargetRegressor(model, transformer=StandardScaler())


def _floats(values: np.ndarray) -> np.ndarray:
    return values.astype("datetime64[s]").astype(float) if values.dtype.kind == "M" else values.astype(float)


def _codes(column: np.ndarray, column_test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Texts as numbers from 1, by name; 0 where training never showed them, NaN nowhere: missing is a name too."""
    names = [np.where(is_missing(each), "", each.astype(str)) for each in (column, column_test)]
    known = {name: code for code, name in enumerate(sorted(set(names[0])), start=1)}
    train, test = (np.array([known.get(name, 0) for name in each], dtype=float) for each in names)
    return train, test


def _one_hot(codes: np.ndarray, count: int) -> np.ndarray:
    return (codes[:, None] == np.arange(1, count)).astype(float)


def _of_texts(recipe: Recipe, train: Records, test: Records) -> Models:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    (config,) = recipe.inputs.values()
    names = [config.field, *config.also]  # type: ignore[attr-defined]
    texts = [
        ["\n".join(map(str, values)) for values in zip(*(part.fields[name] for name in names), strict=True)]
        for part in (train, test)
    ]
    for name, model in (("logistic regression", LogisticRegression(max_iter=2000)), ("linear SVM", LinearSVC())):
        narrow = _Narrow()
        yield f"TF-IDF, {name}", make_pipeline(TfidfVectorizer(sublinear_tf=True), narrow, model), *texts


class _Narrow:
    """A sparse matrix with 32-bit indices, which is all that linear machines take."""

    def fit(self, x: Any, y: Any = None) -> _Narrow:
        return self

    def fit_transform(self, x: Any, y: Any = None) -> Any:
        return self.transform(x)

    def transform(self, x: Any) -> Any:
        x.indices, x.indptr = x.indices.astype(np.int32), x.indptr.astype(np.int32)
        return x


def _of_pictures(recipe: Recipe, train: Records, test: Records) -> Models:
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import SVC

    (image,) = fit_task(recipe, train).inputs.values()
    features = []
    for records in (train, test):
        grids: Any = image.encode_many(records)[0]["grid"]
        step = max(1, grids.shape[-1] // 32)
        features.append(grids[:, :, ::step, ::step].flatten(1).numpy() / 255)
    parts = min(100, features[0].shape[1], len(train))
    yield "SVM on pixels", make_pipeline(PCA(parts, random_state=0), SVC(C=10)), *features


def _of_sounds(recipe: Recipe, train: Records, test: Records) -> Models:
    from sklearn.svm import SVC

    (audio,) = fit_task(recipe, train).inputs.values()

    def features(records: Records) -> np.ndarray:
        columns: Any = audio.encode_many(records)[0]
        rows = []
        for frames, length in zip(columns["frames"], columns["length"], strict=True):
            parts = np.array_split(frames[: int(length)].float().numpy(), 10)
            rows.append(np.concatenate([np.concatenate([part.mean(0), part.std(0)]) for part in parts if len(part)]))
        return np.stack(rows)

    yield "SVM on spectra", _scaled(SVC(C=10)), features(train), features(test)


OfOther = Callable[[Recipe, Records, Records], Models]
