"""How threads wait is settled before torch is loaded, by what else runs, and never over the user's head."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sonde.base import openmp

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    # Set first, so that what `settle` sets is undone after the test.
    for name in NAMES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def found() -> dict[str, str]:
    return {name: os.environ[name] for name in NAMES if name in os.environ}


def running(monkeypatch: pytest.MonkeyPatch, *counts: int) -> None:
    """The system tells of so many running processes, one look after another."""
    looks = iter([f"0.10 0.20 0.30 {count}/85 32018\n" for count in counts])
    monkeypatch.setattr(Path, "read_text", lambda self, encoding: next(looks))


def test_a_short_spin_on_an_idle_machine(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # Others run too in most of the looks, but not in all.
    running(monkeypatch, 5, 9, 1, 9)
    openmp.settle()
    assert found() == {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": str(openmp.SPIN)}


def test_no_spin_beside_other_work_or_where_nobody_tells(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    cores = os.cpu_count() or 1
    running(monkeypatch, *[1 + max(1, cores // 4)] * openmp.LOOKS)
    openmp.settle()
    assert found() == {"OMP_WAIT_POLICY": "passive"}
    monkeypatch.delenv("OMP_WAIT_POLICY")
    running(monkeypatch, *[])
    monkeypatch.setattr(Path, "read_text", lambda self, encoding: "what is this")
    openmp.settle()
    assert found() == {"OMP_WAIT_POLICY": "passive"}


def test_what_the_user_set_stays(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    openmp.settle()
    assert found() == {"OMP_WAIT_POLICY": "active"}


def test_the_command_line_settles_it_before_torch() -> None:
    words = "import sys; from sonde.base import openmp; openmp.settle(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
