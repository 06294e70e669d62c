"""An environment for each peer: a venv under .bench/NAME, made by uv from requirements/NAME.txt (names and versions).

    python benchmarks/peers/environments.py [NAME ...]

A second run finds them ready. An environment that cannot be made gives the reason, and the tables carry it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PLACE = ROOT / ".bench"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A framework: its script, its environment ("" is sonde's own), its settings and the workloads that it can do.

    "fast-fp32" is "fast" without bf16, which some processors are slow at.
    """

    name: str
    script: str
    environment: str
    settings: tuple[str, ...] = ("default", "fast")
    backend: str = ""
    python: str = "3.11"
    workloads: tuple[str, ...] | None = None


WITH_FP32 = ("default", "fast", "fast-fp32")
SONDE = Peer(name="sonde", script="with_sonde.py", environment="", settings=("auto",))
PEERS = {
    one.name: one
    for one in (
        Peer(
            name="PyTorch loop",
            script="with_torch.py",
            environment="torch",
            settings=("default", "fast", "fast-fp32", "clipped"),
        ),
        Peer(name="Lightning", script="with_lightning.py", environment="lightning", settings=WITH_FP32),
        Peer(name="fastai", script="with_fastai.py", environment="fastai", settings=WITH_FP32),
        Peer(name="HF Trainer", script="with_transformers.py", environment="transformers", settings=WITH_FP32),
        Peer(name="skorch", script="with_skorch.py", environment="skorch", settings=WITH_FP32),
        Peer(name="Keras torch", script="with_keras.py", environment="keras-torch", backend="torch"),
        Peer(name="Keras jax", script="with_keras.py", environment="keras-jax", backend="jax"),
        # Ludwig builds its networks itself; these are the two that it can build alike.
        Peer(
            name="Ludwig",
            script="with_ludwig.py",
            environment="ludwig",
            python="3.12",
            workloads=("mlp", "tabular"),
        ),
        # Last, because compiling takes long on a busy machine.
        Peer(name="PyTorch compiled", script="with_torch.py", environment="torch", settings=("compiled",)),
    )
}


def python_of(peer: Peer) -> Path:
    return PLACE / peer.environment / "bin" / "python" if peer.environment else Path(sys.executable)


def set_up(peer: Peer) -> str:
    """Make the peer's environment unless it is there; give "" or the reason why it cannot be made."""
    if not peer.environment:
        return ""
    wanted = HERE / "requirements" / f"{peer.environment}.txt"
    stamp = PLACE / peer.environment / ".ready"
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return ""
    uv = os.environ.get("UV") or shutil.which("uv") or str(ROOT / ".uv/bin/uv")
    place = str(PLACE / peer.environment)
    made = _run(uv, "venv", "--clear", "--python", _interpreter(peer.python), place)
    # gpustat, which Ludwig needs, comes as source only; nothing else is built here.
    wheels = ("--only-binary", ":all:", "--no-binary", "gpustat")
    reason = made or _run(uv, "pip", "install", "--python", str(python_of(peer)), *wheels, "--requirement", str(wanted))
    if not reason:
        stamp.write_text(digest)
    return reason


def _interpreter(version: str) -> str:
    """An interpreter that pyenv keeps, if there is one; else uv looks for itself."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = sorted(pyenv.glob(f"{version}.*/bin/python"))
    return str(found[-1]) if found else version


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return " ".join(lines[:3])[:300] or f"exit code {done.returncode}"


def main() -> None:
    for name in sys.argv[1:] or PEERS:
        print(f"{name}: {set_up(PEERS[name]) or 'ready'}", flush=True)


if __name__ == "__main__":
    main()
