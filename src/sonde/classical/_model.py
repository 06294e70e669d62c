"""A classical model of a task: the features of its inputs and the estimator that answers, in place of a network.

B example, T position, W word, K answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sonde.base import lookup
from sonde.base.config import kind_of
from sonde.base.errors import UserError
from sonde.base.rng import generator
from sonde.contracts.batch import Examples
from sonde.contracts.classical import (
    Estimator,
    EstimatorConfig,
    FeatureMap,
    Matrix,
    Problem,
    Unsuitable,
    below,
    beside,
)
from sonde.contracts.columns import Tensors
from sonde.contracts.task import Task
from sonde.data.batches import in_order

# Examples whose features are computed at once.
CHUNK = 512


class ClassicalModel(nn.Module):
    """Called as a network is: preprocessed inputs by name to answers, (B, K) or (B, T, K). It computes on the CPU, in
    float64, wherever its inputs are."""

    def __init__(self, maps: Mapping[str, FeatureMap], estimator: Estimator, per: str) -> None:
        super().__init__()
        self.maps = nn.ModuleDict(maps)
        self.estimator = estimator
        self.per = per

    def forward(self, inputs: Mapping[str, Tensors], at_N: Tensor | None = None) -> Tensor:
        """The answers; with `at_N` those at chosen positions (example * T + position) only, (N, K)."""
        device = next(iter(next(iter(inputs.values())).values())).device
        inputs = {name: {key: value.cpu() for key, value in each.items()} for name, each in inputs.items()}
        parts = [each(inputs[name], self.per) for name, each in self.maps.items()]
        answers = self.estimator(beside(parts)).float()
        if self.per == "position":
            answers = self._at_words(inputs, answers, None if at_N is None else at_N.cpu())
        return answers.to(device)

    def _at_words(self, inputs: Mapping[str, Tensors], answers: Tensor, at_N: Tensor | None) -> Tensor:
        """Answers for words (N, K) at the first token of each, zeros elsewhere."""
        (tensors,) = inputs.values()
        tokens_BT, starts_BW = tensors["tokens"], tensors["starts"]
        inside_BW = torch.arange(starts_BW.shape[1]) < tensors["words"][:, None]
        first_B = torch.arange(len(tokens_BT)) * tokens_BT.shape[1]
        place_N = (starts_BW + first_B[:, None])[inside_BW]
        flat = answers.new_zeros(tokens_BT.numel(), answers.shape[1]).index_copy(0, place_N, answers)
        return flat.unflatten(0, tokens_BT.shape) if at_N is None else flat.index_select(0, at_N)

    def _apply(self, fn: Any, recurse: bool = True) -> ClassicalModel:
        """Moving it to a device, or to another number format, changes nothing."""
        return self


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A kind of classical model for a task: its settings worth trying, the best guess first, or why it cannot be."""

    kind: str
    about: str
    trials: tuple[EstimatorConfig, ...] = ()
    reason: str = ""
    # It is fitted to a sample of so many training rows, where there are more.
    sampled: int | None = None


def offers(task: Task, train: Examples) -> list[Offer]:
    """Every kind of classical model that there is for a task, the cheapest first, or the reason why there is none."""
    kinds = {name: lookup.find("estimators", name, Estimator) for name in lookup.kinds("estimators")}
    ordered = sorted(kinds.items(), key=lambda item: item[1].rank)
    try:
        maps, problem = _maps(task), _problem(task, train)
    except Unsuitable as error:
        return [Offer(kind=name, about=name.replace("-", " "), reason=error.what) for name, _ in ordered]
    some = train.take(torch.arange(min(2, len(train))))
    _learn(maps, task, some, problem.per)
    matrix = _matrix(maps, task, some, problem.per)
    return [_offer(name, kind, maps, matrix, problem) for name, kind in ordered]


def size(task: Task, train: Examples) -> tuple[int, int]:
    """Rows and columns of the features; without the columns of bags, of which few are not 0."""
    maps, problem = _maps(task), _problem(task, train)
    some = train.take(torch.arange(min(2, len(train))))
    _learn(maps, task, some, problem.per)
    return len(problem.truth), _matrix(maps, task, some, problem.per).num_columns


def _offer(name: str, kind: type[Estimator], maps: Mapping[str, FeatureMap], matrix: Matrix, problem: Problem) -> Offer:
    about = f"{kind.about(problem)} on {' and '.join(each.about for each in maps.values())}" if kind.rank else ""
    about = about or kind.about(problem)
    reason = ""
    if problem.kind not in kind.solves:
        reason = f"it does not answer with {'several labels' if problem.kind == 'labels' else problem.kind}"
    elif matrix.bag is not None and not kind.takes_bags:
        reason = "too many columns: texts have one for each word, most of them 0"
    elif matrix.num_columns > kind.most_columns:
        reason = f"too many columns: {matrix.num_columns:,}, and it takes {kind.most_columns:,}"
    if reason:
        return Offer(kind=name, about=about, reason=reason)
    sampled = kind.most_rows if len(problem.truth) > kind.most_rows else None
    return Offer(kind=name, about=about, trials=tuple(kind.trials(problem, matrix)), sampled=sampled)


def fit(
    task: Task,
    config: EstimatorConfig,
    train: Examples,
    validation: Examples | None,
    *,
    seed: int,
    most_rows: int | None = None,
) -> ClassicalModel:
    """A classical model, fitted to the training split; one that stops by a validation split gets that.

    With more than `most_rows` training rows (or more than the kind can take) it is fitted to a sample.

    Raises:
        Unsuitable: there is none for this task, or this kind cannot be fitted to it.
    """
    kind = lookup.find("estimators", kind_of(config), Estimator)
    maps, problem = _maps(task), _problem(task, train)
    limit = min(kind.most_rows, most_rows or kind.most_rows)
    if len(problem.truth) > limit:
        train = train.take(_sample(problem, limit, len(train), seed))
        problem = _problem(task, train)
    _learn(maps, task, train, problem.per)
    matrix = _matrix(maps, task, train, problem.per)
    offer = _offer(kind_of(config), kind, maps, matrix.take(torch.arange(min(2, len(matrix)))), problem)
    if offer.reason:
        raise Unsuitable(f"{offer.about}: {offer.reason}")
    held = None
    if validation is not None:
        held = (_matrix(maps, task, validation, problem.per), _problem(task, validation))
    return ClassicalModel(maps, kind.fit(config, matrix, problem, held_out=held, seed=seed), problem.per)


def restore(
    task: Task, kind: type[Estimator], settings: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> ClassicalModel:
    """A model from what an artifact holds: the estimator's kind and settings, and all tensors.

    Raises:
        UserError: tensors are missing or make no sense.
    """
    maps = _maps(task)
    for name, each in maps.items():
        each.restore(_under(weights, f"maps.{name}."))
    try:
        make: Any = kind
        estimator = make(kind.Config.model_validate(dict(settings)), _under(weights, "estimator."))
    except (KeyError, IndexError) as error:
        raise UserError(f"the weights of the {settings['kind']} model are incomplete: {error}") from error
    per = "position" if any(output.chosen == "position" for output in task.outputs.values()) else "example"
    return ClassicalModel(maps, estimator, per).eval()


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _maps(task: Task) -> dict[str, FeatureMap]:
    return {name: part.feature_map() for name, part in task.inputs.items()}


def _problem(task: Task, examples: Examples) -> Problem:
    problem = task.target.classical(examples.truth)
    if problem is None:
        raise Unsuitable(f"no classical model answers as the target '{kind_of(task.target.config)}' asks")
    if problem.per == "position" and len(task.inputs) > 1:
        raise Unsuitable("no classical model answers for words where there are several inputs")
    if examples.weight is None:
        return problem
    weight_N = examples.weight.double()
    if problem.per == "position":
        raise Unsuitable("classical models for words take no weights of records")
    own = 1.0 if problem.weight_N is None else problem.weight_N
    return Problem(kind=problem.kind, width=problem.width, truth=problem.truth, weight_N=weight_N * own)


def _learn(maps: Mapping[str, FeatureMap], task: Task, examples: Examples, per: Any) -> None:
    for name, each in maps.items():
        each.learn((batch[name] for batch in _batches(task, examples)), per)


@torch.no_grad()
def _matrix(maps: Mapping[str, FeatureMap], task: Task, examples: Examples, per: Any) -> Matrix:
    rows = []
    for inputs in _batches(task, examples):
        rows.append(beside([each(inputs[name], per) for name, each in maps.items()]))
    return below(rows)


def _batches(task: Task, examples: Examples) -> Iterator[dict[str, Tensors]]:
    for start in range(0, len(examples), CHUNK):
        yield task.preprocess(in_order(task, examples, CHUNK, start)).inputs


def _sample(problem: Problem, rows: int, count: int, seed: int) -> Tensor:
    """Examples drawn at random, with about so many rows; of every class at least two, as probabilities need."""
    wanted = max(2, rows * count // len(problem.truth))
    order = torch.randperm(count, generator=generator(seed, "classical"))
    chosen = order[:wanted]
    if problem.kind == "classes" and problem.per == "example":
        shuffled = problem.truth[order]
        first = [order[shuffled == code][:2] for code in shuffled.unique()]
        chosen = torch.cat([chosen, *first]).unique()
    return chosen.sort().values
