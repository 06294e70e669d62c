"""Target noise: its processes and samplers against diffusers and against a Gaussian, whose score is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from sonde.base.errors import UserError
from sonde.base.rng import BatchRng
from sonde.contracts.records import Records
from sonde.contracts.task import Task
from sonde.data.store import encode
from sonde.inputs.image import Image, ImageConfig
from sonde.inputs.table import Table, TableConfig
from sonde.networks import build
from sonde.networks.mlp import MlpConfig
from sonde.networks.unet import UNetConfig
from sonde.targets.noise.process import Process, kept_signal
from sonde.targets.noise.samplers import sample
from sonde.targets.noise.settings import Generate, NoiseConfig
from sonde.targets.noise.target import Noise


@pytest.mark.parametrize(("ours", "theirs"), [("linear", "linear"), ("cosine", "squaredcos_cap_v2")])
@pytest.mark.parametrize(("predicts", "prediction_type"), [("noise", "epsilon"), ("velocity", "v_prediction")])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_is_that_of_diffusers(ours, theirs, predicts, prediction_type, eta):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(
        beta_schedule=theirs,
        beta_start=1e-4,
        beta_end=0.02,
        prediction_type=prediction_type,
        clip_sample=False,
        timestep_spacing="trailing",
    )
    np.testing.assert_allclose(kept_signal(ours).numpy(), scheduler.alphas_cumprod.numpy(), rtol=2e-4, atol=1e-7)
    process = Process(name="ddpm", predicts=predicts, schedule=ours)
    start = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))

    def network(mixed, time):
        return mixed * (0.5 + time.reshape(-1, 1, 1, 1)) * 0.7 + 0.1

    steps = 10
    fresh = [torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(1 + step)) for step in range(steps)]
    found = sample(
        start,
        process,
        lambda mixed, level: process.parts(network(mixed, level.time), mixed, level),
        sampler="ddim",
        steps=steps,
        eta=eta,
        fresh=lambda step: fresh[step],
    )
    scheduler.set_timesteps(steps)
    wanted = start
    for step, time in enumerate(scheduler.timesteps):
        told = network(wanted, time[None].float() / 1000)
        noise = {"variance_noise": fresh[step]} if eta else {}
        wanted = scheduler.step(told, time, wanted, eta=eta, **noise).prev_sample
    torch.testing.assert_close(found, wanted, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_flow_matching_steps_are_those_of_diffusers(sampler):
    diffusers = pytest.importorskip("diffusers")
    kind = {"euler": diffusers.FlowMatchEulerDiscreteScheduler, "heun": diffusers.FlowMatchHeunDiscreteScheduler}[
        sampler
    ]
    process = Process(name="flow", predicts="velocity")
    start = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))

    def network(mixed, time):
        return torch.sin(mixed) * (1 + time)

    steps = 5
    found = sample(
        start,
        process,
        lambda mixed, level: process.parts(network(mixed, level.time), mixed, level),
        sampler=sampler,
        steps=steps,
    )
    scheduler = kind()
    # Their own times end above 0: ours are given them.
    sigmas = torch.linspace(1, 0, steps + 1)
    if sampler == "heun":
        scheduler.sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
        scheduler.timesteps = 1000 * scheduler.sigmas[:-1]
        scheduler.prev_derivative = scheduler.dt = None
    else:
        scheduler.set_timesteps(sigmas=sigmas[:-1].tolist())
    wanted = start
    for time in scheduler.timesteps:
        wanted = scheduler.step(network(wanted, time / 1000), time, wanted).prev_sample
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def gaussian(process: Process, mean: torch.Tensor, deviation: torch.Tensor):
    """What the best possible network tells of normal data: data and noise given the mixture, in closed form."""

    def parts(mixed, level):
        signal, noise = level.signal, level.noise
        share = signal * deviation**2 / (signal**2 * deviation**2 + noise**2)
        data = mean + share * (mixed - signal * mean)
        return data, (mixed - signal * data) / noise.clamp_min(1e-6)

    return parts


@pytest.mark.parametrize(
    ("kind", "sampler", "steps"),
    [("flow", "euler", 200), ("flow", "heun", 30), ("ddpm", "ddim", 200), ("ddpm", "heun", 40)],
)
def test_samplers_give_the_distribution_of_a_gaussian(kind, sampler, steps):
    process = Process(name=kind, predicts="velocity")
    mean, deviation = torch.tensor([[2.0, -1.0]]), torch.tensor([[0.5, 1.5]])
    start = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    found = sample(start, process, gaussian(process, mean, deviation), sampler=sampler, steps=steps)
    torch.testing.assert_close(found.mean(0), mean[0], rtol=0, atol=0.06)
    torch.testing.assert_close(found.std(0), deviation[0], rtol=0.04, atol=0)


def test_heun_is_nearer_than_euler_for_the_same_looks():
    """To the exact end of each path: normal data move along x = mean + deviation * start."""
    process = Process(name="flow", predicts="velocity")
    mean, deviation = torch.tensor([[2.0]]), torch.tensor([[0.5]])
    start = torch.randn(200, 1, generator=torch.Generator().manual_seed(0))
    exact = mean + deviation * start
    parts = gaussian(process, mean, deviation)
    euler = (sample(start, process, parts, sampler="euler", steps=20) - exact).abs().max()
    heun = (sample(start, process, parts, sampler="heun", steps=10) - exact).abs().max()
    assert heun < euler / 3


@pytest.mark.parametrize("kind", ["flow", "ddpm"])
@pytest.mark.parametrize("predicts", ["velocity", "noise"])
def test_what_is_predicted_gives_data_and_noise_back(kind, predicts):
    if kind == "flow" and predicts == "noise":
        return
    process = Process(name=kind, predicts=predicts)
    data, eps = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)).unbind(0)
    level = process.level(torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]))
    mixed = process.mixed(data, eps, level)
    found = process.parts(process.truth(data, eps, level), mixed, level)
    torch.testing.assert_close(found, (data, eps), rtol=1e-3, atol=1e-4)


def model(config: NoiseConfig | None = None, *, steered: bool = True):
    """A small task with its network: grey pictures and their class."""
    from sonde.artifact.model import Model

    rng = np.random.default_rng(0)
    records = Records(
        fields={
            "image": rng.integers(0, 256, (12, 8, 8), dtype=np.uint8),
            "label": np.array(["a", "b"] * 6, dtype=object),
        },
        ids=[str(place) for place in range(12)],
    )
    inputs = {"image": Image.fit(ImageConfig(), records)}
    configs = {"image": UNetConfig(widths=(4, 8), norm="group", residual=True)}
    if steered:
        inputs["label"] = Table.fit(TableConfig(fields=("label",), allow_unknown=False), records)
        configs["label"] = MlpConfig(hidden=())
    config = config or NoiseConfig(generate=Generate(steps=3))
    task = Task(inputs=inputs, target=Noise.fit(config, records, inputs))
    torch.manual_seed(0)
    network = build(configs, task).eval()
    with torch.no_grad():
        # As trained: at first nothing steers.
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return Model(task=task, network=network, card={}, device=torch.device("cpu")), records


def test_a_picture_made_alone_is_that_of_a_batch():
    made, _ = model()
    together = made.make(5, {"label": "b"})
    alone = made.make(1, {"label": "b"}, first=3)
    assert [each["number"] for each in together] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(alone[0]["picture"], together[3]["picture"], atol=1e-5)
    assert np.abs(together[0]["picture"] - together[1]["picture"]).max() > 0.05
    other = made.with_settings({"seed": 1}).make(1, {"label": "b"})
    assert np.abs(other[0]["picture"] - together[0]["picture"]).max() > 0.05


def test_guidance_goes_beyond_the_class():
    """answer = plain + guidance * (answer for the class - plain): one step of Euler shows it."""
    made, _ = model(NoiseConfig(generate=Generate(sampler="euler", steps=1)))
    target, network = made.task.target, made.network
    task = made.task.for_answers
    columns, _, _ = task.encode_inputs(Records.of([{"label": "a"}]))
    from sonde.contracts.batch import Examples

    batch = task.collate(Examples(inputs=columns, truth={}, count=1), torch.arange(1))

    def at(guidance):
        config = target.config.model_copy(update={"generate": Generate(sampler="euler", steps=1, guidance=guidance)})
        return dataclasses.replace(target, config=config).make(network, batch)

    plain, one, three = at(0.0), at(1.0), at(3.0)
    assert (one - plain).abs().max() > 1e-3
    torch.testing.assert_close(three, plain + 3 * (one - plain), rtol=1e-4, atol=1e-4)


def test_hidden_classes_steer_nothing():
    made, records = model()
    batch = made.task.preprocess(made.task.collate(encode(made.task, records).examples, torch.arange(12)))
    target = made.task.target
    rng = BatchRng(seed=0, epoch=0, records_B=torch.arange(12))
    other = encode(made.task, records.with_fields(label=records.fields["label"][::-1].copy())).examples
    swapped = made.task.preprocess(made.task.collate(other, torch.arange(12)))
    time_B = torch.full((12,), 0.5)
    with torch.no_grad():
        hidden = [target._errors(made.network, each, time_B, rng, torch.zeros(12)) for each in (batch, swapped)]
        shown = [target._errors(made.network, each, time_B, rng, torch.ones(12)) for each in (batch, swapped)]
    torch.testing.assert_close(*hidden)
    assert (shown[0] - shown[1]).abs().max() > 1e-4


def test_what_goes_wrong_is_told():
    made, _ = model()
    with pytest.raises(UserError, match="0 answers cannot be made"):
        made.make(0)
    with pytest.raises(UserError, match=r"'guidanc' does not exist.*did you mean 'guidance'"):
        made.with_settings({"guidanc": 2})
    with pytest.raises(UserError, match="steps cannot be 0"):
        made.with_settings({"steps": 0})
    with pytest.raises(Exception, match=r"field 'label' is 'c', which training did not show.*one of: a, b"):
        made.make(1, {"label": "c"})
    plain, _ = model(steered=False)
    with pytest.raises(UserError, match="guidance is 2, and nothing steers this model"):
        plain.with_settings({"guidance": 2}).make(1)
    assert set(plain.make(1)[0]) == {"number", "picture"}
    with pytest.raises(UserError, match="guidance is 2, and nothing steers this model"):
        model(NoiseConfig(generate=Generate(guidance=2)), steered=False)
    with pytest.raises(UserError, match="drop_condition 0: the network never learns"):
        model(NoiseConfig(drop_condition=0, generate=Generate(guidance=2)))


def test_settings_that_do_not_go_together(tmp_path):
    with pytest.raises(ValueError, match="predicts = 'noise' is for process = 'ddpm'"):
        NoiseConfig(predicts="noise")
    with pytest.raises(ValueError, match="eta is for sampler ddim"):
        Generate(eta=0.5)


def test_pictures_are_made_for_what_training_had():
    made, _ = model()
    labels = {each["label"] for each in made.make(12)}
    assert labels == {"a", "b"}
