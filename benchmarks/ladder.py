"""The ladder on every data set that has a classical model: what it ships, and what that cost.

    python benchmarks/ladder.py [NAME ...] [--out FOLDER] [--set SECTION.SETTING=VALUE]

Three claims are judged on each: the best rung's test score is inside the interval of the shipped one; all rungs
together took less than three times the time of the dearest; a network is shipped only where it is ahead by more than
chance.
The table is printed as Markdown. With --out an interrupted ladder goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).parents[1] / "recipes"
# Each with the settings that keep it to minutes on two cores, if any: they hold for all rungs alike.
SETS: dict[str, tuple[str, ...]] = {
    "titanic": (),
    "digits": (),
    "sms_spam": (),
    "spoken_digits": (),
    "california_housing": (),
    "ag_news": (),
    "ud_partut": (),
    "fashion_mnist": (),
}
NETWORKS = ("frozen", "lora", "fine-tuned", "small-network", "network")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="recipes to climb; all if none is named")
    parser.add_argument("--out", type=Path, default=None, help="keep the ladders in this folder")
    parser.add_argument("--set", dest="changes", action="append", default=[], help="override a setting of every recipe")
    arguments = parser.parse_args()
    print("| data | score | shipped | its test score | best on test | all rungs / dearest | judged |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        for name, settings in SETS.items():
            if not arguments.names or name in arguments.names:
                print(row(name, arguments.out or Path(place), [*settings, *arguments.changes]), flush=True)


def row(name: str, folder: Path, changes: Sequence[str]) -> str:
    command = [sys.executable, "-m", "sonde", "ladder", str(RECIPES / f"{name}.toml"), "--out", str(folder / name)]
    command += ["--json", *(["--resume"] if (folder / name / "recipe.toml").exists() else [])]
    command += [f"--set={change}" for change in changes]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        return f"| {name} | failed: {done.stderr.strip().splitlines()[-1]} |"
    return judged(name, json.loads(done.stdout.splitlines()[-1]))


def judged(name: str, found: dict[str, Any]) -> str:
    rungs = {each["rung"]: each for each in found["rungs"] if "run" in each}
    shipped, best = found["ship"]["rung"], found["best_on_test"]
    own, top = rungs[shipped]["scores"]["test"], rungs[best]["scores"]["test"]
    times = [each["seconds"] for each in rungs.values()]
    ratio = sum(times) / max(times)
    wrong = []
    if not own["low"] <= top["value"] <= own["high"]:
        wrong.append("the best rung is outside of its interval")
    if ratio >= 3:
        wrong.append("too dear")
    cheaper = [each for rung, each in rungs.items() if rung not in NETWORKS]
    if shipped in NETWORKS and any(each["behind_the_best"]["tie"] for each in cheaper):
        wrong.append("a network that does not win")
    shown = f"{own['value']:.4g} [{own['low']:.4g}, {own['high']:.4g}]"
    return (
        f"| {name} | {found['metric']} | {shipped} | {shown} | {best} {top['value']:.4g} | "
        f"{sum(times):.0f} s / {max(times):.0f} s = {ratio:.2f} | {'; '.join(wrong) or 'holds'} |"
    )


if __name__ == "__main__":
    main()
