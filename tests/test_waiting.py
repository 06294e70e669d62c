"""The command line says how OpenMP's threads wait, before torch is loaded and only where the user has not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, sys
from sonde import cli
cli.app = lambda: print(os.environ.get("OMP_WAIT_POLICY"), "torch" in sys.modules)
cli.main()
"""


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active"), ({"GOMP_SPINCOUNT": "9"}, "None")],
)
def test_the_command_line_has_threads_sleep(given: dict[str, str], expected: str) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=clean | given, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected, "False"]


def test_the_library_sets_nothing() -> None:
    script = (
        "import os; before = dict(os.environ); import sonde, sonde.cli, sonde.run; assert before == dict(os.environ)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
