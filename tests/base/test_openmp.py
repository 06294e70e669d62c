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


def watched(monkeypatch: pytest.MonkeyPatch, cores: int, *idle: int) -> None:
    """Of 100 hundredths of a second so many were idle, as two looks tell it."""
    looks = iter(
        "\n".join(
            [f"cpu {look * (100 - rest)} 0 0 {look * rest} 0 0 0 0 0 0", *(f"cpu{core}" for core in range(cores))]
        )
        for look, rest in enumerate(idle, start=1)
    )
    monkeypatch.setattr(Path, "read_text", lambda self, encoding: next(looks))


@pytest.mark.parametrize(
    ("cores", "idle", "spins"), [(2, 100, True), (2, 80, True), (2, 50, False), (64, 95, True), (64, 80, False)]
)
def test_a_short_spin_where_nothing_else_runs(
    bare: None, monkeypatch: pytest.MonkeyPatch, cores: int, idle: int, spins: bool
) -> None:
    watched(monkeypatch, cores, idle, idle, idle, idle)
    openmp.settle()
    spin = {"GOMP_SPINCOUNT": str(openmp.SPIN)} if spins else {}
    assert found() == {"OMP_WAIT_POLICY": "passive", **spin}


def test_what_ends_just_now_does_not_count(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    watched(monkeypatch, 2, 20, 20, 100, 100)
    openmp.settle()
    assert "GOMP_SPINCOUNT" in found()


def test_no_spin_where_nobody_tells(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
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
