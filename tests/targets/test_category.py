from __future__ import annotations

import csv

import numpy as np
import pytest
import sklearn.metrics as oracle
import torch
from target_fakes import (
    Fake,
    Fixed,
    as_json,
    check_repeats,
    check_sums,
    mean_loss,
    measured,
    question,
    restored,
    vector_batch,
)
from torch.nn import functional

from sonde.base.errors import RecordError, UserError
from sonde.contracts.augment import AugmentParams, partner
from sonde.contracts.records import Records, as_field
from sonde.contracts.specs import InputSpec, OutputSpec
from sonde.targets.category import Category, CategoryConfig


def records(*labels, field="label"):
    return Records(fields={field: as_field(list(labels))}, ids=[f"row {number}" for number in range(len(labels))])


def category(*labels, **settings):
    return Category.fit(CategoryConfig(**settings), records(*(labels or ("b", "a", "c", "b", "b", "c"))), {})


def truth(target, *labels):
    return target.collate(target.encode_many(records(*labels), {})[0])


BATCH = ("a", "b", "c", "b", "a", "c", "c", "b")


def test_sms_labels(shared):
    with (shared / "sms_spam" / "sms.tsv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    target = category(*(row[0] for row in rows))
    assert target.classes == ["ham", "spam"]
    assert target.class_counts == [4827, 747]
    columns, errors = target.encode_many(records(*(row[0] for row in rows)), {})
    assert not errors
    assert int(columns["class"].sum()) == 747


def test_classes_are_sorted_names_with_counts():
    target = category()
    assert target.classes == ["a", "b", "c"]
    assert target.class_counts == [1, 3, 2]
    assert target.width == 3
    given = {"x": InputSpec(layout="vector", channels=2)}
    assert target.outputs(given) == {"x": OutputSpec(per=("example",), width=3)}
    assert restored(target).encode({"label": "c"}, {})["class"] == 2


@pytest.mark.parametrize(
    ("field", "classes"),
    [
        (as_field([3, 1, 3]), ["1", "3"]),
        (as_field([True, False, None]), ["false", "true"]),
        (np.array([True, False]), ["false", "true"]),
        (as_field([1.0, 0.0, None]), ["0", "1"]),
        (as_field([1.5, 0.5]), ["0.5", "1.5"]),
        (as_field(["3", 3, 1]), ["1", "3"]),
    ],
)
def test_labels_become_texts(field, classes):
    every = Records(fields={"label": field}, ids=[str(index) for index in range(len(field))])
    target = Category.fit(CategoryConfig(), every, {})
    assert target.classes == classes
    columns, errors = target.encode_many(every, {})
    one_by_one = [target.encode(each, {})["class"] for index, each in enumerate(every) if index not in errors]
    assert torch.equal(columns["class"], torch.stack(one_by_one))


def test_whole_columns_equal_one_by_one():
    target = category()
    mixed = records("a", "d", None, "c", "", ["a"], "b")
    columns, errors = target.encode_many(mixed, {})
    assert columns["class"].tolist() == [0, 2, 1]
    assert columns["class"].dtype == torch.int64
    assert sorted(errors) == [1, 2, 4, 5]
    for index, error in errors.items():
        with pytest.raises(RecordError) as caught:
            target.encode(mixed[index], {})
        assert str(caught.value) == str(error)


def test_bad_labels_say_what_and_what_to_do():
    _, errors = category("daisy", "rose").encode_many(records("dasy", None, ["rose", "daisy"], "xyz", float("nan")), {})
    assert str(errors[0]) == (
        "the label 'dasy' in field 'label' was never seen in training. Expected one of: daisy, rose. "
        "hint: did you mean 'daisy'?"
    )
    assert str(errors[1]) == "the label in field 'label' is missing. Expected one of: daisy, rose."
    assert "['rose', 'daisy'] in field 'label' is not a label" in str(errors[2])
    assert 'target kind "labels"' in str(errors[2])
    assert str(errors[3]).endswith("hint: give the training split examples of it (see data.split)")
    assert "is missing" in str(errors[4])


def test_an_error_names_twenty_of_many_classes():
    with pytest.raises(RecordError, match=r"\.\.\. \(30 in all\)"):
        category(*range(30)).encode({"label": "many"}, {})


def test_one_class_only():
    with pytest.raises(UserError) as caught:
        category("cat", "cat", None)
    assert str(caught.value) == (
        "all 2 labels in field 'label' of the training split are 'cat'. Expected at least two classes. "
        "hint: look at data.split, or choose another target.field"
    )


def test_no_labels_at_all():
    with pytest.raises(UserError, match="no record of the training split has a label in field 'label'"):
        category(None, None)
    with pytest.raises(UserError, match='hint: several labels a record are learned by the target kind "labels"'):
        category(["a"], ["b"])


def test_a_missing_field_offers_the_near_miss():
    with pytest.raises(UserError, match=r"the field 'lable' does not exist.*did you mean 'label'"):
        category("a", "b", field="lable")


def test_a_quantity_is_no_category():
    with pytest.raises(UserError, match=r'200 different numbers, such as 0.5.*target kind "number"'):
        category(*(index + 0.5 for index in range(200)))


def test_a_weight_for_an_unknown_class():
    with pytest.raises(UserError, match=r"target\.class_weights: the class 'd' does not exist"):
        category(class_weights={"d": 2.0})


@pytest.mark.parametrize("class_weights", ["none", "balanced", {"a": 3.0, "b": 0.5}])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_that_of_torch(class_weights, smoothing):
    target = category(class_weights=class_weights, smoothing=smoothing)
    batch, network = vector_batch(truth(target, *BATCH)), Fake(3)
    weights = {"none": None, "balanced": torch.tensor([2.0, 2 / 3, 1.0])}.get(str(class_weights), [3.0, 0.5, 1.0])
    weights = None if weights is None else torch.as_tensor(weights)
    wanted = functional.cross_entropy(
        network(batch.inputs), batch.truth["class"], weight=weights, label_smoothing=smoothing
    )
    torch.testing.assert_close(mean_loss(target, network, batch), wanted)


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_mixed_loss_is_that_of_soft_targets(class_weights):
    target = category(class_weights=class_weights, smoothing=0.1)
    network, share = Fake(3), torch.tensor([0.9, 0.1, 0.5, 1.0, 0.0, 0.3, 0.7, 0.6])
    mixed = target.apply_augment(truth(target, *BATCH), AugmentParams(mix_weight_B=share))
    batch = vector_batch(mixed)
    hot = functional.one_hot(mixed["class"], 3).float()
    soft = share[:, None] * hot + (1 - share[:, None]) * partner(hot)
    weights = torch.tensor([2.0, 2 / 3, 1.0]) if class_weights == "balanced" else torch.ones(3)
    wanted = functional.cross_entropy(network(batch.inputs), soft, weight=weights, label_smoothing=0.1, reduction="sum")
    torch.testing.assert_close(mean_loss(target, network, batch), wanted / (soft * weights).sum())


def test_without_mixing_the_truth_stays():
    target = category()
    plain = truth(target, *BATCH)
    assert target.apply_augment(plain, AugmentParams()) is plain


def test_two_inputs_that_mix_are_refused():
    target = category()
    mixed = target.apply_augment(truth(target, *BATCH), AugmentParams(mix_weight_B=torch.rand(8)))
    with pytest.raises(UserError, match=r"two inputs mix their examples.*let one input only mix"):
        target.apply_augment(mixed, AugmentParams(mix_weight_B=torch.rand(8)))


def test_focal_loss_by_its_definition():
    target = category(loss="focal", gamma=2.0, class_weights={"a": 3.0})
    batch, network = vector_batch(truth(target, *BATCH)), Fake(3)
    p = network(batch.inputs).softmax(1).gather(1, batch.truth["class"][:, None])[:, 0]
    weights = torch.tensor([3.0, 1.0, 1.0])[batch.truth["class"]]
    wanted = (weights * (1 - p) ** 2 * -p.log()).sum() / weights.sum()
    torch.testing.assert_close(mean_loss(target, network, batch), wanted)


def test_focal_loss_without_focus_is_cross_entropy():
    batch, network = vector_batch(truth(category(), *BATCH)), Fake(3)
    focal = mean_loss(category(loss="focal", gamma=0.0, smoothing=0.2), network, batch)
    torch.testing.assert_close(focal, mean_loss(category(smoothing=0.2), network, batch))


def test_focal_gradient_is_finite_where_the_answer_is_sure():
    target = category("a", "b", loss="focal", gamma=0.5)
    sure = Fixed(torch.tensor([[200.0, -200.0], [-200.0, 200.0]]))
    mean_loss(target, sure, vector_batch(truth(target, "a", "a"))).backward()
    assert torch.isfinite(sure.answers.grad).all()


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("mixing", [False, True])
@pytest.mark.parametrize(
    "settings", [{}, {"class_weights": "balanced", "smoothing": 0.1}, {"loss": "focal", "class_weights": {"a": 2.0}}]
)
def test_losses_are_sums(settings, mixing, weights):
    target = category(**settings)
    plain = truth(target, *BATCH)
    mixed = target.apply_augment(
        plain, AugmentParams(mix_weight_B=torch.rand(8, generator=torch.Generator().manual_seed(0)))
    )
    check_sums(target, Fake(3), vector_batch(mixed if mixing else plain, weights=weights))
    check_repeats(target, Fake(3), vector_batch(mixed if mixing else plain))


def test_loss_is_float32_under_bf16():
    target = category()
    batch, network = vector_batch(truth(target, *BATCH)), Fake(3)
    with torch.autocast("cpu", torch.bfloat16):
        loss = mean_loss(target, network, batch)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, mean_loss(target, network, batch), rtol=0.05, atol=0.05)


def test_predictions():
    target = category()
    (first, second) = target.predict(Fixed(torch.tensor([[0.0, 2.0, 1.0], [5.0, 0.0, 0.0]])), question(2))
    assert first["label"] == "b"
    assert first["confidence"] == first["probabilities"]["b"]
    assert list(first["probabilities"]) == ["a", "b", "c"]
    assert sum(first["probabilities"].values()) == pytest.approx(1)
    assert second["label"] == "a"
    assert as_json([first, second]) == [first, second]


def test_predictions_of_many_classes_give_the_likeliest():
    target = category(*range(30))
    (answer,) = target.predict(Fixed(torch.arange(30.0)[None]), question())
    assert answer["label"] == int(target.classes[29])
    assert list(answer["probabilities"]) == target.classes[29:9:-1]


def test_metrics():
    target = category()
    batch, network = vector_batch(truth(target, *BATCH)), Fake(3)
    columns = measured(target, network, batch)
    found = target.metrics(columns, np.ones((2, 8)))
    true, p = columns["class"], columns["probabilities"]
    assert p.dtype == np.float32
    answered = p.argmax(1)
    assert list(found) == [
        *("accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "log_loss", "brier", "ece"),
        "rms_calibration_error",
        *("recall/a", "recall/b", "recall/c", "precision/a", "precision/b", "precision/c"),
    ]
    assert target.best[0] in found
    assert target.lower_is_better - {"cost", "alarms"} <= set(found)
    assert found["brier"][0] == pytest.approx(oracle.brier_score_loss(true, p, scale_by_half=False))
    assert found["accuracy"].tolist() == [oracle.accuracy_score(true, answered)] * 2
    assert found["balanced_accuracy"][0] == pytest.approx(oracle.balanced_accuracy_score(true, answered))
    assert found["macro_f1"][0] == pytest.approx(oracle.f1_score(true, answered, average="macro"))
    assert found["roc_auc"][0] == pytest.approx(oracle.roc_auc_score(true, p, multi_class="ovr"))
    assert found["log_loss"][0] == pytest.approx(oracle.log_loss(true, p))
    assert found["recall/b"][0] == pytest.approx(oracle.recall_score(true, answered, average=None)[1])


def test_metrics_of_two_and_of_many_classes():
    two = category("no", "yes")
    scores = np.array([0.2, 0.6, 0.7, 0.1])
    columns = {"probabilities": np.stack([1 - scores, scores], 1).astype(np.float32), "class": np.array([0, 1, 0, 0])}
    assert two.metrics(columns, np.ones((1, 4)))["roc_auc"][0] == pytest.approx(
        oracle.roc_auc_score(columns["class"], scores)
    )
    many = category(*range(30))
    columns = {"probabilities": np.eye(30, dtype=np.float32)[[0, 1, 2]], "class": np.array([0, 1, 29])}
    found = many.metrics(columns, np.ones((1, 3)))
    assert found["top5_accuracy"][0] == pytest.approx(2 / 3)
    assert not any("/" in name for name in found)
