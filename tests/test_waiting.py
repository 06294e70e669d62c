"""How OpenMP's threads wait: chosen before torch is loaded, where others compute and the user has not said."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sonde.cli import waiting

SCRIPT = """
import os, sys
from sonde import cli
from sonde.cli import waiting
waiting._running = lambda: {running}
cli.app = lambda: print(os.environ.get("OMP_WAIT_POLICY"), "torch" in sys.modules)
cli.main()
"""


@pytest.mark.parametrize(
    ("running", "given", "expected"),
    [
        (1, {}, "None"),
        (2, {}, "passive"),
        (2, {"OMP_WAIT_POLICY": "active"}, "active"),
        (2, {"GOMP_SPINCOUNT": "9"}, "None"),
    ],
)
def test_threads_sleep_while_they_wait_where_others_compute(running: int, given: dict[str, str], expected: str) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    script = SCRIPT.format(running=running)
    done = subprocess.run([sys.executable, "-c", script], env=clean | given, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected, "False"]


def test_a_process_that_computes_is_seen() -> None:
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        assert waiting.others_running() > waiting.BUSY
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_a_system_that_does_not_say_is_judged_by_its_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> int:
        raise FileNotFoundError

    monkeypatch.setattr(waiting, "_running", missing)
    monkeypatch.setattr(os, "getloadavg", lambda: (1.5, 0.0, 0.0))
    assert waiting.others_running() == 1.5


def test_the_library_sets_nothing() -> None:
    script = (
        "import os; before = dict(os.environ); import sonde, sonde.cli, sonde.run; assert before == dict(os.environ)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
