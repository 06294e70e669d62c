"""Faults while saving: a thousand of them, and after each the last good state has to be there, bit for bit.

    python benchmarks/faults_save.py [--count 1000] [--seed 0] [--folder FOLDER]

A process saves as a run does: log lines, best weights, checkpoints, now and then an artifact. It is killed by SIGKILL
at any line of that code or at any time, killed by the kernel in the middle of a write, told that the disk is full in
the middle of a write or by fsync, rename and the like; or the newest file is cut short, or one bit of it is flipped.

After each fault: `checkpoint.restore` gives a state that was saved, with every tensor equal bit for bit, at most the
save that was under way is lost, the log up to it is whole, the best weights are there; the artifact is one that was
written, whole; a damaged file is told. Then saving goes on in the same folder. Ends with 1 if anything of that failed.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import errno
import functools
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from sonde import artifact, stages
from sonde.artifact import folder
from sonde.base import files, tensors
from sonde.base.errors import UserError
from sonde.contracts.task import Task
from sonde.loop import State
from sonde.recipe import Recipe
from sonde.training import checkpoint, optimizers, run_folder
from sonde.training.ema import EMA
from sonde.training.run_folder import Log
from sonde.training.schedules import Schedule

# An artifact is written at every so many steps.
ARTIFACT_EVERY = 3
# A child is killed at the latest after so many steps.
AHEAD = 4
# The code whose lines are places to be killed at.
TRACED = tuple(str(module.__file__) for module in (files, tensors, checkpoint, folder, run_folder, shutil))


class Run:
    """A run folder whose state at every step is known beforehand: a function of the step alone."""

    def __init__(self, path: Path, recipe: Recipe, task: Task) -> None:
        self.path, self.recipe, self.task = path, recipe, task
        self.network = stages.build_network(recipe, task)
        self.checkpoints, self.log, self.model = path / "checkpoints", path / "log.jsonl", path / "model"
        path.mkdir()

    def empty(self) -> State:
        """A state of this run with nothing in it yet."""
        network = copy.deepcopy(self.network)
        return State(
            network=network,
            optimizers=optimizers.build(self.recipe.training.optimizer, network),
            schedule=Schedule(self.recipe.training.schedule, 1),
            ema=EMA(network, 0.9),
        )

    def at(self, step: int) -> State:
        """The state after `step` steps."""
        state = self.empty()
        for optimizer in state.optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = torch.zeros_like(parameter)
            # One step makes the slots; what is in them is replaced below.
            optimizer.step()
        generator = torch.Generator().manual_seed(step)
        with torch.no_grad():
            for tensor in content(state).values():
                if tensor.is_floating_point():
                    tensor.copy_(torch.randn(tensor.shape, generator=generator))
        state.step, state.best_step, state.best = step, best_of(step), best_of(step) / 7
        state.evals_since_best = step - state.best_step
        assert isinstance(state.schedule, Schedule)
        state.schedule.factor = 0.5**step
        return state

    def lines(self, step: int) -> bytes:
        return b"".join(b'{"step": %d}\n' % one for one in range(1, step + 1))

    def save(self, step: int, log: Log) -> None:
        """What `run.py` does at a validation."""
        state = self.at(step)
        log.write({"step": step})
        if state.best_step == step:
            checkpoint.save_best(self.checkpoints, state)
        checkpoint.save(self.checkpoints, state, log.sync())
        if step % ARTIFACT_EVERY == 0:
            self.write_artifact(step)

    def write_artifact(self, step: int) -> None:
        weights = checkpoint.weights(self.at(step))
        artifact.write(self.model, self.task, self.recipe.network, weights, {"step": step})

    def check(self, oldest: int, newest: int) -> int:
        """The step that a resume would go on from, after looking at everything that lies in the folder.

        Raises:
            Wrong: it is not between `oldest` and `newest`, or something is not as it was saved.
        """
        state = self.empty()
        position = checkpoint.restore(self.checkpoints, state)
        require(position is not None, "no checkpoint was found")
        require(oldest <= state.step <= newest, f"step {state.step} came back, not one of {oldest} to {newest}")
        expected = self.at(state.step)
        require(same(content(state), content(expected)), f"the tensors of step {state.step} are not those saved")
        require(checkpoint._values(state) == checkpoint._values(expected), "the values are not those saved")
        require(self.log.read_bytes()[:position] == self.lines(state.step), "the log is not whole")
        best = checkpoint.read_best(self.checkpoints, state)
        require(same(best, checkpoint.weights(self.at(best_of(state.step)))), "the best weights are not those saved")
        return state.step

    def check_artifact(self, oldest: int, newest: int) -> int:
        """The step of the artifact, which loads and is one written between `oldest` and `newest`; 0: none yet."""
        try:
            model = artifact.load(self.model)
        except UserError as error:
            require(oldest == 0, f"the artifact does not load any more: {error}")
            return 0
        step = model.card["step"]
        require(oldest <= step <= newest, f"the artifact of step {step} came back, not {oldest} to {newest}")
        weights = dict(model.network.state_dict())
        require(same(weights, checkpoint.weights(self.at(step))), "the artifact's weights are not those of its card")
        return step


class Wrong(Exception):
    """What must not happen after a fault."""


def require(holds: bool, what: str) -> None:
    if not holds:
        raise Wrong(what)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def content(state: State) -> dict[str, Tensor]:
    """Every tensor of a state, by name."""
    held = {f"network.{name}": value for name, value in state.network.state_dict().items()}
    for number, optimizer in enumerate(state.optimizers):
        for index, parameter in enumerate(one for group in optimizer.param_groups for one in group["params"]):
            held |= {f"{number}.{index}.{slot}": value for slot, value in optimizer.state[parameter].items()}
    assert state.ema is not None
    return held | {f"ema.{name}": value for name, value in state.ema.weights.items()}


@functools.cache
def best_of(step: int) -> int:
    """The best step so far: the first, and then about every third."""
    return max(one for one in range(1, step + 1) if one == 1 or random.Random(one).random() < 0.35)


# Killing: a child of this process saves step after step until it dies.


def killed(run: Run, step: int, arm: Callable[[], None], after: float | None = None) -> int:
    """Let a child save steps from `step` on, killed as `arm` sets it up or after a time; the last step it finished."""
    inner, outer = os.pipe()
    ready_in, ready_out = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.close(inner)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            with Log(run.log, len(run.lines(step - 1))) as log:
                os.write(ready_out, b".")
                arm()
                for number in range(step, step + 1000):
                    run.save(number, log)
                    os.write(outer, b".")
        os._exit(3)
    os.close(outer)
    os.close(ready_out)
    os.read(ready_in, 1)
    os.close(ready_in)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    done = 0
    while found := os.read(inner, 1000):
        done += len(found)
    os.close(inner)
    status = os.waitpid(child, 0)[1]
    require(os.WIFSIGNALED(status), f"the child was not killed: status {status}")
    return step - 1 + done


def kill_at_line(count: int) -> None:
    """From now on this process lives for `count` more lines of the code that saves."""
    left = count

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(TRACED):
            return None
        nonlocal left
        left -= event == "line"
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def kill_in_write(size: int) -> None:
    """From now on the kernel kills this process when it writes past byte `size` of any file."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def lines_per_step(run: Run) -> int:
    """How many lines of the code that saves one step goes through, on average."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        if frame.f_code.co_filename.startswith(TRACED):
            count += event == "line"
            return trace
        return None

    with Log(run.log, 0) as log:
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            for step in range(1, ARTIFACT_EVERY * 2 + 1):
                run.save(step, log)
        finally:
            sys.settrace(before)
    return count // (ARTIFACT_EVERY * 2)


# A full disk: told in this process, as an error of the system.


@contextlib.contextmanager
def full_in_write(size: int) -> Iterator[None]:
    """The kernel refuses to write past byte `size` of any file: what is before it has been written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def full_at_call(count: int) -> Iterator[None]:
    """The `count`-th call that changes the disk fails, and all after it."""
    names = ("fsync", "rename", "replace", "mkdir", "open")
    before = {name: getattr(os, name) for name in names}
    left = count

    def failing(name: str) -> Callable[..., Any]:
        @functools.wraps(before[name])
        def call(*arguments: Any, **settings: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return before[name](*arguments, **settings)

        return call

    for name in names:
        setattr(os, name, failing(name))
    try:
        yield
    finally:
        for name in names:
            setattr(os, name, before[name])


def full(run: Run, step: int, disk: contextlib.AbstractContextManager[None]) -> tuple[int, bool]:
    """Save from `step` on until the disk is full: the last step that was finished, and whether the fault was told."""
    finished, told = step - 1, False
    try:
        with Log(run.log, len(run.lines(step - 1))) as log, disk:
            for number in range(step, step + AHEAD):
                run.save(number, log)
                finished = number
    except UserError as error:
        told = "cannot be written" in str(error)
        require(told, f"the error does not say what happened: {error}")
    return finished, told


# Damage: the newest file of a sort is changed after it was saved.


def damage(run: Run, rng: random.Random, change: Callable[[bytes], bytes]) -> Path:
    """Damage the newest checkpoint, the newest best weights or a file of the artifact; which one it was."""
    sorts = ["checkpoints/step-*", "checkpoints/best-*", *(["model/*"] if run.model.exists() else [])]
    found = sorted(run.path.glob(rng.choice(sorts)))
    path = rng.choice(found) if found[0].parent == run.model else found[-1]
    path.write_bytes(change(path.read_bytes()))
    return path


def flip(content: bytes, rng: random.Random) -> bytes:
    """One bit changed."""
    changed = bytearray(content)
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def is_noticed(run: Run, path: Path) -> bool:
    """Whether reading the damaged file raises an error that says so."""
    try:
        if path.parent == run.model:
            artifact.load(run.model)
        else:
            tensors.read(path)
    except UserError as error:
        return "damaged" in str(error) or "is not a sonde artifact" in str(error)
    return False


# One fault of each sort: gives what came of it.

FAULTS = (
    "killed at a line",
    "killed at a time",
    "killed in a write",
    "disk full in a write",
    "disk full at a call",
    "file cut short",
    "bit flipped",
)


class Case:
    """A run folder that takes one fault after another."""

    def __init__(self, run: Run, rng: random.Random, lines: int, seconds: float) -> None:
        self.run, self.rng, self.lines, self.seconds = run, rng, lines, seconds
        self.step = 0
        self.artifact = 0
        self.advance()

    def advance(self) -> None:
        """Save two more steps without a fault: what is there afterwards does not depend on what was damaged before."""
        with Log(self.run.log, len(self.run.lines(self.step))) as log:
            for number in (self.step + 1, self.step + 2):
                self.run.save(number, log)
                if number % ARTIFACT_EVERY == 0:
                    self.artifact = number
        self.step += 2
        require(self.run.check(self.step, self.step) == self.step, "saving does not go on")
        self.run.check_artifact(self.artifact, self.artifact)
        left = {each.name for each in self.run.checkpoints.iterdir() if not each.name.startswith("damaged-")}
        require(len(left) <= 6, f"files are left over: {sorted(left)}")

    def fault(self, name: str) -> str:
        run, rng, step = self.run, self.rng, self.step
        if name.startswith("killed"):
            if name == "killed at a line":
                finished = killed(run, step + 1, lambda: kill_at_line(rng.randrange(self.lines * AHEAD)))
            elif name == "killed at a time":
                finished = killed(run, step + 1, lambda: None, after=rng.random() * self.seconds * AHEAD)
            else:
                # No file may grow longer: the first that is larger is cut in the middle.
                finished = killed(run, step + 1, lambda: kill_in_write(self._size()))
            return self._came_back(finished, "killed")
        if name.startswith("disk full"):
            at_call = name == "disk full at a call"
            disk = full_at_call(rng.randrange(30)) if at_call else full_in_write(self._size())
            finished, told = full(run, step + 1, disk)
            require(told, "the full disk was not told")
            return self._came_back(finished, "told")
        change = (lambda one: flip(one, rng)) if name == "bit flipped" else lambda one: one[: rng.randrange(len(one))]
        path = damage(run, rng, change)
        noticed = is_noticed(run, path)
        # A flip in bytes that mean nothing (padding) changes nothing: then everything has to be as it was saved.
        lost = noticed and path.name.startswith(("step-", "best-"))
        back = run.check(step - 1 if lost else step, step)
        if path.parent == run.model and noticed:
            run.write_artifact(self.artifact)
        run.check_artifact(self.artifact, self.artifact)
        if not noticed:
            return "no content was touched"
        return "noticed, " + ("the newest came back" if back == step else "the one before came back")

    def _size(self) -> int:
        """A size within one of the files that a save writes."""
        sizes = [each.stat().st_size for each in self.run.path.rglob("*") if each.is_file() and each != self.run.log]
        # The log has grown past the smallest of them: the limit cuts what is written from now on.
        return self.rng.randrange(self.rng.choice(sizes))

    def _came_back(self, finished: int, how: str) -> str:
        back = self.run.check(finished, finished + 1)
        # The artifact of a step is written after its checkpoint: a kill between them leaves it a save behind.
        oldest = max(self.artifact, finished // ARTIFACT_EVERY * ARTIFACT_EVERY if finished > self.step else 0)
        newest = (finished + 1) // ARTIFACT_EVERY * ARTIFACT_EVERY
        self.artifact = self.run.check_artifact(oldest, max(oldest, newest))
        self.step = back
        under_way = "the save under way was lost" if back == finished else "the save under way was whole"
        return f"{how}, {under_way}"


RECIPE: dict[str, Any] = {
    "data": {"source": "sklearn:digits"},
    "inputs": {"image": {"kind": "image"}},
    "target": {"kind": "category"},
    "network": {"kind": "cnn", "widths": [4, 8]},
    "training": {"steps": 1, "optimizer": {"kind": "muon"}, "schedule": {"kind": "plateau"}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="how many faults")
    parser.add_argument("--seed", type=int, default=0, help="which faults, in which order")
    parser.add_argument("--folder", type=Path, default=None, help="where to save (a new folder in it)")
    arguments = parser.parse_args()
    # A child of a process with waiting threads could wait for them for ever.
    torch.set_num_threads(1)
    recipe = Recipe.of(RECIPE)
    task = stages.fit_task(recipe, stages.load_data(recipe).splits["train"])
    rng = random.Random(arguments.seed)
    names = [FAULTS[number % len(FAULTS)] for number in range(arguments.count)]
    rng.shuffle(names)
    started = time.perf_counter()
    outcomes: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as place:
        lines = lines_per_step(Run(Path(place) / "lines", recipe, task))
        begun = time.perf_counter()
        case = Case(Run(Path(place) / "run-0", recipe, task), rng, lines, 0.0)
        case.seconds = (time.perf_counter() - begun) / 3
        for number, name in enumerate(names):
            try:
                outcome = case.fault(name)
                case.advance()
            except Exception as error:
                wrong.append(f"fault {number} ({name}): {type(error).__name__}: {error}")
                outcome = "FAILED"
                case = Case(Run(Path(place) / f"run-{number + 1}", recipe, task), rng, lines, case.seconds)
            outcomes[name, outcome] += 1
            if (number + 1) % 100 == 0:
                seconds = time.perf_counter() - started
                print(f"{number + 1} of {arguments.count} in {seconds:.0f} s", file=sys.stderr, flush=True)
    print("| fault | count | outcome |")
    print("|---|---|---|")
    for (name, outcome), count in sorted(outcomes.items()):
        print(f"| {name} | {count} | {outcome} |")
    print(f"{arguments.count} faults in {time.perf_counter() - started:.0f} s, {len(wrong)} failed")
    for line in wrong[:20]:
        print(line)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
