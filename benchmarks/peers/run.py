"""sonde and its peers side by side: the same network, data and batch size, samples a second, in turns.

    make bench-peers                                            # sets the environments up, then everything
    python benchmarks/peers/run.py --only mlp --rounds 5        # some workloads
    python benchmarks/peers/run.py --peers Lightning skorch     # some peers

A round is four slices of training, sonde peer peer sonde (A B B A), each of about --seconds; its ratio is that of the
two sums, so a machine that slowly changes its speed changes neither side. The table gives the median ratio of the
rounds and its 95 % bootstrap interval: above 1, sonde is quicker. Two clocks run: the wall's, and processor time,
which other work on the machine disturbs less. Threads wait as each framework has them wait; there are --threads of
them. Results go to benchmarks/results/peers.json and peers.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from environments import HERE, PEERS, PLACE, ROOT, SONDE, Peer, python_of, set_up
from workloads import WORKLOADS, Workload

CLOCKS = ("wall", "processor")
RESAMPLES = 2000
Row = dict[str, Any]


class Worker:
    """A peer's process in its own environment; it keeps what it started, and idles between slices."""

    def __init__(self, peer: Peer, threads: int) -> None:
        self.peer = peer
        environment = {**os.environ, "KERAS_BACKEND": peer.backend or "torch"}
        environment["PYTHONPATH"] = str(ROOT / "src") if peer is SONDE else ""
        if threads:
            environment["OMP_NUM_THREADS"] = str(threads)
        if threads == 1:
            environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        PLACE.mkdir(exist_ok=True)
        with (PLACE / f"{peer.environment or 'sonde'}.log").open("w") as log:
            self.process = subprocess.Popen(
                [str(python_of(peer)), str(HERE / peer.script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )

    def ask(self, workload: Workload, setting: str, **more: Any) -> dict[str, Any]:
        """One line there, one line back.

        Raises:
            Failed: the peer cannot do it, with its reason.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"workload": workload.name, "setting": setting, **more}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
            # Frameworks print what they like; an answer is a line of JSON.
            while line and not line.startswith("{"):
                line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = json.loads(line) if line else {"error": f"the process ended with code {self.process.wait()}"}
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Failed(Exception):
    """A peer could not do a workload."""


def compare(sonde: Worker, other: Worker, workload: Workload, setting: str, rounds: int, seconds: float) -> Row:
    """The rounds of one peer at one setting on one workload."""
    folder = PLACE / "data" / workload.name
    workload.make(folder)
    contestants = ((sonde, SONDE.settings[0]), (other, setting))
    found = [one.ask(workload, name, folder=str(folder)) for one, name in contestants]
    steps = [max(4, round(seconds * each["rate"])) for each in found]
    rates: dict[str, list[list[float]]] = {clock: [[], []] for clock in CLOCKS}
    losses = [0.0, 0.0]
    for _ in range(rounds):
        spent = {clock: [0.0, 0.0] for clock in CLOCKS}
        for turn in (0, 1, 1, 0):
            worker, name = contestants[turn]
            slice_ = worker.ask(workload, name, steps=steps[turn])
            losses[turn] = slice_["loss"]
            for clock in CLOCKS:
                spent[clock][turn] += slice_[clock]
        for clock in CLOCKS:
            for turn in (0, 1):
                rates[clock][turn].append(2 * steps[turn] * workload.batch / spent[clock][turn])
    row: Row = {"losses": losses, "versions": found[1]["versions"], "rounds": rounds}
    for clock, (ours, theirs) in rates.items():
        row[clock] = {
            "sonde": float(np.median(ours)),
            "peer": float(np.median(theirs)),
            **interval(np.array(ours) / np.array(theirs)),
        }
    return row


def interval(ratios: np.ndarray) -> dict[str, float]:
    """The median, and the 95 % interval of the median by bootstrap over rounds."""
    rng = np.random.default_rng(0)
    medians = np.median(ratios[rng.integers(0, len(ratios), (RESAMPLES, len(ratios)))], axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return {"ratio": float(np.median(ratios)), "low": float(low), "high": float(high)}


def table(rows: Sequence[Row], names: Sequence[str], clock: str) -> str:
    """Markdown: a line for each peer and setting, a column for each workload; reasons of failures below."""
    notes: list[str] = []
    lines = [
        f"| sonde / peer ({clock} time) | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
    ]
    for peer, setting in dict.fromkeys((row["peer"], row["setting"]) for row in rows):
        cells = []
        for name in names:
            match = [row for row in rows if (row["peer"], row["setting"], row["workload"]) == (peer, setting, name)]
            if match and "error" in match[0]:
                if match[0]["error"] not in notes:
                    notes.append(match[0]["error"])
                cells.append(f"no [{notes.index(match[0]['error']) + 1}]")
            else:
                cells.append("{ratio:.2f} [{low:.2f}, {high:.2f}]".format(**match[0][clock]) if match else "-")
        lines.append(f"| {peer}, {setting} | " + " | ".join(cells) + " |")
    cells = []
    for name in names:
        rates = [row[clock]["sonde"] for row in rows if row["workload"] == name and clock in row]
        cells.append(f"{np.median(rates):,.0f}" if rates else "-")
    lines.append("| sonde, samples a second | " + " | ".join(cells) + " |")
    return "\n".join([*lines, *(f"\n[{number}] {note}" for number, note in enumerate(notes, 1))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS), metavar="WORKLOAD")
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS), metavar="PEER")
    parser.add_argument("--settings", nargs="+", metavar="SETTING", help="of the peers; all if left out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one slice")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as each framework takes")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    rows: list[Row] = []
    sonde = Worker(SONDE, arguments.threads)
    for name in arguments.peers:
        peer = PEERS[name]
        reason = set_up(peer)
        worker = None if reason else Worker(peer, arguments.threads)
        for workload in (WORKLOADS[each] for each in arguments.only):
            if peer.workloads is not None and workload.name not in peer.workloads:
                continue
            for setting in arguments.settings or peer.settings:
                row: Row = {"peer": name, "setting": setting, "workload": workload.name}
                try:
                    if worker is None:
                        raise Failed(reason)
                    row |= compare(sonde, worker, workload, setting, arguments.rounds, arguments.seconds)
                except Failed as error:
                    row["error"] = str(error)
                rows.append(row)
                shown = row.get("error") or "{ratio:.2f} [{low:.2f}, {high:.2f}]".format(**row["wall"])
                print(f"{name}, {setting}, {workload.name}: {shown}", file=sys.stderr, flush=True)
                _write(arguments, rows)
        if worker is not None:
            worker.close()
    sonde.close()
    print((arguments.out / "peers.md").read_text())


def _write(arguments: argparse.Namespace, rows: Sequence[Row]) -> None:
    """After every row, so that a run cut short leaves what it found."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    setting = {"rounds": arguments.rounds, "seconds": arguments.seconds, "threads": arguments.threads}
    result = {"machine": machine, "load": os.getloadavg(), **setting, "rows": rows}
    (arguments.out / "peers.json").write_text(json.dumps(result, indent=1))
    (arguments.out / "peers.md").write_text("\n\n".join(table(rows, arguments.only, clock) for clock in CLOCKS) + "\n")


if __name__ == "__main__":
    main()
