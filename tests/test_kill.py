"""A run that is killed with SIGKILL, again and again, and resumed, is bit for bit the run that was not."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_shapes import camvid, flowers, housing, shakespeare, sms, spoken, titanic

RECIPES = Path(__file__).parents[1] / "recipes"
SHORT = ["training.steps=12", "training.evaluate_every=5", "training.log_every=1"]

# Every shape of problem: its recipe, its data in miniature, and settings that have a state of their own. Five steps are
# never a whole epoch here, so that checkpoints fall inside of them.
SHAPES: dict[str, tuple[str, Callable[..., Path], list[str]]] = {
    "image classification": (
        "flowers5",
        flowers,
        ["training.batch_size=16", "inputs.image.size=16", "network.widths=[4,8,8,8]", "training.ema_decay=0.9"],
    ),
    "segmentation": (
        "camvid",
        camvid,
        ["inputs.image.size=[32,48]", "network.widths=[4,8]", "training.micro_batch=3", "data.memory=1e-9"],
    ),
    "audio": ("spoken_digits", spoken, ["training.batch_size=8", "network.widths=[4,8]", "data.memory=1e-9"]),
    "text classification": (
        "sms_spam",
        sms,
        [
            *("training.batch_size=32", "network.width=8", "network.layers=2", "network.dropout=0.2"),
            *("training.ema_decay=0.8", "training.schedule.kind=plateau", "training.schedule.patience=1"),
            "data.memory=1e-9",
        ],
    ),
    "language modelling": (
        "shakespeare",
        shakespeare,
        [
            *("network.layers=1", "network.width=16", "network.heads=2", "network.dropout=0.1"),
            *("target.generate.tokens=4", "training.micro_batch=5"),
        ],
    ),
    "table, category": (
        "titanic",
        titanic,
        ["training.schedule.kind=plateau", "training.schedule.patience=1", "training.optimizer.kind=muon"],
    ),
    "table, number": ("california_housing", housing, ["training.optimizer.kind=sgd", "training.checkpoint=last"]),
}

# Where a process is killed: at so many calls of a function, from the start of the process on.
KILLS = [
    ("sonde.data.store", "_encode_chunk", 2),  # nothing has begun
    ("sonde.base.files", "write_bytes", 2),  # the snapshot is there, the recipe is not
    ("sonde.evaluation", "values", 1),  # during the validation of step 5
    ("os", "replace", 3),  # best weights are there, the checkpoint of step 5 is written but has not its name
    ("sonde.loop", "_update", 8),  # inside step 8, after the checkpoint of step 5
    ("sonde.base.files", "remove", 1),  # the checkpoint of step 12 is there, and so is the one that has to go
    ("sonde.artifact.folder", "save", 2),  # half an artifact
]


def fit(path: Path, changes: list[str], out: Path, kill: tuple[str, str, int] | None, threads: int) -> None:
    """In a process of its own: fit, killed at a place; `threads` encode the data."""
    import torch

    import sonde
    from sonde.recipe import Recipe

    torch.set_num_threads(1)
    os.cpu_count = lambda: threads
    if kill is not None:
        module, name, count = kill
        place = importlib.import_module(module)
        inner, left = getattr(place, name), [count]

        def killing(*arguments, **settings):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return inner(*arguments, **settings)

        setattr(place, name, killing)
    sonde.fit(Recipe.read(path, changes=changes), out=out, resume=out.exists())


@pytest.fixture(scope="module")
def processes():
    """Processes that start quickly: torch is imported once, in the server that they are forked from."""
    context = multiprocessing.get_context("forkserver")
    # The optimizers import torch._dynamo when they are first used.
    context.set_forkserver_preload(["sonde.run", "torch._dynamo"])

    def run(*arguments) -> int | None:
        process = context.Process(target=fit, args=arguments)
        process.start()
        process.join()
        return process.exitcode

    return run


def assert_same(straight: Path, killed: Path) -> None:
    """Weights, optimizer, log, scores and artifact: every file but what names the folder, byte for byte."""
    names = {str(each.relative_to(straight)) for each in straight.rglob("*") if each.is_file()}
    more = {str(each.relative_to(killed)) for each in killed.rglob("*") if each.is_file()} - names
    # Only an older checkpoint may be left, of which the next one would have taken the place.
    assert all(name.startswith(("checkpoints/step-", "checkpoints/best-")) for name in more), more
    assert {"log.jsonl", "scores.json", "model/weights.safetensors", "checkpoints/step-000000012.safetensors"} <= names
    # How long a run took is measured, and is no result of it.
    for name in sorted(names - {"time.json"}):
        assert (straight / name).read_bytes() == (killed / name).read_bytes(), name


@pytest.mark.parametrize("shape", SHAPES)
def test_killed_anywhere(shape, shared, tmp_path, processes):
    name, data, settings = SHAPES[shape]
    path = RECIPES / f"{name}.toml"
    changes = [*SHORT, *settings, f"data.source={data(shared, tmp_path)}"]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert processes(path, changes, straight, None, 1) == 0
    for kill in KILLS:
        assert processes(path, changes, killed, kill, 4) == -signal.SIGKILL, kill
    assert processes(path, changes, killed, None, 2) == 0
    assert_same(straight, killed)


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
ema_decay = 0.9
optimizer = { kind = "muon" }
"""


def start(recipe, out, *words):
    command = [sys.executable, "-m", "sonde", "fit", str(recipe), "--out", str(out), *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_when(process, due, patience=300.0):
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


def test_the_command_killed_at_any_time(tmp_path):
    """From outside, whatever it is doing."""
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert start(path, straight).wait() == 0
    kill_when(start(path, killed), lambda: max(steps(killed), default=0) >= 10)
    reached = max(steps(killed))
    assert reached < 60
    assert not (killed / "model").exists()
    assert start(path, killed, "--resume").wait() == 0
    for name in ("log.jsonl", "scores.json", "snapshot.json", "model/weights.safetensors", "model/MANIFEST.json"):
        assert (straight / name).read_bytes() == (killed / name).read_bytes(), name
