"""What a network makes of records beside its answers: the features that its head is given, one vector an example.

B example, T position, M node, W width, N record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from sonde.base.device import Precision
from sonde.contracts.batch import Batch, Examples
from sonde.contracts.specs import Features
from sonde.contracts.target import Target
from sonde.contracts.task import Task
from sonde.data.batches import in_order
from sonde.networks import Network

BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Observed:
    """`features` (B, W), each input's of length 1; None for a classical model. `answers` are the network's, (B, ...);
    None where the target makes nothing of them but what it predicts."""

    features: Tensor | None
    answers: Tensor | None


def observe(task: Task, network: nn.Module, batch: Batch) -> Observed:
    """One pass over a preprocessed batch."""
    wanted = uses_answers(task.target)
    if not isinstance(network, Network):
        return Observed(features=None, answers=network(batch.inputs) if wanted else None)
    found = network.features(batch.inputs)
    answers = network.answer(found) if wanted else None
    parts = [functional.normalize(pooled(each, len(batch)), dim=1) for each in found.values()]
    return Observed(features=torch.cat(parts, dim=1), answers=answers)


def observe_all(
    task: Task,
    network: nn.Module,
    examples: Examples,
    *,
    precision: Precision,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Observed:
    """The same of all examples, on the CPU."""
    network.eval()
    features: list[Tensor] = []
    answers: list[Tensor] = []
    with torch.inference_mode(), precision.matmul_precision(), precision.forward():
        for start in range(0, len(examples), BATCH):
            batch = task.preprocess(in_order(task, examples, BATCH, start).to(precision.device))
            seen = observe(task, network, batch)
            if seen.features is not None:
                features.append(seen.features.float().cpu())
            if seen.answers is not None:
                answers.append(seen.answers.float().cpu())
            on_progress(min(len(examples), start + BATCH))
    return Observed(features=torch.cat(features) if features else None, answers=torch.cat(answers) if answers else None)


def uses_answers(target: Target) -> bool:
    """Whether the network's bare answers tell more than the target's predictions do."""
    kind = type(target)
    return kind.regions is not Target.regions or kind.unsureness is not Target.unsureness


def pooled(features: Features, count: int) -> Tensor:
    """One vector (B, W) an example: the mean over positions, nodes or the pixels of the coarsest grid, and over the
    members of a backbone that is several in one."""
    values = features.values
    if isinstance(values, tuple):
        return values[-1].float().flatten(2).mean(2)
    values = values.float()
    if features.length_B is not None:
        graph_M = torch.repeat_interleave(features.length_B)
        sums_BW = values.new_zeros(len(features.length_B), values.shape[1]).index_add_(0, graph_M, values)
        return sums_BW / features.length_B[:, None].clamp(min=1)
    if values.ndim == 3:
        inside_BT = features.inside_BT
        if inside_BT is None:
            values = values.mean(1)
        else:
            kept_BT = inside_BT.to(values.dtype)
            values = torch.einsum("btw,bt->bw", values, kept_BT) / kept_BT.sum(1, keepdim=True).clamp(min=1)
    return values.unflatten(0, (count, -1)).mean(1) if len(values) != count else values
