"""What every test shares: the folder of real data, and quiet, small, repeatable torch."""

from __future__ import annotations

import os
from pathlib import Path

# As the command line does; it has to be set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch

# Real data lies beside the checkout; a machine without it skips what needs it.
SHARED = Path(os.environ.get("SONDE_SHARED", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"the real data sets are not at {SHARED}; SONDE_SHARED says where they are")
    return SHARED


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is remembered about this machine stays with the tests."""
    os.environ["SONDE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    # What `sonde new` writes does not hang on the weights that a machine has; tests of that say otherwise.
    os.environ["SONDE_WEIGHTS"] = "off"


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    """Two threads at most; one where tests run beside each other."""
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, os.cpu_count() or 1))
