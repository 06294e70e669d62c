"""Try settings over the tuning collection: data sets that the published table of `defaults.py` does not have.

    python benchmarks/defaults_tuning.py LABEL [--set SECTION.SETTING=VALUE ...] [--only NAME,...] [--seeds 3]
    python benchmarks/defaults_tuning.py --compare

A quarter of the records test. Every label is kept; --compare prints the mean normalized score of each (0: the majority
class or the mean, 1: the best of scikit-learn's usual models on that set, by its mean over the seeds).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import defaults_cells as cells
import numpy as np
from defaults_sets import TUNING, DataSet, use_packages

SPLIT = "data.split.test=0.25"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("label", nargs="?", default="")
    parser.add_argument("--set", dest="changes", action="append", default=[])
    parser.add_argument("--only", default="")
    parser.add_argument("--most", type=int, default=10**9, help="only sets of at most so many records")
    parser.add_argument("--least", type=int, default=0, help="only sets of at least so many records")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--sets", action="store_true", help="with --compare: the score on every set")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "sonde-defaults")
    parser.add_argument("--packages", type=Path, action="append", default=[], help="a folder that data sets are in")
    arguments = parser.parse_args()
    use_packages(arguments.packages)
    classical = cells.Cells(arguments.folder / "tuning-classical.jsonl")
    chosen = [one for one in TUNING if not arguments.only or one.name in arguments.only.split(",")]
    if not arguments.compare:
        found = cells.Cells(arguments.folder / f"tuning-{arguments.label}.jsonl")
        for one in chosen:
            for seed in range(arguments.seeds):
                key = f"{one.name}/{seed}"
                if arguments.label == "classical":
                    if key not in classical.found:
                        recipe = cells.recipe_of(one, seed, arguments.folder, [SPLIT])
                        classical.add(key, {"models": cells.defaults_classical.scores(recipe)})
                elif key not in found.found and arguments.least <= size(one, arguments.folder) <= arguments.most:
                    found.add(key, cells.of_sonde(one, seed, arguments.folder, [SPLIT, *arguments.changes]))
    compare(arguments.folder, classical, chosen, arguments.label, each=arguments.sets or not arguments.compare)


def size(one: DataSet, folder: Path) -> int:

    place = Path(cells.defaults_sets.source(one, folder))
    if ":" in str(place):
        return 0
    with place.open() as file:
        return sum(1 for _ in file) - 1


def compare(folder: Path, classical: cells.Cells, chosen: list[DataSet], label: str, *, each: bool) -> None:
    """The mean normalized score of each label over the sets that it has, beside that of scikit-learn's models there."""
    for path in sorted(folder.glob("tuning-*.jsonl"), key=lambda path: path.stat().st_mtime):
        name = path.stem.removeprefix("tuning-")
        if name == "classical" or (label and name != label):
            continue
        found = cells.Cells(path)
        rows = []
        for one in chosen:
            mine = [cell for key, cell in found.found.items() if key.startswith(one.name + "/")]
            others = [classical.found[cell["key"]]["models"] for cell in mine if cell["key"] in classical.found]
            if not mine or not others:
                continue
            means = {model: float(np.mean([other[model]["score"] for other in others])) for model in others[0]}
            metric = mine[0]["metric"]
            best = (max if metric == "accuracy" else min)(means.values())
            baseline, score = (float(np.mean([cell[key] for cell in mine])) for key in ("baseline", "score"))
            values = {model: cells.normalized(value, baseline, best, metric) for model, value in means.items()}
            values["gradient boosting"] = max(values["gradient boosting"], values.get("gradient boosting, slow", -1.0))
            mine_value = cells.normalized(score, baseline, best, metric)
            seconds = float(np.mean([cell["seconds"] for cell in mine]))
            rows.append((mine_value, values["gradient boosting"], seconds, mine[0]["shape"][0]))
            if each:
                top = max(means, key=lambda model: values[model])
                print(
                    f"{one.name:16} {mine[0]['shape']!s:14} {metric:8} sonde {score:9.4g} ({mine_value:6.3f})  "
                    f"boosting {values['gradient boosting']:6.3f}  best {best:9.4g} {top:22} {seconds:6.1f} s"
                )
        if rows:
            array = np.array(rows)
            small, middle = array[:, 3] <= 600, (array[:, 3] > 600) & (array[:, 3] < 2000)
            parts = [
                f"{text} {array[mask, 0].mean():.4f} (boosting {array[mask, 1].mean():.4f})"
                for text, mask in (
                    ("all", small | True),
                    ("small", small),
                    ("middle", middle),
                    ("large", array[:, 3] >= 2000),
                )
                if mask.any()
            ]
            print(f"{name:28} {len(rows)} sets: {'; '.join(parts)}; {array[:, 2].sum():.0f} s a seed")


if __name__ == "__main__":
    main()
