"""A run that is killed with SIGKILL, twice, and resumed, is bit for bit the run that was not."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import sonde
from sonde.recipe import Recipe

RECIPE = """
[data]
source = "sklearn:digits"
[inputs.image]
kind = "image"
augment = { shift = 0.1, cutout = 0.2 }
[target]
kind = "category"
[network]
kind = "cnn"
widths = [4, 8]
[training]
steps = 60
batch_size = 32
evaluate_every = 5
average = 0.9
optimizer = { kind = "muon" }
"""


def start(recipe, out, *words):
    command = [sys.executable, "-m", "sonde", "fit", str(recipe), "--out", str(out), *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_when(process, due, patience=60.0):
    """SIGKILL as soon as something is on disk."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and process.poll() is None:
        if due():
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


def steps(out):
    return [int(path.stem.split("-")[1]) for path in (out / "checkpoints").glob("step-*.safetensors")]


def test_killed_twice(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert start(path, straight).wait() == 0
    kill_when(start(path, killed), lambda: max(steps(killed), default=0) >= 10)
    reached = max(steps(killed))
    assert reached < 60
    kill_when(start(path, killed, "--resume"), lambda: max(steps(killed), default=0) >= reached + 15)
    assert not (killed / "model").exists()
    sonde.fit(Recipe.read(path), out=killed, resume=True)
    for name in ("log.jsonl", "scores.json", "snapshot.json", "model/weights.safetensors", "model/MANIFEST.json"):
        assert (straight / name).read_bytes() == (killed / name).read_bytes(), name
