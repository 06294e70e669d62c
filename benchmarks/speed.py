"""What sonde itself costs, beside a hand-written PyTorch loop on the same machine in the same minutes.

    python benchmarks/speed.py [step] [loading] [augment] [waiting] [machine] [start] [busy] [--rounds 15]

Every comparison is made in turns, A B B A, and told as the median over the rounds with a 95 % bootstrap interval: on a
shared machine only ratios and differences from one run mean much. Steps, loading and augmentation are timed on one
thread and by its processor time, which other work disturbs least. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from sonde import loop
from sonde.base.device import Precision
from sonde.base.progress import Progress
from sonde.base.rng import BatchRng
from sonde.cli.progress import Lines
from sonde.contracts.batch import Examples
from sonde.contracts.columns import Columns, Tensors
from sonde.contracts.input import Input
from sonde.contracts.records import Record, Records
from sonde.contracts.specs import Advice, InputSpec, OutputSpec
from sonde.contracts.task import Task
from sonde.data.batches import Batches
from sonde.data.store import encode
from sonde.inputs.image import Augment, Image
from sonde.networks import build, wrap
from sonde.recipe import Recipe
from sonde.stages import fit_task
from sonde.targets.category import Category, CategoryConfig
from sonde.training import optimizers
from sonde.training.run_folder import Log
from sonde.training.schedules import Schedule, ScheduleConfig

RECIPES = Path(__file__).parents[1] / "recipes"
CPU = torch.device("cpu")
# Of a training beside other work, and those that do not count.
CHILD_STEPS, CHILD_SETTLED = 80, 25


class Turns:
    """Two ways to do the same, timed in turns."""

    def __init__(self, ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> None:
        ours(), theirs()  # warm up
        self.ours, self.theirs = [], []
        for number in range(rounds):
            order = (ours, theirs) if number % 2 == 0 else (theirs, ours)
            for one in order:
                (self.ours if one is ours else self.theirs).append(one())

    def ratio(self) -> tuple[float, float, float]:
        """Ours by theirs: the median of the rounds, and its interval."""
        return interval(np.array(self.ours) / np.array(self.theirs))

    def difference(self) -> tuple[float, float, float]:
        return interval(np.array(self.ours) - np.array(self.theirs))


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """The median, and the 95 % bootstrap interval of it."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, (2000, len(values))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(np.median(values)), float(low), float(high)


def shown(value: tuple[float, float, float], scale: float = 1.0, digits: int = 2) -> str:
    median, low, high = (one * scale for one in value)
    return f"{median:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def table(title: str, *header: str) -> None:
    print(f"\n**{title}**\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}", flush=True)


def row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def met(holds: bool) -> str:
    return "met" if holds else "NOT met"


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def per_call(work: Callable[[int], object], calls: int) -> Callable[[], float]:
    """Processor seconds of one call of `work`, which is given the number of the call."""

    def timed() -> float:
        started = time.process_time()
        for number in range(calls):
            work(number)
        return (time.process_time() - started) / calls

    return timed


# A task without any cost of its own: numbers that are there already, and a class.


class Numbers(Input):
    """A vector a record."""

    @classmethod
    def fit(cls, config: object, records: Records) -> Numbers:
        raise NotImplementedError

    @staticmethod
    def recommend(config: object, output: OutputSpec, records: Records) -> Advice:
        return Advice()

    def __init__(self, width: int) -> None:
        self.width = width

    @property
    def spec(self) -> InputSpec:
        return InputSpec(layout="vector", channels=self.width)

    def encode(self, record: Record) -> Tensors:
        raise NotImplementedError


class Case:
    """The same numbers, batches, network and optimizer for both loops."""

    def __init__(self, module: nn.Module, *, records: int, width: int, classes: int, size: int, clip: float | None):
        generator = torch.Generator().manual_seed(0)
        self.x, self.y = torch.randn(records, width, generator=generator), torch.arange(records) % classes
        names = [str(number) for number in range(classes)]
        target = Category(config=CategoryConfig(), classes=names, class_counts=[1] * classes, weights=None)
        self.task = Task(inputs={"x": Numbers(width)}, target=target)
        columns: dict[str, Columns] = {"x": {"vector": self.x}}
        self.examples = Examples(inputs=columns, truth={"class": self.y}, count=records)
        self.module, self.size, self.clip = module, size, clip
        self.network = wrap(module, self.task)

    def sonde(self, steps: int, log_to: Path | None = None, progress: Progress | None = None) -> Callable[[], float]:
        """Seconds of one step of ours; with a log and progress, as `run.py` does it."""
        state = loop.State(
            network=self.network, optimizers=optimizers.build(optimizers.OptimizerConfig(), self.network)
        )
        batches = Batches(self.task, self.examples, size=self.size, seed=0)

        def timed() -> float:
            state.step = 0
            schedule = ScheduleConfig(kind="constant", warmup=0)
            precision = Precision(kind="fp32", device=CPU)
            plan = loop.Plan(steps=steps, seed=0, precision=precision, max_grad_norm=self.clip)
            state.schedule = Schedule(schedule, plan.steps)
            started = time.process_time()
            if log_to is None or progress is None:
                for _ in loop.train(self.task, batches, state, plan):
                    pass
            else:
                every = max(1, steps // 500)
                progress.begin("train", steps)
                with Log(log_to, 0) as log:
                    for step in loop.train(self.task, batches, state, plan):
                        if step.number % every == 0:
                            progress.at(step.number, log.step(step))
            return (time.process_time() - started) / steps

        return timed

    def by_hand(self, steps: int) -> Callable[[], float]:
        """Seconds of one step of the loop that everybody writes; matrices decay and biases do not, as with ours."""
        decayed = [one for one in self.module.parameters() if one.ndim > 1]
        plain = [one for one in self.module.parameters() if one.ndim < 2]
        groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=1e-3, fused=True)
        per_epoch = len(self.x) // self.size

        def timed() -> float:
            started = time.process_time()
            order = torch.randperm(len(self.x))
            for step in range(steps):
                at = step % per_epoch * self.size
                chosen = order[at : at + self.size]
                x, y = self.x[chosen], self.y[chosen]
                optimizer.zero_grad(set_to_none=True)
                loss = functional.cross_entropy(self.module(x), y)
                loss.backward()
                if self.clip is not None:
                    torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.clip)
                optimizer.step()
            return (time.process_time() - started) / steps

        return timed


def mlp(*widths: int) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for given, made in itertools.pairwise(widths):
        layers += [nn.Linear(given, made), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def step(rounds: int) -> None:
    """What the loop adds to a step."""
    table("overhead of a step", "step", "by hand, us", "sonde adds, us", "sonde by hand's", "goal")

    def compare(name: str, case: Case, steps: int, logged: bool, goal: Callable[[Turns], str]) -> None:
        with tempfile.TemporaryDirectory() as place:
            log, progress = (Path(place) / "log.jsonl", Lines()) if logged else (None, None)
            turns = Turns(case.sonde(steps, log, progress), case.by_hand(steps), rounds)
        by_hand = statistics.median(turns.theirs) * 1e6
        row(name, f"{by_hand:.0f}", shown(turns.difference(), 1e6, 1), shown(turns.ratio(), 1, 3), goal(turns))

    with one_thread():
        for clip in (None, 1.0):
            name = "a network of next to no cost" + (", gradient clipped" if clip else "")
            case = Case(mlp(4, 2), records=4096, width=4, classes=2, size=8, clip=clip)
            compare(name, case, 500, False, lambda turns: "25 us " + met(turns.difference()[0] <= 25e-6))
            compare(
                f"{name}, log and progress",
                case,
                500,
                True,
                lambda turns: "60 us " + met(turns.difference()[0] <= 60e-6),
            )
        width = min((96, 128, 192, 256, 384, 512), key=_distance_to_5_ms)
        case = Case(mlp(64, width, width, width, 10), records=8192, width=64, classes=10, size=256, clip=1.0)
        name = f"an MLP of width {width}, gradient clipped"
        compare(f"{name}, log and progress", case, 300, True, lambda turns: "1.010 " + met(turns.ratio()[0] <= 1.01))


def _distance_to_5_ms(width: int) -> float:
    case = Case(mlp(64, width, width, width, 10), records=8192, width=64, classes=10, size=256, clip=1.0)
    timed = case.by_hand(10)
    timed()
    return abs(min(timed(), timed()) - 5e-3)


def loading(rounds: int) -> None:
    """Batches of what is in memory."""
    table("in-memory loading", "batches", "beside", "sonde, us", "beside, us", "sonde by the other", "goal")
    sets = {
        "256 of 60,000 pictures, 28 x 28 bytes": (torch.randint(0, 256, (60_000, 1, 28, 28)).byte(), 256),
        "512 of 200,000 rows of 30 numbers": (torch.randn(200_000, 30), 512),
        "64 of 2,000 pictures, 3 x 64 x 64 bytes": (torch.randint(0, 256, (2000, 3, 64, 64)).byte(), 64),
    }
    with one_thread():
        for name, (x, size) in sets.items():
            y = torch.arange(len(x)) % 10
            task = Case(mlp(4, 2), records=8, width=4, classes=2, size=8, clip=None).task
            examples = Examples(inputs={"x": {"vector": x}}, truth={"class": y}, count=len(x))
            batches = Batches(task, examples, size=size, seed=0)
            calls = batches.per_epoch
            order = torch.from_numpy(np.random.default_rng(0).permutation(len(x)))
            rows = [order[start : start + size] for start in range(0, calls * size, size)]

            def sliced(number: int, x: Tensor = x, y: Tensor = y, rows: list[Tensor] = rows) -> object:
                return x[rows[number]], y[rows[number]]

            loader = DataLoader(TensorDataset(x, y), batch_size=size, shuffle=True, drop_last=True)

            def loaded(loader: DataLoader = loader, calls: int = calls) -> float:
                started = time.process_time()
                for _ in loader:
                    pass
                return (time.process_time() - started) / calls

            ours = per_call(batches.at, calls)
            for other, theirs, goal in (
                ("slicing a tensor", per_call(sliced, calls), 1.05),
                ("DataLoader, TensorDataset", loaded, 0.1),
            ):
                turns = Turns(ours, theirs, rounds if goal > 1 else max(3, rounds // 3))
                us = [f"{statistics.median(one) * 1e6:.0f}" for one in (turns.ours, turns.theirs)]
                row(name, other, *us, shown(turns.ratio(), 1, 3), f"{goal:g} {met(turns.ratio()[0] <= goal)}")


def pictures(name: str, count: int) -> tuple[Recipe, Task, Examples]:
    """A ready recipe for pictures, fitted to made-up ones of the same kind, all of them at their full size."""
    recipe = Recipe.read(RECIPES / f"{name}.toml", changes=["inputs.image.augment.small_fraction=0"])
    ((_, config),) = recipe.inputs.items()
    shape = (64, 64, 3) if name == "flowers5" else (28, 28)
    rng = np.random.default_rng(0)
    values = np.empty(count, dtype=object)
    values[:] = list(rng.integers(0, 256, (count, *shape), dtype=np.uint8))
    labels = np.array([f"class {number % 10}" for number in range(count)], dtype=object)
    fields = {config.field: values, recipe.target.field: labels}  # type: ignore[attr-defined]
    records = Records(fields=fields, ids=[str(number) for number in range(count)])
    task = fit_task(recipe, records)
    return recipe, task, encode(task, records).examples


def augment(rounds: int) -> None:
    """A batch at once, beside torchvision a picture at a time."""
    from torchvision.transforms import v2

    table("augmentation", "batch", "sonde, us a picture", "torchvision, us a picture", "torchvision by sonde", "goal")
    reflect = v2.RandomCrop(28, padding=2, padding_mode="reflect")
    colour = v2.ColorJitter(0.2, 0.2, 0.2)
    affine = v2.RandomAffine(15, (0.1, 0.1), (0.8, 1.25), interpolation=v2.InterpolationMode.BILINEAR)
    erase = v2.RandomErasing(1.0, (0.04, 0.04), (1, 1))
    small = Augment(shift=0.07, cutout=0.3)
    cases = {
        "fashion_mnist": (small, v2.Compose([reflect, v2.RandomErasing(1.0, (0.09, 0.09), (1, 1))])),
        "flowers5": (None, v2.Compose([v2.RandomHorizontalFlip(), affine, colour, erase])),
    }
    with one_thread():
        for name, (changes, transform) in cases.items():
            recipe, task, examples = pictures(name, 512)
            size = recipe.training.batch_size
            grid = next(iter(examples.inputs.values()))["grid"][:size]  # type: ignore[index]
            (part,) = task.inputs.values()
            assert isinstance(part, Image)
            if changes is not None:
                part = dataclasses.replace(part, config=part.config.model_copy(update={"augment": changes}))
            rng = BatchRng(seed=0, epoch=0, records_B=torch.arange(size))
            singles = list(grid)

            def each(number: int, singles: list[Tensor] = singles, transform: nn.Module = transform) -> Tensor:
                return torch.stack([transform(one) for one in singles])

            def whole(number: int, part: Input = part, grid: Tensor = grid, rng: BatchRng = rng) -> object:
                return part.augment({"grid": grid}, rng)

            turns = Turns(per_call(each, 1), per_call(whole, 4), max(3, rounds // 2))
            us = [f"{statistics.median(one) / size * 1e6:.1f}" for one in (turns.theirs, turns.ours)]
            how = "shifted and cut out" if changes is not None else f"as recipes/{name}.toml"
            what = f"{size} x {'x'.join(map(str, grid.shape[1:]))}, {how}"
            row(what, *us, shown(turns.ratio(), 1, 1), f"5 {met(turns.ratio()[0] >= 5)}")


class Watched(Batches):
    """Batches that note how long they took."""

    spent = 0.0

    def at(self, step: int) -> object:  # type: ignore[override]
        started = time.perf_counter()
        place = super().at(step)
        self.spent += time.perf_counter() - started
        return place


def waiting(rounds: int) -> None:
    """The share of training that goes into fetching and augmenting batches."""
    header = ("recipe", "precision", "ms a step", "fetching, %", "augmenting, %", "both, %", "goal")
    table("waiting for data", *header)
    for name, kind in (
        ("fashion_mnist", "fp32"),
        ("fashion_mnist", "bf16"),
        ("flowers5", "fp32"),
        ("flowers5", "bf16"),
    ):
        recipe, task, examples = pictures(name, 2000)
        (part,) = task.inputs.values()
        spent = [0.0]

        def augment(tensors: Tensors, rng: BatchRng, part: Input = part, spent: list[float] = spent) -> object:
            started = time.perf_counter()
            found = type(part).augment(part, tensors, rng)
            spent[0] += time.perf_counter() - started
            return found

        object.__setattr__(part, "augment", augment)
        network = build(recipe.network, task)
        batches = Watched(task, examples, size=recipe.training.batch_size, seed=0)
        state = loop.State(network=network, optimizers=optimizers.build(recipe.training.optimizer, network))
        steps = 4 + rounds
        precision = Precision(kind=kind, device=CPU)  # type: ignore[arg-type]
        plan = loop.Plan(steps=steps, seed=0, precision=precision, max_grad_norm=1.0)
        state.schedule = Schedule(recipe.training.schedule, plan.steps)
        shares, times, last = [], [], (0.0, 0.0, time.perf_counter())
        for _ in loop.train(task, batches, state, plan):
            now = (batches.spent, spent[0], time.perf_counter())
            took = now[2] - last[2]
            times.append(took)
            shares.append(((now[0] - last[0]) / took, (now[1] - last[1]) / took))
            last = now
        fetching, augmenting = (float(np.median([one[place] for one in shares[4:]])) * 100 for place in (0, 1))
        both = interval(np.array([sum(one) for one in shares[4:]]))
        ms = f"{np.median(times[4:]) * 1e3:.1f}"
        cells = (f"{fetching:.2f}", f"{augmenting:.2f}", shown(both, 100))
        row(name, kind, ms, *cells, f"5 {met(both[0] < 0.05)}")


def machine(rounds: int) -> None:
    """What the processor can do, and how much of it training reaches."""
    table("the machine", "work", "precision", "GFLOP/s", "share of the peak, %")
    peaks = {}
    for kind, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        best = 0.0
        for size in (512, 1024, 2048):
            a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
            for _ in range(rounds):
                started = time.perf_counter()
                a @ b
                best = max(best, 2 * size**3 / (time.perf_counter() - started))
        peaks[kind] = best
        row(f"matrix product, best of {3 * rounds}", kind, f"{best / 1e9:.0f}", "100")
    for name in ("fashion_mnist", "mlp"):
        recipe, task, examples = pictures("fashion_mnist", 2048)
        for kind in ("fp32", "bf16"):
            own = wrap(nn.Sequential(nn.Flatten(), mlp(784, 1024, 1024, 10)), task)
            network = own if name == "mlp" else build(recipe.network, task)
            flops = _flops(task, examples, network)
            state = loop.State(network=network, optimizers=optimizers.build(optimizers.OptimizerConfig(), network))
            batches = Batches(task, examples, size=256, seed=0)
            precision = Precision(kind=kind, device=CPU)
            schedule = ScheduleConfig(kind="constant", warmup=0)
            plan = loop.Plan(steps=4 + rounds, seed=0, precision=precision, max_grad_norm=1.0)
            state.schedule = Schedule(schedule, plan.steps)
            marks = [time.perf_counter() for _ in loop.train(task, batches, state, plan)]
            speed = flops / float(np.median(np.diff(marks)[3:]))
            what = "MLP 784-1024-1024-10" if name == "mlp" else "CNN 32-64-128 of recipes/fashion_mnist.toml"
            row(f"training {what}, batch 256", kind, f"{speed / 1e9:.0f}", f"{speed / peaks[kind] * 100:.0f}")


def _flops(task: Task, examples: Examples, network: nn.Module) -> int:
    """Floating-point operations of forward and backward of a batch of 256."""
    batch = task.collate(examples.take(torch.arange(256)), torch.arange(256))
    with FlopCounterMode(display=False) as counter:
        terms = task.target.loss(network, task.preprocess(batch), BatchRng(seed=0, epoch=0, records_B=batch.records_B))
        sum(terms.values(), start=torch.zeros(())).backward()
    return counter.get_total_flops()


FIRST_STEP = """
import sys, time
started = time.perf_counter()
import torch
torch_there = time.perf_counter()
from sonde.recipe import Recipe
from sonde import loop, stages
from sonde.data.store import encode
from sonde.base.progress import NoProgress
from sonde.cli import app
recipe = Recipe.read(sys.argv[1])
data = stages.load_data(recipe)
task = stages.fit_task(recipe, data.splits["train"])
network = stages.build_network(recipe, task)
state, plan, batches = stages.prepare(recipe, task, network, encode(task, data.splits["train"]), None, NoProgress())
next(loop.train(task, batches, state, plan))
print(torch_there - started, time.perf_counter() - torch_there)
"""

TABLE_RECIPE = """
[data]
source = "rows.csv"
[inputs.row]
kind = "table"
fields = ["a", "b"]
[target]
kind = "category"
field = "label"
[network]
kind = "mlp"
hidden = [16]
[training]
steps = 1
"""


def start(rounds: int) -> None:
    """What a command costs before it does anything; with bytecode at hand, as after any installation."""
    table("start", "what", "seconds", "beside", "goal")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        settings = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        settings.setdefault("PYTHONPYCACHEPREFIX", str(folder / "bytecode"))
        rows = "".join(f"{number % 7},{number % 5},{'yes' if number % 3 else 'no'}\n" for number in range(200))
        (folder / "rows.csv").write_text("a,b,label\n" + rows)
        (folder / "recipe.toml").write_text(TABLE_RECIPE)

        def command(*words: str) -> Callable[[], float]:
            def timed() -> float:
                started = time.perf_counter()
                subprocess.run([sys.executable, *words], check=True, capture_output=True, env=settings)
                return time.perf_counter() - started

            return timed

        rounds = max(3, rounds // 3)
        helped = Turns(command("-m", "sonde", "--help"), command("-c", "pass"), rounds)
        seconds = interval(np.array(helped.ours))
        row("`sonde --help`", shown(seconds), "", f"0.3 s {met(seconds[0] <= 0.3)}")
        imported = Turns(command("-c", "import sonde"), command("-c", "pass"), rounds)
        more, empty = imported.difference(), statistics.median(imported.theirs)
        row(
            "`import sonde`, more than an empty Python",
            shown(more, 1, 3),
            f"{empty:.3f}",
            f"0.05 s {met(more[0] <= 0.05)}",
        )
        words = [sys.executable, "-c", FIRST_STEP, str(folder / "recipe.toml")]
        found = []
        for _ in range(rounds + 1):
            done = subprocess.run(words, check=True, capture_output=True, text=True, env=settings)
            found.append([float(word) for word in done.stdout.split()])
        torchs, rest = np.array(found[1:]).T
        after = interval(rest)
        beside = f"importing torch: {shown(interval(torchs))}"
        row("first training step (a table), after importing torch", shown(after), beside, f"1 s {met(after[0] <= 1)}")


def child(kind: str) -> None:
    """Train the same small CNN for some steps and print how long one took: sonde, or a plain loop."""
    _, task, examples = pictures("fashion_mnist", 2048)
    torch.manual_seed(0)
    module = nn.Sequential(
        *[nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)],
        *[nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)],
        *[nn.Conv2d(64, 128, 3, padding=1), nn.BatchNorm2d(128), nn.ReLU(), nn.AdaptiveAvgPool2d(1)],
        *[nn.Flatten(), nn.Linear(128, 10)],
    )
    times = []
    if kind == "sonde":
        network = wrap(module, task)
        state = loop.State(network=network, optimizers=optimizers.build(optimizers.OptimizerConfig(), network))
        precision = Precision(kind="fp32", device=CPU)
        plan = loop.Plan(steps=CHILD_STEPS, seed=0, precision=precision)
        state.schedule = Schedule(ScheduleConfig(), plan.steps)
        for _ in loop.train(task, Batches(task, examples, size=128, seed=0), state, plan):
            times.append(time.perf_counter())
    else:
        (columns,) = examples.inputs.values()
        grid, labels = columns["grid"], examples.truth["class"]
        optimizer = torch.optim.AdamW(module.parameters())
        for step_number in range(CHILD_STEPS):
            chosen = torch.arange(128) + step_number % 16 * 128
            optimizer.zero_grad()
            functional.cross_entropy(module(grid[chosen].float() / 255), labels[chosen]).backward()  # type: ignore[index]
            optimizer.step()
            times.append(time.perf_counter())
    print((times[-1] - times[CHILD_SETTLED]) / (CHILD_STEPS - 1 - CHILD_SETTLED))


def busy(rounds: int) -> None:
    """The same short training alone, and beside a process that holds one core."""
    table(
        "a busy machine: another process holds one core",
        "loop",
        "alone, ms a step",
        "busy, ms a step",
        "slower",
        "goal",
    )
    for kind in ("sonde", "plain"):
        settings = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
        if kind == "sonde":
            settings["OMP_WAIT_POLICY"] = "passive"  # as the command line has it

        def timed(kind: str = kind, settings: dict[str, str] = settings) -> float:
            words = [sys.executable, __file__, "--child", kind]
            done = subprocess.run(words, check=True, capture_output=True, text=True, env=settings)
            return float(done.stdout.split()[-1])

        def beside(timed: Callable[[], float] = timed) -> float:
            other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            try:
                return timed()
            finally:
                other.kill()
                other.wait()

        turns = Turns(beside, timed, max(2, rounds // 5))
        ms = [f"{statistics.median(one) * 1e3:.0f}" for one in (turns.theirs, turns.ours)]
        name = "sonde" if kind == "sonde" else "a plain PyTorch loop, OpenMP as it comes"
        row(name, *ms, shown(turns.ratio()), f"2 {met(turns.ratio()[0] <= 2.2)}" if kind == "sonde" else "-")


SECTIONS = {one.__name__: one for one in (step, loading, augment, waiting, machine, start, busy)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", help="what to measure; everything if nothing is named")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--child", choices=["sonde", "plain"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child)
        return
    wrong = [name for name in arguments.sections if name not in SECTIONS]
    if wrong:
        parser.error(f"{wrong[0]!r} is not one of {', '.join(SECTIONS)}")
    print(
        f"torch {torch.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {arguments.rounds} rounds"
    )
    for name in arguments.sections or SECTIONS:
        SECTIONS[name](arguments.rounds)


if __name__ == "__main__":
    main()
