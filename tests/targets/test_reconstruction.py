"""Target reconstruction: its losses against torch.distributions, PCA against scikit-learn, and what it answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from torch.distributions import Normal, kl_divergence

from sonde.base.errors import UserError
from sonde.base.rng import BatchRng
from sonde.contracts.records import Records
from sonde.contracts.specs import Features
from sonde.contracts.task import Task
from sonde.data.store import encode
from sonde.inputs.image import Image, ImageConfig
from sonde.networks import build
from sonde.networks.cnn import CnnConfig
from sonde.targets.reconstruction import pca
from sonde.targets.reconstruction.decoder import Autoencoder, Decoder
from sonde.targets.reconstruction.settings import DecoderConfig, ReconstructionConfig
from sonde.targets.reconstruction.target import Reconstruction


def digits(count: int = 200) -> Records:
    pixels = (load_digits().images[:count] * 15.9375).astype(np.uint8)
    return Records(fields={"image": pixels}, ids=[str(place) for place in range(count)])


def task(records: Records, **settings) -> Task:
    inputs = {"image": Image.fit(ImageConfig(), records)}
    config = ReconstructionConfig(decoder=DecoderConfig(widths=(8, 4)), **settings)
    return Task(inputs=inputs, target=Reconstruction.fit(config, records, inputs))


def network_of(task: Task) -> torch.nn.Module:
    torch.manual_seed(0)
    return build({"image": CnnConfig(widths=(4, 8), convolutions=1)}, task).eval()


def batch_of(task: Task, records: Records):
    return task.preprocess(task.collate(encode(task, records).examples, torch.arange(len(records))))


@pytest.mark.parametrize("exact", [True, False])
def test_pca_is_that_of_scikit_learn(exact, monkeypatch):
    if not exact:
        monkeypatch.setattr(pca, "EXACT", 8)
    records = digits()
    part = Image.fit(ImageConfig(), records)
    mean, components = pca.fit(part, records, 6)
    grid = part.preprocess(part.collate(part.encode_many(records)[0]))["grid"]
    wanted = PCA(6, svd_solver="full").fit(grid.flatten(1).double().numpy())
    told = wanted.inverse_transform(wanted.transform(grid.flatten(1).double().numpy()))
    error_N = ((told - grid.flatten(1).double().numpy()) ** 2).mean(1)
    np.testing.assert_allclose(pca.error(grid, mean, components).numpy(), error_N, rtol=2e-3, atol=1e-5)


def test_the_losses_are_those_of_torchs_distributions():
    records = digits(5)
    own = task(records, bottleneck=3, variational=True)
    network, batch = network_of(own), batch_of(own, records)
    with torch.no_grad():
        network.head.log_deviation.fill_(-0.3)
        rng = BatchRng(seed=0, epoch=0, records_B=torch.arange(5))
        terms = own.target.loss(network, batch, rng)
        grid, mean, log_variance, _ = network(batch.inputs, rng.normal("code", 3))
    deviation = torch.tensor(-0.3).exp()
    wanted = -Normal(grid, deviation).log_prob(batch.inputs["image"]["grid"]).sum()
    torch.testing.assert_close(terms["reconstruction"], wanted, rtol=1e-4, atol=1e-2)
    code = Normal(mean, (log_variance / 2).exp())
    torch.testing.assert_close(terms["kl"], kl_divergence(code, Normal(0.0, 1.0)).sum(), rtol=1e-4, atol=1e-4)
    half = task(records, bottleneck=3, variational=True, kl_weight=0.5)
    torch.testing.assert_close(half.target.loss(network, batch, rng)["kl"], terms["kl"] / 2)


def test_scores():
    records = digits(40)
    own = task(records, bottleneck=2)
    outputs = own.target.eval_outputs(network_of(own), batch_of(own, records))
    columns = {name: value.numpy() for name, value in outputs.items()}
    columns["code"] = np.stack([np.zeros(40), np.arange(40)], axis=1)
    found = own.target.metrics(columns, np.ones((1, 40)))
    assert found["active_units"] == [1]
    ratio = columns["squared_error"].mean() / columns["pca_squared_error"].mean()
    np.testing.assert_allclose(found["below_pca"], [1 - ratio], rtol=1e-6)
    np.testing.assert_allclose(found["loss"], [columns["reconstruction"].mean()], rtol=1e-6)
    first = np.zeros((1, 40))
    first[0, :10] = 1
    np.testing.assert_allclose(
        own.target.metrics(columns, first)["squared_error"], [columns["squared_error"][:10].mean()], rtol=1e-6
    )


def test_a_collapsed_code_is_told():
    own = task(digits(30), bottleneck=8, variational=True)
    columns = {"code": np.zeros((30, 8))}
    assert "0 of 8 numbers of the code tell anything (posterior collapse)" in own.target.warnings(columns)[0]
    assert not own.target.warnings({"code": np.random.default_rng(0).normal(size=(30, 8))})


def test_what_is_unlike_training_is_unusual():
    records = digits()
    own = task(records, bottleneck=8)
    torch.manual_seed(0)
    network = build({"image": CnnConfig(widths=(8, 16), convolutions=1, dropout=0)}, own).train()
    batch = batch_of(own, records)
    for step in range(60):
        rng = BatchRng(seed=0, epoch=step, records_B=batch.records_B)
        (own.target.loss(network, batch, rng)["reconstruction"] / len(records)).backward()
        with torch.no_grad():
            # Steps of one length for each tensor: torch's own optimizers load its compiler.
            for parameter in network.parameters():
                assert parameter.grad is not None
                parameter -= 0.01 * parameter.grad / (parameter.grad.square().mean().sqrt() + 1e-8)
                parameter.grad = None
    network.eval()
    columns = {name: value.numpy() for name, value in own.target.eval_outputs(network, batch).items()}
    target = own.target.remember(columns, records.ids)
    found = Task(inputs=own.inputs, target=target)
    noise = Records(
        fields={"image": np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)}, ids=list("abcde")
    )
    usual = found.predict(network, batch_of(found, records.part(0, 50)))
    strange = found.predict(network, batch_of(found, noise))
    assert np.median([each["unusual"] for each in usual]) < 0.8
    assert min(each["unusual"] for each in strange) == 1
    assert set(strange[0]) == {"anomaly", "unusual", "squared_error", "code", "reconstruction"}
    assert strange[0]["reconstruction"].shape == (8, 8)
    drawn = target.draw(strange[0], noise[0], own.inputs)
    assert drawn.size == (8 + 8 + 4, 8)


@pytest.mark.parametrize("size", [(9,), (7, 5), (6, 4, 3)])
def test_grids_of_any_number_of_axes(size):
    made = Decoder(3, channels=2, size=size, widths=(4, 4, 2))(torch.randn(5, 3))
    assert made.shape == (5, 2, *size)
    head = Autoencoder(
        {"scan": (4,)}, main="scan", channels=2, size=size, bottleneck=3, variational=False, stages=(4, 2)
    )
    grid, code, _, _ = head({"scan": Features(values=(torch.randn(5, 4, *size),))})
    assert grid.shape == (5, 2, *size)
    assert code.shape == (5, 3)


def test_what_goes_wrong_is_told():
    with pytest.raises(UserError, match="bottleneck is 64, and an example has 64 numbers"):
        task(digits(10), bottleneck=64)
    with pytest.raises(ValueError, match="kl_weight is for variational = true"):
        ReconstructionConfig(kl_weight=0.5)
