"""Seeded faults that the checks have to name, and clean set-ups that they have to leave alone.

    python benchmarks/faults.py [--only WORDS] [--clean COUNT] [--folder FOLDER] [--print]

A fault is caught if the one check that is named beside it in `faults_seeded.py` does not pass, or if the error or the
warning has the words named there; anything else is a miss, whatever else was said. A clean set-up goes through all
stages (data, pre-flight, training, verdict); any warning or failure of any check is a false alarm. Finished cells are
kept in FOLDER, so that a run goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from faults_data import SHAPES, Setup
from faults_seeded import FAULTS, Fault, Stage

from sonde import checks, stages
from sonde.base import rng
from sonde.base.errors import SondeError
from sonde.base.progress import NoProgress
from sonde.contracts.finding import Finding
from sonde.contracts.records import Records
from sonde.data.load import Dataset
from sonde.data.snapshot import snapshot
from sonde.data.store import encode
from sonde.recipe import Recipe
from sonde.training.run_folder import Log, RunFolder
from sonde.training.trainer import Trainer

CLEAN = 56


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="faults and set-ups whose name has these words")
    parser.add_argument("--clean", type=int, default=CLEAN, help="clean set-ups: the shapes in turns, each by a seed")
    parser.add_argument("--print", dest="only_print", action="store_true", help="run nothing")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "sonde-faults")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    names = list(SHAPES)
    clean = [f"clean: {names[at % len(names)]} {at // len(names)}" for at in range(arguments.clean)]
    wanted = [name for name in [*(one.name for one in FAULTS), *clean] if arguments.only in name]
    by_name = {one.name: one for one in FAULTS}
    for name in wanted if not arguments.only_print else []:
        file = _file(arguments.folder, name)
        if file.exists():
            continue
        started = time.perf_counter()
        cell = of_fault(by_name[name]) if name in by_name else of_clean(name)
        cell |= {"name": name, "seconds": round(time.perf_counter() - started, 1)}
        file.write_text(json.dumps(cell))
        word = "caught" if cell["caught"] else "clean" if cell["clean"] else "  !!  "
        said = "" if word != "  !!  " else "; ".join(cell["said"])[:300]
        print(f"{cell['seconds']:6.1f} s  {word}  {name}   {said}", flush=True)
    print(
        summary([json.loads(file.read_text()) for name in wanted if (file := _file(arguments.folder, name)).exists()])
    )


def _file(folder: Path, name: str) -> Path:
    return folder / ("".join(letter if letter.isalnum() else "-" for letter in name) + ".json")


def of_fault(one: Fault) -> dict[str, Any]:
    said, words = run(one.make(0), (one.stage,))
    wanted = one.expected.removeprefix("told:")
    caught = (
        any(wanted in text for text in words) if one.expected != wanted else wanted in {each.check for each in said}
    )
    return {"expected": one.expected, "caught": caught, "clean": False, "said": [*_short(said), *words]}


def of_clean(name: str) -> dict[str, Any]:
    _, shape, seed = name.split()
    said, words = run(SHAPES[shape](int(seed)), ("audit", "flight", "fit"))
    return {"expected": "", "caught": False, "clean": not said and not words, "said": [*_short(said), *words]}


def _short(said: list[Finding]) -> list[str]:
    return [f"{one.verdict} {one.check}: {one.text}" for one in said]


class Heard(NoProgress):
    """Keeps the warnings that a training tells of."""

    def __init__(self) -> None:
        self.last: dict[str, str] = {}

    def message(self, text: str) -> None:
        if "warning: " in text:
            self.last["warning"] = text


def run(made: Setup, wanted: tuple[Stage, ...]) -> tuple[list[Finding], list[str]]:
    """What is found that does not pass, and the errors and last warnings."""
    heard = Heard()
    said: list[Finding] = []
    try:
        # What a user's error is told for is data that cannot be read: the same in every stage.
        with rng.preserved():
            subject = _subject(made)
            if "audit" in wanted:
                said += checks.audit(subject)
            if "flight" in wanted:
                said += checks.fly(subject, made.own)
            if "fit" in wanted:
                said += _fit(subject, made, heard)
    except SondeError as error:
        return [one for one in said if one.verdict != "pass"], [str(error)]
    return [one for one in said if one.verdict != "pass"], list(heard.last.values())


def _subject(made: Setup) -> checks.Subject:
    splits = made.splits()
    recipe = Recipe.of({"data": {"source": "sklearn:digits", **made.data}, **made.recipe})
    task = stages.fit_task(recipe, splits["train"], made.own)
    shared = set.intersection(*(set(part.fields) for part in splits.values()))
    both = Records(
        fields={name: np.concatenate([part.fields[name] for part in splits.values()]) for name in shared},
        ids=[name for part in splits.values() for name in part.ids],
    )
    where = np.array([name for name, part in splits.items() for _ in part.ids])
    data = Dataset(splits=splits, snapshot=snapshot(both, where, used=shared))
    return checks.Subject(recipe, data, task, {name: encode(task, part) for name, part in splits.items()})


def _fit(subject: checks.Subject, made: Setup, heard: Heard) -> list[Finding]:
    """The training as `sonde.fit` does it, and what is said at its end."""
    recipe, task, sets = subject.recipe, subject.task, subject.sets
    network = stages.build_network(recipe, task, made.own)
    with tempfile.TemporaryDirectory() as place, RunFolder.open(Path(place) / "run", resume=False) as folder:
        state, plan, batches = stages.prepare(recipe, task, network, sets["train"], None, heard)
        with Log(folder.log, 0) as log:
            Trainer(
                training=recipe.training,
                task=task,
                sets=sets,
                state=state,
                plan=plan,
                batches=batches,
                folder=folder,
                log=log,
                progress=heard,
            ).run()
        # A warning that training left behind is none.
        ended = _warned_at_the_end(folder.log, state.step)
        if not ended:
            heard.last.clear()
        stages.use_best(recipe, folder, state)
        scores = stages.score(recipe, stages.remember(task, state, sets["train"], heard), state, sets, heard)
        return checks.after_training(recipe, task, folder.log, scores, lambda step: [])


def _warned_at_the_end(log: Path, step: int) -> bool:
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return any("warning" in row and row["step"] == step for row in rows)


def summary(cells: list[dict[str, Any]]) -> str:
    faults = [cell for cell in cells if cell["expected"]]
    clean = [cell for cell in cells if not cell["expected"]]
    missed = [cell for cell in faults if not cell["caught"]]
    alarms = [cell for cell in clean if not cell["clean"]]
    lines = [""]
    if faults:
        share = 1 - len(missed) / len(faults)
        lines.append(f"faults: {len(faults) - len(missed)} of {len(faults)} caught ({share:.1%})")
        for one in missed:
            said = "; ".join(one["said"])[:400] or "nothing"
            lines.append(f"  missed: {one['name']} (wanted {one['expected']!r}); said: {said}")
    if clean:
        lines.append(f"clean set-ups: {len(alarms)} of {len(clean)} raised an alarm ({len(alarms) / len(clean):.1%})")
        lines += [f"  alarm: {one['name']}: {'; '.join(one['said'])[:400]}" for one in alarms]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
