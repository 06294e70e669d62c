"""The stages of a run, each from what came before: data, task, network, encoded splits, loop, scores, card."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from sonde import __version__, classical, evaluation, loop, networks
from sonde.base import dist, lookup, weight_files
from sonde.base.config import Config, kind_of
from sonde.base.device import Precision, choose_device
from sonde.base.errors import Diverged, UserError, unknown
from sonde.base.progress import Progress
from sonde.base.rng import BatchRng, generator, initial_weights, key
from sonde.contracts.backbone import Backbone, BackboneConfig
from sonde.contracts.batch import Examples
from sonde.contracts.classical import EstimatorConfig, Unsuitable
from sonde.contracts.columns import EvalColumns
from sonde.contracts.input import Input
from sonde.contracts.part import Part
from sonde.contracts.records import Records
from sonde.contracts.target import Target
from sonde.contracts.task import Task
from sonde.data.batches import Batches
from sonde.data.load import Dataset, load
from sonde.data.store import Encoded, encode
from sonde.evaluation import familiar
from sonde.evaluation import trust as doubts
from sonde.evaluation.calibration import Calibrated, calibrate
from sonde.evaluation.observe import Observed, observe_all
from sonde.evaluation.trust import Trust
from sonde.recipe import Recipe
from sonde.training import autotune, checkpoint, frozen, optimizers, parallel
from sonde.training.ema import EMA
from sonde.training.run_folder import RunFolder
from sonde.training.schedules import Schedule

# Examples on which merged adapters are tried, and by how much an answer may move, relative where it is above one.
MERGE_TRIED, MERGE_ALLOWED = 64, 1e-4
# Skipped records that people are told of, one by one.
SHOWN = 8
# Validation examples below which the choice of a checkpoint is mostly chance.
CHOOSING = 50

# What a classical model is given that has to be there within seconds: so many training records, and so many numbers
# (records times answers times columns).
QUICK_ROWS, QUICK_CELLS = 5000, 30_000_000

# A score that calibration moves by less is the same: what is undone and done again differs by rounding.
SAME = 1e-6

Scores = dict[str, dict[str, evaluation.Score]]


def load_data(recipe: Recipe) -> Dataset:
    """The records that a recipe names, split and fingerprinted."""
    target = _kind("targets", recipe.target, Target)
    parts: list[tuple[Config, type[Part]]] = [(recipe.target, target)]
    parts += [(config, _kind("inputs", config, Input)) for config in recipe.inputs.values()]
    used = [name for config, kind in parts for name in kind.fields(config)]
    answers = set(target.fields(recipe.target)) & set(used[len(target.fields(recipe.target)) :])
    if answers:
        raise UserError(
            f"the answer is among the inputs: {', '.join(sorted(answers))}",
            expected="inputs that are known before the answer is",
            hint="take it out of the input's fields",
        )
    files_in = [name for config, kind in parts if kind.reads_file for name in kind.fields(config)]
    answers = target.fields(recipe.target)
    by = recipe.decision.coverage_by
    return load(
        recipe.data,
        recipe.source,
        files=files_in,
        used=[*used, *([by] if by is not None else [])],
        label=next(iter(answers), None),
        needed=answers if target.needs_truth else [],
        seed=recipe.training.seed,
    )


def target_kind(recipe: Recipe) -> type[Target]:
    """The class of the recipe's target."""
    return _kind("targets", recipe.target, Target)


def fit_task(recipe: Recipe, train: Records, own: nn.Module | None = None) -> Task:
    """Inputs and target, fitted on the training split only; inputs as the pretrained weights of their backbones want
    them (`own`: there is someone's module in place of the recipe's networks)."""
    inputs: dict[str, Input] = {}
    for name, config in recipe.inputs.items():
        kind, network = _kind("inputs", config, Input), recipe.network.get(name)
        wanted = None
        if network is not None and own is None and recipe.classical is None:
            backbone = lookup.find("networks", kind_of(network), Backbone)  # type: ignore[type-abstract]
            wanted = backbone.preprocessing(network)
        inputs[name] = kind.fit(config, train) if wanted is None else kind.fit_to(config, train, wanted)
    target = _kind("targets", recipe.target, Target).fit(recipe.target, train, inputs)
    target.check_decision(recipe.decision)
    return Task(inputs=inputs, target=target)


def build_network(recipe: Recipe, task: Task, own: nn.Module | None = None) -> nn.Module:
    """The network with its first weights, which depend on the seed alone; `own` is someone's module in its place."""
    with initial_weights(key(recipe.training.seed, "weights")):
        network = networks.wrap(own, task) if own else networks.build(recipe.network, task)
    return network.to(choose_device())


def resolved_networks(recipe: Recipe, network: nn.Module) -> dict[str, BackboneConfig]:
    """The settings of the backbones as an artifact keeps them: it needs no place of first weights any more, and no
    adapters where those were merged."""
    assert isinstance(network, networks.Network)
    found: dict[str, BackboneConfig] = {}
    for name, config in recipe.network.items():
        kind = lookup.find("networks", kind_of(config), Backbone)  # type: ignore[type-abstract]
        config = kind.resolved(config)
        if config.lora is not None:
            backbone = network.backbones[name]
            kept = networks.lora.settings_of(backbone, config.lora) if networks.lora.adapted(backbone) else None
            config = config.model_copy(update={"lora": kept})
        found[name] = config
    return found


def about_network(network: nn.Module) -> list[str]:
    """How first weights were found, and how much of the network is trained, where that is not all of it."""
    if not isinstance(network, networks.Network):
        return []
    notes = [note for each in network.backbones.values() if isinstance(each, Backbone) for note in each.notes]
    trained = sum(one.numel() for one in network.parameters() if one.requires_grad)
    # Packed in 4 bits, two weights are a byte.
    packed = {name for name, _ in network.named_buffers() if name.endswith(".packed")}
    whole = sum(one.numel() for one in network.parameters())
    whole += sum(2 * buffer.numel() for name, buffer in network.named_buffers() if name in packed)
    adapters = [part for each in networks.lora.adapted(network).values() for part in (each.lora_A, each.lora_B)]
    size = sum(part.weight.numel() * part.weight.element_size() for part in adapters)
    if trained < whole:
        adapter = f"; adapters of {size / 1e6:.2g} MB" if adapters else ""
        notes.append(f"trains {trained:,} of {whole:,} weights ({100 * trained / whole:.2g} %){adapter}")
    return notes


def write_adapters(recipe: Recipe, network: nn.Module, folder: Path, progress: Progress) -> None:
    """The adapters of a run in peft's format, beside its artifact."""
    for name, config in recipe.network.items():
        if config.lora is not None and isinstance(network, networks.Network):
            backbone = network.backbones[name]
            assert isinstance(backbone, Backbone)
            base = str(config.weights or dict(config).get("name") or kind_of(config))
            size = networks.lora.write(backbone, config.lora, folder / name, base=base)
            progress.message(f"adapter of {name}: {folder / name} ({size / 1e6:.2g} MB, peft's format)")


def merge_adapters(recipe: Recipe, task: Task, state: loop.State, sets: dict[str, Encoded], progress: Progress) -> None:
    """Adapters into the weights beside them, where the recipe wants it and no answer moves by it: tried on examples."""
    wanted = [name for name, config in recipe.network.items() if config.lora is not None and config.lora.merge]
    if not wanted or not isinstance(state.network, networks.Network):
        return
    split = next(name for name in ("validation", "test", "train") if name in sets)
    some = sets[split].examples.take(torch.arange(min(MERGE_TRIED, len(sets[split].examples))))
    exact = Precision(kind="fp32", device=choose_device())
    before = evaluation.eval_outputs(task, state.network, some, precision=exact)
    merged = copy.deepcopy(state.network)
    for name in wanted:
        networks.lora.merge(merged.backbones[name])
    moved = evaluation.apart(before, evaluation.eval_outputs(task, merged, some, precision=exact))
    if not moved <= MERGE_ALLOWED:
        progress.message(
            f"not merged: answers would move by {moved:.2g} (allowed {MERGE_ALLOWED:g}); the artifact keeps the adapter"
        )
        return
    progress.message(f"adapters merged into the weights: answers move by {moved:.2g} at most")
    state.network = merged


def encode_split(
    recipe: Recipe, task: Task, split: str, data: Dataset, folder: RunFolder, progress: Progress
) -> Encoded:
    """A split as encoded examples; what was skipped is told."""
    records = data.splits[split]
    progress.begin(f"encode {split}", len(records))
    encoded = encode(
        task,
        records,
        weight=recipe.data.weight,
        group=recipe.data.group_field,
        memory=recipe.data.memory * 2**30,
        cache=folder.cache / split,
        on_progress=progress.at,
    )
    _tell_skipped(encoded.unreadable | encoded.unseen, progress)
    return encoded


def _tell_skipped(errors: dict[str, str], progress: Progress) -> None:
    for name, error in list(errors.items())[:SHOWN]:
        progress.message(f"skipped {name}: {error}")
    if len(errors) > SHOWN:
        progress.message(f"skipped {len(errors) - SHOWN} more; log.jsonl names them all")


def keep_features(
    recipe: Recipe, task: Task, network: nn.Module, sets: dict[str, Encoded], progress: Progress
) -> tuple[Task, dict[str, Encoded]]:
    """The task and the splits with the features of frozen backbones in place of their inputs, where they fit into
    memory: an epoch then costs no more than the head."""
    names = frozen.inputs_of(network, {name for name, config in recipe.network.items() if config.cache_features})
    if not names:
        return task, sets
    assert isinstance(network, networks.Network)
    needed = sum(frozen.size_of(task, network, names, each) for each in sets.values()) / 2**30
    shown = ", ".join(names)
    if needed > recipe.data.memory:
        progress.message(
            f"frozen backbone of {shown}: its features would take {needed:.1f} GiB, more than data.memory; they are "
            "computed in every step"
        )
        return task, sets
    started = time.perf_counter()
    kept: dict[str, Encoded] = {}
    for split, each in sets.items():
        progress.begin(f"features of {split}", len(each.examples))
        kept[split] = frozen.with_features(task, network, names, each, progress.at)
    progress.message(
        f"frozen backbone of {shown}: features computed once, in {time.perf_counter() - started:.0f} s; "
        "no augmentation of that input (network.cache_features = false augments, and computes them in every step)"
    )
    return frozen.task_of(task, names), kept


def prepare(
    recipe: Recipe, task: Task, network: nn.Module, train: Encoded, precision_file: Path | None, progress: Progress
) -> tuple[loop.State, loop.Plan, Batches]:
    """What the loop needs: a state at step 0, the plan, and the batches.

    The number format is chosen before the first step, and kept in `precision_file` for a resume.
    """
    training, device = recipe.training, choose_device()
    batches = Batches(
        task,
        train.examples,
        size=training.batch_size,
        seed=training.seed,
        group_by_length=training.group_by_length,
        rank=dist.rank(),
        world=dist.world_size(),
        device=device,
    )
    micro_batch = min(training.micro_batch or batches.size, parallel.per_rank_batch_size(batches.size))
    plan = loop.Plan(
        steps=training.steps or max(1, round((training.epochs or 1) * batches.per_epoch)),
        seed=training.seed,
        precision=Precision(kind="fp32", device=device),
        max_grad_norm=training.max_grad_norm or None,
        spike=training.rollback.spike if training.rollback else None,
        # FSDP's sharded parameters cannot be told to skip an update.
        read_every_step=device.type == "cpu" or (training.parallel == "fsdp" and dist.world_size() > 1),
    )
    workload = autotune.Workload(task=task, network=network, batches=batches, plan=plan, micro_batch=micro_batch)
    chosen = autotune.resolve(workload, training.precision, training.compile, precision_file)
    progress.message(str(chosen))
    plan = plan.in_format(Precision(kind=chosen.format, device=device))
    parallel_network = parallel.parallelize(network, training.parallel)
    state = loop.State(
        network=network,
        parallel_network=autotune.compiled(parallel_network) if chosen.compiled else parallel_network,
        optimizers=optimizers.build(training.optimizer, network, plan.precision.matmul_dtype),
        schedule=Schedule(training.schedule, plan.steps),
        ema=EMA(network, training.ema_decay) if training.ema_decay else None,
        micro_batch=micro_batch,
    )
    return state, plan, batches


def show_first_batch(task: Task, batches: Batches, seed: int, folder: RunFolder) -> None:
    """The first batch as training sees it, with its truth, in the run folder, where the target can draw it."""
    if not dist.is_main() or type(task.target).draw_batch is Target.draw_batch:
        return
    # Features of a frozen backbone are no pictures.
    if any(isinstance(part, frozen.Featured) for part in task.inputs.values()):
        return
    batch, epoch = batches.at(0)
    some = task.split(batch, SHOWN)[0]
    picture = task.target.draw_batch(
        task.augment(some, BatchRng(seed=seed, epoch=epoch, records_B=some.records_B, progress=0.0))
    )
    if picture is not None:
        picture.save(folder.path / "first_batch.png")


def fit_classical(recipe: Recipe, task: Task, sets: dict[str, Encoded], progress: Progress) -> loop.State:
    """The recipe's classical model in place of a trained network.

    Raises:
        UserError: there is none for this task.
    """
    assert recipe.classical is not None
    started = time.perf_counter()
    progress.begin("fit", 1)
    validation = sets["validation"].examples if "validation" in sets else None
    seed = recipe.training.seed
    model = classical.fit(task, recipe.classical, sets["train"].examples, validation, seed=seed)
    progress.message(f"fitted {kind_of(recipe.classical)} in {time.perf_counter() - started:.1f} s")
    return loop.State(network=model, optimizers=[])


def beside_reference(
    recipe: Recipe, task: Task, sets: dict[str, Encoded], scores: Scores, progress: Progress
) -> Scores:
    """The scores, and beside each what the classical model scores that people would try first, if that takes seconds.

    It is fitted to a sample where there are many records, and says so.
    """
    if not recipe.ladder.reference or recipe.classical is not None or not scores:
        return scores
    train = sets["train"].examples
    offer = _first_choice(task, classical.offers(task, train))
    if offer is None:
        return scores
    progress.begin(f"fit {offer.about}", 1)
    validation = sets["validation"].examples if "validation" in sets else None
    try:
        rows, count = _quick_rows(task, train, offer.trials[0])
        model = classical.fit(task, offer.trials[0], train, validation, seed=recipe.training.seed, most_rows=rows)
    except Unsuitable:
        return scores
    name = offer.about.partition(" on ")[0]
    if count < len(train):
        name += f" ({count:,} of {len(train):,} records)"
    exact = Precision(kind="fp32", device=choose_device())
    found: Scores = {}
    for split, each in scores.items():
        columns = evaluation.eval_outputs(task, model, sets[split].examples, precision=exact)
        values = evaluation.values(task, columns, sets[split].weight)
        found[split] = {
            metric: replace(score, reference=evaluation.finite(values.get(metric, math.nan)), reference_name=name)
            for metric, score in each.items()
        }
    return found


def _first_choice(task: Task, offers: list[classical.Offer]) -> classical.Offer | None:
    """The model that people try first on such inputs; a linear one where they disagree."""
    good = {offer.kind: offer for offer in offers if not offer.reason}
    choices = {part.feature_map().first_choice for part in task.inputs.values()}
    wanted = choices.pop() if len(choices) == 1 else "linear"
    return good.get(wanted, good.get("linear"))


def _quick_rows(task: Task, train: Examples, config: EstimatorConfig) -> tuple[int, int]:
    """How many rows of features such a model takes within seconds, and how many records those are."""
    total, columns = classical.size(task, train)
    rows = min(QUICK_ROWS, QUICK_CELLS // max(1, columns * max(1, task.target.width)))
    rows = min(total, max(200, rows // 2 if kind_of(config) == "svm" else rows))
    return rows, len(train) * rows // total


def check_monitor(recipe: Recipe, task: Task, network: nn.Module, sets: dict[str, Encoded]) -> None:
    """That the score which the recipe wants to watch exists, found out on two examples."""
    monitor = recipe.training.monitor
    if monitor is None:
        return
    if "validation" not in sets:
        raise UserError("training.monitor needs a validation split", hint="data.split = { validation = 0.1 }")
    examples = sets["validation"].examples
    some = examples.take(torch.arange(min(2, len(examples))))
    precision = Precision(kind="fp32", device=choose_device())
    found = evaluation.values(task, evaluation.eval_outputs(task, network, some, precision=precision))
    if monitor not in found:
        raise unknown(monitor, found, what="training.monitor: the score")


def notes(recipe: Recipe, sets: dict[str, Encoded]) -> list[str]:
    """What people should know of the splits before they wait for scores."""
    if recipe.training.checkpoint != "best" or "validation" not in sets:
        return []
    count = len(sets["validation"].examples)
    if count >= CHOOSING:
        return []
    return [
        f"the validation split has {count} {'example' if count == 1 else 'examples'}: too few to choose by; "
        'training.checkpoint = "last" keeps the last weights, data.split.validation makes the split larger'
    ]


def use_best(recipe: Recipe, folder: RunFolder, state: loop.State) -> None:
    """Put the weights that become the artifact into the network."""
    weights = checkpoint.weights(state)
    dist.barrier()
    best = chosen_by_validation(recipe, state)
    checkpoint.put_weights(state.network, checkpoint.read_best(folder.checkpoints, state) if best else weights)


def chosen_by_validation(recipe: Recipe, state: loop.State) -> bool:
    """Whether the artifact's weights are those that did best on the validation split."""
    return recipe.training.checkpoint == "best" and state.best_step > 0


def remember(task: Task, state: loop.State, train: Encoded, progress: Progress) -> Task:
    """The task whose target keeps what it wants of the trained network's outputs for the training split."""
    if not task.target.remembers:
        return task
    progress.begin("remember the training split", len(train.examples))
    exact = Precision(kind="fp32", device=choose_device())
    columns = evaluation.eval_outputs(
        task, state.network, train.examples, precision=exact, size=state.micro_batch, on_progress=progress.at
    )
    return Task(inputs=task.inputs, target=task.target.remember(columns, train.ids))


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The task as it leaves, and what the validation split said for that: its columns without calibration, and with it,
    each record calibrated without itself; both empty without such a split."""

    task: Task
    trust: Trust | None = None
    raw: EvalColumns = field(default_factory=dict)
    columns: EvalColumns = field(default_factory=dict)


def learn_trust(
    recipe: Recipe, task: Task, state: loop.State, data: Dataset, sets: dict[str, Encoded], progress: Progress
) -> Judged:
    """What held-out answers teach: calibration, the recipe's decision, conformal scores, what is familiar."""
    if "validation" not in sets:
        return Judged(task=task)
    held = sets["validation"]
    judged = learn_decision(recipe, task, state, held, progress)
    some, validation = _observed(recipe, judged.task, state, sets, progress)
    by = recipe.decision.coverage_by
    values = None
    if by is not None:
        places = {name: place for place, name in enumerate(data.splits["validation"].ids)}
        column = data.splits["validation"].fields[by]
        values = [column[places[name]] for name in held.ids]
    trust = doubts.fit(
        recipe.decision,
        judged.task.target,
        judged.columns,
        train=some,
        validation=validation,
        values_N=values,
        seed=recipe.training.seed,
    )
    return replace(judged, trust=trust if trust.has_regions or trust.measures else None)


def learn_decision(recipe: Recipe, task: Task, state: loop.State, held: Encoded, progress: Progress) -> Judged:
    """The task calibrated by a held-out split, and deciding as the recipe asks."""
    raw = _outputs(task, state, held, "answer validation", progress)
    _require_finite(raw, "validation")
    calibrated = calibrate_by(recipe, task.target, raw, held)
    if calibrated.method:
        progress.message(calibrated.to_text())
    target, notes = calibrated.target.decide(recipe.decision, calibrated.columns)
    for note in notes:
        progress.message(note)
    return Judged(task=Task(inputs=task.inputs, target=target), raw=raw, columns=calibrated.columns)


def calibrate_by(recipe: Recipe, target: Target, raw: EvalColumns, held: Encoded) -> Calibrated:
    """The target calibrated on the outputs of a split, as the recipe wants it."""
    wanted = recipe.decision.calibrate
    if wanted is False:
        return Calibrated(target=target, columns=raw)
    return calibrate(
        target, raw, seed=recipe.training.seed, weight_N=held.weight, groups=held.groups, always=wanted is True
    )


def _observed(
    recipe: Recipe, task: Task, state: loop.State, sets: dict[str, Encoded], progress: Progress
) -> tuple[Observed, Observed]:
    """What the network makes of some training records and of the validation split."""
    nothing = Observed(features=None, answers=None)
    # The parts of a sharded network are together only while it is called as a whole.
    if dist.world_size() > 1 and recipe.training.parallel == "fsdp":
        progress.message("no references of familiar records under fsdp")
        return nothing, nothing
    # What is made out of nothing cannot be like training or unlike it.
    if recipe.decision.familiar == "off" or task.target.makes:
        return nothing, nothing
    exact = Precision(kind="fp32", device=choose_device())
    train = sets["train"].examples
    chosen = torch.arange(len(train))
    if len(train) > familiar.REFERENCES:
        order = torch.randperm(len(train), generator=generator(recipe.training.seed, "references"))
        chosen = order[: familiar.REFERENCES].sort().values
    progress.begin("references", len(chosen))
    some = observe_all(task, state.network, train.take(chosen), precision=exact, on_progress=progress.at)
    return some, observe_all(task, state.network, sets["validation"].examples, precision=exact)


def score(recipe: Recipe, judged: Judged, state: loop.State, sets: dict[str, Encoded], progress: Progress) -> Scores:
    """Every held-out split under the artifact's weights, in float32: what serving computes. The validation split's
    records are calibrated without themselves."""
    task, scores = judged.task, Scores()
    for split in ("validation", "test"):
        if split not in sets:
            continue
        fitted = split == "validation"
        columns = judged.columns if fitted else _outputs(task, state, sets[split], f"score {split}", progress)
        _require_finite(columns, split)
        found = evaluation.scores(
            task,
            columns,
            seed=recipe.training.seed,
            weight=sets[split].weight,
            truth=sets[split].examples.truth or None,
            groups=sets[split].groups,
            chose_checkpoint=fitted and chosen_by_validation(recipe, state),
        )
        raw = judged.raw if fitted else task.target.before_calibration(columns)
        plain = Task(inputs=task.inputs, target=task.target.uncalibrated())
        scores[split] = beside_before(
            found,
            evaluation.values(plain, dict(raw), sets[split].weight),
            chose_decision=fitted and recipe.decision.decides,
            out_of_fold=fitted and judged.columns is not judged.raw,
        )
    return scores


def beside_before(
    found: dict[str, evaluation.Score],
    before: Mapping[str, float],
    *,
    chose_decision: bool = False,
    out_of_fold: bool = False,
) -> dict[str, evaluation.Score]:
    """Scores, and beside each what it was before calibration and decision, where that is another number."""
    marked: dict[str, evaluation.Score] = {}
    for name, one in found.items():
        plain = evaluation.finite(before.get(name, math.nan))
        differs = plain is not None and one.value is not None and abs(plain - one.value) > SAME
        marked[name] = replace(
            one, before=plain if differs else None, chose_decision=chose_decision, out_of_fold=out_of_fold
        )
    return marked


def _outputs(task: Task, state: loop.State, held: Encoded, words: str, progress: Progress) -> EvalColumns:
    progress.begin(words, len(held.examples))
    exact = Precision(kind="fp32", device=choose_device())
    return evaluation.eval_outputs(
        task, state.network, held.examples, precision=exact, size=state.micro_batch, on_progress=progress.at
    )


def _require_finite(columns: EvalColumns, split: str) -> None:
    if not evaluation.all_finite(columns):
        raise Diverged(
            f"the trained network's answers for the {split} split are NaN or infinite; no artifact was made",
            hint="lower training.optimizer.lr",
        )


def card(recipe: Recipe, data: Dataset, scores: Scores, state: loop.State) -> dict[str, Any]:
    """What the artifact says of itself."""
    return {
        "sonde": __version__,
        "task": {"inputs": [kind_of(config) for config in recipe.inputs.values()], "target": kind_of(recipe.target)},
        "data": {"fingerprint": data.snapshot.fingerprint, "records": {k: len(v) for k, v in data.splits.items()}},
        "parameters": _num_parameters(state.network),
        "weights_of_step": state.best_step or state.step,
        "weights": _first_weights(recipe),
        "scores": evaluation.to_json(scores),
        "recipe": recipe.to_toml(),
    }


def _first_weights(recipe: Recipe) -> dict[str, dict[str, str]]:
    """Of each backbone that did not start from nothing: where its weights came from, and their hash."""
    found = {}
    for name, config in recipe.network.items():
        kind = lookup.find("networks", kind_of(config), Backbone)  # type: ignore[type-abstract]
        path = kind.first_weights(config)
        if path is not None:
            named = dict(config).get("name")
            found[name] = {"source": str(config.weights or named), "sha256": weight_files.digest(path)}
    return found


def _num_parameters(network: nn.Module) -> int:
    """Numbers that were learned; a classical model has them all as buffers."""
    learned = network.buffers() if isinstance(network, classical.ClassicalModel) else network.parameters()
    return sum(one.numel() for one in learned)


Contract = TypeVar("Contract", Input, Target)


def _kind(room: str, config: Config, contract: type[Contract]) -> type[Contract]:
    return lookup.find(room, kind_of(config), contract)
