"""Two processes under torchrun train as one does; a killed one ends the job with a clear error, and it can go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
dropout = 0.0
[training]
steps = 40
batch_size = 32
micro_batch = 8
evaluate_every = 10
log_every = 1
ema_decay = 0.9
precision = "fp32"
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The recipe, and the folder of its run in one process."""
    folder = tmp_path_factory.mktemp("alone")
    path = folder / "recipe.toml"
    path.write_text(RECIPE)
    # The whole batch at once: batch norm's statistics are those of all the examples that are there at once.
    sonde.fit(Recipe.read(path, changes=["training.micro_batch=32"]), out=folder / "run")
    return path, folder / "run"


def job(recipe, out, *words, restarts=0):
    """Two processes, one thread each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [f"--max-restarts={restarts}", "--monitor-interval=0.1", "-m", "sonde", "fit", str(recipe)]
    changes = [f"--set={word}" for word in ("training.micro_batch=16", *words) if not word.startswith("--")]
    flags = [word for word in words if word.startswith("--")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    return subprocess.Popen(
        [*command, "--out", str(out), *changes, *flags], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environment,
    )  # fmt: skip


def kill_one(process, out, step, patience=120.0):
    """SIGKILL one of the two as soon as the checkpoint of a step is there."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and not (out / "checkpoints" / f"step-{step:09d}.safetensors").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)


def assert_same_curve(one, two):
    logs = [[json.loads(line) for line in (each / "log.jsonl").read_text().splitlines()] for each in (one, two)]
    # Sharded weights are not looked at while they train.
    logs = [[line for line in each if "vitals" not in line] for each in logs]
    assert [line.keys() for line in logs[0]] == [line.keys() for line in logs[1]]
    for mine, theirs in zip(*logs, strict=True):
        if "loss" in mine:
            assert theirs["loss"] == pytest.approx(mine["loss"], abs=1e-5)
        if "validation" in mine:
            assert theirs["validation"] == pytest.approx(mine["validation"], abs=1e-5, nan_ok=True)
    scores = [json.loads((each / "scores.json").read_text())["test"] for each in (one, two)]
    assert scores[1]["log_loss"]["value"] == pytest.approx(scores[0]["log_loss"]["value"], abs=1e-5)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_killed_process_is_started_again_and_the_curve_is_that_of_one(alone, tmp_path, optimizer):
    recipe, one = alone
    if optimizer != "adamw":
        one = tmp_path / "one"
        changes = ["training.micro_batch=32", f"training.optimizer.kind={optimizer}"]
        sonde.fit(Recipe.read(recipe, changes=changes), out=one)
    process = job(recipe, tmp_path / "run", f"training.optimizer.kind={optimizer}", restarts=1)
    kill_one(process, tmp_path / "run", 10)
    said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert_same_curve(one, tmp_path / "run")


def test_a_killed_process_ends_the_job_with_a_clear_error_and_one_process_can_go_on(alone, tmp_path):
    recipe, _ = alone
    process = job(recipe, tmp_path / "run")
    kill_one(process, tmp_path / "run", 10)
    _, said = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "another process of this job of 2 ended" in said
    assert "--resume goes on from the last checkpoint" in said
    found = sonde.fit(Recipe.read(tmp_path / "run" / "recipe.toml"), out=tmp_path / "run", resume=True)
    assert (found.artifact / "MANIFEST.json").is_file()


def test_sharded_weights_train_the_same(alone, tmp_path):
    recipe, one = alone
    process = job(recipe, tmp_path / "run", "training.parallel=fsdp")
    said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert_same_curve(one, tmp_path / "run")


def test_a_batch_has_to_be_dealt_out_evenly(alone, tmp_path):
    recipe, _ = alone
    process = job(recipe, tmp_path / "run", "training.batch_size=31")
    _, said = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "a batch of 31 examples cannot be dealt out to 2 processes" in said
    assert "hint: training.batch_size = 30" in said
