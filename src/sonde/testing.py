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
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sonde import loop
from sonde.base import lookup
from sonde.base.device import Precision
from sonde.base.rng import BatchRng
from sonde.contracts.answers import to_json
from sonde.contracts.backbone import Backbone, BackboneConfig
from sonde.contracts.batch import Batch, Examples
from sonde.contracts.columns import Columns, Ragged, Tensors, take, to_numpy
from sonde.contracts.input import Input
from sonde.contracts.layouts import LAYOUTS
from sonde.contracts.part import Part
from sonde.contracts.records import Records
from sonde.contracts.specs import Advice, Features, InputSpec, OutputSpec, Per
from sonde.contracts.target import PairwiseTarget, Target
from sonde.contracts.task import Task
from sonde.data.snapshot import snapshot
from sonde.data.source import Source
from sonde.data.store import encode
from sonde.networks import build, fits

COUNT = 12
# Numbers per example that steer a backbone which can be steered.
CONDITION = 3


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
            lookup.find("inputs", section["kind"], Input)  # type: ignore[type-abstract]
        lookup.find("targets", guess.target["kind"], Target)  # type: ignore[type-abstract]
    _check_imports(kind, "sources")


def check_input(kind: type[Input]) -> None:
    """encode is pure and equals encode_many; saving loses nothing; augmentation is keyed; preprocess fits the spec."""
    config, records = kind.sample(COUNT, np.random.default_rng(0))
    part = kind.fit(config, records)
    _check_part(part, records)
    columns = part.make_windows(part.encode_many(records)[0])
    tensors = part.collate(columns)
    count = _count(columns)
    _check_rows(part, columns)
    rng = BatchRng(seed=1, epoch=2, records_B=torch.arange(count))
    before = torch.get_rng_state()
    (first, params), (second, _) = part.augment(_copy(tensors), rng), part.augment(_copy(tensors), rng)
    assert torch.equal(before, torch.get_rng_state()), "augment uses the global generator"
    _equal(first, second, "augment gives other results for the same random numbers")
    if params.resized is None:
        LAYOUTS[part.spec.layout].check(part.spec, part.preprocess(first), count)
    given = _copy(tensors)
    LAYOUTS[part.spec.layout].check(part.spec, part.preprocess(given), count)
    _equal(given, tensors, "preprocess changes what it is given")
    for per in part.gives:
        advice = kind.recommend(config, OutputSpec(per=(per,)), records)
        assert isinstance(advice, Advice)
        kind.Config.model_validate({**config.model_dump(), **advice.input})
    _check_imports(kind, "inputs")


def check_target(kind: type[Target]) -> None:
    """With every input that its declaration fits, and with a second input beside: losses are sums, micro-batches
    change nothing, single = batched. What the declaration excludes must be told by a UserError."""
    tried = 0
    for name in lookup.kinds("inputs"):
        first = lookup.find("inputs", name, Input)  # type: ignore[type-abstract]
        if not belongs(kind, first):
            _check_refused(kind, first)
            continue
        tried += 1
        for beside in (None, "table")[kind.num_inputs - 1 :]:
            task, examples = sample_task(first, kind, beside=beside)
            network = _small_network(task)
            everything = _batch(task, examples, range(len(examples)))
            half = len(examples) // 2
            parts = [_batch(task, examples, range(half)), _batch(task, examples, range(half, len(examples)))]
            _check_sums(task, network, everything, parts)
            _check_micro_batches(task, network, everything)
            _check_answers(task, network, examples)
            _check_saving(task, examples)
    assert tried, f"no input fits {kind.__name__}"
    _check_imports(kind, "targets")


def check_network(kind: type[Backbone]) -> None:
    """For every layout and answer that it claims: gradients everywhere, single = batched, no padding seen, no leak."""
    tried = 0
    for spec, output in _claims(kind):
        tried += 1
        config = kind.Config.model_validate(dict(kind.tiny_for(spec)))
        with torch.device("meta"):
            # So its shapes are known before memory is taken: an artifact is not believed what sizes it asks for.
            kind(config, spec, output)
        torch.manual_seed(0)
        backbone = kind(config, spec, output)
        tensors = LAYOUTS[spec.layout].random(spec, 3, torch.Generator().manual_seed(0))
        if output.condition:
            tensors["condition"] = torch.randn(3, output.condition)
        _check_backbone(backbone, spec, output, tensors)
        if output.causal:
            _check_causal(backbone, LAYOUTS[spec.layout].main, tensors)
        if output.condition:
            _check_steered(backbone, tensors)
    assert tried, f"{kind.__name__} claims nothing"
    _check_imports(kind, "networks")


def check_task(inputs: type[Input], target: type[Target], network: type[Backbone]) -> bool:
    """One training step of input x target x network, and a head alone when the backbone is frozen: every parameter
    that is trained gets a gradient, no other does. False where the declarations say that they do not fit."""
    if not belongs(target, inputs):
        return False
    task, examples = sample_task(inputs, target)
    name, spec = next(iter(task.specs.items()))
    if not fits(spec, task.outputs[name], network):
        return False
    for freeze in (False, True):
        config = network.Config.model_validate({**network.tiny_for(spec), "freeze": freeze})
        whole = build({**small_networks(task), name: config}, task)
        batch = _batch(task, examples, range(len(examples)))
        state = loop.State(network=whole.train(), optimizers=[])
        if not state.parameters:
            continue
        loop.gradients(task, batch, 0, state, _plan())
        missing = [each for each, value in whole.named_parameters() if value.requires_grad and value.grad is None]
        assert not missing, f"no gradient reaches {missing}"
        assert not (freeze and any(each.training for each in whole.backbones[name].modules())), (
            "a frozen backbone trains"
        )
    return True


def belongs(target: type[Target], kind: type[Input]) -> bool:
    """Whether a target says that it can belong to an input of this kind."""
    config, records = kind.sample(COUNT, np.random.default_rng(0))
    part = kind.fit(config, records)
    spec = part.spec
    answerable = bool(set(target.asks.per) & set(part.gives))
    if spec.layout == "grid" and len(spec.size) not in target.dimensions:
        return False
    return answerable and (not target.accepts or spec.layout in target.accepts)


def sample_task(kind: type[Input], target: type[Target], *, beside: str | None = None) -> tuple[Task, Examples]:
    """A fitted task on the samples of an input and a target, with a second input `beside` if named or needed."""
    if target.num_inputs > 1:
        beside = beside or "table"
    parts = (
        {"given": kind}
        if beside is None
        else {
            "given": kind,
            "beside": lookup.find("inputs", beside, Input),  # type: ignore[type-abstract]
        }
    )
    configs, records = {}, Records(fields={}, ids=[f"record {index}" for index in range(COUNT)])
    for number, (name, each) in enumerate(parts.items()):
        configs[name], found = each.sample(COUNT, np.random.default_rng(number))
        records = records.with_fields(**found.fields)
    target_config, truths = target.sample(COUNT, np.random.default_rng(1), records)
    records = records.with_fields(**truths.fields)
    inputs = {name: each.fit(configs[name], records) for name, each in parts.items()}
    if beside is not None and "input" in type(target_config).model_fields:
        target_config = target_config.model_copy(update={"input": "given"})
    task = Task(inputs=inputs, target=target.fit(target_config, records, inputs))
    return task, encode(task, records).examples


def _check_refused(target: type[Target], kind: type[Input]) -> None:
    """What a target does not belong to is refused by a UserError, when it is fitted or when a network is built."""
    from sonde.base.errors import UserError

    try:
        task, _ = sample_task(kind, target)
        _small_network(task)
    except UserError:
        return
    raise AssertionError(f"{target.__name__} takes {kind.__name__}, which its declaration excludes")


def _small_network(task: Task) -> nn.Module:
    """The real assembly, as small as it gets."""
    torch.manual_seed(0)
    return build(small_networks(task), task).eval()


def small_networks(task: Task) -> dict[str, BackboneConfig]:
    """For each input the first backbone on disk that fits it, as small as it gets.

    Raises:
        UserError: none fits.
    """
    configs: dict[str, BackboneConfig] = {}
    for name, spec in task.specs.items():
        for kind in lookup.kinds("networks"):
            backbone = lookup.find("networks", kind, Backbone)  # type: ignore[type-abstract]
            # Networks of other libraries need those.
            if fits(spec, task.outputs[name], backbone) and not backbone.loads_itself:
                configs[name] = backbone.Config.model_validate(dict(backbone.tiny_for(spec)))
                break
        else:
            from sonde.base.errors import UserError

            raise UserError(f"no network fits the input {name!r}")
    return configs


def _claims(kind: type[Backbone]) -> Iterator[tuple[InputSpec, OutputSpec]]:
    """Every input and answer that a backbone says it is for."""
    for name in kind.accepts:
        layout = LAYOUTS[name]
        specs = [layout.sample]
        if name == "tokens" and kind.takes_subwords:
            specs.append(replace(layout.sample, subwords=7))
        if name == "grid":
            sizes = {1: (32,), 2: (32, 32), 3: (8, 16, 16)}
            specs = [InputSpec(layout="grid", channels=3, size=sizes[each]) for each in kind.dimensions]
        pers: list[Per] = [per for per in layout.gives if per in kind.gives]
        for spec, per in product(specs, pers):
            yield spec, OutputSpec(per=(per,), width=5)
            if kind.causal and per == "position" and name in ("tokens", "frames") and not spec.subwords:
                yield spec, OutputSpec(per=(per,), width=5, causal=True)
            if kind.conditions:
                yield spec, OutputSpec(per=(per,), width=5, condition=CONDITION)


def _check_part(part: Input, records: Records) -> None:
    """Purity, whole columns = one by one, and saving."""
    before = torch.get_rng_state()
    columns, errors = part.encode_many(records)
    assert not errors, f"its own sample cannot be read: {errors}"
    for index in range(len(records)):
        one, again = part.encode(records[index]), part.encode(records[index])
        _equal(one, again, "encode is not pure")
        _equal(one, {name: _row(column, index) for name, column in columns.items()}, "encode_many differs from encode")
    assert torch.equal(before, torch.get_rng_state()), "encode uses the global generator"
    restored = _restored(part)
    restored.check_fitted({})
    again, _ = restored.encode_many(records)
    for name, column in columns.items():
        for index in range(len(records)):
            assert _same(_row(column, index), _row(again[name], index)), "saving and restoring changes encode"


def _restored(part: Any) -> Any:
    """The part as an artifact gives it back."""
    values, tensors = part.save()
    config = type(part).Config.model_validate(json.loads(part.config.model_dump_json()))
    return type(part).restore(config, json.loads(json.dumps(values, allow_nan=False)), tensors)


def _check_rows(part: Part, columns: Columns) -> None:
    """A batch is its examples beside each other: only padding may depend on the company."""
    together = part.collate(columns)
    for index in range(_count(columns)):
        alone = part.collate(take(columns, torch.tensor([index])))
        if "edges" in alone:
            _equal(LAYOUTS["graph"].alone(together, index), alone, "a graph depends on its batch")
            continue
        for name, tensor in alone.items():
            row = together[name][index]
            for axis in range(1, tensor.ndim):
                row = row.narrow(axis - 1, 0, tensor.shape[axis])
            assert _same(tensor[0], row), f"{name} of an example depends on its batch"


def _check_sums(task: Task, network: nn.Module, whole: Batch, parts: list[Batch]) -> None:
    if not isinstance(task.target, PairwiseTarget):
        together = task.target.loss(network, *_prepared(task, whole))
        halves = [task.target.loss(network, *_prepared(task, part)) for part in parts]
        for name, value in together.items():
            assert value.ndim == 0, f"the loss term {name} is not a sum"
            torch.testing.assert_close(
                value, sum(half[name] for half in halves), msg=f"loss term {name} is not additive"
            )
        assert set(task.target.counts(whole)) == set(together), "counts has other terms than loss"
    counts = task.target.counts(whole)
    halves = [task.target.counts(part) for part in parts]
    for name, count in counts.items():
        torch.testing.assert_close(count, sum(half[name] for half in halves), msg=f"count {name} is not additive")


def _prepared(task: Task, batch: Batch) -> tuple[Batch, BatchRng]:
    return task.preprocess(batch), BatchRng(seed=0, epoch=0, records_B=batch.records_B)


def _check_micro_batches(task: Task, network: nn.Module, whole: Batch) -> None:
    """Four micro-batches give the gradient of one big batch, through the loop's own arithmetic."""
    still = Task(inputs=task.inputs, target=task.target)
    gradients = []
    for size in (len(whole), max(1, len(whole) // 4)):
        state = loop.State(network=network, optimizers=[], micro_batch=size)
        loop.gradients(still.without_augmentation(), whole, 0, state, _plan())
        gradients.append([parameter.grad.clone() for parameter in state.parameters if parameter.grad is not None])
    assert gradients[0], "no gradient at all"
    for whole_gradient, in_parts in zip(*gradients, strict=True):
        # What cancels in a sum is rounded as its largest terms are.
        atol = 1e-6 + 1e-5 * float(whole_gradient.abs().max())
        torch.testing.assert_close(
            in_parts, whole_gradient, rtol=1e-4, atol=atol, msg="micro-batches change the gradient"
        )


def _plan() -> loop.Plan:
    return loop.Plan(steps=1, seed=0, precision=Precision(kind="fp32", device=torch.device("cpu")))


def _check_answers(task: Task, network: nn.Module, examples: Examples) -> None:
    """Predictions are JSON and do not depend on the batch; neither does what the metrics are computed from."""
    network.eval()
    ids = [f"record {index}" for index in range(len(examples))]
    with torch.inference_mode():
        batch = task.preprocess(_batch(task, examples, range(len(examples))))
        outputs = task.target.eval_outputs(network, batch)
        columns = {name: to_numpy(column) for name, column in outputs.items()}
        if task.target.remembers:
            task = Task(inputs=task.inputs, target=task.target.remember(columns, ids))
        together = task.predict(network, batch)
        for index in range(len(examples)):
            one = task.preprocess(_batch(task, examples, [index]))
            (alone,) = task.predict(network, one)
            assert _close(alone, together[index]), f"predicted alone {alone}, in a batch {together[index]}"
            for name, column in task.target.eval_outputs(network, one).items():
                torch.testing.assert_close(_row(column, 0), _row(outputs[name], index), rtol=1e-4, atol=1e-5)
    json.dumps([to_json(each) for each in together], allow_nan=False)
    weights = np.ones((2, len(examples)))
    found = task.target.metrics(columns, weights)
    assert task.target.monitor[0] in found, f"the score {task.target.monitor[0]} is not among the metrics"
    assert all(value.shape == (2,) for value in found.values()), "a metric is not one number per row of weights"
    assert isinstance(task.target.warnings(columns), list)
    constant = task.target.baseline(examples.truth)
    if constant is not None:
        answers = task.target.metrics({name: to_numpy(column) for name, column in constant.items()}, weights)
        assert set(answers) == set(found), "the baseline has other scores"
        assert task.target.baseline_name, "the baseline has no name"


def _check_saving(task: Task, examples: Examples) -> None:
    """A target as an artifact gives it back asks the same."""
    restored = _restored(task.target)
    restored.check_fitted(task.inputs)
    assert Task(inputs=task.inputs, target=restored).outputs == task.outputs, (
        "saving and restoring changes what a target asks"
    )


def _check_backbone(backbone: Backbone, spec: InputSpec, output: OutputSpec, tensors: Tensors) -> None:
    torch.manual_seed(0)
    layout = LAYOUTS[spec.layout]
    grids = _grids(backbone.train()(_copy(tensors)))
    widths = backbone.width if isinstance(backbone.width, tuple) else (backbone.width,)
    for grid, width in zip(grids, widths, strict=True):
        expected = len(tensors["nodes"]) if output.chosen == "node" else 3 * backbone.members
        assert grid.shape[0] == expected, "not one answer per example (or node)"
        axis = 2 if output.chosen in ("position", "channel") else 1
        assert grid.shape[axis] == width, "other channels than `width` says"
    total = torch.stack([(grid**2).sum() for grid in grids]).sum()
    if any(value.requires_grad for value in backbone.parameters()):
        total.backward()
    missing = [name for name, value in backbone.named_parameters() if value.requires_grad and value.grad is None]
    assert not missing, f"no gradient reaches {missing}"
    backbone.eval()
    with torch.inference_mode():
        together = _grids(backbone(_copy(tensors)))
        for index in range(3):
            alone = _grids(backbone(_one(layout.alone, tensors, index)))
            _near(alone, together, index, tensors, output, "alone and in a batch", backbone.members)
        if (
            "length" in tensors
            and spec.layout != "graph"
            and not backbone.fixed_length
            and output.chosen in ("example", "channel")
        ):
            short = {**tensors, "length": torch.tensor([7, spec.size[0], 9]).clamp(max=spec.size[0])}
            padded = _grids(backbone(_copy(short)))
            for index in range(3):
                cut = _grids(backbone(_one(layout.alone, short, index)))
                _near(cut, padded, index, short, output, "with and without padding")


def _one(alone: Any, tensors: Tensors, index: int) -> Tensors:
    """One example of a batch; what steers it goes along."""
    one = alone({name: value for name, value in tensors.items() if name != "condition"}, index)
    return {**one, **({"condition": tensors["condition"][index : index + 1]} if "condition" in tensors else {})}


def _check_steered(backbone: Backbone, tensors: Tensors) -> None:
    """A condition changes the features of its example and of no other. (They may start out unsteered.)"""
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        before = _grids(backbone(_copy(tensors)))
        changed = _copy(tensors)
        changed["condition"][0] += 1
        after = _grids(backbone(changed))
    assert any(not torch.allclose(one[0], other[0]) for one, other in zip(before, after, strict=True)), (
        "the condition changes nothing"
    )
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one[1:], other[1:], msg="the condition of one example changes another")


def _check_causal(backbone: Backbone, main: str, tensors: Tensors) -> None:
    backbone.eval()
    with torch.inference_mode():
        (before,) = _grids(backbone(_copy(tensors)))
        changed = _copy(tensors)
        changed[main][:, 10:] = changed[main][:, 10:].flip(1)
        (after,) = _grids(backbone(changed))
        torch.testing.assert_close(before[:, :10], after[:, :10], msg="an answer depends on what comes later")
        cache, pieces = None, []
        for start, stop in ((0, 9), (9, 10), (10, tensors[main].shape[1])):
            piece, cache = backbone.extend({main: tensors[main][:, start:stop]}, cache)
            pieces.append(piece)
        torch.testing.assert_close(
            torch.cat(pieces, 1), before, rtol=1e-4, atol=1e-5, msg="extend differs from forward"
        )


def _grids(values: Any) -> tuple[Tensor, ...]:
    """What a backbone gave, as a tuple of tensors."""
    if isinstance(values, Features):
        values = values.values
    return values if isinstance(values, tuple) else (values,)


def _check_imports(kind: type, room: str) -> None:
    """A kind sees no sibling: adding or removing one touches no other."""
    others = {name.replace("-", "_") for name in lookup.kinds(room)}
    package = lookup.ROOMS[room]
    own = kind.__module__.removeprefix(package + ".").split(".")[0]
    tree = ast.parse(inspect.getsource(inspect.getmodule(kind) or kind))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
        origin = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        for name in names:
            whole = f"{origin}.{name}" if origin else name
            sibling = whole.removeprefix(package + ".").split(".")[0] if whole.startswith(package + ".") else ""
            assert sibling == own or sibling not in others, f"{kind.__module__} imports its sibling {sibling}"


def _batch(task: Task, examples: Examples, indices: Any) -> Batch:
    chosen = torch.tensor(list(indices))
    return task.collate(examples.take(chosen), chosen)


def _count(columns: Columns) -> int:
    return len(next(iter(columns.values())))


def _row(column: Tensor | Ragged, index: int) -> Tensor:
    return column[index]


def _copy(tensors: Tensors) -> Tensors:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _equal(one: Tensors, other: Tensors, message: str) -> None:
    assert one.keys() == other.keys(), message
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype, f"{message} ({name}: {tensor.dtype} and {other[name].dtype})"
        assert _same(tensor, other[name]), f"{message} ({name})"


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal; NaN, which stands for a missing value, equals NaN."""
    if not one.is_floating_point():
        return torch.equal(one, other)
    return torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(), other.nan_to_num())


def _near(
    alone: tuple[Tensor, ...],
    together: tuple[Tensor, ...],
    index: int,
    tensors: Tensors,
    output: OutputSpec,
    message: str,
    members: int = 1,
) -> None:
    for one, all_of_them in zip(alone, together, strict=True):
        if output.chosen == "node":
            ends = tensors["length"].cumsum(0)
            row = all_of_them[int(ends[index] - tensors["length"][index]) : int(ends[index])]
        else:
            row = all_of_them[index * members : (index + 1) * members]
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
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.shape == other.shape and np.allclose(one, other, rtol=1e-3, atol=1e-4)
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 1e-4 + 1e-3 * abs(other)
    return one == other
