"""The command on small data: what it ships, what it leaves on disk, killed and resumed, and what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from sonde import cli
from sonde.artifact import load
from sonde.ladder.clock import read_seconds

RECIPE = """
[data]
source = "rows.csv"
split = { by = "order", validation = 0.25, test = 0.25 }
[inputs.table]
kind = "table"
fields = ["a", "b", "colour"]
[target]
kind = "category"
field = "label"
[network]
kind = "mlp"
hidden = [32]
numeric_embedding = "none"
[training]
epochs = 2
[ladder]
price = 2.0
"""


@pytest.fixture
def rows(tmp_path):
    """A class that a line tells apart, but for a tenth of the records."""
    rng = np.random.default_rng(0)
    lines = ["a,b,colour,label"]
    for _ in range(400):
        a, b = rng.normal(size=2)
        label = "yes" if (a + b > 0) != (rng.random() < 0.1) else "no"
        lines.append(f"{a:.6f},{b:.6f},{rng.choice(['red', 'blue'])},{label}")
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def sonde(monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr("sys.argv", ["sonde", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_the_cheapest_that_cannot_be_told_from_the_best(rows, sonde):
    out = rows / "ladder"
    code, text, err = sonde("ladder", rows / "recipe.toml", "--out", out)
    assert code == 0, err
    assert "ship linear" in text
    assert "no weights at hand" in text
    found = json.loads((out / "ladder.json").read_text())
    rungs = {each["rung"]: each for each in found["rungs"]}
    assert list(rungs)[:2] == ["constant", "linear"]
    assert found["ship"]["rung"] == "linear"
    assert rungs["constant"]["behind_the_best"]["tie"] is False
    assert rungs["linear"]["behind_the_best"]["tie"] is True
    assert found["looks"] == sum("run" in each for each in rungs.values()) - 1
    assert {"frozen", "lora", "fine-tuned"} == {name for name, each in rungs.items() if "reason" in each}
    for each in rungs.values():
        if "run" in each:
            assert each["seconds"] > 0
            assert each["latency_ms"] > 0
            assert each["bytes"] > 1000
            assert each["price_of_training"] == pytest.approx(2 * each["seconds"] / 3600, abs=1e-6)
            # Every rung is an artifact that predict takes.
            answer = load(each["artifact"]).predict([{"a": 2.0, "b": 2.0, "colour": "red"}])[0]
            assert answer["label"] == "yes" or each["rung"] in ("constant", "small-network", "network")
    svg = (out / "ladder.svg").read_text()
    assert all(name in svg for name, each in rungs.items() if "run" in each)
    assert (out / "ladder.png").read_bytes()[:4] == b"\x89PNG"
    code, text, _ = sonde("predict", found["ship"]["artifact"], rows / "rows.csv")
    assert code == 0
    assert len(text.splitlines()) == 400


def test_stops_at_the_bar(rows, sonde):
    words = ("ladder", rows / "recipe.toml", "--json", "--out")
    code, text, _ = sonde(*words, rows / "one", "--bar", "accuracy >= 0.75")
    found = json.loads(text.splitlines()[-1])
    assert code == 0
    assert found["meets_bar"] is True
    assert found["ship"]["rung"] == "linear"
    assert "not tried: linear meets the bar" in [each.get("reason") for each in found["rungs"]]
    code, text, err = sonde(*words, rows / "two", "--bar", "accuracy >= 0.999", "--set", 'ladder.rungs=["constant"]')
    assert code == 3
    assert json.loads(text.splitlines()[-1])["meets_bar"] is False
    assert "the bar is not met: none meets accuracy >= 0.999" in err


def test_a_budget_that_is_spent_and_a_larger_one(rows, sonde):
    out = rows / "ladder"
    code, _, err = sonde("ladder", rows / "recipe.toml", "--out", out, "--budget", "0.000001s")
    assert code == 2
    assert "no rung could be tried" in err
    few = ("--set", 'ladder.rungs=["constant","linear"]')
    code, text, _ = sonde("ladder", rows / "recipe.toml", "--out", out, "--budget", "5m", "--resume", *few)
    assert code == 0
    assert "ship linear" in text


def test_trials_are_the_same_for_every_rung(rows, sonde):
    few = ("--set", 'ladder.rungs=["linear","network"]', "--set", "ladder.trials=2", "--set", "training.epochs=1")
    code, text, _ = sonde("ladder", rows / "recipe.toml", "--out", rows / "ladder", "--json", *few)
    assert code == 0
    rungs = {each["rung"]: each for each in json.loads(text.splitlines()[-1])["rungs"]}
    assert {each["trials"] for each in rungs.values()} == {2}
    rates = [(rows / "ladder/network" / f"trial-{n}/recipe.toml").read_text() for n in (1, 2)]
    assert "lr = 0.001\n" in rates[0]
    assert "lr = 0.000333" in rates[1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--bar", "accurcy >= 0.9"), "did you mean 'accuracy'"),
        (("--bar", "log_loss >= 0.9"), 'hint: --bar "log_loss <= 0.9"'),
        (("--set", 'ladder.rungs=["boosting"]'), "some of: constant, linear, gradient-boosting"),
        (("--set", "data.split={by='order',validation=0,test=0.2}"), "there is none"),
        (("--budget", "later"), "is no time"),
        (("--resume",), "--resume needs the ladder"),
    ],
)
def test_what_it_refuses(rows, sonde, words, told):
    place = () if "--resume" in words else ("--out", rows / "ladder")
    code, _, err = sonde("ladder", rows / "recipe.toml", *place, *words)
    assert code == 2
    assert told in err
    assert not (rows / "ladder").exists()


def test_a_folder_of_something_else(rows, sonde):
    out = rows / "ladder"
    words = ("ladder", rows / "recipe.toml", "--out", out, "--set", 'ladder.rungs=["constant"]')
    assert sonde(*words)[0] == 0
    code, _, err = sonde(*words)
    assert code == 2
    assert "already holds a ladder" in err
    code, _, err = sonde(*words, "--resume", "--set", "training.seed=3")
    assert code == 2
    assert "the recipe differs" in err


def test_killed_and_resumed(rows, sonde):
    """Killed in the middle of the network: what was finished stays as it is, and the network goes on."""
    out = rows / "ladder"
    few = ["--set", 'ladder.rungs=["constant","linear","network"]', "--set", "training.epochs=15"]
    command = [sys.executable, "-m", "sonde", "ladder", str(rows / "recipe.toml"), "--out", str(out), *few]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoints = out / "network/trial-1/checkpoints"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None and not any(checkpoints.glob("step-*")):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "ladder.json").exists()
    assert not (out / "network/trial-1/model").exists()
    before = {path: path.stat().st_mtime_ns for path in (out / "linear/trial-1").rglob("*")}
    # What the network had cost when it was killed.
    spent = read_seconds(out / "network/trial-1.json")
    code, _, err = sonde("ladder", rows / "recipe.toml", "--out", out, "--resume", *few)
    assert code == 0, err
    assert "fitted linear" not in err, "finished rungs are not fitted again"
    assert before == {path: path.stat().st_mtime_ns for path in (out / "linear/trial-1").rglob("*")}
    steps = [json.loads(line).get("loss") for line in (out / "network/trial-1/log.jsonl").read_text().splitlines()]
    assert sum(loss is not None for loss in steps) == 15 * 3, "each step once"
    found = {each["rung"]: each for each in json.loads((out / "ladder.json").read_text())["rungs"]}
    assert found["network"]["seconds"] > spent


def test_a_recipe_of_a_classical_model(rows, sonde):
    """`sonde fit` takes one too; the resolved recipe trains the same again."""
    network = '[network]\nkind = "mlp"\nhidden = [32]\nnumeric_embedding = "none"'
    text = RECIPE.replace(network, '[classical]\nkind = "svm"')
    (rows / "svm.toml").write_text(text)
    code, told, _ = sonde("fit", rows / "svm.toml", "--out", rows / "run")
    assert code == 0
    assert "accuracy" in told
    assert sonde("fit", rows / "run/recipe.toml", "--out", rows / "again")[0] == 0
    assert (rows / "run/scores.json").read_bytes() == (rows / "again/scores.json").read_bytes()
    (rows / "both.toml").write_text(RECIPE + '[classical]\nkind = "svm"\n')
    code, _, err = sonde("fit", rows / "both.toml", "--out", rows / "both")
    assert code == 2
    assert "a [network] and a [classical] section" in err
    code, _, err = sonde("prove", rows / "run")
    assert code == 2
    assert "classical model" in err


def test_fit_shows_a_classical_model_beside(rows, sonde):
    code, told, _ = sonde("fit", rows / "recipe.toml", "--out", rows / "run")
    assert code == 0
    line = next(line for line in told.splitlines() if line.startswith("  accuracy"))
    assert "majority class 0." in line
    assert "gradient boosting 0." in line
    score = json.loads((rows / "run/scores.json").read_text())["test"]["accuracy"]
    assert score["reference"] > 0.75
    code, told, _ = sonde("fit", rows / "recipe.toml", "--out", rows / "off", "--set", "ladder.reference=false")
    assert "gradient boosting" not in told
