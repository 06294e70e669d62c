from __future__ import annotations

import json

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
from torchvision.ops import sigmoid_focal_loss

from sonde.base.errors import RecordError, UserError
from sonde.contracts.augment import AugmentParams, partner
from sonde.contracts.records import Records
from sonde.targets.labels import Labels, LabelsConfig

TAGS = (["red", "round"], ["red"], [], ["new", "red"], ["round"], ["new", "round"], ["red"], ["new", "red", "round"])


def records(*values, **fields):
    if not fields:
        fields = {"labels": values}
    columns = {}
    for name, each in fields.items():
        columns[name] = np.empty(len(each), dtype=object)
        columns[name][:] = list(each)
    return Records(fields=columns, ids=[f"row {index}" for index in range(len(next(iter(columns.values()))))])


def labels(*values, **settings):
    return Labels.fit(LabelsConfig(**settings), records(*(values or TAGS)), {})


def flags(**settings):
    every = records(red=[1, 0, 1, 0], round=[True, False, False, True])
    return Labels.fit(LabelsConfig(fields=["red", "round"], **settings), every, {})


def truth(target, *values):
    return target.collate(target.encode_many(records(*values), {})[0])


def test_emoji_tags(shared):
    lines = (shared / "openmoji_captions" / "captions.jsonl").read_text(encoding="utf-8").splitlines()[:200]
    tags = [json.loads(line)["tags"] for line in lines]
    target = labels(*tags, separator=",")
    columns, errors = target.encode_many(records(*tags), {})
    assert not errors
    wanted = [sorted({part.strip() for part in text.split(",") if part.strip()}) for text in tags]
    found = [[target.classes[code] for code in np.flatnonzero(row)] for row in columns["labels"].numpy()]
    assert found == wanted
    assert target.class_counts == columns["labels"].sum(0).tolist()


def test_lists_and_texts_read_alike():
    target = labels()
    assert target.classes == ["new", "red", "round"]
    assert target.class_counts == [3, 5, 4]
    columns, errors = target.encode_many(
        records(["red", "new"], "red;new", " red ; new ;", [], "", None, float("nan"), ("round",), {"red"}), {}
    )
    assert not errors
    assert columns["labels"].dtype == torch.uint8
    assert columns["labels"].tolist() == [[1, 1, 0]] * 3 + [[0, 0, 0]] * 4 + [[0, 0, 1], [0, 1, 0]]
    assert restored(target).encode({"labels": "red"}, {})["labels"].tolist() == [0, 1, 0]


def test_numbers_become_names():
    assert labels([1, 2], [2.0], "1").classes == ["1", "2"]


def test_rare_labels_are_passed_over():
    target = labels(min_count=4)
    assert (target.classes, target.class_counts) == (["red", "round"], [5, 4])
    columns, errors = target.encode_many(records(["new"], ["new", "red"], ["never seen"]), {})
    assert not errors
    assert columns["labels"].tolist() == [[0, 0], [1, 0], [0, 0]]
    with pytest.raises(UserError, match=r"min_count is 9, and the commonest label, 'red', is in 5 training records"):
        labels(min_count=9)


def test_several_fields_of_0_and_1():
    target = flags()
    assert target.classes == ["red", "round"]
    assert target.class_counts == [2, 2]
    assert LabelsConfig.model_validate({"fields": ["red"]}).fields == ["red"]
    assert Labels.fields(target.config) == ["red", "round"]
    assert Labels.fields(LabelsConfig()) == ["labels"]
    columns, errors = target.encode_many(records(red=[1, 0.0, True], round=["1", 0, 1]), {})
    assert not errors
    assert columns["labels"].tolist() == [[1, 1], [0, 0], [1, 1]]


def test_whole_columns_equal_one_by_one():
    target = labels()
    mixed = records(["red"], ["blue"], "new;round", [["red"]], ["red", "rod"])
    columns, errors = target.encode_many(mixed, {})
    assert sorted(errors) == [1, 3, 4]
    assert columns["labels"].tolist() == [target.encode(mixed[index], {})["labels"].tolist() for index in (0, 2)]
    for index, error in errors.items():
        with pytest.raises(RecordError) as caught:
            target.encode(mixed[index], {})
        assert str(caught.value) == str(error)


def test_bad_labels_say_what_and_what_to_do():
    _, errors = labels().encode_many(records(["red", "roud"], [["red"]]), {})
    assert str(errors[0]) == (
        "the label 'roud' in field 'labels' was never seen in training. Expected one of: new, red, round. "
        "hint: did you mean 'round'?"
    )
    assert str(errors[1]) == (
        "[['red']] in field 'labels' is not a list of labels. "
        'Expected a list of texts, or a text such as "red;round".'
    )
    _, errors = flags().encode_many(records(red=[None, 1, 0], round=[1, 0.5, "yes"]), {})
    assert str(errors[0]) == "the label in field 'red' is missing. Expected 0 or 1."
    assert str(errors[1]) == "the label in field 'round' is 0.5. Expected 0 or 1."
    assert str(errors[2]) == "the label in field 'round' is 'yes'. Expected 0 or 1."
    with pytest.raises(RecordError, match="the record has no field 'labels'"):
        labels().encode({}, {})


def test_nothing_to_learn():
    with pytest.raises(UserError, match="no record of the training split has a label in field 'labels'"):
        labels([], None)
    with pytest.raises(UserError) as caught:
        Labels.fit(LabelsConfig(fields=["red"]), records(red=[0, 0]), {})
    assert str(caught.value) == (
        "field 'red' is 0 in every record of the training split. Expected some records with 0 and some with 1. "
        "hint: leave it out of target.fields, or look at data.split"
    )
    with pytest.raises(UserError, match="the field 'tags' does not exist"):
        labels(field="tags")
    with pytest.raises(
        UserError, match=r"target\.positive_weights: the class 'redd' does not exist.*did you mean 'red'"
    ):
        labels(positive_weights={"redd": 2.0})


@pytest.mark.parametrize(
    ("choice", "weights"),
    [("none", None), ("balanced", [5 / 3, 3 / 5, 1.0]), ({"red": 4.0}, [1.0, 4.0, 1.0])],
)
def test_loss_is_that_of_torch(choice, weights):
    target = labels(positive_weights=choice)
    batch, network = vector_batch(truth(target, *TAGS)), Fake(3)
    wanted = functional.binary_cross_entropy_with_logits(
        network(batch.inputs),
        batch.truth["labels"].float(),
        pos_weight=None if weights is None else torch.tensor(weights),
    )
    torch.testing.assert_close(mean_loss(target, network, batch), wanted)


def test_focal_loss_is_that_of_torchvision():
    target = labels(loss="focal")
    batch, network = vector_batch(truth(target, *TAGS)), Fake(3)
    wanted = sigmoid_focal_loss(
        network(batch.inputs), batch.truth["labels"].float(), alpha=-1, gamma=2, reduction="mean"
    )
    torch.testing.assert_close(mean_loss(target, network, batch), wanted)


def test_mixed_labels_are_soft():
    target = labels()
    plain, share = truth(target, *TAGS), torch.tensor([0.9, 0.1, 0.5, 1.0, 0.0, 0.3, 0.7, 0.6])
    mixed = target.apply_augment(plain, AugmentParams(mix_weight_B=share))
    hard = plain["labels"].float()
    torch.testing.assert_close(mixed["labels"], share[:, None] * hard + (1 - share[:, None]) * partner(hard))
    assert target.apply_augment(plain, AugmentParams()) is plain


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("settings", [{}, {"loss": "focal", "positive_weights": "balanced"}])
def test_losses_are_sums(settings, weights):
    target = labels(**settings)
    plain = truth(target, *TAGS)
    check_sums(target, Fake(3), vector_batch(plain, weights=weights))
    check_repeats(target, Fake(3), vector_batch(plain))


def test_predictions():
    target = labels(threshold=0.6)
    answers = target.predict(Fixed(torch.tensor([[0.0, 2.0, 1.0], [-1.0, -2.0, -3.0]])), question(2))
    assert [answer["labels"] for answer in answers] == [["red", "round"], []]
    assert answers[0]["probabilities"]["new"] == 0.5
    assert as_json(answers) == answers
    many = labels([f"{index:02}" for index in range(30)])
    (answer,) = many.predict(Fixed(torch.arange(30.0)[None]), question())
    assert list(answer["probabilities"]) == many.classes[29:9:-1]


def test_metrics():
    target = labels()
    batch, network = vector_batch(truth(target, *TAGS)), Fake(3)
    columns = measured(target, network, batch)
    found = target.metrics(columns, np.ones((1, 8)))
    true, scores = columns["labels"], columns["probabilities"]
    answered = scores >= 0.5
    wanted = {
        "mean_average_precision": oracle.average_precision_score(true, scores),
        "micro_f1": oracle.f1_score(true, answered, average="micro"),
        "macro_f1": oracle.f1_score(true, answered, average="macro"),
        "roc_auc": oracle.roc_auc_score(true, scores),
        "subset_accuracy": oracle.accuracy_score(true, answered),
        "log_loss": np.mean([oracle.log_loss(true[:, k], scores[:, k], labels=[0, 1]) for k in range(3)]),
        **{
            f"f1/{name}": f1
            for name, f1 in zip(target.classes, oracle.f1_score(true, answered, average=None), strict=True)
        },
    }
    assert {name: pytest.approx(value[0]) for name, value in found.items()} == wanted
    assert target.best[0] in found
