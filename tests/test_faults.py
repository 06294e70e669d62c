"""The benchmark of a thousand faults while saving, in miniature."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "faults_save.py"


def test_faults_while_saving(tmp_path):
    command = [sys.executable, str(SCRIPT), "--count", "56", "--seed", "1", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "56 faults" in done.stdout
    assert "0 failed" in done.stdout
    assert "FAILED" not in done.stdout
