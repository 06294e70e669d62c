"""Does what is said about trust hold? Intervals, calibration, conformal sets, the unfamiliar, labels, attacks, drift.

    OMP_NUM_THREADS=1 python benchmarks/trust.py [CLAIM ...] [--out FOLDER]

Each claim prints the figure, the bar, and pass or FAIL; the exit code is 3 if one fails. Networks are trained on the
spot (from ready settings, on real data; a few minutes on one core) or read from --out, where they were trained before.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import intervals as simulated
import numpy as np
import torch
from sklearn.metrics import roc_auc_score

import sonde
from sonde import Recipe, checks, evaluation, stages
from sonde.artifact import Model
from sonde.base.device import Precision
from sonde.checks import features, labels, shift
from sonde.contracts.records import Records
from sonde.contracts.task import Task
from sonde.data.store import Encoded, encode
from sonde.evaluation import attacks, conformal, familiar
from sonde.evaluation.observe import observe_all

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("SONDE_SHARED", ROOT.parent / "shared" / "data"))
RECIPES = ROOT / "recipes"
CPU = Precision(kind="fp32", device=torch.device("cpu"))
# Records of Fashion-MNIST that the networks learn from; its 10,000 test records judge.
FASHION = 10_000


@dataclass(frozen=True, kw_only=True)
class Line:
    what: str
    figure: str
    bar: str
    passed: bool

    def __str__(self) -> str:
        return f"| {self.what} | {self.figure} | {self.bar} | {'pass' if self.passed else 'FAIL'} |"


class Runs:
    """Networks, trained once each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[str, tuple[Recipe, Model]] = {}

    def get(self, name: str) -> tuple[Recipe, Model]:
        if name not in self.known:
            recipe, run = getattr(self, f"_{name}")(), self.folder / name
            if not (run / "scores.json").is_file():
                sonde.fit(recipe, out=run, audited=True)
            self.known[name] = recipe, sonde.load(run)
        return self.known[name]

    def _digits(self) -> Recipe:
        """The ready recipe, of a third of the length, with a validation split that can tell quantiles."""
        return Recipe.read(RECIPES / "digits.toml", changes=["training.epochs=10", "data.split.validation=0.25"])

    def _overfitted(self) -> Recipe:
        """A network that is far too sure: no smoothing, no augmentation, many epochs."""
        source = _small_fashion(self.folder / "fashion")
        return Recipe.of(
            {
                "data": {"source": str(source), "split": {"by": "given", "validation": 0.3}},
                "inputs": {"image": {"kind": "image"}},
                "target": {"kind": "category"},
                "network": {"kind": "mlp", "hidden": [256]},
                "training": {"epochs": 25, "batch_size": 100, "checkpoint": "last", "optimizer": {"lr": 0.003}},
                "ladder": {"reference": False},
            }
        )

    def _spam(self) -> Recipe:
        return self._short("sms_spam", 3)

    def _titanic(self) -> Recipe:
        return self._short("titanic", 30, "data.split.validation=0.2")

    def _digits_mlp(self) -> Recipe:
        changes = ['network={kind="mlp",hidden=[64]}', "training.epochs=20", "target.smoothing=0"]
        return Recipe.read(RECIPES / "digits.toml", changes=[*changes, "data.split.validation=0.2"])

    def _houses(self) -> Recipe:
        return self._short("california_housing", 3, "data.split.validation=0.2", "data.split.test=0.3")

    def _short(self, recipe: str, epochs: int, *changes: str) -> Recipe:
        more = [f"training.epochs={epochs}", "ladder.reference=false", *changes]
        return Recipe.read(RECIPES / f"{recipe}.toml", changes=more)


def _small_fashion(folder: Path) -> Path:
    """The first training records of Fashion-MNIST, and its test records."""
    if not folder.is_dir():
        folder.mkdir(parents=True)
        for path in (SHARED / "fashion_mnist").iterdir():
            data = path.read_bytes()
            if path.name.startswith("train"):
                whole = gzip.decompress(data)
                head, each = (16, 784) if "images" in path.name else (8, 1)
                counted = whole[:4] + FASHION.to_bytes(4, "big") + whole[8:head]
                data = gzip.compress(counted + whole[head : head + FASHION * each])
            (folder / path.name).write_bytes(data)
    return folder


def _held(recipe: Recipe, model: Model, split: str) -> Encoded:
    return encode(model.task, stages.load_data(recipe).splits[split])


def _columns(model: Model, held: Encoded) -> dict[str, np.ndarray]:
    return evaluation.eval_outputs(model.task, model.network, held.examples, precision=CPU)


def coverage_of_intervals(runs: Runs) -> Iterator[Line]:
    """95 % intervals hold the truth 93 to 97 % of the time; chance allows for what 300 data sets can tell."""
    wanted = {"calibrated": 200, "normal errors": 200, "masks": 200, "stream, in blocks": 200}
    for each in simulated.simulations():
        if each.name not in wanted:
            continue
        tried = replace(
            each, scores=tuple(name for name in each.scores if name != "rms_calibration_error"), huge=60_000
        )
        for name, every in tried.covered(wanted[each.name], 300, 400).items():
            hits = [one for one in every if one is not None]
            low, high = simulated.wilson(sum(hits), len(hits))
            yield Line(
                what=f"intervals of {name}, {each.name}",
                figure=f"{100 * np.mean(hits):.1f} % [{100 * low:.1f}, {100 * high:.1f}]",
                bar="93 to 97 %",
                passed=low <= 0.97 and high >= 0.93,
            )


def calibration(runs: Runs) -> Iterator[Line]:
    """An ECE above 5 % comes down to 1.5 % on held-out records; the log loss is nowhere worse."""
    for name in ("overfitted", "digits", "digits_mlp", "spam", "titanic"):
        recipe, model = runs.get(name)
        held, target = _held(recipe, model, "test"), model.task.target
        after = _columns(model, held)
        plain = Task(inputs=model.task.inputs, target=target.uncalibrated())
        before, now = (
            evaluation.values(plain, _columns(replace(model, task=plain), held)),
            evaluation.values(model.task, after),
        )
        kept = len(getattr(target, "temperatures", []))
        how = "not calibrated" if not kept else "temperature" if kept == 1 else "vector"
        yield Line(
            what=f"log loss of {name}, {len(held.ids):,} test records ({how})",
            figure=f"{before['log_loss']:.4f} to {now['log_loss']:.4f}",
            bar="not worse",
            passed=now["log_loss"] <= before["log_loss"] + 1e-6,
        )
        same = np.array_equal(
            _columns(replace(model, task=plain), held)["probabilities"].argsort(1, kind="stable"),
            after["probabilities"].argsort(1, kind="stable"),
        )
        yield Line(
            what=f"order of classes of {name}", figure="the same" if same else "changed", bar="the same", passed=same
        )
        if name == "overfitted":
            yield Line(
                what=f"ECE (debiased) of {name}",
                figure=f"{100 * before['ece']:.2f} % to {100 * now['ece']:.2f} %",
                bar="above 5 % to 1.5 %",
                passed=before["ece"] > 0.05 and now["ece"] <= 0.015,
            )


def conformal_coverage(runs: Runs) -> Iterator[Line]:
    """Sets and intervals hold the truth as often as stated: held-out records are split anew 200 times."""
    for name, stated in (("overfitted", 0.95), ("overfitted", 0.9), ("houses", 0.9), ("houses", 0.8)):
        recipe, model = runs.get(name)
        scores = model.task.target.nonconformity(_columns(model, _held(recipe, model, "test")))
        assert scores is not None
        scores_NF = scores.reshape(len(scores), -1)
        rng = np.random.default_rng(0)
        shares = []
        for _ in range(200):
            order = rng.permutation(len(scores_NF))
            calibrating, judged = np.split(order, [len(order) // 5])
            limit_F = conformal.limit(scores_NF[calibrating], stated)
            shares.append(float((scores_NF[judged] <= limit_F).mean()))
        yield Line(
            what=f"{100 * stated:g} % regions of {name}, {len(order) // 5:,} calibrating",
            figure=f"{100 * np.mean(shares):.2f} % (deviation {100 * np.std(shares):.2f})",
            bar="within 1 point",
            passed=abs(np.mean(shares) - stated) <= 0.01,
        )
        assert model.trust is not None
        limit_F = conformal.limit(model.trust.nonconformity.numpy(), stated)
        share = float((scores_NF <= limit_F).mean())
        chance = 2 * np.sqrt(stated * (1 - stated) * (1 / len(model.trust.nonconformity) + 1 / len(scores_NF)))
        yield Line(
            what=f"the same, as the artifact of {name} states it ({len(model.trust.nonconformity):,} calibrating)",
            figure=f"{100 * share:.2f} %",
            bar=f"within 1 point and chance ({100 * chance:.1f})",
            passed=abs(share - stated) <= 0.01 + chance,
        )


def unfamiliar(runs: Runs) -> Iterator[Line]:
    """Digits against letters and photos: the area under the ROC of each measure; the one that is used has 0.95."""
    recipe, model = runs.get("digits")
    assert model.trust is not None
    target = model.task.target
    test = _held(recipe, model, "test")
    known = familiar.measures(
        target, observe_all(model.task, model.network, test.examples, precision=CPU), model.trust.references
    )
    letters = sorted((SHARED / "omniglot_small1").rglob("*.png"))
    strange = {
        "letters (Omniglot)": _pictures(letters, inverted=False),
        "letters, white on black": _pictures(letters, inverted=True),
        "photos (flowers5)": _pictures(sorted((SHARED / "flowers5" / "test").rglob("*.jpg")), inverted=False),
    }
    for name, pictures in strange.items():
        rows = Records(fields={"image": pictures}, ids=[f"picture {place}" for place in range(len(pictures))])
        columns, good, _ = model.task.encode_inputs(rows)
        examples = replace(test.examples, inputs=columns, truth={}, count=len(good))
        seen = observe_all(model.task, model.network, examples, precision=CPU)
        found = familiar.measures(target, seen, model.trust.references)
        areas = {
            measure: roc_auc_score(
                np.repeat([0, 1], [len(known[measure]), len(found[measure])]),
                np.concatenate([known[measure], found[measure]]),
            )
            for measure in found
        }
        used = model.trust.measure
        assert used is not None
        p_N = model.trust.p_values(target, seen)[used]
        others = ", ".join(f"{measure} {area:.3f}" for measure, area in areas.items() if measure != used)
        yield Line(
            what=f"digits against {len(good):,} {name}",
            figure=f"AUROC {areas[used]:.3f} by {used} ({others}); {100 * float((p_N <= 0.05).mean()):.0f} % flagged",
            bar="AUROC 0.95",
            passed=areas[used] >= 0.95,
        )


def _pictures(paths: list[Path], *, inverted: bool) -> np.ndarray:
    from PIL import Image

    chosen = [paths[place] for place in np.linspace(0, len(paths) - 1, min(500, len(paths))).astype(int)]
    found = np.empty(len(chosen), dtype=object)
    for place, path in enumerate(chosen):
        grey = np.asarray(Image.open(path).convert("L"))
        found[place] = 255 - grey if inverted else grey
    return found


def flipped_labels(runs: Runs) -> Iterator[Line]:
    """Of 10 % flipped labels: the share of flipped ones among as many records, the worst first."""
    for name in ("digits", "overfitted"):
        recipe, model = runs.get(name)
        train = _held(recipe, model, "train")
        rng = np.random.default_rng(1)
        chosen = np.sort(rng.permutation(len(train.ids))[:3000])
        true = train.examples.truth["class"].numpy()[chosen]  # type: ignore[union-attr]
        number = len(chosen) // 10
        wrong = rng.choice(len(chosen), number, replace=False)
        label = true.copy()
        label[wrong] = (true[wrong] + rng.integers(1, 10, number)) % 10
        values = features.plain(model.task, train, chosen)
        probabilities = labels.out_of_fold(values, label, 10, seed=0)
        assert probabilities is not None
        named = labels.label_issues(probabilities, label)
        first = labels.ranked(probabilities, label)[:number]
        precision = float(np.isin(first, wrong).mean())
        yield Line(
            what=f"{number} flipped labels of {len(chosen):,} records of {name}",
            figure=f"precision {precision:.3f} at {number}; {len(named)} named, "
            f"{np.isin(named, wrong).mean():.3f} of them right",
            bar="0.8",
            passed=precision >= 0.8,
        )


def attacked(runs: Runs) -> Iterator[Line]:
    """FGSM and PGD bring a network that is not defended to nothing."""
    recipe, model = runs.get("digits")
    test = _held(recipe, model, "test")
    found = attacks.attack(model.task, model.network, test.examples, precision=CPU, seed=0)
    by = {(one.method, one.strength): one.score.value or 0.0 for one in found}
    told = ", ".join(f"{method} {strength:g}: {value:.3f}" for (method, strength), value in by.items())
    worst = by["pgd", attacks.STRENGTHS[-1]]
    yield Line(what="accuracy of digits under attack", figure=told, bar="under 0.01", passed=worst < 0.01)
    order = [by["pgd", strength] for strength in (*attacks.STRENGTHS,)]
    falling = all(first >= second - 0.02 for first, second in pairwise(order))
    stronger = all(by["pgd", strength] <= by["fgsm", strength] + 0.02 for strength in attacks.STRENGTHS)
    yield Line(
        what="stronger attacks, lower scores; PGD below FGSM",
        figure="so" if falling and stronger else "not so",
        bar="so",
        passed=falling and stronger,
    )


def drift(runs: Runs) -> Iterator[Line]:
    """Of splits that are drawn at random, how many the check calls different."""
    recipe, _ = runs.get("titanic")
    for name, data in (("titanic", recipe), ("digits", runs.get("digits")[0])):
        told, tried = 0, 60
        for seed in range(tried):
            changed = data.model_copy(update={"training": data.training.model_copy(update={"seed": seed})})
            loaded = stages.load_data(changed)
            task = stages.fit_task(changed, loaded.splits["train"])
            sets = {split: encode(task, loaded.splits[split]) for split in ("train", "test")}
            subject = checks.Subject(changed, loaded, task, sets)
            told += any(one.verdict != "pass" for one in shift.splits_differ(subject))
        yield Line(
            what=f"random splits of {name} that are called different",
            figure=f"{told} of {tried} ({100 * told / tried:.1f} %)",
            bar="at most 5 %",
            passed=told / tried <= 0.05,
        )


CLAIMS: dict[str, Callable[[Runs], Iterator[Line]]] = {
    "intervals": coverage_of_intervals,
    "calibration": calibration,
    "conformal": conformal_coverage,
    "unfamiliar": unfamiliar,
    "labels": flipped_labels,
    "attacks": attacked,
    "drift": drift,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help=f"of: {', '.join(CLAIMS)}; all if none is named")
    parser.add_argument("--out", type=Path, default=None, help="keep the networks in this folder")
    arguments: Any = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as place:
        runs = Runs(arguments.out or Path(place))
        print("| claim | figure | bar | |\n|---|---|---|---|", flush=True)
        for name, claim in CLAIMS.items():
            if arguments.claims and name not in arguments.claims:
                continue
            started = time.perf_counter()
            for line in claim(runs):
                print(line, flush=True)
                failed |= not line.passed
            print(f"<!-- {name}: {time.perf_counter() - started:.0f} s -->", flush=True)
    sys.exit(3 if failed else 0)


if __name__ == "__main__":
    main()
