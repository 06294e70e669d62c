"""One-stage detection beside torchvision's FCOS in its reference loop: the same pictures and batch, in turns.

    python benchmarks/peers/boxes.py --data bccd --rounds 5 --steps 4

Both have a whole ResNet-18, a pyramid of 256 channels from an eighth of the size on, towers of four convolutions, and
SGD as torchvision's references have it. FCOS has two tiny levels more; sonde's pyramid goes down and up again, and it
normalizes in the towers by batch and not by group. What is timed: steps (forward, loss, backward, update) and answers
for a batch, taking out overlapping ones included; the wall and the processor's time, each side's own pictures made
beforehand. Printed: the ratio peer / sonde over the rounds, above 1 sonde is quicker.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sonde import loop, stages
from sonde.base.device import Precision
from sonde.commands.new import recommend
from sonde.data.batches import Batches
from sonde.data.load import source_of
from sonde.data.store import encode
from sonde.recipe import Recipe
from sonde.targets.boxes import objects as columns
from sonde.training import optimizers

SIZE = (256, 352)
SGD = {"lr": 0.005, "momentum": 0.9, "weight_decay": 1e-4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="pictures with boxes: VOC, COCO, YOLO or CSV")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="steps and answers a round, of each side")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    ours, theirs, classes = sides(arguments.data, arguments.batch)
    print(f"{arguments.batch} pictures of {SIZE[0]} x {SIZE[1]}, {classes} classes, {arguments.threads} threads")
    for what in ("step", "answer"):
        for side in (ours, theirs):
            side[what]()  # the first one makes everything ready
        ratios: dict[str, list[float]] = {"wall": [], "processor": []}
        for number in range(arguments.rounds):
            order = (ours, theirs) if number % 2 == 0 else (theirs, ours)
            spent = {id(side): timed(side[what], arguments.steps) for side in order}
            for place, clock in enumerate(ratios):
                ratios[clock].append(spent[id(theirs)][place] / spent[id(ours)][place])
            mine = 1000 * spent[id(ours)][1] / arguments.batch
            print(f"  round {number + 1}: {what} of sonde {mine:.1f} ms of processor a picture", flush=True)
        for clock, values in ratios.items():
            shown = f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"
            print(f"FCOS / sonde, {what}, {clock} time: {shown}")


def timed(call: Callable[[], None], times: int) -> tuple[float, float]:
    """The median wall and processor time of a call."""
    walls, processors = [], []
    for _ in range(times):
        wall, processor = time.perf_counter(), time.process_time()
        call()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return statistics.median(walls), statistics.median(processors)


def sides(path: Path, size: int) -> tuple[dict[str, Any], dict[str, Any], int]:
    """Steps and answers of sonde and of FCOS, on the same batch."""
    recipe = recipe_for(path)
    data = stages.load_data(recipe)
    task = stages.fit_task(recipe, data.splits["train"])
    batches = Batches(task, encode(task, data.splits["train"].part(0, 2 * size)).examples, size=size, seed=0)
    network = stages.build_network(recipe, task)
    state = loop.State(network=network, optimizers=optimizers.build(recipe.training.optimizer, network, torch.float32))
    exact = Precision(kind="fp32", device=torch.device("cpu"))

    def step() -> None:
        plan = loop.Plan(steps=state.step + 1, seed=0, precision=exact, max_grad_norm=1.0)
        for _ in loop.train(task, batches, state, plan):
            pass

    batch = batches.at(0).batch

    def answer() -> None:
        network.eval()
        with torch.inference_mode():
            task.predict(network, task.preprocess(batch))

    pictures = [grid.float() / 255 for grid in batch.inputs["image"]["grid"]]
    truths = [
        {"boxes": rows[:count, columns.GRID].contiguous(), "labels": rows[:count, columns.CLASS].long()}
        for rows, count in zip(batch.truth["objects"], batch.truth["length"].tolist(), strict=True)
    ]
    classes = len(task.target.classes)  # type: ignore[attr-defined]
    return {"step": step, "answer": answer}, fcos(pictures, truths, classes), classes


def recipe_for(path: Path) -> Recipe:
    """What `sonde new` writes, with the network that FCOS has."""
    kind, reader = source_of(None, path)
    guess = reader.guess(path, None)
    options = {name: value for name, value in guess.data.items() if name in reader.Config.model_fields}
    sections, _ = recommend(guess, reader.read(path, reader.Config.model_validate({**options, "kind": kind})))
    sections["inputs"]["image"] |= {"size": SIZE, "augment": {}}
    sections["network"] |= {"width": 1.0}
    sections["target"] |= {"width": 256, "convolutions": 4, "levels": 3}
    sections["training"] = {"steps": 1, "optimizer": {"kind": "sgd", **SGD}, "precision": "fp32"}
    return Recipe.of(sections, base=Path.cwd())


def fcos(pictures: list[Tensor], truths: list[dict[str, Tensor]], classes: int) -> dict[str, Any]:
    """torchvision's network, stepped as in its references/detection/engine.py."""
    from torchvision.models.detection import FCOS
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=torch.nn.BatchNorm2d,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    model = FCOS(backbone, classes, min_size=min(SIZE), max_size=max(SIZE))
    optimizer = torch.optim.SGD(model.parameters(), **SGD)

    def step() -> None:
        model.train()
        loss = sum(model(pictures, truths).values())
        if not np.isfinite(loss.item()):
            raise RuntimeError(f"the loss is {loss.item()}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def answer() -> None:
        model.eval()
        with torch.inference_mode():
            model(pictures)

    return {"step": step, "answer": answer}


if __name__ == "__main__":
    main()
