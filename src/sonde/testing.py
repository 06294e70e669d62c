"""The conformance kit: what every source, input, target and network must hold, for anyone's kinds and for ours.

    from sonde.testing import check_input
    check_input(MyInput)

Each check raises AssertionError with what is wrong. Kinds bring their own tiny data (`sample`, `tiny`).
"""

from __future__ import annotations

import ast
import inspect
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sonde.base import lookup
from sonde.base.rng import Draw
from sonde.columns import Columns, Ragged, Tensors, take
from sonde.data.snapshot import snapshot
from sonde.data.source import Source
from sonde.data.store import encode
from sonde.networks import build
from sonde.records import Records
from sonde.task import Ask, Batch, Body, Examples, Input, Part, Shape, Target, Task

COUNT = 12


def check_source(kind: type[Source]) -> None:
    """Recognises what it writes; reads the same records twice and from anywhere; guesses a task of known kinds."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        path, elsewhere = kind.sample(Path(first)), kind.sample(Path(second))
        assert kind.recognise(path), f"{kind.__name__} does not recognise its own sample"
        config = kind.Config()
        records, again, moved = (kind.read(each, config) for each in (path, path, elsewhere))
        assert len(records) > 0, "no records"
        assert list(records.ids) == list(again.ids) == list(moved.ids), "ids differ between readings or places"
        assert len(set(records.ids)) == len(records), "ids are not unique"
        splits = np.full(len(records), "train")
        prints = {snapshot(each, splits, used=set(each.fields)).fingerprint for each in (records, again, moved)}
        assert len(prints) == 1, "the fingerprint depends on when or where the data set is read"
        guess = kind.guess(path, None)
        assert guess.count == len(records), "guess counts other records than read gives"
        for section in guess.inputs.values():
            assert section["kind"] in lookup.kinds("inputs")
        assert guess.target["kind"] in lookup.kinds("targets")
    _check_imports(kind, "sources")


def check_input(kind: type[Input]) -> None:
    """encode is pure and equals encode_many; saving loses nothing; augmentation is keyed; the front fits the shape."""
    config, records = kind.sample(COUNT, np.random.default_rng(0))
    part = kind.fit(config, records)
    _check_part(part, records)
    columns = part.arrange(part.encode_many(records)[0])
    tensors = part.collate(columns)
    count = _examples(columns)
    _check_rows(part, columns)
    draw = Draw(seed=1, epoch=2, records_B=torch.arange(count))
    before = torch.get_rng_state()
    first, second = part.augment(_copy(tensors), draw)[0], part.augment(_copy(tensors), draw)[0]
    assert torch.equal(before, torch.get_rng_state()), "augment uses the global generator"
    _equal(first, second, "augment gives other results for the same draw")
    _check_shape(part.shape, part.front()(_copy(tensors)), count)
    advice = kind.recommend("category", config, records)
    assert set(advice) <= {"input", "target", "network", "training"}
    kind.Config.model_validate({**config.model_dump(), **advice.get("input", {})})
    _check_imports(kind, "inputs")


def check_target(kind: type[Target]) -> None:
    """With every input that fits: losses are sums, micro-batches change nothing, single = batched."""
    tried = 0
    for name in lookup.kinds("inputs"):
        task, examples = _task(lookup.find("inputs", name, Input), kind)  # type: ignore[type-abstract]
        if task is None or examples is None:
            continue
        tried += 1
        network = _Linear(task)
        everything = _batch(task, examples, range(len(examples)))
        half = len(examples) // 2
        parts = [_batch(task, examples, range(half)), _batch(task, examples, range(half, len(examples)))]
        _check_sums(task, network, everything, parts)
        _check_micro_batches(task, network, everything)
        _check_answers(task, network, examples)
    assert tried, f"no input fits {kind.__name__}"
    _check_imports(kind, "targets")


def check_network(kind: type[Body]) -> None:
    """For every form and answer that it claims: gradients everywhere, single = batched, no padding seen, no leak."""
    config = kind.Config.model_validate(dict(kind.tiny))
    for form in kind.accepts:
        for per in kind.gives:
            for causal in (False, True) if kind.causal and per == "position" else (False,):
                shape = _SHAPES[form]
                body = kind(config, shape, Ask(per=per, width=5, causal=causal))
                _check_body(body, _features(shape, 3), per)
                if causal and form in ("tokens", "frames"):
                    _check_causal(body, _features(shape, 3))
    _check_imports(kind, "networks")


def check_task(inputs: type[Input], target: type[Target], network: type[Body]) -> bool:
    """One training step of input x target x network: every parameter gets a gradient. False where they do not fit."""
    task, examples = _task(inputs, target)
    if task is None or examples is None or not fits(task, network):
        return False
    (name,) = task.inputs
    whole = build({name: network.Config.model_validate(dict(network.tiny))}, task)
    batch = _batch(task, examples, range(len(examples)))
    draw = Draw(seed=0, epoch=0, records_B=batch.records_B)
    sum(task.target.loss(whole.train(), task.augment(batch, draw), draw).values()).backward()  # type: ignore[union-attr]
    missing = [each for each, parameter in whole.named_parameters() if parameter.grad is None]
    assert not missing, f"no gradient reaches {missing}"
    return True


def fits(task: Task, network: type[Body]) -> bool:
    """Whether a network accepts what the one input offers and gives what the target asks."""
    (part,) = task.inputs.values()
    ask = task.target.ask
    return part.shape.form in network.accepts and ask.per in network.gives and (network.causal or not ask.causal)


_SHAPES = {
    "grid": Shape(form="grid", channels=3, size=(32, 32)),
    "tokens": Shape(form="tokens", vocabulary=11, size=(16,)),
    "frames": Shape(form="frames", channels=32, size=(32,)),
    "vector": Shape(form="vector", channels=6),
    "columns": Shape(form="columns", channels=4, categories=(3, 5)),
}


def _features(shape: Shape, count: int) -> Tensors:
    """Random tensors of a shape, as a front gives them."""
    generator = torch.Generator().manual_seed(0)
    if shape.form == "grid":
        return {"grid": torch.randn(count, shape.channels, *shape.size, generator=generator)}
    if shape.form == "tokens":
        tokens = torch.randint(1, shape.vocabulary, (count, shape.size[0]), generator=generator)
        return {"tokens": tokens, "length": torch.full((count,), shape.size[0])}
    if shape.form == "frames":
        frames = torch.randn(count, shape.size[0], shape.channels, generator=generator)
        return {"frames": frames, "length": torch.full((count,), shape.size[0])}
    if shape.form == "vector":
        return {"vector": torch.randn(count, shape.channels, generator=generator)}
    columns = [torch.randint(0, size, (count,), generator=generator) for size in shape.categories]
    numbers = torch.randn(count, shape.channels, generator=generator)
    return {"numbers": numbers, "categories": torch.stack(columns, dim=1)}


def _check_shape(shape: Shape, tensors: Tensors, count: int) -> None:
    name = {"columns": "numbers"}.get(shape.form, shape.form)
    if shape.form == "tokens":
        assert tensors["tokens"].dtype == torch.int64
        assert int(tensors["tokens"].max()) < shape.vocabulary, "a token is outside the vocabulary"
        assert tensors["tokens"].shape[1] <= shape.size[0] + 1, "more tokens than the shape promises"
    elif shape.form == "columns":
        assert tensors["categories"].shape == (count, len(shape.categories))
        for column, size in zip(tensors["categories"].T, shape.categories, strict=True):
            assert int(column.max()) < size, "a category is outside its range"
    if shape.form != "tokens" and shape.channels:
        assert tensors[name].is_floating_point(), "the front does not give floats"
        assert torch.isfinite(tensors[name]).all(), "the front gives numbers that are not finite"
        channel = 1 if shape.form in ("grid", "vector", "columns") else 2
        assert tensors[name].shape[channel] == shape.channels, "other channels than the shape promises"


def _check_part(part: Part, records: Records) -> None:
    """Purity, whole columns = one by one, and saving."""
    before = torch.get_rng_state()
    columns, errors = part.encode_many(records)
    assert not errors, f"its own sample cannot be read: {errors}"
    for index in range(len(records)):
        one, again = part.encode(records[index]), part.encode(records[index])
        _equal(one, again, "encode is not pure")
        _equal(one, {name: _row(column, index) for name, column in columns.items()}, "encode_many differs from encode")
    assert torch.equal(before, torch.get_rng_state()), "encode uses the global generator"
    values, tensors = part.save()
    config = type(part).Config.model_validate(json.loads(part.config.model_dump_json()))
    copy = type(part).restore(config, json.loads(json.dumps(values, allow_nan=False)), tensors)
    again, _ = copy.encode_many(records)
    for name, column in columns.items():
        for index in range(len(records)):
            assert torch.equal(_row(column, index), _row(again[name], index)), "saving and restoring changes encode"


def _check_rows(part: Part, columns: Columns) -> None:
    """A batch is its examples beside each other: only padding may depend on the company."""
    together = part.collate(columns)
    for index in range(_examples(columns)):
        alone = part.collate(take(columns, torch.tensor([index])))
        for name, tensor in alone.items():
            row = together[name][index]
            for axis in range(1, tensor.ndim):
                row = row.narrow(axis - 1, 0, tensor.shape[axis])
            assert torch.equal(tensor[0], row), f"{name} of an example depends on its batch"


def _check_sums(task: Task, network: nn.Module, whole: Batch, parts: list[Batch]) -> None:
    draw = Draw(seed=0, epoch=0, records_B=whole.records_B)
    together = task.target.loss(network, whole, draw)
    halves = [task.target.loss(network, part, Draw(seed=0, epoch=0, records_B=part.records_B)) for part in parts]
    for name, value in together.items():
        assert value.ndim == 0, f"the loss term {name} is not a sum"
        torch.testing.assert_close(value, sum(half[name] for half in halves), msg=f"loss term {name} is not additive")
    torch.testing.assert_close(
        task.target.count(whole), sum(task.target.count(part) for part in parts), msg="count is not additive"
    )


def _check_micro_batches(task: Task, network: nn.Module, whole: Batch) -> None:
    """Four micro-batches give the gradient of one big batch."""
    gradients = []
    for size in (len(whole), max(1, len(whole) // 4)):
        network.zero_grad()
        for part in whole.split(size):
            draw = Draw(seed=0, epoch=0, records_B=part.records_B)
            loss = sum(task.target.loss(network, part, draw).values())
            (loss / task.target.count(whole)).backward()  # type: ignore[union-attr]
        gradients.append([parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None])
    assert gradients[0], "no gradient at all"
    torch.testing.assert_close(
        gradients[0], gradients[1], rtol=1e-4, atol=1e-6, msg="micro-batches change the gradient"
    )


def _check_answers(task: Task, network: nn.Module, examples: Examples) -> None:
    """Predictions are JSON and do not depend on the batch; neither does what the metrics are computed from."""
    network.eval()
    batch = _batch(task, examples, range(len(examples)))
    with torch.inference_mode():
        together = task.predict(network, batch.inputs)
        measured = task.target.measure(network, batch)
        for index in range(len(examples)):
            one = _batch(task, examples, [index])
            (alone,) = task.predict(network, one.inputs)
            assert _close(alone, together[index]), f"predicted alone {alone}, in a batch {together[index]}"
            for name, column in task.target.measure(network, one).items():
                torch.testing.assert_close(column[0], measured[name][index], rtol=1e-4, atol=1e-5)
    json.dumps(together, allow_nan=False)
    columns = {name: column.numpy() for name, column in measured.items()}
    weights = np.ones((2, len(examples)))
    found = task.target.metrics(columns, weights)
    assert task.target.best[0] in found, f"the score {task.target.best[0]} is not among the metrics"
    assert all(value.shape == (2,) for value in found.values()), "a metric is not one number per row of weights"


def _check_body(body: Body, tensors: Tensors, per: str) -> None:
    torch.manual_seed(0)
    answer = body.train()(_copy(tensors))
    grids = answer if isinstance(answer, tuple) else (answer,)
    widths = body.width if isinstance(body.width, tuple) else (body.width,)
    for grid, width in zip(grids, widths, strict=True):
        assert grid.shape[0] == 3, "not one answer per example"
        assert grid.shape[1 if per in ("example", "pixel") else 2] == width, "other channels than `width` says"
    torch.stack([(grid**2).sum() for grid in grids]).sum().backward()
    missing = [name for name, parameter in body.named_parameters() if parameter.grad is None]
    assert not missing, f"no gradient reaches {missing}"
    body.eval()
    with torch.inference_mode():
        together = body(_copy(tensors))
        for index in range(3):
            alone = body({name: tensor[index : index + 1] for name, tensor in tensors.items()})
            _near(alone, together, index, "alone and in a batch")
        if "length" in tensors and per == "example":
            short = {**tensors, "length": torch.tensor([7, 16, 9]).clamp(max=tensors["length"][0])}
            padded = body(_copy(short))
            for index, length in enumerate(short["length"].tolist()):
                cut = {name: tensor[index : index + 1] for name, tensor in short.items()}
                main = "tokens" if "tokens" in cut else "frames"
                if body.fixed_length:
                    continue
                cut[main] = cut[main][:, :length]
                _near(body(cut), padded, index, "with and without padding")


def _check_causal(body: Body, tensors: Tensors) -> None:
    main = "tokens" if "tokens" in tensors else "frames"
    body.eval()
    with torch.inference_mode():
        before = body(_copy(tensors))
        changed = _copy(tensors)
        changed[main][:, 10:] = changed[main][:, 10:].flip(0)
        after = body(changed)
        assert isinstance(before, Tensor)
        assert isinstance(after, Tensor)
        torch.testing.assert_close(before[:, :10], after[:, :10], msg="an answer depends on what comes later")
        cache, pieces = None, []
        for start, stop in ((0, 9), (9, 10), (10, tensors[main].shape[1])):
            piece, cache = body.extend({main: tensors[main][:, start:stop]}, cache)
            pieces.append(piece)
        torch.testing.assert_close(
            torch.cat(pieces, 1), before, rtol=1e-4, atol=1e-5, msg="extend differs from forward"
        )


def _check_imports(kind: type, room: str) -> None:
    """A kind sees no sibling: adding or removing one touches no other."""
    others = {name.replace("-", "_") for name in lookup.kinds(room)}
    package = lookup.ROOMS[room]
    tree = ast.parse(inspect.getsource(inspect.getmodule(kind) or kind))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
        origin = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        for name in names:
            whole = f"{origin}.{name}" if origin else name
            sibling = whole.removeprefix(package + ".").split(".")[0] if whole.startswith(package + ".") else ""
            assert sibling not in others, f"{kind.__module__} imports its sibling {sibling}"


def _task(inputs: type[Input], target: type[Target]) -> tuple[Task | None, Examples | None]:
    """A fitted task on the samples of an input and a target, or None where they do not fit."""
    config, records = inputs.sample(COUNT, np.random.default_rng(0))
    target_config, truths = target.sample(COUNT, np.random.default_rng(1))
    records = records.with_fields(**truths.fields)
    part = inputs.fit(config, records)
    try:
        task = Task(inputs={"given": part}, target=target.fit(target_config, records, {"given": part}))
        examples = encode(task, records).examples
    except Exception as error:
        from sonde.base.errors import UserError

        if isinstance(error, UserError):
            return None, None
        raise
    return task, examples


class _Linear(nn.Module):
    """The least network that answers what is asked: a linear map of the features at hand, with weights of its own."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        (self.name,) = task.inputs
        part = task.inputs[self.name]
        self.shape, self.ask = part.shape, task.target.ask
        self.front = part.front()
        torch.manual_seed(0)
        width = {"tokens": 8, "columns": self.shape.channels + len(self.shape.categories)}.get(
            self.shape.form, self.shape.channels
        )
        self.embed = nn.Embedding(self.shape.vocabulary, 8) if self.shape.form == "tokens" else None
        self.linear = nn.Linear(width, self.ask.width)

    def forward(self, inputs: Mapping[str, Tensors], at_N: Tensor | None = None) -> Tensor:
        answer = self._answer(inputs)
        return answer if at_N is None else answer.flatten(0, 1)[at_N]

    def _answer(self, inputs: Mapping[str, Tensors]) -> Tensor:
        tensors = self.front(dict(inputs[self.name]))
        if self.shape.form == "grid":
            features = tensors["grid"].movedim(1, -1)
            answer = self.linear(features)
            return answer.movedim(-1, 1) if self.ask.per == "pixel" else answer.mean(dim=(1, 2))
        if self.shape.form == "columns":
            return self.linear(torch.cat([tensors["numbers"], tensors["categories"].float()], dim=1))
        if self.shape.form == "vector":
            return self.linear(tensors["vector"])
        values = tensors["frames"] if self.embed is None else self.embed(tensors["tokens"])
        answer = self.linear(values)
        if self.ask.per == "position":
            return answer
        inside = torch.arange(values.shape[1])[None, :, None] < tensors["length"][:, None, None]
        return (answer * inside).sum(1) / tensors["length"][:, None]


def _batch(task: Task, examples: Examples, indices: Any) -> Batch:
    chosen = torch.tensor(list(indices))
    return task.collate(examples.take(chosen), chosen)


def _examples(columns: Columns) -> int:
    return len(next(iter(columns.values())))


def _row(column: Tensor | Ragged, index: int) -> Tensor:
    return column[index]


def _copy(tensors: Tensors) -> Tensors:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _equal(one: Tensors, other: Tensors, message: str) -> None:
    assert one.keys() == other.keys(), message
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype, f"{message} ({name}: {tensor.dtype} and {other[name].dtype})"
        assert torch.equal(tensor, other[name]), f"{message} ({name})"


def _near(alone: Any, together: Any, index: int, message: str) -> None:
    pairs = zip(alone, together, strict=True) if isinstance(alone, tuple) else [(alone, together)]
    for one, all_of_them in pairs:
        row = all_of_them[index : index + 1]
        row = row[:, : one.shape[1]]
        torch.testing.assert_close(one, row, rtol=1e-4, atol=1e-5, msg=f"the answer differs {message}")


def _close(one: Any, other: Any) -> bool:
    """Equal JSON values, numbers up to rounding."""
    if isinstance(one, dict):
        return (
            isinstance(other, dict) and one.keys() == other.keys() and all(_close(one[key], other[key]) for key in one)
        )
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(_close, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 1e-4 + 1e-3 * abs(other)
    return one == other
