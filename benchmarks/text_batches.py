"""Texts of all lengths: what padding costs, and what bucketing and packing win, in tokens per second of training.

    python benchmarks/text_batches.py [CASE ...] [--rounds 6] [--steps 12] [--precision bf16] [--clock wall]

Whole training steps of a transformer (drawing the batch to updating the weights) on real texts. The ways take turns
step by step (A B C, C B A, ...). On a busy machine, count this process' own seconds on one core:
OMP_NUM_THREADS=1 and --clock cpu. Only real tokens are counted. Printed as Markdown: the share of padding in the
batches and in what the linear layers compute, the median of tokens per second, and the ratio to random batches padded
to their longest: its median over the rounds and a 95 % bootstrap interval.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from sonde import loop
from sonde.base.progress import NoProgress
from sonde.base.rng import BatchRng
from sonde.contracts.batch import Batch
from sonde.contracts.columns import Tensors
from sonde.contracts.target import Target
from sonde.contracts.task import Task
from sonde.data.batches import Batches, Place
from sonde.data.store import encode
from sonde.recipe import Recipe
from sonde.stages import build_network, fit_task, load_data, prepare
from sonde.targets.next_token import NextToken

RECIPES = Path(__file__).parents[1] / "recipes"
NETWORK = ["network.kind=transformer", "network.positions=rotary"]
CASES = {
    "AG News x category": ("ag_news", NETWORK),
    "SMS x category": ("sms_spam", NETWORK),
    "AG News x next-token": (
        "ag_news",
        [*NETWORK, 'target={kind="next-token"}', "inputs.text.augment.drop=0.0"],
    ),
}


@dataclass(frozen=True, kw_only=True)
class Way:
    """How texts of different lengths are put into a batch and through the network."""

    name: str
    bucketed: bool = False
    packed: bool = False
    to_data_longest: bool = False


WAYS = (
    Way(name="random, padded to the data set's longest", to_data_longest=True),
    Way(name="random, padded to the batch's longest"),
    Way(name="bucketed", bucketed=True),
    Way(name="packed", packed=True),
    Way(name="bucketed + packed", bucketed=True, packed=True),
)
BASE = 1
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Counted:
    """Batches that count their tokens and positions, padded to `steps` positions where that is wanted."""

    def __init__(self, batches: Batches, steps: int | None) -> None:
        self.batches = batches
        self.steps = steps
        self.tokens = self.positions = 0

    def at(self, step: int) -> Place:
        batch, epoch = self.batches.at(step)
        text = batch.inputs["text"]
        if self.steps is not None:
            more = self.steps - text["tokens"].shape[1]
            text = {**text, "tokens": functional.pad(text["tokens"], (0, more))}
        self.tokens += int(text["length"].sum())
        self.positions += text["tokens"].numel()
        return Place(replace(batch, inputs={"text": text}), epoch)


class Plain(NextToken):
    """The loss as it is usually written: answers at every position, those beyond the end of a text ignored."""

    def loss(self, network: nn.Module, batch: Batch, rng: BatchRng) -> Tensors:
        given = batch.inputs[self.input]
        tokens_BT, length_B = given["tokens"], given["length"]
        shown = {"tokens": tokens_BT[:, :-1], "length": (length_B - 1).clamp_min(1)}
        beyond_BT = torch.arange(1, tokens_BT.shape[1])[None, :] >= length_B[:, None]
        truth_BT = tokens_BT[:, 1:].masked_fill(beyond_BT, -100)
        logits_BTV = network({self.input: shown}).float()
        return {"loss": functional.cross_entropy(logits_BTV.flatten(0, 1), truth_BT.flatten(), reduction="sum")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="one of: " + ", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=12, help="steps of a way in a round")
    parser.add_argument("--clock", default="wall", choices=CLOCKS)
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16", "bf16-math"])
    parser.add_argument("--batch", type=int, default=64, help="texts in a batch")
    arguments = parser.parse_args()
    print(f"threads {torch.get_num_threads()}, torch {torch.__version__}, clock {arguments.clock}")
    for name in arguments.cases or CASES:
        changes = [f"training.precision={arguments.precision}", f"training.batch_size={arguments.batch}"]
        print("\n".join(table(name, changes, arguments)), flush=True)


def table(name: str, changes: list[str], arguments: argparse.Namespace) -> list[str]:
    stem, more = CASES[name]
    rounds, steps = arguments.rounds, arguments.steps
    recipe = Recipe.read(RECIPES / f"{stem}.toml", changes=[*more, *changes, "training.epochs=1000"])
    records = load_data(recipe).splits["train"]
    task = fit_task(recipe, records)
    train = encode(task, records)
    runs: list[Iterator[loop.Step]] = []
    counts: list[Counted] = []
    for way in WAYS:
        settings = [
            f"network.packing={str(way.packed).lower()}",
            f"training.group_by_length={str(way.bucketed).lower()}",
        ]
        own = Recipe.read(RECIPES / f"{stem}.toml", changes=[*more, *changes, "training.epochs=1000", *settings])
        network = build_network(own, task)
        state, plan, batches = prepare(own, task, network, train, None, NoProgress())
        counted = Counted(batches, task.inputs["text"].spec.size[0] if way.to_data_longest else None)
        learned = task if way.packed else Task(inputs=task.inputs, target=plain(task.target))
        runs.append(loop.train(learned, counted, state, plan))  # type: ignore[arg-type]
        counts.append(counted)
    speed_WR = measure(runs, counts, arguments)
    size, longest = counts[0].batches.size, task.inputs["text"].spec.size[0]
    mean = sum(counted.tokens for counted in counts) / (len(WAYS) * rounds * steps * size)
    shown = [
        "",
        f"{name}: {len(train.examples):,} texts, {mean:.0f} tokens on average, at most {longest}; "
        f"{rounds} rounds of {steps} steps of {size} texts in {arguments.precision}",
        "",
        "| way | padding of the batch | padding in the linear layers | tokens/s | times pad-to-longest [95 %] |",
        "|---|---|---|---|---|",
    ]
    for way, counted, speed_R in zip(WAYS, counts, speed_WR, strict=True):
        padding = 1 - counted.tokens / counted.positions
        ratio, low, high = interval(speed_R / speed_WR[BASE])
        shown.append(
            f"| {way.name} | {padding:.1%} | {0 if way.packed else padding:.1%} | {np.median(speed_R):,.0f} "
            f"| {ratio:.2f} [{low:.2f}, {high:.2f}] |"
        )
    return shown


def plain(target: Target) -> Target:
    if not isinstance(target, NextToken):
        return target
    values, tensors = target.save()
    return Plain.restore(target.config, values, tensors)


def measure(runs: list[Iterator[loop.Step]], counts: list[Counted], arguments: argparse.Namespace) -> np.ndarray:
    """Real tokens per second (ways, rounds)."""
    clock = CLOCKS[arguments.clock]
    speed_WR = np.zeros((len(runs), arguments.rounds))
    for run in runs:
        next(run)
    for counted in counts:
        counted.tokens = counted.positions = 0
    for turn in range(arguments.rounds):
        before, seconds = [counted.tokens for counted in counts], np.zeros(len(runs))
        for step in range(arguments.steps):
            for way in range(len(runs)) if step % 2 == 0 else reversed(range(len(runs))):
                started = clock()
                next(runs[way])
                seconds[way] += clock() - started
        speed_WR[:, turn] = [counted.tokens - was for counted, was in zip(counts, before, strict=True)] / seconds
    return speed_WR


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """The median and its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, (2000, len(values))), axis=1)
    return float(np.median(values)), float(np.quantile(medians, 0.025)), float(np.quantile(medians, 0.975))


if __name__ == "__main__":
    main()
