"""Small Shakespeare in nanoGPT's setting for processors: time to its published validation loss, whole programs.

    python benchmarks/peers/shakespeare.py CHECKOUT [--text FILE] [--rounds 1]

CHECKOUT is a clone of nanoGPT; its train.py runs unchanged, with the command that its README gives for a processor, in
the environment "torch". sonde runs `sonde fit` on recipes/shakespeare.toml: the same text, split, layers, heads, width,
context and batch. The clock starts with the process and stops at the first line that tells a validation loss of the
goal or lower; so sonde's reading and encoding counts, and nanoGPT's (its prepare.py) does not. In turns A B B A, or
A B with --short.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from environments import PEERS, ROOT, python_of, set_up

GOAL = 1.88
# What both print: "step 250: train loss 2.4, val loss 2.5" and "step 250: validation loss 2.5 (best)".
LINE = re.compile(r"step (\d+):.*val(?:idation)? loss ([\d.]+)")
README = (
    "config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 --log_interval=1 --block_size=64 "
    "--batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000 --dropout=0.0"
)


def prepare(text: Path, folder: Path) -> None:
    """What nanoGPT's prepare.py writes, from a text that is here already."""
    characters = text.read_text()
    letters = sorted(set(characters))
    ids = {letter: number for number, letter in enumerate(letters)}
    codes = np.array([ids[letter] for letter in characters], dtype=np.uint16)
    cut = int(len(codes) * 0.9)
    codes[:cut].tofile(folder / "train.bin")
    codes[cut:].tofile(folder / "val.bin")
    meta = {"vocab_size": len(letters), "itos": dict(enumerate(letters)), "stoi": ids}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))


def race(command: list[str], folder: Path) -> dict[str, float | bool]:
    """Run a program until it tells the goal; the seconds, the step and the loss, or those of its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    step, loss, last = 0, float("nan"), ""
    for line in process.stdout:
        last = line
        if found := LINE.search(line):
            step, loss = int(found[1]), float(found[2])
            # 1.88 as it is published, in two decimals.
            if round(loss, 2) <= GOAL:
                break
    seconds = time.perf_counter() - started
    reached = round(loss, 2) <= GOAL
    process.terminate()
    process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if not step:
        raise SystemExit(f"{command[:3]} told no validation loss: {last}")
    return {
        "seconds": seconds,
        "processor": used,
        "step": step,
        "loss": loss,
        "reached": reached,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="a clone of nanoGPT")
    parser.add_argument("--text", type=Path, default=ROOT.parent / "shared/data/tinyshakespeare/input.txt")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="one run of each")
    parser.add_argument("--steps", type=int, default=500, help="of sonde's schedule; nanoGPT's is 2,000")
    arguments = parser.parse_args()
    if reason := set_up(PEERS["PyTorch loop"]):
        raise SystemExit(reason)
    runs: dict[str, list[dict[str, float | bool]]] = {"sonde": [], "nanoGPT": []}
    with tempfile.TemporaryDirectory() as place:
        theirs = Path(place) / "nanogpt"
        shutil.copytree(arguments.checkout, theirs, ignore=shutil.ignore_patterns(".git"))
        prepare(arguments.text, theirs / "data" / "shakespeare_char")
        turns = ("sonde", "nanoGPT") if arguments.short else ("sonde", "nanoGPT", "nanoGPT", "sonde") * arguments.rounds
        for turn in turns:
            if turn == "nanoGPT":
                command = [str(python_of(PEERS["PyTorch loop"])), "train.py", *README.split()]
                found = race(command, theirs)
            else:
                out = Path(place) / f"run-{len(runs['sonde'])}"
                settings = [
                    f"data.source={json.dumps(str(arguments.text.parent.resolve()))}",
                    'data.split={by="order", validation=0.1, test=0.0}',
                    f"training.steps={arguments.steps}",
                    "training.evaluate_every=100",
                ]
                recipe = str(ROOT / "recipes/shakespeare.toml")
                command = [sys.executable, "-m", "sonde", "fit", recipe, "--out", str(out)]
                found = race([*command, *(part for each in settings for part in ("--set", each))], Path(place))
            runs[turn].append(found)
            print(turn, json.dumps(found), file=sys.stderr, flush=True)
    print(f"| time to validation loss {GOAL} | seconds | processor seconds | at step |\n|---|---|---|---|")
    means = {}
    for name, found in runs.items():
        steps = ", ".join(f"{each['step']}{'' if each['reached'] else ' (not reached)'}" for each in found)
        means[name] = [float(np.mean([each[clock] for each in found])) for clock in ("seconds", "processor")]
        print(f"| {name} | {means[name][0]:.0f} | {means[name][1]:.0f} | {steps} |")
    shares = [ours / theirs for ours, theirs in zip(means["sonde"], means["nanoGPT"], strict=True)]
    print(f"\nsonde takes {shares[0]:.2f} of nanoGPT's time, {shares[1]:.2f} of its processor time")


if __name__ == "__main__":
    main()
