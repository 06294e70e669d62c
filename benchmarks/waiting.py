"""How OpenMP's threads should wait for each other: steps of a small CNN and of an MLP under each setting, in turns.

    python benchmarks/waiting.py [SETTING ...] [--busy 0] [--rounds 10]

Every setting is a process of its own, because libgomp reads it only once, when torch is loaded; a round is one process
of each. `--busy N` starts N processes that each want a core for as long as it takes. Prints milliseconds a step (median
of the rounds, with the smallest and the largest), and the ratio to the first setting of the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

# What is set before torch is loaded; the command line sets "passive" where others compute.
SETTINGS: dict[str, dict[str, str]] = {
    "unset": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "active": {"OMP_WAIT_POLICY": "active"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
NETWORKS: dict[str, dict[str, Any]] = {
    "cnn": {"kind": "cnn", "widths": [16, 32]},
    "mlp": {"kind": "mlp", "hidden": [256, 128]},
}
# Seconds of steps that do not count, and that do.
SETTLE, COUNT = 1.0, 1.5


def child() -> None:
    """Print the median step of each network, in seconds, as one line of JSON."""
    import numpy as np

    from sonde import loop, stages
    from sonde.base.progress import NoProgress
    from sonde.contracts.records import Records
    from sonde.data.store import encode
    from sonde.recipe import Recipe

    rng = np.random.default_rng(0)
    pictures = {"image": rng.integers(0, 256, (2048, 28, 28), dtype=np.uint8), "label": np.arange(2048) % 10}
    records = Records(fields=pictures, ids=[str(number) for number in range(2048)])
    found = {}
    for name, network in NETWORKS.items():
        recipe = Recipe.of(
            {
                "data": {"source": "sklearn:digits"},  # not read
                "inputs": {"image": {"kind": "image", "field": "image"}},
                "target": {"kind": "category", "field": "label"},
                "network": network,
                "training": {"steps": 10**9, "compile": False, "precision": "fp32", "batch_size": 128},
            }
        )
        task = stages.fit_task(recipe, records)
        built = stages.build_network(recipe, task)
        state, plan, batches = stages.prepare(recipe, task, built, encode(task, records), None, NoProgress())
        found[name] = _median_step(loop.train(task, batches, state, plan))
    print(json.dumps(found))


def _median_step(steps: Any) -> float:
    until = time.perf_counter() + SETTLE
    while time.perf_counter() < until:
        next(steps)
    times = []
    while sum(times) < COUNT:
        started = time.perf_counter()
        next(steps)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def measured(setting: str) -> dict[str, float]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    words = [sys.executable, __file__, "--child", setting]
    done = subprocess.run(words, check=True, capture_output=True, text=True, env=clean | SETTINGS[setting])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "settings", nargs="*", default=list(SETTINGS), help=f"of {', '.join(SETTINGS)}; all if left out"
    )
    parser.add_argument("--busy", type=int, default=0, help="how many processes keep a core busy meanwhile")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--child", choices=SETTINGS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child()
        return
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(arguments.busy)]
    rounds: list[dict[str, dict[str, float]]] = []
    loads = []
    try:
        for number in range(arguments.rounds):
            order = arguments.settings if number % 2 == 0 else arguments.settings[::-1]
            rounds.append({setting: measured(setting) for setting in order})
            loads.append(os.getloadavg()[0])
    finally:
        for other in others:
            other.kill()
            other.wait()
    print(f"{arguments.rounds} rounds, {arguments.busy} busy processes, load {min(loads):.1f} to {max(loads):.1f}\n")
    print(f"| setting | {' | '.join(f'{name}, ms | {name}, ratio' for name in NETWORKS)} |")
    print(f"|---|{'---|---|' * len(NETWORKS)}")
    first = arguments.settings[0]
    for setting in arguments.settings:
        cells = [setting]
        for name in NETWORKS:
            values = [1000 * one[setting][name] for one in rounds]
            ratios = [one[setting][name] / one[first][name] for one in rounds]
            cells += [_shown(values, 1), _shown(ratios, 2)]
        print(f"| {' | '.join(cells)} |")


def _shown(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
