"""Embeddings: losses beside slow references, batches of P x K, collapse that is told, answers with the nearest."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

import sonde
from sonde import loop
from sonde.base.device import Precision
from sonde.base.errors import RecordError, UserError
from sonde.commands.new import write_recipe
from sonde.contracts.batch import Examples
from sonde.contracts.records import Records, as_field
from sonde.contracts.task import Task
from sonde.data.batches import Batches
from sonde.inputs.image import Image
from sonde.inputs.text import Text
from sonde.networks import build
from sonde.networks.cnn import CnnConfig
from sonde.recipe import Recipe
from sonde.targets.embedding import Embedding, EmbeddingConfig, code_of
from sonde.testing import sample_task

LOSSES = [
    {"loss": "supervised-contrastive"},
    {"loss": "supervised-contrastive", "learn_temperature": True},
    {"loss": "triplet"},
    {"loss": "triplet", "margin": "soft", "similarity": "euclidean"},
    {"loss": "contrastive"},
    {"loss": "contrastive", "margin": 2.0, "similarity": "euclidean"},
]


def records(*labels):
    return Records(fields={"label": as_field(list(labels))}, ids=[f"row {number}" for number in range(len(labels))])


def embedding(*labels, **settings):
    return Embedding.fit(EmbeddingConfig(**settings), records(*(labels or ("a", "a", "b", "b", "c"))), {})


def vectors(count, width=5, seed=0, norm=True):
    drawn = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return functional.normalize(drawn, dim=1) if norm else drawn


def given(labels, seed=0, norm=True):
    codes = torch.tensor([code_of(label) for label in labels])
    return {"embedding": vectors(len(labels), seed=seed, norm=norm), "code": codes, "record": torch.arange(len(labels))}


def slow(target, labels, embeddings, records_B):
    """Every anchor's cost by the formulas, one number at a time."""
    config, points = target.config, embeddings.double().tolist()
    costs = []
    for i, anchor in enumerate(points):
        same = [j for j in range(len(points)) if labels[j] == labels[i] and records_B[j] != records_B[i]]
        other = [j for j in range(len(points)) if labels[j] != labels[i]]
        if not same or not other:
            costs.append(0.0)
        elif config.loss == "supervised-contrastive":
            scores = {
                j: sum(map(math.prod, zip(anchor, points[j], strict=True))) / config.temperature for j in same + other
            }
            total = sum(map(math.exp, scores.values()))
            costs.append(-sum(math.log(math.exp(scores[j]) / total) for j in same) / len(same))
        elif config.loss == "triplet":
            gap = max(math.dist(anchor, points[j]) for j in same) - min(math.dist(anchor, points[j]) for j in other)
            costs.append(math.log(1 + math.exp(gap)) if config.margin == "soft" else max(0.0, gap + 0.2))
        else:
            lacking = [max(0.0, (config.margin or 1.0) - math.dist(anchor, points[j])) ** 2 for j in other]
            lacking = [each for each in lacking if each] or [0.0]
            near = sum(math.dist(anchor, points[j]) ** 2 for j in same) / len(same)
            costs.append(near + sum(lacking) / len(lacking))
    return costs


@pytest.mark.parametrize("settings", LOSSES, ids=str)
def test_losses_are_those_of_the_formulas(settings):
    target = embedding(**settings)
    labels = ["a", "b", "a", "c", "b", "a", "lonely", "b", "c"]
    held = given(labels, norm=target.config.similarity == "cosine")
    # Record 5 is in the batch twice, as a small class may be: it is no positive of itself.
    held = {name: torch.cat([value, value[5:6]]) for name, value in held.items()}
    labels = [*labels, "a"]
    costs = slow(target, labels, held["embedding"], held["record"].tolist())
    ((name, loss),) = target.compare(held).items()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(sum(costs), rel=1e-5)
    weight = torch.rand(len(labels), generator=torch.Generator().manual_seed(1))
    weighted = target.compare({**held, "weight": weight})[name]
    assert weighted.item() == pytest.approx(sum(map(math.prod, zip(costs, weight.tolist(), strict=True))), rel=1e-5)


@pytest.mark.parametrize("settings", LOSSES, ids=str)
@pytest.mark.parametrize("labels", ["ab", "aa", "aabb", "a"])
def test_losses_and_gradients_are_finite_where_embeddings_are_alike_or_alone(settings, labels):
    target = embedding(**settings)
    held = given(labels)
    for points in (torch.zeros(len(labels), 5), torch.ones(len(labels), 5) / 5**0.5, held["embedding"]):
        leaf = points.clone().requires_grad_()
        ((_, loss),) = target.compare({**held, "embedding": leaf}).items()
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(leaf.grad).all()
        if labels != "aabb":
            assert loss.item() == 0.0


def test_half_precision_around_it_changes_no_loss():
    target = embedding(loss="supervised-contrastive", temperature=0.05)
    held = given("aabbccaabb")
    with torch.autocast("cpu", torch.bfloat16):
        inside = target.compare(held)
    assert torch.equal(inside["supervised_contrastive"], target.compare(held)["supervised_contrastive"])


def pictures(count=24, labels="abcd", weight=False, **settings):
    """A task on random pictures, its network and a batch."""
    rng = np.random.default_rng(0)
    config, found = Image.sample(count, rng)
    found = found.with_fields(label=as_field([labels[index % len(labels)] for index in range(count)]))
    image = Image.fit(config.model_copy(update={"augment": type(config.augment)()}), found)
    task = Task(inputs={"image": image}, target=Embedding.fit(EmbeddingConfig(width=8, **settings), found, {}))
    columns, _, _ = task.encode_inputs(found)
    truth, _ = task.target.encode_many(found, columns)
    weights = torch.rand(count, generator=torch.Generator().manual_seed(3)) if weight else None
    examples = Examples(inputs={"image": columns["image"]}, truth=truth, count=count, weight=weights)
    torch.manual_seed(0)
    network = build({"image": CnnConfig(widths=(4, 8), convolutions=1, norm="layer", dropout=0.0)}, task)
    return task, network, task.collate(examples, torch.arange(count))


@pytest.mark.parametrize("settings", LOSSES, ids=str)
@pytest.mark.parametrize("weight", [False, True])
def test_micro_batches_change_nothing(settings, weight):
    task, network, batch = pictures(weight=weight, **settings)
    plan = loop.Plan(steps=1, seed=0, precision=Precision(kind="fp32", device=torch.device("cpu")))
    found = []
    for size in (24, 12, 7, 1):
        state = loop.State(network=network, optimizers=[], micro_batch=size)
        ((_, loss),) = loop.gradients(task, batch, 0, state, plan).items()
        found.append((loss, [parameter.grad.clone() for parameter in state.parameters]))
    assert found[0][0] > 0
    for loss, gradients in found[1:]:
        torch.testing.assert_close(loss, found[0][0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradients, found[0][1], rtol=1e-4, atol=1e-5)


def test_a_learned_temperature_is_learned():
    task, network, batch = pictures(learn_temperature=True)
    plan = loop.Plan(steps=1, seed=0, precision=Precision(kind="fp32", device=torch.device("cpu")))
    loop.gradients(task, batch, 0, loop.State(network=network, optimizers=[]), plan)
    assert network.head.log_scale.exp().item() == pytest.approx(10)
    assert network.head.log_scale.grad.abs().item() > 0
    with torch.no_grad():
        network.head.log_scale.fill_(50.0)
        assert network(task.preprocess(batch).inputs)["scale"].max().item() == pytest.approx(100)


def test_counts_are_examples_and_additive():
    task, _, batch = pictures(weight=True)
    parts = task.split(batch, 5)
    total = sum(task.target.counts(part)["supervised_contrastive"] for part in parts)
    torch.testing.assert_close(total, batch.weight_B.sum())


def test_batches_are_of_p_classes_and_k_records():
    labels = [name for name in "abcdefgh" for _ in range(10)] + ["single"]
    target = embedding(*labels, per_class=4)
    task = Task(inputs={}, target=target)
    truth, _ = target.encode_many(records(*labels), {})
    batches = Batches(task, Examples(inputs={}, truth=truth, count=len(labels)), size=16, seed=0)
    for step in range(2 * batches.per_epoch):
        _, counts = np.unique(batches.at(step).batch.truth["code"].numpy(), return_counts=True)
        assert counts.tolist() == [4, 4, 4, 4]
    assert embedding(*labels, per_class=1).together(truth) is None


def test_labels_that_training_never_saw_are_fine_and_a_missing_one_is_not():
    target = embedding()
    columns, errors = target.encode_many(records("a", "new", None, 7.0, "7"), {})
    assert columns["code"].tolist() == [code_of("a"), code_of("new"), code_of("7"), code_of("7")]
    assert [str(error) for error in errors.values()] == [
        "the label in field 'label' is missing. Expected a text, a whole number, true or false."
    ]
    assert target.encode({"label": "new"}, {})["code"].item() == code_of("new")
    with pytest.raises(RecordError, match="the label in field 'label' is missing"):
        target.encode({}, {})
    # The same on every machine and in every version: artifacts and runs rely on it.
    assert code_of("a") == 1659156400721280356
    assert 0 <= code_of("new") < 1 << 63


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "a"], "all 2 labels in field 'label' of the training split are 'a'. Expected at least two classes"),
        (["a", "b"], "every label in field 'label' of the training split belongs to one record, such as 'a'"),
        ([None, None], "no record of the training split has a label in field 'label'"),
    ],
)
def test_data_without_pairs_is_refused(labels, message):
    with pytest.raises(UserError) as caught:
        embedding(*labels)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"similarity": "euclidean"}, "supervised-contrastive compares by cosine; for euclidean use triplet"),
        ({"loss": "contrastive", "margin": "soft"}, "the margin can be soft for the triplet loss only"),
        ({"loss": "triplet", "margin": -1.0}, "the margin -1 must be above 0"),
    ],
)
def test_settings_that_do_not_go_together(settings, message):
    with pytest.raises(ValueError, match=message):
        EmbeddingConfig(**settings)


def test_mixing_is_refused():
    from sonde.contracts.augment import AugmentParams

    with pytest.raises(UserError, match="mixup and cutmix make records of two classes"):
        embedding().apply_augment({}, AugmentParams(mix_weight_B=torch.ones(2)))


def clusters(classes, each, spread, seed=0, width=16):
    """Embeddings of norm 1 around a centre for each class."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, width)).repeat(each, axis=0)
    points = centres / np.linalg.norm(centres, axis=1, keepdims=True) + spread * rng.normal(size=centres.shape)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return {"embedding": points.astype(np.float32), "code": np.arange(classes).repeat(each)}


def test_scores():
    target = embedding()
    weights = np.ones((2, 200))
    good = target.metrics(clusters(25, 8, 0.01), weights)
    assert set(good) == {
        *("map_at_r", "recall_at_1", "recall_at_5", "recall_at_10"),
        *("few_shot_5_way_1_shot", "few_shot_5_way_5_shot", "few_shot_20_way_1_shot"),
    }
    assert all(value.tolist() == [1.0, 1.0] for value in good.values())
    chance = target.metrics(clusters(25, 8, 1000.0), weights)
    assert chance["few_shot_20_way_1_shot"][0] == pytest.approx(0.05, abs=0.02)
    assert chance["few_shot_5_way_1_shot"][0] == pytest.approx(0.2, abs=0.03)
    # Too few classes for twenty ways, too few records for five shots.
    few = target.metrics(clusters(10, 4, 0.01), np.ones((1, 40)))
    assert np.isnan(few["few_shot_20_way_1_shot"]).all()
    assert np.isnan(few["few_shot_5_way_5_shot"]).all()
    assert few["few_shot_5_way_1_shot"].tolist() == [1.0]


@pytest.mark.parametrize("settings", LOSSES, ids=str)
def test_collapse_is_told_and_health_is_not(settings):
    target = embedding(**settings)
    assert target.warnings(clusters(20, 10, 0.05)) == []
    assert target.warnings(clusters(2, 100, 0.0)) == []
    alike = clusters(20, 10, 0.05)
    for points in (alike["embedding"] * 0, alike["embedding"] * 0 + 0.25, 0.25 + alike["embedding"] * 1e-3):
        (told,) = target.warnings({**alike, "embedding": points})
        assert told.startswith("the embeddings have collapsed: the records of the validation split lie almost at one")
        assert "lower training.optimizer.lr" in told
    (told,) = target.warnings(clusters(20, 10, 1000.0))
    assert told.startswith("the embeddings of the validation split say nothing about its classes")
    assert target.warnings({"embedding": alike["embedding"][:1], "code": alike["code"][:1]}) == []
    # One class is at one place as it should be, and a few outliers hide no collapse.
    assert target.warnings({"embedding": alike["embedding"] * 0, "code": alike["code"] * 0}) == []
    points = alike["embedding"] * 0 + 0.25
    points[::20] *= -10.0
    (told,) = target.warnings({**alike, "embedding": points})
    assert told.startswith("the embeddings have collapsed")


def test_what_a_collapsed_triplet_loss_is_stuck_at():
    alike = {"embedding": np.ones((6, 4), np.float32) / 2, "code": np.arange(6) // 2}
    assert "the loss stays near its margin of 0.2; " in embedding(loss="triplet").warnings(alike)[0]
    assert "the loss stays near log 2 = 0.69; " in embedding(loss="triplet", margin="soft").warnings(alike)[0]
    held = {"embedding": torch.from_numpy(alike["embedding"]), "code": torch.arange(6) // 2, "record": torch.arange(6)}
    assert embedding(loss="triplet").compare(held)["triplet"].item() == pytest.approx(6 * 0.2)


DIGITS = {
    "data": {"source": "sklearn:digits", "split": {"by": "stratified"}},
    "inputs": {"image": {"kind": "image"}},
    "target": {"kind": "embedding", "width": 16},
    "network": {"kind": "mlp", "hidden": [32]},
    "training": {"steps": 40, "batch_size": 64, "evaluate_every": 20, "precision": "fp32", "optimizer": {"lr": 3e-3}},
}


def digits(**changes):
    return Recipe.of({**DIGITS, **{name: {**DIGITS[name], **change} for name, change in changes.items()}})


def told(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["warning"] for line in lines if "warning" in line]


def test_a_run_that_collapses_is_told_while_it_trains(tmp_path):
    target = {"loss": "triplet", "similarity": "euclidean"}
    found = sonde.fit(digits(target=target, training={"optimizer": {"lr": 1.0}}), out=tmp_path / "run")
    (first, *_) = told(found.folder)
    assert first.startswith("the embeddings have collapsed")
    assert "the loss stays near its margin of 0.2" in first


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return sonde.fit(digits(), out=tmp_path_factory.mktemp("digits") / "run")


def test_digits_are_found_again_without_a_warning(trained):
    assert told(trained.folder) == []
    assert trained.scores["test"]["recall_at_1"].value > 0.8
    assert trained.scores["test"]["few_shot_20_way_1_shot"].value is None


def test_the_artifact_answers_with_the_nearest_records(trained):
    from sonde import stages

    splits = stages.load_data(digits()).splits
    model = sonde.load(trained.artifact)
    (itself,) = model.predict([{"image": splits["train"][7]["image"]}])
    assert itself["nearest"][0]["id"] == splits["train"].ids[7]
    assert itself["nearest"][0]["similarity"] == pytest.approx(1.0, abs=1e-5)
    answers = model.predict([{"image": each["image"]} for each in splits["test"]])
    right = [answer["label"] == str(each["label"]) for answer, each in zip(answers, splits["test"], strict=True)]
    assert np.mean(right) > 0.85
    for answer in answers:
        assert set(answer) == {"label", "nearest"}
        assert len(answer["nearest"]) == 5
        assert answer["label"] == answer["nearest"][0]["label"]
        near = [each["similarity"] for each in answer["nearest"]]
        assert near == sorted(near, reverse=True)
    of_record = dict(zip(splits["train"].ids, map(str, splits["train"].fields["label"].tolist()), strict=True))
    assert all(of_record[each["id"]] == each["label"] for answer in answers for each in answer["nearest"])
    json.dumps(answers, allow_nan=False)


def test_what_is_remembered_is_spread_over_classes():
    labels = ["a"] * 10 + ["b"] * 3 + ["c"] * 5
    target = embedding(*labels, remember=9, width=2)
    columns = {
        "embedding": np.arange(36, dtype=np.float32).reshape(18, 2),
        "code": np.array([code_of(label) for label in labels]),
    }
    kept = target.remember(columns, [f"row {number}" for number in range(18)])
    assert kept.known_ids == ["row 0", "row 1", "row 2", "row 10", "row 11", "row 12", "row 13", "row 14", "row 15"]
    assert [kept.names[place] for place in kept.known_class_N] == ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    assert kept.known_NW[3].tolist() == [20.0, 21.0]
    assert target.known_ids == []
    values, tensors = kept.save()
    again = Embedding.restore(kept.config, json.loads(json.dumps(values)), tensors)
    assert again._nearest(torch.ones(1, 2)) == kept._nearest(torch.ones(1, 2))
    assert embedding(*labels, remember=0, width=2).remember(columns, ["row"] * 18).known_NW.shape == (0, 2)


def test_an_answer_before_anything_is_remembered():
    task, network, batch = pictures(answer_embedding=True)
    answers = task.predict(network.eval(), task.preprocess(batch))
    assert [(answer["label"], answer["nearest"]) for answer in answers] == [(None, [])] * 24
    assert len(answers[0]["embedding"]) == 8
    assert np.linalg.norm(answers[0]["embedding"]) == pytest.approx(1, abs=1e-5)


def test_nearest_by_distance_and_ties_in_order():
    target = embedding(loss="triplet", similarity="euclidean", width=2, nearest=3)
    columns = {
        "embedding": np.array([[9, 9], [1, 0], [0, 0], [1, 0], [-1, 0]], np.float32),
        "code": np.array([code_of(label) for label in "aabbc"]),
    }
    kept = target.remember(columns, ["far", "right", "here", "right again", "left"])
    (found,) = kept._nearest(torch.zeros(1, 2))
    assert [(each["id"], each["label"], each["distance"]) for each in found] == [
        ("here", "b", 0.0),
        ("right", "a", pytest.approx(1)),
        ("right again", "b", pytest.approx(1)),
    ]


def test_with_a_second_input_neither_drowns_the_other():
    task, examples = sample_task(Text, Embedding, beside="table")
    head = task.target.head({"given": 16, "beside": 4})
    assert {name: norm.normalized_shape for name, norm in head.norms.items()} == {
        "norm_given": (16,),
        "norm_beside": (4,),
    }
    assert len(task.target.head({"given": 16}).norms) == 0
    assert len(examples) == 12


def test_sonde_new_writes_an_embedding_with_whole_classes_held_out(shared, tmp_path):
    source = str(shared / "omniglot_small1")
    found = write_recipe(source, tmp_path / "seen.toml")
    assert any(
        "136 classes with 20 records" in warning and "--kind embedding" in warning for warning in found.guess.warnings
    )
    found = write_recipe(source, tmp_path / "recipe.toml", kind="embedding")
    assert found.guess.warnings == ()
    recipe = Recipe.read(tmp_path / "recipe.toml")
    assert isinstance(recipe.target, EmbeddingConfig)
    assert recipe.data.split.by == "group"
    assert recipe.data.split.field == "label"
    from sonde import stages

    splits = stages.load_data(recipe).splits
    labels = {name: set(part.fields["label"]) for name, part in splits.items()}
    assert not labels["train"] & labels["test"]
    assert not labels["train"] & labels["validation"]
    assert all(len(labels[name]) >= 20 for name in ("validation", "test"))
    assert "Greek/character01" in set.union(*labels.values())
    with pytest.raises(UserError, match="the target kind 'embeding' does not exist"):
        write_recipe(source, tmp_path / "other.toml", kind="embeding")
    with pytest.raises(UserError, match="the target kind 'number' does not suit this data"):
        write_recipe(source, tmp_path / "other.toml", kind="number")
    with pytest.raises(UserError, match="the target kind 'next-token' does not suit this data"):
        write_recipe(source, tmp_path / "other.toml", kind="next-token")
    assert not (tmp_path / "other.toml").exists()


def test_few_classes_are_all_trained_on():
    few = Embedding.recommend(EmbeddingConfig(), {}, records(*"abc" * 40))
    assert few.data == {}
    assert few.target["per_class"] * 3 == few.training["batch_size"]
    many = Embedding.recommend(EmbeddingConfig(), {}, records(*map(str, range(200))))
    assert many.data["split"] == {"by": "group", "field": "label", "validation": 0.12, "test": 0.12}
    assert many.training["batch_size"] == 64


def test_a_split_that_the_data_gives_stays(tmp_path):
    from sonde.data.sources.class_folders import ClassFolders

    for split in ("train", "test"):
        (tmp_path / "set" / split).mkdir(parents=True)
        ClassFolders.sample(tmp_path / "set" / split)
    write_recipe(str(tmp_path / "set"), tmp_path / "recipe.toml", kind="embedding")
    assert Recipe.read(tmp_path / "recipe.toml").data.split.by == "given"


def test_the_ready_recipe_is_the_one_that_sonde_new_writes(shared, tmp_path):
    from pathlib import Path

    ready = Path(__file__).parents[2] / "recipes" / "omniglot.toml"
    write_recipe(str(shared / "omniglot_small1"), tmp_path / "recipe.toml", kind="embedding")

    def settings(path):
        lines = path.read_text().splitlines()
        return [line for line in lines if not line.startswith("source")]

    assert settings(ready) == settings(tmp_path / "recipe.toml")
