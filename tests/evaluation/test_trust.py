"""Sets and intervals, familiar records, attacks and costs: beside what is known of them, and on a real run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.neighbors import NearestNeighbors

import sonde
from sonde import Recipe, evaluation, stages
from sonde.base.device import Precision
from sonde.base.errors import UserError
from sonde.base.number_formats import PLAIN
from sonde.commands.evaluate import evaluate
from sonde.contracts.specs import Features
from sonde.contracts.target import Target
from sonde.data.store import encode
from sonde.evaluation import attacks, conformal, familiar
from sonde.evaluation.judged import Share
from sonde.evaluation.observe import pooled
from sonde.targets.number import Number, NumberConfig

DIGITS: dict[str, Any] = {
    "data": {"source": "sklearn:digits", "split": {"by": "stratified", "validation": 0.3, "test": 0.1}},
    "inputs": {"image": {"kind": "image"}},
    "target": {"kind": "category", "smoothing": 0.2},
    "network": {"kind": "mlp", "hidden": [32]},
    "training": {"steps": 150, "batch_size": 64, "precision": "fp32", "compile": False, "optimizer": {"lr": 0.01}},
    "ladder": {"reference": False},
    "decision": {"recall": {"class": 8, "at_least": 0.95}, "coverage": 0.95},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> sonde.Run:
    return sonde.fit(Recipe.of(DIGITS), out=tmp_path_factory.mktemp("trust") / "run")


def test_coverage_is_what_was_stated() -> None:
    rng = np.random.default_rng(0)
    for coverage in (0.8, 0.95):
        # The coverage of one calibration split of N is Beta distributed; its mean is ceil((N + 1) c) / (N + 1).
        shares = [stats.norm.cdf(conformal.limit(rng.normal(size=(99, 1)), coverage))[0] for _ in range(2000)]
        assert np.mean(shares) == pytest.approx(coverage, abs=0.004)
    assert np.isinf(conformal.limit(np.zeros((9, 1)), 0.95)).all()


def test_each_group_has_its_own_limit_where_it_has_records() -> None:
    scores = np.concatenate([np.linspace(0, 1, 99), np.linspace(10, 11, 99), [50.0]])[:, None]
    groups = np.repeat([0, 1, 2], [99, 99, 1])
    found = conformal.limits(scores, 0.9, groups, np.array([0, 1, 2, -1]), count=4)
    common = conformal.limit(scores, 0.9)[0]
    assert found[:, 0] == pytest.approx([89 / 98, 10 + 89 / 98, common, common])


def test_intervals_of_numbers_are_in_the_units_of_the_data() -> None:
    config = NumberConfig(transform="log")
    target = Number(config=config, names=["price"], centre=[2.0], scale=[0.5], formats=[PLAIN])
    columns = {"answer": np.zeros((1, 1), np.float32), "value": np.full((1, 1), -2.0, np.float32)}
    assert target.nonconformity(columns) == pytest.approx(2.0)
    (found, endless) = target.regions(torch.zeros(2, 1), np.array([[1.0], [np.inf]]))
    assert found == {"low": pytest.approx(np.exp(1.5)), "high": pytest.approx(np.exp(2.5))}
    assert endless == {"low": None, "high": None}
    assert target.region_sizes([found, endless])[1] == np.inf


def test_distances_and_p_values() -> None:
    rng = np.random.default_rng(0)
    known, asked = rng.normal(size=(300, 8)), rng.normal(size=(20, 8))
    kept = torch.from_numpy(known).half()
    oracle = NearestNeighbors(n_neighbors=familiar.NEIGHBOUR).fit(kept.double().numpy())
    wanted = oracle.kneighbors(asked)[0][:, -1]
    np.testing.assert_allclose(familiar.distances(torch.from_numpy(asked).float(), kept), wanted, rtol=1e-4)
    validation = np.sort(rng.normal(size=199))
    p = familiar.p_values(rng.normal(size=20_000), validation)
    # Over draws of the validation split exactly so; of one split within what its size leaves open.
    assert float((p <= 0.05).mean()) == pytest.approx(0.05, abs=0.04)


def test_features_are_pooled_over_what_is_real() -> None:
    inside = torch.tensor([[True, False], [True, True]])
    values = torch.tensor([[[1.0], [9.0]], [[2.0], [4.0]]])
    assert pooled(Features(values=values, inside_BT=inside), 2).tolist() == [[1.0], [3.0]]
    nodes = Features(values=torch.tensor([[1.0], [3.0], [5.0]]), length_B=torch.tensor([2, 1]))
    assert pooled(nodes, 2).tolist() == [[2.0], [5.0]]
    assert pooled(Features(values=(torch.ones(2, 3, 4, 4), torch.zeros(2, 5, 2, 2))), 2).shape == (2, 5)
    # Two members of each of two examples.
    assert pooled(Features(values=torch.tensor([[1.0], [3.0], [0.0], [4.0]])), 2).tolist() == [[2.0], [2.0]]


def test_shares_have_wilsons_interval() -> None:
    wanted = stats.binomtest(18, 20).proportion_ci(method="wilson")
    assert Share(count=18, total=20).ends == pytest.approx((wanted.low, wanted.high), abs=1e-6)


def test_a_run_is_calibrated_decides_and_says_so(run: sonde.Run) -> None:
    validation, test = run.scores["validation"]["log_loss"], run.scores["test"]["log_loss"]
    assert validation.out_of_fold
    assert not test.out_of_fold
    assert test.before is not None
    assert test.value is not None
    assert test.value < test.before
    assert run.scores["validation"]["recall/8"].chose_decision
    about = evaluation.about(validation)
    assert "each record calibrated without itself" in about
    assert "chose the threshold: optimistic" in about
    recall = run.scores["test"]["recall/8"]
    assert recall.high is not None
    assert recall.high > 0.95
    assert "alarms" in run.scores["test"]


def test_what_was_learned_is_served(run: sonde.Run) -> None:
    model = sonde.load(run.artifact)
    target = model.task.target
    assert target.temperatures  # type: ignore[attr-defined]
    picture = np.zeros((8, 8), np.uint8)
    (plain,) = model.predict([picture])
    assert set(plain) == {"label", "confidence", "probabilities", "set"}
    (told,) = model.predict([picture], coverage=0.5, familiar=True)
    assert set(told["set"]) <= set(plain["set"])
    assert told["label"] in told["set"]
    assert not told["familiar"]
    assert told["unfamiliarity"] > 0.95
    threshold = target.decision["threshold"]  # type: ignore[attr-defined]
    for answer in model.predict(list(np.random.default_rng(0).integers(0, 255, (20, 8, 8), dtype=np.uint8))):
        assert (answer["probabilities"]["8"] >= threshold) == (answer["label"] == "8" or answer["label"] == 8)


def test_evaluate_tells_trust_cost_and_attacks(run: sonde.Run) -> None:
    found = evaluate(run.folder, attack=True, watts=100)
    line = json.loads(json.dumps(found.to_json(), allow_nan=False))
    low, high = found.judgement.covered.share.ends  # type: ignore[union-attr]
    assert low - 0.03 <= 0.95 <= high + 0.03
    assert line["trust"]["unfamiliar"]["share"]["low"] < 0.1
    cost = line["cost"]
    assert cost["parameters"] == sum(one.numel() for one in sonde.load(run.artifact).network.parameters())
    assert cost["flops"] == 2 * (64 * 32 + 32 * 10)
    assert cost["energy"] == pytest.approx(cost["training_seconds"] / 36)
    by = {(one["method"], one["strength"]): one["score"]["value"] for one in line["attacks"]}
    assert by["pgd", 0.3] < 0.01 < by["none", 0.0]
    assert found.falls
    assert all(by["pgd", strength] <= by["fgsm", strength] + 0.02 for strength in attacks.STRENGTHS)
    text = found.to_text()
    for words in (
        "calibration: ",
        "decision: 8 from probability",
        "sets or intervals for 95 %",
        "unfamiliar by knn",
        "Wh",
    ):
        assert words in text


def test_an_attack_leaves_the_network_and_its_input_as_they_were(run: sonde.Run) -> None:
    model = sonde.load(run.artifact)
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    records = Recipe.of(DIGITS)
    test = encode(model.task, stages.load_data(records).splits["test"])
    whole = test.examples.inputs["image"]["grid"].clone()  # type: ignore[union-attr]
    cpu = Precision(kind="fp32", device=torch.device("cpu"))
    attacks.attack(model.task, model.network, test.examples, precision=cpu, seed=0, strengths=(0.1,), steps=2)
    assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())
    assert all(one.requires_grad for one in model.network.parameters())
    assert torch.equal(test.examples.inputs["image"]["grid"], whole)  # type: ignore[arg-type]


def test_wrong_settings_are_told_before_training(tmp_path: Path) -> None:
    def refused(words: str, **decision: Any) -> None:
        with pytest.raises(UserError, match=words):
            sonde.fit(Recipe.of({**DIGITS, "decision": decision}), out=tmp_path / "run")
        assert not (tmp_path / "run").exists()

    refused("decision.recall: the class 'eight'", recall={"class": "eight", "at_least": 0.9})
    refused("decision.costs: the class", costs={"8": {"nine": 3}})
    refused("has no field 'colour'", coverage_by="colour")
    with pytest.raises(UserError, match="two rules for one decision"):
        Recipe.of({**DIGITS, "decision": {"costs": {"1": {"7": 2}}, "recall": {"class": "8", "at_least": 0.9}}})
    with pytest.raises(UserError, match="right answer '1' costs"):
        Recipe.of({**DIGITS, "decision": {"costs": {"1": {"1": 2}}}})


def test_a_target_without_classes_takes_no_costs() -> None:
    target = Number(config=NumberConfig(), names=["value"], centre=[0.0], scale=[1.0], formats=[PLAIN])
    with pytest.raises(UserError, match="a number is not chosen by costs"):
        target.check_decision(Recipe.of(DIGITS).decision)
    assert Target.calibrations == ()


def test_a_model_without_a_validation_split_says_what_it_cannot_tell(tmp_path: Path) -> None:
    split = {"by": "stratified", "validation": 0.0, "test": 0.2}
    tables = {**DIGITS, "data": {"source": "sklearn:digits", "split": split}, "decision": {}}
    found = sonde.fit(Recipe.of({**tables, "training": {"steps": 2, "compile": False}}), out=tmp_path / "run")
    model = sonde.load(found.artifact)
    assert model.trust is None
    with pytest.raises(UserError, match="no sets or intervals"):
        model.predict([np.zeros((8, 8), np.uint8)], coverage=0.9)
    with pytest.raises(UserError, match="cannot tell what is familiar"):
        model.predict([np.zeros((8, 8), np.uint8)], familiar=True)


def test_what_is_left_out_is_not_told(tmp_path: Path) -> None:
    tables = {**DIGITS, "decision": {"familiar": "off", "calibrate": False}, "training": {"steps": 2, "compile": False}}
    model = sonde.load(sonde.fit(Recipe.of(tables), out=tmp_path / "run").artifact)
    assert model.trust is not None
    assert model.trust.measure is None
    assert model.task.target.temperatures == []  # type: ignore[attr-defined]
    (answer,) = model.predict([np.zeros((8, 8), np.uint8)], coverage=0.9)
    assert answer["label"] in answer["set"]
    with pytest.raises(UserError, match="cannot tell what is familiar"):
        model.predict([np.zeros((8, 8), np.uint8)], familiar=True)


def test_a_coverage_that_is_no_share(run: sonde.Run) -> None:
    with pytest.raises(UserError, match="the coverage 90 is no share"):
        sonde.load(run.artifact).predict([np.zeros((8, 8), np.uint8)], coverage=90)
