"""A table of 200,000 rows and 30 columns: time to the same AUC on 20,000 held out, each with its own best recipe.

    python benchmarks/peers/auc.py [--goal 0.93] [--only sonde Lightning ...]

Each contestant trains its own kind of network by its own recipe (auc_NAME.py says which) for 1, 2, 3, 5 and 8 epochs,
evaluates after every epoch, and stops at the goal; the first number of epochs that reaches it counts, from the table in
memory (in a file for sonde, which reads files) to the evaluation that reached it, without imports. The AUC is computed
by one function for all, except that sonde and Ludwig use their own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from environments import HERE, PEERS, PLACE, ROOT, SONDE, Peer, python_of, set_up

CONTESTANTS: dict[str, Peer] = {"sonde": SONDE, **{name: PEERS[name] for name in ("Lightning", "fastai", "Ludwig")}}
EPOCHS = (1, 2, 3, 5, 8)
TRAIN, HELD_OUT, COLUMNS = 200_000, 20_000, 30


def make(folder: Path) -> None:
    """Numbers of different scales; the truth is drawn from a random network of two layers. As .npy, and as .csv."""
    if (folder / "table.csv").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(TRAIN + HELD_OUT, COLUMNS))
    hidden = np.tanh(x @ rng.normal(0, 1 / COLUMNS**0.5, (COLUMNS, 24)) * 2)
    logit = 6 * hidden @ rng.normal(0, 1 / 24**0.5, 24) + np.where(x[:, 0] * x[:, 1] > 0, 1.5, -1.5)
    y = (rng.random(len(x)) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    x = (x * np.exp(rng.normal(size=COLUMNS)) + rng.normal(size=COLUMNS)).astype(np.float32)
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    import polars

    table = {f"x{i}": x[:, i] for i in range(COLUMNS)} | {"y": y}
    table["split"] = np.where(np.arange(len(x)) < TRAIN, "train", "validation")
    polars.DataFrame(table).write_csv(folder / "table.csv")


def time_to(name: str, goal: float, threads: int) -> dict[str, object]:
    """The first number of epochs that reaches the goal: seconds on both clocks and the AUC after each epoch."""
    peer = CONTESTANTS[name]
    if reason := set_up(peer):
        return {"error": reason}
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "PYTHONPATH": str(ROOT / "src")}
    if peer is not SONDE:
        environment["PYTHONPATH"] = ""
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    found: dict[str, object] = {}
    for epochs in EPOCHS:
        command = [str(python_of(peer)), str(HERE / f"auc_{name.lower()}.py"), str(PLACE / "data/auc"), str(epochs)]
        done = subprocess.run([*command, str(goal)], capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            return {"error": done.stderr.strip().splitlines()[-1][:300]}
        found = json.loads(done.stdout.strip().splitlines()[-1]) | {"epochs": epochs}
        print(name, json.dumps(found), file=sys.stderr, flush=True)
        if found["reached"]:
            break
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--goal", type=float, default=0.93)
    parser.add_argument("--only", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS))
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    make(PLACE / "data/auc")
    print(f"| time to AUC {arguments.goal} | seconds | processor seconds | epochs | best AUC |\n|---|---|---|---|---|")
    for name in arguments.only:
        row = time_to(name, arguments.goal, arguments.threads)
        if "error" in row:
            print(f"| {name} | no: {row['error']} | | | |", flush=True)
            continue
        mark = "" if row["reached"] else " (not reached)"
        print(
            f"| {name} | {row['wall']:.1f}{mark} | {row['processor']:.1f} | {row['epochs']} | {row['auc']:.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
