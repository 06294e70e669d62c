"""Artifacts that lie: ten thousand of them, their manifest rewritten so that every hash is right.

    python benchmarks/faults_artifact.py [--count 10000] [--seed 0] [--processes 2]

A tiny artifact is made of every input, target and network on disk that fit together. In each trial one of its files is
changed: bytes flipped, cut off, put in, taken out; JSON values of another type, huge, negative, left out, twice, under
another name; tensors renamed, of another shape or number format, elsewhere in the file, NaN; a file of another
artifact. Then `sonde.load` and one prediction, in a process that may take 2 GiB and a trial that may take a minute.

What may happen: a `UserError`, which the command line ends with exit code 2, or an answer (a changed weight is a weight
like any other). What may not: any other exception, a process that dies, more memory than `MOST_MEMORY` beyond what the
process has, a hang. Ends with 1 if any of that happened.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import multiprocessing.connection
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import sonde
from sonde import artifact, networks
from sonde.artifact.folder import FILES
from sonde.base import files, lookup
from sonde.base.errors import UserError
from sonde.contracts.backbone import Backbone
from sonde.contracts.input import Input
from sonde.contracts.target import Target
from sonde.data.sources.table import TableConfig
from sonde.data.sources.tagged_text import TaggedTextConfig
from sonde.testing import COUNT, belongs, sample_task, small_networks

# Beyond what the process has before a trial: torch's kernels and caches take some at their first use.
MOST_MEMORY = 256 * 2**20
LIMIT = 2 * 2**30
SECONDS = 60
CARD = {"sonde": sonde.__version__, "recipe": '[data]\nkind = "table"\nseparator = ","\ntexts = ["a"]\n'}
HUGE = (2**31, 2**40, 2**63, 10**30, 10**9, 10**6, 65_537, 1e300, -1, 0, 0.5)
OTHERS: tuple[Any, ...] = (None, True, False, "", "x", "\ud800", "1", [], {}, [1], [[]], {"kind": "mlp"}, "a" * 70_000)


class Sample(NamedTuple):
    """A whole artifact, and a record that it answers for."""

    name: str
    folder: Path
    record: dict[str, Any]
    answer: Any


def make(folder: Path, every: int = 1) -> list[Sample]:
    """An artifact of every input x target x network that fits, or of every second, third, ... input x target."""
    samples = []
    for given, target in list(product(lookup.kinds("inputs"), lookup.kinds("targets")))[::every]:
        kinds = lookup.find("inputs", given, Input), lookup.find("targets", target, Target)
        if not belongs(kinds[1], kinds[0]):
            continue
        task, _ = sample_task(*kinds)
        name, spec = next(iter(task.specs.items()))
        _, records = kinds[0].sample(COUNT, np.random.default_rng(0))
        if len(task.specs) > 1:
            records = records.with_fields(
                **lookup.find("inputs", "table", Input).sample(COUNT, np.random.default_rng(1))[1].fields
            )
        for network in lookup.kinds("networks"):
            backbone = lookup.find("networks", network, Backbone)
            if not networks.fits(spec, task.outputs[name], backbone):
                continue
            config = backbone.Config.model_validate(dict(backbone.tiny_for(spec)))
            path = folder / f"{given}-{target}-{network}"
            configs = {**small_networks(task), name: config}
            weights = networks.build(configs, task).state_dict()
            artifact.write(path, task, configs, weights, CARD)
            answer = sonde.load(path).predict([records[0]])
            samples.append(Sample(path.name, path, records[0], answer))
    return samples


def bytes_changed(content: bytes, rng: random.Random) -> bytes:
    how = rng.randrange(6)
    if how == 0 and content:
        changed = bytearray(content)
        for _ in range(rng.choice((1, 1, 2, 8, 64))):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return bytes(changed)
    place = rng.randrange(len(content) + 1)
    if how == 1:
        return content[:place]
    if how == 2:
        return content + rng.randbytes(rng.randrange(1, 64))
    if how == 3:
        return content[:place] + content[place + rng.randrange(1, 32) :]
    if how == 4:
        return content[:place] + rng.randbytes(rng.randrange(1, 16)) + content[place:]
    return rng.choice((b"", b"\x00", b"null", b"[]", b"{}", b"{" * 100_000, b"[" * 100_000, b"\xff\xfe" + content))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON value with every key in it."""
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def json_changed(content: bytes, rng: random.Random) -> bytes:
    value = json.loads(content)
    places = list(_places(value))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        held, key = rng.choice(places)
        if key not in held if isinstance(held, dict) else key >= len(held):
            continue
        how = rng.randrange(8)
        if how == 0:
            del held[key]
        elif how == 1 and isinstance(held, dict):
            held[rng.choice(("x", key + "x", "kind", "inputs.x", "target", ""))] = held.pop(key)
        elif how == 2 and isinstance(held, list):
            held.extend(held * rng.randrange(1, 4))
        elif how == 3:
            other, from_there = rng.choice(places)
            held[key] = other[from_there] if _there(other, from_there) else None
            # A value inside of itself is no JSON.
            held[key] = json.loads(_text(held[key])) if not _inside(held, held[key]) else None
        elif how == 4 and isinstance(held[key], (int, float)):
            held[key] = held[key] * rng.choice((-1, 2, 3, 10, 1000, 10**6, 0.5)) + rng.choice((0, 1, -1))
        elif how == 5 and isinstance(held[key], str):
            held[key] = bytes_changed(held[key].encode(errors="surrogatepass"), rng).decode(errors="surrogateescape")
        elif how == 6:
            held[key] = rng.choice(OTHERS)
        else:
            held[key] = rng.choice(HUGE)
    return _text(value).encode()


def _there(held: Any, key: Any) -> bool:
    return key in held if isinstance(held, dict) else key < len(held)


def _inside(wanted: Any, value: Any) -> bool:
    if wanted is value:
        return True
    return isinstance(value, (dict, list)) and any(
        _inside(wanted, each) for each in (value.values() if isinstance(value, dict) else value)
    )


def _text(value: Any) -> str:
    return json.dumps(value)


def header_changed(content: bytes, rng: random.Random) -> bytes:
    """A safetensors file with another header, its length as the header says or not."""
    length = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    names = [name for name in header if name != "__metadata__"]
    how = rng.randrange(9)
    if not names or how == 0:
        header[rng.choice(("x", "target.x", "inputs.given.x"))] = {
            "dtype": "F32",
            "shape": [rng.choice((0, 2**40, 1))],
            "data_offsets": [len(data), len(data)],
        }
    else:
        name = rng.choice(names)
        one = header[name]
        if how == 1:
            header[rng.choice((name + "x", name.upper(), name.split(".")[0], rng.choice(names)))] = header.pop(name)
        elif how == 2:
            one["shape"] = rng.choice(
                ([], [0], [2**62, 0], [1, *one["shape"]], one["shape"][::-1], [2**40], [-1], [10**9, 10**9])
            )
        elif how == 3:
            one["dtype"] = rng.choice(("F16", "BF16", "I32", "U32", "F64", "I64", "I8", "BOOL", "F8_E4M3", "C64", "X"))
        elif how == 4:
            one["data_offsets"] = [rng.choice((0, 4, 2**40, -1)), rng.choice((0, len(data), 2**50))]
        elif how == 5:
            del header[name]
        elif how == 6:
            # As many bytes, read as other numbers: a valid file.
            one["dtype"] = {"F32": rng.choice(("I32", "U32")), "I64": "F64"}.get(one["dtype"], "F32")
        elif how == 7:
            return json_in(header, data, rng)
        else:
            value = rng.choice((float("nan"), float("inf"), 1e38, -1e38, 0.0))
            start, stop = one["data_offsets"]
            if one["dtype"] == "F32":
                data = data[:start] + np.full((stop - start) // 4, value, np.float32).tobytes() + data[stop:]
            else:
                data = data[:start] + rng.randbytes(stop - start) + data[stop:]
    written = json.dumps(header).encode()
    return struct.pack("<Q", len(written)) + written + data


def json_in(header: dict[str, Any], data: bytes, rng: random.Random) -> bytes:
    written = json_changed(json.dumps(header).encode(), rng)
    length = rng.choice((len(written), len(written), 2**62, len(written) + len(data) + 1, 0))
    return struct.pack("<Q", length) + written + data


def change(folder: Path, samples: list[Sample], rng: random.Random) -> str:
    """Change one file of the artifact; says how. The manifest is rewritten but where it is what was changed."""
    name = rng.choice(("task.json",) * 5 + ("task.safetensors",) * 2 + ("weights.safetensors",) * 3 + ("card.json",))
    path = folder / name
    content, how = path.read_bytes(), rng.random()
    if how < 0.04:
        manifest = folder / "MANIFEST.json"
        manifest.write_bytes(rng.choice((bytes_changed, json_changed))(manifest.read_bytes(), rng))
        return "manifest"
    if how < 0.08:
        kind, changed = "file of another artifact", (rng.choice(samples).folder / name).read_bytes()
    elif how < 0.30:
        kind, changed = "bytes", bytes_changed(content, rng)
    elif name.endswith(".json"):
        kind, changed = "JSON", json_changed(content, rng)
    else:
        kind, changed = "tensors", header_changed(content, rng)
    path.write_bytes(changed)
    files.write_json(folder / "MANIFEST.json", {each: files.sha256(folder / each) for each in FILES})
    return f"{kind} of {name}" if kind != "file of another artifact" else kind


def outcome(folder: Path, sample: Sample) -> tuple[str, str]:
    """What loading and answering come to, and what was told."""
    step = "load"
    try:
        model = sonde.load(folder)
        step = "answer"
        model.data_settings("table", TableConfig)
        model.data_settings("tagged-text", TaggedTextConfig)
        answer = model.predict([sample.record])
        json.dumps(answer, allow_nan=False)
    except UserError as error:
        return f"clear error, {step}", str(error)
    except TimeoutError:
        return "HANGS", step
    except BaseException as error:
        return f"RAW {type(error).__name__}", "".join(traceback.format_exception(error)[-3:])
    return "loads, the same answer" if answer == sample.answer else "loads, another answer", ""


def peak() -> int:
    """The most memory that this process has had since `reset_peak`, in bytes."""
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _time_over(number: int, frame: object) -> None:
    raise TimeoutError


@dataclass(frozen=True, kw_only=True)
class Chunk:
    seed: int
    start: int
    stop: int
    samples: list[Sample]
    folder: Path


def trial(number: int, chunk: Chunk) -> dict[str, Any]:
    rng = random.Random(f"{chunk.seed} {number}")
    sample = rng.choice(chunk.samples)
    folder = chunk.folder / f"trial-{chunk.start}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sample.folder, folder)
    how = change(folder, chunk.samples, rng)
    reset_peak()
    before = peak()
    signal.alarm(SECONDS)
    started = time.perf_counter()
    try:
        found, told = outcome(folder, sample)
    except TimeoutError:
        found, told = "HANGS", ""
    finally:
        signal.alarm(0)
    return {
        "number": number,
        "sample": sample.name,
        "how": how,
        "found": found,
        "told": told,
        "memory": peak() - before,
        "seconds": time.perf_counter() - started,
    }


def work(chunk: Chunk, send: Callable[[dict[str, Any]], None]) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _time_over)
    # What libraries report on standard error by themselves would drown the figures.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    # What a sound of another rate is resampled with takes a second and 80 MiB at its first use.
    importlib.import_module("scipy.signal")
    for sample in chunk.samples[:: max(1, len(chunk.samples) // 12)]:
        outcome(sample.folder, sample)
    held = peak()
    resource.setrlimit(resource.RLIMIT_DATA, (held + LIMIT, held + LIMIT))
    for number in range(chunk.start, chunk.stop):
        send({"begun": number})
        send(trial(number, chunk))


def run(samples: list[Sample], count: int, seed: int, folder: Path, processes: int) -> list[dict[str, Any]]:
    """All trials, in processes that are replaced when they die."""
    context = multiprocessing.get_context("spawn")
    chunks = [
        Chunk(seed=seed, start=start, stop=min(count, start + 500), samples=samples, folder=folder)
        for start in range(0, count, 500)
    ]
    found: list[dict[str, Any]] = []
    running: dict[Any, tuple[Any, Chunk, int]] = {}
    while chunks or running:
        while chunks and len(running) < processes:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=work, args=(chunks[0], theirs.send))
            process.start()
            theirs.close()
            running[ours] = (process, chunks.pop(0), -1)
        for ours in multiprocessing.connection.wait(list(running)):
            process, chunk, begun = running[ours]
            try:
                line = ours.recv()
            except EOFError:
                del running[ours]
                process.join()
                if process.exitcode and begun >= 0:
                    told = {"how": "?", "told": f"exit code {process.exitcode}", "sample": "?"}
                    found.append({"number": begun, "found": "DIES", "memory": 0, "seconds": 0.0, **told})
                    rest = {"start": begun + 1, "stop": chunk.stop}
                    if begun + 1 < chunk.stop:
                        chunks.append(Chunk(seed=seed, samples=samples, folder=folder, **rest))
                elif process.exitcode:
                    raise RuntimeError(f"a process ended with {process.exitcode} before its first trial") from None
                continue
            if "begun" in line:
                running[ours] = (process, chunk, line["begun"])
            else:
                found.append(line)
    return found


def report(found: list[dict[str, Any]], seconds: float, samples: int) -> bool:
    """Print the figures; whether all went as it should."""
    outcomes = Counter((each["how"], each["found"]) for each in found)
    names = sorted({name for _, name in outcomes})
    print(f"{len(found)} changed artifacts of {samples} kinds of task in {seconds:.0f} s")
    print("| what was changed | " + " | ".join(names) + " |")
    print("|---|" + "---|" * len(names))
    for how in sorted({each for each, _ in outcomes}):
        print(f"| {how} | " + " | ".join(str(outcomes[how, name]) for name in names) + " |")
    print("| all | " + " | ".join(str(sum(each["found"] == name for each in found)) for name in names) + " |")
    most, longest = max(found, key=lambda each: each["memory"]), max(found, key=lambda each: each["seconds"])
    print(f"most memory beyond what there was: {most['memory'] / 2**20:.0f} MiB (trial {most['number']})")
    print(f"longest trial: {longest['seconds']:.1f} s (trial {longest['number']})")
    large = [{**each, "found": "LARGE"} for each in found if each["memory"] > MOST_MEMORY]
    wrong = [each for each in found if each["found"].isupper() or each["found"].startswith("RAW")] + large
    for each in wrong[:200]:
        print(f"\ntrial {each['number']}, {each['sample']}, {each['how']}: {each['found']} {each['memory'] >> 20} MiB")
        print(each["told"])
    print(f"{len(wrong)} went wrong")
    return not wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--trial", type=int, help="one trial alone, and all that it tells")
    arguments = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = make(folder)
        if arguments.trial is not None:
            signal.signal(signal.SIGALRM, _time_over)
            start = arguments.trial
            chunk = Chunk(seed=arguments.seed, start=start, stop=start + 1, samples=samples, folder=folder)
            print(json.dumps(trial(start, chunk), indent=1).replace("\\n", "\n"))
            return
        found = run(samples, arguments.count, arguments.seed, folder, arguments.processes)
    sys.exit(not report(found, time.perf_counter() - started, len(samples)))


if __name__ == "__main__":
    main()
